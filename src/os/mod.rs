//! What the operating system gives, made safe to use: mutexes, forks, threads and how they are
//! interrupted, when the process must end, sockets, keepalive figures, TLS. Knows nothing of lockd's
//! locks, protocols or sessions, and uses no other top module.

pub(crate) mod boot_clock;
pub(crate) mod fork;
pub(crate) mod interrupt;
mod keepalive;
pub(crate) mod monotonic;
pub(crate) mod process_limit;
#[cfg_attr(any(explore = "loom", explore = "shuttle"), path = "socket/fake.rs")]
pub(crate) mod socket;
pub(crate) mod sync;
pub(crate) mod thread;
pub(crate) mod tls;

pub use keepalive::Keepalive;
