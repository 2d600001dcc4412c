//! Namespaces of other containers. A path in config.json says which process had one when the bundle was
//! made; by then that process may be gone, and its number another's. So an annotation names the container,
//! and its process is looked for anew.

use anyhow::{Context, Result, bail};

use crate::plan::namespaces::Kind;
use crate::spec::Spec;
use crate::state::StateStore;

/// `KIND=ID`, with commas between, as imgtool writes it.
const ANNOTATION: &str = "org.imgtool.join";

/// Puts the paths of today into `linux.namespaces`.
pub(crate) fn follow(spec: &mut Spec, store: &StateStore) -> Result<()> {
    let Some(text) = spec.annotations.get(ANNOTATION).cloned() else { return Ok(()) };
    for word in text.split(',') {
        let invalid = || format!("annotation {ANNOTATION}: {word:?}");
        let (name, id) = word.split_once('=').context("want KIND=ID").with_context(invalid)?;
        let kind = Kind::parse(name).with_context(invalid)?;
        let namespaces = spec.linux.iter_mut().flat_map(|linux| &mut linux.namespaces);
        let mut joined = namespaces.filter(|namespace| namespace.kind == kind.name());
        let namespace =
            joined.next().context("no such namespace is joined").with_context(invalid)?;
        let pid = match store.find(id)? {
            Some(record) => record.live_process()?,
            None => None,
        };
        let Some(pid) = pid else {
            bail!(
                "container {id}, whose {name} namespace is joined, is not running: start it first"
            )
        };
        namespace.path = format!("/proc/{pid}/ns/{}", kind.file());
    }
    Ok(())
}
