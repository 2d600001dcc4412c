//! Layers from the top down: an entry is made where it stays, and one that a higher layer hides is
//! passed over. That is so as long as a path means the same to all of them: where a layer goes
//! through a link of another, or names a file that was passed over, [`OutOfOrder`] says that they are
//! to be unpacked from the bottom up.

use std::collections::{HashMap, HashSet};

use anyhow::Result;

use super::{join, split};
use crate::layer::tar::{Entry, Kind};
use crate::layer::whiteout::Meaning;

/// The layers depend on one another in a way that shows from the bottom up only.
#[derive(Debug, thiserror::Error)]
#[error("layers can't be unpacked from the top at {0:?}")]
pub(crate) struct OutOfOrder(String);

/// What is to be done with an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Take,
    /// It leaves nothing but the directories that it is in, as far as they show: so many bytes of its
    /// path.
    Leave(usize),
    Marker,
}

/// What layers have at a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Thing {
    /// Nothing, only markers.
    #[default]
    Nothing,
    Directory,
    Other,
}

#[derive(Clone, Copy, Debug, Default)]
struct Node {
    thing: Thing,
    /// Whether a layer says what the directory looks like.
    described: bool,
    /// Nothing of lower layers shows here.
    hides: bool,
    /// Nothing of lower layers shows in this directory.
    opaque: bool,
    /// Whether this layer's file is in the tree.
    made: bool,
}

/// What the layers have that were unpacked already, and the one under way.
#[derive(Debug, Default)]
pub(super) struct Above {
    nodes: HashMap<Vec<u8>, Node>,
    /// Directories that a layer went through without describing them first.
    through: HashSet<Vec<u8>>,
    root_described: bool,
    /// The layer under way.
    own: HashMap<Vec<u8>, Node>,
    own_root_described: bool,
}

fn out_of_order(path: &[u8]) -> anyhow::Error {
    OutOfOrder(String::from_utf8_lossy(path).into_owned()).into()
}

impl Above {
    /// Whether the root's entry of the layer under way counts.
    pub(super) fn describes_root(&mut self) -> bool {
        self.own_root_described = true;
        !self.root_described
    }

    /// What becomes of an entry with a cleaned path, and the cleaned target of a hard link.
    pub(super) fn admit(
        &mut self,
        meaning: Meaning<'_>,
        path: &[u8],
        entry: &Entry,
        link: Option<&[u8]>,
    ) -> Result<Verdict> {
        let parent = split(path).0;
        match meaning {
            Meaning::Ignore => {}
            Meaning::Opaque => {
                self.pass(parent)?;
                self.own.entry(parent.to_vec()).or_default().opaque = true;
            }
            Meaning::Hide(name) => self.hide(parent, &join(parent, name))?,
            Meaning::Entry if entry.kind == Kind::CharDevice && entry.device == (0, 0) => {
                self.hide(parent, path)?;
            }
            Meaning::Entry => return self.entry(parent, path, entry, link),
        }
        Ok(Verdict::Marker)
    }

    fn hide(&mut self, parent: &[u8], path: &[u8]) -> Result<()> {
        self.pass(parent)?;
        self.own.entry(path.to_vec()).or_default().hides = true;
        Ok(())
    }

    /// The layer under way goes through the directory `path`.
    fn pass(&mut self, path: &[u8]) -> Result<()> {
        for at in prefixes(path) {
            let own = self.own.get(at).copied().unwrap_or_default();
            if own.thing == Thing::Other {
                return Err(out_of_order(at));
            }
            if !own.described && !self.through.contains(at) {
                self.through.insert(at.to_vec());
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        parent: &[u8],
        path: &[u8],
        entry: &Entry,
        link: Option<&[u8]>,
    ) -> Result<Verdict> {
        self.pass(parent)?;
        if let Kind::Unknown(_) = entry.kind {
            return Ok(Verdict::Take);
        }
        let thing = match entry.kind {
            Kind::Directory => Thing::Directory,
            _ => Thing::Other,
        };
        // A hard link may be one to a symbolic link.
        if matches!(entry.kind, Kind::Symlink | Kind::HardLink) && self.through.contains(path) {
            return Err(out_of_order(path));
        }
        for at in prefixes(parent) {
            self.own.entry(at.to_vec()).or_default().thing = Thing::Directory;
        }
        let before = self.own.get(path).map_or(Thing::Nothing, |node| node.thing);
        if before != Thing::Nothing && before != thing {
            return Err(out_of_order(path));
        }
        let verdict = self.verdict(path, thing);
        if let (Verdict::Take, Some(target)) = (verdict, link)
            && !self.own.get(target).is_some_and(|node| node.made)
        {
            return Err(out_of_order(path));
        }
        let own = self.own.entry(path.to_vec()).or_default();
        own.thing = thing;
        own.described = thing == Thing::Directory;
        own.made = thing == Thing::Other && verdict == Verdict::Take;
        Ok(verdict)
    }

    fn verdict(&mut self, path: &[u8], thing: Thing) -> Verdict {
        let node = |at: &[u8]| self.nodes.get(at).copied().unwrap_or_default();
        let parent = split(path).0;
        let mut shown = 0;
        let mut hidden = node(b"").opaque;
        for at in prefixes(parent) {
            let node = node(at);
            if hidden || node.hides {
                return Verdict::Leave(shown);
            }
            shown = at.len();
            hidden = node.opaque;
        }
        if hidden {
            return Verdict::Leave(shown);
        }
        match self.nodes.get_mut(path) {
            Some(node) if node.hides => Verdict::Leave(shown),
            Some(node) if node.thing == Thing::Directory => match thing {
                Thing::Directory if node.described => Verdict::Leave(shown),
                Thing::Directory => Verdict::Take,
                // It took the place of what is below it, as the directory did with it.
                _ => {
                    node.hides = true;
                    Verdict::Leave(shown)
                }
            },
            _ => Verdict::Take,
        }
    }

    /// The layer under way is at its end.
    pub(super) fn next_layer(&mut self) -> Result<()> {
        for (path, own) in self.own.drain() {
            // Whose metadata it has depends on which of marker and entry came first.
            if own.thing == Thing::Directory && own.hides && !own.described {
                return Err(out_of_order(&path));
            }
            let node = self.nodes.entry(path).or_default();
            if node.thing == Thing::Nothing && !node.hides {
                node.thing = own.thing;
            }
            node.described |= own.described;
            node.hides |= own.hides || own.thing == Thing::Other;
            node.opaque |= own.opaque;
        }
        self.root_described |= self.own_root_described;
        Ok(())
    }
}

/// The path and all above it but the root, shortest first.
fn prefixes(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(end, _)| end);
    let ends = ends.chain((!path.is_empty()).then_some(path.len()));
    ends.map(|end| &path[..end])
}
