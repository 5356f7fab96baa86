//! A program that serves its locks to others, and uses them itself.
//!
//! It looks after a spool. Whoever writes to the spool holds the lock `spool`, shared; the program's own
//! thread holds it exclusively while it tidies up. Writers are other processes, which connect.
//!
//! `cargo run --example embedded_server ADDRESS...`, for example `message://127.0.0.1:0`. Prints each address
//! that it listens on. SIGTERM and SIGINT stop it.

#![expect(clippy::print_stdout, reason = "it is what an example shows")]

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

/// Tidies up again and again until there is nobody at the other end of `stop`; how many times it has.
fn tidy(session: &Session, stop: &Receiver<()>) -> Result<u64, Failure> {
    let mut rounds = 0;
    while stop.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
        // A limit, although `cancel` ends the wait: it may come just before the wait begins.
        match session.acquire(b"spool", Mode::Exclusive, Some(Duration::from_millis(500))) {
            Ok(_) => {
                // Nobody writes now. Here the work would be done.
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
    // Before there is any other thread: all inherit the mask, and the signals wait for `wait`.
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
                // The main thread waits for signals, and ends in good order when one comes.
                rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM)?;
            }
            result
        });
        signals.wait()?;
        // The thread first: when the server stops, the locks of its clients are freed, and a thread that
        // still waited for one would be granted it before its holder has noticed.
        drop(goes_on);
        session.cancel();
        tidier.join().unwrap_or_else(|_| Err("a panic".into()))
    })?;
    server.stop();
    println!("stopped after {rounds} rounds");
    Ok(())
}
