//! The signals that direct the server. They are blocked in all threads, and one thread takes them,
//! one after the other. So none is lost while the program is replaced by another one with
//! execve(2): what comes after the gate has been closed stays pending, and the new program, in
//! which they are blocked from its first instruction, takes it. Knows nothing of what the signals
//! mean, but for one thing: the second signal to stop ends the process at once.

use std::io;
use std::sync::Arc;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use parking_lot::{Mutex, MutexGuard};
use rustix::event::{PollFd, PollFlags, poll};

const TAKEN: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR2];

/// Whether this signal asks the process to stop.
pub(super) fn stops(signal: Signal) -> bool {
    matches!(signal, Signal::SIGTERM | Signal::SIGINT)
}

/// Signals pass while it is open.
pub(super) struct SignalGate(Arc<Mutex<()>>);

impl SignalGate {
    /// Blocks the signals in this thread, and so in those that it starts from now on: to be called
    /// before there is another one. `act` is called with each signal, in a thread of its own, which
    /// ends when that returns false.
    ///
    /// # Errors
    /// If the system refuses.
    pub(super) fn open(act: impl Fn(Signal) -> bool + Send + 'static) -> io::Result<Self> {
        let taken: SigSet = TAKEN.into_iter().collect();
        taken.thread_block()?;
        // Otherwise a state that is larger than a file may be (RLIMIT_FSIZE) would end the process
        // when an upgrade writes it. So the write fails, and the upgrade is refused.
        SigSet::from(Signal::SIGXFSZ).thread_block()?;
        let signals = SignalFd::with_flags(&taken, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        let gate = Arc::new(Mutex::new(()));
        let open = gate.clone();
        let work = move || {
            let mut is_stopping = false;
            loop {
                // If it fails, there is nothing to read either.
                let _ = poll(&mut [PollFd::new(&signals, PollFlags::IN)], None);
                let _passing = open.lock();
                let Some(signal) = next(&signals) else { continue };
                if stops(signal) && std::mem::replace(&mut is_stopping, true) {
                    signal_hook::low_level::exit(1);
                }
                if !act(signal) {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("lockd-signals".to_owned()).spawn(work)?;
        Ok(Self(gate))
    }

    /// Keeps the gate closed until the result is dropped. What has come before has been passed on
    /// when this returns, and what comes meanwhile stays pending.
    pub(super) fn close(&self) -> MutexGuard<'_, ()> {
        self.0.lock()
    }
}

fn next(signals: &SignalFd) -> Option<Signal> {
    let info = signals.read_signal().ok().flatten()?;
    i32::try_from(info.ssi_signo).ok().and_then(|number| Signal::try_from(number).ok())
}
