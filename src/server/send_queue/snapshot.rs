//! A send queue as data, while no thread sends on it, and from it.

use std::sync::atomic::Ordering::Relaxed;

use super::buffer::SendBuffer;
use super::{SendQueue, SendState};
use crate::os::socket::Stream;
use crate::os::sync::{Arc, AtomicBool, Mutex, OnceLock};
use crate::server::client_knows::ConnectionEnd;
use crate::server::framing::Framing;
use crate::server::maintenance::Maintenance;
use crate::server::snapshot::types::{LossReason, SendBufferSnapshot, SendQueueSnapshot};

/// The parts of a send queue, without its socket.
struct SendQueueParts {
    state: SendState,
    framing: Option<Framing>,
    is_closing: bool,
}

impl SendQueue {
    /// Its state. If the connection cannot go on in another image, also why. What is to be sent is
    /// left out then, since it can never be sent.
    ///
    /// # Errors
    /// If a thread is sending.
    pub(in crate::server) fn snapshot(
        &self,
    ) -> Result<(SendQueueSnapshot, Option<LossReason>), &'static str> {
        let loss = self.framing.as_deref().and_then(|framing| framing.lock().loss_reason());
        let framing = self.framing.as_deref().and_then(|framing| framing.lock().snapshot());
        let state = self.state.lock();
        if state.is_sending {
            return Err("a thread is sending");
        }
        let buffer = if loss.is_some() { SendBufferSnapshot::default() } else { state.buffer.snapshot() };
        let snapshot = SendQueueSnapshot {
            buffer,
            framing,
            has_overflowed: state.has_overflowed,
            is_closed: state.is_closed,
            is_closing: self.is_closing.load(Relaxed),
            end: state.end.snapshot(),
        };
        Ok((snapshot, loss))
    }

    /// # Errors
    /// If the snapshot is not the state of a send queue of such a connection.
    pub(in crate::server) fn restore(
        stream: Stream,
        bytes_max: usize,
        maintenance: Arc<Maintenance>,
        snapshot: SendQueueSnapshot,
    ) -> Result<Self, &'static str> {
        if snapshot.end.is_local == stream.is_tcp() {
            return Err("it is local, or over a network, unlike its socket");
        }
        let SendQueueParts { state, framing, is_closing } = SendQueueParts::restore(snapshot)?;
        Ok(Self {
            stream,
            state: Mutex::new(state),
            is_closing: AtomicBool::new(is_closing),
            bytes_max,
            maintenance,
            framing: framing.map(|framing| Box::new(Mutex::new(framing))),
            waker: OnceLock::new(),
        })
    }

    /// Checks what needs no socket.
    ///
    /// # Errors
    /// As [`restore`](Self::restore).
    pub(in crate::server) fn check(snapshot: SendQueueSnapshot) -> Result<(), &'static str> {
        SendQueueParts::restore(snapshot).map(drop)
    }

    /// Goes on with what the threads of the former image would have done: what is unsent is sent,
    /// and if the connection was being closed, its thread is woken when that does no harm.
    pub(in crate::server) fn go_on(self: &Arc<Self>) {
        if self.is_closing.swap(false, Relaxed) {
            return self.close();
        }
        let state = self.state.lock();
        let has_unsent = !state.is_closed && !state.buffer.is_empty();
        drop(state);
        if has_unsent {
            self.maintenance.flush_later(self.clone());
        }
    }
}

impl SendQueueParts {
    fn restore(snapshot: SendQueueSnapshot) -> Result<Self, &'static str> {
        let SendQueueSnapshot { buffer, framing, has_overflowed, is_closed, is_closing, end } = snapshot;
        if buffer.exchange.is_some() != framing.is_some() || !buffer.wire.is_empty() && framing.is_none() {
            return Err("encoded bytes of a connection that encodes nothing");
        }
        let buffer = SendBuffer::restore(buffer)?;
        let framing = framing.map(Framing::restore).transpose()?;
        let end = ConnectionEnd::restore(end)?;
        let state = SendState { buffer, is_sending: false, has_overflowed, is_closed, end };
        Ok(Self { state, framing, is_closing })
    }
}
