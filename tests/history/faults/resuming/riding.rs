//! What clients do whose sessions resume, in addition to what all do: they hold some locks for
//! seconds, ride through doubt, and let their machine sleep.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use socket2::Socket;

use super::session::{ResumableSession, Standing};
use crate::faults::log::{Log, now};
use crate::faults::wire::{Answer, Lost};
use crate::history::{MILLISECOND, Mode, Name, Nanos, SECOND};
use crate::plan::Step;
use crate::random::Random;

/// Names that many clients want are held for seconds less often than the others, by this factor.
const WANTED_FACTOR: u64 = 25;
/// Before one in this many of these holds, the client's machine sleeps.
const SLEEPS_ONCE_IN: u64 = 8;
/// For how long both.
const STAYS: (Nanos, Nanos) = (200 * MILLISECOND, 4 * SECOND);
const SLEEPS: (Nanos, Nanos) = (SECOND, 14 * SECOND);
/// How often a holder in doubt waits for certainty, and does not release at once, in percent.
const RIDES_PERCENT: u64 = 90;
/// How often a holder looks, if it does nothing else.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A client whose session resumes.
pub(crate) trait Rider {
    /// Looks at what has come until now, and takes the next step of connecting again. Never waits.
    fn look(&mut self, log: &mut Log) -> Standing;

    /// What it believes to hold.
    fn holds(&self) -> Vec<(Name, Mode)>;

    /// Makes the call of this step.
    fn carry_out(&mut self, step: Step, log: &mut Log) -> Answer;

    /// Whether nothing has been answered yet since its machine woke up.
    fn is_unsure(&self) -> bool {
        false
    }

    /// Its machine sleeps, with its clock stopped, while this happens. Not with every client: some
    /// have the clock of this machine.
    fn sleep_while(&mut self, _happens: &mut dyn FnMut(), _log: &mut Log) {}

    fn close(self: Box<Self>);

    /// Its socket, for misuse. If there is none, or none to be had, it ends its session.
    fn into_socket(self: Box<Self>) -> Option<Socket>;
}

/// Lets time pass before the next step: for seconds once in `stays` times, if something is held.
pub(crate) fn stay(
    session: &mut dyn Rider,
    random: &mut Random,
    stays: u64,
    stop: &AtomicBool,
    log: &mut Log,
) -> Result<(), Lost> {
    if session.holds().is_empty() {
        if session.look(log) == Standing::InDoubt {
            // Between two attempts to connect.
            std::thread::sleep(Duration::from_millis(2));
        }
        return Ok(());
    }
    let is_wanted = session.holds().iter().any(|(name, _)| *name < 2);
    if random.one_in(stays) && (!is_wanted || random.one_in(WANTED_FACTOR)) {
        if random.one_in(SLEEPS_ONCE_IN) {
            let until = now() + random.between(SLEEPS.0, SLEEPS.1);
            session.sleep_while(&mut || wait_until(until, stop, || {}), log);
        }
        let until = now() + random.between(STAYS.0, STAYS.1);
        let mut is_lost = false;
        wait_until(until, stop, || is_lost |= session.look(log) == Standing::Lost);
        if is_lost {
            return Err(Lost);
        }
    }
    let rides = random.percent(RIDES_PERCENT);
    while session.look(log) == Standing::InDoubt && (session.is_unsure() || rides) {
        std::thread::sleep(LOOK_INTERVAL);
    }
    if session.look(log) == Standing::Lost { Err(Lost) } else { Ok(()) }
}

fn wait_until(until: Nanos, stop: &AtomicBool, mut look: impl FnMut()) {
    while now() < until && !stop.load(Ordering::Relaxed) {
        look();
        std::thread::sleep(LOOK_INTERVAL);
    }
}

impl Rider for ResumableSession {
    fn look(&mut self, log: &mut Log) -> Standing {
        Self::look(self, log)
    }

    fn holds(&self) -> Vec<(Name, Mode)> {
        Self::holds(self)
    }

    fn carry_out(&mut self, step: Step, log: &mut Log) -> Answer {
        match step {
            Step::Acquire { wants, limit, acked } => self.acquire(&wants, limit, acked, log),
            Step::Convert { name, mode, limit } => self.convert(name, mode, limit, log),
            Step::Release => {
                let held = self.holds();
                self.release(&held, log)
            }
            Step::StrayRelease(name) => self.release(&[(name, Mode::Exclusive)], log),
            Step::Inspect(name) => self.inspect(name, log),
        }
    }

    fn is_unsure(&self) -> bool {
        Self::is_unsure(self)
    }

    fn sleep_while(&mut self, happens: &mut dyn FnMut(), log: &mut Log) {
        let since = self.sleep(log);
        happens();
        self.wake(since);
    }

    fn close(self: Box<Self>) {
        Self::close(*self);
    }

    fn into_socket(self: Box<Self>) -> Option<Socket> {
        Self::into_socket(*self)
    }
}
