use super::*;

fn parse(text: &str) -> Vec<Step> {
    Dockerfile::parse(text).unwrap().steps
}

fn error(text: &str) -> String {
    let error = Dockerfile::parse(text).unwrap_err();
    let at = error.downcast_ref::<At>().map_or(0, |at| at.lines.first);
    format!("{at}: {error}")
}

#[test]
fn directives_stand_at_the_top_only() {
    let file = Dockerfile::parse("#!/usr/bin/env x\n# syntax=docker/dockerfile:1\n#ESCAPE=`\n# check = skip=all;error=true\nFROM a\n").unwrap();
    assert_eq!(file.directives.syntax.as_deref(), Some("docker/dockerfile:1"));
    assert_eq!(file.directives.escape, '`');
    assert_eq!(file.directives.check, Some(("skip=all;error=true".to_owned(), 4)));
    let file = Dockerfile::parse("# a comment\n# escape=`\nFROM a").unwrap();
    assert_eq!(file.directives.escape, '\\');
    let file = Dockerfile::parse("\n# escape=`\nFROM a").unwrap();
    assert_eq!(file.directives.escape, '\\');
    assert!(error("# escape=x\nFROM a").starts_with("1: "));
    assert!(error("# escape=`\n# escape=\\\nFROM a").contains("only one escape"));
}

#[test]
fn lines_are_joined_without_comments_and_gaps() {
    let steps = parse("FROM a\nRUN one \\\n  # comment\n\n  two \\  \n\n# more\nthree\nCMD x\n");
    assert_eq!(steps[1].text, "RUN one   two three");
    assert_eq!(steps[1].lines, Lines { first: 2, last: 8 });
    assert!(steps[1].gap && !steps[2].gap);
    assert_eq!(steps[2].lines, Lines { first: 9, last: 9 });
    // Two escapes are none.
    assert_eq!(parse("FROM a\nRUN x \\\\\nRUN y").len(), 3);
    assert_eq!(parse("\u{feff}FROM a\r\nRUN a \\\r\n b\r\n")[1].text, "RUN a  b");
}

#[test]
fn heredocs_take_the_lines_after_their_instruction() {
    let steps = parse(
        "FROM a\nRUN <<EOF cat <<-'two' > /x\nbody $x\nEOF\n\t\tindented\n\ttwo\nCOPY <<a.txt <<\"b\" /d/\nA\na.txt\nB\nb\nCMD y",
    );
    let Instruction::Run(run) = &steps[1].instruction else { panic!() };
    assert_eq!(run.heredocs[0].body, "body $x\n");
    assert!(run.heredocs[0].expands && !run.heredocs[1].expands);
    assert_eq!(run.heredocs[1].body, "indented\n");
    assert_eq!(steps[1].lines, Lines { first: 2, last: 6 });
    let Instruction::Transfer(copy) = &steps[2].instruction else { panic!() };
    assert_eq!(copy.sources, ["<<a.txt", "<<\"b\""]);
    assert_eq!(copy.heredocs[1].name, "b");
    assert!(error("FROM a\nRUN <<EOF\nx").contains("unterminated heredoc EOF"));
    assert_eq!(parse("FROM a\nRUN [\"cat\", \"<<EOF\"]\nCMD x").len(), 3);
    assert_eq!(parse("FROM a\nRUN echo \"<<EOF\" $((1<<3)) <<<word\nCMD x").len(), 3);
    let steps = parse("FROM a\nONBUILD RUN <<EOF\nx\nEOF\nCMD y");
    assert_eq!(steps[1].instruction, Instruction::Onbuild("RUN <<EOF\nx\nEOF".to_owned()));
}

#[test]
fn flags_are_checked() {
    let steps = parse(
        "FROM --platform=$P a AS b\nCOPY --from=b --chown=1:2 --link --exclude=*.a --exclude=\"b c\" x y\nRUN --mount=type=cache,target=/c --mount=type=tmpfs,target=/t --network=none x",
    );
    let Instruction::Transfer(copy) = &steps[1].instruction else { panic!() };
    assert_eq!((copy.from.as_deref(), copy.link), (Some("b"), true));
    assert_eq!(copy.exclude, ["*.a", "b c"]);
    let Instruction::Run(run) = &steps[2].instruction else { panic!() };
    assert_eq!(run.mounts.len(), 2);
    for (line, words) in [
        ("COPY --chwon=1 a b", "unknown flag: --chwon (did you mean chown?)"),
        ("COPY --from=a --from=b a b", "duplicate flag specified: --from"),
        ("COPY --link=yes a b", "expecting boolean value for flag --link"),
        ("COPY --from a b", "missing a value on flag: --from"),
        ("ENV --x=1 a=b", "unknown flag: --x"),
    ] {
        let error = error(&format!("FROM a\n{line}"));
        assert!(error.starts_with("2: ") && error.contains(words), "{error}");
    }
}

#[test]
fn commands_are_json_only_if_all_of_them_is() {
    let command = |line: &str| match &parse(&format!("FROM a\n{line}"))[1].instruction {
        Instruction::Cmd(command) | Instruction::Entrypoint(command) => command.clone(),
        other => panic!("{other:?}"),
    };
    let words = |words: &[&str]| Command::Exec(words.iter().map(|w| (*w).to_owned()).collect());
    assert_eq!(command("CMD [\"a\", \"b c\"]"), words(&["a", "b c"]));
    assert_eq!(command("CMD []"), words(&[]));
    assert_eq!(command("CMD ['a']"), Command::Shell("['a']".to_owned()));
    assert_eq!(command("ENTRYPOINT [\"a\"] x"), Command::Shell("[\"a\"] x".to_owned()));
    assert!(error("FROM a\nCMD [\"a\", 1]").contains("only string values"));
}

#[test]
fn what_makes_no_sense_is_refused_with_its_line() {
    for (line, words) in [
        ("FORM b", "unknown instruction: FORM (did you mean FROM?)"),
        ("RUN", "RUN requires at least one argument"),
        ("COPY a", "requires at least two arguments"),
        ("FROM a AS", "either one or three"),
        ("FROM a AS 1x", "invalid name for build stage"),
        ("ENV a", "ENV must have two arguments"),
        ("ENV a=b c", "can't find = in \"c\""),
        ("ENV =b", "names can not be blank"),
        ("SHELL /bin/sh", "JSON form"),
        ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD"),
        ("ONBUILD FROM x", "isn't allowed as an ONBUILD trigger"),
        ("HEALTHCHECK RUN x", "unknown type \"RUN\" in HEALTHCHECK"),
        ("HEALTHCHECK --interval=1x CMD x", "invalid duration"),
        ("HEALTHCHECK --interval=1us CMD x", "less than 1ms"),
        ("STOPSIGNAL A B", "exactly one argument"),
    ] {
        let error = error(&format!("FROM a\n\n{line}"));
        assert!(error.starts_with("3: dockerfile parse error on line 3"), "{error}");
        assert!(error.contains(words), "{error}");
    }
    assert!(error("").contains("no instructions"));
    assert!(error("# x\n\n").contains("no instructions"));
}

#[test]
fn pairs_have_two_forms() {
    let pairs = |line: &str| match &parse(&format!("FROM a\n{line}"))[1].instruction {
        Instruction::Env(pairs) | Instruction::Label(pairs) => pairs.clone(),
        other => panic!("{other:?}"),
    };
    let found = pairs("ENV a=b c=\"d e\" f=g\\ h");
    assert_eq!(found.pairs[1], ("c".to_owned(), "\"d e\"".to_owned()));
    assert_eq!(found.pairs[2], ("f".to_owned(), "g\\ h".to_owned()));
    let found = pairs("ENV a  b = c");
    assert!(found.legacy);
    assert_eq!(found.pairs, [("a".to_owned(), "b = c".to_owned())]);
}

#[test]
fn health_checks_have_times() {
    let steps =
        parse("FROM a\nHEALTHCHECK --interval=1m30s --timeout=1.5s --retries=3 CMD [\"x\"]");
    let Instruction::Health(health) = &steps[1].instruction else { panic!() };
    assert_eq!((health.interval, health.timeout), (90_000_000_000, 1_500_000_000));
    assert_eq!(health.retries, 3);
}
