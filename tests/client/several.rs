//! One session over several servers of which one is gone: at the start, later with nothing held
//! there, with a lock held there, and with a wait there. Each name belongs to one server and is
//! never tried on another.

use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use lockd::Session;
use lockd::broker::{AcquireError, Attempt, Mode, ReleaseError};
use lockd::client::{self, ConnectError, InspectError};

use crate::support::*;

/// The address of a server that does not exist.
const NO_SERVER: &str = "unix:/nonexistent/lockd.sock";

/// Two servers, a session over both, and names that belong to each.
struct Pair {
    servers: Vec<Process>,
    direct: Vec<client::RemoteSession>,
    both: Session,
    names: [Vec<String>; 2],
}

impl Pair {
    fn new() -> Self {
        // Killed at the end: a server that stops cleanly gives the locks of one connection to the
        // others first.
        let servers: Vec<Process> = (0..2).map(|_| Process::start()).collect();
        let direct: Vec<client::RemoteSession> = servers.iter().map(|server| connect(&server.1)).collect();
        let both = Session::connect(&format!("{},{}", servers[0].1, servers[1].1), None, SOON).unwrap();
        let mut names = [Vec::new(), Vec::new()];
        for name in (0..40).map(|number| format!("name {number}")) {
            both.acquire(name.as_bytes(), Mode::Exclusive, NOW).unwrap();
            let is_on_second = direct[1].inspect(name.as_bytes()).unwrap().mode.is_some();
            both.release(name.as_bytes()).unwrap();
            names[usize::from(is_on_second)].push(name);
        }
        assert!(names.iter().all(|names| names.len() > 2), "{names:?}");
        Self { servers, direct, both, names }
    }

    fn name(&self, server: usize, number: usize) -> &[u8] {
        self.names[server][number].as_bytes()
    }

    fn acquire(&self, server: usize, number: usize) {
        self.both.acquire(self.name(server, number), Mode::Exclusive, NOW).unwrap();
    }

    /// Kills the first remaining server, and waits until the session knows.
    fn kill_one(&mut self) {
        drop(self.servers.remove(0));
        assert!(is_readable(self.both.lost_fd().unwrap(), SOON));
    }
}

fn reason<T: std::fmt::Debug>(result: Result<T, AcquireError>) -> String {
    match result {
        Err(AcquireError::Lost(reason)) => reason,
        other => panic!("not lost: {other:?}"),
    }
}

/// A session over one server that runs and one that does not exist, and a name for each of them.
fn half(url: &str) -> (Session, String, String) {
    let set = Session::connect(&format!("{NO_SERVER},{url}"), None, SOON).unwrap();
    let all: Vec<String> = (0..40).map(|number| format!("name {number}")).collect();
    let is_gone = |name: &&String| is_lost(&set.acquire(name.as_bytes(), Mode::Exclusive, NOW));
    let (gone, had): (Vec<&String>, Vec<&String>) = all.iter().partition(is_gone);
    set.release_all(&had.iter().map(|name| name.as_bytes()).collect::<Vec<_>>()).unwrap();
    let pair = (gone[0].clone(), had[0].clone());
    (set, pair.0, pair.1)
}

#[test]
fn a_session_begins_if_one_of_its_servers_answers() {
    let (_server, url) = serve();
    let (set, gone, had) = half(&url);
    assert!(set.is_alive(), "nothing is held where no server is");
    assert!(!is_readable(set.lost_fd().unwrap(), Duration::ZERO));
    set.acquire(had.as_bytes(), Mode::Exclusive, NOW).unwrap();
    assert!(set.is_alive());
    assert!(reason(set.acquire(gone.as_bytes(), Mode::Exclusive, NOW)).contains(NO_SERVER));
    let direct = connect(&url);
    assert_eq!(direct.inspect(gone.as_bytes()).unwrap().holders, 0, "it is tried on no other server");
    set.close();
    assert!(!set.is_alive());
}

#[test]
fn every_call_on_a_name_of_a_server_that_was_not_reached_says_lost() {
    let (_server, url) = serve();
    let (set, gone, had) = half(&url);
    let name = gone.as_bytes();
    assert!(reason(set.acquire_all(&[(name, Mode::Exclusive)], None)).contains(NO_SERVER));
    assert!(reason(set.convert(name, Mode::Shared, None)).contains(NO_SERVER));
    assert!(reason(set.enqueue(name, Mode::Shared)).contains(NO_SERVER));
    assert!(reason(set.enqueue_convert(name, Mode::Exclusive)).contains(NO_SERVER));
    assert!(reason(set.wait(name, None)).contains(NO_SERVER));
    assert!(matches!(set.release(name), Err(ReleaseError::Lost(why)) if why.contains(NO_SERVER)));
    assert!(matches!(set.inspect(name), Err(InspectError::Lost(why)) if why.contains(NO_SERVER)));
    // A page without that server's names would look complete.
    assert!(matches!(set.list(b"", None, 1000), Err(InspectError::Lost(why)) if why.contains(NO_SERVER)));
    let split = set.acquire_all(&[(name, Mode::Exclusive), (had.as_bytes(), Mode::Exclusive)], NOW);
    assert!(matches!(split, Err(AcquireError::Invalid(_))), "{split:?}");
    set.cancel();
    assert!(set.is_alive(), "asking for what cannot be had costs nothing");
}

#[test]
fn without_any_server_the_error_names_each_failure() {
    let other = "unix:/nonexistent/other.sock";
    let error = Session::connect(&format!("{NO_SERVER},{other}"), None, SOON).err().unwrap();
    let text = error.to_string();
    assert!(text.contains(NO_SERVER) && text.contains(other), "{text}");
    let alone = Session::connect(NO_SERVER, None, SOON).err().unwrap();
    assert!(matches!(alone, ConnectError::Unreachable { .. }));
}

#[test]
fn a_server_that_accepts_and_stays_silent_leaves_time_for_the_others() {
    // The kernel accepts the connections; nothing ever answers on them.
    let silent: Vec<TcpListener> = (0..2).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let [one, two] = [0, 1].map(|at| format!("tcp://{}", silent[at].local_addr().unwrap()));
    let (_server, url) = serve();
    let set = Session::connect(&format!("{one},{url},{two}"), None, Duration::from_secs(6)).unwrap();
    let had = (0..40).filter(|number| {
        let name = format!("name {number}");
        set.acquire(name.as_bytes(), Mode::Exclusive, NOW).is_ok()
    });
    assert!((1..40).contains(&had.count()));
    assert!(set.is_alive());
}

#[test]
fn a_server_that_stops_where_nothing_is_held_takes_only_its_own_names() {
    let mut pair = Pair::new();
    pair.acquire(0, 0);
    pair.both.release(pair.name(0, 0)).unwrap();
    pair.acquire(1, 0);
    pair.kill_one();
    assert!(pair.both.is_alive());
    assert!(!is_readable(pair.both.lost_fd().unwrap(), Duration::ZERO), "a loop that polls would never rest");
    assert!(is_lost(&pair.both.acquire(pair.name(0, 1), Mode::Exclusive, NOW)));
    assert!(is_lost(&pair.both.enqueue(pair.name(0, 2), Mode::Exclusive)));
    assert!(pair.both.is_alive(), "what was not granted is not held");
    assert!(matches!(pair.both.list(b"", None, 1000), Err(InspectError::Lost(_))));
    pair.acquire(1, 1);
    pair.both.release(pair.name(1, 0)).unwrap();

    pair.kill_one();
    assert!(!pair.both.is_alive());
}

#[test]
fn a_session_with_nothing_held_is_lost_with_the_last_of_its_servers() {
    let mut pair = Pair::new();
    pair.kill_one();
    assert!(pair.both.is_alive());
    pair.kill_one();
    assert!(!pair.both.is_alive());
    assert!(is_readable(pair.both.lost_fd().unwrap(), Duration::ZERO), "also for one who looks later");
}

#[test]
fn a_session_is_lost_if_a_server_stops_where_it_holds_a_lock() {
    let mut pair = Pair::new();
    pair.acquire(0, 0);
    pair.acquire(1, 0);
    pair.kill_one();
    assert!(!pair.both.is_alive());
    assert!(is_readable(pair.both.lost_fd().unwrap(), Duration::ZERO), "also for one who looks later");
    assert_eq!(pair.direct[1].inspect(pair.name(1, 0)).unwrap().holders, 1, "the others stay held");
    assert!(is_lost(&pair.both.acquire(pair.name(0, 0), Mode::Exclusive, NOW)), "and not held already");
    pair.acquire(1, 1);
    assert!(!pair.both.is_alive());
    pair.both.close();
    until(&pair.direct[1], pair.name(1, 0), |seen| seen.holders == 0);
}

#[test]
fn a_session_is_lost_if_a_server_stops_where_it_keeps_a_place() {
    let mut pair = Pair::new();
    pair.direct[0].acquire(pair.name(0, 0), Mode::Exclusive, NOW).unwrap();
    assert_eq!(pair.both.enqueue(pair.name(0, 0), Mode::Exclusive), Ok(Attempt::Queued));
    pair.kill_one();
    assert!(!pair.both.is_alive());
    assert!(is_lost(&pair.both.wait(pair.name(0, 0), NOW)));
    assert!(pair.both.is_alive(), "the wait has ended with that answer, and the rest is whole");
    assert!(!is_readable(pair.both.lost_fd().unwrap(), Duration::ZERO));
}

#[test]
fn a_call_that_waits_on_a_server_that_stops_is_told_and_the_session_stays_alive() {
    let mut pair = Pair::new();
    pair.direct[0].acquire(pair.name(0, 0), Mode::Exclusive, NOW).unwrap();
    let first = pair.servers.remove(0);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| pair.both.acquire(pair.name(0, 0), Mode::Exclusive, Some(SOON)));
        until(&pair.direct[0], pair.name(0, 0), |seen| seen.waiters == 1);
        assert!(pair.both.is_alive());
        drop(first);
        let waited = waiting.join().unwrap();
        assert!(is_lost(&waited), "{waited:?}");
    });
    assert!(pair.both.is_alive());
    pair.acquire(1, 0);
    pair.kill_one();
    assert!(!pair.both.is_alive());
}

#[test]
fn release_all_releases_what_it_can_and_reports_a_loss_first() {
    let mut pair = Pair::new();
    pair.acquire(0, 0);
    pair.acquire(1, 0);
    let all: Vec<Vec<u8>> = [(0, 0), (1, 1), (1, 0)].map(|(server, n)| pair.name(server, n).to_vec()).into();
    pair.kill_one();
    assert!(!pair.both.is_alive());
    for order in [[0, 1, 2], [2, 1, 0]] {
        let names: Vec<&[u8]> = order.map(|at: usize| all[at].as_slice()).into();
        let released = pair.both.release_all(&names);
        assert!(matches!(released, Err(ReleaseError::Lost(_))), "{released:?}");
    }
    assert_eq!(pair.direct[1].inspect(pair.name(1, 0)).unwrap().holders, 0);
    assert!(pair.both.is_alive(), "what was lost has been given up");
    assert!(!is_readable(pair.both.lost_fd().unwrap(), Duration::ZERO));
}

/// A server that is paused, and goes on when this is dropped.
struct Paused<'a>(&'a Process);

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.0.resume();
    }
}

#[test]
fn a_server_that_hangs_does_not_prevent_releases_on_another_one() {
    for hangs in [0, 1] {
        let pair = Pair::new();
        pair.acquire(0, 0);
        pair.acquire(1, 0);
        let names = [0, 1].map(|server| pair.name(server, 0));
        pair.servers[hangs].pause();
        thread::scope(|scope| {
            let releasing = scope.spawn(|| pair.both.release_all(&names));
            // Also if the test fails before, so that the thread ends.
            let paused = Paused(&pair.servers[hangs]);
            until(&pair.direct[1 - hangs], pair.name(1 - hangs, 0), |seen| seen.holders == 0);
            drop(paused);
            assert_eq!(releasing.join().unwrap(), Ok(()));
        });
        assert_eq!(pair.direct[hangs].inspect(pair.name(hangs, 0)).unwrap().holders, 0);
    }
}

#[test]
fn a_limited_lock_has_its_slots_on_the_server_that_its_name_belongs_to() {
    const TWO: Mode = Mode::at_most(2).unwrap();
    let pair = Pair::new();
    let urls = [0, 1].map(|server: usize| pair.servers[server].1.as_str());
    let other = Session::connect(&urls.join(","), None, SOON).unwrap();
    for server in [0, 1] {
        let name = pair.name(server, 0);
        pair.both.acquire(name, TWO, NOW).unwrap();
        pair.direct[server].acquire(name, Mode::Shared, NOW).unwrap();
        assert_eq!(other.acquire(name, TWO, NOW), Err(AcquireError::TimedOut));
        let seen = other.inspect(name).unwrap();
        assert_eq!((seen.limit(), seen.holders, seen.free_slots()), (Some(2), 2, Some(0)));
        assert_eq!(pair.direct[1 - server].inspect(name).unwrap().holders, 0);
        assert_eq!(other.enqueue(name, TWO), Ok(Attempt::Queued));
        pair.direct[server].release(name).unwrap();
        other.wait(name, Some(SOON)).unwrap();
    }
    let both = [(pair.name(0, 1), TWO), (pair.name(0, 2), Mode::at_most(3).unwrap())];
    pair.both.acquire_all(&both, NOW).unwrap();
    other.acquire_all(&both, NOW).unwrap();
    let third = connect(urls[0]).acquire(both[0].0, TWO, NOW);
    assert_eq!(third, Err(AcquireError::TimedOut));
}
