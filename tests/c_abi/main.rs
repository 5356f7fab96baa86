//! The C ABI: the headers compared with the sources, the library as it is built and installed, C
//! programs that use it, and the examples.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

mod agreement;
mod examples;
mod exports;
mod headers;
mod installing;
mod php_ffi;
mod program;
mod programs;
mod running;
mod sources;
