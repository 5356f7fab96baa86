//! The state of a connection, under its lock: the requests that wait for replies, the bytes to be
//! sent, the bytes that have come, and which threads wait. Touches no socket.

use std::collections::HashMap;
use std::time::Duration;

use super::proof::Proof;
use crate::client::connect_error::ConnectErrorKind;
use crate::client::outgoing::Outgoing;
use crate::client::reply_reader::{ReplyReader, ServerMessage, ServerReply};
use crate::os::Keepalive;
use crate::os::boot_clock::BootTime;
use crate::os::socket::Waker;
use crate::os::sync::Arc;
use crate::os::tls::TlsSession;

/// The connection is lost, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lost(pub(in crate::client) String);

/// How a wait for replies ended.
#[derive(Debug)]
pub(in crate::client) enum ReplyWait {
    /// The request with this id was answered.
    Reply(u64, ServerReply),
    /// Another thread has taken the reply to one of the requests, or has forgotten the request.
    Forgotten,
    /// The wait was cancelled before the reply came. The caller must wait again, or forget the
    /// request.
    Cancelled,
    /// The deadline has passed.
    TimedOut,
    /// A signal handler ran. The caller must wait again, or forget the request.
    Interrupted,
}

/// The reply to a request that some thread waits for.
pub(super) enum ReplySlot {
    Awaited,
    Answered(ServerReply),
    Cancelled,
    /// No thread waits for it; only that it comes is of interest.
    Unheard,
}

/// A request whose reply is wanted.
pub(super) struct AwaitedReply {
    /// When it was sent, if the connection keeps a proof.
    pub(super) sent: Option<BootTime>,
    pub(super) slot: ReplySlot,
}

pub(super) struct ConnectionState {
    /// By the id of the request. A reply without a slot is dropped.
    pub(super) slots: HashMap<u64, AwaitedReply>,
    /// Of a session that may be resumed.
    pub(super) proof: Option<Proof>,
    pub(super) tls: Option<TlsSession>,
    pub(super) outgoing: Outgoing,
    pub(super) replies: ReplyReader,
    /// A thread is reading, or waiting for something to read.
    pub(super) has_reader: bool,
    /// The number of threads that sleep on the condition variable.
    pub(super) sleepers: usize,
    /// The wakers of threads that sleep in poll(2), so that a signal handler can end their sleep.
    pub(super) pollers: Vec<Arc<Waker>>,
    /// Wakers that no thread uses now.
    pub(super) spare_wakers: Vec<Arc<Waker>>,
    /// How long the server may be silent.
    pub(super) silence_max: Option<Duration>,
    /// The server's dead-peer timeout: how long it may take no bytes, and how long to wait for
    /// answers that have no time limit of their own.
    pub(super) answer_limit: Duration,
    /// Even if it is lost, the connection stays open at this end until it is
    /// [closed](super::ServerConnection::close).
    pub(super) open_until_closed: bool,
    /// The server knows the command `bye`.
    pub(super) knows_bye: bool,
    pub(super) lost: Option<Lost>,
    /// The kind of the loss. It is set before the loss if it is anything but the end of the stream.
    pub(super) loss_kind: ConnectErrorKind,
    /// The connection is lost because this end closes it. What was posted before, with the goodbye
    /// last, is still sent as far as the server takes it at once.
    pub(super) is_closing: bool,
    /// Nothing more is sent or received.
    pub(super) is_shut: bool,
}

impl ConnectionState {
    pub(super) fn new(tls: Option<TlsSession>) -> Self {
        Self {
            slots: HashMap::new(),
            proof: None,
            tls,
            outgoing: Outgoing::default(),
            replies: ReplyReader::default(),
            has_reader: false,
            sleepers: 0,
            pollers: Vec::new(),
            spare_wakers: Vec::new(),
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

    /// Appends a frame to what is to be sent.
    pub(super) fn append(&mut self, frame: &[u8]) {
        match &mut self.tls {
            Some(tls) => tls.encode(frame, self.outgoing.posted()),
            None => self.outgoing.posted().extend_from_slice(frame),
        }
    }

    /// Whether what was posted may still be sent.
    pub(super) fn may_send(&self) -> bool {
        self.lost.is_none() || self.is_closing && !self.is_shut
    }

    /// How the wait for these requests ends now, if it does.
    pub(super) fn take(&mut self, ids: &[u64]) -> Option<ReplyWait> {
        for &id in ids {
            match self.slots.get_mut(&id).map(|pending| &mut pending.slot) {
                Some(ReplySlot::Awaited) => {}
                None => return Some(ReplyWait::Forgotten),
                Some(slot) => match std::mem::replace(slot, ReplySlot::Awaited) {
                    ReplySlot::Answered(reply) => {
                        self.slots.remove(&id);
                        return Some(ReplyWait::Reply(id, reply));
                    }
                    _ => return Some(ReplyWait::Cancelled),
                },
            }
        }
        None
    }

    /// Hands out the replies in what has arrived. Returns whether there are replies to requests
    /// other than `own`.
    pub(super) fn accept(&mut self, bytes: &[u8], own: &[u64]) -> Result<bool, String> {
        let Self { slots, replies, proof, loss_kind, .. } = self;
        let mut for_others = false;
        let mut error = None;
        replies.push(bytes);
        let drained = replies.drain(|message| match message {
            ServerMessage::Reply(id, reply) => {
                let Some(pending) = slots.get_mut(&id) else { return };
                if let (Some(proof), Some(sent)) = (proof.as_mut(), pending.sent) {
                    proof.answered(id, sent);
                }
                if matches!(pending.slot, ReplySlot::Unheard) {
                    slots.remove(&id);
                } else {
                    pending.slot = ReplySlot::Answered(reply);
                    for_others |= !own.contains(&id);
                }
            }
            ServerMessage::Error(text) => error = Some(text),
            ServerMessage::Other => {}
        });
        drained.inspect_err(|_| *loss_kind = ConnectErrorKind::WrongProtocol)?;
        // It has no id: some request will never be answered, and nobody knows which.
        error.map_or(Ok(for_others), |text| Err(format!("the server reported an error: {text}")))
    }
}
