//! The calls of a session. Each is made with arguments from the input, and must return what the
//! model expects.

use std::ffi::CStr;
use std::ptr;

use lockd::broker::Mode;
use lockd::ffi::{
    lock_acquire, lock_at_most, lock_cancel, lock_check, lock_convert, lock_enqueue, lock_enqueue_convert,
    lock_held_mode, lock_inspect, lock_list, lock_list_free, lock_lost_fd, lock_release, lock_session,
    lock_status, lock_token, lock_wait,
};

use crate::expected;
use crate::input::Input;
use crate::model::{Event, Said};
use crate::names::GivenName;
use crate::world::{Enqueued, SLOTS, Session, Worlds, last_error, untouched_info};

/// Tokens are lower, so that every reader of JSON represents them exactly.
const TOKEN_END: u64 = 1 << 53;

/// The value of an output that has not been written.
pub(crate) const UNTOUCHED: u64 = 7;

/// A mode as C passes it; `None` if the number is not a mode.
pub(crate) fn mode(input: &mut Input<'_>) -> (u32, Option<Mode>) {
    let choice = input.byte();
    if choice >= 160 {
        let limit = 2 + u32::from(choice % 3);
        return (lock_at_most(limit), Mode::at_most(limit));
    }
    match choice % 16 {
        0..=7 => (0, Some(Mode::Exclusive)),
        8..=14 => (1, Some(Mode::Shared)),
        _ => (no_mode(input.byte()), None),
    }
}

fn no_mode(choice: u8) -> u32 {
    match choice {
        0..=247 => u32::from(choice) + 2,
        248 => lock_at_most(0),
        249 => lock_at_most(1 << 24),
        // A limited mode has one bit in addition to twice its limit. These have others, or a limit
        // that is too low or too high, or are odd.
        _ => (lock_at_most(2) & !4) | [0, 2, 5, 1 << 25, 1 << 31 | 4, 3 << 28][usize::from(choice - 250)],
    }
}

pub(crate) fn session(input: &mut Input<'_>) -> usize {
    usize::from(input.byte()) % (SLOTS + 1)
}

impl Worlds {
    pub(crate) fn handle(&self, slot: usize) -> *mut lock_session {
        self.session(slot).map_or(ptr::null_mut(), |session| session.handle)
    }

    pub(crate) fn session(&self, slot: usize) -> Option<&Session> {
        self.sessions.get(slot)?.as_ref()
    }

    pub(crate) fn is_remote(&self, slot: usize) -> bool {
        self.session(slot).is_some_and(|session| session.is_remote)
    }

    fn session_mut(&mut self, slot: usize) -> &mut Session {
        self.sessions[slot].as_mut().expect("the session is open")
    }

    /// The world, the session's number and the name's number, if the arguments of a call are valid.
    /// Else the status that the call must return because they are not, or because the session is
    /// lost.
    fn target_of(&self, slot: usize, name: GivenName) -> Result<(usize, u32, u8), lock_status> {
        let (Some(session), GivenName::Name(name)) = (self.session(slot), name) else {
            return Err(lock_status::LOCK_INVALID);
        };
        match session.is_lost {
            true => Err(lock_status::LOCK_LOST),
            false => Ok((session.world, session.number, name)),
        }
    }

    /// A time limit for a call. It is unlimited only if the call would not wait forever.
    pub(crate) fn limit(
        &self,
        input: &mut Input<'_>,
        world: Option<usize>,
        event: impl Fn(Option<u64>) -> Event,
    ) -> i64 {
        match input.byte() % 8 {
            0..=4 => 0,
            5 => 1,
            _ => {
                let Some(world) = world else { return -1 };
                let (said, _) = self.worlds[world].model.clone().apply(&event(None));
                if said == Said::Queued { 0 } else { -i64::from(input.byte()) - 1 }
            }
        }
    }

    /// Acquires or converts in the model. If the session has to wait, the wait times out.
    pub(crate) fn acquire_in_model(
        &mut self,
        world: usize,
        session: u32,
        limit: i64,
        event: impl Fn(Option<Option<u64>>) -> Event,
    ) -> lock_status {
        let wait = (limit != 0).then(|| u64::try_from(limit).ok());
        let said = self.apply(world, &event(wait));
        if said == Said::Queued {
            self.apply(world, &Event::Expire { session, by: 1_000_000 });
        }
        expected::status(said)
    }

    /// A call that succeeds replaces an earlier wait that was cancelled; a call that fails does
    /// not.
    pub(crate) fn forget_cancelled(&mut self, slot: usize, names: &[u8], status: lock_status) {
        if status == lock_status::LOCK_OK {
            let replaced = |name: &u8, wait: &Enqueued| names.contains(name) && *wait == Enqueued::Cancelled;
            self.session_mut(slot).enqueued.retain(|name, wait| !replaced(name, wait));
        }
    }

    pub(crate) fn note_grant(&mut self, slot: usize, names: &[u8], token: u64) {
        let world = self.session(slot).expect("the session is open").world;
        for &name in names {
            let last = self.worlds[world].tokens.insert(name, token);
            assert!(last < Some(token), "the token is not higher than all earlier ones of its name");
        }
        assert!(token < TOKEN_END);
        let session = self.session_mut(slot);
        session.tokens.extend(names.iter().map(|&name| (name, token)));
    }

    pub(crate) fn acquire(&mut self, input: &mut Input<'_>) {
        let (slot, name, (number, mode)) = (session(input), self.names.choose(input), mode(input));
        let target = self
            .target_of(slot, name)
            .and_then(|target| Ok((target, mode.ok_or(lock_status::LOCK_INVALID)?)));
        let target = if mode.is_none() { Err(lock_status::LOCK_INVALID) } else { target };
        let event = |wait| {
            let Ok(((_, session, name), mode)) = target else { return Event::Cancel { session: 0 } };
            Event::Acquire { session, wants: vec![(name, mode)], wait }
        };
        let limit = self.limit(input, target.ok().map(|((world, ..), _)| world), |limit| event(Some(limit)));
        let mut token = UNTOUCHED;
        let pointer = if input.byte() & 1 == 0 { &raw mut token } else { ptr::null_mut() };
        let status = retry_interrupted(self.is_remote(slot), limit, |limit| {
            // SAFETY: a session or NULL, a string or NULL, a place for the output or NULL.
            unsafe { lock_acquire(self.handle(slot), self.names.pointer(name), number, limit, pointer) }
        });
        let expected = match target {
            Err(status) => status,
            Ok(((world, number, name), mode)) => {
                let session = self.session(slot).expect("the session is open");
                match expected::existing_claim(&self.worlds[world].model, session, &[(name, mode)]) {
                    Some(status) => status,
                    None => {
                        let status = self.acquire_in_model(world, number, limit, event);
                        self.forget_cancelled(slot, &[name], status);
                        status
                    }
                }
            }
        };
        expect(status, expected, "lock_acquire");
        if let (Ok(((_, _, name), _)), lock_status::LOCK_OK, false) = (target, status, pointer.is_null()) {
            self.note_grant(slot, &[name], token);
        } else {
            assert_eq!(token, UNTOUCHED);
        }
    }

    pub(crate) fn convert(&mut self, input: &mut Input<'_>) {
        let (slot, name, (number, mode)) = (session(input), self.names.choose(input), mode(input));
        let target = self.target_of(slot, name);
        let event = |wait| match (target, mode) {
            (Ok((_, session, name)), Some(mode)) => Event::Convert { session, name, mode, wait },
            _ => Event::Cancel { session: 0 },
        };
        let world = target.ok().filter(|_| mode.is_some()).map(|target| target.0);
        let limit = self.limit(input, world, |limit| event(Some(limit)));
        let status = retry_interrupted(self.is_remote(slot), limit, |limit| {
            // SAFETY: a session or NULL, a string or NULL.
            unsafe { lock_convert(self.handle(slot), self.names.pointer(name), number, limit) }
        });
        let expected = match (target, mode) {
            (_, None) => lock_status::LOCK_INVALID,
            (Err(status), _) => status,
            (Ok((world, number, name)), Some(mode)) => {
                let session = self.session(slot).expect("the session is open");
                if expected::info_of(&self.worlds[world].model, session, name).held {
                    if self.is_converting(slot, name) {
                        let claim = expected::waiting_claim(session, name, mode);
                        return expect(status, claim, "lock_convert");
                    }
                    let before = self.worlds[world].model.held.get(&(name, number)).copied();
                    let status = self.acquire_in_model(world, number, limit, event);
                    self.forget_cancelled(slot, &[name], status);
                    self.forget_token_if_narrower(slot, name, before);
                    status
                } else {
                    lock_status::LOCK_NOT_HELD
                }
            }
        };
        expect(status, expected, "lock_convert");
    }

    /// To be called after a conversion of a lock that was held as `before`. If its mode now allows
    /// fewer holders, it has a new token, which only lock_inspect and lock_token return.
    fn forget_token_if_narrower(&mut self, slot: usize, name: u8, before: Option<Mode>) {
        let Session { world, number, .. } = *self.session(slot).expect("the session is open");
        if self.worlds[world].model.held.get(&(name, number)).copied() < before {
            self.session_mut(slot).tokens.remove(&name);
        }
    }

    pub(crate) fn enqueue(&mut self, input: &mut Input<'_>) {
        let (slot, name, (number, mode)) = (session(input), self.names.choose(input), mode(input));
        // SAFETY: a session or NULL, a string or NULL.
        let status = unsafe { lock_enqueue(self.handle(slot), self.names.pointer(name), number) };
        let target = self.target_of(slot, name);
        let expected = match (target, mode) {
            (_, None) => lock_status::LOCK_INVALID,
            (Err(status), _) => status,
            (Ok((world, number, name)), Some(mode)) => {
                let session = self.session(slot).expect("the session is open");
                match expected::existing_claim(&self.worlds[world].model, session, &[(name, mode)]) {
                    Some(status) => status,
                    None => {
                        let event =
                            Event::Acquire { session: number, wants: vec![(name, mode)], wait: Some(None) };
                        let status = self.enqueue_in_model(slot, name, mode, &event);
                        if status == lock_status::LOCK_PENDING {
                            self.session_mut(slot).converting.remove(&name);
                        }
                        status
                    }
                }
            }
        };
        expect(status, expected, "lock_enqueue");
    }

    /// Queues the request in the model, unless it is decided at once.
    fn enqueue_in_model(&mut self, slot: usize, name: u8, mode: Mode, event: &Event) -> lock_status {
        let world = self.session(slot).expect("the session is open").world;
        match self.apply(world, event) {
            Said::Queued => {
                let ticket = self.worlds[world].model.tickets;
                self.session_mut(slot).enqueued.insert(name, Enqueued::Waiting(ticket, mode));
                lock_status::LOCK_PENDING
            }
            said => {
                let status = expected::status(said);
                self.forget_cancelled(slot, &[name], status);
                status
            }
        }
    }

    /// Whether the session believes that it waits to convert the name.
    fn is_converting(&self, slot: usize, name: u8) -> bool {
        let session = self.session(slot).expect("the session is open");
        session.converting.contains_key(&name)
            && match session.enqueued.get(&name) {
                Some(Enqueued::Waiting(..)) => true,
                Some(Enqueued::Granted(_)) => session.is_remote,
                _ => false,
            }
    }

    pub(crate) fn enqueue_convert(&mut self, input: &mut Input<'_>) {
        let (slot, name, (number, mode)) = (session(input), self.names.choose(input), mode(input));
        // SAFETY: a session or NULL, a string or NULL.
        let status = unsafe { lock_enqueue_convert(self.handle(slot), self.names.pointer(name), number) };
        let target = self.target_of(slot, name);
        let expected = match (target, mode) {
            (_, None) => lock_status::LOCK_INVALID,
            (Err(status), _) => status,
            (Ok((world, number, name)), Some(mode)) => {
                let session = self.session(slot).expect("the session is open");
                if !expected::info_of(&self.worlds[world].model, session, name).held {
                    lock_status::LOCK_NOT_HELD
                } else if self.is_converting(slot, name) {
                    expected::waiting_claim(session, name, mode)
                } else {
                    let before = self.worlds[world].model.held.get(&(name, number)).copied();
                    let event = Event::Convert { session: number, name, mode, wait: Some(None) };
                    let status = self.enqueue_in_model(slot, name, mode, &event);
                    if status == lock_status::LOCK_PENDING {
                        self.session_mut(slot).converting.extend(before.map(|before| (name, before)));
                    } else {
                        self.forget_token_if_narrower(slot, name, before);
                    }
                    status
                }
            }
        };
        expect(status, expected, "lock_enqueue_convert");
    }

    pub(crate) fn wait(&mut self, input: &mut Input<'_>) {
        let (slot, name, how) = (session(input), self.names.choose(input), input.byte());
        let target = self.target_of(slot, name);
        let wait = target.ok().and_then(|(.., name)| self.session(slot)?.enqueued.get(&name).copied());
        let is_remote = self.is_remote(slot);
        let limit = match (how % 8, wait) {
            (0..=4, _) | (6.., Some(Enqueued::Waiting(..))) => 0,
            (5, _) => 1,
            _ => -1,
        };
        let mut token = UNTOUCHED;
        // lock_wait may be called again after LOCK_TIMEOUT, so each call has the same limit.
        let status = retry_interrupted(is_remote, -1, |_| {
            // SAFETY: a session or NULL, a string or NULL, a place for the output.
            unsafe { lock_wait(self.handle(slot), self.names.pointer(name), limit, &mut token) }
        });
        let expected = match (target, wait) {
            (Err(status), _) => status,
            (Ok(_), None) => lock_status::LOCK_NOT_HELD,
            (Ok(_), Some(Enqueued::Waiting(..))) => lock_status::LOCK_TIMEOUT,
            // Another thread of the server may not have sent the grant yet.
            (Ok(_), Some(Enqueued::Granted(_)))
                if limit >= 0 && status == lock_status::LOCK_TIMEOUT && is_remote =>
            {
                lock_status::LOCK_TIMEOUT
            }
            (Ok((world, number, name)), Some(Enqueued::Granted(mode))) => {
                self.session_mut(slot).enqueued.remove(&name);
                // In this process the lock may have been converted to a mode that allows more holders
                // before the grant was collected.
                let held = self.worlds[world].model.held.get(&(name, number)).copied();
                if held.is_some_and(|held| held <= mode) {
                    lock_status::LOCK_OK
                } else {
                    lock_status::LOCK_NOT_HELD
                }
            }
            (Ok((.., name)), Some(Enqueued::Cancelled)) => {
                self.session_mut(slot).enqueued.remove(&name);
                lock_status::LOCK_CANCELLED
            }
        };
        expect(status, expected, "lock_wait");
        match (status, target) {
            (lock_status::LOCK_OK, Ok((world, _, name))) => {
                assert!((UNTOUCHED + 1..TOKEN_END).contains(&token));
                let known = self.worlds[world].tokens.entry(name).or_default();
                *known = token.max(*known);
                if is_remote {
                    // Until then a converted lock had its old token to the session.
                    self.session_mut(slot).tokens.insert(name, token);
                }
            }
            _ => assert_eq!(token, UNTOUCHED),
        }
    }

    /// Releases the lock, or ends the wait for it, in the model. Returns the status that the call
    /// must return.
    pub(crate) fn release_in_model(&mut self, slot: usize, name: u8) -> lock_status {
        let session = self.session_mut(slot);
        session.enqueued.remove(&name);
        session.tokens.remove(&name);
        let (world, number) = (session.world, session.number);
        match self.apply(world, &Event::Release { session: number, name }) {
            Said::NotHeld => lock_status::LOCK_NOT_HELD,
            _ => lock_status::LOCK_OK,
        }
    }

    pub(crate) fn release(&mut self, input: &mut Input<'_>) {
        let (slot, name) = (session(input), self.names.choose(input));
        // SAFETY: a session or NULL, a string or NULL.
        let status = unsafe { lock_release(self.handle(slot), self.names.pointer(name)) };
        let expected = match self.target_of(slot, name) {
            Err(status) => status,
            Ok((.., name)) => self.release_in_model(slot, name),
        };
        expect(status, expected, "lock_release");
    }

    pub(crate) fn inspect(&mut self, input: &mut Input<'_>) {
        let (slot, name) = (session(input), self.names.choose(input));
        if input.byte() % 8 == 7 {
            // SAFETY: a session or NULL, a string or NULL, NULL.
            let status =
                unsafe { lock_inspect(self.handle(slot), self.names.pointer(name), ptr::null_mut()) };
            return expect(status, lock_status::LOCK_INVALID, "lock_inspect");
        }
        self.inspect_one(slot, name);
    }

    pub(crate) fn inspect_all(&mut self, slot: usize) {
        for name in self.names.all() {
            self.inspect_one(slot, GivenName::Name(name));
        }
    }

    fn inspect_one(&mut self, slot: usize, name: GivenName) {
        let mut seen = untouched_info();
        // SAFETY: a session or NULL, a string or NULL, a place for the output.
        let status = unsafe { lock_inspect(self.handle(slot), self.names.pointer(name), &mut seen) };
        let target = self.target_of(slot, name);
        expect(status, target.err().unwrap_or(lock_status::LOCK_OK), "lock_inspect");
        let Ok((world, _, name)) = target else {
            return assert_eq!(seen.token, untouched_info().token, "an output was written");
        };
        let session = self.sessions[slot].as_mut().expect("the session is open");
        let expected = expected::info_of(&self.worlds[world].model, session, name);
        assert_eq!(expected::as_tuple(&seen), expected::as_tuple(&expected), "{seen:?} {expected:?}");
        if !seen.held {
            return assert_eq!(seen.token, 0);
        }
        let token = *session.tokens.entry(name).or_insert(seen.token);
        assert_eq!(seen.token, token, "the token differs from an earlier one for the same grant");
        assert!((1..TOKEN_END).contains(&token));
        let known = self.worlds[world].tokens.entry(name).or_default();
        *known = token.max(*known);
    }

    pub(crate) fn cancel(&mut self, input: &mut Input<'_>) {
        self.cancel_slot(session(input));
    }

    pub(crate) fn cancel_slot(&mut self, slot: usize) {
        // SAFETY: a session or NULL.
        let status = unsafe { lock_cancel(self.handle(slot)) };
        let Some(session) = self.session(slot) else {
            return expect(status, lock_status::LOCK_INVALID, "lock_cancel");
        };
        expect(status, lock_status::LOCK_OK, "lock_cancel");
        if session.is_lost {
            return;
        }
        let (world, number, is_remote) = (session.world, session.number, session.is_remote);
        let waits: Vec<(u8, Enqueued)> = session.enqueued.iter().map(|(&name, &wait)| (name, wait)).collect();
        for (name, wait) in waits {
            match wait {
                // All of the session's waits end, one for each event.
                Enqueued::Waiting(..) => {
                    self.apply(world, &Event::Cancel { session: number });
                }
                // A grant that has not arrived yet is undone; one that has arrived is kept.
                Enqueued::Granted(_) if is_remote && !self.is_waiting(slot, name) => {
                    let session = self.session(slot).expect("the session is open");
                    let back = match session.converting.get(&name) {
                        Some(&mode) => Event::Convert { session: number, name, mode, wait: None },
                        None => Event::Release { session: number, name },
                    };
                    self.apply(world, &back);
                    self.session_mut(slot).enqueued.insert(name, Enqueued::Cancelled);
                }
                Enqueued::Granted(_) | Enqueued::Cancelled => {}
            }
        }
        // The server answers in order, so the cancellation is done once it has answered these
        // requests.
        self.inspect_all(slot);
    }

    fn is_waiting(&self, slot: usize, name: u8) -> bool {
        let mut seen = untouched_info();
        let pointer = self.names.pointer(GivenName::Name(name));
        // SAFETY: a session, a string, a place for the output.
        let status = unsafe { lock_inspect(self.handle(slot), pointer, &mut seen) };
        expect(status, lock_status::LOCK_OK, "lock_inspect");
        seen.waiting
    }

    pub(crate) fn token(&mut self, input: &mut Input<'_>) {
        let (slot, name) = (session(input), self.names.choose(input));
        let mut token = UNTOUCHED;
        // SAFETY: a session or NULL, a string or NULL, a place for the output.
        let status = unsafe { lock_token(self.handle(slot), self.names.pointer(name), &mut token) };
        let target = self.target_of(slot, name);
        let expected = match target {
            Err(status) => status,
            Ok((world, _, name)) => {
                let session = self.session(slot).expect("the session is open");
                match expected::info_of(&self.worlds[world].model, session, name).held {
                    true => lock_status::LOCK_OK,
                    false => lock_status::LOCK_NOT_HELD,
                }
            }
        };
        expect(status, expected, "lock_token");
        self.compare_held_mode(slot, name, target, expected);
        match (status, target) {
            (lock_status::LOCK_OK, Ok((.., name))) => {
                let known = *self.session_mut(slot).tokens.entry(name).or_insert(token);
                assert_eq!(token, known, "the token differs from an earlier one for the same grant");
                assert!((UNTOUCHED + 1..TOKEN_END).contains(&token));
            }
            _ => assert_eq!(token, UNTOUCHED),
        }
    }

    fn compare_held_mode(
        &self,
        slot: usize,
        name: GivenName,
        target: Result<(usize, u32, u8), lock_status>,
        expected: lock_status,
    ) {
        let mut number = 77;
        // SAFETY: a session or NULL, a string or NULL, a place for the output.
        let status = unsafe { lock_held_mode(self.handle(slot), self.names.pointer(name), &mut number) };
        expect(status, expected, "lock_held_mode");
        let mode = target.ok().and_then(|(world, _, name)| {
            expected::held_mode(&self.worlds[world].model, self.session(slot)?, name)
        });
        assert_eq!(number, mode.map_or(77, expected::number));
    }

    /// Checks that a page has as many locks as the model, up to the limit.
    pub(crate) fn list(&mut self, input: &mut Input<'_>) {
        let (slot, limit) = (session(input), usize::from(input.byte() % 10));
        let mut json = ptr::null_mut();
        // SAFETY: a session or NULL, NULL twice, and a place for the output.
        let status =
            unsafe { lock_list(self.handle(slot), ptr::null(), ptr::null(), limit as u64, &mut json) };
        let expected = match self.session(slot) {
            None => lock_status::LOCK_INVALID,
            Some(session) if session.is_lost => lock_status::LOCK_LOST,
            Some(_) => lock_status::LOCK_OK,
        };
        expect(status, expected, "lock_list");
        let Some(session) = self.session(slot).filter(|_| status == lock_status::LOCK_OK) else {
            return assert!(json.is_null(), "an output was written");
        };
        // SAFETY: a string that was just made.
        let text = unsafe { CStr::from_ptr(json) }.to_str().expect("UTF-8").to_owned();
        // SAFETY: as above, and not used any more.
        unsafe { lock_list_free(json) };
        let model = &self.worlds[session.world].model;
        let is_there = |name: &u8| model.holders(*name) + model.queue(*name).len() > 0;
        let all = self.names.all().iter().filter(|name| is_there(name)).count();
        let shown = if limit == 0 { all } else { all.min(limit) };
        assert_eq!(text.matches("\"lockName\":").count(), shown, "{text}");
        assert!(text.ends_with(&format!("\"more\":{}}}", shown < all)), "{text}");
    }

    pub(crate) fn check(&mut self, input: &mut Input<'_>) {
        let slot = session(input);
        // SAFETY: a session or NULL.
        let status = unsafe { lock_check(self.handle(slot)) };
        // SAFETY: a session or NULL.
        let fd = unsafe { lock_lost_fd(self.handle(slot)) };
        let (expected, expected_fd) = match self.session(slot) {
            None => (lock_status::LOCK_INVALID, -1),
            Some(session) if session.is_lost => (lock_status::LOCK_LOST, session.lost_fd),
            Some(session) => (lock_status::LOCK_OK, session.lost_fd),
        };
        expect(status, expected, "lock_check");
        assert_eq!(fd, expected_fd);
    }
}

/// Makes a call that waits for up to `limit`, and repeats it while a signal handler interrupts it:
/// libFuzzer's own handler checks the time. A repeated call has a longer limit, which leaves the
/// server time to answer; the request itself keeps its first limit.
pub(crate) fn retry_interrupted(
    is_remote: bool,
    limit: i64,
    mut call: impl FnMut(i64) -> lock_status,
) -> lock_status {
    let mut limit = limit;
    loop {
        match call(limit) {
            lock_status::LOCK_INTERRUPTED => assert!(is_remote, "interrupted in this process"),
            status => return status,
        }
        if limit >= 0 {
            limit = 5000;
        }
    }
}

/// Asserts that the call has returned this status, and that a failure has set a message.
#[track_caller]
pub(crate) fn expect(status: lock_status, expected: lock_status, call: &str) {
    let message = last_error();
    assert_eq!(status, expected, "{call}: {message:?}");
    assert!(status == lock_status::LOCK_OK || status == lock_status::LOCK_PENDING || !message.is_empty());
}
