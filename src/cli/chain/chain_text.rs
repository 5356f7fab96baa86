//! A chain for people: as a table with remarks below it, or as one line. Pure.

use super::follow::{Chain, ChainLink, ChainLock, ChainWait, WaitsBy};
use crate::cli::text::{age, printable};
use crate::cli::text_table::TextTable;

const HEADS: [&str; 6] = ["LOCK", "HOLDER", "OWNER", "HELD", "WAITED", "WAITS FOR"];
/// How many locks are named in one line.
const LINE_MAX: usize = 4;
/// What the end of a chain does.
const END: &str = "works, or waits for something that lockd does not see";
/// What is said of a session whose program may wait in another session.
const UNKNOWN_ELSEWHERE: &str = "no lock; whether its program waits in another session is unknown";
/// The same in one line.
const UNKNOWN_IN_LINE: &str = "waits for no lock, unless in another session, which is unknown";

impl ChainLock {
    /// The name, and for a limited lock how many hold it and how many may.
    fn printable(&self) -> String {
        let name = printable(self.key.1.as_bytes());
        match self.limit {
            Some(limit) => format!("{name} ({}/{limit})", self.holders.len() + self.more_holders),
            None => name,
        }
    }

    /// The first session that waits for another lock, and that wait.
    fn next_wait(&self) -> Option<(&ChainLink, &ChainWait)> {
        let other = |wait: &&ChainWait| wait.by != WaitsBy::Conversion;
        self.links().find_map(|link| Some((link, link.waits_for.iter().find(other)?)))
    }

    /// What there is in place of a holder, if none is shown.
    fn without_holder(&self) -> String {
        let state = match self.mode {
            Some("shared") => "held shared",
            Some(_) => "held exclusively",
            None if self.waiters == 0 => "free",
            None => "held by nobody",
        };
        match self.more_holders {
            0 => state.to_owned(),
            1 => format!("{state} by one session"),
            many => format!("{state} by {many} sessions"),
        }
    }
}

impl ChainWait {
    /// The lock, and the doubts there are.
    fn text_in_line(&self) -> String {
        if self.by == WaitsBy::Inside && !self.closes_circle {
            printable(self.key.1.as_bytes())
        } else {
            self.text()
        }
    }

    /// The lock, and how the wait is known.
    fn text(&self) -> String {
        let name = printable(self.key.1.as_bytes());
        let by = match self.by {
            WaitsBy::Session => "",
            WaitsBy::Conversion => {
                return match self.limit {
                    Some(limit) => format!("other holders, until there are {limit}"),
                    None => "the other holders, to be the only one".to_owned(),
                };
            }
            WaitsBy::Name => ", if the owner of the same name there is the same",
            WaitsBy::Inside => ", in a lockd run under it",
        };
        let circle = if self.closes_circle { ", which closes a circle" } else { "" };
        format!("{name}{by}{circle}")
    }
}

impl Chain {
    /// A table, and what is to be said about it.
    pub(in crate::cli) fn lines(&self) -> Vec<String> {
        let mut table = TextTable::with_heads(&HEADS);
        for lock in &self.locks {
            if lock.holders.is_empty() {
                let cells = [lock.printable(), lock.without_holder()];
                table.add(cells.into_iter().chain((0..4).map(|_| "-".to_owned())).collect());
            }
            lock.holders.iter().for_each(|link| add_rows(&mut table, lock, link));
            if lock.more_holders > 0 && !lock.holders.is_empty() {
                table.add(vec![lock.printable(), format!("and {} more", lock.more_holders)]);
            }
            lock.first_waiter.iter().for_each(|link| add_rows(&mut table, lock, link));
        }
        let mut lines = table.take_lines();
        if self.more {
            lines.push(format!("The chain goes on: only the first {} locks are shown.", self.locks.len()));
        }
        if self.waits().any(|wait| wait.closes_circle) {
            lines.push(self.about_circles().to_owned());
        }
        lines.extend(self.long_queues.clone());
        lines
    }

    fn waits(&self) -> impl Iterator<Item = &ChainWait> {
        self.locks.iter().flat_map(ChainLock::links).flat_map(|link| &link.waits_for)
    }

    /// A server refuses each wait that closes a circle of its own sessions, if each of them waits
    /// for one that must go first. For a limited lock any holder will do.
    fn about_circles(&self) -> &'static str {
        let is_limited = self.locks.iter().any(|lock| lock.limit.is_some())
            || self.waits().any(|wait| wait.limit.is_some());
        if is_limited {
            "A circle over a limited lock is a deadlock only if all its holders wait in the circle. A server does \
             not see that: it lasts until one of these waits ends. Or the locks have changed meanwhile: ask again."
        } else if self.waits().any(|wait| matches!(wait.by, WaitsBy::Name | WaitsBy::Inside)) {
            "A circle over several servers, or over a lockd run under another one, is a deadlock that no server \
             sees: it lasts until one of these waits ends. Or the locks have changed meanwhile: ask again."
        } else {
            "A server lets no sessions wait in a circle: the locks have changed while they were listed. Ask again."
        }
    }

    /// What a holder of the first lock waits for, who holds that, and so on; `None` if no holder
    /// waits for another lock.
    pub(super) fn line(&self) -> Option<String> {
        let first = self.locks.first()?;
        let (link, mut wait) = first.next_wait()?;
        let is_only = first.holders.len() + first.more_holders == 1 && link.held_for.is_some();
        let waiting = if is_only { "the holder".to_owned() } else { who(link) };
        let mut text = format!("{waiting} waits for {}", wait.text_in_line());
        for _ in 1..LINE_MAX {
            if wait.closes_circle {
                return Some(text);
            }
            let Some(lock) = self.locks.iter().find(|lock| lock.key == wait.key) else { break };
            let Some(holder) = lock.links().find(|link| !link.waits_for.is_empty()).or(lock.links().next())
            else {
                return Some(format!("{text}, {}", lock.without_holder()));
            };
            let held = match holder.held_for {
                Some(seconds) => format!("held by {} for {}", who(holder), age(seconds)),
                None => format!("for which {} is next", who(holder)),
            };
            let holders = lock.holders.len() + lock.more_holders;
            let others = if holders > 1 { format!(" and {} more", holders - 1) } else { String::new() };
            text.push_str(&format!(", {held}{others}"));
            let Some((_, further)) = lock.next_wait() else {
                let end = if holder.may_wait_elsewhere { UNKNOWN_IN_LINE } else { END };
                return Some(format!("{text}, which {end}"));
            };
            text.push_str(&format!(", which waits for {}", further.text_in_line()));
            wait = further;
        }
        Some(format!("{text}, and so on (see lockd inspect --chain)"))
    }
}

/// The session with its name, if it has one.
fn who(link: &ChainLink) -> String {
    let address = printable(link.address.as_bytes());
    match &link.name {
        Some(name) => format!("\"{}\" at {address}", printable(name.as_bytes())),
        None => address,
    }
}

/// A row for each lock that the session waits for, or one if it waits for none.
fn add_rows(table: &mut TextTable, lock: &ChainLock, link: &ChainLink) {
    let name = link.name.as_deref().map_or_else(|| "-".to_owned(), |name| printable(name.as_bytes()));
    let held = link.held_for.map_or_else(|| "is next".to_owned(), age);
    let address = printable(link.address.as_bytes());
    let row = |waited: String, waits_for: String| {
        vec![lock.printable(), address.clone(), name.clone(), held.clone(), waited, waits_for]
    };
    for wait in &link.waits_for {
        table.add(row(age(wait.waiting_for), wait.text()));
    }
    let end = match link.held_for {
        _ if link.may_wait_elsewhere => UNKNOWN_ELSEWHERE.to_owned(),
        Some(_) => format!("no lock: it {END}"),
        // Otherwise it would have the lock.
        None => "another lock, which is not listed".to_owned(),
    };
    if link.waits_for.is_empty() {
        table.add(row("-".to_owned(), end));
    }
}

#[cfg(test)]
mod tests {
    use lockd::broker::{LockName, Mode};
    use lockd::wire::message::{ListedHolder, ListedLock, ListedWaiter};

    use super::*;
    use crate::cli::chain::Listings;

    fn lock(name: &str, holder: (u64, &str), waiters: &[(u64, &str)]) -> ListedLock {
        let waiter = |&(number, name): &(u64, &str)| ListedWaiter {
            address: format!("10.0.0.1:{number}"),
            name: Some(name.to_owned()),
            mode: Mode::Exclusive,
            waiting_for: 170.0,
            session: Some(number),
        };
        let holder = ListedHolder {
            address: format!("10.0.0.1:{}", holder.0),
            name: Some(holder.1.to_owned()),
            limit: None,
            token: 1,
            held_for: 182.0,
            session: Some(holder.0),
            in_doubt: None,
        };
        ListedLock {
            mode: Some(Mode::Exclusive),
            holders: vec![holder],
            waiters: waiters.iter().map(waiter).collect(),
            ..ListedLock::new(&LockName::from(name))
        }
    }

    fn chain(locks: Vec<ListedLock>) -> Chain {
        Chain::of(&LockName::from("deploy"), &Listings::of("tcp://one", vec![locks]))
    }

    #[test]
    fn a_chain_is_a_table_for_people_and_a_line_for_a_message() {
        let bob = lock("deploy", (1, "bob\x1b"), &[]);
        let found = chain(vec![bob.clone(), lock("db\n", (2, "anna"), &[(1, "bob\x1b")])]);
        assert_eq!(
            found.lines(),
            [
                "LOCK    HOLDER      OWNER      HELD   WAITED  WAITS FOR",
                "deploy  10.0.0.1:1  bob\\u{1b}  3m02s  2m50s   db\\n",
                "db\\n    10.0.0.1:2  anna       3m02s  -       no lock: it works, or waits for something that lockd does not see",
            ]
        );
        assert_eq!(
            found.line().unwrap(),
            "the holder waits for db\\n, held by \"anna\" at 10.0.0.1:2 for 3m02s, which works, or waits for \
             something that lockd does not see"
        );
        assert_eq!(chain(vec![bob]).line(), None);
        assert!(chain(vec![]).lines()[1].starts_with("deploy  free    -"));
    }

    #[test]
    fn a_circle_over_a_limited_lock_is_not_said_to_be_a_deadlock_for_sure() {
        let two = Mode::at_most(2);
        let limited = ListedLock { mode: two, more_holders: 1, ..lock("deploy", (1, "bob"), &[(2, "anna")]) };
        let mut narrows = lock("db", (2, "anna"), &[(1, "bob"), (2, "anna")]);
        narrows.mode = Some(Mode::Shared);
        narrows.waiters[1].mode = two.unwrap();
        let lines = chain(vec![limited, narrows]).lines();
        assert!(lines[1].starts_with("deploy (2/2)  "), "{lines:?}");
        assert!(lines.iter().any(|line| line.ends_with("  other holders, until there are 2")), "{lines:?}");
        let last = lines.last().unwrap();
        assert!(last.starts_with("A circle over a limited lock is a deadlock only if"), "{lines:?}");
    }

    #[test]
    fn a_circle_is_said_to_be_one() {
        let found =
            chain(vec![lock("deploy", (1, "bob"), &[(2, "anna")]), lock("db", (2, "anna"), &[(1, "bob")])]);
        let lines = found.lines();
        assert!(lines[2].ends_with("  deploy, which closes a circle"), "{lines:?}");
        assert!(lines[3].starts_with("A server lets no sessions wait in a circle"), "{lines:?}");
        let line = found.line().unwrap();
        assert!(line.ends_with("which waits for deploy, which closes a circle"), "{line}");
    }
}
