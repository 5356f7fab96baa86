//! One connection to a server, shared by the threads of a client, with no thread of its own: the caller
//! that waits reads the socket, and when several wait, one of them reads for all. Carries requests and
//! replies; knows no command.
//!
//! A request is *posted* (it has its place in the order on the wire, decided under the state's lock) and
//! then *flushed* (written, by whichever thread gets to it first). Whatever goes wrong with the stream, the
//! connection is lost: once, for good, and everybody is told the same reason.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::input::{Input, Message, Reply};
use crate::broker::sync::{Arc, AtomicU64, Condvar, Mutex, MutexGuard, Ordering};
use crate::protocol::frame;
use crate::protocol::message::{Keepalive, encode_request};
use crate::socket::{PollFd, PollFlags, Stream, Waker, wait_for};
use crate::tls::{TakenIn, TlsSession};

/// How long a server may take no bytes before the connection is given up. It has megabytes of room before
/// it takes none.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// How long to rely on another thread to read while the server takes no bytes.
const READER_MAY_LEAVE: Duration = Duration::from_millis(50);

/// How much is read at once, in bytes.
const CHUNK: usize = 4096;

/// The connection is lost, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lost(pub(super) String);

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
    /// The deadline came first.
    TimedOut,
    /// A signal handler ran. The reply is to be waited for again, or forgotten.
    Interrupted,
}

pub(super) struct Connection {
    stream: Stream,
    /// What makes of the bytes what goes over the wire, if anything does. The last to be locked, and never during
    /// I/O; what it makes is written by whoever has `writing`, so in the same order.
    tls: Option<Mutex<TlsSession>>,
    /// Wakes the thread that reads, when it is to look at the state again.
    waker: Waker,
    ids: AtomicU64,
    state: Mutex<State>,
    /// For those who sleep: replies have come, the connection is lost, or a reader is needed.
    changed: Condvar,
    /// The bytes being written, kept for their capacity. Whoever has it locked writes.
    writing: Mutex<Vec<u8>>,
}

#[derive(Default)]
struct State {
    /// The requests whose replies somebody is to hear, with the reply once it has come. Any other reply is
    /// dropped.
    slots: HashMap<u64, Option<Reply>>,
    /// Posted, not yet being written.
    outbox: Vec<u8>,
    input: Input,
    /// A thread is reading, or waiting for something to read.
    has_reader: bool,
    /// How many threads rely on it, and sleep until there is a change.
    sleepers: usize,
    /// Those of the others that a signal handler must be able to wake too, which takes poll(2).
    pollers: Vec<Arc<Waker>>,
    /// Wakers that nobody polls now.
    spare_wakers: Vec<Arc<Waker>>,
    /// What the server said of a message it could not read. If it hangs up then, this was why.
    complaint: Option<String>,
    /// How long the server may be silent.
    silence_max: Option<Duration>,
    /// A connection that is lost stays open at this end until it is [closed](Connection::close).
    open_until_closed: bool,
    lost: Option<Lost>,
    /// Nothing more goes over the socket, in either direction.
    is_shut: bool,
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Connection {
    pub(super) fn new(stream: Stream, tls: Option<TlsSession>) -> io::Result<Self> {
        Ok(Self {
            stream,
            tls: tls.map(Mutex::new),
            waker: Waker::new()?,
            ids: AtomicU64::new(1),
            state: Mutex::default(),
            changed: Condvar::new(),
            writing: Mutex::default(),
        })
    }

    pub(super) fn set_keepalive(&self, keepalive: &Keepalive) -> io::Result<()> {
        self.state.lock().silence_max = Some(keepalive.silence_max());
        self.stream.set_keepalive(keepalive)
    }

    /// From now on the connection is open at this end until it is [closed](Self::close), also once it is
    /// lost: the server, which has been told so, takes that for the word that the client's work has ended.
    pub(super) fn stay_open_until_closed(&self) {
        self.state.lock().open_until_closed = true;
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
            state.outbox.extend_from_slice(&request.frame);
            if heard {
                state.slots.insert(request.id, None);
            }
        }
        Ok(())
    }

    /// Sees to it that all that was posted is written. If that fails the connection is lost, which whoever
    /// waits for a reply is told.
    pub(super) fn flush(&self) {
        let mut bytes = self.writing.lock();
        loop {
            bytes.clear();
            std::mem::swap(&mut *bytes, &mut self.state.lock().outbox);
            if bytes.is_empty() {
                return;
            }
            if let Some(tls) = &self.tls {
                let mut wire = Vec::new();
                tls.lock().put_out(&bytes, &mut wire);
                *bytes = wire;
            }
            if let Err(error) = self.write(&bytes) {
                // What it said before it hung up is the better reason.
                let _ = self.check();
                return self.fail(format!("writing to the server failed: {error}"));
            }
        }
    }

    /// Writes all of the bytes. While the server takes none it may be because nobody here reads its replies,
    /// so they are read meanwhile. An error leaves it open how much was written.
    fn write(&self, mut bytes: &[u8]) -> io::Result<()> {
        let mut deadline = Instant::now() + WRITE_LIMIT;
        while !bytes.is_empty() {
            if let Some(sent) = self.stream.send_now(bytes)? {
                bytes = bytes.get(sent..).unwrap_or_default();
                deadline = Instant::now() + WRITE_LIMIT;
                continue;
            }
            let rest = deadline.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            // A reader may leave, and then it is this thread's turn: so look again soon.
            let has_reader = self.state.lock().has_reader;
            let (ready_for, rest) = match has_reader {
                true => (PollFlags::OUT, rest.min(READER_MAY_LEAVE)),
                false => (PollFlags::OUT | PollFlags::IN, rest),
            };
            let mut fds = [PollFd::new(&self.stream, ready_for)];
            match wait_for(&mut fds, Some(rest)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            if fds[0].revents().contains(PollFlags::IN) {
                self.check().map_err(|lost| io::Error::other(lost.0))?;
            }
        }
        Ok(())
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
            // No descriptors are left: then it is enough to look now and then.
            let limit = limit.map_or(READER_MAY_LEAVE, |limit| limit.min(READER_MAY_LEAVE));
            return (self.sleep(state, Some(limit)), false);
        };
        state.pollers.push(waker.clone());
        let woken = MutexGuard::unlocked(&mut state, || wait_for(&mut [waker.poll_fd()], limit));
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

    /// Whether the connection stands, as far as can be known without waiting. Reads what has come, also while
    /// another thread reads: that one may have been about to read of the end for long.
    pub(super) fn check(&self) -> Result<(), Lost> {
        let mut state = self.state.lock();
        let mut has_read = false;
        while self.absorb(&mut state, &[]) {
            has_read = true;
        }
        self.lose_if_silent(&mut state);
        if has_read && state.has_reader {
            // What it waits for may have been read just now, and will not come again.
            self.waker.wake();
        }
        state.lost.clone().map_or(Ok(()), Err)
    }

    /// The reply to this request is wanted no more; whoever waits for it is told so.
    pub(super) fn forget(&self, id: u64) {
        let mut state = self.state.lock();
        state.slots.remove(&id);
        if state.has_reader {
            self.waker.wake();
        }
        self.wake_all(&state);
    }

    /// Whether a reply is wanted and has not come yet.
    pub(super) fn is_unanswered(&self, id: u64) -> bool {
        matches!(self.state.lock().slots.get(&id), Some(None))
    }

    /// Ends the connection because nobody here needs it any more.
    pub(super) fn close(&self) {
        // If another thread is amid something else, the end of the connection says the same.
        if let (Some(tls), Some(_writing)) = (&self.tls, self.writing.try_lock()) {
            let mut wire = Vec::new();
            tls.lock().end(&mut wire);
            let _ = self.stream.send_now(&wire);
        }
        let mut state = self.state.lock();
        self.lose(&mut state, "it was closed".to_owned());
        self.shut(&mut state);
    }

    /// Declares the connection lost and ends it, unless it is lost already.
    pub(super) fn fail(&self, reason: String) {
        self.lose(&mut self.state.lock(), reason);
    }

    /// The only place where a connection is lost.
    fn lose(&self, state: &mut State, reason: String) {
        if state.lost.is_some() {
            return;
        }
        state.lost = Some(Lost(reason));
        if state.open_until_closed {
            // Tells the server nothing. The descriptor stays readable, for those who poll it.
            self.stream.end_input();
        } else {
            self.shut(state);
        }
        self.waker.wake();
        self.wake_all(state);
    }

    /// Ends both directions: the server is told that nothing more will come.
    fn shut(&self, state: &mut State) {
        if !state.is_shut {
            state.is_shut = true;
            self.stream.shutdown();
        }
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
        let waited = MutexGuard::unlocked(&mut state, || self.wait_for_input(limit));
        state.has_reader = false;
        match waited {
            Ok(()) => {
                self.absorb(&mut state, own);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return (state, true),
            Err(error) => self.lose(&mut state, format!("waiting for the server failed: {error}")),
        }
        (state, false)
    }

    fn wait_for_input(&self, limit: Option<Duration>) -> io::Result<()> {
        let mut fds = [PollFd::new(&self.stream, PollFlags::IN), self.waker.poll_fd()];
        wait_for(&mut fds, limit)?;
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
        let problem = match self.stream.receive_now(&mut chunk) {
            Ok(None) => return false,
            Ok(Some(0)) => state.take_complaint(),
            Ok(Some(read)) => match self.take_in(state, chunk.get(..read).unwrap_or_default(), own) {
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
    fn take_in(&self, state: &mut State, wire: &[u8], own: &[u64]) -> Result<bool, String> {
        let Some(tls) = &self.tls else { return state.accept(wire, own) };
        let mut plain = Vec::new();
        let taken = tls.lock().take_in(wire, &mut plain);
        let taken = taken.map_err(|error| format!("reading from the server failed: {error}"))?;
        let for_others = state.accept(&plain, own)?;
        match taken {
            TakenIn::More => Ok(for_others),
            TakenIn::End => Err(state.take_complaint()),
        }
    }
}

impl State {
    /// Why the server has closed the connection.
    fn take_complaint(&mut self) -> String {
        let closed = "the server closed the connection";
        self.complaint.take().map_or_else(|| closed.to_owned(), |text| format!("{closed}: {text}"))
    }

    fn take(&mut self, ids: &[u64]) -> Option<Waited> {
        for &id in ids {
            match self.slots.get_mut(&id).map(Option::take) {
                None => return Some(Waited::Forgotten),
                Some(Some(reply)) => {
                    self.slots.remove(&id);
                    return Some(Waited::Reply(id, reply));
                }
                Some(None) => {}
            }
        }
        None
    }

    /// Hands out the replies in what has arrived. Returns whether some are for others than `own`.
    fn accept(&mut self, bytes: &[u8], own: &[u64]) -> Result<bool, String> {
        let Self { slots, input, complaint, .. } = self;
        let mut for_others = false;
        input.push(bytes);
        input.drain(|message| match message {
            Message::Reply(id, reply) => {
                if let Some(slot) = slots.get_mut(&id) {
                    *slot = Some(reply);
                    for_others |= !own.contains(&id);
                }
            }
            Message::Complaint(text) => *complaint = Some(text),
            Message::Other => {}
        })?;
        Ok(for_others)
    }
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
            connection.post(&[&request]).unwrap();
            std::thread::scope(|scope| {
                let (tell, told) = std::sync::mpsc::channel();
                let wait = || connection.wait(&[request.id], None, Signals::Ignored);
                let thread = scope.spawn(move || tell.send(wait()));
                while !connection.state.lock().has_reader {
                    std::thread::yield_now();
                }
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
