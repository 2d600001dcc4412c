//! `completion`: what a shell completes our command lines by. Generated here, since what generates it
//! for any program would make this one larger than all else it has for people.

use clap::{Args, ValueEnum};

use super::line::whole;
use crate::host::Program;

#[derive(Args, Clone, Debug)]
pub(crate) struct Completion {
    /// the shell whose start file is to read the script: bash, zsh or fish
    #[arg(value_name = "shell")]
    pub(crate) shell: Shell,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Shell {
    /// The script.
    pub(crate) fn script(self) -> String {
        let line = whole(Program::Runtime);
        match self {
            Shell::Bash => bash(&line),
            Shell::Zsh => format!("autoload -U +X bashcompinit && bashcompinit\n{}", bash(&line)),
            Shell::Fish => fish(&line),
        }
    }
}

fn verbs(line: &clap::Command) -> impl Iterator<Item = (&str, &clap::Command)> {
    line.get_subcommands().map(|verb| (verb.get_name(), verb))
}

/// `--detach --bundle …`
fn flags(command: &clap::Command) -> String {
    let long = command.get_arguments().filter(|argument| !argument.is_hide_set());
    let long = long.filter_map(|argument| argument.get_long()).map(|long| format!("--{long}"));
    long.chain(["--help".to_owned()]).collect::<Vec<_>>().join(" ")
}

/// What is no flag is a container, or a file.
fn bash(line: &clap::Command) -> String {
    let names: Vec<&str> = verbs(line).map(|(name, _)| name).collect();
    let cases: String = verbs(line)
        .map(|(name, verb)| format!("    {name}) flags='{}' ;;\n", flags(verb)))
        .collect();
    format!(
        r#"_runtime() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} verb= flags= i
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${{COMP_WORDS[i]}} in
        {alternatives}) verb=${{COMP_WORDS[i]}}; break ;;
        esac
    done
    case $verb in
    '') flags='{names} {globals}' ;;
{cases}    esac
    [[ -z $verb || $word == -* ]] || flags=$(runtime list -q 2>/dev/null)
    COMPREPLY=($(compgen -W "$flags" -- "$word"))
}}
complete -o default -F _runtime runtime
"#,
        alternatives = names.join("|"),
        names = names.join(" "),
        globals = flags(line),
    )
}

fn fish(line: &clap::Command) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
    let mut script = String::new();
    let mut options = |condition: &str, command: &clap::Command| {
        for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
            let Some(long) = argument.get_long() else { continue };
            let short = argument.get_short().map(|c| format!(" -s {c}")).unwrap_or_default();
            let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
            script.push_str(&format!(
                "complete -c runtime -n {condition} -l {long}{short} -d {}\n",
                quoted(&help)
            ));
        }
    };
    options("__fish_use_subcommand", line);
    for (name, verb) in verbs(line) {
        options(&format!("'__fish_seen_subcommand_from {name}'"), verb);
    }
    for (name, verb) in verbs(line) {
        let about = verb.get_about().map(ToString::to_string).unwrap_or_default();
        script.push_str(&format!(
            "complete -c runtime -n __fish_use_subcommand -f -a {name} -d {}\n",
            quoted(&about)
        ));
    }
    script.push_str(
        "complete -c runtime -n 'not __fish_use_subcommand' -a '(runtime list -q 2>/dev/null)'\n",
    );
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_know_the_verbs_and_their_flags() {
        let bash = Shell::Bash.script();
        assert!(bash.contains("    wait) flags='--help' ;;\n"), "{bash}");
        assert!(bash.contains("|restore|") && bash.contains(" --systemd-cgroup "));
        assert!(Shell::Zsh.script().ends_with(&bash));
        let fish = Shell::Fish.script();
        assert!(fish.contains("'__fish_seen_subcommand_from logs' -l follow -s f -d 'go on with"));
        assert!(
            fish.contains("-d 'send the specified signal (default: SIGTERM) to the container\\'s")
        );
    }
}
