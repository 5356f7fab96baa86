//! The `lockd` protocol at the broker.

use std::ops::ControlFlow;

use super::super::connection::{Connection, Flow};
use super::super::server_state::{COMMANDS, ServerState};
use super::Lines;
use crate::broker::Space;
use crate::broker::{Mode, SessionInfo};
use crate::wire::text::lockd::{DetailsEncoder, Reply, Request, Statistics, parse};

/// The commands by the numbers they are counted under.
#[derive(Clone, Copy)]
enum Command {
    G,
    R,
    I,
    Sg,
    Sr,
    Si,
    Q,
    Invalid,
}

/// A client that speaks `lockd`.
#[derive(Default)]
pub(in super::super) struct Lockd {
    counted: [u64; COMMANDS],
}

impl Lines for Lockd {
    fn line(&mut self, connection: &mut Connection, line: Option<&[u8]>) -> Flow {
        let Some(line) = line else { return connection.reply_or_close(|out| Reply::LineTooLong.encode(out)) };
        let (command, reply) = match parse(line) {
            Request::Acquire(name) => {
                let attempt = connection.session.try_acquire(Space::Main, &name, Mode::Exclusive);
                let attempt = connection.noting_limits(attempt);
                (Command::G, Reply::Acquire(attempt.is_ok()))
            }
            Request::Release(name) => {
                (Command::R, Reply::Release(connection.release_held(&name, Mode::Exclusive)))
            }
            Request::Inspect(name) => (Command::I, Reply::Inspect(connection.is_locked(&name))),
            Request::AcquireShared(name) => {
                let granted = connection.acquire_shared(&name);
                let holders = granted.unwrap_or(0);
                (Command::Sg, Reply::AcquireShared { granted: granted.is_some(), holders })
            }
            Request::ReleaseShared(name) => {
                (Command::Sr, Reply::Release(connection.release_held(&name, Mode::Shared)))
            }
            Request::InspectShared(name) => {
                (Command::Si, Reply::InspectShared(connection.shared_holders(&name)))
            }
            Request::Statistics { full } => {
                self.counted[Command::Q as usize] += 1;
                return self.statistics(connection, full);
            }
            Request::Invalid => {
                self.counted[Command::Invalid as usize] += 1;
                return Flow::Read;
            }
        };
        self.counted[command as usize] += 1;
        connection.reply_or_close(|out| reply.encode(out))
    }

    fn is_waiting(&self) -> bool {
        false
    }

    fn report_counts(&mut self, server: &ServerState) {
        server.lockd_commands.add(&mut self.counted);
    }
}

impl Lockd {
    fn statistics(&mut self, connection: &Connection, full: bool) -> Flow {
        let server = &connection.server;
        self.report_counts(server);
        let count = |command: Command| server.lockd_commands.get(command as usize);
        let all = [
            Command::G,
            Command::R,
            Command::I,
            Command::Sg,
            Command::Sr,
            Command::Si,
            Command::Q,
            Command::Invalid,
        ];
        let stats = server.broker.stats();
        let statistics = Statistics {
            pid: std::process::id(),
            conns: server.connections() as u64,
            locks: (stats.locks + stats.shared_locks) as u64,
            orphans: stats.orphans + stats.shared_orphans,
            commands: all.into_iter().map(count).sum(),
            command_g: count(Command::G),
            command_r: count(Command::R),
            command_i: count(Command::I),
            command_sg: count(Command::Sg),
            command_sr: count(Command::Sr),
            command_si: count(Command::Si),
            command_q: count(Command::Q),
        };
        let said = connection.reply_or_close(|out| statistics.encode(out));
        if full && connection.config.dump && said == Flow::Read { details(connection) } else { said }
    }
}

/// Every lock and who holds it, and what every holder of shared locks holds. Looked at and written some at a time:
/// nothing of it is kept for a client that does not read.
fn details(connection: &Connection) -> Flow {
    let shared_space = connection.space_of(Mode::Shared);
    let mut start = Vec::new();
    let encoder = DetailsEncoder::start(&mut start);
    connection.reply_or_close(|out| out.extend_from_slice(&start));
    let broken_off = connection.server.broker.for_each_lock(|mut lock| {
        // Nobody needs them, and there may be many.
        lock.waiters = Vec::new();
        let name = lock.key.name.as_bytes();
        let next = match lock.mode {
            Some(Mode::Exclusive) => {
                let holder = lock.holders.first().map(|holder| holder.session.address());
                connection
                    .reply_or_close(|out| encoder.lock(out, name, holder.unwrap_or_default().as_bytes()))
            }
            Some(Mode::Shared) if lock.key.space == shared_space => {
                connection.reply_or_close(|out| encoder.shared_lock(out, name, lock.holders.len()))
            }
            Some(Mode::Shared) | None => Flow::Read,
        };
        if next == Flow::Read { ControlFlow::Continue(()) } else { ControlFlow::Break(next) }
    });
    if let Some(next) = broken_off {
        return next;
    }
    connection.reply_or_close(|out| encoder.begin_shares(out));
    let mut holders = connection.server.broker.sessions();
    holders.retain(|session| session.locks_held() > 0);
    holders.sort_by(|one, other| one.address().cmp(other.address()));
    for holder in holders {
        let next = shares_of(connection, &encoder, &holder);
        if next != Flow::Read {
            return next;
        }
    }
    connection.reply_or_close(|out| encoder.end(out))
}

/// The shared locks of one holder, if it has any.
fn shares_of(connection: &Connection, encoder: &DetailsEncoder, holder: &SessionInfo) -> Flow {
    let shared_space = connection.space_of(Mode::Shared);
    let mut count = 0;
    let broken_off = connection.server.broker.for_each_held(holder, |key, mode| {
        if mode != Mode::Shared || key.space != shared_space {
            return ControlFlow::Continue(());
        }
        let next = connection.reply_or_close(|out| {
            if count == 0 {
                encoder.begin_holder(out, holder.address().as_bytes());
            }
            encoder.share(out, count, key.name.as_bytes());
        });
        count += 1;
        if next == Flow::Read { ControlFlow::Continue(()) } else { ControlFlow::Break(next) }
    });
    match broken_off {
        Some(next) => next,
        None if count == 0 => Flow::Read,
        None => connection.reply_or_close(|out| encoder.end_holder(out)),
    }
}
