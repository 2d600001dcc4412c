//! Lines to begin with, at the end of each verb's help.

/// By verb, each line as it may be typed.
const EXAMPLES: [(&str, &str); 35] = [
    (
        "build",
        "imgtool build -t site:v1 .\nimgtool build -t site --build-arg MODE=test --target base -f Dockerfile.dev .",
    ),
    (
        "bundle",
        "imgtool bundle centos\nimgtool bundle --rm -t -i centos -- /bin/bash\n\
         imgtool bundle -p 8080:80 -v data:/data -m 256m --cpus 1.5 --name web site:v1",
    ),
    ("bundles", "imgtool bundles\nimgtool bundles -q"),
    ("commit", "imgtool commit web site:v2\nimgtool commit -m installed -a me web site:v2"),
    ("completion", "imgtool completion bash"),
    (
        "copy",
        "imgtool copy docker://centos:7 oci:layout:centos\nimgtool copy --all docker://alpine docker://localhost:5000/alpine",
    ),
    ("cp", "imgtool cp app.conf web:/etc/\nimgtool cp web:/var/log ."),
    ("delete", "imgtool delete docker://localhost:5000/lib/site:v1"),
    ("diff", "imgtool diff web"),
    ("export", "imgtool export -o web.tar web"),
    ("history", "imgtool history --no-trunc site"),
    ("images", "imgtool images\nimgtool images -q --filter dangling=true"),
    ("import", "imgtool import web.tar site:flat"),
    ("info", "imgtool info"),
    (
        "inspect",
        "imgtool inspect site\nimgtool inspect -f {{.Config.Cmd}} site\nimgtool inspect docker://alpine",
    ),
    ("list-tags", "imgtool list-tags docker://alpine"),
    ("load", "imgtool load -i site.tar"),
    ("login", "imgtool login -u me --password-stdin localhost:5000"),
    ("logout", "imgtool logout localhost:5000"),
    ("manifest", "imgtool manifest create site:all site:amd64 site:arm64"),
    ("mount", "imgtool mount web"),
    ("mutate", "imgtool mutate --env KEY=value --tag site:v3 site:v2"),
    ("prune", "imgtool prune\nimgtool prune --build-cache"),
    (
        "pull",
        "imgtool pull centos\nimgtool pull --platform linux/arm64 localhost:5000/lib/tomcat:latest",
    ),
    ("push", "imgtool push localhost:5000/me/site:v1"),
    (
        "rebase",
        "imgtool rebase --old-base alpine:3.19 --new-base alpine:3.20 --tag site:v4 site:v3",
    ),
    ("rm", "imgtool rm web"),
    ("rmi", "imgtool rmi site:v1 site:v2"),
    ("save", "imgtool save -o site.tar site:v1"),
    ("search", "imgtool search centos\nimgtool search --limit 5 localhost:5000/lib"),
    ("tag", "imgtool tag site localhost:5000/me/site:v1"),
    ("umount", "imgtool umount web"),
    ("untag", "imgtool untag site:old"),
    ("verify", "imgtool verify"),
    (
        "volume",
        "imgtool volume create data\nimgtool volume create --opt type=nfs --opt o=addr=10.0.0.1 --opt device=:/srv far",
    ),
];

/// The command line with its examples.
pub(super) fn add(mut line: clap::Command) -> clap::Command {
    for (verb, lines) in EXAMPLES {
        let help = format!("Examples:\n  {}", lines.replace('\n', "\n  "));
        line = line.mut_subcommand(verb, |command| command.after_help(help));
    }
    line
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::args::Cli;

    #[test]
    fn every_verb_has_examples_that_are_right() {
        let line = add(Cli::command());
        for verb in line.get_subcommands() {
            assert!(verb.get_after_help().is_some(), "{}", verb.get_name());
        }
        for words in EXAMPLES.iter().flat_map(|(_, lines)| lines.lines()) {
            let read = line.clone().try_get_matches_from(words.split_whitespace());
            assert!(read.is_ok(), "{words}: {}", read.unwrap_err());
        }
    }
}
