//! How an image is linked: one line in the build script of each image's package. Runs on the host.
#![forbid(unsafe_code)]

/// Makes the binaries of the calling package Xen PV images: the one line in the `main` of its build script.
///
/// Only the binaries are touched: the package's library and its tests are built for the host as usual.
pub fn image() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/image.ld");
    println!("cargo:rerun-if-changed={script}");
    for argument in [
        "-nostartfiles",
        "-nostdlib",
        "-static",
        "-no-pie",
        &format!("-Wl,-T,{script}"),
        "-Wl,--build-id=none",
        "-Wl,--gc-sections",
        "-Wl,--no-dynamic-linker",
        "-Wl,-z,max-page-size=4096",
        "-Wl,-z,norelro",
        "-Wl,-z,noexecstack",
    ] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
}
