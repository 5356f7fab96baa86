//! One connection of the load: its lock loops, the requests that are unanswered, in order, and the
//! bytes that are still to be sent or read. Does not block after [`LoadConnection::stop_blocking`];
//! knows no clock.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use socket2::Socket;

use super::dialect::{BenchProtocol, CheckedRequest, LockRequests};
use super::target::Address;
use super::wrong_port::explain_reply;

/// How long a server may take to answer a request that nothing delays.
pub(super) const REPLY_LIMIT: Duration = Duration::from_secs(10);

/// The request of a lock loop that is unanswered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LoopStep {
    Acquire,
    Release,
}

/// One lock that a connection acquires and releases over and over.
pub(super) struct LockLoop {
    requests: LockRequests,
    pub(super) step: LoopStep,
    /// When the request was made, in nanoseconds since the load began.
    pub(super) requested_at: u64,
}

impl LockLoop {
    pub(super) fn new(requests: LockRequests) -> Self {
        Self { requests, step: LoopStep::Acquire, requested_at: 0 }
    }

    pub(super) fn request(&self) -> &CheckedRequest {
        match self.step {
            LoopStep::Acquire => &self.requests.acquire,
            LoopStep::Release => &self.requests.release,
        }
    }
}

pub(super) struct LoadConnection {
    socket: Socket,
    protocol: BenchProtocol,
    /// Bytes read that are not a complete reply yet.
    input: Vec<u8>,
    output: Vec<u8>,
    pub(super) loops: Vec<LockLoop>,
    /// The loops whose requests are unanswered, in the order of the requests.
    unanswered: VecDeque<usize>,
    /// Whether the socket did not take all of the output.
    pub(super) is_stuck: bool,
}

impl AsFd for LoadConnection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl LoadConnection {
    /// Connects, and sends the protocol's hello if it has one.
    pub(super) fn connect(address: &Address) -> io::Result<Self> {
        let mut connection = Self {
            socket: address.connect()?,
            protocol: address.protocol,
            input: Vec::new(),
            output: Vec::new(),
            loops: Vec::new(),
            unanswered: VecDeque::new(),
            is_stuck: false,
        };
        let hello = address.protocol.hello();
        if !hello.is_empty() {
            connection.call(&hello, 1, |reply| address.protocol.accepts(reply))?;
        }
        Ok(connection)
    }

    /// Sends `requests` and reads `replies` replies, each of which `accept` must approve. Blocks.
    pub(super) fn call(
        &mut self,
        requests: &[u8],
        replies: usize,
        mut accept: impl FnMut(&[u8]) -> bool,
    ) -> io::Result<()> {
        self.socket.set_read_timeout(Some(REPLY_LIMIT))?;
        self.socket.write_all(requests)?;
        let mut scratch = vec![0; 64 << 10];
        let mut read = 0;
        while read < replies {
            let len = match self.socket.read(&mut scratch) {
                Ok(0) => return Err(ended(self.protocol, &self.input, ErrorKind::UnexpectedEof.into())),
                Ok(len) => len,
                Err(error) => return Err(ended(self.protocol, &self.input, error)),
            };
            self.input.extend_from_slice(&scratch[..len]);
            let mut at = 0;
            while let Some(reply) = self.protocol.reply(&self.input[at..]) {
                if !accept(reply.outcome) {
                    return Err(unexpected(self.protocol, reply.outcome));
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

    /// Appends a loop's next request to the output; [`flush`](Self::flush) sends it.
    pub(super) fn request(&mut self, at: usize, step: LoopStep, now: u64) {
        let lock_loop = &mut self.loops[at];
        lock_loop.step = step;
        lock_loop.requested_at = now;
        self.output.extend_from_slice(&lock_loop.request().bytes);
        self.unanswered.push_back(at);
    }

    /// Sends as much of the output as the socket takes. Returns whether that was all.
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

    /// Reads what has arrived, by way of `scratch`. Returns it with what [`keep`](Self::keep) has
    /// kept before it.
    pub(super) fn read(&mut self, scratch: &mut [u8]) -> io::Result<Vec<u8>> {
        let mut input = std::mem::take(&mut self.input);
        match self.socket.read(scratch) {
            Ok(0) => return Err(ended(self.protocol, &input, ErrorKind::UnexpectedEof.into())),
            Ok(len) => input.extend_from_slice(&scratch[..len]),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(ended(self.protocol, &input, error)),
        }
        Ok(input)
    }

    /// Keeps what follows the first `done` bytes, an incomplete reply, for the next
    /// [`read`](Self::read).
    pub(super) fn keep(&mut self, mut input: Vec<u8>, done: usize) {
        input.drain(..done);
        self.input = input;
    }

    /// Takes the loop that the next reply is for.
    pub(super) fn next_unanswered(&mut self) -> Option<usize> {
        self.unanswered.pop_front()
    }
}

/// The error for a reply that does not fit its request.
pub(super) fn unexpected(protocol: BenchProtocol, reply: &[u8]) -> io::Error {
    let shown = &reply[..reply.len().min(200)];
    let shown = || format!("unexpected reply: \"{}\"", shown.escape_ascii());
    io::Error::other(explain_reply(protocol, reply).unwrap_or_else(shown))
}

/// The error for a connection that has ended. The beginning of the server's reply says more than
/// `error`, if it is recognized.
fn ended(protocol: BenchProtocol, reply: &[u8], error: io::Error) -> io::Error {
    let is_end = error.kind() == ErrorKind::UnexpectedEof;
    let plain =
        || if is_end { io::Error::new(error.kind(), "the server has ended the connection") } else { error };
    explain_reply(protocol, reply).map_or_else(plain, io::Error::other)
}
