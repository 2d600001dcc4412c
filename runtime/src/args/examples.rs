//! Lines to begin with, at the end of each command's help.

/// By command, each line as it may be typed.
const EXAMPLES: [(&str, &str); 27] = [
    ("attach", "runtime attach web\nruntime attach --detach-keys ctrl-x web"),
    ("checkpoint", "runtime checkpoint --image-path /var/tmp/web web"),
    ("completion", "runtime completion bash"),
    ("create", "runtime create -b bundle web"),
    ("delete", "runtime delete web db\nruntime delete -f web"),
    ("events", "runtime events --stats web\nruntime events --interval 1s web"),
    ("exec", "runtime exec -t web sh\nruntime exec -e KEY=value --cwd /tmp web env"),
    ("features", "runtime features"),
    ("inspect", "runtime inspect web db"),
    ("kill", "runtime kill web KILL"),
    ("list", "runtime list -f wide\nruntime list -q --filter status=exited"),
    ("logs", "runtime logs -f -n 20 web\nruntime logs --since 10m -t --stream stderr web"),
    ("mounts", "runtime mounts add web mounts.json\nruntime mounts remove web -"),
    ("pause", "runtime pause web"),
    ("ps", "runtime ps web\nruntime ps -f json web"),
    ("restart", "runtime restart --time 5 web"),
    ("restore", "runtime restore --image-path /var/tmp/web -b bundle -d web"),
    ("resume", "runtime resume web"),
    (
        "run",
        "runtime run -b bundle c1\nruntime run --supervise -b bundle\n\
         runtime run --supervise --detach --restart on-failure:3 -b bundle web",
    ),
    ("spec", "runtime spec -b bundle\nruntime spec --rootless"),
    ("start", "runtime start web db\nruntime start --boot"),
    ("state", "runtime state web"),
    ("stats", "runtime stats\nruntime stats --no-stream web"),
    ("stop", "runtime stop --time 30 web db"),
    ("unit", "runtime unit web"),
    ("update", "runtime update --memory 268435456 --cpu-quota 50000 web"),
    ("wait", "runtime wait web db"),
];

/// What follows the options in the help.
pub(super) fn of(command: &str) -> Option<String> {
    let (_, lines) = EXAMPLES.iter().find(|(name, _)| *name == command)?;
    Some(format!("\nEXAMPLES:\n   {}\n", lines.replace('\n', "\n   ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Command, Request, open};
    use crate::host::Program;

    #[test]
    fn every_command_has_examples_that_are_right() {
        let names: Vec<&str> = EXAMPLES.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, Command::NAMES);
        for line in EXAMPLES.iter().flat_map(|(_, lines)| lines.lines()) {
            let words: Vec<String> = line.split_whitespace().skip(1).map(str::to_owned).collect();
            let read =
                open(Program::Runtime, &words).and_then(super::super::line::Opening::request);
            assert!(matches!(read, Ok(Request::Run(_))), "{line}: {:?}", read.err());
        }
    }
}
