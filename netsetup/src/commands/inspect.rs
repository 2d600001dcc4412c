//! `netsetup inspect`

use anyhow::Result;
use serde::Serialize;

use super::attached_id;
use super::ports::PortView;
use crate::apply::Host;
use crate::args::{Directories, Inspect};
use crate::output;
use crate::state::{Attachment, Source, Store};

/// An attached container, as programs read it.
#[derive(Serialize)]
struct ContainerView {
    id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    netns: String,
    networks: Vec<Attachment>,
    ports: Vec<PortView>,
}

/// Shows containers as a JSON array.
pub(crate) fn run(inspect: &Inspect, directories: &Directories) -> Result<()> {
    let store = Store::open(directories)?;
    Host::open(&store)?;
    let ids = if inspect.targets.is_empty() {
        store.container_ids()?
    } else {
        let ids = inspect.targets.iter().map(|target| attached_id(&store, target, directories));
        ids.collect::<Result<_>>()?
    };
    let views = ids.iter().map(|id| view(&store, id)).collect::<Result<Vec<_>>>()?;
    output::json(&views)
}

fn view(store: &Store, id: &str) -> Result<ContainerView> {
    let source = store.place(id)?.map(|place| place.source);
    let pid = match source {
        Some(Source::Pid(pid)) => Some(pid),
        _ => None,
    };
    let ports = store.bindings(id)?;
    Ok(ContainerView {
        id: id.to_owned(),
        pid,
        netns: source.map(|source| source.path().display().to_string()).unwrap_or_default(),
        networks: store.attachments(id)?,
        ports: ports.iter().map(|binding| PortView::new(None, binding)).collect(),
    })
}
