//! `d`, `sd` and `dump`: who holds what. Locks are looked at and written some at a time, so that a
//! million of them hold up nobody but the one who asked.

use std::ops::ControlFlow;

use super::super::connection::{Connection, Next};
use crate::broker::{ListedLock, Mode, SessionInfo};
use crate::protocol::glockd_text::{DumpEncoder, encode_pair};

/// `d` and `sd`: a line for each holder, by its registered name or else its address.
pub(super) fn list(connection: &Connection, name: Option<&[u8]>, shared: bool) -> Next {
    each_lock(connection, name, shared, |lock| {
        for holder in &lock.holders {
            go_on(connection.say(|out| {
                encode_pair(out, lock.key.name.as_bytes(), &name_or_address(&holder.session));
            }))?;
        }
        ControlFlow::Continue(())
    })
}

/// `dump`: one line with every lock and the addresses of its holders.
pub(super) fn dump(connection: &Connection, shared: bool) -> Next {
    let mut start = Vec::new();
    let mut encoder = DumpEncoder::start(&mut start);
    connection.say(|out| out.extend_from_slice(&start));
    let next = each_lock(connection, None, shared, |lock| {
        let name = lock.key.name.as_bytes();
        let mut addresses = lock.holders.iter().map(|holder| holder.session.address().as_bytes());
        if !shared {
            let holder = addresses.next().unwrap_or_default();
            return go_on(connection.say(|out| encoder.entry(out, name, holder)));
        }
        connection.say(|out| encoder.begin_shared_entry(out, name));
        for (number, holder) in addresses.enumerate() {
            go_on(connection.say(|out| encoder.holder(out, number, holder)))?;
        }
        go_on(connection.say(|out| encoder.end_shared_entry(out)))
    });
    if next == Next::Read { connection.say(|out| encoder.end(out)) } else { next }
}

/// Shows each lock held in that mode, or the one of that name, to `each`.
fn each_lock(
    connection: &Connection,
    name: Option<&[u8]>,
    shared: bool,
    mut each: impl FnMut(ListedLock) -> ControlFlow<Next>,
) -> Next {
    let broker = &connection.hub.broker;
    let mode = if shared { Mode::Shared } else { Mode::Exclusive };
    let space = connection.space_of(mode);
    let mut wanted = |mut lock: ListedLock| {
        // Nobody needs them, and there may be many.
        lock.waiters = Vec::new();
        let is_wanted = lock.key.space == space && lock.mode == Some(mode);
        if is_wanted { each(lock) } else { ControlFlow::Continue(()) }
    };
    let broken_off = match name {
        Some(name) => broker.look_at(space, name).and_then(|lock| wanted(lock).break_value()),
        None => broker.walk(wanted),
    };
    broken_off.unwrap_or(Next::Read)
}

/// Whether the listing goes on after this was said.
fn go_on(next: Next) -> ControlFlow<Next> {
    if next == Next::Read { ControlFlow::Continue(()) } else { ControlFlow::Break(next) }
}

fn name_or_address(info: &SessionInfo) -> Vec<u8> {
    info.name().map_or_else(|| info.address().as_bytes().to_vec(), |name| name.to_vec())
}
