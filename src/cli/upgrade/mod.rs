//! The upgrade in place: this process becomes the program that is now at its path, by execve(2),
//! and everything that it serves stays. Knows the steps of the program; what the server's state is,
//! and how it is stopped and restored, is in the library.
//!
//! - `program`: the file of the program, and execve. `rehearsal`: the next version tries the state
//!   in a child, and says its `verdict`.
//! - `state`: what is handed over, as a file in memory. `descriptors`: what is handed over as open
//!   files.
//! - `successor`: the next version, which tries a state or takes over.
//! - `claim`: one upgrade at a time.

mod claim;
mod descriptors;
mod program;
mod rehearsal;
mod state;
mod successor;
mod verdict;

pub(super) use claim::UpgradeClaim;
pub(super) use descriptors::own;
pub(super) use program::{
    ProgramFile, arguments, execute, is_rehearsal, path as program_path, set_process_name,
};
pub(super) use rehearsal::Rehearsal;
pub(super) use state::{ProgramState, StateDirHandOver, monotonic_nanos, write as write_state};
pub(super) use successor::{Predecessor, SuccessorSettings, rehearse};
pub(super) use verdict::Verdict;
