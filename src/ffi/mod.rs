//! The C ABI of liblockd: checks arguments, makes the call, maps errors to statuses, and nothing
//! else. The doc comments of its functions are written for C programmers, because `include/lockd.h`
//! is generated from these files. Rust programs use the crate's other modules.
//!
//! Rules for all of it:
//! - Inputs come before outputs. An output is written only on success, and may be NULL where its
//!   comment says so.
//! - A handle is a box: made by one function, freed by its counterpart. Calls only borrow it
//!   shared, since other threads may be in calls of their own; so everything in a handle is `Sync`.
//! - The only state besides the handles and the default broker is the list of open sessions by
//!   thread (`session_registry.rs`), and the state directories that stay in use (`broker.rs`).
//! - Every function runs inside `guard`: a panic becomes `LOCK_INTERNAL` and prints nothing.
//! - The content of every handle is `NotInherited` (`os/fork.rs`): a forked child does not touch
//!   it.
//! - C passes integers and pointers, never an enum, because C could pass any value for it.
#![expect(unsafe_code, reason = "the C ABI is made of raw pointers")]
#![expect(non_camel_case_types, reason = "types are named as C programs know them")]
#![expect(clippy::missing_safety_doc, reason = "the header says what callers must ensure; C has no unsafe")]

mod arguments;
mod broker;
mod error_text;
mod guard;
mod inspect;
mod locking;
mod modes;
mod patient;
mod server;
mod session;
mod session_call;
mod session_registry;
mod status;
mod version;

pub use broker::{lock_broker, lock_broker_free, lock_broker_new};
pub use error_text::{lock_last_error, lock_strerror};
pub use inspect::{
    lock_held_mode, lock_info, lock_inspect, lock_inspect_slots, lock_list, lock_list_free, lock_slots,
    lock_token,
};
pub use locking::{
    lock_acquire, lock_acquire_all, lock_convert, lock_enqueue, lock_enqueue_convert, lock_release,
    lock_release_all, lock_wait,
};
pub use modes::lock_at_most;
pub use patient::{lock_connect_and_acquire, lock_event, lock_report};
pub use server::{lock_serve, lock_serve_with, lock_server, lock_server_address, lock_server_stop};
pub use session::{
    lock_abandon, lock_cancel, lock_check, lock_close, lock_close_all, lock_connect, lock_end, lock_lost_fd,
    lock_open, lock_resumable, lock_wait_certain,
};
pub use session_registry::lock_session;
pub use status::{lock_mode, lock_status};
pub use version::{lock_abi_version, lock_version};
