//! Layers: tar archives that give, change and remove files of the layers beneath them.

pub(crate) mod compress;
pub(crate) mod extract;
pub(crate) mod metadata;
pub(crate) mod tar;
pub(crate) mod whiteout;
