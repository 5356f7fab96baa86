//! `lockd inspect`: one lock with all holders, its queue in order, and why each waiter waits.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use clap::Args;
use lockd::Session;
use lockd::broker::{LockName, Mode};
use lockd::wire::message::ListedLock;

use crate::cli::chain::{Chain, Listings};
use crate::cli::server_option::ServerOption;
use crate::cli::show::list::owner;
use crate::cli::show::{LIMIT, ShowError, Unreachable, connect, finish, servers};
use crate::cli::text::{age, harmless, name_of, printable};
use crate::cli::text_table::TextTable;

const CHAIN_HELP: &str = "\
With --chain, one line for each lock and holder: first NAME, then each lock that a holder of one before it waits for. A \
holder that waits for no lock is the end of the chain: it works, or waits for something that lockd does not see. A holder that is \
a lockd run also waits for what a lockd run in its command waits for, at any depth, unless that runs in a container or on another host. With several servers, a holder is found on the \
others by its owner, if only one session there has that name. Of a holder without a name (as on a server with --no-registry), and if a server does not answer, it is said that more is unknown. At most 100 locks are shown, and 20 holders of each.

With --chain --json one object: {\"locks\":[...],\"more\":...}, each lock with its holders, and with each holder what \
it waitsFor; more is true if the chain goes on; unknown says what no server told.

The exit status is 1 if a server does not answer, or does not list locks (--no-dump).";

/// Which lock to inspect.
#[derive(Args, Debug)]
#[command(after_help = CHAIN_HELP)]
pub(crate) struct InspectOptions {
    /// The lock
    #[arg(value_name = "NAME")]
    name: OsString,

    /// Follow the holders: what each of them waits for, who holds that, and so on to the end
    #[arg(long)]
    chain: bool,

    /// Write JSON: the lock as the protocol's list has it, or the chain
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    at: ServerOption,
}

pub(crate) fn inspect(options: &InspectOptions) -> ExitCode {
    finish(if options.chain { follow(options) } else { show(options) })
}

/// Shows the chain as far as it is known, and then what is not known.
fn follow(options: &InspectOptions) -> Result<(), ShowError> {
    let servers = servers(&options.at)?;
    let name = LockName::new(options.name.as_bytes());
    let listings = Listings::gather(&servers, std::slice::from_ref(&name), LIMIT);
    let chain = Chain::of(&name, &listings);
    // Of a server that tells nothing about the lock itself there is nothing to show.
    if chain.is_about_something() {
        let mut out = io::stdout().lock();
        if options.json {
            let json = serde_json::to_string(&chain).map_err(io::Error::from)?;
            writeln!(out, "{}", harmless(&json))?;
        } else {
            chain.lines().iter().try_for_each(|line| writeln!(out, "{line}"))?;
        }
    }
    Unreachable(listings.gaps()).into_result()
}

fn show(options: &InspectOptions) -> Result<(), ShowError> {
    let (session, unreachable) = connect(&options.at)?;
    let name = LockName::new(options.name.as_bytes());
    if !unreachable.0.is_empty() {
        // Fails if the name belongs to an unreachable server: the others know nothing about it.
        Session::connect(&options.at.urls, None, LIMIT)?.inspect(name.as_bytes())?;
    }
    // Among all names that begin with a name, the name itself is the first.
    let page = session.list(name.as_bytes(), None, 1)?;
    let listed = page.locks.into_iter().find(|lock| lock.name().as_ref() == Some(&name));
    let lock = match listed {
        Some(lock) => lock,
        // A lock that nobody holds or waits for is not listed.
        None => {
            let orphaned = session.inspect(name.as_bytes())?.orphaned;
            ListedLock { orphaned, ..ListedLock::new(&name) }
        }
    };
    let mut out = io::stdout().lock();
    if options.json {
        let json = serde_json::to_string(&lock).map_err(io::Error::from)?;
        writeln!(out, "{}", harmless(&json))?;
    } else {
        for line in describe(&lock) {
            writeln!(out, "{line}")?;
        }
    }
    unreachable.into_result()
}

fn describe(lock: &ListedLock) -> Vec<String> {
    let state = match lock.mode {
        Some(Mode::Exclusive) => "held exclusively".to_owned(),
        Some(Mode::Limited(limit)) => {
            let holders = lock.holder_count();
            let free = (limit.get() as usize).saturating_sub(holders);
            format!("held by {holders} of at most {}, {free} free", limit.get())
        }
        Some(Mode::Shared) => "held shared".to_owned(),
        None if lock.waiters.is_empty() => "free".to_owned(),
        None => "held by nobody, and waited for".to_owned(),
    };
    let mut lines = vec![format!("{}: {state}", name_of(lock))];
    if lock.orphaned {
        lines.push("orphaned: the previous exclusive holder vanished without releasing it".to_owned());
    }
    if !lock.holders.is_empty() {
        let is_limited = matches!(lock.mode, Some(Mode::Limited(_)));
        let heads = ["HOLDER", "OWNER", "HELD", "TOKEN", "AT MOST"];
        let columns = heads.len() - usize::from(!is_limited);
        let mut table = TextTable::with_heads(&heads[..columns]);
        for holder in &lock.holders {
            let address = printable(holder.address.as_bytes());
            let (since, token) = (age(holder.held_for), holder.token.to_string());
            let limit = holder.limit.map_or_else(|| "-".to_owned(), |limit| limit.to_string());
            let mut row = vec![address, owner(holder.name.as_deref()), since, token, limit];
            row.truncate(columns);
            table.add(row);
        }
        lines.push(String::new());
        lines.extend(table.take_lines());
        lines.extend(unlisted(lock.more_holders));
    }
    if !lock.waiters.is_empty() {
        let mut table = TextTable::with_heads(&["QUEUE", "WAITER", "OWNER", "WAITED", "WANTS", "WAITS FOR"]);
        for (place, waiter) in lock.waiters.iter().enumerate() {
            table.add(vec![
                (place + 1).to_string(),
                printable(waiter.address.as_bytes()),
                owner(waiter.name.as_deref()),
                age(waiter.waiting_for),
                waiter.mode.to_string(),
                waits_for(lock, place),
            ]);
        }
        lines.push(String::new());
        lines.extend(table.take_lines());
        lines.extend(unlisted(lock.more_waiters));
    }
    lines
}

/// A line for holders or waiters that did not fit on the server's page, if there are any.
fn unlisted(more: usize) -> Option<String> {
    (more > 0).then(|| format!("and {more} more"))
}

/// What the waiter at this place in the queue waits for.
fn waits_for(lock: &ListedLock, place: usize) -> String {
    let Some(waiter) = lock.waiters.get(place) else { return String::new() };
    if lock.holders.iter().any(|holder| holder.address == waiter.address) {
        return match waiter.mode.limit() {
            Some(limit) => format!("other holders, until there are {limit}"),
            None => "the other holders, to be the only one".to_owned(),
        };
    }
    let in_front = &lock.waiters[..place];
    // Any number of waiters for a shared lock can hold it together, so a waiter in front is in the
    // way only if one of the two is not shared.
    let in_the_way =
        in_front.iter().rposition(|other| waiter.mode != Mode::Shared || other.mode != Mode::Shared);
    match in_the_way {
        Some(other) => format!("number {} in the queue", other + 1),
        None if lock.admits(waiter.mode) => "another name, which it wants at the same time".to_owned(),
        None if lock.mode.is_some_and(|mode| mode.is_compatible_with(waiter.mode)) => {
            let allowed = lock.mode.map_or(waiter.mode, |mode| mode.min(waiter.mode)).holders_max();
            match allowed.map_or(1, |allowed| (lock.holder_count() + 1).saturating_sub(allowed as usize)) {
                1 => "a holder, whichever is first to release".to_owned(),
                many => format!("{many} of the holders, whichever are first to release"),
            }
        }
        None if lock.holder_count() == 1 => "the holder".to_owned(),
        None => "the holders".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use lockd::wire::message::{ListedHolder, ListedWaiter};

    use super::*;

    const X: Mode = Mode::Exclusive;
    const S: Mode = Mode::Shared;

    /// A lock held by the addresses `h0`, `h1` and so on, with these waiters.
    fn lock(mode: Option<Mode>, holders: usize, waiters: &[(&str, Mode)]) -> ListedLock {
        let holder = |number: usize| ListedHolder {
            address: format!("h{number}"),
            name: None,
            limit: None,
            token: 5,
            held_for: 1.0,
            session: None,
            in_doubt: None,
        };
        let waiter = |&(address, mode): &(&str, Mode)| ListedWaiter {
            address: address.to_owned(),
            name: Some("bob".to_owned()),
            mode,
            waiting_for: 1.0,
            session: None,
        };
        ListedLock {
            mode,
            holders: (0..holders).map(holder).collect(),
            waiters: waiters.iter().map(waiter).collect(),
            ..ListedLock::new(&LockName::from("a"))
        }
    }

    fn reasons(lock: &ListedLock) -> Vec<String> {
        (0..lock.waiters.len()).map(|place| waits_for(lock, place)).collect()
    }

    #[test]
    fn each_waiter_is_shown_what_it_waits_for() {
        let held = lock(Some(X), 1, &[("a", X), ("b", S), ("c", S), ("d", X)]);
        let expected =
            ["the holder", "number 1 in the queue", "number 1 in the queue", "number 3 in the queue"];
        assert_eq!(reasons(&held), expected);
        let shared = lock(Some(S), 2, &[("a", X), ("b", S)]);
        assert_eq!(reasons(&shared), ["the holders", "number 1 in the queue"]);
        let set = lock(None, 0, &[("a", S), ("b", X)]);
        let another = "another name, which it wants at the same time";
        assert_eq!(reasons(&set), [another, "number 1 in the queue"]);
        assert_eq!(reasons(&lock(Some(S), 1, &[("a", S)])), [another]);
        let upgrade = lock(Some(S), 2, &[("h1", X)]);
        assert_eq!(reasons(&upgrade), ["the other holders, to be the only one"]);
    }

    #[test]
    fn a_limited_lock_is_described_with_its_limit_and_its_free_slots() {
        let (two, four) = (Mode::at_most(2).unwrap(), Mode::at_most(4).unwrap());
        let full = lock(Some(two), 2, &[("h1", X), ("a", four), ("b", S)]);
        let expected =
            ["the other holders, to be the only one", "number 1 in the queue", "number 2 in the queue"];
        assert_eq!(reasons(&full), expected);
        assert_eq!(reasons(&lock(Some(two), 2, &[("a", S)])), ["a holder, whichever is first to release"]);
        assert_eq!(reasons(&lock(Some(S), 3, &[("h1", two)])), ["other holders, until there are 2"]);
        let narrower = reasons(&lock(Some(four), 3, &[("a", two)]));
        assert_eq!(narrower, ["2 of the holders, whichever are first to release"]);
        let mut limited = lock(Some(four), 3, &[("w", X)]);
        limited.holders[1].limit = Some(4);
        let expected = [
            "a: held by 3 of at most 4, 1 free",
            "",
            "HOLDER  OWNER  HELD  TOKEN  AT MOST",
            "h0      -      1.0s  5      -",
            "h1      -      1.0s  5      4",
            "h2      -      1.0s  5      -",
            "",
            "QUEUE  WAITER  OWNER  WAITED  WANTS      WAITS FOR",
            "1      w       bob    1.0s    exclusive  the holders",
        ];
        assert_eq!(describe(&limited), expected);
    }

    #[test]
    fn a_lock_is_described_with_its_holders_and_its_queue() {
        let lines = describe(&ListedLock { orphaned: true, ..lock(Some(X), 1, &[("w", S)]) });
        let expected = [
            "a: held exclusively",
            "orphaned: the previous exclusive holder vanished without releasing it",
            "",
            "HOLDER  OWNER  HELD  TOKEN",
            "h0      -      1.0s  5",
            "",
            "QUEUE  WAITER  OWNER  WAITED  WANTS   WAITS FOR",
            "1      w       bob    1.0s    shared  the holder",
        ];
        assert_eq!(lines, expected);
        assert_eq!(describe(&lock(None, 0, &[])), ["a: free"]);
        let crowded = ListedLock { more_holders: 3, more_waiters: 400, ..lock(Some(S), 1, &[("w", X)]) };
        let lines = describe(&crowded);
        assert_eq!([&lines[4], &lines[8]], ["and 3 more", "and 400 more"]);
    }
}
