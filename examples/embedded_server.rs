//! A program that serves its locks to other processes, and uses them itself.
//!
//! It manages a spool. A process that writes to the spool holds the lock `spool` in shared mode;
//! the program's own thread holds it in exclusive mode while it tidies up. Writers are other
//! processes, which connect.
//!
//! `cargo run --example embedded_server ADDRESS...`, for example `message://127.0.0.1:0`. It prints
//! each address that it listens on. SIGTERM and SIGINT stop it.

#![expect(clippy::print_stdout, reason = "an example prints its result")]

use std::error::Error;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use lockd::Session;
use lockd::broker::{AcquireError, Broker, Mode};
use lockd::server::{Config, Server, Service};
use nix::sys::signal::{SigSet, Signal};

type Failure = Box<dyn Error + Send + Sync>;

const PAUSE: Duration = Duration::from_millis(20);

/// Tidies up repeatedly until the sender of `stop` is dropped. Returns the number of rounds.
fn tidy(session: &Session, stop: &Receiver<()>) -> Result<u64, Failure> {
    let mut rounds = 0;
    while stop.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
        // A time limit, although `cancel` ends the wait: the cancel may come just before the wait
        // begins.
        match session.acquire(b"spool", Mode::Exclusive, Some(Duration::from_millis(500))) {
            Ok(_) => {
                // No process writes now. The work would be done here.
                rounds += 1;
                session.release(b"spool")?;
            }
            Err(AcquireError::TimedOut | AcquireError::Cancelled) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(rounds)
}

fn main() -> Result<(), Failure> {
    let listen = std::env::args().skip(1).map(|address| address.parse()).collect::<Result<Vec<_>, _>>()?;
    if listen.is_empty() {
        return Err("usage: embedded_server ADDRESS...".into());
    }
    // Before any other thread exists: every thread inherits the mask, and the signals wait for
    // `wait`.
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
    signals.thread_block()?;

    let broker = Broker::default();
    let server = Server::start(&broker, Config { listen, ..Config::default() }, Service::locks())?;
    for address in server.addresses() {
        println!("listening on {address}");
    }

    let session = Session::open(&broker, Some("tidier"));
    let (goes_on, stop) = channel();
    let rounds = thread::scope(|scope| {
        let session = &session;
        let tidier = scope.spawn(move || {
            let result = tidy(session, &stop);
            if result.is_err() {
                // The main thread waits for signals, and stops cleanly when one comes.
                rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM)?;
            }
            result
        });
        signals.wait()?;
        // Stop the thread first. When the server stops, it releases its clients' locks, and a
        // thread that is still waiting for one would be granted it before the client that held it
        // has noticed.
        drop(goes_on);
        session.cancel();
        tidier.join().unwrap_or_else(|_| Err("a panic".into()))
    })?;
    server.stop();
    println!("stopped after {rounds} rounds");
    Ok(())
}
