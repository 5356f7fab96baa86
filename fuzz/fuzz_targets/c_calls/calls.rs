//! The calls of a session: each is made with what the input says, and must return what is expected.

use std::ffi::CStr;
use std::ptr;

use lockd::broker::Mode;
use lockd::ffi::{
    lock_acquire, lock_cancel, lock_check, lock_convert, lock_enqueue, lock_enqueue_convert, lock_inspect,
    lock_list, lock_list_free, lock_lost_fd, lock_release, lock_session, lock_status, lock_token, lock_wait,
};

use crate::expected;
use crate::input::Input;
use crate::model::{Event, Said};
use crate::names::Given;
use crate::world::{Place, SLOTS, Session, Worlds, last_error, no_info};

/// Tokens are exact in every reader of JSON.
const TOKEN_END: u64 = 1 << 53;

/// What tells that an output has not been written.
pub(crate) const UNTOUCHED: u64 = 7;

/// A mode as C passes it; `None` for a number that is none.
pub(crate) fn mode(input: &mut Input<'_>) -> (u32, Option<Mode>) {
    match input.byte() % 16 {
        0..=7 => (0, Some(Mode::Exclusive)),
        8..=14 => (1, Some(Mode::Shared)),
        _ => (u32::from(input.byte()) + 2, None),
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
        self.sessions[slot].as_mut().expect("it was there")
    }

    /// The session of a call that makes sense, the name, and which world that is in; else the status of one
    /// that does not, or of one that has lost its session.
    fn who_and_what(&self, slot: usize, name: Given) -> Result<(usize, u32, u8), lock_status> {
        let (Some(session), Given::Name(name)) = (self.session(slot), name) else {
            return Err(lock_status::LOCK_INVALID);
        };
        match session.is_lost {
            true => Err(lock_status::LOCK_LOST),
            false => Ok((session.world, session.number, name)),
        }
    }

    /// A time limit: none at all only where nobody would have to wait for ever.
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

    /// Acquires or converts in the model; who has to wait does so until the limit has come.
    pub(crate) fn ask(
        &mut self,
        world: usize,
        session: u32,
        limit: i64,
        event: impl Fn(Option<Option<u64>>) -> Event,
    ) -> lock_status {
        let wait = (limit != 0).then(|| u64::try_from(limit).ok());
        let said = self.happen(world, &event(wait));
        if said == Said::Queued {
            self.happen(world, &Event::Expire { session, by: 1_000_000 });
        }
        expected::status(said)
    }

    /// A call that has succeeded takes the place of one that was cancelled; one that has failed does not.
    pub(crate) fn forget_cancelled(&mut self, slot: usize, names: &[u8], status: lock_status) {
        if status == lock_status::LOCK_OK {
            let is_news = |name: &u8, place: &Place| !names.contains(name) || *place != Place::Cancelled;
            self.session_mut(slot).places.retain(|name, place| is_news(name, place));
        }
    }

    pub(crate) fn gained(&mut self, slot: usize, names: &[u8], token: u64) {
        let world = self.session(slot).expect("it was there").world;
        assert!(token > self.worlds[world].token, "a token is no higher than those before");
        assert!(token < TOKEN_END);
        self.worlds[world].token = token;
        let session = self.session_mut(slot);
        session.tokens.extend(names.iter().map(|&name| (name, token)));
    }

    pub(crate) fn acquire(&mut self, input: &mut Input<'_>) {
        let (slot, name, (number, mode)) = (session(input), self.names.choose(input), mode(input));
        let who =
            self.who_and_what(slot, name).and_then(|who| Ok((who, mode.ok_or(lock_status::LOCK_INVALID)?)));
        let who = if mode.is_none() { Err(lock_status::LOCK_INVALID) } else { who };
        let event = |wait| {
            let Ok(((_, session, name), mode)) = who else { return Event::Cancel { session: 0 } };
            Event::Acquire { session, wants: vec![(name, mode)], wait }
        };
        let limit = self.limit(input, who.ok().map(|((world, ..), _)| world), |limit| event(Some(limit)));
        let mut token = UNTOUCHED;
        let pointer = if input.byte() & 1 == 0 { &raw mut token } else { ptr::null_mut() };
        let status = persist(self.is_remote(slot), limit, |limit| {
            // SAFETY: a session or NULL, a string or NULL, a place to write to or NULL.
            unsafe { lock_acquire(self.handle(slot), self.names.pointer(name), number, limit, pointer) }
        });
        let expected = match who {
            Err(status) => status,
            Ok(((world, number, name), _)) => {
                let session = self.session(slot).expect("it was there");
                match expected::concern(&self.worlds[world].model, session, name) {
                    Some(status) => status,
                    None => {
                        let status = self.ask(world, number, limit, event);
                        self.forget_cancelled(slot, &[name], status);
                        status
                    }
                }
            }
        };
        expect(status, expected, "lock_acquire");
        if let (Ok(((_, _, name), _)), lock_status::LOCK_OK, false) = (who, status, pointer.is_null()) {
            self.gained(slot, &[name], token);
        } else {
            assert_eq!(token, UNTOUCHED);
        }
    }

    pub(crate) fn convert(&mut self, input: &mut Input<'_>) {
        let (slot, name, (number, mode)) = (session(input), self.names.choose(input), mode(input));
        let who = self.who_and_what(slot, name);
        let event = |wait| match (who, mode) {
            (Ok((_, session, name)), Some(mode)) => Event::Convert { session, name, mode, wait },
            _ => Event::Cancel { session: 0 },
        };
        let world = who.ok().filter(|_| mode.is_some()).map(|who| who.0);
        let limit = self.limit(input, world, |limit| event(Some(limit)));
        let status = persist(self.is_remote(slot), limit, |limit| {
            // SAFETY: a session or NULL, a string or NULL.
            unsafe { lock_convert(self.handle(slot), self.names.pointer(name), number, limit) }
        });
        let expected = match (who, mode) {
            (_, None) => lock_status::LOCK_INVALID,
            (Err(status), _) => status,
            (Ok((world, number, name)), Some(_)) => {
                let session = self.session(slot).expect("it was there");
                if expected::info_of(&self.worlds[world].model, session, name).held {
                    if self.is_converting(slot, name) {
                        return expect(status, lock_status::LOCK_PENDING, "lock_convert");
                    }
                    let before = self.worlds[world].model.held.get(&(name, number)).copied();
                    let status = self.ask(world, number, limit, event);
                    self.forget_cancelled(slot, &[name], status);
                    if self.worlds[world].model.held.get(&(name, number)).copied() != before
                        && mode == Some(Mode::Exclusive)
                    {
                        // It has a new one, which nobody is told but by looking.
                        self.session_mut(slot).tokens.remove(&name);
                    }
                    status
                } else {
                    lock_status::LOCK_NOT_HELD
                }
            }
        };
        expect(status, expected, "lock_convert");
    }

    pub(crate) fn enqueue(&mut self, input: &mut Input<'_>) {
        let (slot, name, (number, mode)) = (session(input), self.names.choose(input), mode(input));
        // SAFETY: a session or NULL, a string or NULL.
        let status = unsafe { lock_enqueue(self.handle(slot), self.names.pointer(name), number) };
        let who = self.who_and_what(slot, name);
        let expected = match (who, mode) {
            (_, None) => lock_status::LOCK_INVALID,
            (Err(status), _) => status,
            (Ok((world, number, name)), Some(mode)) => {
                let session = self.session(slot).expect("it was there");
                match expected::concern(&self.worlds[world].model, session, name) {
                    Some(status) => status,
                    None => {
                        let event =
                            Event::Acquire { session: number, wants: vec![(name, mode)], wait: Some(None) };
                        let status = self.take_place(slot, name, mode, &event);
                        if status == lock_status::LOCK_PENDING {
                            self.session_mut(slot).upgrading.remove(&name);
                        }
                        status
                    }
                }
            }
        };
        expect(status, expected, "lock_enqueue");
    }

    /// A place in the model, unless there is no need of one.
    fn take_place(&mut self, slot: usize, name: u8, mode: Mode, event: &Event) -> lock_status {
        let world = self.session(slot).expect("it was there").world;
        match self.happen(world, event) {
            Said::Queued => {
                let ticket = self.worlds[world].model.tickets;
                self.session_mut(slot).places.insert(name, Place::Waiting(ticket, mode));
                lock_status::LOCK_PENDING
            }
            said => {
                let status = expected::status(said);
                self.forget_cancelled(slot, &[name], status);
                status
            }
        }
    }

    /// Whether the session has asked to convert the name, as far as it has been told.
    fn is_converting(&self, slot: usize, name: u8) -> bool {
        let session = self.session(slot).expect("it was there");
        session.upgrading.contains(&name)
            && match session.places.get(&name) {
                Some(Place::Waiting(..)) => true,
                Some(Place::Granted(_)) => session.is_remote,
                _ => false,
            }
    }

    pub(crate) fn enqueue_convert(&mut self, input: &mut Input<'_>) {
        let (slot, name, (number, mode)) = (session(input), self.names.choose(input), mode(input));
        // SAFETY: a session or NULL, a string or NULL.
        let status = unsafe { lock_enqueue_convert(self.handle(slot), self.names.pointer(name), number) };
        let who = self.who_and_what(slot, name);
        let expected = match (who, mode) {
            (_, None) => lock_status::LOCK_INVALID,
            (Err(status), _) => status,
            (Ok((world, number, name)), Some(mode)) => {
                let session = self.session(slot).expect("it was there");
                if !expected::info_of(&self.worlds[world].model, session, name).held {
                    lock_status::LOCK_NOT_HELD
                } else if self.is_converting(slot, name) {
                    lock_status::LOCK_PENDING
                } else {
                    let before = self.worlds[world].model.held.get(&(name, number)).copied();
                    let event = Event::Convert { session: number, name, mode, wait: Some(None) };
                    let status = self.take_place(slot, name, mode, &event);
                    if status == lock_status::LOCK_PENDING {
                        self.session_mut(slot).upgrading.insert(name);
                    } else if self.worlds[world].model.held.get(&(name, number)).copied() != before
                        && mode == Mode::Exclusive
                    {
                        self.session_mut(slot).tokens.remove(&name);
                    }
                    status
                }
            }
        };
        expect(status, expected, "lock_enqueue_convert");
    }

    pub(crate) fn wait(&mut self, input: &mut Input<'_>) {
        let (slot, name, how) = (session(input), self.names.choose(input), input.byte());
        let who = self.who_and_what(slot, name);
        let place = who.ok().and_then(|(.., name)| self.session(slot)?.places.get(&name).copied());
        let is_remote = self.is_remote(slot);
        let limit = match (how % 8, place) {
            (0..=4, _) | (6.., Some(Place::Waiting(..))) => 0,
            (5, _) => 1,
            _ => -1,
        };
        let mut token = UNTOUCHED;
        // It may say that the time is over as often as it likes: so each time with the same limit.
        let status = persist(is_remote, -1, |_| {
            // SAFETY: a session or NULL, a string or NULL, a place to write to.
            unsafe { lock_wait(self.handle(slot), self.names.pointer(name), limit, &mut token) }
        });
        let expected = match (who, place) {
            (Err(status), _) => status,
            (Ok(_), None) => lock_status::LOCK_NOT_HELD,
            (Ok(_), Some(Place::Waiting(..))) => lock_status::LOCK_TIMEOUT,
            // The word of it may still be on its way from another thread of the server's.
            (Ok(_), Some(Place::Granted(_)))
                if limit >= 0 && status == lock_status::LOCK_TIMEOUT && is_remote =>
            {
                lock_status::LOCK_TIMEOUT
            }
            (Ok((world, number, name)), Some(Place::Granted(mode))) => {
                self.session_mut(slot).places.remove(&name);
                // In this process it can have been made shared again before it was collected.
                let held = self.worlds[world].model.held.get(&(name, number)).copied();
                let is_as_asked = held == Some(Mode::Exclusive) || mode == Mode::Shared;
                if is_as_asked { lock_status::LOCK_OK } else { lock_status::LOCK_NOT_HELD }
            }
            (Ok((.., name)), Some(Place::Cancelled)) => {
                self.session_mut(slot).places.remove(&name);
                lock_status::LOCK_CANCELLED
            }
        };
        expect(status, expected, "lock_wait");
        match (status, who) {
            (lock_status::LOCK_OK, Ok((world, ..))) => {
                assert!((UNTOUCHED + 1..TOKEN_END).contains(&token));
                let known = &mut self.worlds[world].token;
                *known = token.max(*known);
            }
            _ => assert_eq!(token, UNTOUCHED),
        }
    }

    /// Gives up the lock or the place in the model; what the call says.
    pub(crate) fn give_up(&mut self, slot: usize, name: u8) -> lock_status {
        let session = self.session_mut(slot);
        session.places.remove(&name);
        session.tokens.remove(&name);
        let (world, number) = (session.world, session.number);
        match self.happen(world, &Event::Release { session: number, name }) {
            Said::NotHeld => lock_status::LOCK_NOT_HELD,
            _ => lock_status::LOCK_OK,
        }
    }

    pub(crate) fn release(&mut self, input: &mut Input<'_>) {
        let (slot, name) = (session(input), self.names.choose(input));
        // SAFETY: a session or NULL, a string or NULL.
        let status = unsafe { lock_release(self.handle(slot), self.names.pointer(name)) };
        let expected = match self.who_and_what(slot, name) {
            Err(status) => status,
            Ok((.., name)) => self.give_up(slot, name),
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
            self.inspect_one(slot, Given::Name(name));
        }
    }

    fn inspect_one(&mut self, slot: usize, name: Given) {
        let mut seen = no_info();
        // SAFETY: a session or NULL, a string or NULL, a place to write to.
        let status = unsafe { lock_inspect(self.handle(slot), self.names.pointer(name), &mut seen) };
        let who = self.who_and_what(slot, name);
        expect(status, who.err().unwrap_or(lock_status::LOCK_OK), "lock_inspect");
        let Ok((world, _, name)) = who else {
            return assert_eq!(seen.token, no_info().token, "an output was written");
        };
        let session = self.sessions[slot].as_mut().expect("it was there");
        let expected = expected::info_of(&self.worlds[world].model, session, name);
        assert_eq!(expected::as_tuple(&seen), expected::as_tuple(&expected), "{seen:?} {expected:?}");
        if !seen.held {
            return assert_eq!(seen.token, 0);
        }
        let token = *session.tokens.entry(name).or_insert(seen.token);
        assert_eq!(seen.token, token, "another token than was told");
        assert!((1..TOKEN_END).contains(&token));
        let known = &mut self.worlds[world].token;
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
        let places: Vec<(u8, Place)> = session.places.iter().map(|(&name, &place)| (name, place)).collect();
        for (name, place) in places {
            match place {
                // One of the session's waits: all of them end.
                Place::Waiting(..) => {
                    self.happen(world, &Event::Cancel { session: number });
                }
                // A grant that has not arrived yet is given back; one that has stands.
                Place::Granted(_) if is_remote && !self.is_waiting(slot, name) => {
                    let back = if self.session(slot).expect("it was there").upgrading.contains(&name) {
                        Event::Convert { session: number, name, mode: Mode::Shared, wait: None }
                    } else {
                        Event::Release { session: number, name }
                    };
                    self.happen(world, &back);
                    self.session_mut(slot).places.insert(name, Place::Cancelled);
                }
                Place::Granted(_) | Place::Cancelled => {}
            }
        }
        // The server has heard of it when it answers what was asked behind it.
        self.inspect_all(slot);
    }

    fn is_waiting(&self, slot: usize, name: u8) -> bool {
        let mut seen = no_info();
        let pointer = self.names.pointer(Given::Name(name));
        // SAFETY: a session, a string, a place to write to.
        let status = unsafe { lock_inspect(self.handle(slot), pointer, &mut seen) };
        expect(status, lock_status::LOCK_OK, "lock_inspect");
        seen.waiting
    }

    pub(crate) fn token(&mut self, input: &mut Input<'_>) {
        let (slot, name) = (session(input), self.names.choose(input));
        let mut token = UNTOUCHED;
        // SAFETY: a session or NULL, a string or NULL, a place to write to.
        let status = unsafe { lock_token(self.handle(slot), self.names.pointer(name), &mut token) };
        let who = self.who_and_what(slot, name);
        let expected = match who {
            Err(status) => status,
            Ok((world, _, name)) => {
                let session = self.session(slot).expect("it was there");
                match expected::info_of(&self.worlds[world].model, session, name).held {
                    true => lock_status::LOCK_OK,
                    false => lock_status::LOCK_NOT_HELD,
                }
            }
        };
        expect(status, expected, "lock_token");
        match (status, who) {
            (lock_status::LOCK_OK, Ok((.., name))) => {
                let known = *self.session_mut(slot).tokens.entry(name).or_insert(token);
                assert_eq!(token, known, "another token than was told");
                assert!((UNTOUCHED + 1..TOKEN_END).contains(&token));
            }
            _ => assert_eq!(token, UNTOUCHED),
        }
    }

    /// As many locks as the model has, up to the limit, are on a page.
    pub(crate) fn list(&mut self, input: &mut Input<'_>) {
        let (slot, limit) = (session(input), usize::from(input.byte() % 10));
        let mut json = ptr::null_mut();
        // SAFETY: a session or NULL, NULL twice, and a place to write to.
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

/// Makes a call that waits for up to `limit`, again for as long as a signal handler has run meanwhile: libFuzzer's
/// own, which looks at the time. The call that goes on has a limit that leaves the server the time to answer: the
/// request keeps the one it was made with.
pub(crate) fn persist(is_remote: bool, limit: i64, mut call: impl FnMut(i64) -> lock_status) -> lock_status {
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

/// The call has returned what it should, and says more about what went wrong.
#[track_caller]
pub(crate) fn expect(status: lock_status, expected: lock_status, call: &str) {
    let says = last_error();
    assert_eq!(status, expected, "{call}: {says:?}");
    assert!(status == lock_status::LOCK_OK || status == lock_status::LOCK_PENDING || !says.is_empty());
}
