//! `cargo bench -p e2e [WORD...]`: what tests/benches/run measures and prints.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

fn main() {
    let words = std::env::args().skip(1).filter(|word| !word.starts_with("--"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/run");
    let error = Command::new(&script).args(words).exec();
    eprintln!("{}: {error}", script.display());
    std::process::exit(1);
}
