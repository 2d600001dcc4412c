//! One file per verb, each with its arguments and one `run`.

pub(crate) mod tag;
