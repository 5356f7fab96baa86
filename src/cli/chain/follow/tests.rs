//! Chains from listings that are written down here; no server is asked.

use super::*;

const ONE: &str = "tcp://one";
const TWO: &str = "tcp://one,tcp://two";

/// The number and name of a session.
type Party<'a> = (u64, Option<&'a str>);

fn lock(name: &str, mode: Option<Mode>, holders: &[Party<'_>], waiters: &[Party<'_>]) -> ListedLock {
    let holder = |&(number, name): &Party<'_>| ListedHolder {
        address: format!("h{number}"),
        name: name.map(str::to_owned),
        limit: None,
        token: 1,
        held_for: 61.0,
        session: Some(number),
        in_doubt: None,
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
    let expected =
        [("a".to_owned(), vec![to("b", by)]), ("b".to_owned(), vec![to("c", by)]), ("c".to_owned(), vec![])];
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
    let (outer, inner) = ("run: sh (root@h, pid 5, id 05)", "run: x (root@h, pid 6, id 06, inside 04 05)");
    let a = lock("a", Some(Mode::Exclusive), &[(1, Some(outer))], &[]);
    let b = lock("b", Some(Mode::Exclusive), &[(2, None)], &[(3, Some(inner))]);
    let found = chain(ONE, vec![vec![a, b]]);
    assert_eq!(found[0].1, [to("b", WaitsBy::Inside)]);
    let own = lock("a", Some(Mode::Exclusive), &[(1, Some(outer))], &[(3, Some(inner))]);
    assert_eq!(chain(ONE, vec![vec![own]])[0].1, [("a".to_owned(), WaitsBy::Inside, true)]);
}

#[test]
fn nothing_is_claimed_of_a_session_whose_others_may_not_be_seen() {
    let ends = |name: Option<&str>, gap: Option<&str>| {
        let mut listings = Listings::of(ONE, vec![vec![lock("a", Some(Mode::Exclusive), &[(1, name)], &[])]]);
        listings.listed[0].gap = gap.map(str::to_owned);
        let chain = Chain::of(&"a".into(), &listings);
        chain.locks[0].holders[0].may_wait_elsewhere
    };
    assert!(!ends(Some("anna"), None));
    assert!(ends(None, None) && ends(Some("anna"), Some("tcp://one: gone")));
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
