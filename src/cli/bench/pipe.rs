//! One connection of the load: what it has asked, in order, and what it is still to send and to read.
//! Never blocks once it is connected; knows nothing of time.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use socket2::Socket;

use super::dialect::{Dialect, Exchange, Request};
use super::target::{Address, Protocol};
use super::wrong_port::meant;

/// How long a server may take to answer where nothing holds it up.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// What a lane is waiting to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asking {
    Acquire,
    Release,
}

/// One lock that a connection acquires and releases over and over.
pub(super) struct Lane {
    exchange: Exchange,
    pub(super) asking: Asking,
    /// When it asked, in nanoseconds since the load began.
    pub(super) asked_at: u64,
}

impl Lane {
    pub(super) fn new(exchange: Exchange) -> Self {
        Self { exchange, asking: Asking::Acquire, asked_at: 0 }
    }

    pub(super) fn request(&self) -> &Request {
        match self.asking {
            Asking::Acquire => &self.exchange.acquire,
            Asking::Release => &self.exchange.release,
        }
    }
}

/// A connection.
pub(super) struct Pipe {
    socket: Socket,
    protocol: Protocol,
    /// What has been read and is not a whole reply yet.
    input: Vec<u8>,
    output: Vec<u8>,
    pub(super) lanes: Vec<Lane>,
    /// The lanes whose requests are unanswered, in the order of the requests.
    asked: VecDeque<usize>,
    /// The socket did not take all there was to send.
    pub(super) is_stuck: bool,
}

impl AsFd for Pipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Pipe {
    /// Connects, and says what the protocol wants to be said first.
    pub(super) fn connect(address: &Address) -> io::Result<Self> {
        let mut pipe = Self {
            socket: address.connect()?,
            protocol: address.protocol,
            input: Vec::new(),
            output: Vec::new(),
            lanes: Vec::new(),
            asked: VecDeque::new(),
            is_stuck: false,
        };
        let dialect = address.protocol.dialect();
        let greeting = dialect.greeting();
        if !greeting.is_empty() {
            pipe.call(dialect, &greeting, 1, |_| true)?;
        }
        Ok(pipe)
    }

    /// Sends `requests` and reads so many replies, each of which must be to the liking of `accept`. Blocks.
    pub(super) fn call(
        &mut self,
        dialect: &dyn Dialect,
        requests: &[u8],
        replies: usize,
        mut accept: impl FnMut(&[u8]) -> bool,
    ) -> io::Result<()> {
        self.socket.set_read_timeout(Some(PATIENCE))?;
        self.socket.write_all(requests)?;
        let mut scratch = vec![0; 64 << 10];
        let mut read = 0;
        while read < replies {
            let some = match self.socket.read(&mut scratch) {
                Ok(0) => return Err(ended(self.protocol, &self.input, ErrorKind::UnexpectedEof.into())),
                Ok(some) => some,
                Err(error) => return Err(ended(self.protocol, &self.input, error)),
            };
            self.input.extend_from_slice(&scratch[..some]);
            let mut at = 0;
            while let Some(reply) = dialect.reply(&self.input[at..]) {
                if !accept(reply.verdict) {
                    return Err(unexpected(self.protocol, reply.verdict));
                }
                at += reply.len;
                read += 1;
            }
            self.input.drain(..at);
        }
        Ok(())
    }

    pub(super) fn stop_blocking(&self) -> io::Result<()> {
        self.socket.set_nonblocking(true)
    }

    /// Lets a lane ask; what it asks is sent by [`flush`](Self::flush).
    pub(super) fn ask(&mut self, lane: usize, asking: Asking, now: u64) {
        let asker = &mut self.lanes[lane];
        asker.asking = asking;
        asker.asked_at = now;
        self.output.extend_from_slice(&asker.request().bytes);
        self.asked.push_back(lane);
    }

    /// Sends as much as the socket takes; true if that was all.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        let mut sent = 0;
        while sent < self.output.len() {
            match self.socket.write(&self.output[sent..]) {
                Ok(some) => sent += some,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.output.drain(..sent);
        Ok(self.output.is_empty())
    }

    /// Reads what is there, by way of `scratch`; returns it with what was left of the last time.
    pub(super) fn read(&mut self, scratch: &mut [u8]) -> io::Result<Vec<u8>> {
        let mut input = std::mem::take(&mut self.input);
        match self.socket.read(scratch) {
            Ok(0) => return Err(ended(self.protocol, &input, ErrorKind::UnexpectedEof.into())),
            Ok(some) => input.extend_from_slice(&scratch[..some]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(ended(self.protocol, &input, error)),
        }
        Ok(input)
    }

    /// Keeps what is no whole reply yet for the next time.
    pub(super) fn keep(&mut self, mut input: Vec<u8>, done: usize) {
        input.drain(..done);
        self.input = input;
    }

    /// The lane that the next reply is for.
    pub(super) fn next_asked(&mut self) -> Option<usize> {
        self.asked.pop_front()
    }
}

/// Says what a server has answered that it should not have.
pub(super) fn unexpected(protocol: Protocol, reply: &[u8]) -> io::Error {
    let shown = &reply[..reply.len().min(200)];
    let shown = || format!("unexpected reply: \"{}\"", shown.escape_ascii());
    io::Error::other(meant(protocol, reply).unwrap_or_else(shown))
}

/// Why a connection has ended: what the server has begun to say tells more than the error, if it is known.
fn ended(protocol: Protocol, answer: &[u8], error: io::Error) -> io::Error {
    let is_end = error.kind() == ErrorKind::UnexpectedEof;
    let plain =
        || if is_end { io::Error::new(error.kind(), "the server has ended the connection") } else { error };
    meant(protocol, answer).map_or_else(plain, io::Error::other)
}
