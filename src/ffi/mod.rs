//! The C ABI of liblockd: checks arguments, calls, maps errors to statuses, and nothing else. What the
//! functions do is said where they stand, in words for the C programmer: the comments go into
//! `include/lockd.h`, which is made from these files. Rust programs use the crate's other modules.
//!
//! What holds for all of it:
//! - Inputs stand before outputs; an output is written only on success, and may be NULL where it says so.
//! - A handle is a box: made by one function, freed by its counterpart. Calls borrow it, shared, since
//!   other threads may be in calls of their own; so everything behind it is `Sync`.
//! - There is one state beside the handles and the default broker: which sessions are open, by thread
//!   (`opened.rs`).
//! - Every function runs inside `guard`: a panic becomes `LOCK_INTERNAL`, and prints nothing.
//! - Everything behind a handle is `OfThisProcess` (`fork.rs`): in a forked child it is
//!   not touched.
//! - What comes from C is an integer or a pointer, never an enum, of which C could pass any value.
#![expect(unsafe_code, reason = "the C ABI is made of raw pointers")]
#![expect(non_camel_case_types, reason = "types are named as C programs know them")]
#![expect(clippy::missing_safety_doc, reason = "what callers owe is what the header says; C knows no other")]

mod arguments;
mod broker;
mod guard;
mod looking;
mod opened;
mod server;
mod session;
mod status;
mod version;

pub use broker::{lock_broker, lock_broker_free, lock_broker_new};
pub use looking::{lock_info, lock_inspect, lock_list, lock_list_free, lock_token};
pub use opened::{lock_abandon, lock_close, lock_close_all, lock_end};
pub use server::{lock_serve, lock_serve_with, lock_server, lock_server_address, lock_server_stop};
pub use session::{
    lock_acquire, lock_acquire_all, lock_cancel, lock_check, lock_connect, lock_convert, lock_enqueue,
    lock_enqueue_convert, lock_lost_fd, lock_open, lock_release, lock_release_all, lock_session, lock_wait,
};
pub use status::{lock_last_error, lock_mode, lock_status, lock_strerror};
pub use version::{lock_abi_version, lock_version};
