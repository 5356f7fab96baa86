//! The background of a load: idle connections that hold one lock each, and connections that hold
//! many locks. `lockd bench` measures what they cost the busy connections.

use std::io;

use super::connection::LoadConnection;
use super::dialect::{LockSpec, ReplyKind};
use super::target::BenchTarget;

/// The first number for the names of these locks: above the numbers of the busy connections, and
/// different in each process, since some servers do not free the locks of connections that have
/// ended. Names stay within 22 bytes.
fn first_number() -> u64 {
    u64::from(1 + std::process::id() % 0xffff) << 40
}
/// The offset of the numbers for [`hold_many`] from those for [`hold_idle`].
const HELD_OFFSET: u64 = 1 << 39;
const HELD_PER_CONNECTION: u64 = 1_000_000;
const HELD_BATCH: u64 = 512;

/// Opens `count` connections, each of which acquires one lock and then stays idle.
pub(super) fn hold_idle(target: &BenchTarget, count: u64) -> io::Result<Vec<LoadConnection>> {
    let protocol = target.address.protocol;
    let connect = |number| {
        let mut connection = LoadConnection::connect(&target.address)?;
        let spec = LockSpec { number: first_number() + number, owner: number, wait: false };
        let acquire = protocol.requests(&spec).map_err(io::Error::other)?.acquire;
        connection.call(&acquire.bytes, 1, |reply| acquire.check(reply) == ReplyKind::Granted)?;
        Ok(connection)
    };
    (0..count).map(connect).collect()
}

/// Acquires `count` locks, on as few connections as [`HELD_PER_CONNECTION`] allows.
pub(super) fn hold_many(target: &BenchTarget, count: u64) -> io::Result<Vec<LoadConnection>> {
    let protocol = target.address.protocol;
    let mut connections = Vec::new();
    for first in (0..count).step_by(usize::try_from(HELD_PER_CONNECTION).unwrap_or(usize::MAX)) {
        let mut connection = LoadConnection::connect(&target.address)?;
        let mut next = first;
        let end = count.min(first + HELD_PER_CONNECTION);
        while next < end {
            let batch = next..end.min(next + HELD_BATCH);
            next = batch.end;
            let acquire = |number| {
                let spec =
                    LockSpec { number: first_number() + HELD_OFFSET + number, owner: first, wait: false };
                protocol.requests(&spec).map(|requests| requests.acquire).map_err(io::Error::other)
            };
            let requests = batch.map(acquire).collect::<io::Result<Vec<_>>>()?;
            let bytes: Vec<u8> = requests.iter().flat_map(|request| request.bytes.iter().copied()).collect();
            let mut unanswered = requests.iter();
            let accept = |reply: &[u8]| {
                unanswered.next().is_some_and(|request| request.check(reply) == ReplyKind::Granted)
            };
            connection.call(&bytes, requests.len(), accept)?;
        }
        connections.push(connection);
    }
    Ok(connections)
}
