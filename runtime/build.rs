//! Has the linker write relocations in their short form: a static program at no fixed address has
//! thousands, which are read and applied at every start.

fn main() {
    println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    println!("cargo:rerun-if-changed=build.rs");
}
