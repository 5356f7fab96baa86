//! One client: sends what the script says, and believes the replies.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;

use lockd::broker::{LockName, Mode, Space};
use lockd::server::Protocol;
use lockd::server::fuzz_driver::Conversation;

use crate::Holder;
use crate::message::MessageReplies;
use crate::text::{GlockdReplies, LockdReplies};

/// The locks that a client believes to hold.
#[derive(Debug, Default)]
pub(crate) struct Belief {
    held: BTreeMap<(Space, LockName), Mode>,
    /// Set once two requests have had the same id, so that a reply may belong to either.
    pub(crate) is_uncertain: bool,
    shared_excludes: bool,
}

impl Belief {
    /// The space in which the text protocols have locks of this mode.
    pub(crate) fn space_of(&self, mode: Mode) -> Space {
        if mode == Mode::Exclusive || self.shared_excludes { Space::Main } else { Space::Counted }
    }

    pub(crate) fn holds(&self, space: Space, name: &LockName, mode: Mode) -> bool {
        self.held.get(&(space, name.clone())) == Some(&mode)
    }

    pub(crate) fn gain(&mut self, space: Space, name: LockName, mode: Mode) -> Option<Mode> {
        self.held.insert((space, name), mode)
    }

    pub(crate) fn lose(&mut self, space: Space, name: &LockName) -> Option<Mode> {
        self.held.remove(&(space, name.clone()))
    }

    pub(crate) fn assert(&self, holds: bool, what: &str) {
        assert!(holds || self.is_uncertain, "{what}; believed to be held: {:?}", self.held);
    }
}

/// How a client of one protocol reads replies.
trait Replies {
    /// Notes that the client has sent these bytes.
    fn sent(&mut self, bytes: &[u8], belief: &mut Belief);
    /// Reads the replies in `received`, and returns the number of bytes consumed.
    fn received(&mut self, received: &[u8], belief: &mut Belief) -> usize;
}

macro_rules! delegate {
    ($($replies:ty),*) => {$(
        impl Replies for $replies {
            fn sent(&mut self, bytes: &[u8], belief: &mut Belief) {
                self.sent(bytes, belief);
            }
            fn received(&mut self, received: &[u8], belief: &mut Belief) -> usize {
                self.received(received, belief)
            }
        }
    )*};
}
delegate!(LockdReplies, GlockdReplies, MessageReplies);

/// A client, and the server's side of its connection.
pub(crate) struct Client {
    protocol: Protocol,
    address: String,
    server: Option<Conversation>,
    stream: UnixStream,
    received: Vec<u8>,
    replies: Box<dyn Replies>,
    belief: Belief,
}

impl Client {
    pub(crate) fn new(
        protocol: Protocol,
        address: String,
        server: Conversation,
        stream: UnixStream,
        shared_excludes: bool,
    ) -> Self {
        stream.set_nonblocking(true).expect("a socket can be non-blocking");
        let replies: Box<dyn Replies> = match protocol {
            Protocol::Lockd => Box::new(LockdReplies::new()),
            Protocol::Glockd => Box::new(GlockdReplies),
            Protocol::Message => Box::new(MessageReplies::default()),
        };
        let belief = Belief { shared_excludes, ..Belief::default() };
        Self { protocol, address, server: Some(server), stream, received: Vec::new(), replies, belief }
    }

    pub(crate) fn protocol(&self) -> Protocol {
        self.protocol
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn is_certain(&self) -> bool {
        !self.belief.is_uncertain
    }

    pub(crate) fn holds(&self) -> impl Iterator<Item = Holder> {
        let held = self.belief.held.iter();
        held.map(|((space, name), mode)| (*space, name.clone(), self.address.clone(), *mode))
    }

    /// The number of bytes that it has sent and the server has not handled.
    pub(crate) fn unhandled(&self) -> usize {
        self.server.as_ref().map_or(0, Conversation::unhandled)
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        if let Some(server) = &mut self.server {
            self.replies.sent(bytes, &mut self.belief);
            server.receive(bytes);
        }
    }

    pub(crate) fn proceed(&mut self) {
        if let Some(server) = &mut self.server {
            server.proceed();
        }
    }

    /// Whether a wait has ended and requests after it are to be handled.
    pub(crate) fn can_go_on(&self) -> bool {
        self.server.as_ref().is_some_and(Conversation::can_go_on)
    }

    /// Whether the server has closed the connection.
    pub(crate) fn is_disconnected(&self) -> bool {
        self.server.as_ref().is_some_and(|server| !server.is_open())
    }

    /// Ends the connection, and with it all locks.
    pub(crate) fn disconnect(&mut self) {
        if let Some(server) = self.server.take() {
            assert!(!server.has_failed(), "the broker has failed");
        }
        self.belief.held.clear();
        self.received.clear();
    }

    /// Reads all replies that have arrived.
    pub(crate) fn receive(&mut self) {
        if self.server.is_none() {
            return;
        }
        let mut chunk = [0; 16 << 10];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => self.received.extend_from_slice(&chunk[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("reading from the server has failed: {error}"),
            }
        }
        let done = self.replies.received(&self.received, &mut self.belief);
        self.received.drain(..done);
    }
}
