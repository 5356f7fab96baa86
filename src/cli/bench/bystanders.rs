//! Who is there beside the load: connections that hold a lock and say nothing, and locks by the million. What
//! they cost those who are busy is what is to be measured.

use std::io;

use super::dialect::{Verdict, Want};
use super::pipe::Pipe;
use super::target::Target;

/// Where the numbers begin, above those of the busy, of which the names of these locks are made: elsewhere
/// each time, since there are servers that free nothing of those who are gone. Names stay within 22 bytes.
fn first_number() -> u64 {
    u64::from(1 + std::process::id() % 0xffff) << 40
}
/// How far above the numbers of the idle those of the held begin.
const HELD: u64 = 1 << 39;
/// How many locks one connection is given to hold, and how many are asked for at once.
const HELD_BY_ONE: u64 = 1_000_000;
const HELD_AT_ONCE: u64 = 512;

/// Connections that hold a lock each and say nothing more.
pub(super) fn hold_idle(target: &Target, idle: u64) -> io::Result<Vec<Pipe>> {
    let dialect = target.address.protocol.dialect();
    let connect = |number| {
        let mut pipe = Pipe::connect(&target.address)?;
        let want = Want { number: first_number() + number, owner: number, wait: false };
        let acquire = dialect.exchange(&want).map_err(io::Error::other)?.acquire;
        pipe.call(dialect, &acquire.bytes, 1, |reply| acquire.judge(reply) == Verdict::Granted)?;
        Ok(pipe)
    };
    (0..idle).map(connect).collect()
}

/// Connections that hold many locks among them.
pub(super) fn hold_many(target: &Target, held: u64) -> io::Result<Vec<Pipe>> {
    let dialect = target.address.protocol.dialect();
    let mut pipes = Vec::new();
    for first in (0..held).step_by(usize::try_from(HELD_BY_ONE).unwrap_or(usize::MAX)) {
        let mut pipe = Pipe::connect(&target.address)?;
        let mut next = first;
        let end = held.min(first + HELD_BY_ONE);
        while next < end {
            let some = next..end.min(next + HELD_AT_ONCE);
            next = some.end;
            let acquire = |number| {
                let want = Want { number: first_number() + HELD + number, owner: first, wait: false };
                dialect.exchange(&want).map(|exchange| exchange.acquire).map_err(io::Error::other)
            };
            let requests = some.map(acquire).collect::<io::Result<Vec<_>>>()?;
            let bytes: Vec<u8> = requests.iter().flat_map(|request| request.bytes.iter().copied()).collect();
            let mut answered = requests.iter();
            let accept = |reply: &[u8]| {
                answered.next().is_some_and(|request| request.judge(reply) == Verdict::Granted)
            };
            pipe.call(dialect, &bytes, requests.len(), accept)?;
        }
        pipes.push(pipe);
    }
    Ok(pipes)
}
