//! What is allowed and probably not meant: BuildKit's rules, by their names.

mod rules;

use std::collections::BTreeSet;

use anyhow::{Result, bail};

use super::dockerfile::{Dockerfile, Instruction, Lines};
use super::ignore::Ignore;

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Warning {
    pub(crate) rule: &'static str,
    pub(crate) message: String,
    pub(crate) lines: Lines,
}

/// What `# check=` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Check {
    skip: BTreeSet<String>,
    skip_all: bool,
    /// Whether a finding makes a build fail.
    pub(crate) is_error: bool,
}

impl Check {
    /// Reads `skip=A,B;error=true`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let mut check = Self::default();
        for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some(("skip", rules)) => {
                    for rule in rules.split(',').map(str::trim) {
                        check.skip_all |= rule.eq_ignore_ascii_case("all");
                        check.skip.insert(rule.to_ascii_lowercase());
                    }
                }
                Some(("error", "true")) => check.is_error = true,
                Some(("error", "false")) => check.is_error = false,
                // Rules that are off unless asked for; there are none here.
                Some(("experimental", _)) => {}
                _ => bail!("invalid check option {part:?}: want skip=RULE,… or error=true"),
            }
        }
        Ok(check)
    }

    fn wants(&self, rule: &str) -> bool {
        !self.skip_all && !self.skip.contains(&rule.to_ascii_lowercase())
    }
}

/// What the rules need to know beside the file.
pub(crate) struct Surroundings<'a> {
    pub(crate) ignore: &'a Ignore,
    /// What an image sets, if it is known here.
    pub(crate) base: &'a dyn Fn(&str) -> Option<Base>,
}

/// The variables and the directory that an image sets.
pub(crate) type Base = (Vec<String>, String);

/// All findings, in the order of their lines.
pub(crate) fn lint(file: &Dockerfile, check: &Check, around: &Surroundings<'_>) -> Vec<Warning> {
    let mut found = Vec::new();
    rules::casing(file, &mut found);
    rules::stages(file, &mut found);
    rules::settings(file, &mut found);
    rules::variables(file, around, &mut found);
    rules::copies(file, around.ignore, &mut found);
    found.retain(|warning| check.wants(warning.rule));
    found.sort_by_key(|warning| warning.lines.first);
    found
}

/// The instructions of each stage; those before the first `FROM` are none's.
fn stages(file: &Dockerfile) -> Vec<&[super::dockerfile::Step]> {
    let starts: Vec<usize> = (0..file.steps.len())
        .filter(|at| matches!(file.steps[*at].instruction, Instruction::From(_)))
        .collect();
    let ends = starts.iter().skip(1).copied().chain([file.steps.len()]);
    starts.iter().zip(ends).map(|(start, end)| &file.steps[*start..end]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Vec<String> {
        let file = Dockerfile::parse(text).unwrap();
        let ignore = Ignore::parse("ignored\n").unwrap();
        let base = |name: &str| match name {
            "known" => Some((vec!["PATH=/bin".to_owned()], "/srv".to_owned())),
            "plain" => Some((vec!["PATH=/bin".to_owned()], String::new())),
            _ => None,
        };
        let around = Surroundings { ignore: &ignore, base: &base };
        let check = file.directives.check.clone().map_or(String::new(), |(text, _)| text);
        lint(&file, &Check::parse(&check).unwrap(), &around)
            .iter()
            .map(|warning| format!("{}:{}", warning.rule, warning.lines.first))
            .collect()
    }

    #[test]
    fn every_rule_finds_what_it_is_for_and_nothing_else() {
        let cases: &[(&str, &[&str])] = &[
            ("FROM a\nRUN x\nCMD [\"y\"]", &[]),
            ("FROM a\nrun x\nCMD [\"y\"]", &["ConsistentInstructionCasing:2"]),
            ("from a\nrun x\n", &[]),
            ("FROM a\nRun x\n", &["ConsistentInstructionCasing:2"]),
            ("FROM a as b\n", &["FromAsCasing:1"]),
            ("from a as b\n", &[]),
            ("FROM a AS B\n", &["StageNameCasing:1"]),
            ("FROM a AS b\nFROM a AS b\n", &["DuplicateStageName:2"]),
            ("FROM a AS scratch\n", &["ReservedStageName:1"]),
            ("FROM --platform=linux/amd64 a\n", &["FromPlatformFlagConstDisallowed:1"]),
            ("FROM --platform=$BUILDPLATFORM a\n", &[]),
            ("FROM --platform=$TARGETPLATFORM a\n", &["RedundantTargetPlatform:1"]),
            ("ARG V\nFROM a:$V\n", &["InvalidDefaultArgInFrom:2"]),
            ("ARG V=1\nFROM a:$V\n", &[]),
            ("ARG V\nFROM a:${V:-1}\n", &[]),
            ("FROM a:$NOPE\n", &["UndefinedArgInFrom:1"]),
            ("FROM a\nCMD x\n", &["JSONArgsRecommended:2"]),
            ("FROM a\nSHELL [\"bash\", \"-c\"]\nCMD x\n", &[]),
            ("FROM a\nENV a b\nLABEL c d\n", &["LegacyKeyValueFormat:2", "LegacyKeyValueFormat:3"]),
            ("FROM a\nMAINTAINER x\n", &["MaintainerDeprecated:2"]),
            ("FROM a\nCMD [\"a\"]\nCMD [\"b\"]\n", &["MultipleInstructionsDisallowed:2"]),
            ("FROM a\nRUN x \\\n\n y\n", &["NoEmptyContinuation:2"]),
            (
                "FROM a\nARG API_KEY\nENV PUBLIC_KEY=x\nENV keyboard=1 DB_PASSWORD=x\n",
                &["SecretsUsedInArgOrEnv:2", "SecretsUsedInArgOrEnv:4"],
            ),
            ("FROM plain\nWORKDIR a\n", &["WorkdirRelativePath:2"]),
            ("FROM known\nWORKDIR a\n", &[]),
            ("FROM plain\nWORKDIR /a\nWORKDIR b\n", &[]),
            ("FROM plain\nCOPY $x /\nENV y=1\nUSER $y$PATH\n", &["UndefinedVar:2"]),
            ("FROM plain\nENV a=${x:-1} b=\\$z\nRUN echo $q\n", &[]),
            ("FROM unknown\nUSER $x\n", &[]),
            ("FROM a\nEXPOSE 80:80 81/TCP\n", &["ExposeInvalidFormat:2", "ExposeProtoCasing:2"]),
            (
                "FROM a\nCOPY ignored b /\nADD ./ignored/x /\n",
                &["CopyIgnoredFile:2", "CopyIgnoredFile:3"],
            ),
            ("# check=skip=JSONArgsRecommended\nFROM a\nCMD x\n", &[]),
            ("# check=skip=all\nfrom a\nCMD x\n", &[]),
        ];
        for (text, expected) in cases {
            assert_eq!(rules(text), *expected, "{text}");
        }
        assert!(Check::parse("skip=all;error=true").unwrap().is_error);
        assert!(Check::parse("nonsense").is_err());
    }
}
