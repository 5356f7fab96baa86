//! One connection to a server, shared by the threads of a client, with no thread of its own: the caller
//! that waits reads the socket, and when several wait, one of them reads for all. Carries requests and
//! replies; knows no command.
//!
//! A request is *posted* (it has its place in the order on the wire, decided under the state's lock) and
//! then *flushed*: sent as far as the server takes it now. Nothing here waits for a server to take bytes: what
//! is left goes out when the thread that reads finds room, or with what is flushed next. Whatever goes wrong
//! with the stream, the connection is lost: once, for good, and everybody is told the same reason.
//!
//! The socket may be used only as long as its descriptor is [intact](Stream::is_intact), which is asked each
//! time: a program may close all its descriptors, and then what would be read is a stranger's.

mod state;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::connect_error::ConnectErrorKind;
use super::input::Reply;
use crate::os::socket::{PollFd, PollFlags, Stream, Waker, wait_for};
use crate::os::sync::{Arc, AtomicU64, Condvar, Mutex, MutexGuard, Ordering};
use crate::os::tls::{Decoded, TlsSession};
use crate::wire::frame;
use crate::wire::message::{Keepalive, encode_request};
use state::{Slot, State};

/// How often a thread that waits looks by itself how the connection is: nobody tells it of a descriptor that
/// was closed under it, and the kernel may not tell that the server is gone.
const LOOK_UP: Duration = Duration::from_secs(5);

/// The same for a thread that cannot be woken, since no descriptors are left for that.
const LOOK_UP_UNWOKEN: Duration = Duration::from_millis(50);

/// The request that says goodbye. It has no id: nobody is there to read a reply.
const BYE: &[u8] = br#"{"command":"bye"}"#;

/// How much is read at once, in bytes.
const CHUNK: usize = 4096;

/// The connection is lost, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Lost(pub(super) String);

/// A request as it goes over the wire.
pub(super) struct Request {
    pub(super) id: u64,
    frame: Vec<u8>,
}

/// What a signal handler that ran in a thread means to its wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Signals {
    /// Nothing.
    Ignored,
    /// The wait is over.
    Interrupt,
}

/// How a wait for replies ended.
#[derive(Debug)]
pub(super) enum Waited {
    /// One of the requests was answered.
    Reply(u64, Reply),
    /// Somebody else took the reply to one of them, or said that none is wanted any more.
    Forgotten,
    /// [`Connection::cancel`] came before the reply, which is to be waited for again, or forgotten.
    Cancelled,
    /// The deadline came first.
    TimedOut,
    /// A signal handler ran. The reply is to be waited for again, or forgotten.
    Interrupted,
}

pub(super) struct Connection {
    stream: Stream,
    /// Wakes the thread that reads, when it is to look at the state again.
    waker: Waker,
    ids: AtomicU64,
    state: Mutex<State>,
    /// For those who sleep: replies have come, the connection is lost, or a reader is needed.
    changed: Condvar,
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// The server is told even if another process has the socket, too: a child that was made past the fork handlers.
impl Drop for Connection {
    fn drop(&mut self) {
        if std::thread::panicking() { self.abandon() } else { self.close() }
    }
}

impl Connection {
    pub(super) fn new(stream: Stream, tls: Option<TlsSession>) -> io::Result<Self> {
        Ok(Self {
            stream,
            waker: Waker::new()?,
            ids: AtomicU64::new(1),
            state: Mutex::new(State::new(tls)),
            changed: Condvar::new(),
        })
    }

    pub(super) fn set_keepalive(&self, keepalive: &Keepalive) -> io::Result<()> {
        let mut state = self.state.lock();
        state.silence_max = Some(keepalive.silence_max());
        state.answer_limit = keepalive.dead_peer_timeout;
        drop(state);
        self.stream.set_keepalive(keepalive)
    }

    /// What the loss of the connection comes from, once it is lost.
    pub(super) fn loss_kind(&self) -> ConnectErrorKind {
        self.state.lock().loss_kind
    }

    /// How long to wait for an answer that has no time limit of its own.
    pub(super) fn answer_limit(&self) -> Duration {
        self.state.lock().answer_limit
    }

    /// From now on the connection is open at this end until it is [closed](Self::close), also once it is
    /// lost: the server, which has been told so, takes that for the word that the client's work has ended.
    pub(super) fn stay_open_until_closed(&self) {
        self.state.lock().open_until_closed = true;
    }

    /// The server knows the command `bye`: it is told so when the connection is [closed](Self::close).
    pub(super) fn say_bye_when_closed(&self) {
        self.state.lock().knows_bye = true;
    }

    /// Makes a request of at most `max` bytes, to be posted.
    ///
    /// # Errors
    /// Why it cannot be sent: the parameters are no JSON, or too much of it.
    pub(super) fn request(
        &self,
        command: &str,
        parameters: &(impl Serialize + ?Sized),
        max: usize,
    ) -> Result<Request, String> {
        let id = self.ids.fetch_add(1, Ordering::Relaxed);
        let (mut frame, mut written, mut length) = (Vec::new(), Ok(()), 0);
        frame::encode(&mut frame, |out| {
            let start = out.len();
            written = encode_request(out, id, command, parameters);
            length = out.len() - start;
        });
        written.map_err(|error| format!("the parameters cannot be written as JSON: {error}"))?;
        if length > max {
            return Err(format!("the request is {length} bytes long, more than {max}"));
        }
        Ok(Request { id, frame })
    }

    /// Gives the requests their places in the order on the wire. Somebody is to [wait](Self::wait) for the
    /// replies, or [forget](Self::forget) them.
    pub(super) fn post(&self, requests: &[&Request]) -> Result<(), Lost> {
        self.append(requests, true)
    }

    /// The same, for requests whose replies nobody is to hear.
    pub(super) fn post_unheard(&self, requests: &[&Request]) -> Result<(), Lost> {
        self.append(requests, false)
    }

    fn append(&self, requests: &[&Request], heard: bool) -> Result<(), Lost> {
        let mut state = self.state.lock();
        if let Some(lost) = &state.lost {
            return Err(lost.clone());
        }
        for request in requests {
            state.put(&request.frame);
            if heard {
                state.slots.insert(request.id, Slot::Awaited);
            }
        }
        Ok(())
    }

    /// Sends what was posted, as much of it as the server takes now. If that fails the connection is lost,
    /// which whoever waits for a reply is told.
    pub(super) fn flush(&self) {
        self.send(&mut self.state.lock());
    }

    /// The same; a thread that is sending already sends this too, and ends the connection if it is closing.
    fn send(&self, state: &mut MutexGuard<'_, State>) {
        while state.may_send()
            && let Some(chunk) = state.output.begin()
        {
            let sent = MutexGuard::unlocked(state, || self.intact().and_then(|s| s.send_now(chunk.unsent())));
            let taken = sent.as_ref().map_or(0, |taken| taken.unwrap_or(0));
            let stuck_for = state.output.end(chunk, taken, Instant::now());
            match sent {
                Ok(Some(_)) => {}
                // The end of the connection must do for a goodbye.
                Ok(None) | Err(_) if state.is_closing => break,
                Ok(None) if stuck_for > state.answer_limit => {
                    let limit = state.answer_limit.as_secs();
                    self.lose(state, format!("the server has taken nothing for {limit} s"));
                }
                Ok(None) => {
                    // The thread that reads is to look for room as well.
                    self.wake_reader(state);
                    return;
                }
                Err(error) => {
                    // What the server said before it hung up is the better reason.
                    while self.absorb(state, &[]) {}
                    self.lose(state, format!("writing to the server failed: {error}"));
                }
            }
        }
        if state.is_closing && !state.output.is_being_sent() {
            self.shut(state);
        }
    }

    /// The socket, if it is still what its descriptor stands for.
    fn intact(&self) -> io::Result<&Stream> {
        let robbed =
            || io::Error::other("another part of this program has closed the connection's descriptor");
        if self.stream.is_intact() { Ok(&self.stream) } else { Err(robbed()) }
    }

    /// Waits until the first of these requests is answered, or the deadline. Of several replies that are
    /// there it takes the one that stands first in `ids`.
    pub(super) fn wait(
        &self,
        ids: &[u64],
        deadline: Option<Instant>,
        signals: Signals,
    ) -> Result<Waited, Lost> {
        let mut state = self.state.lock();
        let mut interrupted = false;
        let waited = loop {
            if let Some(waited) = state.take(ids) {
                break Ok(waited);
            }
            if let Some(lost) = &state.lost {
                break Err(lost.clone());
            }
            if interrupted && signals == Signals::Interrupt {
                break Ok(Waited::Interrupted);
            }
            let rest = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if rest == Some(Duration::ZERO) {
                break Ok(Waited::TimedOut);
            }
            (state, interrupted) = match (state.has_reader, signals) {
                (false, _) => self.read(state, ids, rest),
                (true, Signals::Ignored) => (self.sleep(state, rest), false),
                (true, Signals::Interrupt) => self.doze(state, rest),
            };
        };
        if !state.has_reader {
            // Of those who still wait, if any, one must read now.
            self.wake_one(&state);
        }
        waited
    }

    /// Sleeps until there is a change.
    fn sleep<'a>(&self, mut state: MutexGuard<'a, State>, limit: Option<Duration>) -> MutexGuard<'a, State> {
        state.sleepers += 1;
        let mut state = match limit {
            Some(limit) => self.changed.wait_timeout(state, limit).0,
            None => self.changed.wait(state),
        };
        state.sleepers -= 1;
        state
    }

    /// The same, but a signal handler wakes too; returns whether one has.
    fn doze<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        limit: Option<Duration>,
    ) -> (MutexGuard<'a, State>, bool) {
        let spare = state.spare_wakers.pop().map_or_else(|| Waker::new().map(Arc::new), Ok);
        let Ok(waker) = spare else {
            return (self.sleep(state, Some(at_most(limit, LOOK_UP_UNWOKEN))), false);
        };
        state.pollers.push(waker.clone());
        let woken = MutexGuard::unlocked(&mut state, || {
            wait_for(&mut [waker.poll_fd()], Some(at_most(limit, LOOK_UP)))
        });
        state.pollers.retain(|other| !Arc::ptr_eq(other, &waker));
        waker.reset();
        state.spare_wakers.push(waker);
        (state, woken.is_err_and(|error| error.kind() == io::ErrorKind::Interrupted))
    }

    fn wake_one(&self, state: &State) {
        match state.pollers.first() {
            Some(waker) => waker.wake(),
            None if state.sleepers > 0 => self.changed.notify_one(),
            None => {}
        }
    }

    fn wake_all(&self, state: &State) {
        state.pollers.iter().for_each(|waker| waker.wake());
        if state.sleepers > 0 {
            self.changed.notify_all();
        }
    }

    fn wake_reader(&self, state: &State) {
        if state.has_reader {
            self.waker.wake();
        }
    }

    /// Whether the connection stands, as far as can be known without waiting. Reads what has come, also while
    /// another thread reads: that one may have been about to read of the end for long. Sends what could not
    /// be sent before.
    pub(super) fn check(&self) -> Result<(), Lost> {
        let mut state = self.state.lock();
        self.send(&mut state);
        let mut has_read = false;
        while self.absorb(&mut state, &[]) {
            has_read = true;
        }
        self.lose_if_silent(&mut state);
        if has_read {
            // What it waits for may have been read just now, and will not come again.
            self.wake_reader(&state);
        }
        state.lost.clone().map_or(Ok(()), Err)
    }

    /// The reply to this request is wanted no more; whoever waits for it is told so.
    pub(super) fn forget(&self, id: u64) {
        let mut state = self.state.lock();
        state.slots.remove(&id);
        self.wake_reader(&state);
        self.wake_all(&state);
    }

    /// Whether a reply is wanted and has not come yet.
    pub(super) fn is_unanswered(&self, id: u64) -> bool {
        matches!(self.state.lock().slots.get(&id), Some(Slot::Awaited))
    }

    /// Ends the wait for every reply that has not come yet with [`Waited::Cancelled`].
    pub(super) fn cancel(&self) {
        let mut state = self.state.lock();
        for slot in state.slots.values_mut() {
            if matches!(slot, Slot::Awaited) {
                *slot = Slot::Cancelled;
            }
        }
        self.wake_reader(&state);
        self.wake_all(&state);
    }

    /// Ends the connection in an orderly way, because nobody here needs it any more: says goodbye, if the server
    /// takes that at once.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        if state.knows_bye && state.lost.is_none() {
            let mut bye = Vec::new();
            frame::encode(&mut bye, |out| out.extend_from_slice(BYE));
            state.put(&bye);
        }
        self.end(&mut state);
    }

    /// Ends the connection without a goodbye, as if the process had ended.
    pub(super) fn abandon(&self) {
        self.end(&mut self.state.lock());
    }

    fn end(&self, state: &mut MutexGuard<'_, State>) {
        if state.lost.is_some() {
            return self.shut(state);
        }
        let State { tls, output, .. } = &mut **state;
        if let Some(tls) = tls {
            tls.end(output.posted());
        }
        // First of all: by a goodbye the server gives the locks away, and no thread may be told yes after that.
        self.declare_lost(state, "it was closed".to_owned());
        state.is_closing = true;
        self.send(state);
    }

    /// Declares the connection lost and ends it, unless it is lost already.
    pub(super) fn fail(&self, reason: String) {
        self.lose(&mut self.state.lock(), reason);
    }

    fn lose(&self, state: &mut State, reason: String) {
        if state.lost.is_some() {
            return;
        }
        self.declare_lost(state, reason);
        if !state.open_until_closed {
            self.shut(state);
        } else if self.stream.is_intact() {
            // Tells the server nothing. The descriptor stays readable, for those who poll it.
            self.stream.end_input();
        }
    }

    /// The only place where a connection is lost.
    fn declare_lost(&self, state: &mut State, reason: String) {
        state.lost = Some(Lost(reason));
        self.wake_reader(state);
        self.wake_all(state);
    }

    /// Ends both directions: the server is told that nothing more will come.
    fn shut(&self, state: &mut State) {
        if !state.is_shut && self.stream.is_intact() {
            self.stream.shutdown();
        }
        state.is_shut = true;
    }

    /// The kernel may not have noticed that the server is gone: it takes a probe that it could not even send
    /// for none at all.
    fn lose_if_silent(&self, state: &mut State) {
        let (Some(max), None) = (state.silence_max, &state.lost) else { return };
        if self.stream.silence().is_some_and(|silence| silence > max) {
            self.lose(state, format!("nothing was heard of the server for {} s", max.as_secs()));
        }
    }

    /// Waits for something to read, with the state unlocked meanwhile, and reads it for everybody. Returns
    /// whether a signal handler ran instead.
    fn read<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        own: &[u64],
        limit: Option<Duration>,
    ) -> (MutexGuard<'a, State>, bool) {
        state.has_reader = true;
        let for_room = state.output.wants_room();
        let waited =
            MutexGuard::unlocked(&mut state, || self.wait_for_input(for_room, at_most(limit, LOOK_UP)));
        state.has_reader = false;
        match waited {
            Ok(()) => {
                self.send(&mut state);
                if !self.absorb(&mut state, own) {
                    self.lose_if_silent(&mut state);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return (state, true),
            Err(error) => self.lose(&mut state, format!("waiting for the server failed: {error}")),
        }
        (state, false)
    }

    fn wait_for_input(&self, for_room: bool, limit: Duration) -> io::Result<()> {
        let ready_for = if for_room { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
        let mut fds = [PollFd::new(&self.stream, ready_for), self.waker.poll_fd()];
        wait_for(&mut fds, Some(limit))?;
        if !fds[1].revents().is_empty() {
            self.waker.reset();
        }
        Ok(())
    }

    /// Reads once, without waiting, and hands out the replies; wakes the others if some are not for `own`.
    /// False if there was nothing to read.
    fn absorb(&self, state: &mut State, own: &[u64]) -> bool {
        if state.lost.is_some() {
            return false;
        }
        let mut chunk = [0; CHUNK];
        let problem = match self.intact().and_then(|stream| stream.receive_now(&mut chunk)) {
            Ok(None) => return false,
            Ok(Some(0)) => state.take_complaint(),
            Ok(Some(read)) => match self.decode(state, chunk.get(..read).unwrap_or_default(), own) {
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

    /// Hands out the replies in what has come over the wire. Returns whether some are for others than `own`.
    fn decode(&self, state: &mut State, wire: &[u8], own: &[u64]) -> Result<bool, String> {
        let Some(tls) = &mut state.tls else { return state.accept(wire, own) };
        let mut plain = Vec::new();
        let taken = tls.decode(wire, &mut plain).map_err(|error| {
            state.loss_kind = ConnectErrorKind::Tls;
            format!("reading from the server failed: {error}")
        })?;
        let for_others = state.accept(&plain, own)?;
        match taken {
            Decoded::More => Ok(for_others),
            Decoded::End => Err(state.take_complaint()),
        }
    }
}

fn at_most(limit: Option<Duration>, max: Duration) -> Duration {
    limit.map_or(max, |limit| limit.min(max))
}

#[cfg(test)]
mod tests {
    use super::super::dial::dial;
    use super::super::fake_server::{SOON, serve};
    use super::*;

    #[test]
    fn who_reads_what_the_reader_waits_for_wakes_it() {
        let (url, server) = serve(|mut peer| {
            while let Some(asked) = peer.next() {
                peer.reply(asked.id, "{}");
            }
        });
        let connection = dial(&url.parse().unwrap(), SOON).unwrap();
        for _ in 0..500 {
            let request = connection.request("ping", &(), 1000).unwrap();
            connection.state.lock().slots.insert(request.id, Slot::Awaited);
            std::thread::scope(|scope| {
                let (tell, told) = std::sync::mpsc::channel();
                let wait = || connection.wait(&[request.id], None, Signals::Ignored);
                let thread = scope.spawn(move || tell.send(wait()));
                while !connection.state.lock().has_reader {
                    std::thread::yield_now();
                }
                connection.post_unheard(&[&request]).unwrap();
                connection.flush();
                while connection.is_unanswered(request.id) {
                    connection.check().unwrap();
                }
                let waited = told.recv_timeout(SOON);
                // Should it sleep on, this lets the thread end.
                connection.waker.wake();
                thread.join().unwrap().unwrap();
                assert!(matches!(waited, Ok(Ok(Waited::Reply(..)))), "{waited:?}");
            });
        }
        drop(connection);
        server.join().unwrap();
    }
}
