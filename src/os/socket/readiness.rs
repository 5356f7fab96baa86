//! Waiting for many sockets at once: which of them has something to read, or has ended. Unlike
//! poll(2), a wait costs no more for sockets on which nothing happens. Knows the sockets by numbers
//! that its caller gives them.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use crate::os::fork::CloseOnForkFd;

/// How many sockets one wait returns at most.
const EVENTS_MAX: usize = 256;

/// A set of sockets, for one thread that waits for them.
#[derive(Debug)]
pub(crate) struct Readiness(CloseOnForkFd);

impl Readiness {
    pub(crate) fn new() -> io::Result<Self> {
        let open = || Ok(epoll::create(CreateFlags::CLOEXEC)?);
        Ok(Self(CloseOnForkFd::open_anonymous(open)?))
    }

    /// Adds a socket or a waker. It leaves the set when it is closed or [removed](Self::remove).
    pub(crate) fn add(&self, what: &impl AsFd, number: u64) -> io::Result<()> {
        Ok(epoll::add(&self.0, what, EventData::new_u64(number), EventFlags::IN | EventFlags::RDHUP)?)
    }

    pub(crate) fn remove(&self, what: &impl AsFd) {
        // It fails only if it is not in the set.
        let _ = epoll::delete(&self.0, what);
    }

    /// Waits until something happens or `limit` has passed. Returns the numbers of those that have
    /// something to read or have ended; the same again for as long as that is so. If a signal
    /// handler runs meanwhile, it fails with [`io::ErrorKind::Interrupted`].
    pub(crate) fn wait(&self, limit: Option<Duration>) -> io::Result<Vec<u64>> {
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS_MAX);
        epoll::wait(&self.0, spare_capacity(&mut events), limit.as_ref())?;
        // The fields of an event are not aligned on every machine, so that they are copied first.
        let number = |event: &epoll::Event| {
            let data = event.data;
            data.u64()
        };
        Ok(events.iter().map(number).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{Shutdown, TcpListener, TcpStream};

    use socket2::{Domain, SockAddr};

    use super::*;
    use crate::os::socket::{Stream, Waker};

    fn pair(listener: &TcpListener) -> (Stream, TcpStream) {
        let address = SockAddr::from(listener.local_addr().unwrap());
        let ours = Stream::connect(Domain::IPV4, |socket| socket.connect(&address)).unwrap();
        (ours, listener.accept().unwrap().0)
    }

    #[test]
    fn a_socket_is_returned_once_it_has_something_to_read_or_has_ended_on_either_side() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let pairs: Vec<_> = (0..5).map(|_| pair(&listener)).collect();
        let readiness = Readiness::new().unwrap();
        for (number, (ours, _)) in (0..).zip(&pairs) {
            readiness.add(ours, number).unwrap();
        }
        assert!(readiness.wait(Some(Duration::ZERO)).unwrap().is_empty());
        let wait_for_one = |number: u64| {
            assert_eq!(readiness.wait(None).unwrap(), [number]);
            assert_eq!(readiness.wait(None).unwrap(), [number], "nothing has been read");
            let (ours, _) = &pairs[usize::try_from(number).unwrap()];
            readiness.remove(ours);
            assert!(readiness.wait(Some(Duration::ZERO)).unwrap().is_empty());
        };
        (&pairs[0].1).write_all(b"x").unwrap();
        wait_for_one(0);
        pairs[1].1.shutdown(Shutdown::Write).unwrap();
        wait_for_one(1);
        // What this side does when another thread closes the connection, or resets it.
        pairs[2].0.end_input();
        wait_for_one(2);
        pairs[3].0.abort();
        wait_for_one(3);
        let waker = Waker::new().unwrap();
        readiness.add(&waker, 9).unwrap();
        waker.wake();
        assert_eq!(readiness.wait(None).unwrap(), [9]);
    }
}
