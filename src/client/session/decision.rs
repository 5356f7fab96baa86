//! How a request for a lock ends: with its reply, or by being given up, and then it is taken back
//! from the server. The [`LocalView`] decides which of the two came first.

use std::time::{Duration, Instant};

use serde_json::value::to_raw_value;

use super::RemoteSession;
use super::local_view::{LocalView, UndecidedRequest};
use crate::broker::{AcquireError, Cycle, Grant, Held, LockName};
use crate::client::connection::{FramedRequest, Lost, REQUEST_MAX, ReplyWait};
use crate::client::reply_reader::ServerReply;
use crate::client::wait_hook::WaitHook;
use crate::wire::message::{
    CancelRequest, Cause, ConvertRequest, LockNames, LockResult, Status, UnlockRequest,
};

/// How many names one `unlock` has at most, so that it is never longer than a request may be.
const UNLOCKED_AT_ONCE: usize = 100;

impl RemoteSession {
    /// Waits for the reply to a request. If the wait ends without a reply, the request is given up,
    /// unless the call was interrupted.
    pub(super) fn outcome(
        &self,
        id: u64,
        backstop: Option<Instant>,
        hook: &mut WaitHook<'_>,
    ) -> Result<Grant, AcquireError> {
        let waited = self.connection.wait_with_hook(&[id], backstop, self.on_signal, hook);
        match self.or_abandon(id, waited)? {
            ReplyWait::Reply(_, reply) => self.record_reply(id, &reply),
            ReplyWait::Forgotten | ReplyWait::Cancelled => Err(AcquireError::Cancelled),
            ReplyWait::TimedOut => Err(self.give_up_waiting(id)),
            ReplyWait::Interrupted => {
                let is_kept = self.view.lock().keep(id);
                // Of a lost connection nothing is kept, but the same call again asks anew.
                let is_interrupted = is_kept || self.connection.check().is_err();
                Err(if is_interrupted { AcquireError::Interrupted } else { AcquireError::Cancelled })
            }
        }
    }

    /// Returns `result`. If that is a loss of the connection, the request will never be answered,
    /// so it is recorded as not granted.
    pub(super) fn or_abandon<T>(&self, id: u64, result: Result<T, Lost>) -> Result<T, Lost> {
        if result.is_err() {
            self.view.lock().abandon(id);
        }
        result
    }

    /// Takes back a request whose time limit is over. Returns what its call must return.
    pub(super) fn give_up_waiting(&self, id: u64) -> AcquireError {
        let mut view = self.view.lock();
        let is_ours = self.take_back(&mut view, id);
        drop(view);
        self.connection.flush();
        if is_ours { AcquireError::TimedOut } else { AcquireError::Cancelled }
    }

    /// Gives a request up, and posts what takes it back from the server, whether the server has
    /// granted it by then or not. False if it has been decided before.
    pub(super) fn take_back(&self, view: &mut LocalView, id: u64) -> bool {
        let Some(request) = view.withdraw(id) else { return false };
        self.connection.forget(id);
        if request.widens() {
            // Two threads have converted the lock at the same time. The session may hold it in the
            // wider mode, and others may have come in.
            self.lost("a change of the mode could not be taken back".to_owned());
            return true;
        }
        if let Ok(requests) = self.undoing(id, request) {
            // If the connection is lost, there is nothing to take back.
            let _ = self.connection.post_unheard(&requests.iter().collect::<Vec<_>>());
        }
        true
    }

    /// The requests that undo a request, whether it waits or is granted when they arrive. An
    /// `unlock` gives up a place as well as a lock. But after a conversion, `unlock` would also
    /// free the lock that was held before. So a conversion is cancelled, and then converted back,
    /// in case it was granted first.
    fn undoing(&self, id: u64, request: UndecidedRequest) -> Result<Vec<FramedRequest>, Lost> {
        let Some(before) = request.before else {
            return self.unlock_requests(request.wants.into_iter().map(|(name, _)| name).collect());
        };
        let lose = |reason| self.lost(reason);
        let id = to_raw_value(&id).map_err(|error| lose(error.to_string()))?;
        let cancel = CancelRequest { id: &id };
        let cancel = self.connection.request("cancel", &cancel, REQUEST_MAX).map_err(lose)?;
        let mut requests = vec![cancel];
        for (name, _) in request.wants {
            let back = ConvertRequest { name, mode: before.mode, limit: Some(Duration::ZERO) };
            requests.push(self.connection.request("convert", &back, REQUEST_MAX).map_err(lose)?);
        }
        Ok(requests)
    }

    /// Records the reply to `lock` or `convert`, and returns what it means to the call.
    pub(super) fn record_reply(&self, id: u64, reply: &ServerReply) -> Result<Grant, AcquireError> {
        let result: LockResult = self.or_abandon(id, self.read(reply))?;
        if result.status == Status::Ok && result.token.is_none() {
            let lost = self.lost("the server granted a lock without a token".to_owned());
            self.or_abandon(id, Err::<(), _>(lost))?;
        }
        if self.ends_connection(&result) {
            let lost = self.lost(result.reason.unwrap_or_default());
            return Ok(self.or_leave(id, Err(lost))?);
        }
        let token = result.token.filter(|_| result.status == Status::Ok);
        // A grant counts only on a connection that is still alive. The grant may have been read
        // long ago, or this process may have been stopped in the meantime.
        let mut view = self.view.lock();
        // In one step with the entry: once the connection is lost, a session that may be resumed
        // takes from the view what it claims to hold.
        let checked = token.map_or(Ok(()), |_| self.connection.check());
        let checked = checked.inspect_err(|_| {
            // A session that may be resumed takes its place again, so it stays in the view.
            if self.resume.is_none() {
                view.abandon(id);
            }
        });
        let decided = if checked.is_ok() { view.decide(id, token) } else { None };
        self.note_holding(&view);
        drop(view);
        checked?;
        let Some(request) = decided else {
            // If the connection is lost, it may have been given up with that.
            self.connection.check()?;
            return Err(AcquireError::Cancelled);
        };
        if result.status == Status::NotFound && request.before.is_some() {
            // It held the lock by the local view, which would go on to say so.
            return Err(self.lost("the server does not know a lock that was held".to_owned()).into());
        }
        let Some(token) = token else { return Err(refusal(result)) };
        if let (true, None, [(_, mode), ..]) = (result.already, request.before, request.wants.as_slice()) {
            // By the local view the session did not hold the lock, but the server says that it did.
            // So it holds the lock, but not by this call.
            return Err(AcquireError::AlreadyHeld(Held { mode: *mode, token }));
        }
        Ok(Grant { token, orphaned: result.orphaned, holders: result.holders.unwrap_or(1) })
    }

    /// Whether this is no refusal of the request: the server ends the connection, and a session that
    /// may be resumed goes on with the next server.
    fn ends_connection(&self, result: &LockResult) -> bool {
        result.status == Status::Refused
            && match result.cause {
                Some(Cause::Stopping) => self.resume.is_some(),
                // Cannot happen to a session that stands. If it does, this server has no locks of it.
                Some(Cause::Standby) => true,
                Some(Cause::Grace | Cause::Other) | None => false,
            }
    }

    /// The requests that give these names up, whether they are held or waited for.
    pub(super) fn unlock_requests(&self, names: Vec<LockName>) -> Result<Vec<FramedRequest>, Lost> {
        names.chunks(UNLOCKED_AT_ONCE).map(|names| self.unlock_request(names)).collect()
    }

    pub(super) fn unlock_request(&self, names: &[LockName]) -> Result<FramedRequest, Lost> {
        let names = match names {
            [name] => LockNames::One(name.clone()),
            names => LockNames::Set(names.to_vec()),
        };
        let unlock = UnlockRequest { names };
        // Cannot fail. If it did, the session must end, because the locks would stay held.
        self.connection.request("unlock", &unlock, REQUEST_MAX).map_err(|reason| self.lost(reason))
    }

    /// Another thread has given up the request `id` for `name`, and this call reports it.
    pub(super) fn cancelled(&self, name: &LockName, id: u64) -> AcquireError {
        self.view.lock().ack_cancelled(name, id);
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
        Status::Ok | Status::Deadlock | Status::Refused | Status::Unknown | Status::Ended => {
            match result.cause {
                Some(Cause::Grace) => AcquireError::NotYet(reason),
                Some(Cause::Stopping) => AcquireError::Stopping(reason),
                Some(Cause::Standby | Cause::Other) | None => AcquireError::Refused(reason),
            }
        }
    }
}
