//! What an ordinary user can't have. All of it would fail half-way through otherwise, with words
//! that name the call and not the cause.

use anyhow::{Context, Result, bail};

use super::Subject;
use crate::plan::namespaces::Kind;
use crate::spec::{IdMapping, Mount};

/// Without root nothing goes without a user namespace, and no id beyond its maps.
pub(super) fn rootless(subject: &Subject) -> Result<()> {
    if subject.host.euid == 0 {
        return Ok(());
    }
    if !subject.namespaces.has(Kind::User) {
        bail!("linux.namespaces: rootless container requires user namespaces");
    }
    // The maps of one that is joined are its own.
    if !subject.namespaces.is_new(Kind::User) {
        return Ok(());
    }
    let linux = subject.linux;
    for (index, mount) in subject.spec.mounts.iter().enumerate() {
        owners(mount, &linux.uid_mappings, &linux.gid_mappings)
            .with_context(|| format!("mounts[{index}].options"))?;
    }
    Ok(())
}

fn owners(mount: &Mount, uids: &[IdMapping], gids: &[IdMapping]) -> Result<()> {
    for word in mount.options().iter().flatten() {
        let Some((key, value)) = word.split_once('=') else { continue };
        let mappings = match key {
            "uid" => uids,
            "gid" => gids,
            _ => continue,
        };
        // What is no number is for the file system to refuse.
        if let Ok(id) = value.parse::<u32>()
            && !mappings.iter().any(|mapping| {
                id.checked_sub(mapping.container_id()).is_some_and(|at| at < mapping.size())
            })
        {
            bail!(
                "cannot specify {word} mount option for rootless container: \
                 linux.{key}Mappings has no {id}"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_has_to_be_mapped() {
        let maps: Vec<IdMapping> =
            serde_json::from_str(r#"[{"containerID":0,"hostID":1000,"size":5}]"#).unwrap();
        let check = |word: &str| {
            let json = format!(r#"{{"destination":"/x","options":["nosuid","{word}"]}}"#);
            owners(&serde_json::from_str(&json).unwrap(), &maps, &maps)
        };
        for fine in ["uid=0", "gid=4", "gid=x", "size=5"] {
            assert!(check(fine).is_ok(), "{fine}");
        }
        let error = check("gid=5").unwrap_err().to_string();
        assert!(error.starts_with("cannot specify gid=5 mount option for rootless"), "{error}");
    }
}
