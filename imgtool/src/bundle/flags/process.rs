//! What the first process is given besides its user and its environment.

use anyhow::{Result, ensure};

/// As typed.
#[derive(Debug, Default, clap::Args)]
#[group(id = "first-process")]
pub(super) struct Words {
    /// A further group of the command, as a name of the image or a number
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// Whom the kernel kills for want of memory, from -1000 (never this) to 1000 (this first)
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    oom_score_adj: Option<i32>,
}

/// Checked.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Process {
    /// Still to be looked up in the image.
    pub(crate) groups: Vec<String>,
    pub(crate) oom_score_adj: Option<i32>,
}

impl Words {
    pub(super) fn resolve(self) -> Result<Process> {
        if let Some(score) = self.oom_score_adj {
            let bounds = -1000..=1000;
            ensure!(bounds.contains(&score), "--oom-score-adj {score}: from -1000 to 1000");
        }
        Ok(Process { groups: self.group_add, oom_score_adj: self.oom_score_adj })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_score_has_bounds() {
        for (score, good) in [(-1000, true), (1000, true), (1001, false), (-1001, false)] {
            let words = Words { oom_score_adj: Some(score), ..Words::default() };
            assert_eq!(words.resolve().is_ok(), good, "{score}");
        }
    }
}
