//! What the linker is told where cargo cannot be asked to.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=TIDEGATE_RELOCS");
    // `deploy/bolt.sh` moves functions in the finished program, and has to find who refers to them.
    if std::env::var_os("TIDEGATE_RELOCS").is_some() {
        println!("cargo:rustc-link-arg-bins=-Wl,--emit-relocs");
    }
}
