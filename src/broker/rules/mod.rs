//! The rules of a lock, whole, as a state machine: events go in, decisions come out. The rules
//! never block, start a thread, read a clock or call anybody: the time and the source of fencing
//! tokens are arguments. The shell around them ([`super::Broker`]) lets one thread in at a time.
//!
//! The life of a lock:
//! 1. A lock exists only while a session holds its name or waits for it. There is nothing to create
//!    or delete.
//! 2. A *session* acquires a name, or several names at once, all or nothing. Its [`Mode`] says how
//!    many holders there may be while it holds the name: exclusive one, limited so many, shared any
//!    number. If nobody else waits, and with it there are no more holders than its own mode allows
//!    and than the mode of every holder allows, it is a *holder* at once. A grant has a *token*,
//!    higher than the token of every earlier grant of the same name.
//! 3. Otherwise its request takes one *place* in the *queue* of each name and becomes a *waiter*;
//!    but not if that would close a *cycle* of sessions that wait for each other: then it is
//!    refused.
//! 4. A holder *converts* to another mode without letting go. To one that allows more holders it
//!    does so at once. If it must wait for other holders to go, it waits ahead of everybody who does
//!    not hold the name.
//! 5. A wait ends exactly once: *granted*, *cancelled*, or at its *deadline*; or its session or the
//!    broker ends.
//! 6. A holder *releases* the name, or its session ends. In the same step the head of the queue is
//!    granted if it can be, and then the next one, until one cannot. (If the budget of the event
//!    does not suffice, this happens in a later turn, and requests that come meanwhile queue.) No
//!    request overtakes.
//! 7. If the session vanished, a name it held exclusively is *orphaned*: the next grant says so.
//! 8. In the grace after a start nothing is granted. A session gets back what it held in an earlier
//!    run of the server, with its token, if all who have got theirs back allow that; and a holder
//!    converts to a mode that allows more holders, but not to one that allows fewer.
//! 9. A name that nobody holds and nobody waits for leaves the table, and its lane has it again.
//!
//! What must hold after every event is in [`invariants`], as code.

mod deadlock;
mod entry;
mod index;
mod invariants;
mod queue;
mod reclaim;
mod snapshot;
mod step;
mod table;
#[cfg(test)]
mod tests;
mod view;

#[cfg(doc)]
use crate::broker::mode::Mode;
pub(super) use snapshot::{EntrySnapshot, RequestSnapshot, TableSnapshot};
pub use step::Ticket;
pub(super) use step::{
    BULK_BUDGET, Decision, FreedName, HashedKey, Hold, NAME_COST, NotGranted, NotReclaimed, Slot, Step,
    TURN_BUDGET, WaitSpec,
};
pub(super) use table::{Table, TableCounts};
pub(super) use view::HolderView;
