//! The calls for several names at once.

use std::ffi::c_char;
use std::ptr;

use lockd::broker::Mode;
use lockd::ffi::{lock_acquire_all, lock_release_all, lock_status};

use crate::calls::{UNTOUCHED, expect, mode, retry_interrupted, session};
use crate::expected;
use crate::input::Input;
use crate::model::Event;
use crate::names::GivenName;
use crate::world::Worlds;

/// The world, the session's number, and the names with their modes.
type Wants = (usize, u32, Vec<(u8, Mode)>);

impl Worlds {
    pub(crate) fn acquire_all(&mut self, input: &mut Input<'_>) {
        let slot = session(input);
        let how = input.byte();
        let count = usize::from(how % 5);
        let given: Vec<(GivenName, (u32, Option<Mode>))> =
            (0..count).map(|_| (self.names.choose(input), mode(input))).collect();
        let names: Vec<*const c_char> = given.iter().map(|(name, _)| self.names.pointer(*name)).collect();
        let modes: Vec<u32> = given.iter().map(|(_, (number, _))| *number).collect();
        let (no_names, no_modes, too_many) =
            (how & 0x40 != 0 && how & 0x20 != 0, how & 0x80 != 0, how == 0x1f);
        let target = self.targets_of(slot, &given, no_names, no_modes, too_many);
        let event = |wait| {
            let Ok((_, session, wants)) = &target else { return Event::Cancel { session: 0 } };
            Event::Acquire { session: *session, wants: wants.clone(), wait }
        };
        let limit =
            self.limit(input, target.as_ref().ok().map(|target| target.0), |limit| event(Some(limit)));
        let names_pointer = if no_names { ptr::null() } else { names.as_ptr() };
        let modes_pointer = if no_modes { ptr::null() } else { modes.as_ptr() };
        let n = if too_many { 1025 } else { count };
        let mut token = UNTOUCHED;
        let status = retry_interrupted(self.is_remote(slot), limit, |limit| {
            // SAFETY: a session or NULL, `n` strings and `n` numbers or NULL, a place for the
            // output. If `n` is more than is allowed, no name is read.
            unsafe { lock_acquire_all(self.handle(slot), names_pointer, modes_pointer, n, limit, &mut token) }
        });
        let expected = match &target {
            Err(status) => *status,
            Ok((world, number, wants)) => {
                let session = self.session(slot).expect("the session is open");
                let model = &self.worlds[*world].model;
                let names: Vec<u8> = wants.iter().map(|(name, _)| *name).collect();
                match expected::existing_claim(model, session, wants) {
                    Some(status) => status,
                    None => {
                        let status = self.acquire_in_model(*world, *number, limit, event);
                        self.forget_cancelled(slot, &names, status);
                        status
                    }
                }
            }
        };
        expect(status, expected, "lock_acquire_all");
        match target {
            Ok((.., wants)) if status == lock_status::LOCK_OK => {
                let names: Vec<u8> = wants.iter().map(|(name, _)| *name).collect();
                self.note_grant(slot, &names, token);
            }
            _ => assert_eq!(token, UNTOUCHED),
        }
    }

    fn targets_of(
        &self,
        slot: usize,
        given: &[(GivenName, (u32, Option<Mode>))],
        no_names: bool,
        no_modes: bool,
        too_many: bool,
    ) -> Result<Wants, lock_status> {
        let invalid = Err(lock_status::LOCK_INVALID);
        let Some(session) = self.session(slot) else { return invalid };
        if too_many || given.is_empty() || no_names {
            return invalid;
        }
        let mut wants: Vec<(u8, Mode)> = Vec::new();
        for (name, (_, mode)) in given {
            let mode = if no_modes { Some(Mode::Exclusive) } else { *mode };
            let (GivenName::Name(name), Some(mode)) = (*name, mode) else { return invalid };
            if wants.iter().any(|(other, _)| *other == name) {
                return invalid;
            }
            wants.push((name, mode));
        }
        if session.is_lost { Err(lock_status::LOCK_LOST) } else { Ok((session.world, session.number, wants)) }
    }

    pub(crate) fn release_all(&mut self, input: &mut Input<'_>) {
        let (slot, how) = (session(input), input.byte());
        let given: Vec<GivenName> = (0..how % 5).map(|_| self.names.choose(input)).collect();
        let names: Vec<*const c_char> = given.iter().map(|name| self.names.pointer(*name)).collect();
        let no_names = how & 0xc0 == 0xc0;
        let names_pointer = if no_names { ptr::null() } else { names.as_ptr() };
        // SAFETY: a session or NULL, and as many strings as the length says, or NULL.
        let status = unsafe { lock_release_all(self.handle(slot), names_pointer, names.len()) };
        let makes_sense =
            (given.is_empty() || !no_names) && given.iter().all(|name| matches!(name, GivenName::Name(_)));
        let expected = match self.session(slot) {
            None => lock_status::LOCK_INVALID,
            Some(_) if !makes_sense => lock_status::LOCK_INVALID,
            // Without names the server is not asked.
            Some(_) if given.is_empty() => lock_status::LOCK_OK,
            Some(session) if session.is_lost => lock_status::LOCK_LOST,
            Some(_) => given.iter().fold(lock_status::LOCK_OK, |so_far, name| {
                let GivenName::Name(name) = *name else { unreachable!("it makes sense") };
                let status = self.release_in_model(slot, name);
                if so_far == lock_status::LOCK_OK { status } else { so_far }
            }),
        };
        let is_lost = self.session(slot).is_some_and(|session| session.is_lost);
        if is_lost && given.is_empty() && status == lock_status::LOCK_LOST {
            return;
        }
        expect(status, expected, "lock_release_all");
    }
}
