//! How the shared library is linked: the name under which programs find it at run time, and that it stays
//! in memory once it is there. PHP unmaps a library with the last object that uses it; threads of a server,
//! thread-locals and fork handlers would then run code that is gone.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,liblockd.so.1");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
