//! The `glockd` protocol at the broker, with the waiting and the tokens that are our extensions of it.

use std::time::Duration;

use super::super::connection::{Connection, Flow};
use super::super::server_state::{COMMANDS, Registered, ServerState};
use super::waiting::{LineWait, Pending};
use super::{Lines, listing};
use crate::broker::{AcquireError, Attempt, Key, LockName, Mode, Space, Wait};
use crate::os::sync::Arc;
use crate::wire::text::glockd::{GlockdStatistics, HELP, encode_pair};
use crate::wire::text::{TextDialect, TextReply, TextRequest};

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
        let Some(line) = line else { return connection.reply_glockd(TextReply::LineTooLong) };
        let request = TextDialect::Glockd.parse(line);
        self.counted[command_of(&request) as usize] += 1;
        match request {
            TextRequest::Acquire { mode, name } => {
                let holders = connection.acquire_now(&name, mode);
                connection.reply_glockd(TextReply::Acquire { mode, name: &name, holders })
            }
            TextRequest::Release { mode, name } => {
                let released = connection.release_held(&name, mode);
                connection.reply_glockd(TextReply::Release { mode, name: &name, released })
            }
            TextRequest::Inspect { mode, name } => {
                let holders = match mode {
                    Mode::Exclusive => usize::from(connection.is_locked(&name)),
                    Mode::Shared => connection.shared_holders(&name),
                };
                connection.reply_glockd(TextReply::Inspect { mode, name: &name, holders })
            }
            TextRequest::AcquireWaiting { mode, name, limit } => {
                self.acquire_waiting(connection, &name, limit, mode)
            }
            TextRequest::InvalidWait(rest) => connection.reply_glockd(TextReply::InvalidWait(&rest)),
            TextRequest::Token(name) => {
                let held = connection.session.inspect(Space::Main, &name).held;
                let token = held.filter(|held| held.mode == Mode::Exclusive).map(|held| held.token);
                connection.reply_glockd(TextReply::Token(token))
            }
            TextRequest::Me => connection.reply_own_name(),
            TextRequest::Iam(name) => connection.register(name.as_deref()),
            TextRequest::Who(name) => connection.list_names(name.as_deref()),
            TextRequest::List { .. } | TextRequest::Dump { .. } if !connection.config.dump => {
                connection.reply_glockd(TextReply::Disabled)
            }
            TextRequest::List { mode, name } => listing::list(connection, name.as_deref(), mode),
            TextRequest::Dump { mode } => listing::dump(connection, mode),
            TextRequest::Statistics { .. } => self.statistics(connection),
            TextRequest::Help => connection.reply_or_close(|out| out.extend_from_slice(HELP.as_bytes())),
            TextRequest::Invalid => Flow::Read,
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
        mode: Mode,
    ) -> Flow {
        // First without waiting: nearly always that is all, and it needs nothing to be prepared.
        let holders = connection.acquire_now(name, mode);
        if holders.is_some() || limit == Some(Duration::ZERO) {
            return connection.reply_glockd(TextReply::Acquire { mode, name, holders });
        }
        let wants = [(Key { space: connection.space_of(mode), name: LockName::new(name) }, mode)];
        let wait = Wait { ticket: connection.next_ticket(), limit };
        // Prepared before it is asked for: the outcome may come before the answer does.
        self.wait.begin(Pending { name: name.to_vec(), mode });
        match connection.noting_limits(connection.session.acquire(&wants, Some(wait))) {
            Ok(Attempt::Queued) => {
                connection.expect_expiry(limit);
                Flow::Wait
            }
            answer => {
                self.wait.abandon();
                let holders =
                    if let Ok(Attempt::Granted(grant)) = answer { Some(grant.holders) } else { None };
                connection.reply_glockd(TextReply::Acquire { mode, name, holders })
            }
        }
    }

    fn statistics(&mut self, connection: &Connection) -> Flow {
        let server = &connection.server;
        self.report_counts(server);
        let count = |command: Command| server.glockd_commands.get(command as usize);
        let stats = server.broker.stats();
        let statistics = GlockdStatistics {
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
    fn reply_glockd(&self, reply: TextReply<'_>) -> Flow {
        self.reply_or_close(|out| reply.encode(TextDialect::Glockd, out))
    }

    fn acquire_now(&self, name: &[u8], mode: Mode) -> Option<usize> {
        match mode {
            Mode::Exclusive => self.acquire_exclusive(name),
            Mode::Shared => self.acquire_shared(name),
        }
    }

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
        self.reply_glockd(TextReply::Me { address, name })
    }

    fn register(&self, name: Option<&[u8]>) -> Flow {
        let reply = match self.server.register(self.session.info(), name) {
            Registered::Done => TextReply::Ok,
            Registered::TooLong => TextReply::NameTooLong,
            Registered::Disabled => TextReply::Disabled,
        };
        self.reply_glockd(reply)
    }

    fn list_names(&self, wanted: Option<&[u8]>) -> Flow {
        if !self.config.registry || !self.config.dump {
            return self.reply_glockd(TextReply::Disabled);
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

fn command_of(request: &TextRequest<'_>) -> Command {
    use Mode::{Exclusive, Shared};
    match request {
        TextRequest::Acquire { mode, .. } | TextRequest::AcquireWaiting { mode, .. } => match mode {
            Exclusive => Command::G,
            Shared => Command::Sg,
        },
        TextRequest::Release { mode: Exclusive, .. } => Command::R,
        TextRequest::Release { mode: Shared, .. } => Command::Sr,
        TextRequest::Inspect { mode: Exclusive, .. } => Command::I,
        TextRequest::Inspect { mode: Shared, .. } => Command::Si,
        TextRequest::Me => Command::Me,
        TextRequest::Iam(_) => Command::Iam,
        TextRequest::Who(_) => Command::Who,
        TextRequest::List { mode: Exclusive, .. } => Command::D,
        TextRequest::List { mode: Shared, .. } => Command::Sd,
        TextRequest::Dump { .. } => Command::Dump,
        TextRequest::Statistics { .. } => Command::Q,
        TextRequest::Token(_) | TextRequest::Help => Command::Extension,
        TextRequest::InvalidWait(_) | TextRequest::Invalid => Command::Invalid,
    }
}
