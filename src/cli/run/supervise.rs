//! While the command runs: signals are passed on to it, its end is waited for, and the lock is looked after. A
//! command that has lost its lock must not go on with what the lock protects, so then it is ended.

use std::io;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal as Number;
use rustix::process::Signal;

use super::acquire::Hold;
use super::command::Started;
use super::descendants::LOOK_FOR_OTHERS;
use super::end::end;
use super::ending::Ending;
use super::signals::{Received, Signals, stop_this_process};
use super::speaker::Speaker;
use super::wait::{readable, wait_for};

/// How often to look whether the lock is held: no descriptor tells of a loss that is only noticed by the
/// silence of this host itself.
const LOOK: Duration = Duration::from_secs(1);

/// Waits for the end of the command, and gives the lock back.
pub(super) fn supervise(
    hold: Hold,
    mut started: Started,
    signals: &Signals,
    speaker: &Speaker,
    grace: Duration,
    has_terminal: bool,
) -> Ending {
    let ended = match wait(&hold, &mut started, signals, has_terminal) {
        Ok(Ended::Command(status, is_in_a_hurry)) => {
            return match hold.release(signals, is_in_a_hurry) {
                Ok(()) => Ending::Command(status),
                Err(reason) => Ending::Lost(format!("the lock was lost while the command ran: {reason}")),
            };
        }
        Ok(Ended::Lost) => {
            let reason = || format!("the lock is lost, the command is being ended: {}", hold.loss());
            end(&mut started, signals, grace, speaker, reason)
        }
        Err(error) => {
            // Nothing looks after the lock any more.
            let reason = || format!("the command cannot be watched and is being ended: {error}");
            let ended = end(&mut started, signals, grace, speaker, reason);
            hold.close();
            return Ending::Failed(ended.err().unwrap_or_else(|| "the command has been ended".to_owned()));
        }
    };
    // Only now: a server that has ended the session may keep the lock until then.
    hold.close();
    Ending::Lost(ended.err().unwrap_or_else(|| "the command has been ended".to_owned()))
}

enum Ended {
    /// And whether a signal has come that was too late for it.
    Command(std::process::ExitStatus, bool),
    Lost,
}

fn wait(hold: &Hold, started: &mut Started, signals: &Signals, has_terminal: bool) -> io::Result<Ended> {
    // What arrived while the command was being started may not have reached it: rather twice than not at all.
    while let Some(received) = signals.next() {
        pass_on(received, started, false);
    }
    let mut next_search = Instant::now() + LOOK_FOR_OTHERS;
    loop {
        if let Some(status) = started.status()? {
            return Ok(Ended::Command(status, false));
        }
        if !hold.session.is_alive() {
            return Ok(Ended::Lost);
        }
        if started.descendants.has_others() && Instant::now() >= next_search {
            started.descendants.find();
            next_search = Instant::now() + LOOK_FOR_OTHERS;
        }
        let lost = hold.session.lost_fd();
        let mut fds = vec![readable(signals)];
        fds.extend(lost.as_ref().map(readable));
        wait_for(&mut fds, Some(Instant::now() + LOOK))?;
        while let Some(received) = signals.next() {
            // Of a command that has ended nobody would hear of it.
            if let Some(status) = started.status()? {
                return Ok(Ended::Command(status, received.is_ending()));
            }
            pass_on(received, started, has_terminal);
        }
    }
}

/// Passes a signal on, unless the command has it already.
pub(super) fn pass_on(received: Received, started: &mut Started, has_terminal: bool) {
    let is_known = has_terminal && received.is_from_kernel;
    if received.signal == Number::SIGCHLD || is_known {
        return;
    }
    if let Some(signal) = Signal::from_named_raw(received.signal as i32) {
        // Those that may not be signalled would not get it from anybody else in this process's place.
        let _ = started.descendants.signal(signal);
    }
    if received.signal == Number::SIGTSTP {
        // All of it is to be stopped. The lock stays held.
        stop_this_process();
    }
}
