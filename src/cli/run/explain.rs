//! Why the lock was not to be had: who holds it, from where, for how long, and who waits. Puts into words what a
//! listing says, on one line; never decides anything.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lockd::Session;
use lockd::broker::Mode;
use lockd::wire::message::{ListedHolder, ListedLock};
use nix::sys::signal::Signal;

use super::signals::Signals;
use super::wait::{Waited, within};
use crate::cli::text::{age, name_of, printable, printable_argument};

/// How long the server may take to say it.
const LIMIT: Duration = Duration::from_secs(2);
/// How many holders are named; of a shared lock there can be very many.
const NAMED: usize = 3;

/// What was not to be had.
pub(super) struct Refused<'a> {
    pub(super) names: &'a [OsString],
    /// From when on it was waited for and for how long; `None` if it was not.
    pub(super) waited: Option<(Instant, Duration)>,
    /// Why the server granted nothing at first, if it did not.
    pub(super) not_yet: Option<String>,
}

/// What became of asking.
pub(super) enum Explained {
    Words(String),
    /// A signal has come that ends a process.
    Signal(Signal),
}

/// Asks the server who is in the way. It may have gone by now. `Signal` if a signal came first.
pub(super) fn explain(refused: &Refused<'_>, session: &Arc<Session>, signals: &Signals) -> Explained {
    let (asked, names) = (session.clone(), refused.names.to_vec());
    let list = move || {
        // Of the names that begin with a name the first is that name itself.
        let page = |name: &OsString| asked.list(name.as_bytes(), None, 1).map_err(|error| error.to_string());
        names.iter().map(page).collect::<Result<Vec<_>, String>>()
    };
    let listed = within(Some(LIMIT), Some(signals), "lockd-explain", list);
    let since = refused.waited.map(|(start, _)| start.elapsed().as_secs_f64());
    let words = match listed {
        Ok(Waited::Signal(signal)) => return Explained::Signal(signal),
        Ok(Waited::Done(Ok(pages))) => {
            let locks = pages.iter().zip(refused.names).filter_map(|(page, name)| {
                let lock = page.locks.first()?;
                (lock.name()?.as_bytes() == name.as_bytes()).then_some(lock)
            });
            of_locks(&locks.collect::<Vec<_>>(), refused, since)
        }
        Ok(Waited::Done(Err(reason))) => format!("who holds it is not told: {reason}"),
        Ok(Waited::Late) => "who holds it is not told: the server does not answer".to_owned(),
        Err(error) => format!("who holds it is not told: {error}"),
    };
    Explained::Words(format!("{}: {words}", headline(refused)))
}

/// What was asked for, and that it was not to be had.
pub(super) fn headline(refused: &Refused<'_>) -> String {
    let names: Vec<String> = refused.names.iter().map(|name| printable_argument(name)).collect();
    let names = names.join(", ");
    match refused.waited {
        None => format!("{names}: busy"),
        Some((_, limit)) => format!("{names}: not had within {} s", limit.as_secs_f64()),
    }
}

/// Those of the locks that somebody holds or waits for, on one line.
fn of_locks(locks: &[&ListedLock], refused: &Refused<'_>, waited: Option<f64>) -> String {
    let is_held = locks.iter().any(|lock| lock.mode.is_some());
    match (&refused.not_yet, locks) {
        // While nobody holds it, that is the reason.
        (Some(reason), _) if !is_held => reason.clone(),
        (_, []) => "nobody holds it any more".to_owned(),
        (_, [lock]) if refused.names.len() == 1 => describe(lock, waited),
        (_, locks) => {
            let each = locks.iter().map(|lock| format!("{} is {}", name_of(lock), describe(lock, waited)));
            each.collect::<Vec<_>>().join("; ")
        }
    }
}

/// One lock, to somebody who has waited for it for so many seconds, or has not.
fn describe(lock: &ListedLock, waited: Option<f64>) -> String {
    let mut words = String::new();
    match lock.mode {
        Some(Mode::Exclusive) => words.push_str("held by "),
        Some(Mode::Shared) => words.push_str("held shared by "),
        None => words.push_str("held by nobody"),
    }
    let holders: Vec<String> = lock.holders.iter().take(NAMED).map(holder).collect();
    words.push_str(&holders.join(" and "));
    let unnamed = lock.holders.len() - holders.len() + lock.more_holders;
    if unnamed > 0 {
        words.push_str(&format!(" and {unnamed} more"));
    }
    let waiters = lock.waiters.len() + lock.more_waiters;
    match waited {
        None if waiters > 0 => words.push_str(&format!("; {waiters} waiting")),
        None => {}
        Some(waited) => {
            // First come, first served: who has waited longer stood in front.
            let ahead = lock.waiters.iter().filter(|waiter| waiter.waiting_for > waited).count();
            // Of those that the page has no room for, nobody knows.
            let may_be_more = ahead == lock.waiters.len() && lock.more_waiters > 0;
            let least = if may_be_more { " at least" } else { "" };
            words.push_str(&format!("; was{least} number {} of {} in the queue", ahead + 1, waiters + 1));
        }
    }
    words
}

fn holder(holder: &ListedHolder) -> String {
    let since = age(holder.held_for);
    let address = printable(holder.address.as_bytes());
    match &holder.name {
        Some(name) => format!("\"{}\" at {address} for {since}", printable(name.as_bytes())),
        None => format!("{address} for {since}"),
    }
}

#[cfg(test)]
mod tests {
    use lockd::broker::LockName;
    use lockd::wire::message::ListedWaiter;

    use super::*;

    fn lock(holders: usize, waiting: &[f64]) -> ListedLock {
        let holder = |number: usize| ListedHolder {
            address: format!("10.0.0.1:{number}"),
            name: (number == 0).then(|| "bob\x1b".to_owned()),
            token: 1,
            held_for: 61.0,
        };
        let waiter = |&waiting_for: &f64| ListedWaiter {
            address: "unix:1".to_owned(),
            name: None,
            mode: Mode::Shared,
            waiting_for,
        };
        ListedLock {
            mode: Some(Mode::Exclusive),
            holders: (0..holders).map(holder).collect(),
            waiters: waiting.iter().map(waiter).collect(),
            ..ListedLock::new(&LockName::from("a"))
        }
    }

    #[test]
    fn a_refusal_names_the_holder_and_those_who_wait() {
        let bob = "held by \"bob\\u{1b}\" at 10.0.0.1:0 for 1m01s";
        assert_eq!(describe(&lock(1, &[]), None), bob);
        assert_eq!(describe(&lock(1, &[1.0, 2.0]), None), format!("{bob}; 2 waiting"));
    }

    #[test]
    fn who_has_waited_is_told_the_place_in_the_queue() {
        let place = |waiting: &[f64]| {
            let words = describe(&lock(1, waiting), Some(5.0));
            words.rsplit_once("; ").unwrap().1.to_owned()
        };
        assert_eq!(place(&[]), "was number 1 of 1 in the queue");
        assert_eq!(place(&[9.0, 6.0, 1.0]), "was number 3 of 4 in the queue");
    }

    #[test]
    fn of_many_holders_some_are_named() {
        let words = describe(&lock(5, &[]), None);
        assert!(words.ends_with("and 10.0.0.1:2 for 1m01s and 2 more"), "{words}");
        let many = ListedLock { more_holders: 10, more_waiters: 20, ..lock(5, &[9.0, 7.0]) };
        let words = describe(&many, Some(8.0));
        assert!(words.ends_with(" and 12 more; was number 2 of 23 in the queue"), "{words}");
        let words = describe(&many, Some(5.0));
        assert!(words.ends_with("; was at least number 3 of 23 in the queue"), "{words}");
        let free = ListedLock { mode: None, ..lock(0, &[1.0]) };
        assert_eq!(describe(&free, None), "held by nobody; 1 waiting");
    }
}
