//! The chain of one lock, from what the servers have listed. Pure; asks no server.
//!
//! A holder waits for what its session waits for. Sessions of one program on several servers have
//! nothing in common but the name that they have registered, so on other servers that name is
//! followed, if only one session has it there. And a holder that is a `lockd run` waits for what a
//! `lockd run` in its command waits for, which says so in its name.

use std::collections::{HashMap, HashSet, VecDeque};

use lockd::broker::{LockName, Mode};
use lockd::wire::message::{ListedHolder, ListedLock, ListedWaiter};
use serde::Serialize;

use super::gather::Listings;
use crate::cli::owner_name::{is_inside, is_nested};

/// How many locks a chain has at most.
const LOCKS_MAX: usize = 100;
/// How many holders of one lock are shown; a shared lock can have very many.
const HOLDERS_MAX: usize = 20;

/// A lock, and each lock that a holder of one before it waits for.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::cli) struct Chain {
    /// The lock that was asked for is the first.
    pub(super) locks: Vec<ChainLock>,
    /// Whether the chain goes on after these locks.
    pub(super) more: bool,
    /// What the servers did not tell, for people.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) unknown: Vec<String>,
    /// That waits were left out because there are too many, for people.
    #[serde(skip)]
    pub(super) long_queues: Option<String>,
    #[serde(skip)]
    is_start_known: bool,
}

/// One lock of the chain.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ChainLock {
    #[serde(skip)]
    pub(super) key: LockKey,
    pub(super) lock_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lock_name_hex: Option<String>,
    /// The server that listed it.
    pub(super) server: String,
    /// `exclusive` or `shared`; `None` if nobody holds it.
    pub(super) mode: Option<&'static str>,
    pub(super) orphaned: bool,
    /// Those that wait come first.
    pub(super) holders: Vec<ChainLink>,
    /// The number of holders that are left out.
    pub(super) more_holders: usize,
    /// The first waiter, if the lock could be granted to it, so that it waits for another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) first_waiter: Option<ChainLink>,
    /// The number of waiters.
    pub(super) waiters: usize,
}

impl ChainLock {
    /// The sessions that a request for the lock waits for.
    pub(super) fn links(&self) -> impl Iterator<Item = &ChainLink> {
        self.holders.iter().chain(&self.first_waiter)
    }
}

/// One session that has a lock, or is the next to get it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ChainLink {
    pub(super) address: String,
    pub(super) name: Option<String>,
    /// The seconds since it acquired the lock; `None` if it is the first waiter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) held_for: Option<f64>,
    /// What it waits for; empty at the end of the chain.
    pub(super) waits_for: Vec<ChainWait>,
    /// Whether it is unknown which waits on other servers are its own: it has no name there, or
    /// shares it with others.
    #[serde(skip_serializing_if = "is_false")]
    pub(super) may_wait_elsewhere: bool,
}

/// For `skip_serializing_if`, which passes a reference.
fn is_false(value: &bool) -> bool {
    !*value
}

/// A wait of a holder.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ChainWait {
    #[serde(skip)]
    pub(super) key: LockKey,
    pub(super) lock_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) lock_name_hex: Option<String>,
    pub(super) waiting_for: f64,
    pub(super) by: WaitsBy,
    /// Whether the holder of that lock waits, over others or not, for this one.
    pub(super) closes_circle: bool,
}

/// How it is known that a holder waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum WaitsBy {
    /// The session that holds the one lock waits for the other.
    Session,
    /// It waits for the lock that it holds: for the other holders to go.
    Conversion,
    /// A session of the same name waits on another server.
    Name,
    /// A `lockd run` in the command of the one that holds the lock waits.
    Inside,
}

/// A lock by its server's index and its name.
pub(super) type LockKey = (usize, LockName);

/// The session of a holder or waiter: its number, or else its address and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum PartyKey {
    Number(u64),
    Address(String, Option<String>),
}

impl PartyKey {
    fn new(session: Option<u64>, address: &str, name: Option<&String>) -> Self {
        session.map_or_else(|| Self::Address(address.to_owned(), name.cloned()), Self::Number)
    }

    fn of_holder(holder: &ListedHolder) -> Self {
        Self::new(holder.session, &holder.address, holder.name.as_ref())
    }

    fn of_waiter(waiter: &ListedWaiter) -> Self {
        Self::new(waiter.session, &waiter.address, waiter.name.as_ref())
    }
}

/// A place in a queue.
#[derive(Clone, Copy)]
struct Place<'a> {
    server: usize,
    lock: &'a ListedLock,
    waiter: &'a ListedWaiter,
}

/// The waits on all servers, by what they can be found by.
struct Waits<'a> {
    are_several_servers: bool,
    by_session: HashMap<(usize, PartyKey), Vec<Place<'a>>>,
    /// By the name that the waiter has registered.
    by_name: HashMap<&'a str, Vec<Place<'a>>>,
    /// Those of a `lockd run` that runs in the command of another one.
    nested: Vec<Place<'a>>,
}

impl<'a> Waits<'a> {
    fn of(listings: &'a Listings) -> Self {
        let mut waits = Self {
            are_several_servers: listings.are_several(),
            by_session: HashMap::new(),
            by_name: HashMap::new(),
            nested: Vec::new(),
        };
        for (server, listing) in listings.listed.iter().enumerate() {
            // The lock that was asked for is there twice if it has waiters.
            let mut seen = HashSet::new();
            for lock in listing.locks.iter().filter(|lock| seen.insert(lock.name())) {
                for waiter in &lock.waiters {
                    let place = Place { server, lock, waiter };
                    let session = (server, PartyKey::of_waiter(waiter));
                    waits.by_session.entry(session).or_default().push(place);
                    let Some(name) = waiter.name.as_deref() else { continue };
                    waits.by_name.entry(name).or_default().push(place);
                    if is_nested(name) {
                        waits.nested.push(place);
                    }
                }
            }
        }
        waits
    }

    /// What a session waits for that holds the lock of this key, or is the first to get it.
    fn of_party(&self, at: &LockKey, party: PartyKey, name: Option<&str>, holds: bool) -> Vec<ChainWait> {
        let server = at.0;
        let mut found = Vec::new();
        let mut add = |place: &Place<'_>, by| {
            let Some(name) = place.lock.name() else { return };
            let key = (place.server, name);
            let is_this = key == *at;
            if is_this && !holds || found.iter().any(|wait: &ChainWait| wait.key == key) {
                return;
            }
            found.push(ChainWait {
                key,
                lock_name: place.lock.lock_name.clone(),
                lock_name_hex: place.lock.lock_name_hex.clone(),
                waiting_for: place.waiter.waiting_for,
                by: if is_this && by == WaitsBy::Session { WaitsBy::Conversion } else { by },
                closes_circle: false,
            });
        };
        let own = self.by_session.get(&(server, party));
        own.into_iter().flatten().for_each(|place| add(place, WaitsBy::Session));
        let Some(name) = name else { return found };
        let elsewhere = self.elsewhere(server, name);
        let only = elsewhere.iter().filter(|place| sessions(&elsewhere, place.server) == 1);
        only.for_each(|place| add(place, WaitsBy::Name));
        let is_inside =
            |place: &&Place<'_>| place.waiter.name.as_deref().is_some_and(|of| is_inside(of, name));
        self.nested.iter().filter(is_inside).for_each(|place| add(place, WaitsBy::Inside));
        found
    }

    /// The waits on other servers of sessions with this name.
    fn elsewhere(&self, server: usize, name: &str) -> Vec<&Place<'a>> {
        self.by_name.get(name).into_iter().flatten().filter(|place| place.server != server).collect()
    }

    fn may_wait_elsewhere(&self, server: usize, name: Option<&str>) -> bool {
        let Some(name) = name else { return self.are_several_servers };
        let elsewhere = self.elsewhere(server, name);
        elsewhere.iter().any(|place| sessions(&elsewhere, place.server) > 1)
    }
}

/// How many sessions on this server have these waits. Several sessions of one name are several
/// programs, and any of them may be the one that is looked for.
fn sessions(places: &[&Place<'_>], server: usize) -> usize {
    let there = places.iter().filter(|place| place.server == server);
    there.map(|place| PartyKey::of_waiter(place.waiter)).collect::<HashSet<_>>().len()
}

impl Chain {
    /// The chain that begins with the lock of this name.
    pub(in crate::cli) fn of(name: &LockName, listings: &Listings) -> Self {
        let mut locks: HashMap<LockKey, &ListedLock> = HashMap::new();
        for (server, listing) in listings.listed.iter().enumerate() {
            for lock in &listing.locks {
                if let Some(name) = lock.name() {
                    locks.entry((server, name)).or_insert(lock);
                }
            }
        }
        let waits = Waits::of(listings);
        let server = listings.server_of(name);
        let start = (server, name.clone());
        let counted = counted(&start, listings);
        let (mut seen, mut to_do) = (HashSet::from([start.clone()]), VecDeque::from([start]));
        let mut chain = Vec::new();
        while let Some(key) = to_do.pop_front() {
            if chain.len() == LOCKS_MAX {
                to_do.push_front(key);
                break;
            }
            let server = listings.listed.get(key.0).map_or("", |server| server.url.as_str());
            let lock = chain_lock(&key, locks.get(&key).map_or(&counted, |&lock| lock), server, &waits);
            for wait in lock.links().flat_map(|link| &link.waits_for) {
                if seen.insert(wait.key.clone()) {
                    to_do.push_back(wait.key.clone());
                }
            }
            chain.push(lock);
        }
        mark_circles(&mut chain);
        let long_queues = long_queues(listings);
        let mut unknown = listings.gaps();
        unknown.extend(long_queues.clone());
        Self {
            locks: chain,
            more: !to_do.is_empty(),
            unknown,
            long_queues,
            is_start_known: listings.listed.get(server).is_some_and(|listing| listing.has_told),
        }
    }

    /// Whether the server of the lock has told anything about it, and be it that it is free.
    pub(in crate::cli) fn is_about_something(&self) -> bool {
        self.is_start_known
    }
}

/// A lock that is not listed: free, unless its server tells only numbers.
fn counted((server, name): &LockKey, listings: &Listings) -> ListedLock {
    let counts = listings.listed.get(*server).and_then(|listing| {
        listing.counts.iter().find_map(|(counted, seen)| (counted == name).then_some(seen))
    });
    let free = ListedLock::new(name);
    let Some(seen) = counts else { return free };
    let (mode, orphaned) = (seen.mode, seen.orphaned);
    ListedLock { mode, orphaned, more_holders: seen.holders, more_waiters: seen.waiters, ..free }
}

/// The lock with the sessions that a request for it waits for, and their waits.
fn chain_lock(key: &LockKey, lock: &ListedLock, server: &str, waits: &Waits<'_>) -> ChainLock {
    let link = |address: &String, name: &Option<String>, party, held_for: Option<f64>| ChainLink {
        address: address.clone(),
        name: name.clone(),
        held_for,
        waits_for: waits.of_party(key, party, name.as_deref(), held_for.is_some()),
        may_wait_elsewhere: waits.may_wait_elsewhere(key.0, name.as_deref()),
    };
    let holder = |holder: &ListedHolder| {
        link(&holder.address, &holder.name, PartyKey::of_holder(holder), Some(holder.held_for))
    };
    let waiter =
        |waiter: &ListedWaiter| link(&waiter.address, &waiter.name, PartyKey::of_waiter(waiter), None);
    let mut holders: Vec<ChainLink> = lock.holders.iter().map(holder).collect();
    // The sort is stable: apart from that they stay in the order in which they acquired it.
    holders.sort_by_key(|link| link.waits_for.is_empty());
    holders.truncate(HOLDERS_MAX);
    let can_be_next = |waiter: &&ListedWaiter| match lock.mode {
        None => true,
        Some(mode) => mode == Mode::Shared && waiter.mode == Mode::Shared,
    };
    ChainLock {
        key: key.clone(),
        lock_name: lock.lock_name.clone(),
        lock_name_hex: lock.lock_name_hex.clone(),
        server: server.to_owned(),
        mode: lock.mode.map(|mode| if mode == Mode::Exclusive { "exclusive" } else { "shared" }),
        orphaned: lock.orphaned,
        more_holders: lock.holders.len() + lock.more_holders - holders.len(),
        holders,
        first_waiter: lock.waiters.first().filter(can_be_next).map(waiter),
        waiters: lock.waiters.len() + lock.more_waiters,
    }
}

/// Marks the waits by which a lock leads back to itself.
fn mark_circles(chain: &mut [ChainLock]) {
    let index: HashMap<LockKey, usize> = chain.iter().map(|lock| lock.key.clone()).zip(0..).collect();
    let edges = |lock: &ChainLock| -> Vec<usize> {
        let waits = lock.links().flat_map(|link| &link.waits_for);
        let others = waits.filter(|wait| wait.by != WaitsBy::Conversion);
        others.filter_map(|wait| index.get(&wait.key).copied()).collect()
    };
    let edges: Vec<Vec<usize>> = chain.iter().map(edges).collect();
    let leads_to = |from: usize, to: usize| {
        let (mut seen, mut to_do) = (HashSet::from([from]), vec![from]);
        while let Some(at) = to_do.pop() {
            if at == to {
                return true;
            }
            to_do.extend(edges[at].iter().filter(|&&next| seen.insert(next)));
        }
        false
    };
    for (at, lock) in chain.iter_mut().enumerate() {
        let links = lock.holders.iter_mut().chain(&mut lock.first_waiter);
        for wait in links.flat_map(|link| &mut link.waits_for) {
            // Only the waits that lead back: those that lead on are part of the circle, too.
            let back = index.get(&wait.key).filter(|&&to| to <= at);
            wait.closes_circle = wait.by != WaitsBy::Conversion && back.is_some_and(|&to| leads_to(to, at));
        }
    }
}

/// That some queues are longer than what a server lists of them, if there are any.
fn long_queues(listings: &Listings) -> Option<String> {
    let locks = listings.listed.iter().flat_map(|listing| &listing.locks);
    let cut: HashSet<&str> =
        locks.filter(|lock| lock.more_waiters > 0).map(|lock| lock.lock_name.as_str()).collect();
    let queues = match cut.len() {
        0 => return None,
        1 => "One queue is".to_owned(),
        many => format!("{many} queues are"),
    };
    Some(format!("{queues} too long to be listed whole: a holder may wait there without being seen."))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "tcp://one";
    const TWO: &str = "tcp://one,tcp://two";

    /// The number and name of a session.
    type Party<'a> = (u64, Option<&'a str>);

    fn lock(name: &str, mode: Option<Mode>, holders: &[Party<'_>], waiters: &[Party<'_>]) -> ListedLock {
        let holder = |&(number, name): &Party<'_>| ListedHolder {
            address: format!("h{number}"),
            name: name.map(str::to_owned),
            token: 1,
            held_for: 61.0,
            session: Some(number),
        };
        let waiter = |&(number, name): &Party<'_>| ListedWaiter {
            address: format!("h{number}"),
            name: name.map(str::to_owned),
            mode: Mode::Exclusive,
            waiting_for: 2.0,
            session: Some(number),
        };
        ListedLock {
            mode,
            holders: holders.iter().map(holder).collect(),
            waiters: waiters.iter().map(waiter).collect(),
            ..ListedLock::new(&LockName::from(name))
        }
    }

    fn held(name: &str, holder: u64, waiters: &[u64]) -> ListedLock {
        let waiters: Vec<Party<'_>> = waiters.iter().map(|&number| (number, None)).collect();
        lock(name, Some(Mode::Exclusive), &[(holder, None)], &waiters)
    }

    /// A name, how it is known that it is waited for, and whether that closes a circle.
    type FoundWait = (String, WaitsBy, bool);

    /// For each lock of the chain of `a` its name, and what each session waits for.
    fn chain(urls: &str, locks: Vec<Vec<ListedLock>>) -> Vec<(String, Vec<FoundWait>)> {
        let chain = Chain::of(&LockName::from("a"), &Listings::of(urls, locks));
        let waits = |lock: &ChainLock| {
            let waits = lock.links().flat_map(|link| &link.waits_for);
            waits.map(|wait| (wait.lock_name.clone(), wait.by, wait.closes_circle)).collect()
        };
        chain.locks.iter().map(|lock| (lock.lock_name.clone(), waits(lock))).collect()
    }

    fn to(name: &str, by: WaitsBy) -> FoundWait {
        (name.to_owned(), by, false)
    }

    #[test]
    fn the_chain_goes_on_to_a_holder_that_waits_for_nothing() {
        let locks = vec![held("a", 1, &[9]), held("b", 2, &[8, 1]), held("c", 3, &[2]), held("d", 4, &[7])];
        let by = WaitsBy::Session;
        let expected = [
            ("a".to_owned(), vec![to("b", by)]),
            ("b".to_owned(), vec![to("c", by)]),
            ("c".to_owned(), vec![]),
        ];
        assert_eq!(chain(ONE, vec![locks]), expected);
        assert_eq!(chain(ONE, vec![vec![]]), [("a".to_owned(), vec![])]);
    }

    #[test]
    fn of_sessions_at_one_address_only_the_holder_is_followed() {
        let mut a = held("a", 1, &[]);
        a.holders[0].address = "x".to_owned();
        let mut b = held("b", 2, &[3]);
        b.waiters[0].address = "x".to_owned();
        assert_eq!(chain(ONE, vec![vec![a.clone(), b.clone()]]).len(), 1);
        // A server that does not tell numbers.
        (a.holders[0].session, b.waiters[0].session) = (None, None);
        assert_eq!(chain(ONE, vec![vec![a, b]]).len(), 2);
    }

    #[test]
    fn every_holder_is_followed_and_those_that_wait_come_first() {
        let all: Vec<Party<'_>> = (0..50).map(|number| (number, None)).collect();
        let shared = lock("a", Some(Mode::Shared), &all, &[(49, None)]);
        let locks = vec![shared, held("b", 60, &[48]), held("c", 61, &[47])];
        let chain = Chain::of(&"a".into(), &Listings::of(ONE, vec![locks]));
        let first = &chain.locks[0];
        let addresses: Vec<&str> = first.holders.iter().map(|link| link.address.as_str()).collect();
        assert_eq!(addresses[..4], ["h47", "h48", "h49", "h0"]);
        assert_eq!((first.holders.len(), first.more_holders), (HOLDERS_MAX, 50 - HOLDERS_MAX));
        assert_eq!(first.holders[2].waits_for[0].by, WaitsBy::Conversion);
        assert_eq!(chain.locks.len(), 3);
        assert!(!chain.more && chain.locks.iter().all(|lock| lock.first_waiter.is_none()));
    }

    #[test]
    fn a_set_that_waits_for_another_name_is_followed() {
        let locks = vec![lock("a", None, &[], &[(1, None), (2, None)]), held("b", 3, &[1])];
        let expected = [("a".to_owned(), vec![to("b", WaitsBy::Session)]), ("b".to_owned(), vec![])];
        assert_eq!(chain(ONE, vec![locks]), expected);
    }

    #[test]
    fn a_chain_that_seems_to_be_a_circle_ends() {
        let by = WaitsBy::Session;
        let back = |name: &str| (name.to_owned(), by, true);
        let locks = vec![held("a", 1, &[2]), held("b", 2, &[1])];
        let expected = [("a".to_owned(), vec![to("b", by)]), ("b".to_owned(), vec![back("a")])];
        assert_eq!(chain(ONE, vec![locks]), expected);
        // Two ways to one lock are no circle.
        let shared = lock("a", Some(Mode::Shared), &[(1, None), (2, None)], &[]);
        let locks = vec![shared, held("b", 3, &[1]), held("c", 4, &[2, 3])];
        let found = chain(ONE, vec![locks]);
        assert!(found.iter().flat_map(|(_, waits)| waits).all(|(.., circle)| !circle), "{found:?}");
        // Not in a circle itself, but it leads to one.
        let locks = vec![held("a", 1, &[]), held("b", 2, &[1, 3]), held("c", 3, &[2])];
        let found = chain(ONE, vec![locks]);
        assert_eq!(found[2], ("c".to_owned(), vec![back("b")]));
    }

    #[test]
    fn on_other_servers_a_name_is_followed_if_only_one_session_has_it() {
        // One server has `a`. The other one numbers its sessions by itself.
        let waiting = |waiters: &[Party<'_>]| lock("b", Some(Mode::Exclusive), &[(7, Some("bob"))], waiters);
        let place = |b: ListedLock| {
            let a = lock("a", Some(Mode::Exclusive), &[(1, Some("anna"))], &[]);
            let mut locks = vec![vec![b.clone()], vec![b]];
            locks[Listings::of(TWO, vec![]).server_of(&"a".into())] = vec![a];
            locks
        };
        let found = chain(TWO, place(waiting(&[(5, Some("anna")), (1, Some("carl"))])));
        assert_eq!(found[0].1, [to("b", WaitsBy::Name)]);
        let several = place(waiting(&[(5, Some("anna")), (6, Some("anna"))]));
        assert_eq!(chain(TWO, several.clone()), [("a".to_owned(), vec![])]);
        let unknown = Chain::of(&"a".into(), &Listings::of(TWO, several));
        assert!(unknown.locks[0].holders[0].may_wait_elsewhere);
    }

    #[test]
    fn a_lockd_run_waits_for_what_one_in_its_command_waits_for() {
        let (outer, inner) = ("run: sh (root@h, pid 5)", "run: x (root@h, pid 6, inside pid 5)");
        let a = lock("a", Some(Mode::Exclusive), &[(1, Some(outer))], &[]);
        let b = lock("b", Some(Mode::Exclusive), &[(2, None)], &[(3, Some(inner))]);
        let found = chain(ONE, vec![vec![a, b]]);
        assert_eq!(found[0].1, [to("b", WaitsBy::Inside)]);
        let own = lock("a", Some(Mode::Exclusive), &[(1, Some(outer))], &[(3, Some(inner))]);
        assert_eq!(chain(ONE, vec![vec![own]])[0].1, [("a".to_owned(), WaitsBy::Inside, true)]);
    }

    #[test]
    fn a_chain_is_cut_off_and_says_so() {
        let name = |number: u64| if number == 0 { "a".to_owned() } else { format!("n{number}") };
        let locks = (0..150).map(|number| held(&name(number), number, &[number.saturating_sub(1)]));
        let chain = Chain::of(&"a".into(), &Listings::of(ONE, vec![locks.collect()]));
        assert!(chain.more && chain.locks.len() == LOCKS_MAX);
        assert!(chain.lines().last().unwrap().contains("only the first 100 locks"));
        assert!(chain.line().unwrap().ends_with(", and so on (see lockd inspect --chain)"));
        let long = ListedLock { more_waiters: 4, ..held("a", 1, &[2]) };
        let chain = Chain::of(&"a".into(), &Listings::of(ONE, vec![vec![long]]));
        assert!(chain.unknown[0].starts_with("One queue is too long"), "{:?}", chain.unknown);
    }
}
