//! Lines to begin with, at the end of each command's help.

/// By command, each line as it may be typed.
const EXAMPLES: [(&str, &str); 18] = [
    (
        "bridge create",
        "netsetup bridge create net1 --subnet 10.9.0.0/24\nnetsetup bridge create net2 --ipv6",
    ),
    ("bridge list", "netsetup bridge list"),
    ("bridge inspect", "netsetup bridge inspect net1"),
    ("bridge delete", "netsetup bridge delete net1 net2"),
    ("bridge prune", "netsetup bridge prune"),
    ("attach", "netsetup attach web --network net1 -p 8080:80"),
    ("detach", "netsetup detach web"),
    ("publish", "netsetup publish web 8443:443/tcp 5353:53/udp"),
    ("unpublish", "netsetup unpublish web 8443"),
    ("ports", "netsetup ports\nnetsetup ports web"),
    ("forward", "netsetup forward\nnetsetup forward on --persist"),
    ("hook", "netsetup hook --network net1 --publish 8080:80"),
    ("inspect", "netsetup inspect web"),
    ("status", "netsetup status\nnetsetup status --format json"),
    ("check", "netsetup check"),
    ("restore", "netsetup restore"),
    ("gc", "netsetup gc"),
    ("completion", "netsetup completion bash"),
];

/// The command line with its examples.
pub(super) fn add(mut line: clap::Command) -> clap::Command {
    for (path, lines) in EXAMPLES {
        let help = format!("Examples:\n  {}", lines.replace('\n', "\n  "));
        line = match path.split_once(' ') {
            Some((outer, inner)) => line.mut_subcommand(outer, |command| {
                command.mut_subcommand(inner, |command| command.after_help(help))
            }),
            None => line.mut_subcommand(path, |command| command.after_help(help)),
        };
    }
    line
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::args::Arguments;

    #[test]
    fn every_command_has_examples_that_are_right() {
        let line = add(Arguments::command());
        let mut count = 0;
        for command in line.get_subcommands() {
            if command.get_after_help().is_some() {
                count += 1;
                continue;
            }
            for inner in command.get_subcommands() {
                assert!(inner.get_after_help().is_some(), "{}", inner.get_name());
                count += 1;
            }
            assert!(command.has_subcommands(), "{}", command.get_name());
        }
        assert_eq!(count, EXAMPLES.len());
        for words in EXAMPLES.iter().flat_map(|(_, lines)| lines.lines()) {
            let read = line.clone().try_get_matches_from(words.split_whitespace());
            assert!(read.is_ok(), "{words}: {:?}", read.err());
        }
    }
}
