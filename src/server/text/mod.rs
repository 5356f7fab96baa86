//! The two text protocols at the broker: lines in, lines out, in order. Knows what each command
//! does with the session. `lockd` and `glockd` differ in the commands they have and in their words;
//! that is for the codec (`wire::text`), and the few differences in what a command does are marked
//! here.

mod listing;
mod locks;
mod statistics;
mod waiting;

pub(super) use waiting::LineWait;

use std::time::Duration;

use super::connection::{Connection, Flow, ProtocolHandler};
use super::server_state::{COMMANDS, NameRegistration, ServerState};
use super::snapshot::types::HandlerSnapshot;
use crate::broker::{Mode, Space};
use crate::os::sync::Arc;
use crate::wire::text::glockd::HELP;
use crate::wire::text::lines::{Line, LineDecoder};
use crate::wire::text::{TextDialect, TextReply, TextRequest};

/// Handles what a client of a text protocol sends.
pub(super) struct TextHandler {
    dialect: TextDialect,
    decoder: LineDecoder,
    /// Commands that have not been added to the server's counters yet.
    counts: [u64; COMMANDS],
    wait: Arc<LineWait>,
    /// Whether replies belong to WebSocket messages. The reply to a message ends when its lines
    /// have been handled.
    has_messages: bool,
}

impl TextHandler {
    pub(super) fn lockd(connection: &Connection, wait: Arc<LineWait>) -> Self {
        Self::new(TextDialect::Lockd, connection, wait)
    }

    pub(super) fn glockd(connection: &Connection, wait: Arc<LineWait>) -> Self {
        Self::new(TextDialect::Glockd, connection, wait)
    }

    /// `wait` is the observer of the connection's session.
    fn new(dialect: TextDialect, connection: &Connection, wait: Arc<LineWait>) -> Self {
        let decoder = LineDecoder::new(connection.config.line_bytes_max);
        let has_messages = connection.send_queue.has_messages();
        Self { dialect, decoder, counts: [0; COMMANDS], wait, has_messages }
    }

    /// The conversation has been going on in an earlier image of the program, and its next bytes
    /// belong to a line that was too long, or not.
    pub(super) fn resume(&mut self, connection: &Connection, is_skipping: bool) {
        self.decoder = LineDecoder::resumed(connection.config.line_bytes_max, is_skipping);
    }

    fn handle_line(&mut self, connection: &mut Connection, line: &[u8]) -> Flow {
        let request = self.dialect.parse(line);
        statistics::count(&mut self.counts, &request);
        let reply = match &request {
            TextRequest::Acquire { mode, name } => {
                return self.acquire(connection, *mode, name, Some(Duration::ZERO));
            }
            TextRequest::AcquireWaiting { mode, name, limit } => {
                return self.acquire(connection, *mode, name, *limit);
            }
            TextRequest::InvalidWait(rest) => TextReply::InvalidWait(rest),
            TextRequest::Release { mode, name } => {
                let released = connection.release_held(*mode, name);
                TextReply::Release { mode: *mode, name, released }
            }
            TextRequest::Inspect { mode, name } => {
                TextReply::Inspect { mode: *mode, name, holders: connection.holders_in(*mode, name) }
            }
            TextRequest::Token(name) => {
                let held = connection.session.inspect(Space::Main, name).held;
                TextReply::Token(held.filter(|held| held.mode == Mode::Exclusive).map(|held| held.token))
            }
            TextRequest::Me => {
                let info = connection.session.info();
                let (address, name) = (info.address(), info.name());
                let address = address.as_bytes();
                let me = TextReply::Me { address, name: name.as_deref().unwrap_or(address) };
                return self.reply(connection, me);
            }
            TextRequest::Iam(name) => {
                match connection.server.register(connection.session.info(), name.as_deref()) {
                    NameRegistration::Done => TextReply::Ok,
                    NameRegistration::TooLong => TextReply::NameTooLong,
                    NameRegistration::Disabled => TextReply::Disabled,
                }
            }
            TextRequest::Who(_) if !connection.config.registry => TextReply::Disabled,
            TextRequest::Who(_) | TextRequest::List { .. } | TextRequest::Dump { .. }
                if !connection.config.dump =>
            {
                TextReply::Disabled
            }
            TextRequest::Who(name) => return listing::names(connection, name.as_deref()),
            TextRequest::List { mode, name } => return listing::holders(connection, *mode, name.as_deref()),
            TextRequest::Dump { mode } => return listing::dump(connection, *mode),
            TextRequest::Statistics { full } => return self.reply_statistics(connection, *full),
            TextRequest::Help => {
                return connection.reply_or_close(|out| out.extend_from_slice(HELP.as_bytes()));
            }
            TextRequest::Invalid => return Flow::Read,
        };
        self.reply(connection, reply)
    }

    fn reply(&self, connection: &Connection, reply: TextReply<'_>) -> Flow {
        connection.reply_or_close(|out| reply.encode(self.dialect, out))
    }

    fn report_counts(&mut self, server: &ServerState) {
        match self.dialect {
            TextDialect::Lockd => server.lockd_commands.add(&mut self.counts),
            TextDialect::Glockd => server.glockd_commands.add(&mut self.counts),
        }
    }

    fn reply_statistics(&mut self, connection: &Connection, full: bool) -> Flow {
        let server = &connection.server;
        self.report_counts(server);
        let flow = connection.reply_or_close(|out| match self.dialect {
            TextDialect::Lockd => statistics::lockd(server).encode(out),
            TextDialect::Glockd => statistics::glockd(server).encode(out),
        });
        if full && connection.config.dump && flow == Flow::Read { listing::details(connection) } else { flow }
    }
}

impl ProtocolHandler for TextHandler {
    fn handle(&mut self, connection: &mut Connection, input: &[u8]) -> (usize, Flow) {
        let mut done = 0;
        let mut flow = if self.wait.is_pending() { Flow::Wait } else { Flow::Read };
        while flow == Flow::Read {
            let (taken, found) = self.decoder.decode(&input[done..]);
            done += taken;
            flow = match found {
                Line::Complete(line) => self.handle_line(connection, line),
                Line::TooLong => {
                    connection.log_limit_exceeded("its line is too long");
                    self.reply(connection, TextReply::LineTooLong)
                }
                Line::Incomplete => Flow::Read,
            };
            if self.has_messages {
                connection.send_queue.lines_handled(taken);
            }
            if found == Line::Incomplete {
                break;
            }
        }
        self.report_counts(&connection.server);
        (done, flow)
    }

    fn is_waiting(&self) -> bool {
        self.wait.is_pending()
    }

    fn snapshot(&self) -> HandlerSnapshot {
        HandlerSnapshot::Text { is_skipping: self.decoder.is_skipping() }
    }
}

impl Connection {
    /// Appends a reply; closes the connection if the client is gone.
    fn reply_or_close(&self, write: impl FnOnce(&mut Vec<u8>)) -> Flow {
        if self.reply(write) { Flow::Read } else { Flow::Close }
    }
}
