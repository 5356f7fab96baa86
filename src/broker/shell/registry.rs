//! The open sessions, by slot, and how each is told of what was decided about its waits: noted while the table is
//! locked, told when it no longer is. Decides nothing.

use std::collections::VecDeque;

use slab::Slab;

use crate::broker::outcome::Outcome;
use crate::broker::rules::{Slot, Ticket};
use crate::broker::session::{Observer, SessionInfo};
use crate::os::sync::{Arc, Mutex, Ordering, RwLock};

/// An emptied inbox with room for more outcomes than this gives it back.
const KEEP: usize = 16;

/// An open session, and what it has not been told yet.
pub(in crate::broker) struct Registered {
    pub(in crate::broker) info: Arc<SessionInfo>,
    observer: Arc<dyn Observer>,
    /// How waits have ended, in that order. Locked for a moment only, since it is while the table is.
    inbox: Mutex<VecDeque<(Ticket, Outcome)>>,
    /// Held while the observer is told, so that it is told one outcome after the other.
    telling: Mutex<()>,
}

impl Registered {
    /// Notes how a wait has ended, which [`tell`](Self::tell) tells: for the table's lock.
    pub(in crate::broker) fn note(&self, ticket: Ticket, outcome: Outcome) {
        self.info.untold.fetch_add(1, Ordering::Release);
        self.inbox.lock().push_back((ticket, outcome));
    }

    /// Tells the observer all that was noted before this was called, also what another thread is just telling.
    pub(in crate::broker) fn tell(&self) {
        let _telling = self.telling.lock();
        while let Some((ticket, outcome)) = self.next() {
            self.observer.decided(ticket, outcome);
            self.info.untold.fetch_sub(1, Ordering::Release);
        }
    }

    fn next(&self) -> Option<(Ticket, Outcome)> {
        let mut inbox = self.inbox.lock();
        let next = inbox.pop_front();
        if next.is_none() && inbox.capacity() > KEEP {
            *inbox = VecDeque::new();
        }
        next
    }

    pub(in crate::broker) fn deliver(&self) {
        self.observer.deliver();
    }
}

/// All open sessions. Locked for a moment only, whatever is asked.
pub(in crate::broker) struct Registry(RwLock<Slab<Arc<Registered>>>);

impl Registry {
    pub(in crate::broker) fn new() -> Self {
        Self(RwLock::new(Slab::new()))
    }

    #[expect(clippy::expect_used, reason = "four billion sessions at once would need terabytes")]
    pub(in crate::broker) fn register(
        &self,
        info: impl FnOnce(Slot) -> SessionInfo,
        observer: Arc<dyn Observer>,
    ) -> Arc<SessionInfo> {
        let mut sessions = self.0.write();
        let vacant = sessions.vacant_entry();
        let slot = Slot::try_from(vacant.key()).expect("fewer than 2^32 sessions");
        let info = Arc::new(info(slot));
        vacant.insert(Arc::new(Registered {
            info: info.clone(),
            observer,
            inbox: Mutex::default(),
            telling: Mutex::default(),
        }));
        info
    }

    /// Gives the slot to whoever comes next: nothing may be left of the session anywhere.
    pub(in crate::broker) fn remove(&self, slot: Slot) {
        let removed = self.0.write().try_remove(slot as usize);
        // With nothing locked: the observer may hold sessions of its own, which then end.
        drop(removed);
    }

    pub(in crate::broker) fn get(&self, slot: Slot) -> Option<Arc<Registered>> {
        self.0.read().get(slot as usize).cloned()
    }

    pub(in crate::broker) fn info(&self, slot: Slot) -> Option<Arc<SessionInfo>> {
        self.0.read().get(slot as usize).map(|session| session.info.clone())
    }

    pub(in crate::broker) fn len(&self) -> usize {
        self.0.read().len()
    }

    pub(in crate::broker) fn infos(&self) -> Vec<Arc<SessionInfo>> {
        self.0.read().iter().map(|(_, session)| session.info.clone()).collect()
    }

    pub(in crate::broker) fn slots(&self) -> Vec<Slot> {
        self.0.read().iter().map(|(_, session)| session.info.slot).collect()
    }
}
