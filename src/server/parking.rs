//! Parking: stopping every thread of the server at a safe point, for as long as its state is read
//! or handed over, and letting them go on. At a safe point a thread is amid no request, has no lock
//! of the server, and has told here what only it knows. Knows nothing of what the threads do.
//!
//! A thread of a connection mostly waits in `read`. Asking it to look up now and then would cost
//! every request something, so it is interrupted instead (`os/interrupt.rs`). A program that has not
//! [allowed](allow_parking) that cannot park.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

use super::snapshot::types::HandlerSnapshot;
use crate::os::interrupt::{self, InterruptibleThreads};
use crate::os::sync::{Arc, AtomicBool, Mutex, RwLock};

/// How often to look whether all threads are parked.
const INTERVAL: Duration = Duration::from_millis(2);

/// Makes it possible to park the servers of this process: installs a handler for SIGURG, which does
/// nothing. For the program, since a library installs no handlers.
///
/// # Errors
/// If the kernel refuses.
pub fn allow_parking() -> io::Result<()> {
    interrupt::allow()
}

/// What a parked thread of a connection has told.
#[derive(Clone, Debug)]
pub(super) enum ParkedState {
    /// In a handshake. `early` has been decoded and not handled.
    Handshake { early: Vec<u8>, deadline: Instant },
    /// In its conversation, with input that has not been handled.
    Conversation { input: Vec<u8>, is_new: bool, tickets: u64, handler: HandlerSnapshot },
    /// Its connection has ended. Its locks are kept until its client knows, who was to acknowledge
    /// the end until this deadline.
    Ending { tell_deadline: Instant },
}

#[derive(Default)]
pub(super) struct Parking {
    is_requested: AtomicBool,
    threads: InterruptibleThreads,
    parked: Mutex<ParkedThreads>,
    /// Locked while threads are to stay parked.
    gate: RwLock<()>,
}

#[derive(Default)]
struct ParkedThreads {
    /// Threads that have been started and have not joined yet.
    starting: usize,
    numbers: HashSet<u64>,
    connections: BTreeMap<u64, ParkedState>,
}

thread_local! {
    /// The number of this thread among those that park; 0: it does not.
    static NUMBER: Cell<u64> = const { Cell::new(0) };
}

/// Lets the current thread park when it is asked to, until this is dropped.
pub(super) struct ParkableThread {
    parking: Arc<Parking>,
    number: u64,
}

/// A thread that is about to be started. It counts as not parked until it has
/// [joined](Self::join), or this is dropped.
pub(super) struct StartingThread(Arc<Parking>);

/// Some threads have not parked in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NotParked {
    pub(super) threads: usize,
    /// The connections whose threads have parked.
    pub(super) parked: BTreeSet<u64>,
}

impl Parking {
    /// Whether the current thread is to park at its next safe point.
    pub(super) fn is_requested(&self) -> bool {
        self.is_requested.load(Relaxed)
    }

    /// To be called before a thread is started, by a thread that does not park before the other
    /// has been started.
    pub(super) fn expect_thread(self: &Arc<Self>) -> StartingThread {
        self.parked.lock().starting += 1;
        StartingThread(self.clone())
    }

    /// A safe point. Parks if that is asked for, after the thread has told what it knows of its
    /// connection, if it has one.
    pub(super) fn park_if_requested(&self, tell: impl FnOnce() -> Option<(u64, ParkedState)>) {
        if self.is_requested() {
            self.park(tell());
        }
    }

    #[cold]
    #[inline(never)]
    fn park(&self, told: Option<(u64, ParkedState)>) {
        let number = NUMBER.get();
        if number == 0 {
            return;
        }
        let mut parked = self.parked.lock();
        // It may have been withdrawn meanwhile, and the gate may be open.
        if !self.is_requested.load(Acquire) {
            return;
        }
        parked.numbers.insert(number);
        parked.connections.extend(told);
        drop(parked);
        drop(self.gate.read());
        self.parked.lock().numbers.remove(&number);
    }

    /// Parks all threads, and calls `with_all` with what those of connections have told, by the
    /// connections' numbers. Then all of them go on. For one thread at a time, which does not park
    /// itself.
    ///
    /// # Errors
    /// If a thread has not parked within `limit`. All of them go on.
    pub(super) fn park_all<R>(
        &self,
        limit: Duration,
        with_all: impl FnOnce(BTreeMap<u64, ParkedState>) -> R,
    ) -> Result<R, NotParked> {
        let gate = self.gate.write();
        self.is_requested.store(true, Release);
        let thaw = Thaw { parking: self, gate: Some(gate) };
        let told = self.await_all(Instant::now() + limit)?;
        let result = with_all(told);
        drop(thaw);
        Ok(result)
    }

    fn await_all(&self, deadline: Instant) -> Result<BTreeMap<u64, ParkedState>, NotParked> {
        let mut parked_before = None;
        loop {
            let parked = self.parked.lock();
            let (numbers, starting) = (parked.numbers.clone(), parked.starting);
            drop(parked);
            let is_running = |number| !numbers.contains(&number);
            // A thread that was about to wait when it was interrupted has missed that, so it must be
            // done again. But those that are about to park would only be delayed by it, thousands of
            // them for seconds: so only when no thread has parked since the last look.
            let has_progress = parked_before.is_some_and(|before| numbers.len() > before);
            let running = if has_progress {
                self.threads.count(is_running)
            } else {
                self.threads.interrupt(is_running)
            };
            // A thread is started only by one that is not parked, so none has been since.
            let threads = running + starting;
            if threads == 0 {
                return Ok(std::mem::take(&mut self.parked.lock().connections));
            }
            parked_before = Some(numbers.len());
            if Instant::now() >= deadline {
                let parked = self.parked.lock().connections.keys().copied().collect();
                return Err(NotParked { threads, parked });
            }
            std::thread::sleep(INTERVAL);
        }
    }
}

/// Lets all threads go on when it is dropped, and waits until they do: a thread that is still at
/// the gate would miss the next request.
struct Thaw<'a, G> {
    parking: &'a Parking,
    /// The gate, locked.
    gate: Option<G>,
}

impl<G> Drop for Thaw<'_, G> {
    fn drop(&mut self) {
        self.parking.is_requested.store(false, Release);
        self.gate = None;
        loop {
            let mut parked = self.parking.parked.lock();
            parked.connections.clear();
            if parked.numbers.is_empty() {
                return;
            }
            drop(parked);
            std::thread::sleep(INTERVAL);
        }
    }
}

impl StartingThread {
    /// For the thread that was started.
    pub(super) fn join(self) -> ParkableThread {
        let parking = self.0.clone();
        let number = parking.threads.join();
        NUMBER.set(number);
        // Only now, when it is dropped, does it not count as starting any more.
        drop(self);
        ParkableThread { parking, number }
    }
}

impl Drop for StartingThread {
    fn drop(&mut self) {
        self.0.parked.lock().starting -= 1;
    }
}

impl Drop for ParkableThread {
    fn drop(&mut self) {
        NUMBER.set(0);
        self.parking.threads.leave(self.number);
    }
}

#[cfg(test)]
#[cfg(not(any(explore = "loom", explore = "shuttle")))]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::TcpStream;
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::broker::Broker;
    use crate::server::{Config, ListenAddress, Server, Service};

    const LIMIT: Duration = Duration::from_secs(10);

    fn server() -> (Server, String) {
        allow_parking().unwrap();
        let config = Config { listen: vec!["glockd://127.0.0.1:0".parse().unwrap()], ..Config::default() };
        let server = Server::start(&Broker::default(), config, Service::locks()).unwrap();
        let ListenAddress::Tcp(address) = server.addresses()[0].address.clone() else { panic!() };
        (server, address)
    }

    struct Client(BufReader<TcpStream>);

    impl Client {
        fn connect(address: &str) -> Self {
            let stream = TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            Self(BufReader::new(stream))
        }

        fn send(&mut self, text: &str) {
            self.0.get_mut().write_all(text.as_bytes()).unwrap();
        }

        fn line(&mut self) -> String {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            line
        }

        fn ask(&mut self, text: &str) -> String {
            self.send(text);
            self.line()
        }
    }

    #[test]
    fn idle_and_waiting_connections_park_and_go_on() {
        let (server, address) = server();
        let mut clients: Vec<_> = (0..50).map(|_| Client::connect(&address)).collect();
        assert!(clients[0].ask("g shared\n").starts_with('1'));
        clients[1].send("gw 600 shared\n");
        clients[20].send("g half");
        let idle = &mut clients[30];
        assert!(idle.ask("g other\n").starts_with('1'));
        for _ in 0..20 {
            let told = server.while_parked(LIMIT, |parked| parked.told.len()).unwrap();
            assert!(told <= clients.len() && told > 0, "{told}");
        }
        // A request that comes while they are parked is answered afterwards.
        server
            .while_parked(LIMIT, |parked| {
                assert_eq!(parked.told.len(), parked.connections());
                clients[30].send("r other\n");
                assert_eq!(server.state.broker.stats().locks, 2);
            })
            .unwrap();
        assert!(clients[30].line().starts_with('1'));
        assert!(clients[20].ask("line\n").starts_with('1'));
        assert!(clients[0].ask("r shared\n").starts_with('1'));
        assert!(clients[1].line().starts_with('1'));
        server.stop();
    }

    #[test]
    fn no_byte_is_lost_or_handled_twice_under_load() {
        let (server, address) = server();
        let done = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..8)
                .map(|number| {
                    let (address, done) = (&address, &done);
                    scope.spawn(move || {
                        let mut client = Client::connect(address);
                        let mut rounds = 0_usize;
                        while done.load(Relaxed) == 0 {
                            // Cut anywhere, so that a thread often parks amid a line.
                            let text = format!("g {number}/{rounds}\nr {number}/{rounds}\n");
                            let (first, second) = text.split_at(rounds % text.len());
                            client.send(first);
                            client.send(second);
                            assert!(client.line().starts_with('1') && client.line().starts_with('1'));
                            rounds += 1;
                        }
                        rounds
                    })
                })
                .collect();
            for _ in 0..200 {
                server.while_parked(LIMIT, |_| ()).unwrap();
            }
            done.store(1, Relaxed);
            let rounds: usize = clients.into_iter().map(|client| client.join().unwrap()).sum();
            assert_eq!(server.state.broker.stats().grants, rounds as u64);
        });
    }

    #[test]
    fn a_client_that_does_not_read_delays_nobody_and_gets_everything_afterwards() {
        let (server, address) = server();
        let mut holder = Client::connect(&address);
        for name in 0..20_000 {
            holder.send(&format!("g a-name-of-some-length-{name}\n"));
            if name % 100 == 99 {
                (0..100).for_each(|_| assert!(holder.line().starts_with('1')));
            }
        }
        let mut slow = Client::connect(&address);
        // Each listing is larger than what the sockets take.
        (0..10).for_each(|_| slow.send("d\n"));
        for _ in 0..5 {
            server.while_parked(LIMIT, |_| ()).unwrap();
        }
        slow.send("g last\n");
        let mut bytes = 0;
        loop {
            let line = slow.line();
            bytes += line.len();
            if line.starts_with("1 Lock") {
                break;
            }
        }
        assert!(bytes > 5_000_000, "{bytes}");
        server.stop();
        let _ = slow.0.read(&mut [0]);
    }
}
