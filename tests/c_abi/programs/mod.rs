//! The C programs of this directory, and what is to come of each. They run with sanitizers too, see
//! `sanitize.sh`.

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
