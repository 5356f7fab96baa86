//! The lists: `d`, `sd`, `dump`, `who`, and `q full` of `lockd`. Locks are looked at and written
//! some at a time, so that a million of them delay only the client that asked, and nothing is kept
//! for a client that does not read.

use std::ops::ControlFlow;

use super::super::connection::{Connection, Flow};
use crate::broker::{LockInfo, SessionInfo};
use crate::wire::text::TextMode;
use crate::wire::text::glockd::{DumpEncoder, encode_pair};
use crate::wire::text::lockd::DetailsEncoder;

/// `d` and `sd`: a line for each holder, by its registered name or else its address.
pub(super) fn holders(connection: &Connection, mode: TextMode, name: Option<&[u8]>) -> Flow {
    flow(each_lock(connection, mode, name, |lock| {
        lock.holders.iter().try_for_each(|holder| {
            let (address, registered) = (holder.session.address(), holder.session.name());
            let label = registered.as_deref().unwrap_or(address.as_bytes());
            write(connection, |out| encode_pair(out, lock.key.name.as_bytes(), label))
        })
    }))
}

/// `dump`: one line with every lock and the addresses of its holders.
pub(super) fn dump(connection: &Connection, mode: TextMode) -> Flow {
    let mut start = Vec::new();
    let mut encoder = DumpEncoder::start(&mut start);
    let written = write(connection, |out| out.extend_from_slice(&start)).is_continue()
        && each_lock(connection, mode, None, |lock| {
            let name = lock.key.name.as_bytes();
            let mut addresses = lock.holders.iter().map(|holder| holder.session.address());
            if mode == TextMode::Exclusive {
                let holder = addresses.next().unwrap_or_default();
                return write(connection, |out| encoder.entry(out, name, holder.as_bytes()));
            }
            write(connection, |out| encoder.begin_shared_entry(out, name))?;
            for (number, holder) in addresses.enumerate() {
                write(connection, |out| encoder.holder(out, number, holder.as_bytes()))?;
            }
            write(connection, |out| encoder.end_shared_entry(out))
        })
        .is_continue();
    if written { connection.reply_or_close(|out| encoder.end(out)) } else { Flow::Close }
}

/// `who`: the connections with a registered name, or with this one.
pub(super) fn names(connection: &Connection, wanted: Option<&[u8]>) -> Flow {
    flow(connection.server.sessions().iter().try_for_each(|info| match info.name() {
        Some(name) if wanted.is_none_or(|wanted| *wanted == *name) => {
            write(connection, |out| encode_pair(out, info.address().as_bytes(), &name))
        }
        _ => ControlFlow::Continue(()),
    }))
}

/// `q full`: every lock and its holder, and what every holder of shared locks holds.
pub(super) fn details(connection: &Connection) -> Flow {
    flow(write_details(connection))
}

fn write_details(connection: &Connection) -> ControlFlow<()> {
    let mut start = Vec::new();
    let encoder = DetailsEncoder::start(&mut start);
    write(connection, |out| out.extend_from_slice(&start))?;
    each_lock_of_any_mode(connection, |lock, mode| {
        let name = lock.key.name.as_bytes();
        match mode {
            TextMode::Exclusive => {
                let holder = lock.holders.first().map(|holder| holder.session.address());
                write(connection, |out| encoder.lock(out, name, holder.unwrap_or_default().as_bytes()))
            }
            TextMode::Shared => write(connection, |out| encoder.shared_lock(out, name, lock.holders.len())),
        }
    })?;
    write(connection, |out| encoder.begin_shares(out))?;
    let mut holders = connection.server.broker.sessions();
    holders.retain(|session| session.locks_held() > 0);
    holders.sort_by_key(|holder| holder.address());
    holders.iter().try_for_each(|holder| write_shares(connection, &encoder, holder))?;
    write(connection, |out| encoder.end(out))
}

/// The shared locks of one holder, if it has any.
fn write_shares(connection: &Connection, encoder: &DetailsEncoder, holder: &SessionInfo) -> ControlFlow<()> {
    let shared_space = connection.space_of(TextMode::Shared);
    let mut count = 0;
    let broken_off = connection.server.broker.for_each_held(holder, |key, mode| {
        if TextMode::from(mode) != TextMode::Shared || key.space != shared_space {
            return ControlFlow::Continue(());
        }
        let number = count;
        count += 1;
        write(connection, |out| {
            if number == 0 {
                encoder.begin_holder(out, holder.address().as_bytes());
            }
            encoder.share(out, number, key.name.as_bytes());
        })
    });
    match broken_off {
        Some(()) => ControlFlow::Break(()),
        None if count == 0 => ControlFlow::Continue(()),
        None => write(connection, |out| encoder.end_holder(out)),
    }
}

/// Shows `each` the locks held in this mode, or only the one of this name.
fn each_lock(
    connection: &Connection,
    mode: TextMode,
    name: Option<&[u8]>,
    mut each: impl FnMut(LockInfo) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let Some(name) = name else {
        return each_lock_of_any_mode(connection, |lock, held| {
            if held == mode { each(lock) } else { ControlFlow::Continue(()) }
        });
    };
    match connection.server.broker.lock_info(connection.space_of(mode), name) {
        Some(lock) if lock.mode.map(TextMode::from) == Some(mode) => each(lock),
        _ => ControlFlow::Continue(()),
    }
}

/// Shows `each` the held locks with their modes.
fn each_lock_of_any_mode(
    connection: &Connection,
    mut each: impl FnMut(LockInfo, TextMode) -> ControlFlow<()>,
) -> ControlFlow<()> {
    let broken_off = connection.server.broker.for_each_lock(|mut lock| {
        // The lists do not show waiters, and there may be many: they are not kept while a reply is
        // sent.
        lock.waiters = Vec::new();
        match lock.mode.map(TextMode::from) {
            Some(mode) if lock.key.space == connection.space_of(mode) => each(lock, mode),
            _ => ControlFlow::Continue(()),
        }
    });
    broken_off.map_or(ControlFlow::Continue(()), ControlFlow::Break)
}

/// Breaks off if the client is gone.
fn write(connection: &Connection, encode: impl FnOnce(&mut Vec<u8>)) -> ControlFlow<()> {
    if connection.reply(encode) { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
}

fn flow(written: ControlFlow<()>) -> Flow {
    if written.is_continue() { Flow::Read } else { Flow::Close }
}
