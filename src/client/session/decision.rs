//! How a request for a lock ends: with its reply, or given up, and then taken back from the server. The
//! claims say which of the two came first.

use std::time::{Duration, Instant};

use serde_json::value::to_raw_value;

use super::claims::{Claims, Kind, Pending};
use super::{REQUEST_MAX, RemoteSession, UNLOCKED_AT_ONCE};
use crate::broker::{AcquireError, Cycle, Grant, Held, LockName};
use crate::client::connection::{Lost, Request, Signals, Waited};
use crate::client::input::Reply;
use crate::wire::message::{CancelRequest, Cause, ConvertRequest, LockResult, Status, UnlockRequest};

impl RemoteSession {
    /// Waits for the reply to a request that is no place in a queue.
    pub(super) fn outcome(
        &self,
        id: u64,
        backstop: Option<Instant>,
        signals: Signals,
    ) -> Result<Grant, AcquireError> {
        match self.or_abandon(id, self.connection.wait(&[id], backstop, signals))? {
            Waited::Reply(_, reply) => self.settle(id, &reply),
            Waited::Forgotten | Waited::Cancelled => Err(AcquireError::Cancelled),
            Waited::TimedOut => Err(self.give_up_waiting(id)),
            Waited::Interrupted => {
                let is_kept = self.claims.lock().keep(id);
                Err(if is_kept { AcquireError::Interrupted } else { AcquireError::Cancelled })
            }
        }
    }

    /// Passes `result` on. If the connection is lost, the request is never answered: its caller is told, and the
    /// session does not wait for it any more.
    pub(super) fn or_abandon<T>(&self, id: u64, result: Result<T, Lost>) -> Result<T, Lost> {
        if result.is_err() {
            self.claims.lock().decide(id, None);
        }
        result
    }

    /// Takes a request back whose time is over. Says what its call is to return.
    pub(super) fn give_up_waiting(&self, id: u64) -> AcquireError {
        let mut claims = self.claims.lock();
        let is_ours = self.take_back(&mut claims, id);
        drop(claims);
        self.connection.flush();
        if is_ours { AcquireError::TimedOut } else { AcquireError::Cancelled }
    }

    /// Gives a request up, and posts what takes it back from the server, whether it is granted by then or
    /// still waits. False if it has been decided before.
    pub(super) fn take_back(&self, claims: &mut Claims, id: u64) -> bool {
        let Some(pending) = claims.withdraw(id) else { return false };
        self.connection.forget(id);
        if let Ok(requests) = self.undoing(id, pending) {
            // If it is lost, nothing is left to take back.
            let _ = self.connection.post_unheard(&requests.iter().collect::<Vec<_>>());
        }
        true
    }

    /// What follows the request on the wire to undo it, in whatever state it finds it: an `unlock` frees a
    /// place as well as a lock. A conversion it would rob of the lock that was held before, so that one is
    /// cancelled, and converted back in case it was too late for that.
    fn undoing(&self, id: u64, pending: Pending) -> Result<Vec<Request>, Lost> {
        let held = match pending.kind {
            Kind::Acquire | Kind::Enqueue => {
                return self.unlock_requests(pending.wants.into_iter().map(|(name, _)| name).collect());
            }
            Kind::Upgrade(held) | Kind::EnqueuedUpgrade(held) | Kind::Downgrade(held) => held,
        };
        let lose = |reason| self.lost(reason);
        let id = to_raw_value(&id).map_err(|error| lose(error.to_string()))?;
        let cancel = CancelRequest { id: &id };
        let cancel = self.connection.request("cancel", &cancel, REQUEST_MAX).map_err(lose)?;
        let mut requests = vec![cancel];
        for (name, _) in pending.wants {
            let back = ConvertRequest { name, mode: held.mode, limit: Some(Duration::ZERO) };
            requests.push(self.connection.request("convert", &back, REQUEST_MAX).map_err(lose)?);
        }
        Ok(requests)
    }

    /// What a reply to `lock` or `convert` means.
    pub(super) fn settle(&self, id: u64, reply: &Reply) -> Result<Grant, AcquireError> {
        let result: LockResult = self.or_abandon(id, self.read(reply))?;
        if result.status == Status::Ok && result.token.is_none() {
            let lost = self.lost("the server granted a lock without a token".to_owned());
            self.or_abandon(id, Err::<(), _>(lost))?;
        }
        let token = result.token.filter(|_| result.status == Status::Ok);
        // Of what was granted before the end came nothing is left; and that may have come long ago, if the
        // grant has lain here, or this process was stopped.
        let checked = token.map_or(Ok(()), |_| self.connection.check());
        let granted = token.filter(|_| checked.is_ok());
        let decided = self.claims.lock().decide(id, granted);
        let Some(pending) = decided else { return Err(AcquireError::Cancelled) };
        checked?;
        let Some(token) = token else { return Err(refusal(result)) };
        if let (true, Kind::Acquire | Kind::Enqueue, [(_, mode), ..]) =
            (result.already, pending.kind, pending.wants.as_slice())
        {
            // The claims, which are as ordered as the wire, had it otherwise. Whatever the reason: the lock
            // is this session's, but not by this call.
            return Err(AcquireError::AlreadyHeld(Held { mode: *mode, token }));
        }
        Ok(Grant { token, orphaned: result.orphaned, holders: result.holders.unwrap_or(1) })
    }

    /// The requests that give these names back, whether they are held or waited for.
    pub(super) fn unlock_requests(&self, names: Vec<LockName>) -> Result<Vec<Request>, Lost> {
        names.chunks(UNLOCKED_AT_ONCE).map(|names| self.unlock_request(names)).collect()
    }

    pub(super) fn unlock_request(&self, names: &[LockName]) -> Result<Request, Lost> {
        let unlock = UnlockRequest { names: names.to_vec(), set: names.len() > 1 };
        // It cannot fail; if it did, the locks must not stay.
        self.connection.request("unlock", &unlock, REQUEST_MAX).map_err(|reason| self.lost(reason))
    }

    /// The place at `name` was given up by another thread, and this caller is the one to be told.
    pub(super) fn cancelled(&self, name: &LockName, id: u64) -> AcquireError {
        self.claims.lock().told_cancelled(name, id);
        AcquireError::Cancelled
    }
}

fn cycle(result: LockResult) -> Cycle {
    let sessions = result.circle.unwrap_or_default();
    let size = result.circle_size.unwrap_or(sessions.len());
    Cycle { sessions, addresses: Vec::new(), size }
}

fn refusal(result: LockResult) -> AcquireError {
    if result.status == Status::Deadlock {
        return AcquireError::Deadlock(Box::new(cycle(result)));
    }
    let reason = result.reason.unwrap_or_else(|| format!("{:?}", result.status));
    match result.status {
        Status::Timeout => AcquireError::TimedOut,
        Status::Invalid => AcquireError::Invalid(reason),
        Status::NotFound => AcquireError::NotHeld,
        Status::Cancelled => AcquireError::Cancelled,
        Status::Ok | Status::Deadlock | Status::Refused | Status::Unknown => match result.cause {
            Some(Cause::Grace) => AcquireError::NotYet(reason),
            Some(Cause::Stopping) => AcquireError::Stopping(reason),
            Some(Cause::Other) | None => AcquireError::Refused(reason),
        },
    }
}
