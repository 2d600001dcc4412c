//! Has the linker write relocations in their short form: a static program at no fixed address has
//! thousands, which are read and applied at every start. And tells it where we begin: `sys/start.rs`.

fn main() {
    println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    if std::env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|architecture| architecture == "x86_64") {
        println!("cargo:rustc-link-arg-bins=-Wl,-e,runtime_start");
    }
    println!("cargo:rerun-if-changed=build.rs");
}
