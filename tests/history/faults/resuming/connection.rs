//! One connection of a client that resumes: messages go out with the time at which each was sent,
//! and come in without ever being waited for longer than the caller says. Decides nothing.
//!
//! Over loopback no kernel ever gives a connection up. Where a real one would, because of silence,
//! the proxy resets the connection. So no keepalive is set here.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::faults::log::now;
use crate::history::Nanos;

/// How long connecting may take: the server listens, or it does not.
const CONNECT_LIMIT: Duration = Duration::from_millis(500);

/// What has come on a connection.
pub(super) enum Incoming {
    /// The answer to a request, by its id.
    Answer(u64, Value),
    /// Nothing more will come.
    End,
    /// Nothing until now.
    Nothing,
}

pub(super) struct Connection {
    socket: Socket,
    /// Before it was made.
    pub(super) since: Nanos,
    input: Vec<u8>,
    answers: VecDeque<(u64, Value)>,
    has_ended: bool,
    next_id: u64,
    /// The requests that are not answered, and when each was sent, by the client's clock.
    sent: Vec<(u64, Nanos)>,
    /// When the latest of all answered requests was sent, by the client's clock.
    pub(super) proof: Nanos,
    /// Before it was last looked at and had not ended.
    pub(super) stood_at: Nanos,
}

impl Connection {
    pub(super) fn open(address: &str) -> io::Result<Self> {
        let since = now();
        let (domain, address) = match address.parse::<SocketAddr>() {
            Ok(address) => (Domain::for_address(address), SockAddr::from(address)),
            Err(_) => (Domain::UNIX, SockAddr::unix(address)?),
        };
        let socket = Socket::new(domain, Type::STREAM, None)?;
        if domain == Domain::UNIX {
            socket.connect(&address)?;
        } else {
            socket.connect_timeout(&address, CONNECT_LIMIT)?;
            socket.set_tcp_nodelay(true)?;
        }
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            since,
            input: Vec::new(),
            answers: VecDeque::new(),
            has_ended: false,
            next_id: 0,
            sent: Vec::new(),
            proof: 0,
            stood_at: since,
        })
    }

    /// Sends a request at `at` by the client's clock, and returns its id. If the connection has
    /// ended, the next look at it says so.
    pub(super) fn send(&mut self, command: &str, parameters: &Value, at: Nanos) -> u64 {
        self.next_id += 1;
        let id = self.next_id;
        let body = json!({"command": command, "parameters": parameters, "id": id}).to_string();
        let length = u32::try_from(body.len()).unwrap().to_be_bytes();
        self.sent.push((id, at));
        let mut rest = &[&length[..], body.as_bytes()].concat()[..];
        while !rest.is_empty() {
            match self.socket.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.wait(PollFlags::OUT, now() + 1_000_000)
                }
                // What was sent before may still be answered.
                Err(_) => break,
            }
        }
        id
    }

    /// Reads all that has come by now. True if the connection stands.
    pub(super) fn read_up_to_now(&mut self) -> bool {
        let before = now();
        let mut bytes = [0; 4096];
        while !self.has_ended {
            match self.socket.read(&mut bytes) {
                Ok(0) => self.has_ended = true,
                Ok(count) => self.input.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.stood_at = before;
                    break;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.has_ended = true,
            }
        }
        self.decode();
        !self.has_ended
    }

    fn decode(&mut self) {
        while let Some(length) = self.input.first_chunk().map(|length| u32::from_be_bytes(*length) as usize)
            && self.input.len() >= 4 + length
        {
            let mut message: Value =
                serde_json::from_slice(&self.input[4..4 + length]).expect("a server sends JSON");
            self.input.drain(..4 + length);
            // A message without an id says why the server ends the connection.
            let Some(id) = message["id"].as_u64() else { continue };
            if let Some(at) = self.sent.iter().position(|(sent, _)| *sent == id) {
                self.proof = self.proof.max(self.sent.swap_remove(at).1);
            }
            self.answers.push_back((id, message["result"].take()));
        }
    }

    /// The next answer; waits for it until `until`.
    pub(super) fn receive(&mut self, until: Nanos) -> Incoming {
        loop {
            if let Some((id, answer)) = self.answers.pop_front() {
                return Incoming::Answer(id, answer);
            }
            // Looked at before the clock: this process may have been stopped.
            let stands = self.read_up_to_now();
            match self.answers.is_empty() {
                false => {}
                true if !stands => return Incoming::End,
                true if now() >= until => return Incoming::Nothing,
                true => self.wait(PollFlags::IN, until),
            }
        }
    }

    pub(super) fn wait(&self, events: PollFlags, until: Nanos) {
        let left = Duration::from_nanos(until.saturating_sub(now()));
        let left = Timespec::try_from(left).expect("a short time");
        // Interrupted or not, the caller looks again.
        let _ = poll(&mut [PollFd::from_borrowed_fd(self.socket.as_fd(), events)], Some(&left));
    }

    /// Whether a request is not answered that was sent at `at` or later.
    pub(super) fn awaits(&self, at: Nanos) -> bool {
        self.sent.iter().any(|(_, sent)| *sent >= at)
    }

    /// Closes the connection by a reset: that is no word of the client's.
    pub(super) fn reset(self) {
        // Fails only if the connection has been reset already.
        let _ = self.socket.set_linger(Some(Duration::ZERO));
    }

    /// Ends the stream: the client's word that it has ended.
    pub(super) fn end_stream(&self) {
        // Fails only if the connection has ended already.
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    pub(super) fn into_socket(self) -> Socket {
        self.socket.set_nonblocking(false).unwrap();
        self.socket
    }
}
