//! Runs a command while it holds a lock on a server, and not a moment longer.
//!
//! `cargo run --example guarded_work URL NAME COMMAND [ARGUMENT...]`
//!
//! It waits its turn for the lock NAME, and runs the command with the fencing token in the
//! environment, as `LOCK_TOKEN`. If the lock is lost in the meantime, the command and all processes
//! that it has started are killed at once, because another client may be granted the lock soon.
//! SIGTERM and SIGINT are passed on to the command. The command runs in its own process group, so
//! it cannot read from the terminal. Background processes that it leaves running when it ends are
//! not guarded any more.
//!
//! Exit status:
//! - the command's status, or 128 + N if signal N killed it: the lock was held to its end;
//! - 128 + N if signal N came during the wait for the lock: the command was not run;
//! - 122: the lock was lost; 123: no lock; 125: any other error.

#![expect(clippy::print_stderr, reason = "a command reports its errors there")]
#![expect(unsafe_code, reason = "Rust cannot check what a child does before it runs the command")]

use std::error::Error;
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::time::Duration;

use lockd::Session;
use lockd::broker::{AcquireError, Attempt, Grant, Mode};
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

type Failure = Box<dyn Error>;

const LOST: u8 = 122;
const NOT_HAD: u8 = 123;
const FAILED: u8 = 125;

/// How often the session is checked. If the network is cut, the session detects the loss in time,
/// but before Linux 6.15 its descriptor may become readable too late.
const CHECK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// SIGTERM, SIGINT and SIGCHLD, which are blocked and read from a descriptor. There is no handler,
/// so no call is ever interrupted, and no signal is missed between a check and a wait.
struct Signals {
    set: SigSet,
    fd: SignalFd,
}

impl Signals {
    fn block() -> nix::Result<Self> {
        let set: SigSet = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD].into_iter().collect();
        set.thread_block()?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { set, fd })
    }

    /// Sleeps until a signal has come or the session's descriptor is readable, for [`CHECK`] at
    /// most. Returns the signal if it asks the program to stop.
    fn wait_for_event(&self, session: &Session) -> Result<Option<Signal>, Failure> {
        let fds = [Some(self.fd.as_fd()), session.lost_fd()];
        let mut watched: Vec<PollFd<'_>> =
            fds.iter().flatten().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
        match poll(&mut watched, Some(&CHECK)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let Some(info) = self.fd.read_signal()? else { return Ok(None) };
        let signal = Signal::try_from(i32::try_from(info.ssi_signo)?)?;
        Ok(Some(signal).filter(|&signal| signal != Signal::SIGCHLD))
    }
}

/// Waits for the lock. Returns an inner `Err` if a signal asked the program to stop.
fn await_lock(session: &Session, name: &[u8], signals: &Signals) -> Result<Result<Grant, Signal>, Failure> {
    if let Attempt::Granted(grant) = session.enqueue(name, Mode::Exclusive)? {
        return Ok(Ok(grant));
    }
    loop {
        // Check before poll, not only after it: a call may have read the grant together with its
        // own reply.
        match session.wait(name, Some(Duration::ZERO)) {
            Ok(grant) => return Ok(Ok(grant)),
            Err(AcquireError::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(signal) = signals.wait_for_event(session)? {
            session.release(name)?;
            return Ok(Err(signal));
        }
    }
}

fn start(command: &[String], grant: &Grant, signals: &Signals) -> std::io::Result<Child> {
    let parent = rustix::process::getpid();
    let blocked = signals.set;
    let prepare = move || {
        // The child inherits the signal mask.
        blocked.thread_unblock()?;
        // If this process is killed, its lock is released: then the command must not continue.
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        let is_orphan = rustix::process::getppid() != Some(parent);
        if is_orphan { Err(Errno::SRCH.into()) } else { Ok(()) }
    };
    let mut start = Command::new(&command[0]);
    start.args(&command[1..]).env("LOCK_TOKEN", grant.token.to_string()).process_group(0);
    // SAFETY: `prepare` makes only system calls, which are allowed between fork and exec.
    unsafe { start.pre_exec(prepare) };
    start.spawn()
}

/// Waits until the command has ended. Returns `None` if the lock was lost before that.
fn guard(session: &Session, child: &mut Child, signals: &Signals) -> Result<Option<ExitStatus>, Failure> {
    let group = Pid::from_raw(i32::try_from(child.id())?);
    loop {
        let signal = signals.wait_for_event(session);
        if !session.is_alive() || signal.is_err() {
            // Kill the processes that the command has started as well. This fails only if none is
            // left.
            let _ = killpg(group, Signal::SIGKILL);
            child.wait()?;
            return signal.map(|_| None);
        }
        if let Some(signal) = signal? {
            // This too fails only if no process is left.
            let _ = killpg(group, signal);
        }
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
    }
}

fn run(url: &str, name: &[u8], command: &[String]) -> Result<u8, Failure> {
    let signals = Signals::block()?;
    let session = match Session::connect(url, Some("guarded_work"), Duration::from_secs(10)) {
        Ok(session) => session,
        Err(error) => return Ok(report(NOT_HAD, &error)),
    };
    let grant = match await_lock(&session, name, &signals) {
        Ok(Ok(grant)) => grant,
        Ok(Err(signal)) => return Ok(128 + u8::try_from(signal as i32)?),
        Err(error) => return Ok(report(NOT_HAD, &*error)),
    };
    if grant.orphaned {
        eprintln!("guarded_work: the last holder vanished; its work may be half done");
    }
    let mut child = start(command, &grant, &signals)?;
    let Some(status) = guard(&session, &mut child, &signals)? else {
        eprintln!("guarded_work: the lock was lost, and the command was killed");
        return Ok(LOST);
    };
    // If the server confirms the release, the lock was held until now.
    if let Err(error) = session.release(name) {
        return Ok(report(LOST, &error));
    }
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    Ok(u8::try_from(code.unwrap_or(FAILED.into()))?)
}

fn report(code: u8, error: &dyn Error) -> u8 {
    eprintln!("guarded_work: {error}");
    code
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, name, command @ ..] = &arguments[..] else {
        eprintln!("usage: guarded_work URL NAME COMMAND [ARGUMENT...]");
        return ExitCode::from(FAILED);
    };
    if command.is_empty() {
        eprintln!("usage: guarded_work URL NAME COMMAND [ARGUMENT...]");
        return ExitCode::from(FAILED);
    }
    ExitCode::from(run(url, name.as_bytes(), command).unwrap_or_else(|error| report(FAILED, &*error)))
}
