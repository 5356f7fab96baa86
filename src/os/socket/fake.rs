//! Sockets for a model checker, with the interface of the real ones: streams whose other end a
//! scenario holds, polling, and wakers. Knows no protocol, no broker and no kernel.
//!
//! One mutex guards all of them, as if the kernel had only one. What matters is what the threads of
//! a server do between two calls.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

pub(crate) use rustix::event::PollFlags;
use socket2::{Domain, SockAddr, Socket};

use crate::os::Keepalive;
use crate::os::fork::CloseOnForkFd;
use crate::os::sync::{Arc, Condvar, Mutex, ProcessMutex, lazy_static};

#[derive(Default)]
struct Kernel {
    /// Locked for every call.
    calls: Mutex<()>,
    changed: Condvar,
}

lazy_static! {
    static ref KERNEL: Kernel = Kernel::default();
}

/// Makes a call that changes a socket, and wakes the waiting calls.
fn call<R>(work: impl FnOnce() -> R) -> R {
    let locked = KERNEL.calls.lock();
    let result = work();
    drop(locked);
    KERNEL.changed.notify_all();
    result
}

/// Makes a call that waits until `work` returns something.
fn blocking<R>(mut work: impl FnMut() -> Option<R>) -> R {
    let mut locked = KERNEL.calls.lock();
    loop {
        if let Some(result) = work() {
            return result;
        }
        locked = KERNEL.changed.wait(locked);
    }
}

/// The state between the two ends of a connection.
#[derive(Debug, Default)]
struct Wire {
    /// The number of bytes that it takes until the other end reads again.
    room: usize,
    sent: Vec<u8>,
    to_receive: Vec<u8>,
    /// The other end sends no more.
    hung_up: bool,
    shut: bool,
}

#[derive(Debug)]
pub(crate) struct Stream {
    // An ordinary mutex: the checker only has to know about the calls.
    wire: Arc<ProcessMutex<Wire>>,
    fd: File,
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn unsupported<T>() -> io::Result<T> {
    Err(io::ErrorKind::Unsupported.into())
}

pub(crate) fn new_socket(_: Domain) -> io::Result<CloseOnForkFd> {
    unsupported()
}

impl Stream {
    pub(crate) fn connect(_: Domain, _: impl FnOnce(&Socket) -> io::Result<()>) -> io::Result<Self> {
        unsupported()
    }

    pub(crate) fn accept(_: &CloseOnForkFd) -> io::Result<(Self, SockAddr)> {
        unsupported()
    }

    pub(crate) fn take_over(_: RawFd, _: bool) -> io::Result<Self> {
        unsupported()
    }

    pub(crate) fn number(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    pub(crate) fn is_intact(&self) -> bool {
        true
    }

    pub(crate) fn set_keepalive(&self, _: &Keepalive) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn set_nodelay(&self) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn set_receive_limit(&self, _: Option<Duration>) -> io::Result<()> {
        Ok(())
    }

    pub(crate) fn receive(&self, into: &mut Vec<u8>) -> io::Result<usize> {
        Ok(blocking(|| {
            let mut wire = self.wire.lock();
            let count = wire.to_receive.len().min(into.capacity() - into.len());
            into.extend(wire.to_receive.drain(..count));
            (count > 0 || wire.hung_up || wire.shut).then_some(count)
        }))
    }

    pub(crate) fn receive_now(&self, into: &mut [u8]) -> io::Result<Option<usize>> {
        Ok(call(|| {
            let mut wire = self.wire.lock();
            let count = wire.to_receive.len().min(into.len());
            for (to, byte) in into.iter_mut().zip(wire.to_receive.drain(..count)) {
                *to = byte;
            }
            (count > 0 || wire.hung_up || wire.shut).then_some(count)
        }))
    }

    pub(crate) fn send_now(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        call(|| {
            let mut wire = self.wire.lock();
            if wire.shut {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            let count = bytes.len().min(wire.room);
            wire.room -= count;
            wire.sent.extend(bytes.iter().take(count));
            Ok((count > 0).then_some(count))
        })
    }

    pub(crate) fn shutdown(&self) {
        call(|| self.wire.lock().shut = true);
    }

    pub(crate) fn end_output(&self) -> bool {
        self.shutdown();
        true
    }

    pub(crate) fn end_input(&self) {
        call(|| self.wire.lock().hung_up = true);
    }

    pub(crate) fn is_tcp(&self) -> bool {
        false
    }

    /// As for a Unix socket: nothing can be lost between the two ends.
    pub(crate) fn is_delivered(&self) -> bool {
        true
    }

    pub(crate) fn has_peer(&self) -> bool {
        true
    }

    pub(crate) fn silence(&self) -> Option<Duration> {
        None
    }

    pub(crate) fn take_error(&self) -> Option<io::Error> {
        None
    }

    pub(crate) fn abort(&self) {
        self.shutdown();
    }
}

/// A socket or waker that can be polled.
trait Pollable {
    fn is_ready_for(&self) -> PollFlags;
}

impl Pollable for Stream {
    fn is_ready_for(&self) -> PollFlags {
        let wire = self.wire.lock();
        let mut ready = PollFlags::empty();
        ready.set(PollFlags::IN, !wire.to_receive.is_empty() || wire.hung_up || wire.shut);
        ready.set(PollFlags::OUT, wire.room > 0 || wire.shut);
        ready
    }
}

impl Pollable for CloseOnForkFd {
    fn is_ready_for(&self) -> PollFlags {
        PollFlags::empty()
    }
}

/// One that is still connecting. No scenario connects.
impl Pollable for socket2::Socket {
    fn is_ready_for(&self) -> PollFlags {
        PollFlags::empty()
    }
}

pub(crate) struct PollFd<'a> {
    what: &'a dyn Pollable,
    events: PollFlags,
    revents: PollFlags,
}

impl<'a> PollFd<'a> {
    #[expect(private_bounds, reason = "there are no others that can be polled")]
    pub(crate) fn new(what: &'a impl Pollable, events: PollFlags) -> Self {
        Self { what, events, revents: PollFlags::empty() }
    }

    pub(crate) fn revents(&self) -> PollFlags {
        self.revents
    }
}

/// Ignores the limit, since no scenario has one.
pub(crate) fn wait_for(fds: &mut [PollFd<'_>], _: Option<Duration>) -> io::Result<()> {
    blocking(|| {
        for fd in fds.iter_mut() {
            fd.revents = fd.what.is_ready_for() & fd.events;
        }
        fds.iter().any(|fd| !fd.revents.is_empty()).then_some(Ok(()))
    })
}

#[derive(Debug)]
pub(crate) struct Waker(ProcessMutex<bool>);

impl Waker {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self(ProcessMutex::new(false)))
    }

    pub(crate) fn wake(&self) {
        call(|| *self.0.lock() = true);
    }

    pub(crate) fn reset(&self) {
        call(|| *self.0.lock() = false);
    }

    pub(crate) fn poll_fd(&self) -> PollFd<'_> {
        PollFd::new(self, PollFlags::IN)
    }
}

/// For a [`Readiness`], which does not exist here.
impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        unreachable!("no scenario waits for descriptors")
    }
}

impl Pollable for Waker {
    fn is_ready_for(&self) -> PollFlags {
        if *self.0.lock() { PollFlags::IN } else { PollFlags::empty() }
    }
}

/// No scenario has one.
#[derive(Debug)]
pub(crate) enum Readiness {}

impl Readiness {
    pub(crate) fn new() -> io::Result<Self> {
        unsupported()
    }

    pub(crate) fn add(&self, _: &impl AsFd, _: u64) -> io::Result<()> {
        match *self {}
    }

    pub(crate) fn remove(&self, _: &impl AsFd) {
        match *self {}
    }

    pub(crate) fn wait(&self, _: Option<Duration>) -> io::Result<Vec<u64>> {
        match *self {}
    }
}

/// The other end of a stream.
#[cfg(test)]
pub(crate) struct Peer(Arc<ProcessMutex<Wire>>);

#[cfg(test)]
impl Peer {
    /// A stream and its other end. The stream takes `room` bytes until the other end makes [more
    /// room](Self::take).
    pub(crate) fn new(room: usize) -> (Stream, Self) {
        let wire = Arc::new(ProcessMutex::new(Wire { room, ..Wire::default() }));
        (Stream { wire: wire.clone(), fd: File::open("/dev/null").unwrap() }, Self(wire))
    }

    pub(crate) fn send_text(&self, bytes: &[u8]) {
        call(|| self.0.lock().to_receive.extend(bytes));
    }

    pub(crate) fn hang_up(&self) {
        call(|| self.0.lock().hung_up = true);
    }

    /// Makes room for more bytes.
    pub(crate) fn take(&self, more: usize) {
        call(|| self.0.lock().room += more);
    }

    /// Everything that was sent to it until now.
    pub(crate) fn heard(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().sent.clone()).into_owned()
    }

    /// Waits until `count` bytes were sent to it.
    pub(crate) fn await_bytes(&self, count: usize) {
        blocking(|| (self.0.lock().sent.len() >= count).then_some(()));
    }

    /// Whether the stream is shut.
    pub(crate) fn has_ended(&self) -> bool {
        self.0.lock().shut
    }

    /// Waits until the stream is shut.
    pub(crate) fn await_end(&self) {
        blocking(|| self.0.lock().shut.then_some(()));
    }
}
