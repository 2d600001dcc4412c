//! The man pages: one for each verb that `--help` shows, with all that it takes.

use std::fs;
use std::path::Path;

use crate::harness::Cmd;
use crate::harness::command::binary;

/// The verbs that a help lists.
fn verbs(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|line| !line.eq_ignore_ascii_case("commands:")).skip(1);
    let listed = lines.take_while(|line| !line.is_empty());
    listed.filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

/// Checks the page of these words and those of the verbs beneath them, and counts them.
fn check(pages: &Path, words: &[&str]) -> usize {
    let name = words.join("-");
    let page = fs::read_to_string(pages.join(format!("{name}.1"))).expect(&name);
    // As it is read: roff's escapes taken off.
    let page = page.replace("\\&", "").replace("\\-", "-");
    assert!(page.contains(&format!(".SH NAME\n{name} - ")), "{name} is not named:\n{page}");
    let outcome = Cmd::new(binary(words[0])).args(&words[1..]).arg("--help").run().success();
    let help = outcome.stdout;
    for flag in help.lines().filter_map(|line| line.trim_start().split("--").nth(1)) {
        let flag = flag.split([' ', '=', '[']).next().unwrap();
        assert!(page.contains(&format!("--{flag}")), "{name} lacks --{flag}:\n{page}");
    }
    let beneath = verbs(&help);
    let counts = beneath.iter().map(|verb| {
        assert!(page.contains(&format!("{name}-{verb} (1)")), "{name} lacks {verb}:\n{page}");
        check(pages, &[words, &[verb]].concat())
    });
    1 + counts.sum::<usize>()
}

#[test]
fn every_verb_has_a_man_page() {
    let pages = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/man");
    let bin = binary("runtime").parent().unwrap().to_owned();
    Cmd::new(script).arg(pages.path()).arg(bin).run().success();
    let programs = ["runtime", "imgtool", "netsetup"];
    let checked: usize = programs.iter().map(|program| check(pages.path(), &[program])).sum();
    assert!(checked > 80, "{checked} pages");
    assert_eq!(fs::read_dir(pages.path()).unwrap().count(), checked);
}
