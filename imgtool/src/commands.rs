//! One file per verb, each with its arguments and one `run`.

pub(crate) mod access;
pub(crate) mod build;
pub(crate) mod bundle;
pub(crate) mod bundles;
pub(crate) mod commit;
pub(crate) mod completion;
pub(crate) mod copy;
pub(crate) mod cp;
pub(crate) mod delete;
pub(crate) mod diff;
pub(crate) mod export;
pub(crate) mod form;
pub(crate) mod history;
pub(crate) mod images;
pub(crate) mod import;
pub(crate) mod info;
pub(crate) mod inspect;
pub(crate) mod list_tags;
pub(crate) mod load;
pub(crate) mod login;
pub(crate) mod logout;
pub(crate) mod manifest;
pub(crate) mod mount;
pub(crate) mod mutate;
pub(crate) mod prune;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod rebase;
pub(crate) mod rm;
pub(crate) mod rmi;
pub(crate) mod save;
pub(crate) mod search;
pub(crate) mod tag;
pub(crate) mod umount;
pub(crate) mod untag;
pub(crate) mod verify;
pub(crate) mod volume;

use anyhow::Result;

/// Errors of a verb that goes on with its other arguments after one failed.
#[derive(Debug, Default)]
pub(crate) struct Failures(Vec<anyhow::Error>);

impl Failures {
    /// Keeps the error, if it is one.
    pub(crate) fn collect(&mut self, result: Result<()>) {
        self.0.extend(result.err());
    }

    /// All of them as one error.
    pub(crate) fn into_result(self) -> Result<()> {
        let mut errors = self.0;
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => {
                let texts: Vec<String> = errors.iter().map(|e| format!("{e:#}")).collect();
                Err(anyhow::anyhow!(texts.join("; ")))
            }
        }
    }
}
