//! Waiting: how requests enter the queues, leave them, and are granted when their turn comes. Part of
//! the table; knows nothing of who is told.

use crate::broker::outcome::{Mode, Outcome};
use crate::broker::rules::deadlock::WaitRejected;
use crate::broker::rules::{
    Answer, BULK, Decision, EntryId, Idle, NAME, Request, RequestId, Slot, Step, Table, WaitSpec,
};

/// A request's place, the same in all its queues, so that two requests stand in the same order
/// wherever they meet. Conversions come before all others: those who wait for the name wait for
/// the converting session anyway, since it is a holder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in super::super) struct Place {
    rank: Rank,
    arrival: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Conversion,
    Arrival,
}

impl Place {
    pub(super) fn arrival(arrival: u64) -> Self {
        Self { rank: Rank::Arrival, arrival }
    }

    pub(super) fn conversion(arrival: u64) -> Self {
        Self { rank: Rank::Conversion, arrival }
    }
}

impl Table {
    /// Puts a request that cannot be granted now into its queues, unless that closed a circle.
    pub(super) fn enqueue(
        &mut self,
        step: &mut Step<'_>,
        slot: Slot,
        place: Place,
        wants: Vec<(EntryId, Mode)>,
        patience: WaitSpec,
    ) -> Answer {
        // A request for several names stands in as many queues.
        if self.member(slot).waits.len() + wants.len() > step.limits.waits_per_session_max {
            return Answer::TooManyWaits;
        }
        if !step.spend(wants.iter().map(|&(id, _)| self.newly_contended(id, true)).sum()) {
            return Answer::TooLarge;
        }
        let WaitSpec { ticket, deadline } = patience;
        let since = step.now;
        let request = Request { slot, ticket, place, wants: wants.clone(), since, deadline, obstacle: 0 };
        let request = self.requests.insert(request);
        for &(id, _) in &wants {
            self.change_queue(id, slot, place, Some(request));
            self.member(slot).waits.insert(id, request);
        }
        self.member(slot).requests.insert(ticket, request);
        self.member(slot).deadlines.extend(deadline.map(|deadline| (deadline, ticket)));
        if let Err(tangle) = self.rank_waiter(step.room, slot, place, &wants) {
            self.unqueue(request);
            return self.refuse(step, tangle);
        }
        self.counts.waits += 1;
        Answer::Queued
    }

    pub(super) fn refuse(&mut self, step: &mut Step<'_>, tangle: WaitRejected) -> Answer {
        match tangle {
            WaitRejected::Circle(circle) => {
                self.counts.deadlocks += 1;
                Answer::Deadlock(circle)
            }
            WaitRejected::TooLarge => {
                step.is_exhausted = true;
                Answer::TooLarge
            }
        }
    }

    /// Takes the request out of its queues and says so to its session.
    pub(super) fn withdraw(&mut self, step: &mut Step<'_>, request: RequestId, why: Outcome) {
        let gone = self.unqueue(request);
        step.decided.push(Decision { slot: gone.slot, ticket: gone.ticket, outcome: why, acquired: 0 });
        self.unsettled.extend(gone.wants.iter().map(|&(id, _)| id));
    }

    /// What it takes to let a request out of its queues. At most half of [`BULK`], so that there is always a
    /// step with room for it.
    pub(super) fn cost(&self, request: RequestId) -> usize {
        let wants = &self.requests[request].wants;
        let cost = wants.iter().map(|&(id, _)| NAME + self.newly_contended(id, false)).sum::<usize>();
        cost.min(BULK / 2)
    }

    /// How many holders have a contended lock more, or one less, when a place is taken or left there.
    fn newly_contended(&self, id: EntryId, is_taken: bool) -> usize {
        let entry = &self.entries[id];
        let is_first_or_last = entry.queue.len() == usize::from(!is_taken);
        if is_first_or_last { entry.holders.len() } else { 0 }
    }

    fn unqueue(&mut self, request: RequestId) -> Request {
        let gone = self.requests.remove(request);
        let member = self.member(gone.slot);
        member.requests.remove(&gone.ticket);
        if let Some(deadline) = gone.deadline {
            member.deadlines.remove(&(deadline, gone.ticket));
        }
        for (id, _) in &gone.wants {
            member.waits.remove(id);
        }
        for &(id, _) in &gone.wants {
            self.change_queue(id, gone.slot, gone.place, None);
        }
        gone
    }

    /// Puts a request of that session into a queue, or takes it out, and keeps count of who is waited for:
    /// one place more is one more behind the last of the others, or with another one behind itself; and
    /// if there are no others, the holders have a contended lock more.
    fn change_queue(&mut self, id: EntryId, slot: Slot, place: Place, request: Option<RequestId>) {
        let entry = &mut self.entries[id];
        entry.queue.remove(&place);
        match entry.queue.last_key_value() {
            Some((&last, &other)) => {
                let ahead = if last < place { self.requests[other].slot } else { slot };
                let followed = &mut self.members[ahead as usize].followed;
                if request.is_some() { *followed += 1 } else { *followed -= 1 }
            }
            None => {
                for &holder in entry.holders.keys() {
                    let contended = &mut self.members[holder as usize].contended;
                    if request.is_some() {
                        contended.insert(id)
                    } else {
                        contended.remove(&id)
                    };
                }
            }
        }
        if let Some(request) = request {
            entry.queue.insert(place, request);
        }
    }

    /// Grants, at each name that is still to be settled, the head of the queue for as long as it can be granted; a
    /// grant moves the heads of the request's other queues, which are then settled too. Names that nobody is
    /// concerned with any more leave the table.
    ///
    /// To be called after every event, which adds its names, until only so many are left as there were before it.
    /// What there is no room for is left for later: until then, some wait who need not any more, and whoever
    /// comes meanwhile stands behind them.
    pub(in super::super) fn settle(&mut self, step: &mut Step<'_>, down_to: usize) {
        while self.unsettled.len() > down_to
            && let Some(id) = self.unsettled.pop()
        {
            if !step.spend(NAME) {
                return self.unsettled.push(id);
            }
            // A name may stand in the list twice and have left the table the first time.
            while let Some(head) = self.entries.get(id).and_then(|e| e.queue.first_key_value()).map(|h| *h.1)
            {
                if !step.granting || !self.is_due(head) {
                    break;
                }
                if !step.spend(self.cost(head)) {
                    return self.unsettled.push(id);
                }
                let due = self.unqueue(head);
                self.counts.wait_times.add(step.now.since(due.since));
                let acquired =
                    due.wants.iter().filter(|&&(id, _)| self.held_at(id, due.slot).is_none()).count();
                let grant = self.grant(step, due.slot, &due.wants);
                let outcome = Outcome::Granted(grant);
                step.decided.push(Decision { slot: due.slot, ticket: due.ticket, outcome, acquired });
                self.unsettled.extend(due.wants.iter().map(|&(id, _)| id).filter(|&other| other != id));
            }
            self.retire(step, id);
        }
    }

    /// How many names are still to be settled.
    pub(in super::super) fn unsettled(&self) -> usize {
        self.unsettled.len()
    }

    /// Has names settled again, from that number of theirs on, as far as there is room: after a time in which
    /// nothing was granted. Returns where to go on; `None` if that was all of them.
    pub(in super::super) fn unsettle_from(&mut self, step: &mut Step<'_>, first: usize) -> Option<usize> {
        // What is added meanwhile needs no settling, wherever it comes to stand.
        for id in first..self.entries.numbers_end() {
            if self.entries.get(id).is_some() {
                if !step.spend(NAME) {
                    return Some(id);
                }
                self.unsettled.push(id);
            }
        }
        None
    }

    /// Whether the request is the head of all its queues and every name admits it.
    fn is_due(&mut self, request: RequestId) -> bool {
        let request = &mut self.requests[request];
        let count = request.wants.len();
        let can_be_had = |at: &usize| {
            let (id, mode) = request.wants[at % count];
            let entry = &self.entries[id];
            entry.queue.first_key_value().is_some_and(|(&place, _)| place == request.place)
                && entry.admits(request.slot, mode)
        };
        let obstacle = (request.obstacle..request.obstacle + count).find(|at| !can_be_had(at));
        request.obstacle = obstacle.unwrap_or(0) % count;
        obstacle.is_none()
    }

    /// Lets go of a name that nobody is concerned with.
    pub(super) fn retire(&mut self, step: &mut Step<'_>, id: EntryId) {
        if self.entries.get(id).is_some_and(|entry| entry.holders.is_empty() && entry.queue.is_empty()) {
            let entry = self.entries.remove(id);
            self.index.remove(entry.key.hash, id);
            step.idle.push(Idle { key: entry.key, orphaned: entry.orphaned });
        }
    }
}
