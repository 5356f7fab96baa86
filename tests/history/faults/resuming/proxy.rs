//! A proxy on loopback between clients and their server: it resets either side of a connection, or
//! keeps what goes in one direction, and lets go. One thread carries all bytes.
//!
//! A kernel gives up a peer that it does not hear. Here each kernel hears the proxy's. So a test that
//! cuts a connection must also reset both sides in time, as the two kernels would.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::SockRef;

use crate::faults::log::now;
use crate::history::{MILLISECOND, Nanos};

/// How many bytes of one direction are kept.
const KEPT_MAX: usize = 256 << 10;

/// One of the two sides of a connection, or where bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Client,
    Server,
}

impl Side {
    fn other(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// What the proxy does to connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// Resets this side. The other one stays.
    Reset(Side),
    /// Keeps what goes to this side from now on.
    Keep(Side),
    /// Passes on what was kept, and what comes.
    LetGo,
    /// The same for what goes to this side.
    LetGoTo(Side),
}

/// Which connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Which {
    All,
    /// One of them, chosen by a random number.
    One(u64),
    /// The one that was chosen by this number, if it has not gone.
    Same(u64),
}

enum Order {
    Act(Which, Act, Nanos),
    /// Whether new connections are accepted, and from when on.
    Accept(bool, Nanos),
    /// What goes to this side of new connections is kept.
    KeepNew(Option<Side>),
    /// The ends of clients are not passed on any more.
    KeepEnds,
    End,
}

/// The proxy's handle; it ends when this is dropped.
pub(crate) struct Proxy {
    address: String,
    orders: Sender<Order>,
    wake: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// A proxy before the server at this address.
    pub(crate) fn start(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (wake, woken) = UnixStream::pair().unwrap();
        woken.set_nonblocking(true).unwrap();
        let (orders, given) = channel();
        let carrier = Carrier {
            listener,
            server: server.to_owned(),
            woken,
            given,
            waiting: Vec::new(),
            links: Vec::new(),
            accepts: true,
            keep_new: None,
            keeps_ends: false,
        };
        let thread = Some(std::thread::spawn(move || carrier.run()));
        Self { address, orders, wake, thread }
    }

    /// Where clients connect.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    fn order(&self, order: Order) {
        // Both fail only if the thread has ended, and then its panic is reported.
        let _ = self.orders.send(order);
        let _ = (&self.wake).write(&[0]);
    }

    pub(crate) fn act(&self, which: Which, act: Act) {
        self.act_after(which, act, 0);
    }

    /// Does it after this time.
    pub(crate) fn act_after(&self, which: Which, act: Act, after: Nanos) {
        self.order(Order::Act(which, act, now() + after));
    }

    /// Resets new connections from now on, or accepts them again.
    pub(crate) fn accept(&self, accepts: bool) {
        self.accept_after(accepts, 0);
    }

    pub(crate) fn accept_after(&self, accepts: bool, after: Nanos) {
        self.order(Order::Accept(accepts, now() + after));
    }

    /// What a client has sent counts, although it has ended: its end is not passed on any more.
    pub(crate) fn keep_ends(&self) {
        self.order(Order::KeepEnds);
    }

    /// Keeps what goes to this side of connections that are made from now on.
    pub(crate) fn keep_new(&self, side: Option<Side>) {
        self.order(Order::KeepNew(side));
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.order(Order::End);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !std::thread::panicking()
        {
            panic!("the proxy panicked");
        }
    }
}

/// The bytes on their way to one side.
#[derive(Default)]
struct Pipe {
    bytes: Vec<u8>,
    is_kept: bool,
    has_ended: bool,
    end_is_passed: bool,
}

/// A connection through the proxy. A side that has been reset or has gone is `None`.
struct Link {
    chosen_by: Option<u64>,
    sides: [Option<TcpStream>; 2],
    to: [Pipe; 2],
}

struct Carrier {
    listener: TcpListener,
    server: String,
    woken: UnixStream,
    given: Receiver<Order>,
    waiting: Vec<Order>,
    links: Vec<Link>,
    accepts: bool,
    keep_new: Option<Side>,
    keeps_ends: bool,
}

impl Carrier {
    fn run(mut self) {
        loop {
            self.poll();
            while self.woken.read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
            self.waiting.extend(self.given.try_iter());
            if self.carry_out() {
                return;
            }
            self.take_new();
            let keeps_ends = self.keeps_ends;
            self.links.iter_mut().for_each(|link| link.carry(keeps_ends));
            self.links.retain(|link| link.sides.iter().any(Option::is_some));
        }
    }

    fn poll(&self) {
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.woken.as_fd(), PollFlags::IN),
        ];
        for link in &self.links {
            for side in [Side::Client, Side::Server] {
                if let (Some(socket), events) = (&link.sides[side as usize], link.events(side))
                    && !events.is_empty()
                {
                    fds.push(PollFd::from_borrowed_fd(socket.as_fd(), events));
                }
            }
        }
        let due = self.waiting.iter().filter_map(|order| match order {
            Order::Act(_, _, at) | Order::Accept(_, at) => Some(*at),
            Order::KeepNew(_) | Order::KeepEnds | Order::End => None,
        });
        let wait = due.min().map_or(1000 * MILLISECOND, |due| due.saturating_sub(now()));
        let wait = Timespec::try_from(Duration::from_nanos(wait)).expect("a short time");
        // Interrupted or not, everything is looked at.
        let _ = poll(&mut fds, Some(&wait));
    }

    /// Carries out the orders that are due. True if the proxy is to end.
    fn carry_out(&mut self) -> bool {
        let at = now();
        let is_due = |order: &mut Order| match order {
            Order::Act(_, _, due) | Order::Accept(_, due) => *due <= at,
            Order::KeepNew(_) | Order::KeepEnds | Order::End => true,
        };
        for order in self.waiting.extract_if(.., is_due).collect::<Vec<_>>() {
            match order {
                Order::Act(which, act, _) => {
                    let chosen = self.chosen(which);
                    self.links[chosen].iter_mut().for_each(|link| link.act(act));
                }
                Order::Accept(accepts, _) => self.accepts = accepts,
                Order::KeepNew(side) => self.keep_new = side,
                Order::KeepEnds => self.keeps_ends = true,
                Order::End => return true,
            }
        }
        false
    }

    fn chosen(&mut self, which: Which) -> Range<usize> {
        let at = match which {
            Which::All => return 0..self.links.len(),
            Which::Same(random) => self.links.iter().position(|link| link.chosen_by == Some(random)),
            Which::One(random) => {
                // What was begun with another one goes on.
                let free: Vec<usize> =
                    (0..self.links.len()).filter(|&at| self.links[at].chosen_by.is_none()).collect();
                let any = random.checked_rem(free.len() as u64);
                let at = any.map(|any| free[usize::try_from(any).unwrap()]);
                at.inspect(|&at| self.links[at].chosen_by = Some(random))
            }
        };
        at.map_or(0..0, |at| at..at + 1)
    }

    fn take_new(&mut self) {
        while let Ok((client, _)) = self.listener.accept() {
            // The server may be down: then the client is reset.
            let server = if self.accepts { TcpStream::connect(&self.server).ok() } else { None };
            let Some(server) = server else {
                SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
                continue;
            };
            for socket in [&client, &server] {
                socket.set_nonblocking(true).unwrap();
                socket.set_nodelay(true).unwrap();
            }
            let mut to: [Pipe; 2] = Default::default();
            if let Some(side) = self.keep_new {
                to[side as usize].is_kept = true;
            }
            self.links.push(Link { chosen_by: None, sides: [Some(client), Some(server)], to });
        }
    }
}

impl Link {
    /// What to wait for on this side.
    fn events(&self, side: Side) -> PollFlags {
        let (out, into) = (&self.to[side as usize], &self.to[side.other() as usize]);
        let mut events = PollFlags::empty();
        if !out.is_kept && !out.bytes.is_empty() {
            events |= PollFlags::OUT;
        }
        if !into.is_kept && !into.has_ended && into.bytes.len() < KEPT_MAX {
            events |= PollFlags::IN;
        }
        events
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Reset(side) => self.reset(side),
            Act::Keep(side) => self.to[side as usize].is_kept = true,
            Act::LetGo => self.to.iter_mut().for_each(|pipe| pipe.is_kept = false),
            Act::LetGoTo(side) => self.to[side as usize].is_kept = false,
        }
    }

    fn reset(&mut self, side: Side) {
        if let Some(socket) = self.sides[side as usize].take() {
            // Fails only if it was reset already.
            let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
        }
        self.to[side as usize].bytes.clear();
    }

    fn carry(&mut self, keeps_ends: bool) {
        for side in [Side::Client, Side::Server] {
            self.read(side);
            self.write(side.other(), keeps_ends && side == Side::Client);
        }
        let is_through = |pipe: &Pipe| pipe.end_is_passed && pipe.has_ended;
        if self.to.iter().all(is_through) {
            self.sides = [None, None];
        }
    }

    /// Reads what this side has sent; of a side that was reset, the other one still sends.
    fn read(&mut self, side: Side) {
        let pipe = &mut self.to[side.other() as usize];
        let Some(socket) = &mut self.sides[side as usize] else { return };
        if pipe.is_kept || pipe.has_ended {
            return;
        }
        let mut bytes = [0; 16 << 10];
        while pipe.bytes.len() < KEPT_MAX {
            match socket.read(&mut bytes) {
                Ok(0) => {
                    pipe.has_ended = true;
                    break;
                }
                Ok(count) => pipe.bytes.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Reset: so is the other side.
                Err(_) => {
                    self.sides[side as usize] = None;
                    return self.reset(side.other());
                }
            }
        }
        if self.sides[side.other() as usize].is_none() {
            // The side that it was for is gone. This one is reset, because an end of the stream would
            // tell the server that the client has ended.
            pipe.bytes.clear();
            if pipe.has_ended {
                self.reset(side);
            }
        }
    }

    fn write(&mut self, side: Side, end_is_kept: bool) {
        let pipe = &mut self.to[side as usize];
        let Some(socket) = &mut self.sides[side as usize] else { return };
        if pipe.is_kept {
            return;
        }
        while !pipe.bytes.is_empty() {
            match socket.write(&pipe.bytes) {
                Ok(count) => drop(pipe.bytes.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => {
                    self.sides[side as usize] = None;
                    return self.reset(side.other());
                }
            }
        }
        if pipe.has_ended && !pipe.end_is_passed && !end_is_kept {
            pipe.end_is_passed = true;
            // Fails only if it has ended.
            let _ = socket.shutdown(Shutdown::Write);
        }
    }
}
