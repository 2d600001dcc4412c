//! `imgtool`, verb by verb, and against the tools whose formats it shares.

mod equality;
