//! Stopping and continuing, as with Ctrl-Z and `fg`: this process stops only when the command and all
//! its descendants have stopped. A command that goes on needs somebody who watches its lock. Knows
//! nothing about locks; whoever continues must look at the lock first.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::command::RunningCommand;
use super::signals::SignalQueue;
use crate::cli::messages::MessageWriter;

/// How long all processes may take to stop. An editor first restores the screen.
const LIMIT: Duration = Duration::from_secs(2);
/// How often to check whether they have stopped.
const CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// A stop that has been asked for, and that is waited for.
pub(super) struct PendingStop {
    signal: Signal,
    deadline: Instant,
}

/// How a stop goes.
pub(super) enum StopProgress {
    Pending(PendingStop),
    /// All have stopped, and so has this process, until it was continued just now. (In a terminal
    /// without a shell that could continue it, it has not stopped at all.) The command is still
    /// stopped, unless it was continued together with this process.
    Over,
    /// Not all have stopped, and so this process has not.
    GivenUp,
}

impl PendingStop {
    /// The command has been asked to stop by this signal.
    pub(super) fn new(signal: Signal) -> Self {
        Self { signal, deadline: Instant::now() + LIMIT }
    }

    /// When to check again.
    pub(super) fn next_check() -> Instant {
        Instant::now() + CHECK_INTERVAL
    }

    /// Stops this process if all others have stopped.
    pub(super) fn advance(
        self,
        command: &mut RunningCommand,
        signals: &SignalQueue,
        messages: &MessageWriter,
    ) -> StopProgress {
        if command.descendants.have_stopped() {
            signals.stop_this_process(self.signal);
            return StopProgress::Over;
        }
        if Instant::now() < self.deadline {
            return StopProgress::Pending(self);
        }
        let running = command.descendants.find().into_iter().find(|process| !process.is_stopped);
        let running = running.map_or_else(String::new, |process| format!(": {process}"));
        messages.write(&format!("not all of the command stops, so it goes on, to be watched{running}"));
        StopProgress::GivenUp
    }
}
