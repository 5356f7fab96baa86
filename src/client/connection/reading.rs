//! How the connection is read, and what shows that the server is gone.

use std::io;
use std::time::Duration;

use super::ServerConnection;
use super::proof::Proof;
use super::state::{ConnectionState, Lost};
use super::waiting::{CHECK_INTERVAL, at_most};
use crate::client::connect_error::ConnectErrorKind;
use crate::os::boot_clock::BootTime;
use crate::os::socket::{PollFd, PollFlags, wait_for};
use crate::os::sync::MutexGuard;
use crate::os::tls::TlsInput;

/// How much is read at once, in bytes.
const CHUNK: usize = 4096;

const CLOSED_BY_SERVER: &str = "the server closed the connection";

impl ServerConnection {
    /// Whether the connection is alive, as far as can be known without waiting. Also sends what
    /// could not be sent before, and reads what has come. It reads even while another thread is the
    /// reader: that thread may have been woken by the end of the connection, but not have run for a
    /// long time.
    pub(in crate::client) fn check(&self) -> Result<(), Lost> {
        let mut state = self.state.lock();
        self.ping_if_due(&mut state);
        self.send(&mut state);
        let mut has_read = false;
        while self.read_once(&mut state, &[]) {
            has_read = true;
        }
        self.lose_if_silent(&mut state);
        if has_read {
            // This may have read the reply that the reader waits for; it will not come again.
            self.wake_reader(&state);
        }
        state.lost.clone().map_or(Ok(()), Err)
    }

    /// Waits, with the state unlocked, until there is something to read, and reads it for all
    /// threads. Returns whether a signal handler ran instead.
    pub(super) fn read<'a>(
        &self,
        mut state: MutexGuard<'a, ConnectionState>,
        own: &[u64],
        limit: Option<Duration>,
    ) -> (MutexGuard<'a, ConnectionState>, bool) {
        state.has_reader = true;
        let is_sending = state.outgoing.has_unsent();
        let mut sleep_max = CHECK_INTERVAL;
        if let Some(at) = state.proof.as_ref().and_then(Proof::next_step_at) {
            sleep_max = sleep_max.min(BootTime::now().until(at));
        }
        let waited =
            MutexGuard::unlocked(&mut state, || self.wait_for_socket(is_sending, at_most(limit, sleep_max)));
        state.has_reader = false;
        match waited {
            Ok(()) => {
                self.ping_if_due(&mut state);
                self.send(&mut state);
                if !self.read_once(&mut state, own) {
                    self.lose_if_silent(&mut state);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return (state, true),
            Err(error) => self.lose(&mut state, format!("waiting for the server failed: {error}")),
        }
        (state, false)
    }

    /// Waits until there is something to read, and with `is_sending` also until the socket takes
    /// bytes.
    fn wait_for_socket(&self, is_sending: bool, limit: Duration) -> io::Result<()> {
        let ready_for = if is_sending { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        let mut fds = [PollFd::new(&*self.stream, ready_for), self.waker.poll_fd()];
        wait_for(&mut fds, Some(limit))?;
        if !fds[1].revents().is_empty() {
            self.waker.reset();
        }
        Ok(())
    }

    /// Reads once, without waiting, and hands out the replies. Wakes the other threads if there are
    /// replies to requests other than `own`. False if there was nothing to read, or the connection
    /// is lost.
    pub(super) fn read_once(&self, state: &mut ConnectionState, own: &[u64]) -> bool {
        if state.lost.is_some() {
            return false;
        }
        let mut chunk = [0; CHUNK];
        let problem = match self.intact_stream().and_then(|stream| stream.receive_now(&mut chunk)) {
            Ok(None) => return false,
            Ok(Some(0)) => CLOSED_BY_SERVER.to_owned(),
            Ok(Some(read)) => match decode(state, chunk.get(..read).unwrap_or_default(), own) {
                Ok(for_others) => {
                    if for_others {
                        self.wake_all(state);
                    }
                    return true;
                }
                Err(reason) => reason,
            },
            Err(error) => format!("reading from the server failed: {error}"),
        };
        self.lose(state, problem);
        false
    }

    /// Declares the connection lost if nothing was heard of the server for too long. The kernel may
    /// not have noticed that the server is gone: it does not count a keepalive probe that it could
    /// not even send.
    fn lose_if_silent(&self, state: &mut ConnectionState) {
        let (Some(max), None) = (state.silence_max, &state.lost) else { return };
        if self.stream.silence().is_some_and(|silence| silence > max) {
            return self.lose(state, format!("nothing was heard of the server for {} s", max.as_secs()));
        }
        // Nothing has come that could be read.
        let overdue_at = state.proof.as_ref().and_then(Proof::overdue_at);
        if overdue_at.is_some_and(|at| BootTime::now() >= at) {
            self.lose(state, "the server does not answer; it may be at another place".to_owned());
        }
    }
}

/// Hands out the replies in these bytes from the wire. Returns whether there are replies to
/// requests other than `own`.
fn decode(state: &mut ConnectionState, wire: &[u8], own: &[u64]) -> Result<bool, String> {
    let Some(tls) = &mut state.tls else { return state.accept(wire, own) };
    let mut plain = Vec::new();
    let decoded = tls.decode(wire, &mut plain).map_err(|error| {
        state.loss_kind = ConnectErrorKind::Tls;
        format!("reading from the server failed: {error}")
    })?;
    let for_others = state.accept(&plain, own)?;
    match decoded {
        TlsInput::More => Ok(for_others),
        TlsInput::End => Err(CLOSED_BY_SERVER.to_owned()),
    }
}
