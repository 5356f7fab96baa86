//! The commands that take locks and give them back: `lock`, `unlock`, `convert`, `cancel`.

use std::time::Duration;

use serde_json::value::RawValue;

use super::service::{Call, Service};
use super::waits::{Pending, granted};
use super::{info, kick};
use crate::broker::{AcquireError, Attempt, Cycle, Grant, Key, LockName, Mode, Space, Wait};
use crate::server::config::Config;
use crate::server::connection::Flow;
use crate::wire::message::{
    Cause, LockResult, OldUnlockReply, OldUnlockRequest, Status, UnlockRequest, parse_cancel, parse_convert,
    parse_lock, parse_old_unlock, parse_unlock,
};

/// The longest id of a request that may have to wait, in bytes: it is kept until the wait ends, and there can
/// be as many as a connection may have waits.
const ID_BYTES_MAX: usize = 4096;

/// Adds all lock commands.
pub(super) fn add_to(service: &mut Service) {
    service.on("lock", lock).on("unlock", unlock).on("convert", convert).on("cancel", cancel);
    info::add_to(service);
    kick::add_to(service);
}

/// A request to acquire or convert, once its parameters are understood.
struct Demand<'a> {
    id: &'a RawValue,
    /// The one lock asked for and its mode; `None` for several locks at once.
    one: Option<(&'a [u8], Mode)>,
    limit: Option<Duration>,
}

impl Demand<'_> {
    fn mode(&self) -> Option<Mode> {
        self.one.map(|(_, mode)| mode)
    }
}

fn lock(call: &mut Call<'_, '_>) {
    let (Some(id), Some(parameters)) = (call.id(), call.parameters()) else { return };
    let request = match parse_lock(parameters) {
        Ok(request) => request,
        Err(malformed) => return call.reply(&LockResult::from(malformed)),
    };
    let limit = request.limit;
    match request.names.as_slice() {
        [(name, mode)] if !request.set => {
            let demand = Demand { id, one: Some((name.as_bytes(), *mode)), limit };
            let at_once = call.session().try_acquire(Space::Main, name.as_bytes(), *mode);
            let may_wait = matches!(at_once, Err(AcquireError::TimedOut | AcquireError::NotYet(_)));
            if may_wait && limit != Some(Duration::ZERO) {
                let wants = [(Key::main(name.clone()), *mode)];
                return ask(call, &demand, |call, wait| call.session().acquire(&wants, wait));
            }
            answer(call, &demand, at_once);
        }
        names => {
            let wants: Vec<(Key, Mode)> =
                names.iter().map(|(name, mode)| (Key::main(name.clone()), *mode)).collect();
            let demand = Demand { id, one: None, limit };
            ask(call, &demand, |call, wait| call.session().acquire(&wants, wait));
        }
    }
}

fn convert(call: &mut Call<'_, '_>) {
    let (Some(id), Some(parameters)) = (call.id(), call.parameters()) else { return };
    let request = match parse_convert(parameters) {
        Ok(request) => request,
        Err(malformed) => return call.reply(&LockResult::from(malformed)),
    };
    let name = request.name.as_bytes();
    let demand = Demand { id, one: Some((name, request.mode)), limit: request.limit };
    ask(call, &demand, |call, wait| call.session().convert(Space::Main, name, request.mode, wait));
}

/// Makes a request that may have to wait, unless its limit is zero, and replies unless it does wait.
fn ask(
    call: &mut Call<'_, '_>,
    demand: &Demand<'_>,
    attempt: impl FnOnce(&Call<'_, '_>, Option<Wait>) -> Result<Attempt, AcquireError>,
) {
    if demand.limit == Some(Duration::ZERO) {
        let attempt = attempt(call, None);
        return answer_attempt(call, demand, attempt);
    }
    if demand.id.get().len() > ID_BYTES_MAX {
        let reason = format!("the id of a request that may have to wait is longer than {ID_BYTES_MAX} bytes");
        return answer(call, demand, Err(AcquireError::Refused(reason)));
    }
    let ticket = call.connection.base.next_ticket();
    let pending = Pending { id: demand.id.to_owned(), mode: demand.mode(), tell_cancelled: false };
    // Prepared before it is asked for: the outcome may come before the answer does.
    call.connection.waits.begin(ticket, pending);
    let attempt = attempt(call, Some(Wait { ticket, limit: demand.limit }));
    if attempt != Ok(Attempt::Queued) {
        call.connection.waits.abandon(ticket);
    }
    answer_attempt(call, demand, attempt);
}

/// Replies, unless the request waits.
fn answer_attempt(call: &mut Call<'_, '_>, demand: &Demand<'_>, attempt: Result<Attempt, AcquireError>) {
    match attempt {
        Ok(Attempt::Queued) => call.connection.base.expect_expiry(demand.limit),
        Ok(Attempt::Granted(grant)) => answer(call, demand, Ok(grant)),
        Err(error) => answer(call, demand, Err(error)),
    }
}

/// Replies to a request that does not wait.
fn answer(call: &mut Call<'_, '_>, demand: &Demand<'_>, attempt: Result<Grant, AcquireError>) {
    match call.connection.base.noting_limits(attempt) {
        Ok(grant) => {
            call.connection.reply(|out| granted(out, demand.id, demand.mode(), grant));
        }
        Err(error) => {
            if let AcquireError::Lost(_) = error {
                call.connection.next = Flow::Close;
            }
            let cause = match &error {
                AcquireError::NotYet(_) => Some(Cause::Grace),
                AcquireError::Lost(_) => Some(Cause::Stopping),
                // Whatever the reason: nothing will be granted any more.
                AcquireError::Refused(_) if call.connection.base.server.broker.is_shut() => {
                    Some(Cause::Stopping)
                }
                _ => None,
            };
            let config = &call.connection.base.config;
            let mut result = LockResult { cause, ..refusal(error, demand.mode(), config) };
            if let (true, Some((name, Mode::Shared))) = (result.already, demand.one) {
                result.holders = Some(call.session().inspect(Space::Main, name).holders);
            }
            call.reply(&result);
        }
    }
}

fn refusal(error: AcquireError, mode: Option<Mode>, config: &Config) -> LockResult {
    match error {
        // As the original: who holds the lock is told so again. But never that it holds what it does not.
        AcquireError::AlreadyHeld(held) if mode == Some(held.mode) => {
            LockResult { already: true, ..LockResult::granted(held.token) }
        }
        AcquireError::AlreadyHeld(_) if mode.is_some() => {
            LockResult::refused("this connection holds the lock in another mode, which convert changes")
        }
        AcquireError::Deadlock(cycle) => deadlock(*cycle, config),
        AcquireError::Invalid(reason) => {
            LockResult { reason: Some(reason), ..LockResult::new(Status::Invalid) }
        }
        AcquireError::TimedOut => LockResult::new(Status::Timeout),
        AcquireError::NotHeld => LockResult::new(Status::NotFound),
        AcquireError::Cancelled => LockResult::new(Status::Cancelled),
        AcquireError::Refused(reason) | AcquireError::NotYet(reason) | AcquireError::Lost(reason) => {
            LockResult::refused(reason)
        }
        other => LockResult::refused(other.to_string()),
    }
}

/// Tells of the others in the cycle what this server lets clients know of each other.
fn deadlock(cycle: Cycle, config: &Config) -> LockResult {
    let circle = match (config.dump, config.registry) {
        (true, true) => Some(cycle.sessions),
        (true, false) => Some(cycle.addresses),
        (false, _) => None,
    };
    let is_whole = circle.as_ref().is_some_and(|circle| circle.len() == cycle.size);
    let circle_size = (!is_whole).then_some(cycle.size);
    LockResult { circle, circle_size, ..LockResult::new(Status::Deadlock) }
}

/// `unlock`. Its old form has the name in the message itself, and a reply of its own shape; whatever else comes
/// with it is ignored then, as by the original.
fn unlock(call: &mut Call<'_, '_>) {
    let old = if call.envelope.has_others { parse_old_unlock(call.body()) } else { Ok(None) };
    let new = || parse_unlock(call.parameters().unwrap_or(RawValue::NULL));
    match (old, call.id()) {
        (Ok(Some(request)), _) => unlock_old(call, &request),
        (Ok(None), Some(_)) => match new() {
            Ok(request) => {
                let found = release(call, &request);
                let status = if found { Status::Ok } else { Status::NotFound };
                call.reply(&LockResult::new(status));
            }
            Err(malformed) => call.reply(&LockResult::from(malformed)),
        },
        // Without an id there is only the old shape to reply in.
        (Ok(None), None) => match new() {
            Ok(unlock) => unlock_old(call, &OldUnlockRequest { unlock, is_number: false }),
            Err(_) => call.connection.reply(|out| OldUnlockReply::Invalid.encode(out)),
        },
        (Err(_), _) => call.connection.reply(|out| OldUnlockReply::Invalid.encode(out)),
    }
}

fn unlock_old(call: &mut Call<'_, '_>, request: &OldUnlockRequest) {
    let found = release(call, &request.unlock);
    let reply = if found { OldUnlockReply::Ok(request) } else { OldUnlockReply::NotFound(request) };
    call.connection.reply(|out| reply.encode(out));
}

/// Gives up each, held or waited for; whether there was something to give up of every one.
fn release(call: &Call<'_, '_>, request: &UnlockRequest) -> bool {
    let session = call.session();
    // Looked at before anything is given up: a request for several at once leaves all its queues with
    // the first name, and the others are then found by nobody.
    let is_concerned = |name: &LockName| {
        let seen = session.inspect(Space::Main, name.as_bytes());
        seen.held.is_some() || seen.waiting
    };
    let found = request.names.len() == 1 || request.names.iter().all(is_concerned);
    let released: Vec<bool> =
        request.names.iter().map(|name| session.release(Space::Main, name.as_bytes()).is_ok()).collect();
    found && released.first() == Some(&true)
}

/// `cancel`: takes a waiting request back, which is then answered `cancelled`. What it had been answered
/// before stands, a grant too.
fn cancel(call: &mut Call<'_, '_>) {
    let Some(parameters) = call.parameters() else { return };
    let status = match parse_cancel(parameters) {
        Ok(request) => {
            let ticket = call.connection.waits.to_cancel(request.id);
            let cancelled = ticket.is_some_and(|ticket| call.session().cancel(ticket));
            LockResult::new(if cancelled { Status::Ok } else { Status::NotFound })
        }
        Err(malformed) => LockResult::from(malformed),
    };
    call.reply(&status);
}
