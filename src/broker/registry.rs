//! The open sessions, by slot, and the outcomes each of them is still to be told. An outcome is
//! queued while the table is locked, and the observer is told when it no longer is. Decides
//! nothing.

use std::collections::VecDeque;

use slab::Slab;

use crate::broker::outcome::Outcome;
use crate::broker::rules::{Slot, Ticket};
use crate::broker::session_info::{Observer, SessionInfo};
use crate::os::sync::{Arc, Mutex, Ordering, RwLock};

/// The room for outcomes that an empty queue keeps; a larger buffer is given back.
const PENDING_KEPT: usize = 16;

/// An open session, and the outcomes its observer has not been told yet.
pub(super) struct RegisteredSession {
    pub(super) info: Arc<SessionInfo>,
    /// Oldest first. Locked for a moment only, because that happens while the table is locked.
    pending: Mutex<VecDeque<(Ticket, Outcome)>>,
    /// The observer. Locked while it is told, so that it is told one outcome after the other, and
    /// so that another observer takes its place only between two outcomes.
    notifying: Mutex<Arc<dyn Observer>>,
}

impl RegisteredSession {
    /// Queues the outcome of a wait for [`notify`](Self::notify). For callers with the table
    /// locked.
    pub(super) fn add_pending(&self, ticket: Ticket, outcome: Outcome) {
        self.info.pending_notifications.fetch_add(1, Ordering::Release);
        self.pending.lock().push_back((ticket, outcome));
    }

    /// Tells the observer every outcome that was queued before this call. If another thread is
    /// telling it at this moment, waits for that thread first.
    pub(super) fn notify(&self) {
        let observer = {
            let observer = self.notifying.lock();
            self.tell_pending(&**observer);
            observer.clone()
        };
        observer.deliver();
    }

    /// Tells the present observer every outcome that was queued before this call, and from then on
    /// only this one.
    pub(super) fn set_observer(&self, observer: Arc<dyn Observer>) {
        let former = {
            let mut current = self.notifying.lock();
            self.tell_pending(&**current);
            std::mem::replace(&mut *current, observer)
        };
        // Dropped with nothing locked, as in `Registry::remove`.
        former.deliver();
    }

    /// For callers that have locked `notifying`.
    fn tell_pending(&self, observer: &dyn Observer) {
        while let Some((ticket, outcome)) = self.next_pending() {
            observer.decided(ticket, outcome);
            let before = self.info.pending_notifications.fetch_sub(1, Ordering::Release);
            debug_assert!(before > 0, "an outcome was told that was never queued");
        }
    }

    fn next_pending(&self) -> Option<(Ticket, Outcome)> {
        let mut pending = self.pending.lock();
        let next = pending.pop_front();
        if next.is_none() && pending.capacity() > PENDING_KEPT {
            *pending = VecDeque::new();
        }
        next
    }
}

/// All open sessions. Every method locks them for a short, constant time, or for one pass over
/// them.
pub(super) struct Registry(RwLock<Slab<Arc<RegisteredSession>>>);

impl Registry {
    pub(super) fn new() -> Self {
        Self(RwLock::new(Slab::new()))
    }

    #[expect(clippy::expect_used, reason = "four billion sessions at once would need terabytes")]
    pub(super) fn register(
        &self,
        info: impl FnOnce(Slot) -> SessionInfo,
        observer: Arc<dyn Observer>,
    ) -> Arc<SessionInfo> {
        let mut sessions = self.0.write();
        let vacant = sessions.vacant_entry();
        let slot = Slot::try_from(vacant.key()).expect("fewer than 2^32 sessions");
        let info = Arc::new(info(slot));
        debug_assert_eq!(info.slot, slot, "the session would be looked up in another slot");
        vacant.insert(Arc::new(RegisteredSession {
            info: info.clone(),
            pending: Mutex::default(),
            notifying: Mutex::new(observer),
        }));
        info
    }

    /// Frees the slot for the next session. No lane and no table entry may mention it any more.
    pub(super) fn remove(&self, slot: Slot) {
        let removed = self.0.write().try_remove(slot as usize);
        // With nothing locked: the observer may own other sessions, which end when it is dropped.
        drop(removed);
    }

    pub(super) fn get(&self, slot: Slot) -> Option<Arc<RegisteredSession>> {
        self.0.read().get(slot as usize).cloned()
    }

    pub(super) fn info(&self, slot: Slot) -> Option<Arc<SessionInfo>> {
        self.0.read().get(slot as usize).map(|session| session.info.clone())
    }

    pub(super) fn len(&self) -> usize {
        self.0.read().len()
    }

    /// In the order of their slots.
    pub(super) fn all(&self) -> Vec<Arc<RegisteredSession>> {
        self.0.read().iter().map(|(_, session)| session.clone()).collect()
    }

    pub(super) fn infos(&self) -> Vec<Arc<SessionInfo>> {
        self.0.read().iter().map(|(_, session)| session.info.clone()).collect()
    }
}
