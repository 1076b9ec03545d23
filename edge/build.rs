//! Packs the relocations of the binary that is shipped: a table of 24 bytes for each pointer becomes one of bits. It needs glibc 2.36, which
//! Debian 12 and Raspberry Pi OS of the same year have; builds for the desk do not ask for it.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is_linux_gnu = std::env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux")
        && std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "gnu");
    if is_linux_gnu && std::env::var("OPT_LEVEL").is_ok_and(|level| level == "z") {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
