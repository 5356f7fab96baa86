//! The wait of a `gw` or `sgw`: a connection of the text protocols has one at a time, since its later
//! lines wait behind it.

use super::super::send_queue::SendQueue;
use crate::broker::{Observer, Outcome, Ticket};
use crate::os::sync::{Arc, Mutex};
use crate::wire::text::glockd::Reply;

/// What is to be said when the wait has ended.
pub(super) struct Pending {
    pub(super) name: Vec<u8>,
    pub(super) shared: bool,
}

/// The wait of one connection, if it has one; says itself how it ended, in whichever thread that was.
pub(in super::super) struct LineWait {
    send_queue: Arc<SendQueue>,
    /// Whether replies belong to messages, which then wait for this one.
    has_messages: bool,
    pending: Mutex<Option<Pending>>,
}

impl LineWait {
    pub(in super::super) fn new(send_queue: Arc<SendQueue>) -> Self {
        let has_messages = send_queue.has_messages();
        Self { send_queue, has_messages, pending: Mutex::new(None) }
    }

    pub(super) fn begin(&self, pending: Pending) {
        *self.pending.lock() = Some(pending);
        self.set_waiting(true);
    }

    /// The request did not have to wait after all.
    pub(super) fn abandon(&self) {
        *self.pending.lock() = None;
        self.set_waiting(false);
    }

    fn set_waiting(&self, is_waiting: bool) {
        if self.has_messages {
            self.send_queue.set_waiting(is_waiting);
        }
    }

    pub(super) fn is_on(&self) -> bool {
        self.pending.lock().is_some()
    }
}

impl Observer for LineWait {
    fn decided(&self, _: Ticket, outcome: Outcome) {
        // Kept locked while the reply is noted: the connection's thread must not find the wait over
        // and reply to the next line first.
        let mut pending = self.pending.lock();
        if let Some(Pending { name, shared }) = pending.take() {
            let holders = if let Outcome::Granted(grant) = outcome { Some(grant.holders) } else { None };
            self.send_queue.note(|out| acquired(shared, holders, &name).encode(out));
            self.set_waiting(false);
        }
    }

    fn deliver(&self) {
        self.send_queue.deliver();
    }
}

/// The reply to `g`, `sg` and those that wait; `holders` is `None` if it was refused.
pub(super) fn acquired(shared: bool, holders: Option<usize>, name: &[u8]) -> Reply<'_> {
    match shared {
        true => Reply::AcquireShared { granted: holders.is_some(), holders: holders.unwrap_or(0), name },
        false => Reply::Acquire { granted: holders.is_some(), name },
    }
}
