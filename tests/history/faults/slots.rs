//! A limited lock whose holders are killed: many clients, in processes that are killed at random,
//! want one of a few slots. There are never more inside than that, and the slots of a process that
//! was killed are had again at once.
//!
//! A client that is granted the lock checks that from outside: it locks one of as many files as
//! there are slots (fcntl(2)). If none is free, one client too many is inside. The kernel frees the
//! files of a process that ends before it closes any of its connections: it gives up such locks
//! while it goes through all descriptors, and drops what the descriptors refer to afterwards.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lockd::broker::{AcquireError, Mode};
use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::{Deserialize, Serialize};

use super::child::{Orders, start};
use super::daemon::Daemon;
use super::log::now;
use super::run::{say, turn};
use super::wire::Protocol;
use crate::history::{MILLISECOND, Nanos};
use crate::random::{Random, fresh_seed};

const SLOTS: u32 = 7;
const NAME: &[u8] = b"slots";

/// How long anything may take before the test fails.
const SOON: Duration = Duration::from_secs(60);

/// What the clients of one process must do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SlotOrders {
    seed: u64,
    process: u64,
    connections: u64,
    directory: PathBuf,
    address: String,
    /// How many of the holders release after a short time, in percent. The others hold until they
    /// are killed.
    release: u64,
}

/// The files that clients lock, and those that clients of this process have locked: to its own
/// process, such a lock is no obstacle.
struct Files {
    files: Vec<File>,
    taken: Mutex<Vec<bool>>,
}

impl Files {
    fn open(directory: &Path) -> Self {
        let open = |slot: u32| {
            let path = directory.join(format!("slot-{slot}"));
            File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap()
        };
        let files: Vec<File> = (0..SLOTS).map(open).collect();
        let taken = Mutex::new(vec![false; files.len()]);
        Self { files, taken }
    }

    /// Locks one of the files; `None` if all are locked.
    fn enter(&self) -> Option<usize> {
        let mut taken = self.taken.lock().unwrap();
        let can_lock = |slot: &usize| {
            !taken[*slot] && fcntl_lock(&self.files[*slot], FlockOperation::NonBlockingLockExclusive).is_ok()
        };
        let slot = (0..self.files.len()).find(can_lock)?;
        taken[slot] = true;
        Some(slot)
    }

    fn leave(&self, slot: usize) {
        let mut taken = self.taken.lock().unwrap();
        fcntl_lock(&self.files[slot], FlockOperation::Unlock).unwrap();
        taken[slot] = false;
    }
}

/// Runs the clients of one process until it is killed. They report on the standard error.
#[expect(clippy::print_stderr, reason = "the pipe to the process that judges")]
pub(crate) fn run_clients(orders: SlotOrders) {
    let files = Arc::new(Files::open(&orders.directory));
    let orders = Arc::new(orders);
    let threads: Vec<_> = (0..orders.connections)
        .map(|thread| {
            let (files, orders) = (Arc::clone(&files), Arc::clone(&orders));
            let client = move || {
                let mut random = Random::for_part(orders.seed, orders.process * 1000 + thread);
                let session = lockd::Session::connect(&orders.address, None, SOON).unwrap();
                loop {
                    session.acquire(NAME, limited(), None).unwrap();
                    let granted = now();
                    let Some(slot) = files.enter() else {
                        eprintln!("one too many inside");
                        std::process::exit(3);
                    };
                    eprintln!("granted {granted}");
                    if !random.percent(orders.release) {
                        // Until the process is killed.
                        loop {
                            std::thread::park();
                        }
                    }
                    std::thread::sleep(Duration::from_nanos(random.below(3 * MILLISECOND)));
                    eprintln!("releasing {granted}");
                    files.leave(slot);
                    session.release(NAME).unwrap();
                }
            };
            std::thread::Builder::new().stack_size(256 << 10).spawn(client).unwrap()
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("a client"));
}

fn limited() -> Mode {
    Mode::at_most(SLOTS).expect("a limit in the range of limits")
}

/// What a process reported.
enum Report {
    Granted(Nanos),
    Releasing,
    /// Anything else that it said, which is a failure.
    Said(String),
    /// It has ended, and said nothing after this.
    Ended,
}

/// A process of clients. It is killed when dropped.
struct Process {
    number: u64,
    child: Child,
    /// How many of its clients have been granted a slot and have not released it.
    holders: usize,
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// All processes, and what they report.
struct Crowd {
    orders: SlotOrders,
    processes: Vec<Process>,
    reports: Receiver<(u64, Report)>,
    sender: Sender<(u64, Report)>,
    /// When the process that was killed last was killed, and when it had ended.
    killed: Nanos,
    ended: Nanos,
    /// How long after the kill each grant came, and how long after the end.
    delays: [Vec<Nanos>; 2],
}

impl Crowd {
    fn start(orders: SlotOrders, processes: usize) -> Self {
        let (sender, reports) = channel();
        let (killed, ended, delays) = (Nanos::MAX, Nanos::MAX, [Vec::new(), Vec::new()]);
        let mut crowd = Self { orders, processes: Vec::new(), reports, sender, killed, ended, delays };
        (0..processes).for_each(|_| crowd.start_one());
        crowd
    }

    fn start_one(&mut self) {
        let number = self.orders.process;
        self.orders.process += 1;
        let orders = SlotOrders { process: number, ..self.orders.clone() };
        let mut child = start(&Orders::Slots(orders), Stdio::piped());
        let stderr = BufReader::new(child.stderr.take().expect("a pipe"));
        let sender = self.sender.clone();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let report = match line.split_once(' ') {
                    Some(("granted", at)) => at.parse().map_or(Report::Said(line), Report::Granted),
                    Some(("releasing", _)) => Report::Releasing,
                    _ => Report::Said(line),
                };
                // The receiver is gone once the test is over.
                let _ = sender.send((number, report));
            }
            let _ = sender.send((number, Report::Ended));
        });
        self.processes.push(Process { number, child, holders: 0 });
    }

    /// Handles one report. Returns the number of the process if it has ended.
    fn handle(&mut self, (number, report): (u64, Report)) -> Option<u64> {
        let process = self.processes.iter_mut().find(|process| process.number == number);
        match (report, process) {
            (Report::Granted(at), Some(process)) => {
                process.holders += 1;
                if at > self.killed {
                    self.delays[0].push(at - self.killed);
                    self.delays[1].push(at.saturating_sub(self.ended));
                }
            }
            (Report::Releasing, Some(process)) => process.holders -= 1,
            (Report::Ended, Some(_)) => panic!("the clients of process {number} have ended"),
            (Report::Said(text), Some(_)) => panic!("process {number}: {text}"),
            // What a process said before it was killed; the last line may be incomplete.
            (Report::Said(text), None) => assert!(!text.contains("too many"), "process {number}: {text}"),
            (Report::Ended, None) => return Some(number),
            _ => {}
        }
        None
    }

    /// Handles reports until `is_done`.
    fn until(&mut self, what: &str, is_done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + SOON;
        while !is_done(self) {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(report) = self.reports.recv_timeout(left) else { panic!("not in time: {what}") };
            self.handle(report);
        }
    }

    fn holders(&self) -> usize {
        self.processes.iter().map(|process| process.holders).sum()
    }

    fn until_all_slots_are_taken(&mut self) {
        self.until("all slots are taken", |crowd| crowd.holders() == SLOTS as usize);
    }

    /// Kills the process at this place, waits until it has ended, and starts another one.
    fn kill(&mut self, at: usize) {
        let mut process = self.processes.remove(at);
        self.killed = now();
        process.child.kill().unwrap();
        process.child.wait().unwrap();
        self.ended = now();
        // All that it has still reported counts no more.
        let deadline = Instant::now() + SOON;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let report = self.reports.recv_timeout(left).expect("the reports of a process end with it");
            if self.handle(report) == Some(process.number) {
                break;
            }
        }
        self.start_one();
    }
}

/// Runs `processes` with `connections` clients each. `kills` processes are killed while all holders
/// hold until then, and as many while most of them release by themselves.
fn kill_holders(processes: usize, connections: u64, kills: usize) {
    let _turn = turn();
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).unwrap();
    let seed = fresh_seed();
    let mut random = Random::for_part(seed, 9);
    let directory = tempfile::tempdir().unwrap();
    let daemon = Daemon::start(directory.path(), &[], false);
    let library = daemon.endpoints().iter().find(|(protocol, _)| *protocol == Protocol::Library);
    let address = format!("tcp://{}", library.expect("the library's protocol is served").1);
    let orders = SlotOrders {
        seed,
        process: 0,
        connections,
        directory: directory.path().to_owned(),
        address: address.clone(),
        release: 0,
    };
    let mut crowd = Crowd::start(orders.clone(), processes);
    let observer = lockd::Session::connect(&address, None, SOON).unwrap();
    let clients = processes * usize::try_from(connections).unwrap();
    for _ in 0..kills {
        crowd.until_all_slots_are_taken();
        // Those of the new process have come, too, so that only the kill is measured.
        until_waiting(&observer, clients - SLOTS as usize);
        let holding: Vec<usize> = (0..processes).filter(|&at| crowd.processes[at].holders > 0).collect();
        crowd.kill(random.one_of(&holding));
    }
    crowd.until_all_slots_are_taken();
    let mut delays = std::mem::take(&mut crowd.delays);
    drop(crowd);
    let orders = SlotOrders { process: 1_000_000, release: 95, ..orders };
    let mut crowd = Crowd::start(orders, processes);
    for _ in 0..kills {
        crowd.until("a slot is taken", |crowd| crowd.holders() > 0);
        crowd.kill(usize::try_from(random.below(processes as u64)).unwrap());
        let pause = Instant::now() + Duration::from_millis(random.below(20));
        while let Ok(report) = crowd.reports.recv_timeout(pause.saturating_duration_since(Instant::now())) {
            crowd.handle(report);
        }
    }
    drop(crowd);
    all_slots_can_be_had(&address);
    let percentiles = delays.each_mut().map(|delays| {
        delays.sort_unstable();
        [50, 99, 100].map(|percent| delays[(delays.len() - 1) * percent / 100] / 1000)
    });
    say(&format!(
        "{clients} clients of {SLOTS} slots, LOCKD_SEED={seed}, {} grants after {kills} kills\n  \
         µs from the kill to the next grant: p50, p99, most {:?}; from the end of the process: {:?}",
        delays[0].len(),
        percentiles[0],
        percentiles[1],
    ));
}

fn until_waiting(observer: &lockd::Session, waiters: usize) {
    let deadline = Instant::now() + SOON;
    while observer.inspect(NAME).unwrap().waiters != waiters {
        assert!(Instant::now() < deadline, "not all clients that have no slot wait for one");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// After the end of all clients, all slots can be had, and no more than that.
fn all_slots_can_be_had(address: &str) {
    let sessions: Vec<_> =
        (0..=SLOTS).map(|_| lockd::Session::connect(address, None, SOON).unwrap()).collect();
    for session in &sessions[1..] {
        session.acquire(NAME, limited(), Some(SOON)).unwrap();
    }
    let refused = sessions[0].acquire(NAME, limited(), Some(Duration::ZERO));
    assert!(matches!(refused, Err(AcquireError::TimedOut)), "{refused:?}");
}

#[test]
fn a_slot_is_had_again_when_its_holder_is_killed_and_never_twice() {
    kill_holders(4, 6, 15);
}

#[test]
#[ignore = "takes a minute: make check-deep"]
fn deep_slots_of_a_thousand_clients() {
    kill_holders(20, 50, 300);
}
