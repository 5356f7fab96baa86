//! The C programs of this directory, and the tests that run them. They also run with sanitizers,
//! see `sanitize.sh`.

mod cplusplus;
mod fork;
mod loading;
mod locking;
mod no_traces;
mod outside_faults;
mod patient;
mod several_servers;
mod signals;
mod statuses;
mod verbs;
