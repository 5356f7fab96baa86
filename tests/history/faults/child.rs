//! The processes that a fault run starts. All of them start this test program again: some run
//! clients, so that clients can be killed and stopped as only processes can, and one becomes the
//! real server binary. Each ends with the process that started it, however that one ends.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal, setpriority_process};
use serde::{Deserialize, Serialize};

use super::client;
use super::slots::{self, SlotOrders};
use super::wire::{Address, Protocol};
use crate::plan::Mix;

/// The environment variable that contains a process's orders.
const ORDERS: &str = "HISTORY_ORDERS";

/// How long clients may continue to wait after they were told to stop.
pub(crate) const DRAIN: Duration = Duration::from_secs(20);

/// The priority of clients that give way to others.
const CLIENTS_NICE: i32 = 10;

/// What a process must do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Orders {
    Clients(ClientOrders),
    /// Compete for the slots of a limited lock.
    Slots(SlotOrders),
    /// Become this `lockd` with these arguments.
    Serve(PathBuf, Vec<String>),
}

/// What the clients of a process must do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct ClientOrders {
    pub(crate) seed: u64,
    /// The number of this process, unique in the run.
    pub(crate) process: u64,
    pub(crate) threads: u64,
    /// The directory of the logs and the counters.
    pub(crate) directory: PathBuf,
    pub(crate) endpoints: Vec<(Protocol, Address)>,
    pub(crate) mix: Mix,
    /// Whether shared locks of the text protocols are the same locks as in the other protocols.
    pub(crate) text_can_share: bool,
    /// A client misbehaves once in about this many steps; 0: never.
    pub(crate) misbehaves: u64,
    /// A client whose session resumes keeps what it holds for seconds once in about this many steps.
    pub(crate) stays: u64,
    /// Whether an endpoint may be that of a standby.
    pub(crate) has_standbys: bool,
}

/// The path of a thread's log.
pub(crate) fn log_path(directory: &std::path::Path, process: u64, thread: u64) -> PathBuf {
    directory.join(format!("{process}-{thread}.log"))
}

/// Starts a process with these orders. It runs the program of this process, even if another one has
/// been built in its place since. Its standard input is a pipe; clients stop when it is closed.
pub(crate) fn start(orders: &Orders, stderr: Stdio) -> Child {
    let parent = std::process::id();
    Command::new("/proc/self/exe")
        .args(["faults::child::child_process", "--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .env_clear()
        .env(ORDERS, serde_json::to_string(&(parent, orders)).unwrap())
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(stderr)
        .spawn()
        .expect("this program can be started again")
}

#[test]
#[ignore = "not a test: the main function of the fault runs' processes"]
fn child_process() {
    let Ok(orders) = std::env::var(ORDERS) else { return };
    let (parent, orders): (u32, Orders) = serde_json::from_str(&orders).unwrap();
    set_parent_process_death_signal(Some(Signal::KILL)).unwrap();
    if getppid().map(Pid::as_raw_pid) != i32::try_from(parent).ok() {
        // The parent ended before the call above, so nothing would end this process any more.
        return;
    }
    match orders {
        Orders::Serve(program, arguments) => {
            let error = Command::new(program).args(arguments).env_remove(ORDERS).exec();
            panic!("the lockd binary does not run: {error}");
        }
        Orders::Clients(orders) => run_clients(orders),
        Orders::Slots(orders) => slots::run_clients(orders),
    }
}

fn run_clients(orders: ClientOrders) {
    if orders.has_standbys {
        // Servers of a cluster that are not run in time are not active any more: clients, which
        // never rest, give way to them.
        setpriority_process(None, CLIENTS_NICE).unwrap();
    }
    let stop = Arc::new(AtomicBool::new(false));
    let orders = Arc::new(orders);
    let threads: Vec<_> = (0..orders.threads)
        .map(|thread| {
            let (orders, stop) = (Arc::clone(&orders), Arc::clone(&stop));
            std::thread::spawn(move || {
                client::run(&orders, thread, &|random| client::connect(&orders, random), &stop);
            })
        })
        .collect();
    let mut nothing = Vec::new();
    std::io::stdin().read_to_end(&mut nothing).unwrap();
    stop.store(true, Ordering::Relaxed);
    let deadline = Instant::now() + DRAIN;
    for thread in threads {
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        if thread.is_finished() {
            thread.join().expect("a client thread panicked: an invalid reply");
        }
    }
    // Clients that still wait are abandoned; their logs show that they wait.
    std::process::exit(0);
}
