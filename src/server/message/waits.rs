//! The requests of one connection that wait for locks, and the replies they will get.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};

use serde_json::value::RawValue;

use super::super::send_queue::SendQueue;
use crate::broker::{Grant, Mode, Observer, Outcome, Ticket};
use crate::os::sync::{Arc, Mutex};
use crate::wire::frame;
use crate::wire::message::{LockResult, Status, encode_granted, encode_result};

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
    send_queue: Arc<SendQueue>,
    waiting: Mutex<Waiting>,
    hasher: RandomState,
}

/// The requests that wait, by ticket and by the hash of their ids: looking one up must not take longer for a
/// connection with many, since whoever ends a wait may have to wait for that.
#[derive(Default)]
struct Waiting {
    requests: HashMap<Ticket, (u64, Pending)>,
    by_id: BTreeSet<(u64, Ticket)>,
}

impl Waiting {
    fn insert(&mut self, ticket: Ticket, hash: u64, pending: Pending) {
        self.by_id.insert((hash, ticket));
        self.requests.insert(ticket, (hash, pending));
    }

    fn remove(&mut self, ticket: Ticket) -> Option<Pending> {
        let (hash, pending) = self.requests.remove(&ticket)?;
        self.by_id.remove(&(hash, ticket));
        Some(pending)
    }

    /// The one that has waited longest of those with this id, which a client may have used more than once.
    fn first_with(&self, hash: u64, id: &RawValue) -> Option<Ticket> {
        let mut alike =
            self.by_id.range((hash, Ticket::MIN)..=(hash, Ticket::MAX)).map(|&(_, ticket)| ticket);
        alike.find(|ticket| self.requests.get(ticket).is_some_and(|(_, found)| found.id.get() == id.get()))
    }
}

impl MessageWaits {
    pub(in super::super) fn new(send_queue: Arc<SendQueue>) -> Self {
        Self { send_queue, waiting: Mutex::default(), hasher: RandomState::new() }
    }

    pub(super) fn begin(&self, ticket: Ticket, pending: Pending) {
        let hash = self.hasher.hash_one(pending.id.get());
        self.waiting.lock().insert(ticket, hash, pending);
    }

    /// The request did not have to wait after all.
    pub(super) fn abandon(&self, ticket: Ticket) {
        self.waiting.lock().remove(ticket);
    }

    /// The ticket of the waiting request with this id; it will hear if it is cancelled.
    pub(super) fn to_cancel(&self, id: &RawValue) -> Option<Ticket> {
        let hash = self.hasher.hash_one(id.get());
        let mut waiting = self.waiting.lock();
        let ticket = waiting.first_with(hash, id)?;
        waiting.requests.get_mut(&ticket)?.1.tell_cancelled = true;
        Some(ticket)
    }
}

impl Observer for MessageWaits {
    fn decided(&self, ticket: Ticket, outcome: Outcome) {
        let Some(pending) = self.waiting.lock().remove(ticket) else { return };
        let result = match outcome {
            Outcome::Granted(grant) => {
                return self.send_queue.note(|out| {
                    frame::encode(out, |body| granted(body, &pending.id, pending.mode, grant));
                });
            }
            Outcome::TimedOut => LockResult::new(Status::Timeout),
            Outcome::Cancelled if pending.tell_cancelled => LockResult::new(Status::Cancelled),
            Outcome::Stopping => LockResult::stopping(),
            Outcome::Cancelled | Outcome::Lost => return,
        };
        self.send_queue.note(|out| frame::encode(out, |body| encode_result(body, &pending.id, &result)));
    }

    fn deliver(&self) {
        self.send_queue.deliver();
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

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(id: &str) -> Box<RawValue> {
        RawValue::from_string(id.to_owned()).unwrap()
    }

    fn waiting(ids: &[(&str, u64)]) -> Waiting {
        let mut waiting = Waiting::default();
        for (ticket, (id, hash)) in (1..).zip(ids) {
            waiting.insert(ticket, *hash, Pending { id: raw(id), mode: None, tell_cancelled: false });
        }
        waiting
    }

    #[test]
    fn of_requests_with_one_id_the_oldest_is_found_until_it_has_ended() {
        let mut waiting = waiting(&[("1", 10), ("2", 20), ("1", 10)]);
        for ticket in [1, 3] {
            assert_eq!(waiting.first_with(10, &raw("1")), Some(ticket));
            assert!(waiting.remove(ticket).is_some() && waiting.remove(ticket).is_none());
        }
        assert_eq!(waiting.first_with(10, &raw("1")), None);
        assert_eq!(waiting.first_with(20, &raw("2")), Some(2));
    }

    #[test]
    fn ids_with_the_same_hash_are_told_apart() {
        let waiting = waiting(&[("1", 10), ("2", 10)]);
        assert_eq!(waiting.first_with(10, &raw("2")), Some(2));
        assert_eq!(waiting.first_with(10, &raw("3")), None);
    }
}
