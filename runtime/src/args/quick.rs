//! The lines that engines and pipelines send by the thousand, read without clap's tables: to set those
//! up takes as long as to make a network namespace. Whatever is rarer, or wrong, is left to `line`, which
//! comes to the same where both can read a line.

use std::path::PathBuf;
use std::slice::Iter;

use super::{
    Command, Create, Delete, Exec, Globals, Kill, OneId, ProcessSetup, Run, Setup, Start,
    Supervision,
};

/// The options before the command, and the command with its words.
pub(super) fn globals(words: &[String]) -> Option<(Globals, &[String])> {
    let mut globals = Globals {
        debug: false,
        log: None,
        log_format: "text".to_owned(),
        records: None,
        root: None,
        systemd_cgroup: false,
        rootless: "auto".to_owned(),
    };
    let mut line = words.iter();
    let first = flags(&mut line, |flag| match flag.name {
        "--debug" => flag.switch(&mut globals.debug),
        "--log" => flag.path(&mut globals.log),
        "--log-format" => flag.text(&mut globals.log_format),
        "--records" => flag.path(&mut globals.records),
        "--root" => flag.path(&mut globals.root),
        "--rootless" => flag.text(&mut globals.rootless),
        "--systemd-cgroup" => flag.switch(&mut globals.systemd_cgroup),
        _ => None,
    })?;
    first.map(|_| (globals, &words[words.len() - line.len() - 1..]))
}

/// The command with what follows its name.
pub(super) fn command(name: &str, words: &[String]) -> Option<Command> {
    let words = words.iter();
    Some(match name {
        "create" => Command::Create(Create { setup: setup(words, |_| None)? }),
        "delete" => {
            let mut force = false;
            let id = one_id(words, |flag| match flag.name {
                "--force" | "-f" => flag.switch(&mut force),
                _ => None,
            })?;
            Command::Delete(Delete { force, regex: false, ids: vec![id] })
        }
        "exec" => Command::Exec(Box::new(exec(words)?)),
        "kill" => kill(words)?,
        "run" => {
            let (mut detach, mut keep) = (false, false);
            let setup = setup(words, |flag| match flag.name {
                "--detach" | "-d" => flag.switch(&mut detach),
                "--keep" => flag.switch(&mut keep),
                _ => None,
            })?;
            let supervision = Supervision::default();
            Command::Run(Box::new(Run { detach, keep, no_subreaper: false, supervision, setup }))
        }
        "start" => Command::Start(Start { boot: false, ids: vec![one_id(words, |_| None)?] }),
        "state" => Command::State(OneId { id: one_id(words, |_| None)? }),
        _ => return None,
    })
}

fn setup(words: Iter<String>, mut own: impl FnMut(Flag) -> Option<()>) -> Option<Setup> {
    let mut setup = Setup::default();
    let id = one_id(words, |flag| match flag.name {
        "--bundle" | "-b" => flag.path(&mut setup.bundle),
        "--no-new-keyring" => flag.switch(&mut setup.no_new_keyring),
        "--no-pivot" => flag.switch(&mut setup.no_pivot),
        "--console-socket" | "--pid-file" => process(flag, &mut setup.process),
        _ => own(flag),
    })?;
    setup.id = Some(id);
    Some(setup)
}

fn process(flag: Flag, setup: &mut ProcessSetup) -> Option<()> {
    match flag.name {
        "--console-socket" => flag.path(&mut setup.console_socket),
        _ => flag.path(&mut setup.pid_file),
    }
}

fn exec(mut words: Iter<String>) -> Option<Exec> {
    let mut exec = Exec::default();
    let id = flags(&mut words, |flag| match flag.name {
        "--console-socket" | "--pid-file" => process(flag, &mut exec.process_setup),
        "--cwd" => flag.value().map(|value| exec.cwd = Some(value.to_owned())),
        "--detach" | "-d" => flag.switch(&mut exec.detach),
        "--env" | "-e" => flag.value().map(|value| exec.env.push(value.to_owned())),
        "--no-new-privs" => flag.switch(&mut exec.no_new_privs),
        "--process" | "-p" => flag.path(&mut exec.process),
        "--tty" | "-t" => flag.switch(&mut exec.tty),
        "--user" | "-u" => flag.value().map(|value| exec.user = Some(value.to_owned())),
        _ => None,
    })?;
    exec.id = id?.to_owned();
    exec.args = words.cloned().collect();
    // A `--` here ends the flags, and is not the command's.
    (exec.args.first().map(String::as_str) != Some("--")).then_some(exec)
}

fn kill(mut words: Iter<String>) -> Option<Command> {
    let mut all = false;
    let id = flags(&mut words, |flag| match flag.name {
        "--all" | "-a" => flag.switch(&mut all),
        _ => None,
    })??;
    let rest: Vec<String> = words.cloned().collect();
    let plain = rest.len() <= 1 && rest.iter().all(|word| !word.starts_with('-'));
    plain.then(|| Command::Kill(Kill { all, regex: false, id: id.to_owned(), rest }))
}

/// A line of flags and one word, in any order.
fn one_id(mut words: Iter<String>, mut take: impl FnMut(Flag) -> Option<()>) -> Option<String> {
    let id = flags(&mut words, &mut take)??;
    flags(&mut words, &mut take)?.is_none().then(|| id.to_owned())
}

/// Hands out flags up to the first word that is none, and that word, if there is one. `None` where the
/// line is not as plain as that.
fn flags<'a>(
    words: &mut Iter<'a, String>,
    mut take: impl FnMut(Flag<'a, '_>) -> Option<()>,
) -> Option<Option<&'a str>> {
    while let Some(word) = words.next() {
        if !word.starts_with('-') {
            return Some(Some(word));
        }
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word.as_str(), None),
        };
        take(Flag { name, value, rest: words })?;
    }
    Some(None)
}

struct Flag<'a, 'line> {
    /// With its dashes.
    name: &'a str,
    value: Option<&'a str>,
    rest: &'line mut Iter<'a, String>,
}

impl<'a> Flag<'a, '_> {
    fn switch(self, slot: &mut bool) -> Option<()> {
        *slot = true;
        self.value.is_none().then_some(())
    }

    fn value(self) -> Option<&'a str> {
        let value = self.value.or_else(|| self.rest.next().map(String::as_str));
        value.filter(|value| !value.is_empty())
    }

    fn path(self, slot: &mut Option<PathBuf>) -> Option<()> {
        *slot = Some(self.value()?.into());
        Some(())
    }

    fn text(self, slot: &mut String) -> Option<()> {
        self.value()?.clone_into(slot);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Request;
    use super::super::line::{open, open_by_grammar};
    use super::*;
    use crate::host::Program;

    /// What the words come to by both ways, as text; the first is `None` where they are no plain line.
    fn both(program: Program, words: &[&str]) -> (Option<String>, String) {
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        let quick = globals(&words)
            .and_then(|(globals, rest)| Some((globals, command(&rest[0], &rest[1..])?)))
            .map(|read| format!("{read:?}"));
        let slow = match open_by_grammar(program, &words) {
            Err(misuse) => misuse.message,
            Ok(opening) => {
                let globals = opening.globals.clone();
                match opening.request_by_grammar() {
                    Err(misuse) => misuse.message,
                    Ok(Request::Print(text)) => text,
                    Ok(Request::Run(command)) => format!("{:?}", (globals, command)),
                }
            }
        };
        (quick, slow)
    }

    fn split(line: &str) -> Vec<&str> {
        line.split_whitespace().collect()
    }

    #[test]
    fn the_lines_of_engines_and_pipelines_are_read_without_clap_and_alike() {
        for line in [
            "create c",
            "--root /r --log /l --log-format json --systemd-cgroup create --bundle /b --pid-file /p \
             --no-pivot --no-new-keyring --console-socket=/s c",
            "--root=/r --records /x --rootless=false --debug run -b /b -d --keep c",
            "run c --detach --bundle=/b=c",
            "--systemd-cgroup start c",
            "state c",
            "kill c",
            "kill --all c 9",
            "kill -a c SIGTERM",
            "delete --force c",
            "delete c -f",
            "exec c true",
            "exec --process /f --detach --pid-file /p --console-socket /s c",
            "exec -t --no-new-privs -e A=1 --env B=2,3 --env=C= --cwd /w -u 1:2 c ls -l --all --",
            "exec c - -x",
            "--root /a --root /b state c",
        ] {
            for program in [Program::Runtime, Program::Runc] {
                let (quick, slow) = both(program, &split(line));
                // runc has no --records.
                if program == Program::Runtime || !line.contains("--records") {
                    assert_eq!(quick.as_deref(), Some(slow.as_str()), "{line}");
                }
            }
        }
    }

    #[test]
    fn other_lines_are_left_to_clap() {
        for line in [
            "",
            "--root",
            "--root /r",
            "-v",
            "--version",
            "-root /r state c",
            "--debug=true state c",
            "--root= state c",
            "state",
            "state a b",
            "state -- c",
            "state --help",
            "start a b",
            "start --boot",
            "create",
            "create -f /c c",
            "create --preserve-fds 2 c",
            "run --rm c",
            "run -d=true c",
            "run -bd c",
            "run --supervise c",
            "kill",
            "kill -9 c",
            "kill c -9",
            "kill a b 9",
            "kill --regex a",
            "delete a b",
            "delete --regex a",
            "exec",
            "exec -td c sh",
            "exec c -- sh",
            "exec --cap CAP_KILL c sh",
            "exec --",
            "list",
            "foo",
            "--foo",
            "-",
            "exec -e",
            "create --bundle",
        ] {
            assert_eq!(both(Program::Runtime, &split(line)).0, None, "{line}");
        }
    }

    #[test]
    fn a_quick_answer_is_the_slow_one_whatever_the_words() {
        let words = [
            "--root",
            "--debug",
            "--debug=1",
            "--log=",
            "--log-format=json",
            "create",
            "run",
            "exec",
            "kill",
            "delete",
            "state",
            "start",
            "-b",
            "--bundle=/b",
            "-d",
            "--detach",
            "-t",
            "-e",
            "-f",
            "-a",
            "--all",
            "--",
            "-",
            "c",
            "9",
            "--force",
            "--pid-file",
            "-e=A",
            "--cwd",
            "",
        ];
        // A small generator of its own: the same lines at every run.
        let mut state = 7_u32;
        let mut next = |below: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as usize % below
        };
        let mut quick_ones = 0;
        for _ in 0..2_000 {
            let count = 1 + next(6);
            let line: Vec<&str> = (0..count).map(|_| words[next(words.len())]).collect();
            let program = if next(2) == 0 { Program::Runtime } else { Program::Runc };
            let (quick, slow) = both(program, &line);
            if let Some(quick) = quick {
                quick_ones += 1;
                assert_eq!(quick, slow, "{line:?}");
            }
        }
        assert!(quick_ones > 20, "{quick_ones}");
    }

    #[test]
    fn the_two_ways_meet_in_open() {
        let words = ["--root", "/r", "state", "c"].map(str::to_owned);
        let Ok(opening) = open(Program::Runc, &words) else { panic!() };
        assert_eq!(opening.globals.root, Some("/r".into()));
        assert!(matches!(opening.request(), Ok(Request::Run(Command::State(_)))));
    }
}
