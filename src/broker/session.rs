//! One owner of locks, and what each of its calls does with the lanes and the table. No call
//! blocks: a request that has to wait is queued, and the session's [`Observer`] is told how the
//! wait ended, by the thread that ended it. The server's connections and the blocking
//! [`LocalSession`](super::LocalSession) are built on this. Decides nothing about locks.

use std::time::Duration;

use crate::broker::clock::{self, Stamp};
use crate::broker::fast_lane::{KeyRef, Lane, LaneAcquire, LaneRelease};
use crate::broker::hasher::lane_of;
use crate::broker::lifecycle::{CallRefused, Intent};
use crate::broker::limits::check_set;
use crate::broker::mode::Mode;
use crate::broker::name::{Key, Space};
use crate::broker::outcome::{AcquireError, Attempt, Cycle, Grant, Held, Inspection, ReleaseError, Released};
use crate::broker::reclaim_error::ReclaimError;
use crate::broker::rules::{HashedKey, NotGranted, NotReclaimed, Step, Table, Ticket, WaitSpec};
use crate::broker::session_info::{Observer, SessionInfo, Wait};
use crate::broker::shell::Shell;
use crate::os::sync::{Arc, Ordering};

/// One owner of locks. When it is dropped, [abandoned](Self::abandon) or [closed](Self::close), all
/// its locks are freed and all its waits leave their queues. May be shared between threads.
pub struct ObservedSession {
    pub(super) shell: Arc<Shell>,
    info: Arc<SessionInfo>,
}

impl ObservedSession {
    /// Opens a session; `address` makes its address from its id.
    pub(super) fn open(
        shell: &Arc<Shell>,
        address: impl FnOnce(u64) -> String,
        observer: Arc<dyn Observer>,
    ) -> Self {
        let id = shell.next_session_id();
        let address = address(id);
        let info = shell.sessions.register(|slot| SessionInfo::new(id, slot, address), observer);
        Self { shell: shell.clone(), info }
    }

    /// A session that is registered already: it is the one of a snapshot.
    pub(super) fn restored(shell: &Arc<Shell>, info: Arc<SessionInfo>) -> Self {
        Self { shell: shell.clone(), info }
    }

    /// What identifies this session to others.
    #[must_use]
    pub fn info(&self) -> &Arc<SessionInfo> {
        &self.info
    }

    /// From when this returns on, only `observer` is told how waits of the session end. The observer
    /// so far is told the outcomes decided before this call, and a thread that is telling it is
    /// waited for. Every outcome is told once, to one of the two. [`Observer::deliver`] of the
    /// observer so far may still be called, for what it was told.
    ///
    /// To be called while the session has no waits, see [`end_waits`](Self::end_waits): the new
    /// observer knows nothing of a wait that began before. Does nothing if the session has ended.
    pub fn set_observer(&self, observer: Arc<dyn Observer>) {
        self.shell.set_observer(&self.info, observer);
    }

    /// Acquires `name` if that is possible at once.
    ///
    /// Every request for one name starts here. It is nearly always granted, by the lane of the
    /// name, and the caller need not prepare for a wait. If it fails with `TimedOut` or `NotYet`
    /// and the caller is ready to wait, the next step is [`acquire`](Self::acquire).
    ///
    /// # Errors
    /// [`AcquireError`], except `Deadlock` and `Cancelled`. `TimedOut` means that another session
    /// holds the lock or waits for it.
    pub fn try_acquire(&self, space: Space, name: &[u8], mode: Mode) -> Result<Grant, AcquireError> {
        let (shell, info) = (&*self.shell, &*self.info);
        shell.check_names([name])?;
        if let Some((lane, node)) = info.last_grant.of(name)
            && shell.check_room(info, 1, lane).is_ok()
        {
            let (by, now) = (info.holder(lane), clock::now_coarse());
            let acquire = |content: &mut Lane| content.acquire_at(node, (space, name), by, mode, now);
            if let Some(grant) = shell.in_lane(lane, Intent::Acquiring(info), acquire)? {
                return Ok(grant);
            }
        }
        self.try_acquire_by_hash(space, name, mode)
    }

    // Not inlined: the shorter way is faster for it.
    #[inline(never)]
    fn try_acquire_by_hash(&self, space: Space, name: &[u8], mode: Mode) -> Result<Grant, AcquireError> {
        let (shell, info) = (&*self.shell, &*self.info);
        let key = shell.key(space, name);
        let lane = lane_of(key.hash);
        if let Err(refusal) = shell.check_room(info, 1, lane) {
            return Err(self.held_or(refusal, key));
        }
        let (by, now) = (info.holder(lane), clock::now_coarse());
        let acquire = |content: &mut Lane| {
            let fast = content.acquire(key, by, mode, now);
            debug_assert!(by.holdings.count() <= content.held_in_all());
            debug_assert!(
                !matches!(fast, LaneAcquire::Granted(..))
                    || content.view(key).inspect(info.slot).is_some_and(|seen| seen.held.is_some())
            );
            fast
        };
        match shell.in_lane(lane, Intent::Acquiring(info), acquire)? {
            LaneAcquire::Granted(grant, node) => {
                info.last_grant.set(name, lane, node);
                Ok(grant)
            }
            LaneAcquire::AlreadyHeld(held) => Err(AcquireError::AlreadyHeld(held)),
            LaneAcquire::Busy => Err(AcquireError::TimedOut),
            LaneAcquire::Defer => self.try_acquire_contended(key, mode),
        }
    }

    // Kept out of `try_acquire`, which nearly always ends in the lane.
    #[cold]
    fn try_acquire_contended(&self, key: KeyRef<'_>, mode: Mode) -> Result<Grant, AcquireError> {
        match self.acquire_contended(&[(key.to_owned(), mode)], None)? {
            Attempt::Granted(grant) => Ok(grant),
            Attempt::Queued => unreachable!("a request without a wait is not queued"),
        }
    }

    /// Acquires all of `wants` at once or none of them. If that is not possible now, a request with
    /// `wait` is queued, and the observer is told how the wait ends.
    ///
    /// The table decides this, without the lanes. For one name, call
    /// [`try_acquire`](Self::try_acquire) first: a lane is faster, and this does not try it again.
    ///
    /// # Errors
    /// [`AcquireError`], except `Cancelled`. `TimedOut` only without `wait`.
    pub fn acquire(&self, wants: &[(Key, Mode)], wait: Option<Wait>) -> Result<Attempt, AcquireError> {
        self.shell.check_names(wants.iter().map(|(key, _)| key.name.as_bytes()))?;
        check_set(wants.iter().map(|(key, _)| (key.space, &key.name)))?;
        let hashed = |(key, mode): &(Key, Mode)| {
            let hash = self.shell.key(key.space, key.name.as_bytes()).hash;
            (HashedKey { key: key.clone(), hash }, *mode)
        };
        let wants: Vec<_> = wants.iter().map(hashed).collect();
        let first = wants[0].0.as_ref();
        if let Err(refusal) = self.shell.check_room(&self.info, wants.len(), lane_of(first.hash)) {
            return Err(if wants.len() == 1 { self.held_or(refusal, first) } else { refusal });
        }
        self.acquire_contended(&wants, wait)
    }

    /// The error for a request for one name that the limits refuse. A lock already held is reported
    /// as held even over the limit.
    #[cold]
    fn held_or(&self, refusal: AcquireError, key: KeyRef<'_>) -> AcquireError {
        match self.look_up(key) {
            Ok(seen) => seen.held.map_or(refusal, AcquireError::AlreadyHeld),
            Err(refused) => refused.into(),
        }
    }

    fn acquire_contended(
        &self,
        wants: &[(HashedKey, Mode)],
        wait: Option<Wait>,
    ) -> Result<Attempt, AcquireError> {
        let info = &*self.info;
        let keys = wants.iter().map(|(key, _)| key);
        let intent = if wait.is_some() { Intent::Queueing(info) } else { Intent::Acquiring(info) };
        let answer = self.shell.with_table(keys, intent, |table, step| {
            let wait = wait.map(|wait| wait_spec(step, wait));
            let answer = table.acquire(step, info.slot, wants, wait);
            if let Ok(Attempt::Granted(_)) = answer {
                info.holdings.add_in_table(wants.len());
                debug_assert!(info.holdings.in_table() <= table.holds());
                debug_assert!(table.inspect(info.slot, &wants[0].0).is_some_and(|seen| seen.held.is_some()));
            }
            answer
        })?;
        self.attempt(answer)
    }

    /// Changes the mode of a held lock without giving it up. To a mode that allows more holders it
    /// never waits.
    ///
    /// # Errors
    /// [`AcquireError`], except `Cancelled`. `TimedOut` only without `wait`.
    pub fn convert(
        &self,
        space: Space,
        name: &[u8],
        mode: Mode,
        wait: Option<Wait>,
    ) -> Result<Attempt, AcquireError> {
        self.shell.check_names([name])?;
        let info = &*self.info;
        let keys = [self.shell.key(space, name).to_owned()];
        // The intent to queue is not refused in the grace: to a mode that allows more holders, a
        // lock is converted then, too.
        let mut granting = true;
        let answer = self.shell.with_table(&keys, Intent::Queueing(info), |table, step| {
            granting = step.granting;
            let wait = wait.map(|wait| wait_spec(step, wait));
            table.convert(step, info.slot, &keys[0], mode, wait)
        })?;
        if answer == Err(NotGranted::Busy) && !granting {
            // `NotYet` in the grace.
            self.shell.lifecycle.check(Intent::Acquiring(info))?;
        }
        self.attempt(answer)
    }

    /// Makes the session a holder of `name` again, as it was in an earlier run of the server, with
    /// the token that it had then. That is possible in the grace only, before the session waits for
    /// anything. Requests that wait for the name stay in its queue. No limit on locks applies: what
    /// was held stays. Counts as no grant.
    ///
    /// # Errors
    /// [`ReclaimError`]. Nothing has changed then.
    pub fn reclaim(&self, space: Space, name: &[u8], mode: Mode, token: u64) -> Result<(), ReclaimError> {
        let info = &*self.info;
        let keys = [self.shell.key(space, name).to_owned()];
        let answer = self.shell.with_table(&keys, Intent::Reclaiming(info), |table, step| {
            let answer = table.reclaim(step, info.slot, &keys[0], mode, token);
            if answer.is_ok() {
                info.holdings.add_in_table(1);
                debug_assert!(info.holdings.in_table() <= table.holds());
                debug_assert!(table.inspect(info.slot, &keys[0]).is_some_and(|seen| seen.held.is_some()));
            }
            answer
        })?;
        answer.map_err(|refused| match refused {
            NotReclaimed::AlreadyHeld(held) => ReclaimError::AlreadyHeld(held),
            NotReclaimed::Waiting => ReclaimError::Waiting,
            NotReclaimed::TokenNotGivenYet => ReclaimError::TokenNotGivenYet,
            NotReclaimed::Conflict => {
                let lock = self.shell.lock_info(&keys[0]);
                ReclaimError::Conflict(lock.map_or_else(Vec::new, |lock| lock.holders))
            }
        })
    }

    /// Gives up the lock, or the wait for it. The outcome of a wait given up like this is
    /// `Cancelled`.
    ///
    /// # Errors
    /// [`ReleaseError`]
    pub fn release(&self, space: Space, name: &[u8]) -> Result<Released, ReleaseError> {
        let (shell, info) = (&*self.shell, &*self.info);
        let now = shell.end_of_hold();
        if let Some((lane, node)) = info.last_grant.of(name) {
            let by = info.holder(lane);
            let release = |content: &mut Lane| content.release_at(node, (space, name), by, now);
            if shell.in_lane(lane, Intent::Releasing(info), release)? {
                return Ok(Released::Hold);
            }
        }
        self.release_by_hash(space, name, now)
    }

    #[inline(never)]
    fn release_by_hash(
        &self,
        space: Space,
        name: &[u8],
        now: Option<Stamp>,
    ) -> Result<Released, ReleaseError> {
        let (shell, info) = (&*self.shell, &*self.info);
        let key = shell.key(space, name);
        let lane = lane_of(key.hash);
        let by = info.holder(lane);
        let release = |content: &mut Lane| {
            let fast = content.release(key, by, now, false);
            debug_assert!(by.holdings.count() <= content.held_in_all());
            debug_assert!(
                !matches!(fast, LaneRelease::Released)
                    || content.view(key).inspect(info.slot).is_some_and(|seen| seen.mode.is_none())
            );
            fast
        };
        match shell.in_lane(lane, Intent::Releasing(info), release)? {
            LaneRelease::Released => Ok(Released::Hold),
            LaneRelease::NotHeld => Err(ReleaseError::NotHeld),
            // If the name has left the table since, this session did not hold it.
            LaneRelease::Defer => {
                shell.release_in_table(info, &key.to_owned(), false)?.ok_or(ReleaseError::NotHeld)
            }
        }
    }

    /// Cancels a wait; its outcome is `Cancelled`. Returns false if the wait had ended already:
    /// then the observer has been told how.
    pub fn cancel(&self, ticket: Ticket) -> bool {
        let cancel = |table: &mut Table, step: &mut Step<'_>| table.cancel(step, self.info.slot, ticket);
        self.shell.with_table(&[], Intent::Releasing(&self.info), cancel).unwrap_or(false)
    }

    /// Ends the waits whose time limit has passed. Returns how long it is until the next time limit
    /// passes; `None` if no wait has one.
    pub fn expire(&self) -> Option<Duration> {
        let expire = |table: &mut Table, step: &mut Step<'_>| {
            Some(table.expire(step, self.info.slot)?.since(step.now))
        };
        self.shell.with_table(&[], Intent::Releasing(&self.info), expire).ok().flatten()
    }

    /// Ends all waits of the session; its locks stay.
    pub fn end_waits(&self) {
        self.shell.end_waits_of(&self.info);
    }

    /// Ends all waits of the session, and frees its locks, except those for which `keep` is true, as
    /// if it had vanished: what it held exclusively counts as orphaned. Locks are freed one by one,
    /// so that a session that holds a million of them does not keep the others waiting. To be called
    /// while no other thread makes a call of the session: what it is granted meanwhile may stay.
    pub fn forsake(&self, keep: impl FnMut(&Key) -> bool) {
        self.shell.forsake(&self.info, keep);
    }

    /// The state of the lock now. A session that has ended is shown a free lock.
    #[must_use]
    pub fn inspect(&self, space: Space, name: &[u8]) -> Inspection {
        self.look_up(self.shell.key(space, name)).unwrap_or_default()
    }

    /// What the session holds on this name now. Nothing if the session has ended.
    #[must_use]
    pub fn held(&self, space: Space, name: &[u8]) -> Option<Held> {
        self.inspect(space, name).held
    }

    fn look_up(&self, key: KeyRef<'_>) -> Result<Inspection, CallRefused> {
        let slot = self.info.slot;
        let intent = Intent::Releasing(&self.info);
        let seen = self.shell.in_lane(lane_of(key.hash), intent, |lane| lane.view(key).inspect(slot))?;
        if let Some(seen) = seen {
            return Ok(seen);
        }
        // If the name has left the table since, it is free: that is the default.
        let key = key.to_owned();
        let seen = self.shell.with_table(&[], intent, |table, _| table.inspect(slot, &key))?;
        Ok(seen.unwrap_or_default())
    }

    /// Whether the session has not ended and the broker has not failed.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.info.ended.load(Ordering::Acquire) && !self.shell.lifecycle.has_failed()
    }

    /// Ends a session that has vanished: its waits leave their queues, its locks are freed and
    /// count as orphaned. Every later call fails with `Lost`. Locks are freed in batches, so that a
    /// session that holds a million of them does not keep the others waiting.
    pub fn abandon(&self) {
        self.shell.end_session(&self.info, true);
    }

    /// Ends a session in an orderly way: as [`abandon`](Self::abandon), but its locks count as
    /// released. Does nothing if the session has ended already.
    pub fn close(&self) {
        self.shell.end_session(&self.info, false);
    }

    /// The table's answer in the words of the session's caller.
    fn attempt(&self, answer: Result<Attempt, NotGranted>) -> Result<Attempt, AcquireError> {
        match answer {
            Ok(attempt) => Ok(attempt),
            Err(NotGranted::Busy) => Err(AcquireError::TimedOut),
            Err(NotGranted::AlreadyHeld(held)) => Err(AcquireError::AlreadyHeld(held)),
            Err(NotGranted::AlreadyWaiting) => Err(AcquireError::AlreadyWaiting),
            Err(NotGranted::NotHeld) => Err(AcquireError::NotHeld),
            Err(NotGranted::TooManyWaits) => {
                Err(AcquireError::Refused("this session waits for as many locks as it may".to_owned()))
            }
            // A bulk turn has the budget for everything else.
            Err(NotGranted::TooLarge) => {
                let text =
                    "too many sessions wait for each other to rule out that this wait would be a deadlock";
                Err(AcquireError::Refused(text.to_owned()))
            }
            Err(NotGranted::Deadlock(cycle)) => {
                let shown = cycle.iter().take(Cycle::SHOWN_MAX);
                let infos: Vec<_> = shown.filter_map(|&slot| self.shell.sessions.info(slot)).collect();
                Err(AcquireError::Deadlock(Box::new(Cycle {
                    sessions: infos.iter().map(|info| info.label()).collect(),
                    addresses: infos.iter().map(|info| info.address().to_string()).collect(),
                    size: cycle.len(),
                })))
            }
        }
    }
}

impl Drop for ObservedSession {
    fn drop(&mut self) {
        self.abandon();
    }
}

fn wait_spec(step: &Step<'_>, wait: Wait) -> WaitSpec {
    WaitSpec { ticket: wait.ticket, deadline: wait.limit.map(|limit| step.now.after(limit)) }
}
