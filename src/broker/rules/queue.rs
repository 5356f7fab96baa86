//! Waiting: how requests enter the queues, leave them, and are granted when their turn comes. Part
//! of the table; knows nothing of how sessions are told.

use crate::broker::mode::Mode;
use crate::broker::outcome::{Attempt, Outcome};
use crate::broker::rules::deadlock::WaitRejected;
use crate::broker::rules::entry::{QueuePlace, RequestId};
use crate::broker::rules::index::EntryId;
use crate::broker::rules::step::{BULK_BUDGET, Decision, NAME_COST, NotGranted, Slot, Step, WaitSpec};
use crate::broker::rules::table::{QueuedRequest, Table};

impl Table {
    /// Puts a request that cannot be granted now into its queues, unless that would close a cycle.
    pub(super) fn enqueue(
        &mut self,
        step: &mut Step<'_>,
        slot: Slot,
        place: QueuePlace,
        wants: Vec<(EntryId, Mode)>,
        wait: WaitSpec,
    ) -> Result<Attempt, NotGranted> {
        // A request for several names counts once for each: it is in as many queues.
        if self.session(slot).waits.len() + wants.len() > step.limits.waits_per_session_max {
            return Err(NotGranted::TooManyWaits);
        }
        if !step.spend(wants.iter().map(|&(id, _)| self.holders_to_mark(id, true)).sum()) {
            return Err(NotGranted::TooLarge);
        }
        let WaitSpec { ticket, deadline } = wait;
        let since = step.now;
        let request =
            QueuedRequest { slot, ticket, place, wants: wants.clone(), since, deadline, first_unchecked: 0 };
        let request = self.insert_request(request);
        // The request is in its queues before the ranks are checked, because a conversion
        // goes ahead of others, and the requests after it now wait for it too. A rejected request
        // leaves the queues again, as if it had never come.
        if let Err(rejected) = self.rank_waiter(step.budget, slot, place, &wants) {
            self.unqueue(request);
            return Err(self.reject(step, rejected));
        }
        self.counts.waits += 1;
        Ok(Attempt::Queued)
    }

    /// Puts a request into its queues, and tells its session. Does not look at ranks.
    pub(super) fn insert_request(&mut self, request: QueuedRequest) -> RequestId {
        let QueuedRequest { slot, ticket, place, deadline, .. } = request;
        let request = self.requests.insert(request);
        for at in 0..self.requests[request].wants.len() {
            let (id, _) = self.requests[request].wants[at];
            self.change_queue(id, slot, place, Some(request));
            let other = self.session(slot).waits.insert(id, request);
            debug_assert_eq!(other, None, "a session waits for a name once");
        }
        let session = self.session(slot);
        let other = session.requests.insert(ticket, request);
        debug_assert_eq!(other, None, "a ticket is unique among the waits of its session");
        session.deadlines.extend(deadline.map(|deadline| (deadline, ticket)));
        request
    }

    /// Counts a rejected wait, and says why it was rejected.
    pub(super) fn reject(&mut self, step: &mut Step<'_>, rejected: WaitRejected) -> NotGranted {
        match rejected {
            WaitRejected::Cycle(cycle) => {
                debug_assert!(!cycle.is_empty(), "a cycle has the asking session in it");
                self.counts.deadlocks += 1;
                NotGranted::Deadlock(cycle)
            }
            WaitRejected::TooLarge => {
                step.is_exhausted = true;
                NotGranted::TooLarge
            }
        }
    }

    /// Takes a request out of its queues without granting it, and notes that for its session.
    pub(super) fn withdraw(&mut self, step: &mut Step<'_>, request: RequestId, why: Outcome) {
        debug_assert!(!matches!(why, Outcome::Granted(_)));
        let gone = self.unqueue(request);
        step.decided.push(Decision { slot: gone.slot, ticket: gone.ticket, outcome: why, acquired: 0 });
        self.unsettled.extend(gone.wants.iter().map(|&(id, _)| id));
    }

    /// What it costs to take a request out of its queues. At most half of [`BULK_BUDGET`], so that
    /// a bulk turn always gets at least one request done.
    pub(super) fn cost(&self, request: RequestId) -> usize {
        let wants = &self.requests[request].wants;
        let cost = wants.iter().map(|&(id, _)| NAME_COST + self.holders_to_mark(id, false)).sum::<usize>();
        cost.min(BULK_BUDGET / 2)
    }

    /// For how many holders the name becomes contended, or stops being so, when a request enters
    /// its queue or leaves it: all of them if the queue is, or becomes, empty.
    fn holders_to_mark(&self, id: EntryId, enters: bool) -> usize {
        let entry = &self.entries[id];
        let is_first_or_last = entry.queue.len() == usize::from(!enters);
        if is_first_or_last { entry.holders().len() } else { 0 }
    }

    fn unqueue(&mut self, request: RequestId) -> QueuedRequest {
        let gone = self.requests.remove(request);
        let session = self.session(gone.slot);
        let by_ticket = session.requests.remove(&gone.ticket);
        debug_assert_eq!(by_ticket, Some(request), "a session knows its requests by their tickets");
        if let Some(deadline) = gone.deadline {
            session.deadlines.remove(&(deadline, gone.ticket));
        }
        for (id, _) in &gone.wants {
            let by_name = session.waits.remove(id);
            debug_assert_eq!(by_name, Some(request), "a session knows its requests by their names");
        }
        for &(id, _) in &gone.wants {
            self.change_queue(id, gone.slot, gone.place, None);
        }
        gone
    }

    /// Puts a request of that session into a queue, or takes it out, and keeps `followed` and
    /// `contended` of the sessions right. Adding a request gives exactly one request a new
    /// successor: the former last one, or the new one if it is put further ahead. If the queue has
    /// no other request, the name becomes contended, or stops being so, for its holders.
    fn change_queue(&mut self, id: EntryId, slot: Slot, place: QueuePlace, request: Option<RequestId>) {
        let entry = &mut self.entries[id];
        let was_there = entry.queue.remove(&place).is_some();
        debug_assert_eq!(was_there, request.is_none(), "a request is in each of its queues once");
        match entry.queue.last_key_value() {
            Some((&last, &other)) => {
                let ahead = if last < place { self.requests[other].slot } else { slot };
                let followed = &mut self.sessions[ahead as usize].followed;
                if request.is_some() { *followed += 1 } else { *followed -= 1 }
            }
            None => {
                for &holder in entry.holders().keys() {
                    let contended = &mut self.sessions[holder as usize].contended;
                    let has_changed =
                        if request.is_some() { contended.insert(id) } else { contended.remove(&id) };
                    debug_assert!(has_changed, "a held name is contended while it has a queue");
                }
            }
        }
        if let Some(request) = request {
            entry.queue.insert(place, request);
        }
    }

    /// Settles names: grants the head of the queue, and the next one, until a head cannot be
    /// granted. A grant of several names changes the heads of their other queues, so these are then
    /// settled too. Names that nobody holds and nobody waits for leave the table.
    ///
    /// Call it after every event. `down_to` is the number of unsettled names before the event,
    /// which adds the names that it has changed; only these are settled. What the budget does not
    /// allow is left unsettled. Until that is settled, some requests wait that could be granted,
    /// and requests that come later queue after them.
    pub(crate) fn settle(&mut self, step: &mut Step<'_>, down_to: usize) {
        while self.unsettled.len() > down_to
            && let Some(id) = self.unsettled.pop()
        {
            if !step.spend(NAME_COST) {
                self.unsettled.push(id);
                break;
            }
            // A name may be in the list twice, and have left the table the first time.
            while let Some(head) = self.head(id)
                && step.granting
                && self.is_grantable(head)
            {
                if !step.spend(self.cost(head)) {
                    return self.unsettled.push(id);
                }
                self.grant_head(step, id, head);
            }
            self.retire(step, id);
        }
        debug_assert!(self.unsettled.len() <= down_to || step.is_exhausted);
        self.check_invariants_if_small();
    }

    /// Grants a request that is the head of all its queues, `id` among them.
    fn grant_head(&mut self, step: &mut Step<'_>, id: EntryId, head: RequestId) {
        let due = self.unqueue(head);
        self.counts.wait_times.add(step.now.since(due.since));
        let acquired = due.wants.iter().filter(|&&(id, _)| self.held_by(id, due.slot).is_none()).count();
        debug_assert!(acquired == due.wants.len() || matches!(due.place, QueuePlace::Conversion(..)));
        let outcome = Outcome::Granted(self.grant(step, due.slot, &due.wants));
        step.decided.push(Decision { slot: due.slot, ticket: due.ticket, outcome, acquired });
        self.unsettled.extend(due.wants.iter().map(|&(id, _)| id).filter(|&other| other != id));
    }

    /// How many names are still to be settled.
    pub(crate) fn unsettled(&self) -> usize {
        self.unsettled.len()
    }

    /// Makes names unsettled, from the entry `first` on, as many as the budget allows: after a time
    /// in which nothing was granted. Returns where to go on; `None` if that was all.
    pub(crate) fn unsettle_from(&mut self, step: &mut Step<'_>, first: EntryId) -> Option<EntryId> {
        // An entry that is added between two calls needs no settling, wherever it is put.
        for id in first..self.entries.end() {
            if self.entries.get(id).is_some() {
                if !step.spend(NAME_COST) {
                    return Some(id);
                }
                self.unsettled.push(id);
            }
        }
        None
    }

    /// The request that is served next at this name.
    pub(super) fn head(&self, id: EntryId) -> Option<RequestId> {
        self.entries.get(id)?.queue.first_key_value().map(|(_, &head)| head)
    }

    /// Whether the request is the head of all its queues, and every name admits it.
    fn is_grantable(&mut self, request: RequestId) -> bool {
        let first_unchecked = self.obstacle_of(request);
        self.requests[request].first_unchecked = first_unchecked.unwrap_or(0);
        first_unchecked.is_none()
    }

    /// Which of the names that the request wants cannot be granted to it; the search begins with
    /// the one that could not be granted the last time.
    pub(super) fn obstacle_of(&self, request: RequestId) -> Option<usize> {
        let request = &self.requests[request];
        let count = request.wants.len();
        debug_assert!(request.first_unchecked < count, "a request wants at least one name");
        (request.first_unchecked..request.first_unchecked + count).map(|at| at % count).find(|&at| {
            let (id, mode) = request.wants[at];
            let entry = &self.entries[id];
            let is_head = entry.queue.first_key_value().is_some_and(|(&place, _)| place == request.place);
            !(is_head && entry.admits(request.slot, mode))
        })
    }
}
