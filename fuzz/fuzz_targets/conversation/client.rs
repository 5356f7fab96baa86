//! One client: says what it is told to, and believes the replies.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::os::unix::net::UnixStream;

use lockd::broker::{LockName, Mode, Space};
use lockd::server::Protocol;
use lockd::server::fuzz_driver::Conversation;

use crate::Holder;
use crate::message::MessageReplies;
use crate::text::{GlockdReplies, LockdReplies};

/// What a client believes to hold.
#[derive(Debug, Default)]
pub(crate) struct Belief {
    held: BTreeMap<(Space, LockName), Mode>,
    /// Set once replies cannot be told apart, because two requests have the same id.
    pub(crate) is_uncertain: bool,
    shared_excludes: bool,
}

impl Belief {
    /// Where the text protocols have their shared locks.
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

/// What a client makes of what it is told.
trait Replies {
    /// The client has said this.
    fn said(&mut self, bytes: &[u8], belief: &mut Belief);
    /// How many bytes of `received` have been understood.
    fn hear(&mut self, received: &[u8], belief: &mut Belief) -> usize;
}

macro_rules! delegate {
    ($($replies:ty),*) => {$(
        impl Replies for $replies {
            fn said(&mut self, bytes: &[u8], belief: &mut Belief) {
                self.said(bytes, belief);
            }
            fn hear(&mut self, received: &[u8], belief: &mut Belief) -> usize {
                self.hear(received, belief)
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
        stream.set_nonblocking(true).expect("a socket can be");
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

    /// How much of what it said waits to be handled.
    pub(crate) fn unhandled(&self) -> usize {
        self.server.as_ref().map_or(0, Conversation::unhandled)
    }

    pub(crate) fn say(&mut self, bytes: &[u8]) {
        if let Some(server) = &mut self.server {
            self.replies.said(bytes, &mut self.belief);
            server.receive(bytes);
        }
    }

    pub(crate) fn proceed(&mut self) {
        if let Some(server) = &mut self.server {
            server.proceed();
        }
    }

    /// Whether a wait has ended behind which there is something to be handled.
    pub(crate) fn can_go_on(&self) -> bool {
        self.server.as_ref().is_some_and(Conversation::can_go_on)
    }

    /// Whether the server has hung up.
    pub(crate) fn is_cut_off(&self) -> bool {
        self.server.as_ref().is_some_and(|server| !server.is_open())
    }

    /// The connection ends, and with it all there was.
    pub(crate) fn hang_up(&mut self) {
        if let Some(server) = self.server.take() {
            assert!(!server.has_failed(), "the broker has failed");
        }
        self.belief.held.clear();
        self.received.clear();
    }

    /// Takes note of everything that has come.
    pub(crate) fn listen(&mut self) {
        if self.server.is_none() {
            return;
        }
        let mut chunk = [0; 16 << 10];
        loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => self.received.extend_from_slice(&chunk[..read]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("a client cannot read: {error}"),
            }
        }
        let done = self.replies.hear(&self.received, &mut self.belief);
        self.received.drain(..done);
    }
}
