//! What calls must return according to the header and the model.

use lockd::broker::Mode;
use lockd::ffi::{lock_at_most, lock_info, lock_slots, lock_status};

use crate::model::{Model, Said};
use crate::world::{Enqueued, Session};

/// The info on a name for a session that neither holds it nor waits for it.
pub(crate) fn info(model: &Model, name: u8) -> lock_info {
    lock_info {
        token: 0,
        holders: model.holders(name) as u64,
        waiters: model.queue(name).len() as u64,
        // To a program that knows no limits, a limited lock is shared.
        mode: mode_in_force(model, name).map_or(0, |mode| u32::from(mode != Mode::Exclusive)),
        held: false,
        waiting: false,
        orphaned: model.orphaned.contains(&name),
    }
}

/// The info on a name for this session, without the token. For a session on a server, a grant that
/// has not been collected counts as a wait.
pub(crate) fn info_of(model: &Model, session: &Session, name: u8) -> lock_info {
    let uncollected = session.is_remote && matches!(session.enqueued.get(&name), Some(Enqueued::Granted(_)));
    let held = model.held.contains_key(&(name, session.number))
        && (!uncollected || session.converting.contains_key(&name));
    let waiting = model.queue(name).iter().any(|waiting| waiting.session == session.number) || uncollected;
    lock_info { held, waiting, ..info(model, name) }
}

/// The mode of the holder that allows the fewest holders.
fn mode_in_force(model: &Model, name: u8) -> Option<Mode> {
    let held = model.held.iter().filter(|((held, _), _)| *held == name);
    held.map(|(_, mode)| *mode).min_by_key(|mode| mode.holders_max().unwrap_or(u32::MAX))
}

pub(crate) fn slots(model: &Model, name: u8) -> lock_slots {
    let (holders, limit) = (model.holders(name), mode_in_force(model, name).and_then(Mode::holders_max));
    lock_slots {
        holders: holders as u64,
        waiters: model.queue(name).len() as u64,
        limit: limit.unwrap_or(0),
        free: limit.map_or(u32::MAX, |limit| limit - u32::try_from(holders).expect("few sessions")),
    }
}

pub(crate) fn slots_as_tuple(slots: &lock_slots) -> (u64, u64, u32, u32) {
    (slots.holders, slots.waiters, slots.limit, slots.free)
}

/// The mode in which this session holds the name, as its own calls have learned. On a server a
/// conversion counts only once its grant has been collected.
pub(crate) fn held_mode(model: &Model, session: &Session, name: u8) -> Option<Mode> {
    let held = info_of(model, session, name).held;
    let uncollected = session.is_remote && matches!(session.enqueued.get(&name), Some(Enqueued::Granted(_)));
    let before = session.converting.get(&name).filter(|_| uncollected);
    before.or(model.held.get(&(name, session.number))).copied().filter(|_| held)
}

pub(crate) fn as_tuple(info: &lock_info) -> (u64, u64, u32, bool, bool, bool) {
    (info.holders, info.waiters, info.mode, info.held, info.waiting, info.orphaned)
}

/// The number by which C knows a mode.
pub(crate) fn number(mode: Mode) -> u32 {
    match mode {
        Mode::Exclusive => 0,
        Mode::Limited(limit) => lock_at_most(limit.get()),
        Mode::Shared => 1,
    }
}

/// The status of an acquire that is refused because the session already holds one of the names or
/// waits for it.
pub(crate) fn existing_claim(model: &Model, session: &Session, wants: &[(u8, Mode)]) -> Option<lock_status> {
    wants.iter().find_map(|&(name, mode)| {
        let info = info_of(model, session, name);
        match (info.held, info.waiting) {
            (true, _) => Some(lock_status::LOCK_ALREADY_HELD),
            // Every place is for one name.
            (_, true) if wants.len() == 1 => Some(waiting_claim(session, name, mode)),
            (_, true) => Some(lock_status::LOCK_INVALID),
            _ => None,
        }
    })
}

/// The status of a call for a name that the session waits for: the place counts as the one asked
/// for only in the same mode.
pub(crate) fn waiting_claim(session: &Session, name: u8, mode: Mode) -> lock_status {
    match session.enqueued.get(&name) {
        Some(Enqueued::Waiting(_, waiting) | Enqueued::Granted(waiting)) if *waiting == mode => {
            lock_status::LOCK_PENDING
        }
        _ => lock_status::LOCK_INVALID,
    }
}

/// The status of a call that acquires or converts. A wait times out.
pub(crate) fn status(said: Said) -> lock_status {
    match said {
        Said::Granted { .. } => lock_status::LOCK_OK,
        Said::Busy | Said::Queued => lock_status::LOCK_TIMEOUT,
        Said::AlreadyHeld(_) => lock_status::LOCK_ALREADY_HELD,
        Said::AlreadyWaiting => lock_status::LOCK_PENDING,
        Said::NotHeld => lock_status::LOCK_NOT_HELD,
        Said::Deadlock => lock_status::LOCK_DEADLOCK,
        Said::ReleasedHold | Said::ReleasedPlace | Said::Nothing => {
            panic!("an acquire cannot end in {said:?}")
        }
    }
}
