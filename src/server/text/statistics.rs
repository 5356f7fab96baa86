//! What `q` tells, and the counts of commands that it is made from.

use super::super::server_state::{COMMANDS, ServerState};
use crate::wire::text::TextMode::{Exclusive, Shared};
use crate::wire::text::TextRequest;
use crate::wire::text::glockd::GlockdStatistics;
use crate::wire::text::lockd::LockdStatistics;

/// The commands of both dialects. Their numbers are the places in which they are counted.
#[derive(Clone, Copy)]
enum TextCommand {
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
    /// `t` and `help`, which the original's statistics do not have.
    Extension,
}

impl TextCommand {
    fn of(request: &TextRequest<'_>) -> Self {
        match request {
            TextRequest::Acquire { mode: Exclusive, .. } => Self::G,
            TextRequest::Acquire { mode: Shared, .. } => Self::Sg,
            TextRequest::AcquireWaiting { mode: Exclusive, .. } => Self::G,
            TextRequest::AcquireWaiting { mode: Shared, .. } => Self::Sg,
            TextRequest::Release { mode: Exclusive, .. } => Self::R,
            TextRequest::Release { mode: Shared, .. } => Self::Sr,
            TextRequest::Inspect { mode: Exclusive, .. } => Self::I,
            TextRequest::Inspect { mode: Shared, .. } => Self::Si,
            TextRequest::List { mode: Exclusive, .. } => Self::D,
            TextRequest::List { mode: Shared, .. } => Self::Sd,
            TextRequest::Dump { .. } => Self::Dump,
            TextRequest::Me => Self::Me,
            TextRequest::Iam(_) => Self::Iam,
            TextRequest::Who(_) => Self::Who,
            TextRequest::Statistics { .. } => Self::Q,
            TextRequest::Token(_) | TextRequest::Help => Self::Extension,
            TextRequest::InvalidWait(_) | TextRequest::Invalid => Self::Invalid,
        }
    }
}

/// Counts a request under its command.
pub(super) fn count(counts: &mut [u64; COMMANDS], request: &TextRequest<'_>) {
    counts[TextCommand::of(request) as usize] += 1;
}

pub(super) fn lockd(server: &ServerState) -> LockdStatistics {
    let count = |command: TextCommand| server.lockd_commands.get(command as usize);
    let stats = server.broker.stats();
    LockdStatistics {
        pid: std::process::id(),
        conns: server.connections() as u64,
        locks: (stats.locks + stats.shared_locks) as u64,
        orphans: stats.orphans + stats.shared_orphans,
        commands: (0..COMMANDS).map(|command| server.lockd_commands.get(command)).sum(),
        command_g: count(TextCommand::G),
        command_r: count(TextCommand::R),
        command_i: count(TextCommand::I),
        command_sg: count(TextCommand::Sg),
        command_sr: count(TextCommand::Sr),
        command_si: count(TextCommand::Si),
        command_q: count(TextCommand::Q),
    }
}

pub(super) fn glockd(server: &ServerState) -> GlockdStatistics {
    let count = |command: TextCommand| server.glockd_commands.get(command as usize);
    let stats = server.broker.stats();
    GlockdStatistics {
        command_d: count(TextCommand::D),
        command_dump: count(TextCommand::Dump),
        command_g: count(TextCommand::G),
        command_i: count(TextCommand::I),
        command_iam: count(TextCommand::Iam),
        command_me: count(TextCommand::Me),
        command_q: count(TextCommand::Q),
        command_r: count(TextCommand::R),
        command_sd: count(TextCommand::Sd),
        command_sg: count(TextCommand::Sg),
        command_si: count(TextCommand::Si),
        command_sr: count(TextCommand::Sr),
        command_who: count(TextCommand::Who),
        connections: server.connections() as u64,
        invalid_commands: count(TextCommand::Invalid),
        locks: stats.locks as u64,
        orphans: stats.orphans,
        shared_locks: stats.shared_locks as u64,
        shared_orphans: stats.shared_orphans,
    }
}
