//! Reading from a connection, through its framing if it has one, and what follows for the sending
//! side: the peer's end is reported to the
//! [`ConnectionEnd`](crate::server::client_knows::ConnectionEnd), and control frames that the
//! framing has to send are sent.

use std::io;

use super::SendQueue;
use crate::os::sync::{Arc, Mutex, MutexGuard};
use crate::server::framing::Framing;
use crate::wire::websocket::Violation;

/// How many bytes are read at once where they are decoded.
const WIRE_BYTES: usize = 4096;
/// How many bytes are read at once where they are thrown away.
const DISCARD_BYTES: usize = 4096;
/// How many such reads there are in one call.
const DISCARD_READS_MAX: usize = 64;

impl SendQueue {
    /// Waits for bytes, decodes them and appends the result to `into`, which may be nothing yet.
    /// Returns 0 if the client will send no more. For the connection's own thread.
    pub(in crate::server) fn receive(self: &Arc<Self>, into: &mut Vec<u8>) -> io::Result<usize> {
        match &self.framing {
            None => {
                let read = self.stream.receive(into);
                if !matches!(read, Ok(1..)) {
                    self.note_read(&read);
                }
                read
            }
            Some(framing) => self.receive_encoded(framing, into),
        }
    }

    #[cold]
    #[inline(never)]
    fn receive_encoded(self: &Arc<Self>, framing: &Mutex<Framing>, into: &mut Vec<u8>) -> io::Result<usize> {
        let mut wire = Vec::with_capacity(WIRE_BYTES);
        let read = self.stream.receive(&mut wire);
        self.note_read(&read);
        let read = read?;
        let mut framing = framing.lock();
        if read == 0 || framing.peer_has_ended() {
            return Ok(0);
        }
        let decoded = framing.decode(&wire, into);
        self.have_decoded(framing, decoded).map(|()| read)
    }

    /// From now on the connection is in WebSocket. So is `early`, which has come already; its
    /// content is appended to `into`.
    pub(in crate::server) fn begin_websocket(
        self: &Arc<Self>,
        early: &[u8],
        into: &mut Vec<u8>,
    ) -> io::Result<()> {
        let Some(mut framing) = self.framing() else { return Ok(()) };
        self.state.lock().buffer.begin_messages();
        let decoded = framing.begin_websocket(early, into);
        self.have_decoded(framing, decoded)
    }

    /// Handles what decoding brought besides requests: the client's end, the ends of its messages,
    /// and control frames to send.
    fn have_decoded(
        self: &Arc<Self>,
        mut framing: MutexGuard<'_, Framing>,
        decoded: io::Result<()>,
    ) -> io::Result<()> {
        if decoded.is_ok() && framing.peer_has_ended() {
            self.note_goodbye();
            // Requests that came before the end are handled first. The next read then returns 0,
            // whatever the client does with the connection.
            self.end_input();
        }
        let has_control_frames = framing.control_pending();
        let message_ends = framing.message_ends();
        let mut state = self.state.lock();
        if has_control_frames {
            state.buffer.add_control_frames();
        }
        let ended = match state.buffer.messages() {
            Some((exchange, out)) => exchange.messages_ended(message_ends, out),
            None => Ok(()),
        };
        drop(state);
        drop(framing);
        decoded?;
        ended.map_err(|Violation(what)| io::Error::other(what))?;
        if has_control_frames {
            self.deliver();
        }
        Ok(())
    }

    /// Reads and drops what has come so far and will not be handled. The client's end may follow
    /// it; and if a socket is closed with unread input, the kernel resets the connection, so that
    /// its client may never see the last reply. What a client sends without end is read only in
    /// part. False if the client will send no more.
    #[cold]
    #[inline(never)]
    pub(in crate::server) fn discard_input(&self) -> bool {
        let mut bytes = [0; DISCARD_BYTES];
        for _ in 0..DISCARD_READS_MAX {
            let Some(read) = self.stream.receive_now(&mut bytes).transpose() else { return true };
            self.note_read(&read);
            if !matches!(read, Ok(1..)) {
                return false;
            }
        }
        true
    }

    /// Reports how a read ended: for every thread that reads.
    fn note_read(&self, read: &io::Result<usize>) {
        match read {
            Ok(0) => {
                let is_connected = self.stream.has_peer();
                let mut state = self.state.lock();
                let is_sole = !state.is_sending;
                state.end.note_end_of_stream(is_connected, is_sole);
            }
            Ok(_) => {}
            Err(error) => self.state.lock().end.note_error(error),
        }
    }
}
