//! `d`, `sd` and `dump`: who holds what. Locks are looked at and written some at a time, so that a
//! million of them hold up nobody but the one who asked.

use std::ops::ControlFlow;

use super::super::connection::{Connection, Flow};
use crate::broker::{LockInfo, Mode, SessionInfo};
use crate::wire::text::glockd::{DumpEncoder, encode_pair};

/// `d` and `sd`: a line for each holder, by its registered name or else its address.
pub(super) fn list(connection: &Connection, name: Option<&[u8]>, mode: Mode) -> Flow {
    each_lock(connection, name, mode, |lock| {
        for holder in &lock.holders {
            go_on(connection.reply_or_close(|out| {
                encode_pair(out, lock.key.name.as_bytes(), &name_or_address(&holder.session));
            }))?;
        }
        ControlFlow::Continue(())
    })
}

/// `dump`: one line with every lock and the addresses of its holders.
pub(super) fn dump(connection: &Connection, mode: Mode) -> Flow {
    let mut start = Vec::new();
    let mut encoder = DumpEncoder::start(&mut start);
    connection.reply_or_close(|out| out.extend_from_slice(&start));
    let next = each_lock(connection, None, mode, |lock| {
        let name = lock.key.name.as_bytes();
        let mut addresses = lock.holders.iter().map(|holder| holder.session.address().as_bytes());
        if mode == Mode::Exclusive {
            let holder = addresses.next().unwrap_or_default();
            return go_on(connection.reply_or_close(|out| encoder.entry(out, name, holder)));
        }
        connection.reply_or_close(|out| encoder.begin_shared_entry(out, name));
        for (number, holder) in addresses.enumerate() {
            go_on(connection.reply_or_close(|out| encoder.holder(out, number, holder)))?;
        }
        go_on(connection.reply_or_close(|out| encoder.end_shared_entry(out)))
    });
    if next == Flow::Read { connection.reply_or_close(|out| encoder.end(out)) } else { next }
}

/// Shows each lock held in that mode, or the one of that name, to `each`.
fn each_lock(
    connection: &Connection,
    name: Option<&[u8]>,
    mode: Mode,
    mut each: impl FnMut(LockInfo) -> ControlFlow<Flow>,
) -> Flow {
    let broker = &connection.server.broker;
    let space = connection.space_of(mode);
    let mut wanted = |mut lock: LockInfo| {
        // Nobody needs them, and there may be many.
        lock.waiters = Vec::new();
        let is_wanted = lock.key.space == space && lock.mode == Some(mode);
        if is_wanted { each(lock) } else { ControlFlow::Continue(()) }
    };
    let broken_off = match name {
        Some(name) => broker.lock_info(space, name).and_then(|lock| wanted(lock).break_value()),
        None => broker.for_each_lock(wanted),
    };
    broken_off.unwrap_or(Flow::Read)
}

/// Whether the listing goes on after this was said.
fn go_on(next: Flow) -> ControlFlow<Flow> {
    if next == Flow::Read { ControlFlow::Continue(()) } else { ControlFlow::Break(next) }
}

fn name_or_address(info: &SessionInfo) -> Vec<u8> {
    info.name().map_or_else(|| info.address().as_bytes().to_vec(), |name| name.to_vec())
}
