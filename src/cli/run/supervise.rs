//! While the command runs: signals are passed on to it, its end is waited for, and the lock is looked after. Who
//! has lost the lock must not go on with what it protects, so then the command is ended.

use std::io;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal as Number;
use rustix::process::Signal;

use super::acquire::{Hold, readable, wait_for};
use super::command::Started;
use super::ending::Ending;
use super::signals::{Received, Signals};

/// How often to look whether the lock stands: of a loss that is only noticed by this host's own silence no
/// descriptor tells.
const LOOK: Duration = Duration::from_secs(1);
/// How often to look whether somebody is left of a command that is to end.
const LOOK_WHILE_ENDING: Duration = Duration::from_millis(20);

/// Waits for the end of the command, and gives the lock back.
pub(super) fn supervise(
    hold: Hold,
    mut started: Started,
    signals: &Signals,
    grace: Duration,
    has_terminal: bool,
) -> Ending {
    let ended = match wait(&hold, &mut started, signals, has_terminal) {
        Ok(ended) => ended,
        Err(error) => {
            // Whatever it is: nobody looks after the lock any more.
            end(&mut started, signals, grace);
            return Ending::Failed(format!("the command cannot be watched: {error}"));
        }
    };
    match ended {
        Ended::Command(status) => match hold.release() {
            Ok(()) => Ending::Command(status),
            Err(reason) => Ending::Lost(format!("the lock was lost while the command ran: {reason}")),
        },
        Ended::Lost(reason) => {
            super::say(&format!("the lock is lost, the command is ended: {reason}"));
            end(&mut started, signals, grace);
            Ending::Lost("the command has been ended".to_owned())
        }
    }
}

enum Ended {
    Command(std::process::ExitStatus),
    Lost(String),
}

fn wait(hold: &Hold, started: &mut Started, signals: &Signals, has_terminal: bool) -> io::Result<Ended> {
    loop {
        if let Some(status) = started.child.try_wait()? {
            return Ok(Ended::Command(status));
        }
        if let Some(reason) = hold.loss() {
            return Ok(Ended::Lost(reason));
        }
        let lost = hold.session.lost_fd();
        let mut fds = vec![readable(signals)];
        fds.extend(lost.as_ref().map(readable));
        wait_for(&mut fds, Some(LOOK))?;
        while let Some(received) = signals.next() {
            pass_on(received, started, has_terminal);
        }
    }
}

/// Passes a signal on, unless the command has it already.
fn pass_on(received: Received, started: &mut Started, has_terminal: bool) {
    let is_known = has_terminal && received.is_from_kernel;
    if received.signal == Number::SIGCHLD || is_known {
        return;
    }
    if let Some(signal) = Signal::from_named_raw(received.signal as i32) {
        started.party.signal(signal);
    }
    if received.signal == Number::SIGTSTP {
        // Who has stopped this process means to stop all of it; the lock stays.
        super::stop_this_process();
    }
}

/// Ends the command and all that it has started.
fn end(started: &mut Started, signals: &Signals, grace: Duration) {
    started.party.signal(Signal::TERM);
    // One that is stopped would not hear of it.
    started.party.signal(Signal::CONT);
    let deadline = Instant::now().checked_add(grace);
    loop {
        let has_ended = matches!(started.child.try_wait(), Ok(Some(_)) | Err(_));
        if has_ended && !started.party.is_there() {
            return;
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            break;
        }
        // Whatever ended the wait, the next round looks again.
        let _ = wait_for(&mut [readable(signals)], Some(LOOK_WHILE_ENDING));
        while let Some(received) = signals.next() {
            if received.is_ending() {
                pass_on(received, started, false);
            }
        }
    }
    started.party.signal(Signal::KILL);
    let _ = started.child.wait();
}
