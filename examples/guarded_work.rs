//! Runs a command while it holds a lock on a server, and not a moment longer.
//!
//! `cargo run --example guarded_work URL NAME COMMAND [ARGUMENT...]`
//!
//! It waits its turn for the lock NAME, and runs the command with the fencing token in the environment, as
//! `LOCK_TOKEN`. If the lock is lost meanwhile, the command and all it has started are killed at once: somebody
//! else may be granted the lock soon. SIGTERM and SIGINT are passed on to the command. It runs in a process
//! group of its own, so it cannot read from the terminal. What it leaves behind in the background when it ends
//! is not guarded any more.
//!
//! Exit status:
//! - what the command ended with, or 128 + N if signal N killed it: the lock was held to its end;
//! - 128 + N if signal N came while the lock was waited for: the command was not run;
//! - 122: the lock was lost; 123: it could not be had; 125: anything else was the matter.

#![expect(clippy::print_stderr, reason = "it is where a command tells what is the matter")]
#![expect(unsafe_code, reason = "what a child does before it becomes the command is not checked by Rust")]

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

/// How often the session is checked: if the network is cut, it knows of a loss in time, but before Linux 6.15 its
/// descriptor may become readable too late.
const CHECK: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// SIGTERM, SIGINT and SIGCHLD, which are blocked and read from a descriptor: no handler, so no call is ever
/// interrupted, and none comes unseen between a look and a wait.
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

    /// Sleeps until a signal has come or there is something to look at in the session, for [`CHECK`] at most; the
    /// signal, if it is one that says to stop.
    fn or_news(&self, session: &Session) -> Result<Option<Signal>, Failure> {
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

/// Waits for the lock; `Err` of a signal says to stop waiting.
fn await_lock(session: &Session, name: &[u8], signals: &Signals) -> Result<Result<Grant, Signal>, Failure> {
    if let Attempt::Granted(grant) = session.enqueue(name, Mode::Exclusive)? {
        return Ok(Ok(grant));
    }
    loop {
        // Before the poll, not only after it: a call may have read the grant along with its own answer.
        match session.wait(name, Some(Duration::ZERO)) {
            Ok(grant) => return Ok(Ok(grant)),
            Err(AcquireError::TimedOut) => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(signal) = signals.or_news(session)? {
            session.release(name)?;
            return Ok(Err(signal));
        }
    }
}

fn start(command: &[String], grant: &Grant, signals: &Signals) -> std::io::Result<Child> {
    let parent = rustix::process::getpid();
    let blocked = signals.set;
    let prepare = move || {
        // The mask is inherited.
        blocked.thread_unblock()?;
        // If this process is killed, its lock is freed: then the command must not go on.
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
        let is_orphan = rustix::process::getppid() != Some(parent);
        if is_orphan { Err(Errno::SRCH.into()) } else { Ok(()) }
    };
    let mut start = Command::new(&command[0]);
    start.args(&command[1..]).env("LOCK_TOKEN", grant.token.to_string()).process_group(0);
    // SAFETY: system calls only, which is what may be done there.
    unsafe { start.pre_exec(prepare) };
    start.spawn()
}

/// Stands by until the command has ended; `None`: the lock has been lost before.
fn guard(session: &Session, child: &mut Child, signals: &Signals) -> Result<Option<ExitStatus>, Failure> {
    let group = Pid::from_raw(i32::try_from(child.id())?);
    loop {
        let signal = signals.or_news(session);
        if !session.is_alive() || signal.is_err() {
            // All that the command has started as well. It fails only if nothing of it is left.
            let _ = killpg(group, Signal::SIGKILL);
            child.wait()?;
            return signal.map(|_| None);
        }
        if let Some(signal) = signal? {
            // As above.
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
        Err(error) => return Ok(complain(NOT_HAD, &error)),
    };
    let grant = match await_lock(&session, name, &signals) {
        Ok(Ok(grant)) => grant,
        Ok(Err(signal)) => return Ok(128 + u8::try_from(signal as i32)?),
        Err(error) => return Ok(complain(NOT_HAD, &*error)),
    };
    if grant.orphaned {
        eprintln!("guarded_work: the last holder vanished; its work may be half done");
    }
    let mut child = start(command, &grant, &signals)?;
    let Some(status) = guard(&session, &mut child, &signals)? else {
        eprintln!("guarded_work: the lock is lost, and the command killed");
        return Ok(LOST);
    };
    // That the server confirms the release tells that the lock was held until now.
    if let Err(error) = session.release(name) {
        return Ok(complain(LOST, &error));
    }
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    Ok(u8::try_from(code.unwrap_or(FAILED.into()))?)
}

fn complain(code: u8, error: &dyn Error) -> u8 {
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
    ExitCode::from(run(url, name.as_bytes(), command).unwrap_or_else(|error| complain(FAILED, &*error)))
}
