//! The C programs of this directory, and the tests that run them. They also run with sanitizers,
//! see `sanitize.sh`.

mod cplusplus;
mod fork;
mod hard_times;
mod loading;
mod locking;
mod quiet;
mod several_servers;
mod signals;
mod statuses;
mod verbs;
