//! The commands that take locks and give them back: `lock`, `unlock`, `convert`, `cancel`.

use std::time::Duration;

use serde_json::value::RawValue;

use super::service::Call;
use super::waits::{PendingReply, encode_grant};
use crate::broker::{AcquireError, Attempt, Cycle, Grant, Key, LockName, Mode, ObservedSession, Space, Wait};
use crate::server::config::Config;
use crate::server::connection::Flow;
use crate::wire::message::{
    Cause, LockNames, LockResult, OldUnlockReply, OldUnlockRequest, Status, UnlockRequest, parse_cancel,
    parse_convert, parse_lock, parse_old_unlock, parse_unlock,
};

/// The longest id of a request that may have to wait, in bytes. The id is kept until the wait ends,
/// and a connection can have as many of them as it may have waits.
const ID_BYTES_MAX: usize = 4096;

/// A `lock` or `convert` whose parameters have been read.
struct Acquisition<'a> {
    id: &'a RawValue,
    /// The one lock asked for and its mode; `None` for several locks at once.
    one: Option<(&'a [u8], Mode)>,
    limit: Option<Duration>,
}

impl Acquisition<'_> {
    fn mode(&self) -> Option<Mode> {
        self.one.map(|(_, mode)| mode)
    }
}

pub(super) fn lock(call: &mut Call<'_, '_>) {
    let (Some(id), Some(parameters)) = (call.id(), call.parameters()) else { return };
    let request = match parse_lock(parameters) {
        Ok(request) => request,
        Err(malformed) => return call.reply(&LockResult::from(malformed)),
    };
    let limit = request.limit;
    match request.names {
        LockNames::One((name, mode)) => {
            let asked = Acquisition { id, one: Some((name.as_bytes(), mode)), limit };
            if let Some(answer) = call.connection.base.try_first(Space::Main, name.as_bytes(), mode, limit) {
                return reply(call, &asked, answer);
            }
            let wants = [(Key::main(name.clone()), mode)];
            ask(call, &asked, |session, wait| session.acquire(&wants, wait));
        }
        LockNames::Set(names) => {
            let wants: Vec<(Key, Mode)> =
                names.into_iter().map(|(name, mode)| (Key::main(name), mode)).collect();
            let asked = Acquisition { id, one: None, limit };
            ask(call, &asked, |session, wait| session.acquire(&wants, wait));
        }
    }
}

pub(super) fn convert(call: &mut Call<'_, '_>) {
    let (Some(id), Some(parameters)) = (call.id(), call.parameters()) else { return };
    let request = match parse_convert(parameters) {
        Ok(request) => request,
        Err(malformed) => return call.reply(&LockResult::from(malformed)),
    };
    let name = request.name.as_bytes();
    let asked = Acquisition { id, one: Some((name, request.mode)), limit: request.limit };
    ask(call, &asked, |session, wait| session.convert(Space::Main, name, request.mode, wait));
}

/// Makes a request and replies to it, unless it is queued.
fn ask(
    call: &mut Call<'_, '_>,
    asked: &Acquisition<'_>,
    request: impl FnOnce(&ObservedSession, Option<Wait>) -> Result<Attempt, AcquireError>,
) {
    let &Acquisition { id, limit, .. } = asked;
    if limit != Some(Duration::ZERO) && id.get().len() > ID_BYTES_MAX {
        let reason = format!("the id of a request that may have to wait is longer than {ID_BYTES_MAX} bytes");
        return reply(call, asked, Err(AcquireError::Refused(reason)));
    }
    let pending = || PendingReply { id: id.to_owned(), mode: asked.mode(), tell_cancelled: false };
    let waits = call.connection.waits;
    let answer = call.connection.base.ask_or_queue(
        limit,
        |ticket| waits.note(ticket, pending()),
        request,
        |ticket| waits.forget(ticket),
    );
    if let Some(answer) = answer {
        reply(call, asked, answer);
    }
}

/// Replies to a request that does not wait.
fn reply(call: &mut Call<'_, '_>, asked: &Acquisition<'_>, answer: Result<Grant, AcquireError>) {
    match call.connection.base.with_limits_logged(answer) {
        Ok(grant) => call.connection.reply(|out| encode_grant(out, asked.id, asked.mode(), grant)),
        Err(AcquireError::TimedOut) => call.reply_status(Status::Timeout),
        Err(error) => {
            if let AcquireError::Lost(_) = error {
                call.connection.next = Flow::Close;
            }
            let cause = match &error {
                AcquireError::NotYet(_) => Some(Cause::Grace),
                AcquireError::Lost(_) => Some(Cause::Stopping),
                // Whatever the reason was: nothing will be granted any more.
                AcquireError::Refused(_) if call.connection.base.server.broker.is_shut() => {
                    Some(Cause::Stopping)
                }
                _ => None,
            };
            let config = &call.connection.base.config;
            let mut result = LockResult { cause, ..refusal(error, asked.mode(), config) };
            if let (true, Some((name, mode))) = (result.already, asked.one)
                && mode != Mode::Exclusive
            {
                result.holders = Some(call.session().inspect(Space::Main, name).holders);
            }
            call.reply(&result);
        }
    }
}

fn refusal(error: AcquireError, mode: Option<Mode>, config: &Config) -> LockResult {
    match error {
        // As in the original, a request for a lock that the session holds is granted again; but
        // only in the mode in which it holds the lock.
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
        AcquireError::NotHeld => LockResult::new(Status::NotFound),
        AcquireError::Cancelled => LockResult::new(Status::Cancelled),
        AcquireError::Refused(reason) | AcquireError::NotYet(reason) | AcquireError::Lost(reason) => {
            LockResult::refused(reason)
        }
        other => LockResult::refused(other.to_string()),
    }
}

/// Names the others in the cycle only as far as this server lets clients know of each other.
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

/// `unlock`. Its old form has the name in the message itself and a reply of its own shape;
/// everything else in the message is ignored then, as by the original.
pub(super) fn unlock(call: &mut Call<'_, '_>) {
    let old = if call.envelope.has_others { parse_old_unlock(call.body()) } else { Ok(None) };
    let new = || parse_unlock(call.parameters().unwrap_or(RawValue::NULL));
    match (old, call.id()) {
        (Ok(Some(request)), _) => unlock_old(call, &request),
        (Ok(None), Some(_)) => match new() {
            Ok(request) => {
                let found = release(call, &request);
                call.reply_status(if found { Status::Ok } else { Status::NotFound });
            }
            Err(malformed) => call.reply(&LockResult::from(malformed)),
        },
        // A message without an id can be answered in the old shape only.
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

/// Releases every name, or leaves its queue. True if each of them was held or waited for.
fn release(call: &Call<'_, '_>, request: &UnlockRequest) -> bool {
    let session = call.session();
    let release = |name: &LockName| session.release(Space::Main, name.as_bytes()).is_ok();
    let names = match &request.names {
        LockNames::One(name) => return release(name),
        LockNames::Set(names) => names,
    };
    // Looked at before anything is released: a waiting request for several names leaves all their
    // queues when the first name is released, and the others would then count as not found.
    let is_held_or_waited_for = |name: &LockName| {
        let seen = session.inspect(Space::Main, name.as_bytes());
        seen.held.is_some() || seen.waiting
    };
    let found = names.len() == 1 || names.iter().all(is_held_or_waited_for);
    let released: Vec<bool> = names.iter().map(release).collect();
    found && released.first() == Some(&true)
}

/// `cancel`: ends the wait of a request, which is then answered `cancelled`. If it had been
/// answered before, that answer holds, and a grant remains granted.
pub(super) fn cancel(call: &mut Call<'_, '_>) {
    let Some(parameters) = call.parameters() else { return };
    let result = match parse_cancel(parameters) {
        Ok(request) => {
            let ticket = call.connection.waits.to_cancel(request.id);
            let cancelled = ticket.is_some_and(|ticket| call.session().cancel(ticket));
            LockResult::new(if cancelled { Status::Ok } else { Status::NotFound })
        }
        Err(malformed) => LockResult::from(malformed),
    };
    call.reply(&result);
}
