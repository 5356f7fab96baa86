//! The wait of a `gw` or `sgw`. A connection of the text protocols has one at a time, since its
//! later lines must not be handled before the wait is over.

use super::super::send_queue::SendQueue;
use super::super::server_state::PendingWaits;
use super::super::snapshot::types::{WaitsSnapshot, WantedSnapshot};
use crate::broker::{LockName, Observer, Outcome, Ticket};
use crate::os::sync::{Arc, Mutex};
use crate::wire::text::{TextDialect, TextMode, TextReply};

/// The wait of one connection, if it has one. Replies when the wait ends, in the thread that ended
/// it.
pub(crate) struct LineWait {
    send_queue: Arc<SendQueue>,
    /// Whether replies belong to WebSocket messages. That of the waiting line is then held back.
    has_messages: bool,
    /// What the waiting line asked for.
    wanted: Mutex<Option<(TextMode, LockName)>>,
}

impl LineWait {
    pub(crate) fn new(send_queue: Arc<SendQueue>) -> Self {
        let has_messages = send_queue.has_messages();
        Self { send_queue, has_messages, wanted: Mutex::new(None) }
    }

    /// One that goes on with what the client waited for.
    ///
    /// # Errors
    /// If that is not a wait of a text protocol.
    pub(crate) fn restore(send_queue: Arc<SendQueue>, snapshot: WaitsSnapshot) -> Result<Self, &'static str> {
        let WaitsSnapshot::Line { wanted } = snapshot else { return Err("waits of another protocol") };
        let mode = |is_shared| if is_shared { TextMode::Shared } else { TextMode::Exclusive };
        let wanted = wanted.map(|wanted| (mode(wanted.is_shared), LockName::new(&wanted.name)));
        // Whether a reply is held back is a part of the send queue's own state.
        Ok(Self { wanted: Mutex::new(wanted), ..Self::new(send_queue) })
    }

    pub(super) fn note(&self, mode: TextMode, name: LockName) {
        let earlier = self.wanted.lock().replace((mode, name));
        debug_assert!(earlier.is_none(), "no line is handled while another waits");
        self.set_waiting(true);
    }

    /// The line does not have to wait after all.
    pub(super) fn forget(&self) {
        *self.wanted.lock() = None;
        self.set_waiting(false);
    }

    fn set_waiting(&self, is_waiting: bool) {
        if self.has_messages {
            self.send_queue.set_waiting(is_waiting);
        }
    }

    pub(super) fn is_pending(&self) -> bool {
        self.wanted.lock().is_some()
    }
}

impl PendingWaits for LineWait {
    fn snapshot(&self) -> WaitsSnapshot {
        let wanted = self.wanted.lock();
        let wanted = wanted.as_ref().map(|(mode, name)| WantedSnapshot {
            is_shared: *mode == TextMode::Shared,
            name: name.as_bytes().to_vec(),
        });
        WaitsSnapshot::Line { wanted }
    }
}

impl Observer for LineWait {
    fn decided(&self, _: Ticket, outcome: Outcome) {
        // Locked until the reply is in the send queue: otherwise the connection's thread could find
        // the wait over and put the reply to the next line before this one.
        let mut wanted = self.wanted.lock();
        if let Some((mode, name)) = wanted.take() {
            let holders = if let Outcome::Granted(grant) = outcome { Some(grant.holders) } else { None };
            // Only this dialect has commands that wait.
            let reply = TextReply::Acquire { mode, name: name.as_bytes(), holders };
            self.send_queue.push(|out| reply.encode(TextDialect::Glockd, out));
            self.set_waiting(false);
        }
    }

    fn deliver(&self) {
        self.send_queue.deliver();
    }
}
