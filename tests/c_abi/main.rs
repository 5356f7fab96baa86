//! The C ABI: the headers against the sources, the library as it is built, and C programs that use it.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

mod agreement;
mod cplusplus;
mod examples;
mod exports;
mod fork;
mod headers;
mod installing;
mod loading;
mod locking;
mod php_ffi;
mod program;
mod quiet;
mod running;
mod several_servers;
mod signals;
mod sources;
mod statuses;
mod verbs;
