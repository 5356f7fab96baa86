//! How a connection ends: closed by this end, or lost. It is declared lost in one place only, and
//! before the server can learn of the end. Once the server knows, it gives the locks away, and no
//! thread of this client may be told any more that it holds one.

use super::ServerConnection;
use super::state::{ConnectionState, Lost};
use crate::os::sync::MutexGuard;
use crate::wire::frame;

/// The request that says goodbye. It has no id, since nothing waits for its reply.
const BYE: &[u8] = br#"{"command":"bye"}"#;

impl ServerConnection {
    /// Ends the connection in an orderly way. Says goodbye, if the server takes that at once.
    pub(in crate::client) fn close(&self) {
        let mut state = self.state.lock();
        if state.knows_bye && state.lost.is_none() {
            let mut bye = Vec::new();
            frame::encode(&mut bye, |out| out.extend_from_slice(BYE));
            state.append(&bye);
        }
        self.end(&mut state);
    }

    /// Ends the connection without a goodbye, as if the process had ended.
    pub(in crate::client) fn abandon(&self) {
        self.end(&mut self.state.lock());
    }

    /// Ends a lost connection by a reset, which says nothing of the client; what has arrived is not
    /// read. (A Unix socket knows no reset: its peer sees the end of the stream.)
    pub(in crate::client) fn reset(&self) {
        let mut state = self.state.lock();
        debug_assert!(state.lost.is_some(), "only a connection that is not used any more is reset");
        if !state.is_shut && self.stream.is_intact() {
            self.stream.abort();
        }
        state.is_shut = true;
    }

    fn end(&self, state: &mut MutexGuard<'_, ConnectionState>) {
        if state.lost.is_some() {
            return self.shut(state);
        }
        let ConnectionState { tls, outgoing, .. } = &mut **state;
        if let Some(tls) = tls {
            tls.end(outgoing.posted());
        }
        // Before the goodbye is sent: see the top of this file.
        self.declare_lost(state, "it was closed".to_owned());
        state.is_closing = true;
        self.send(state);
    }

    /// Declares the connection lost and ends it, unless it is already lost.
    pub(in crate::client) fn fail(&self, reason: String) {
        self.lose(&mut self.state.lock(), reason);
    }

    pub(super) fn lose(&self, state: &mut ConnectionState, reason: String) {
        if state.lost.is_some() {
            return;
        }
        self.declare_lost(state, reason);
        if state.proof.is_some() {
            // See `keep_proof`.
        } else if !state.open_until_closed {
            self.shut(state);
        } else if self.stream.is_intact() {
            // This sends nothing to the server, and keeps the descriptor readable for callers that
            // poll it.
            self.stream.end_input();
        }
    }

    /// The only place where a connection becomes lost.
    fn declare_lost(&self, state: &mut ConnectionState, reason: String) {
        debug_assert!(state.lost.is_none(), "a connection is lost once, for one reason");
        state.lost = Some(Lost(reason));
        self.wake_reader(state);
        self.wake_all(state);
    }

    /// Ends both directions, which tells the server that nothing more will come.
    pub(super) fn shut(&self, state: &mut ConnectionState) {
        debug_assert!(state.lost.is_some(), "the server learns of the end after this side has declared it");
        if !state.is_shut && self.stream.is_intact() {
            self.stream.shutdown();
        }
        state.is_shut = true;
    }
}
