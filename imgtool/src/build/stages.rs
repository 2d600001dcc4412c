//! From the instructions to stages: which there are, what each is based on, and which of them the
//! target needs. Nothing is looked up in the store here.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use super::dockerfile::{Dockerfile, From, Instruction, Lines, Step, locate};
use super::expand::Expander;
use crate::manifest::Platform;

/// What a stage begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    Scratch,
    Stage(usize),
    /// An image of the store or of a registry, as written.
    Image(String),
}

#[derive(Debug)]
pub(crate) struct Stage {
    /// In lower case.
    pub(crate) name: Option<String>,
    pub(crate) lines: Lines,
    /// The `FROM` as written.
    pub(crate) text: String,
    pub(crate) base: Base,
    /// What `--platform` said.
    pub(crate) platform: Option<Platform>,
    pub(crate) steps: Vec<Step>,
}

/// All stages, and what holds for all of them.
#[derive(Debug)]
pub(crate) struct Plan {
    /// `ARG`s before the first `FROM`, and those of the platforms.
    pub(crate) globals: BTreeMap<String, String>,
    pub(crate) stages: Vec<Stage>,
    pub(crate) target: usize,
    /// Whether the target needs the stage, as far as the file tells.
    pub(crate) needed: Vec<bool>,
}

/// What the user says beside the file.
pub(crate) struct Wishes<'a> {
    pub(crate) target: Option<&'a str>,
    pub(crate) arguments: &'a BTreeMap<String, String>,
    pub(crate) platform: &'a Platform,
}

impl Plan {
    /// Whether anything that is needed has to do with whole trees. What a base asks for by ONBUILD
    /// is not known yet.
    pub(crate) fn makes_trees(&self) -> bool {
        let needed = self.stages.iter().zip(&self.needed).filter(|(_, needed)| **needed);
        needed.flat_map(|(stage, _)| &stage.steps).any(|step| needs_tree(&step.instruction))
    }

    pub(crate) fn make(file: &Dockerfile, wishes: &Wishes<'_>) -> Result<Self> {
        let escape = file.directives.escape;
        let mut globals = automatic(wishes.platform, wishes.target);
        let mut stages: Vec<Stage> = Vec::new();
        for step in &file.steps {
            let fail = |error: anyhow::Error| locate(step.lines, &error);
            match (&step.instruction, stages.last_mut()) {
                (Instruction::From(from), _) => {
                    let stage = stage(step, from, &globals, escape, &stages).map_err(fail)?;
                    stages.push(stage);
                }
                (_, Some(stage)) => stage.steps.push(step.clone()),
                (Instruction::Arg(arguments), None) => {
                    for (name, default) in arguments {
                        let value = match wishes.arguments.get(name) {
                            Some(given) => Some(given.clone()),
                            None => default
                                .as_deref()
                                .map(|text| expand(text, &globals, escape))
                                .transpose()
                                .map_err(fail)?,
                        };
                        // One without a value leaves what the platform says.
                        if let Some(value) = value {
                            globals.insert(name.clone(), value);
                        }
                    }
                }
                (_, None) => {
                    return Err(fail(anyhow::anyhow!(
                        "dockerfile parse error on line {}: no build stage in current context: \
                         {} stands before the first FROM",
                        step.lines.first,
                        step.keyword
                    )));
                }
            }
        }
        if stages.is_empty() {
            bail!("file has no FROM instruction");
        }
        let target = match wishes.target {
            None => stages.len() - 1,
            Some(name) => find(&stages, name, stages.len())
                .with_context(|| format!("target stage {name:?} could not be found"))?,
        };
        let needed = needed(&stages, target);
        Ok(Self { globals, stages, target, needed })
    }

    /// The stage of this name or number among those before `before`.
    pub(crate) fn find(&self, name: &str, before: usize) -> Option<usize> {
        find(&self.stages, name, before)
    }
}

fn find(stages: &[Stage], name: &str, before: usize) -> Option<usize> {
    let lower = name.to_ascii_lowercase();
    let named = stages[..before].iter().rposition(|stage| stage.name.as_deref() == Some(&*lower));
    named.or_else(|| name.parse().ok().filter(|number| *number < before))
}

fn stage(
    step: &Step,
    from: &From,
    globals: &BTreeMap<String, String>,
    escape: char,
    before: &[Stage],
) -> Result<Stage> {
    let image = expand(&from.image, globals, escape)?;
    if image.is_empty() {
        bail!("base name ({}) should not be blank", from.image);
    }
    let platform = from
        .platform
        .as_deref()
        .map(|text| expand(text, globals, escape))
        .transpose()?
        .filter(|text| !text.is_empty())
        .map(|text| Platform::parse(&text))
        .transpose()?;
    // A number is no name of a stage here.
    let base = match before
        .iter()
        .rposition(|stage| stage.name.as_deref() == Some(&*image.to_ascii_lowercase()))
    {
        Some(index) => Base::Stage(index),
        None if image == "scratch" => Base::Scratch,
        None => Base::Image(image),
    };
    Ok(Stage {
        name: from.name.as_deref().map(str::to_ascii_lowercase),
        lines: step.lines,
        text: step.text.clone(),
        base,
        platform,
        steps: Vec::new(),
    })
}

fn expand(text: &str, globals: &BTreeMap<String, String>, escape: char) -> Result<String> {
    Expander::new(escape, &|name| globals.get(name).cloned()).word(text)
}

/// Whether a step needs the tree of a stage: to run in it, or to copy from it.
fn needs_tree(instruction: &Instruction) -> bool {
    match instruction {
        Instruction::Run(_) => true,
        Instruction::Transfer(transfer) => transfer.from.is_some(),
        _ => false,
    }
}

/// The stages that the target is made of.
fn needed(stages: &[Stage], target: usize) -> Vec<bool> {
    let mut needed = vec![false; stages.len()];
    let mut open = vec![target];
    while let Some(index) = open.pop() {
        if std::mem::replace(&mut needed[index], true) {
            continue;
        }
        if let Base::Stage(base) = stages[index].base {
            open.push(base);
        }
        for step in &stages[index].steps {
            let names: Vec<&str> = match &step.instruction {
                Instruction::Transfer(transfer) => transfer.from.as_deref().into_iter().collect(),
                Instruction::Run(run) => run
                    .mounts
                    .iter()
                    .flat_map(|mount| mount.split(','))
                    .filter_map(|word| word.strip_prefix("from="))
                    .collect(),
                _ => Vec::new(),
            };
            open.extend(names.into_iter().filter_map(|name| find(stages, name, index)));
        }
    }
    needed
}

/// The arguments that say for what is built, and where.
fn automatic(target: &Platform, stage: Option<&str>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for (prefix, platform) in [("TARGET", target), ("BUILD", &Platform::host())] {
        let mut add = |name: &str, value: String| all.insert(format!("{prefix}{name}"), value);
        add("PLATFORM", platform.to_string());
        add("OS", platform.os.clone());
        add("ARCH", platform.architecture.clone());
        add("VARIANT", platform.variant.clone().unwrap_or_default());
        add("OSVERSION", String::new());
    }
    all.insert("TARGETSTAGE".to_owned(), stage.unwrap_or("default").to_owned());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str, target: Option<&str>, arguments: &[(&str, &str)]) -> Result<Plan> {
        let arguments = arguments.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let platform = Platform::parse("linux/arm/v7")?;
        let wishes = Wishes { target, arguments: &arguments, platform: &platform };
        Plan::make(&Dockerfile::parse(text)?, &wishes)
    }

    #[test]
    fn stages_name_each_other() {
        let text = "ARG V=1\nARG IMG=base:$V\nFROM $IMG AS One\nFROM one AS two\nFROM scratch\nCOPY --from=0 a b\nFROM x\nRUN --mount=from=two,target=/t x";
        let plan = plan(text, None, &[("V", "2")]).unwrap();
        assert_eq!(plan.stages[0].base, Base::Image("base:2".to_owned()));
        assert_eq!(plan.stages[1].base, Base::Stage(0));
        assert_eq!(plan.stages[2].base, Base::Scratch);
        assert_eq!(plan.needed, [true, true, false, true]);
        assert_eq!(plan.find("TWO", 3), Some(1));
        assert_eq!(plan.find("two", 1), None);
        assert_eq!(plan.find("1", 3), Some(1));
    }

    #[test]
    fn platforms_are_arguments() {
        let text = "FROM --platform=$BUILDPLATFORM a-$TARGETARCH-$TARGETVARIANT";
        let plan = plan(text, None, &[]).unwrap();
        assert_eq!(plan.stages[0].base, Base::Image("a-arm-v7".to_owned()));
        assert_eq!(plan.stages[0].platform, Some(Platform::host()));
        assert_eq!(plan.globals["TARGETSTAGE"], "default");
    }

    #[test]
    fn targets_are_found_or_refused() {
        let text = "FROM a AS x\nFROM b AS y\nFROM x";
        assert_eq!(plan(text, Some("X"), &[]).unwrap().needed, [true, false, false]);
        assert_eq!(plan(text, Some("1"), &[]).unwrap().target, 1);
        assert!(plan(text, Some("z"), &[]).is_err());
        assert!(plan("RUN x\nFROM a", None, &[]).is_err());
        assert!(plan("ARG A\nFROM $A", None, &[]).is_err());
        assert!(plan("ARG A", None, &[]).is_err());
    }
}
