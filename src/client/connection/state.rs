//! What is known of a connection: the requests that wait for their replies, what is to be sent and what has come,
//! and who reads. Pure bookkeeping under the connection's lock: touches no socket.

use std::collections::HashMap;
use std::time::Duration;

use super::{Lost, Waited};
use crate::client::connect_error::ConnectErrorKind;
use crate::client::input::{Input, Message, Reply};
use crate::client::output::Output;
use crate::os::Keepalive;
use crate::os::socket::Waker;
use crate::os::sync::Arc;
use crate::os::tls::TlsSession;

/// A request whose reply somebody is to hear.
pub(super) enum Slot {
    Awaited,
    Answered(Reply),
    Cancelled,
}

pub(super) struct State {
    /// By the id of the request. A reply that has no slot is dropped.
    pub(super) slots: HashMap<u64, Slot>,
    /// What makes of the bytes what goes over the wire, if anything does.
    pub(super) tls: Option<TlsSession>,
    pub(super) output: Output,
    pub(super) input: Input,
    /// A thread is reading, or waiting for something to read.
    pub(super) has_reader: bool,
    /// How many threads rely on it, and sleep until there is a change.
    pub(super) sleepers: usize,
    /// Those of the others that a signal handler must be able to wake too, which takes poll(2).
    pub(super) pollers: Vec<Arc<Waker>>,
    /// Wakers that nobody polls now.
    pub(super) spare_wakers: Vec<Arc<Waker>>,
    /// What the server said of a message it could not read. If it hangs up then, this was why.
    pub(super) complaint: Option<String>,
    /// How long the server may be silent.
    pub(super) silence_max: Option<Duration>,
    /// The server's dead-peer timeout: how long it may take no bytes, and how long to wait for answers that
    /// have no time limit of their own.
    pub(super) answer_limit: Duration,
    /// A connection that is lost stays open at this end until it is [closed](super::Connection::close).
    pub(super) open_until_closed: bool,
    /// The server knows the command `bye`.
    pub(super) knows_bye: bool,
    pub(super) lost: Option<Lost>,
    /// What the loss comes from, noted before it: an end of the stream, unless it is known better.
    pub(super) loss_kind: ConnectErrorKind,
    /// It is lost because this end closes it. What was posted before, a goodbye in the end, is still sent, as far as
    /// the server takes it at once.
    pub(super) is_closing: bool,
    /// Nothing more goes over the socket, in either direction.
    pub(super) is_shut: bool,
}

impl State {
    pub(super) fn new(tls: Option<TlsSession>) -> Self {
        Self {
            slots: HashMap::new(),
            tls,
            output: Output::default(),
            input: Input::default(),
            has_reader: false,
            sleepers: 0,
            pollers: Vec::new(),
            spare_wakers: Vec::new(),
            complaint: None,
            silence_max: None,
            answer_limit: Keepalive::DEAD_PEER_TIMEOUT,
            open_until_closed: false,
            knows_bye: false,
            lost: None,
            loss_kind: ConnectErrorKind::Closed,
            is_closing: false,
            is_shut: false,
        }
    }

    /// Appends to what is to be sent.
    pub(super) fn put(&mut self, frame: &[u8]) {
        match &mut self.tls {
            Some(tls) => tls.encode(frame, self.output.posted()),
            None => self.output.posted().extend_from_slice(frame),
        }
    }

    /// Whether what was posted may still be sent.
    pub(super) fn may_send(&self) -> bool {
        self.lost.is_none() || self.is_closing && !self.is_shut
    }

    /// Why the server has closed the connection.
    pub(super) fn take_complaint(&mut self) -> String {
        let closed = "the server closed the connection";
        self.complaint.take().map_or_else(|| closed.to_owned(), |text| format!("{closed}: {text}"))
    }

    pub(super) fn take(&mut self, ids: &[u64]) -> Option<Waited> {
        for &id in ids {
            match self.slots.get_mut(&id) {
                Some(Slot::Awaited) => {}
                None => return Some(Waited::Forgotten),
                Some(slot) => match std::mem::replace(slot, Slot::Awaited) {
                    Slot::Answered(reply) => {
                        self.slots.remove(&id);
                        return Some(Waited::Reply(id, reply));
                    }
                    _ => return Some(Waited::Cancelled),
                },
            }
        }
        None
    }

    /// Hands out the replies in what has arrived. Returns whether some are for others than `own`.
    pub(super) fn accept(&mut self, bytes: &[u8], own: &[u64]) -> Result<bool, String> {
        let Self { slots, input, complaint, loss_kind, .. } = self;
        let mut for_others = false;
        input.push(bytes);
        let drained = input.drain(|message| match message {
            Message::Reply(id, reply) => {
                if let Some(slot) = slots.get_mut(&id) {
                    *slot = Slot::Answered(reply);
                    for_others |= !own.contains(&id);
                }
            }
            Message::Complaint(text) => *complaint = Some(text),
            Message::Other => {}
        });
        drained.inspect_err(|_| *loss_kind = ConnectErrorKind::WrongProtocol)?;
        Ok(for_others)
    }
}
