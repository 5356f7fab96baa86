//! The two text protocols at the broker: lines in, lines out, in order. `lockd` and `glockd` share how
//! their lines are read and what their commands do; they differ in the commands they have and in what
//! they say.

mod glockd;
mod listing;
mod lockd;
mod waiting;

pub(super) use glockd::Glockd;
pub(super) use lockd::Lockd;
pub(super) use waiting::LineWait;

use super::connection::{Connection, Flow, ProtocolHandler};
use super::server_state::ServerState;
use crate::broker::{AcquireError, Mode, Space};
use crate::wire::text::lines::{Line, LineDecoder};

/// What one of the text protocols makes of its lines.
pub(super) trait Lines {
    /// Handles one line; `None` stands for one that was too long.
    fn line(&mut self, connection: &mut Connection, line: Option<&[u8]>) -> Flow;

    /// Whether later lines must wait behind one that waits for a lock.
    fn is_waiting(&self) -> bool;

    /// Adds what has been counted to the server's counters.
    fn report_counts(&mut self, server: &ServerState);
}

/// A client that speaks a text protocol.
pub(super) struct Text<L> {
    decoder: LineDecoder,
    lines: L,
    /// Whether replies belong to messages, which end when their requests have been handled.
    has_messages: bool,
}

impl<L: Lines> Text<L> {
    pub(super) fn new(connection: &Connection, lines: L) -> Self {
        let decoder = LineDecoder::new(connection.config.line_bytes_max);
        Self { decoder, lines, has_messages: connection.send_queue.has_messages() }
    }
}

impl<L: Lines> ProtocolHandler for Text<L> {
    fn handle(&mut self, connection: &mut Connection, input: &[u8]) -> (usize, Flow) {
        let mut done = 0;
        let mut next = if self.lines.is_waiting() { Flow::Wait } else { Flow::Read };
        while next == Flow::Read {
            let (taken, found) = self.decoder.decode(&input[done..]);
            done += taken;
            next = match found {
                Line::Complete(line) => self.lines.line(connection, Some(line)),
                Line::TooLong => {
                    connection.note_limit("its line is too long");
                    self.lines.line(connection, None)
                }
                Line::Incomplete => Flow::Read,
            };
            if self.has_messages {
                connection.send_queue.have_handled(taken);
            }
            if found == Line::Incomplete {
                break;
            }
        }
        self.lines.report_counts(&connection.server);
        (done, next)
    }

    fn is_waiting(&self) -> bool {
        self.lines.is_waiting()
    }
}

/// What a `sg` comes to: how many hold the lock now, or `None` if it was refused.
type SharedGrant = Option<usize>;

impl Connection {
    /// Where the locks of that mode live.
    fn space_of(&self, mode: Mode) -> Space {
        match mode {
            Mode::Shared if !self.config.shared_excludes => Space::Counted,
            _ => Space::Main,
        }
    }

    /// `sg`: who holds the lock already changes nothing, and is told how many do.
    fn acquire_shared(&self, name: &[u8]) -> SharedGrant {
        let space = self.space_of(Mode::Shared);
        match self.noting_limits(self.session.try_acquire(space, name, Mode::Shared)) {
            Ok(grant) => Some(grant.holders),
            Err(AcquireError::AlreadyHeld(held)) if held.mode == Mode::Shared => {
                Some(self.session.inspect(space, name).holders)
            }
            _ => None,
        }
    }

    /// `si`: how many hold the shared lock.
    fn shared_holders(&self, name: &[u8]) -> usize {
        let seen = self.session.inspect(self.space_of(Mode::Shared), name);
        if seen.mode == Some(Mode::Shared) { seen.holders } else { 0 }
    }

    /// `i`: whether the exclusive lock is held by anyone.
    fn is_locked(&self, name: &[u8]) -> bool {
        self.session.inspect(Space::Main, name).mode == Some(Mode::Exclusive)
    }

    /// `r` and `sr`: whether the lock was held in that mode and is free now.
    fn release_held(&self, name: &[u8], mode: Mode) -> bool {
        let space = self.space_of(mode);
        // Where both modes share a space, `r` must not free what `sg` got, nor the other way. Nobody
        // but this thread acts for the session, so nothing changes between the look and the release.
        let held = || self.session.inspect(space, name).held.map(|held| held.mode);
        if self.config.shared_excludes && held() != Some(mode) {
            return false;
        }
        self.session.release(space, name).is_ok()
    }

    /// Appends a reply; hangs up if there is nobody to read it.
    fn reply_or_close(&self, write: impl FnOnce(&mut Vec<u8>)) -> Flow {
        if self.reply(write) { Flow::Read } else { Flow::Close }
    }
}
