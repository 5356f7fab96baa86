//! The message for a lock that was not granted: its holders, their addresses, how long they have
//! held it, and the number of waiters. Turns a listing into one line of text; decides nothing.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lockd::Session;
use lockd::broker::Mode;
use lockd::wire::message::{ListedHolder, ListedLock, LockPage};
use nix::sys::signal::Signal;

use super::signals::SignalQueue;
use super::wait::{WaitOutcome, run_within};
use crate::cli::chain::waits_of_holders;
use crate::cli::text::{address_of, age, name_of, printable, printable_argument};

/// How long the server may take to list the locks.
const LIMIT: Duration = Duration::from_secs(2);
/// How many holders are named; a shared lock can have very many.
const NAMED: usize = 3;

pub(super) struct DeniedRequest<'a> {
    pub(super) names: &'a [OsString],
    pub(super) mode: Mode,
    /// When the wait began and how long it was; `None` if there was no wait.
    pub(super) waited: Option<(Instant, Duration)>,
    /// The server's reason for granting nothing at all at first, if it had one.
    pub(super) not_yet: Option<String>,
}

/// Asks the server which sessions hold the locks, and explains that. The holder may have released
/// the lock by now.
///
/// # Errors
/// If a signal arrives that ends a process.
pub(super) fn explain(
    denied: &DeniedRequest<'_>,
    urls: &str,
    session: &Arc<Session>,
    signals: &SignalQueue,
) -> Result<String, Signal> {
    let (thread_session, names) = (session.clone(), denied.names.to_vec());
    let listed =
        run_within(Some(LIMIT), Some(signals), "lockd-explain", move || list(&thread_session, &names));
    let text = match listed {
        Ok(WaitOutcome::Signal(signal)) => return Err(signal),
        Ok(WaitOutcome::Done(listed)) => describe_listed(listed, denied),
        Ok(WaitOutcome::Late) => "its holder is unknown: the server does not answer".to_owned(),
        Err(error) => format!("its holder is unknown: {error}"),
    };
    with_chain(format!("{}: {text}", headline(denied)), denied, urls, signals)
}

/// Whose the locks are now, on one line. Waits for the server's answer.
pub(super) fn describe_now(
    session: &Session,
    names: &[OsString],
    mode: Mode,
    not_yet: Option<String>,
) -> String {
    describe_listed(list(session, names), &DeniedRequest { names, mode, waited: None, not_yet })
}

/// Lists these locks: a page for each name.
fn list(session: &Session, names: &[OsString]) -> Result<Vec<LockPage>, String> {
    // The first of all names that begin with a name is that name itself.
    let page = |name: &OsString| session.list(name.as_bytes(), None, 1).map_err(|error| error.to_string());
    names.iter().map(page).collect()
}

fn describe_listed(listed: Result<Vec<LockPage>, String>, denied: &DeniedRequest<'_>) -> String {
    let pages = match listed {
        Ok(pages) => pages,
        Err(reason) => return format!("its holder is unknown: {reason}"),
    };
    let locks = pages.iter().zip(denied.names).filter_map(|(page, name)| {
        let lock = page.locks.first()?;
        (lock.name()?.as_bytes() == name.as_bytes()).then_some(lock)
    });
    let since = denied.waited.map(|(start, _)| start.elapsed().as_secs_f64());
    describe_all(&locks.collect::<Vec<_>>(), denied, since)
}

/// The names, and that they were busy or not acquired in time.
pub(super) fn headline(denied: &DeniedRequest<'_>) -> String {
    let names = printable_names(denied.names);
    match denied.waited {
        None => format!("{names}: busy"),
        Some((_, limit)) => format!("{names}: not acquired within {} s", limit.as_secs_f64()),
    }
}

pub(super) fn printable_names(names: &[OsString]) -> String {
    let names: Vec<String> = names.iter().map(|name| printable_argument(name)).collect();
    names.join(", ")
}

/// Describes the locks, all of which have holders or waiters, on one line.
fn describe_all(locks: &[&ListedLock], denied: &DeniedRequest<'_>, waited: Option<f64>) -> String {
    let is_held = locks.iter().any(|lock| lock.mode.is_some());
    match (&denied.not_yet, locks) {
        // If no session holds the lock, that is why it was not granted.
        (Some(reason), _) if !is_held => reason.clone(),
        (_, []) => "nobody holds it any more".to_owned(),
        (_, [lock]) if denied.names.len() == 1 => describe(lock, denied.mode, waited),
        (_, locks) => {
            let each = locks
                .iter()
                .map(|lock| format!("{} is {}", name_of(lock), describe(lock, denied.mode, waited)));
            each.collect::<Vec<_>>().join("; ")
        }
    }
}

/// Describes one lock for a request in `mode`. `waited` is how many seconds this process has waited
/// for it, if it has.
fn describe(lock: &ListedLock, mode: Mode, waited: Option<f64>) -> String {
    let mut text = String::new();
    match lock.mode {
        Some(Mode::Exclusive) => text.push_str("held by "),
        Some(Mode::Limited(limit)) => {
            text.push_str(&format!("held by {} of at most {}: ", lock.holder_count(), limit.get()));
        }
        Some(Mode::Shared) => text.push_str("held shared by "),
        None => text.push_str("held by nobody"),
    }
    let holders: Vec<String> = lock.holders.iter().take(NAMED).map(holder).collect();
    text.push_str(&holders.join(" and "));
    let unnamed = lock.holders.len() - holders.len() + lock.more_holders;
    if unnamed > 0 {
        text.push_str(&format!(" and {unnamed} more"));
    }
    // Otherwise there would seem to be a free slot.
    let is_stricter = lock.mode.is_some_and(|in_force| in_force.is_compatible_with(mode) && mode < in_force);
    if is_stricter {
        text.push_str(&format!("; this one asks for {mode}"));
    }
    let waiters = lock.waiters.len() + lock.more_waiters;
    match waited {
        None if waiters > 0 => text.push_str(&format!("; {waiters} waiting")),
        None => {}
        Some(waited) => {
            // Waiters that have waited longer were ahead in the queue.
            let ahead = lock.waiters.iter().filter(|waiter| waiter.waiting_for > waited).count();
            // How long the waiters have waited that are not on the page is unknown.
            let may_be_more = ahead == lock.waiters.len() && lock.more_waiters > 0;
            let least = if may_be_more { " at least" } else { "" };
            text.push_str(&format!("; was{least} number {} of {} in the queue", ahead + 1, waiters + 1));
        }
    }
    text
}

/// The text, and after a wait also what the holders wait for, if they wait for other locks.
///
/// # Errors
/// If a signal arrives that ends a process.
fn with_chain(
    text: String,
    denied: &DeniedRequest<'_>,
    urls: &str,
    signals: &SignalQueue,
) -> Result<String, Signal> {
    if denied.waited.is_none() {
        return Ok(text);
    }
    let (urls, names) = (urls.to_owned(), denied.names.to_vec());
    let ask = move || waits_of_holders(&urls, &names);
    match run_within(Some(LIMIT), Some(signals), "lockd-chain", ask) {
        Ok(WaitOutcome::Signal(signal)) => Err(signal),
        Ok(WaitOutcome::Done(Some(waits))) => Ok(format!("{text}; {waits}")),
        _ => Ok(text),
    }
}

fn holder(holder: &ListedHolder) -> String {
    let since = age(holder.held_for);
    let address = address_of(holder);
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
            limit: None,
            token: 1,
            held_for: 61.0,
            session: None,
            in_doubt: None,
        };
        let waiter = |&waiting_for: &f64| ListedWaiter {
            address: "unix:1".to_owned(),
            name: None,
            mode: Mode::Shared,
            waiting_for,
            session: None,
        };
        ListedLock {
            mode: Some(Mode::Exclusive),
            holders: (0..holders).map(holder).collect(),
            waiters: waiting.iter().map(waiter).collect(),
            ..ListedLock::new(&LockName::from("a"))
        }
    }

    #[test]
    fn the_text_names_the_holder_and_counts_the_waiters() {
        let bob = "held by \"bob\\u{1b}\" at 10.0.0.1:0 for 1m01s";
        assert_eq!(describe(&lock(1, &[]), Mode::Exclusive, None), bob);
        assert_eq!(describe(&lock(1, &[1.0, 2.0]), Mode::Exclusive, None), format!("{bob}; 2 waiting"));
        let mut in_doubt = lock(1, &[]);
        in_doubt.holders[0].in_doubt = Some(1.0);
        let told = describe(&in_doubt, Mode::Exclusive, None);
        assert!(told.ends_with("at 10.0.0.1:0 (in doubt) for 1m01s"), "{told}");
    }

    #[test]
    fn after_a_wait_the_text_says_the_place_in_the_queue() {
        let place = |waiting: &[f64]| {
            let text = describe(&lock(1, waiting), Mode::Exclusive, Some(5.0));
            text.rsplit_once("; ").unwrap().1.to_owned()
        };
        assert_eq!(place(&[]), "was number 1 of 1 in the queue");
        assert_eq!(place(&[9.0, 6.0, 1.0]), "was number 3 of 4 in the queue");
    }

    #[test]
    fn only_a_few_of_many_holders_are_named() {
        let text = describe(&lock(5, &[]), Mode::Exclusive, None);
        assert!(text.ends_with("and 10.0.0.1:2 for 1m01s and 2 more"), "{text}");
        let many = ListedLock { more_holders: 10, more_waiters: 20, ..lock(5, &[9.0, 7.0]) };
        let text = describe(&many, Mode::Exclusive, Some(8.0));
        assert!(text.ends_with(" and 12 more; was number 2 of 23 in the queue"), "{text}");
        let text = describe(&many, Mode::Exclusive, Some(5.0));
        assert!(text.ends_with("; was at least number 3 of 23 in the queue"), "{text}");
        let free = ListedLock { mode: None, ..lock(0, &[1.0]) };
        assert_eq!(describe(&free, Mode::Exclusive, None), "held by nobody; 1 waiting");
    }

    #[test]
    fn a_request_that_allows_fewer_holders_than_there_are_is_told_so() {
        let [two, four] = [2, 4].map(|limit| Mode::at_most(limit).unwrap());
        let limited = ListedLock { mode: Some(four), ..lock(3, &[]) };
        let told = describe(&limited, two, None);
        assert!(told.starts_with("held by 3 of at most 4: \"bob"), "{told}");
        assert!(told.ends_with("; this one asks for at most 2"), "{told}");
        for mode in [four, Mode::Shared, Mode::Exclusive] {
            assert!(!describe(&limited, mode, None).contains("this one asks"), "{mode}");
        }
    }
}
