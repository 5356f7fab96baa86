//! The requests of one connection that wait for locks, and the replies they will get. Any thread
//! may end a wait, and then appends its reply here. Knows tickets and replies; not the commands.

use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasher, RandomState};

use serde_json::value::RawValue;

use super::super::send_queue::SendQueue;
use super::super::server_state::PendingWaits;
use super::super::snapshot::types::{PendingSnapshot, WaitsSnapshot};
use crate::broker::{Grant, Mode, Observer, Outcome, Ticket};
use crate::os::sync::{Arc, Mutex};
use crate::wire::frame;
use crate::wire::message::{LockResult, Status, encode_granted, encode_result};

/// What the reply to a waiting request will need.
pub(super) struct PendingReply {
    pub(super) id: Box<RawValue>,
    /// The mode of the one lock it is for; `None` for several at once.
    pub(super) mode: Option<Mode>,
    /// Whether the request is answered if it is cancelled. When `unlock` ends the wait, which is
    /// the old way, the waiting request gets no reply, as in the original.
    pub(super) tell_cancelled: bool,
}

/// The waits of one connection. Replies to each when it ends, in the thread that ended it.
pub(crate) struct MessageWaits {
    send_queue: Arc<SendQueue>,
    pending: Mutex<PendingReplies>,
    hasher: RandomState,
}

/// The pending replies by ticket, and by the hash of their ids. Finding one must not take longer
/// when there are many: a thread that ends a wait may have to wait for this lock.
#[derive(Default)]
struct PendingReplies {
    by_ticket: HashMap<Ticket, (u64, PendingReply)>,
    by_id: BTreeSet<(u64, Ticket)>,
}

impl PendingReplies {
    fn insert(&mut self, ticket: Ticket, hash: u64, reply: PendingReply) {
        self.by_id.insert((hash, ticket));
        let earlier = self.by_ticket.insert(ticket, (hash, reply));
        debug_assert!(earlier.is_none(), "a ticket is given once");
    }

    fn remove(&mut self, ticket: Ticket) -> Option<PendingReply> {
        let (hash, reply) = self.by_ticket.remove(&ticket)?;
        self.by_id.remove(&(hash, ticket));
        debug_assert_eq!(self.by_id.len(), self.by_ticket.len());
        Some(reply)
    }

    /// The oldest waiting request with this id. A client may have used an id more than once.
    fn oldest_with(&self, hash: u64, id: &RawValue) -> Option<Ticket> {
        let mut alike =
            self.by_id.range((hash, Ticket::MIN)..=(hash, Ticket::MAX)).map(|&(_, ticket)| ticket);
        alike.find(|ticket| self.by_ticket.get(ticket).is_some_and(|(_, found)| found.id.get() == id.get()))
    }
}

impl MessageWaits {
    pub(crate) fn new(send_queue: Arc<SendQueue>) -> Self {
        Self { send_queue, pending: Mutex::default(), hasher: RandomState::new() }
    }

    /// Waits that go on.
    ///
    /// # Errors
    /// If those are not waits of the protocol `message`.
    pub(crate) fn restore(send_queue: Arc<SendQueue>, snapshot: WaitsSnapshot) -> Result<Self, &'static str> {
        let WaitsSnapshot::Messages { pending } = snapshot else { return Err("waits of another protocol") };
        let waits = Self::new(send_queue);
        for (ticket, reply) in pending_replies(pending)? {
            waits.note(ticket, reply);
        }
        Ok(waits)
    }

    /// Checks what needs no connection.
    ///
    /// # Errors
    /// As [`restore`](Self::restore).
    pub(crate) fn check(pending: &[PendingSnapshot]) -> Result<(), &'static str> {
        pending_replies(pending.to_vec()).map(drop)
    }

    pub(super) fn note(&self, ticket: Ticket, reply: PendingReply) {
        let hash = self.hasher.hash_one(reply.id.get());
        self.pending.lock().insert(ticket, hash, reply);
    }

    /// The request does not have to wait after all.
    pub(super) fn forget(&self, ticket: Ticket) {
        self.pending.lock().remove(ticket);
    }

    /// The ticket of the oldest waiting request with this id. From now on it is answered if it is
    /// cancelled.
    pub(super) fn to_cancel(&self, id: &RawValue) -> Option<Ticket> {
        let hash = self.hasher.hash_one(id.get());
        let mut pending = self.pending.lock();
        let ticket = pending.oldest_with(hash, id)?;
        pending.by_ticket.get_mut(&ticket)?.1.tell_cancelled = true;
        Some(ticket)
    }
}

impl PendingWaits for MessageWaits {
    fn snapshot(&self) -> WaitsSnapshot {
        let pending = self.pending.lock();
        let one = |(&ticket, (_, reply)): (&Ticket, &(u64, PendingReply))| PendingSnapshot {
            ticket,
            id: reply.id.get().to_owned(),
            holders_max: reply.mode.map(|mode| mode.holders_max().unwrap_or(0)),
            tell_cancelled: reply.tell_cancelled,
        };
        let mut pending: Vec<_> = pending.by_ticket.iter().map(one).collect();
        pending.sort_by_key(|pending| pending.ticket);
        WaitsSnapshot::Messages { pending }
    }
}

impl Observer for MessageWaits {
    fn decided(&self, ticket: Ticket, outcome: Outcome) {
        // Locked until the reply is in the queue: a `cancel` that no longer finds the request must be
        // answered after it, or the client could not know that it holds the lock.
        let mut all = self.pending.lock();
        let Some(pending) = all.remove(ticket) else { return };
        let result = match outcome {
            Outcome::Granted(grant) => {
                return self.send_queue.push(|out| {
                    frame::encode(out, |body| encode_grant(body, &pending.id, pending.mode, grant));
                });
            }
            Outcome::TimedOut => LockResult::new(Status::Timeout),
            Outcome::Cancelled if pending.tell_cancelled => LockResult::new(Status::Cancelled),
            Outcome::Stopping => LockResult::stopping(),
            Outcome::Cancelled | Outcome::Lost => return,
        };
        self.send_queue.push(|out| frame::encode(out, |body| encode_result(body, &pending.id, &result)));
    }

    fn deliver(&self) {
        self.send_queue.deliver();
    }
}

fn pending_replies(pending: Vec<PendingSnapshot>) -> Result<Vec<(Ticket, PendingReply)>, &'static str> {
    if !pending.is_sorted_by(|one, next| one.ticket < next.ticket) {
        return Err("the tickets of its waits are out of order");
    }
    let reply = |PendingSnapshot { ticket, id, holders_max, tell_cancelled }| {
        let id = RawValue::from_string(id).map_err(|_| "the id of a request is not JSON")?;
        let mode = match holders_max {
            None => None,
            Some(0) => Some(Mode::Shared),
            Some(holders) => Some(Mode::at_most(holders).ok_or("a mode that does not exist")?),
        };
        Ok((ticket, PendingReply { id, mode, tell_cancelled }))
    };
    pending.into_iter().map(reply).collect()
}

/// Appends the reply to a granted request. `mode` is `None` for several locks at once. The number of
/// holders is shown if there may be others.
pub(super) fn encode_grant(out: &mut Vec<u8>, id: &RawValue, mode: Option<Mode>, grant: Grant) {
    let is_shown = mode.is_some_and(|mode| mode != Mode::Exclusive);
    if !is_shown && !grant.orphaned {
        return encode_granted(out, id, grant.token);
    }
    let holders = is_shown.then_some(grant.holders);
    let result = LockResult { orphaned: grant.orphaned, holders, ..LockResult::granted(grant.token) };
    encode_result(out, id, &result);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(id: &str) -> Box<RawValue> {
        RawValue::from_string(id.to_owned()).unwrap()
    }

    fn replies(ids: &[(&str, u64)]) -> PendingReplies {
        let mut replies = PendingReplies::default();
        for (ticket, (id, hash)) in (1..).zip(ids) {
            replies.insert(ticket, *hash, PendingReply { id: raw(id), mode: None, tell_cancelled: false });
        }
        replies
    }

    #[test]
    fn the_oldest_request_with_an_id_is_found_until_it_has_ended() {
        let mut replies = replies(&[("1", 10), ("2", 20), ("1", 10)]);
        for ticket in [1, 3] {
            assert_eq!(replies.oldest_with(10, &raw("1")), Some(ticket));
            assert!(replies.remove(ticket).is_some() && replies.remove(ticket).is_none());
        }
        assert_eq!(replies.oldest_with(10, &raw("1")), None);
        assert_eq!(replies.oldest_with(20, &raw("2")), Some(2));
    }

    #[test]
    fn ids_with_the_same_hash_are_told_apart() {
        let replies = replies(&[("1", 10), ("2", 10)]);
        assert_eq!(replies.oldest_with(10, &raw("2")), Some(2));
        assert_eq!(replies.oldest_with(10, &raw("3")), None);
    }
}
