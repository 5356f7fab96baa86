//! The wait of a `gw` or `sgw`: a connection of the text protocols has one at a time, since its later
//! lines wait behind it.

use super::super::send_queue::SendQueue;
use crate::broker::{Mode, Observer, Outcome, Ticket};
use crate::os::sync::{Arc, Mutex};
use crate::wire::text::{TextDialect, TextReply};

/// What is to be said when the wait has ended.
pub(super) struct Pending {
    pub(super) name: Vec<u8>,
    pub(super) mode: Mode,
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
        if let Some(Pending { name, mode }) = pending.take() {
            let holders = if let Outcome::Granted(grant) = outcome { Some(grant.holders) } else { None };
            let reply = TextReply::Acquire { mode, name: &name, holders };
            self.send_queue.note(|out| reply.encode(TextDialect::Glockd, out));
            self.set_waiting(false);
        }
    }

    fn deliver(&self) {
        self.send_queue.deliver();
    }
}
