//! `--security-opt`.

use std::path::PathBuf;

use anyhow::{Result, bail, ensure};

/// Which system call filter the container gets.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) enum Seccomp {
    #[default]
    Default,
    Unconfined,
    /// Docker's profile in this file.
    Profile(PathBuf),
}

/// What the options say.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Security {
    pub(crate) seccomp: Seccomp,
    pub(crate) no_new_privileges: bool,
    /// A profile that is loaded on the host.
    pub(crate) apparmor: Option<String>,
    /// Nothing of /proc and /sys is hidden.
    pub(crate) unmasked: bool,
}

impl Security {
    pub(super) fn parse(words: &[String]) -> Result<Self> {
        let mut security = Self::default();
        for word in words {
            // Docker took a colon once.
            let (key, value) = match word.split_once('=').or_else(|| word.split_once(':')) {
                Some((key, value)) => (key, Some(value)),
                None => (word.as_str(), None),
            };
            match (key, value) {
                ("seccomp", Some("unconfined")) => security.seccomp = Seccomp::Unconfined,
                ("seccomp", Some("builtin" | "default")) => security.seccomp = Seccomp::Default,
                ("seccomp", Some(path)) if !path.is_empty() => {
                    security.seccomp = Seccomp::Profile(path.into());
                }
                ("no-new-privileges", None | Some("true")) => security.no_new_privileges = true,
                ("no-new-privileges", Some("false")) => security.no_new_privileges = false,
                ("apparmor", Some(profile)) if !profile.is_empty() => {
                    ensure!(
                        profile.bytes().all(|byte| byte.is_ascii_graphic()),
                        "bad name of an AppArmor profile: {profile:?}"
                    );
                    // No profile is what a container has that names none.
                    security.apparmor =
                        Some(profile.to_owned()).filter(|name| name != "unconfined");
                }
                // No label is what a container has, too.
                ("label", Some("disable")) => {}
                ("systempaths", Some("unconfined")) | ("unmask", Some("ALL")) => {
                    security.unmasked = true;
                }
                _ => bail!(
                    "unknown security option {word:?}: there are seccomp=FILE, seccomp=unconfined, \
                     apparmor=PROFILE, no-new-privileges, label=disable, systempaths=unconfined"
                ),
            }
        }
        Ok(security)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Security> {
        Security::parse(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_told_apart() {
        let all = parse(&["seccomp=/x.json", "no-new-privileges", "apparmor=docker-default"]);
        let all = all.unwrap();
        assert_eq!(all.seccomp, Seccomp::Profile("/x.json".into()));
        assert!(all.no_new_privileges && !all.unmasked);
        assert_eq!(all.apparmor.as_deref(), Some("docker-default"));
        let none = parse(&["apparmor=unconfined", "label=disable", "seccomp=unconfined"]).unwrap();
        assert_eq!(none, Security { seccomp: Seccomp::Unconfined, ..Security::default() });
        assert!(parse(&["systempaths=unconfined"]).unwrap().unmasked);
        for bad in ["", "seccomp", "seccomp=", "apparmor=", "no-new-privileges=x", "selinux=x"] {
            assert!(parse(&[bad]).is_err(), "{bad}");
        }
    }
}
