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
    /// How many holders it may have, if it is limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) limit: Option<u32>,
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
    /// Whether its program may wait in another session that cannot be told to be its: it has no
    /// name, or shares it with others; or a server has not told everything.
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
    /// How many holders it allows, if it asks for a limited lock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) limit: Option<u32>,
    pub(super) by: WaitsBy,
    /// Whether a holder of that lock waits, over others or not, for this one.
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
    /// Whether a server has not told everything.
    has_gaps: bool,
    by_session: HashMap<(usize, PartyKey), Vec<Place<'a>>>,
    /// By the name that the waiter has registered.
    by_name: HashMap<&'a str, Vec<Place<'a>>>,
    /// Those of a `lockd run` that runs in the command of another one.
    nested: Vec<Place<'a>>,
}

impl<'a> Waits<'a> {
    fn of(listings: &'a Listings) -> Self {
        let mut waits = Self {
            has_gaps: !listings.gaps().is_empty(),
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
                limit: place.waiter.mode.limit(),
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
        let Some(name) = name.filter(|_| !self.has_gaps) else { return true };
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
    let can_be_next = |waiter: &&ListedWaiter| lock.admits(waiter.mode);
    ChainLock {
        key: key.clone(),
        lock_name: lock.lock_name.clone(),
        lock_name_hex: lock.lock_name_hex.clone(),
        server: server.to_owned(),
        limit: lock.mode.and_then(Mode::limit),
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
mod tests;
