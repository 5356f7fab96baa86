//! The requests of one connection that wait for locks, and the replies they will get.

use std::collections::HashMap;

use serde_json::value::RawValue;

use super::super::outbox::Outbox;
use crate::broker::sync::{Arc, Mutex};
use crate::broker::{Grant, Mode, Observer, Outcome, Ticket};
use crate::protocol::frame;
use crate::protocol::message::{LockResult, Status, encode_granted, encode_result};

/// What is needed for the reply to a request that waits.
pub(super) struct Pending {
    pub(super) id: Box<RawValue>,
    /// The mode of the one lock it is for; `None` for several at once.
    pub(super) mode: Option<Mode>,
    /// Whether the client is to hear that it was cancelled. The old way of giving up a wait, `unlock`,
    /// leaves the waiting request without a reply, as the original did.
    pub(super) tell_cancelled: bool,
}

/// The waits of one connection; says itself how they ended, in whichever thread that was.
pub(in super::super) struct MessageWaits {
    outbox: Arc<Outbox>,
    pending: Mutex<HashMap<Ticket, Pending>>,
}

impl MessageWaits {
    pub(in super::super) fn new(outbox: Arc<Outbox>) -> Self {
        Self { outbox, pending: Mutex::default() }
    }

    pub(super) fn begin(&self, ticket: Ticket, pending: Pending) {
        self.pending.lock().insert(ticket, pending);
    }

    /// The request did not have to wait after all.
    pub(super) fn abandon(&self, ticket: Ticket) {
        self.pending.lock().remove(&ticket);
    }

    /// The ticket of the waiting request with this id; it will hear if it is cancelled.
    pub(super) fn to_cancel(&self, id: &RawValue) -> Option<Ticket> {
        let mut waiting = self.pending.lock();
        let (ticket, pending) = waiting.iter_mut().find(|(_, pending)| pending.id.get() == id.get())?;
        pending.tell_cancelled = true;
        Some(*ticket)
    }
}

impl Observer for MessageWaits {
    fn decided(&self, ticket: Ticket, outcome: Outcome) {
        let Some(pending) = self.pending.lock().remove(&ticket) else { return };
        let result = match outcome {
            Outcome::Granted(grant) => {
                return self.outbox.note(|out| {
                    frame::encode(out, |body| granted(body, &pending.id, pending.mode, grant));
                });
            }
            Outcome::TimedOut => LockResult::new(Status::Timeout),
            Outcome::Cancelled if pending.tell_cancelled => LockResult::new(Status::Cancelled),
            Outcome::Stopping => LockResult::stopping(),
            Outcome::Cancelled | Outcome::Lost => return,
        };
        self.outbox.note(|out| frame::encode(out, |body| encode_result(body, &pending.id, &result)));
    }

    fn deliver(&self) {
        self.outbox.deliver();
    }
}

/// Appends the reply to a request that was granted; `mode` is `None` for several at once.
pub(super) fn granted(out: &mut Vec<u8>, id: &RawValue, mode: Option<Mode>, grant: Grant) {
    if mode != Some(Mode::Shared) && !grant.orphaned {
        return encode_granted(out, id, grant.token);
    }
    let holders = (mode == Some(Mode::Shared)).then_some(grant.holders);
    let result = LockResult { orphaned: grant.orphaned, holders, ..LockResult::granted(grant.token) };
    encode_result(out, id, &result);
}
