//! One attempt to connect a session again: connecting, the TLS handshake, the first request and its
//! answer, driven step by step without waiting. Decides nothing about the session.
//!
//! An attempt that is given up must not end its stream: if the server had accepted it, the end
//! would be the client's word that its work has ended. So it ends by a reset. A Unix socket knows
//! no reset; there the attempt stays open until the session's fate is known.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;
use serde_json::value::RawValue;
use socket2::{SockAddr, SockRef};

use super::machine::Opening;
use crate::client::connection::{ConnectionParts, REQUEST_MAX, ServerConnection};
use crate::client::dial::{ConnectOptions, refuse_self_connection, without_tls};
use crate::client::reply_reader::{ReplyReader, ServerMessage};
use crate::client::session::hello_request;
use crate::client::url::{Endpoint, Secret, ServerPlace, ServerUrl};
use crate::os::Keepalive;
use crate::os::boot_clock::BootTime;
use crate::os::socket::{PollFd, PollFlags, Stream, Waker, wait_for};
use crate::os::sync::Arc;
use crate::os::tls::{TlsInput, TlsSession, client_session};
use crate::wire::frame;
use crate::wire::message::{ResumeRequest, encode_request};

/// The id of the first request, which `hello` or `resume` is.
const FIRST_ID: u64 = 1;

/// How far an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Connecting,
    Securing,
    Asked,
}

pub(super) struct Reconnect {
    stream: Arc<Stream>,
    tls: Option<TlsSession>,
    /// Made at the beginning: for want of a descriptor the attempt fails here, and not after the
    /// server has accepted it.
    waker: Waker,
    stage: Stage,
    /// The first request, until it is sent.
    request: Vec<u8>,
    unsent: Vec<u8>,
    replies: ReplyReader,
    /// When the first request was sent.
    sent: Option<BootTime>,
    /// Whether it asks to resume, as opposed to `hello`.
    pub(super) resumes: bool,
    /// The file with the secret that it shows.
    pub(super) secret_file: Option<PathBuf>,
}

/// What has become of an attempt.
pub(super) enum ReconnectProgress {
    /// Nothing more can be done now.
    Pending,
    Stopped(Problem),
    Answered(Box<RawValue>),
}

/// Why an attempt cannot go on.
#[derive(Debug)]
pub(super) enum Problem {
    /// The next one may succeed.
    Failed(String),
    /// The server speaks another protocol.
    WrongProtocol(String),
    /// The session has too many locks for one request: it cannot be resumed at all.
    TooLong(String),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl Reconnect {
    /// Begins to connect.
    ///
    /// # Errors
    /// Why it cannot.
    pub(super) fn begin(
        url: &ServerUrl,
        place: &ServerPlace,
        address: &SockAddr,
        options: &ConnectOptions<'_>,
        keepalive: &Keepalive,
        opening: Opening,
    ) -> Result<Self, Problem> {
        let secret = url.secret().map_err(Problem::Failed)?;
        let resumes = matches!(opening, Opening::Resume { .. });
        let request = first_request(options, secret.as_ref(), opening)?;
        let tls = match (url.tls(), &place.endpoint) {
            (Some(files), Endpoint::Tcp { host, .. }) => {
                Some(client_session(files, host).map_err(Problem::Failed)?)
            }
            _ => None,
        };
        let (stream, waker) = begin_to_connect(address, keepalive)?;
        Ok(Self {
            stream: Arc::new(stream),
            tls,
            waker,
            stage: Stage::Connecting,
            request,
            unsent: Vec::new(),
            replies: ReplyReader::default(),
            sent: None,
            resumes,
            secret_file: secret.map(|secret| secret.file),
        })
    }

    /// The socket, which stays open while the caller has it.
    pub(super) fn stream(&self) -> &Arc<Stream> {
        &self.stream
    }

    /// How far it is.
    pub(super) fn stage(&self) -> Stage {
        self.stage
    }

    /// What the socket must be ready for until the next step.
    pub(super) fn waits_for(&self) -> PollFlags {
        match self.stage {
            Stage::Connecting => PollFlags::OUT,
            _ if self.unsent.is_empty() => PollFlags::IN,
            _ => PollFlags::IN | PollFlags::OUT,
        }
    }

    /// Goes on as far as it can without waiting.
    pub(super) fn step(&mut self) -> ReconnectProgress {
        match self.go_on() {
            Ok(None) => ReconnectProgress::Pending,
            Ok(Some(answer)) => ReconnectProgress::Answered(answer),
            Err(problem) => ReconnectProgress::Stopped(problem),
        }
    }

    fn go_on(&mut self) -> Result<Option<Box<RawValue>>, Problem> {
        if !self.stream.is_intact() {
            return Err(Problem::Failed("another part of this program has closed the descriptor".to_owned()));
        }
        if self.stage == Stage::Connecting {
            if !self.has_connected()? {
                return Ok(None);
            }
            self.stage = Stage::Securing;
        }
        loop {
            if self.stage == Stage::Securing && !self.tls.as_ref().is_some_and(TlsSession::is_handshaking) {
                self.ask();
            }
            self.flush()?;
            if let Some(answer) = self.receive()? {
                return Ok(answer);
            }
        }
    }

    fn has_connected(&self) -> Result<bool, Problem> {
        let mut fds = [PollFd::new(&*self.stream, PollFlags::OUT)];
        wait_for(&mut fds, Some(std::time::Duration::ZERO))?;
        if fds[0].revents().is_empty() {
            return Ok(false);
        }
        if let Some(error) = self.stream.take_error() {
            return Err(error.into());
        }
        if self.stream.is_tcp() {
            refuse_self_connection(&SockRef::from(&*self.stream))?;
        }
        Ok(true)
    }

    /// Makes the first request, now that the connection can carry it.
    fn ask(&mut self) {
        self.stage = Stage::Asked;
        // Before any of it is sent, so that the proof is never too late.
        self.sent = Some(BootTime::now());
        let request = std::mem::take(&mut self.request);
        match &mut self.tls {
            Some(tls) => tls.encode(&request, &mut self.unsent),
            None => self.unsent.extend(request),
        }
    }

    fn flush(&mut self) -> Result<(), Problem> {
        if let Some(tls) = &mut self.tls {
            tls.encode(&[], &mut self.unsent);
        }
        while !self.unsent.is_empty() {
            match self.stream.send_now(&self.unsent)? {
                Some(sent) => drop(self.unsent.drain(..sent)),
                None => break,
            }
        }
        Ok(())
    }

    /// Reads once. `None`: there may be more to do. `Some(None)`: nothing has come.
    fn receive(&mut self) -> Result<Option<Option<Box<RawValue>>>, Problem> {
        let mut chunk = [0; 4096];
        let Some(read) = self.stream.receive_now(&mut chunk)? else { return Ok(Some(None)) };
        if read == 0 {
            return Err(Problem::Failed("the server closed the connection".to_owned()));
        }
        let bytes = chunk.get(..read).unwrap_or_default();
        let (plain, has_ended) = self.decode(bytes)?;
        let answer = self.answer(&plain)?;
        match answer {
            None if has_ended => Err(Problem::Failed("the server closed the connection".to_owned())),
            answer => Ok(answer.map(Some)),
        }
    }

    fn decode(&mut self, bytes: &[u8]) -> Result<(Vec<u8>, bool), Problem> {
        let Some(tls) = &mut self.tls else { return Ok((bytes.to_owned(), false)) };
        let mut plain = Vec::new();
        match tls.decode(bytes, &mut plain) {
            Ok(input) => Ok((plain, input == TlsInput::End)),
            Err(error) => {
                // The alert that tells the server what is wrong.
                let _ = self.flush();
                Err(without_tls(bytes).unwrap_or(error).into())
            }
        }
    }

    /// The answer, if it has come with these bytes.
    fn answer(&mut self, plain: &[u8]) -> Result<Option<Box<RawValue>>, Problem> {
        let mut answer = None;
        self.replies.push(plain);
        let drained = self.replies.drain(|message| match message {
            ServerMessage::Reply(FIRST_ID, reply) => answer = Some(reply),
            ServerMessage::Error(text) => answer = Some(Err(text)),
            ServerMessage::Reply(..) | ServerMessage::Other => {}
        });
        drained.map_err(Problem::WrongProtocol)?;
        answer.transpose().map_err(|text| Problem::Failed(format!("the server reported an error: {text}")))
    }

    /// The connection that the attempt has made, and when its first request was sent.
    pub(super) fn into_connection(self) -> (ServerConnection, BootTime) {
        let Self { stream, tls, waker, replies, sent, .. } = self;
        let parts = ConnectionParts { stream, tls, waker, replies };
        // Without an answer nothing was sent, and the moment does not matter.
        (ServerConnection::of(parts, FIRST_ID + 1), sent.unwrap_or_else(BootTime::now))
    }

    /// Gives the attempt up. If it cannot be reset, it is returned, and must stay open.
    pub(super) fn give_up(self) -> Option<Self> {
        if self.stream.is_tcp() || self.sent.is_none() {
            if self.stream.is_intact() {
                self.stream.abort();
            }
            return None;
        }
        Some(self)
    }

    /// Ends its stream: the client's word that its work has ended.
    pub(super) fn end(mut self) {
        if let Some(tls) = &mut self.tls
            && !tls.is_handshaking()
        {
            tls.end(&mut self.unsent);
            // If the server takes nothing, it still learns of the end of the stream.
            let _ = self.flush();
        }
        if self.stream.is_intact() {
            self.stream.shutdown();
        }
    }
}

fn begin_to_connect(address: &SockAddr, keepalive: &Keepalive) -> io::Result<(Stream, Waker)> {
    let waker = Waker::new()?;
    let stream = Stream::connect(address.domain(), |socket| {
        socket.set_nonblocking(true)?;
        let begun = socket.connect(address);
        socket.set_nonblocking(false)?;
        match begun {
            Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => Ok(()),
            done => done,
        }
    })?;
    stream.set_nodelay()?;
    stream.set_keepalive(keepalive)?;
    Ok((stream, waker))
}

fn first_request(
    options: &ConnectOptions<'_>,
    secret: Option<&Secret>,
    opening: Opening,
) -> Result<Vec<u8>, Problem> {
    let hello = hello_request(options, secret, true);
    let (mut framed, mut written, mut length) = (Vec::new(), Ok(()), 0);
    frame::encode(&mut framed, |out| {
        let start = out.len();
        written = match opening {
            Opening::Hello => encode_request(out, FIRST_ID, "hello", &hello),
            Opening::Resume { terms, attempt, claims } => {
                let (grant, dead_peer_timeout) = (terms.grant, terms.dead_peer_timeout);
                let resume = ResumeRequest { hello, grant, dead_peer_timeout, attempt, claims };
                encode_request(out, FIRST_ID, "resume", &resume)
            }
        };
        length = out.len() - start;
    });
    // Cannot fail: the parameters are strings and numbers.
    written.map_err(|error| Problem::Failed(error.to_string()))?;
    if length > REQUEST_MAX {
        let reason = format!("it holds too many locks to be resumed: the request is {length} bytes long");
        return Err(Problem::TooLong(reason));
    }
    Ok(framed)
}
