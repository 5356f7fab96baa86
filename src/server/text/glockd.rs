//! The `glockd` protocol at the broker, with the waiting and the tokens that are our extensions of it.

use std::time::Duration;

use super::super::connection::{Connection, Flow};
use super::super::server_state::{COMMANDS, Registered, ServerState};
use super::waiting::{LineWait, Pending, acquired};
use super::{Lines, listing};
use crate::broker::{AcquireError, Attempt, Key, LockName, Mode, Space, Wait};
use crate::os::sync::Arc;
use crate::wire::text::glockd::{HELP, Reply, Request, Statistics, encode_pair, parse};

/// The commands by the numbers they are counted under.
#[derive(Clone, Copy)]
enum Command {
    D,
    Dump,
    G,
    I,
    Iam,
    Me,
    Q,
    R,
    Sd,
    Sg,
    Si,
    Sr,
    Who,
    Invalid,
    /// `t` and `help`, which the original's statistics do not know.
    Extension,
}

/// A client that speaks `glockd`.
pub(in super::super) struct Glockd {
    counted: [u64; COMMANDS],
    wait: Arc<LineWait>,
}

impl Glockd {
    pub(in super::super) fn new(wait: Arc<LineWait>) -> Self {
        Self { counted: [0; COMMANDS], wait }
    }
}

impl Lines for Glockd {
    fn line(&mut self, connection: &mut Connection, line: Option<&[u8]>) -> Flow {
        let Some(line) = line else { return connection.reply_or_close(|out| Reply::LineTooLong.encode(out)) };
        let request = parse(line);
        self.counted[command_of(&request) as usize] += 1;
        match request {
            Request::Acquire(name) => {
                let holders = connection.acquire_exclusive(&name);
                connection.reply_or_close(|out| acquired(false, holders, &name).encode(out))
            }
            Request::Release(name) => {
                let released = connection.release_held(&name, Mode::Exclusive);
                connection.reply_or_close(|out| Reply::Release { released, name: &name }.encode(out))
            }
            Request::Inspect(name) => {
                let locked = connection.is_locked(&name);
                connection.reply_or_close(|out| Reply::Inspect { locked, name: &name }.encode(out))
            }
            Request::AcquireShared(name) => {
                let holders = connection.acquire_shared(&name);
                connection.reply_or_close(|out| acquired(true, holders, &name).encode(out))
            }
            Request::ReleaseShared(name) => {
                let released = connection.release_held(&name, Mode::Shared);
                connection.reply_or_close(|out| Reply::ReleaseShared { released, name: &name }.encode(out))
            }
            Request::InspectShared(name) => {
                let holders = connection.shared_holders(&name);
                connection.reply_or_close(|out| Reply::InspectShared { holders, name: &name }.encode(out))
            }
            Request::AcquireWaiting { name, limit, shared } => {
                self.acquire_waiting(connection, &name, limit, shared)
            }
            Request::InvalidWait(rest) => {
                connection.reply_or_close(|out| Reply::InvalidWait { rest: &rest }.encode(out))
            }
            Request::Token(name) => {
                let held = connection.session.inspect(Space::Main, &name).held;
                let token = held.filter(|held| held.mode == Mode::Exclusive).map(|held| held.token);
                connection.reply_or_close(|out| Reply::Token(token).encode(out))
            }
            Request::Me => connection.reply_own_name(),
            Request::Iam(name) => connection.register(name.as_deref()),
            Request::Who(name) => connection.list_names(name.as_deref()),
            Request::List { .. } | Request::Dump { .. } if !connection.config.dump => {
                connection.reply_or_close(|out| Reply::Disabled.encode(out))
            }
            Request::List { name, shared } => listing::list(connection, name.as_deref(), shared),
            Request::Dump { shared } => listing::dump(connection, shared),
            Request::Statistics => self.statistics(connection),
            Request::Help => connection.reply_or_close(|out| out.extend_from_slice(HELP.as_bytes())),
            Request::Invalid => Flow::Read,
        }
    }

    fn is_waiting(&self) -> bool {
        self.wait.is_on()
    }

    fn report_counts(&mut self, server: &ServerState) {
        server.glockd_commands.add(&mut self.counted);
    }
}

impl Glockd {
    fn acquire_waiting(
        &mut self,
        connection: &mut Connection,
        name: &[u8],
        limit: Option<Duration>,
        shared: bool,
    ) -> Flow {
        // First without waiting: nearly always that is all, and it needs nothing to be prepared.
        let holders =
            if shared { connection.acquire_shared(name) } else { connection.acquire_exclusive(name) };
        if holders.is_some() || limit == Some(Duration::ZERO) {
            return connection.reply_or_close(|out| acquired(shared, holders, name).encode(out));
        }
        let mode = if shared { Mode::Shared } else { Mode::Exclusive };
        let wants = [(Key { space: connection.space_of(mode), name: LockName::new(name) }, mode)];
        let wait = Wait { ticket: connection.next_ticket(), limit };
        // Prepared before it is asked for: the outcome may come before the answer does.
        self.wait.begin(Pending { name: name.to_vec(), shared });
        match connection.noting_limits(connection.session.acquire(&wants, Some(wait))) {
            Ok(Attempt::Queued) => {
                connection.expect_expiry(limit);
                Flow::Wait
            }
            answer => {
                self.wait.abandon();
                let granted =
                    if let Ok(Attempt::Granted(grant)) = answer { Some(grant.holders) } else { None };
                connection.reply_or_close(|out| acquired(shared, granted, name).encode(out))
            }
        }
    }

    fn statistics(&mut self, connection: &Connection) -> Flow {
        let server = &connection.server;
        self.report_counts(server);
        let count = |command: Command| server.glockd_commands.get(command as usize);
        let stats = server.broker.stats();
        let statistics = Statistics {
            command_d: count(Command::D),
            command_dump: count(Command::Dump),
            command_g: count(Command::G),
            command_i: count(Command::I),
            command_iam: count(Command::Iam),
            command_me: count(Command::Me),
            command_q: count(Command::Q),
            command_r: count(Command::R),
            command_sd: count(Command::Sd),
            command_sg: count(Command::Sg),
            command_si: count(Command::Si),
            command_sr: count(Command::Sr),
            command_who: count(Command::Who),
            connections: server.connections() as u64,
            invalid_commands: count(Command::Invalid),
            locks: stats.locks as u64,
            orphans: stats.orphans,
            shared_locks: stats.shared_locks as u64,
            shared_orphans: stats.shared_orphans,
        };
        connection.reply_or_close(|out| statistics.encode(out))
    }
}

impl Connection {
    /// `g`: who holds the lock already gets it again. `Some` is a grant.
    fn acquire_exclusive(&self, name: &[u8]) -> Option<usize> {
        match self.noting_limits(self.session.try_acquire(Space::Main, name, Mode::Exclusive)) {
            Ok(_) => Some(1),
            Err(AcquireError::AlreadyHeld(held)) if held.mode == Mode::Exclusive => Some(1),
            _ => None,
        }
    }

    fn reply_own_name(&self) -> Flow {
        let info = self.session.info();
        let address = info.address().as_bytes();
        let name = info.name();
        let name = name.as_deref().unwrap_or(address);
        self.reply_or_close(|out| Reply::Me { address, name }.encode(out))
    }

    fn register(&self, name: Option<&[u8]>) -> Flow {
        let reply = match self.server.register(self.session.info(), name) {
            Registered::Done => Reply::Ok,
            Registered::TooLong => Reply::NameTooLong,
            Registered::Disabled => Reply::Disabled,
        };
        self.reply_or_close(|out| reply.encode(out))
    }

    fn list_names(&self, wanted: Option<&[u8]>) -> Flow {
        if !self.config.registry || !self.config.dump {
            return self.reply_or_close(|out| Reply::Disabled.encode(out));
        }
        for info in self.server.sessions() {
            let Some(name) = info.name() else { continue };
            if wanted.is_none_or(|wanted| *wanted == *name) {
                let next = self.reply_or_close(|out| encode_pair(out, info.address().as_bytes(), &name));
                if next != Flow::Read {
                    return next;
                }
            }
        }
        Flow::Read
    }
}

fn command_of(request: &Request<'_>) -> Command {
    match request {
        Request::Acquire(_) | Request::AcquireWaiting { shared: false, .. } => Command::G,
        Request::AcquireShared(_) | Request::AcquireWaiting { shared: true, .. } => Command::Sg,
        Request::Release(_) => Command::R,
        Request::Inspect(_) => Command::I,
        Request::ReleaseShared(_) => Command::Sr,
        Request::InspectShared(_) => Command::Si,
        Request::Me => Command::Me,
        Request::Iam(_) => Command::Iam,
        Request::Who(_) => Command::Who,
        Request::List { shared: false, .. } => Command::D,
        Request::List { shared: true, .. } => Command::Sd,
        Request::Dump { .. } => Command::Dump,
        Request::Statistics => Command::Q,
        Request::Token(_) | Request::Help => Command::Extension,
        Request::InvalidWait(_) | Request::Invalid => Command::Invalid,
    }
}
