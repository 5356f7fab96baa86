//! Sessions on real servers: what holds when many of them contend, are cancelled, time out and lose their
//! server. Servers run in this process on free ports; one that is to be paused runs in its own.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use lockd::Session;
use lockd::broker::{
    AcquireError, Attempt, Broker, Grant, Inspection, Limits, LockName, Mode, ReleaseError, Released,
};
use lockd::client::{self, InspectError, MessageClient, RpcError, ServerSet};
use lockd::server::{Call, Config, Server, Service};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

const SOON: Duration = Duration::from_secs(20);
const NOW: Option<Duration> = Some(Duration::ZERO);

fn serve_with(service: Service) -> (Server, String) {
    let listen = vec!["message://127.0.0.1:0".parse().unwrap()];
    let config = Config { listen, ..Config::default() };
    let server = Server::start(&Broker::new(Limits::default()), config, service).unwrap();
    let url = server.addresses()[0].to_string();
    (server, url)
}

fn serve() -> (Server, String) {
    serve_with(Service::locks())
}

fn connect(url: &str) -> client::Session {
    client::Session::connect(url, None, SOON).unwrap()
}

/// Waits until the name is as `is` wants it.
fn until(session: &client::Session, name: &[u8], is: impl Fn(Inspection) -> bool) {
    let deadline = Instant::now() + SOON;
    while !is(session.inspect(name).unwrap()) {
        assert!(Instant::now() < deadline, "never as expected: {:?}", session.inspect(name));
    }
}

fn names(names: &[&str]) -> Vec<LockName> {
    names.iter().map(|&name| name.into()).collect()
}

fn exclusive(wanted: &[&str]) -> Vec<(LockName, Mode)> {
    names(wanted).into_iter().map(|name| (name, Mode::Exclusive)).collect()
}

fn is_lost<T>(result: &Result<T, AcquireError>) -> bool {
    matches!(result, Err(AcquireError::Lost(_)))
}

/// A room that one may be in alone, or several who share it.
#[derive(Default)]
struct Room {
    alone: AtomicUsize,
    sharing: AtomicUsize,
}

impl Room {
    fn alone<R>(&self, visit: impl FnOnce() -> R) -> R {
        assert_eq!((self.alone.fetch_add(1, SeqCst), self.sharing.load(SeqCst)), (0, 0), "not alone");
        let result = visit();
        assert_eq!((self.alone.fetch_sub(1, SeqCst), self.sharing.load(SeqCst)), (1, 0), "not alone");
        result
    }

    fn share<R>(&self, visit: impl FnOnce() -> R) -> R {
        self.sharing.fetch_add(1, SeqCst);
        assert_eq!(self.alone.load(SeqCst), 0, "somebody is alone here");
        let result = visit();
        assert_eq!(self.alone.load(SeqCst), 0, "somebody is alone here");
        self.sharing.fetch_sub(1, SeqCst);
        result
    }
}

/// How often calls ended in which way.
#[derive(Debug, Default)]
struct Ends {
    granted: AtomicUsize,
    timed_out: AtomicUsize,
    cancelled: AtomicUsize,
}

impl Ends {
    /// Counts the end of a call; whether it was a grant.
    fn count(&self, result: Result<Grant, AcquireError>) -> bool {
        match result {
            Ok(_) => self.granted.fetch_add(1, SeqCst),
            Err(AcquireError::TimedOut) => self.timed_out.fetch_add(1, SeqCst),
            Err(AcquireError::Cancelled) => self.cancelled.fetch_add(1, SeqCst),
            Err(AcquireError::Deadlock(_)) => 0,
            Err(ref error) => panic!("{error}"),
        };
        result.is_ok()
    }

    /// Lets it go on until calls have ended in every way five hundred times, then says stop.
    fn until_all_are_many(&self, stop: &AtomicBool) {
        let deadline = Instant::now() + 3 * SOON;
        let ends = [&self.granted, &self.timed_out, &self.cancelled];
        let are_few = || ends.iter().any(|count| count.load(SeqCst) < 500);
        while are_few() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        stop.store(true, SeqCst);
        assert!(!are_few(), "too few of some: {self:?}");
    }
}

/// A cheap source of numbers that differ.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn micros(&mut self, sides: u64) -> Duration {
        Duration::from_micros(self.below(sides))
    }
}

#[test]
fn no_increment_is_lost() {
    let (_server, url) = serve();
    let (count, last_token) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let session = connect(&url);
                for _ in 0..250 {
                    let grant = session.acquire(b"counter", Mode::Exclusive, Some(SOON)).unwrap();
                    let token = usize::try_from(grant.token).unwrap();
                    assert!(last_token.swap(token, SeqCst) < token, "tokens rise");
                    let seen = count.load(SeqCst);
                    thread::yield_now();
                    count.store(seen + 1, SeqCst);
                    assert_eq!(session.release(b"counter"), Ok(Released::Hold));
                }
            });
        }
    });
    assert_eq!(count.load(SeqCst), 2000);
}

#[test]
fn a_blocked_acquire_holds_up_no_other_call() {
    let (_server, url) = serve();
    let (holder, session) = (connect(&url), connect(&url));
    holder.acquire(b"a", Mode::Exclusive, NOW).unwrap();
    thread::scope(|scope| {
        let blocked = scope.spawn(|| session.acquire(b"a", Mode::Exclusive, None));
        until(&session, b"a", |a| a.waiters == 1);
        assert_eq!(session.acquire(b"a", Mode::Exclusive, None), Err(AcquireError::AlreadyWaiting));
        for _ in 0..100 {
            session.acquire(b"b", Mode::Exclusive, NOW).unwrap();
            session.release(b"b").unwrap();
        }
        assert_eq!(session.acquire(b"a", Mode::Exclusive, NOW), Err(AcquireError::AlreadyWaiting));
        assert!(!blocked.is_finished());
        holder.release(b"a").unwrap();
        blocked.join().unwrap().unwrap();
    });
}

#[test]
fn two_threads_of_one_session_never_both_win() {
    let (_server, url) = serve();
    let session = connect(&url);
    for _ in 0..200 {
        let results = thread::scope(|scope| {
            let ask = || session.acquire(b"one", Mode::Exclusive, Some(SOON));
            [scope.spawn(ask), scope.spawn(ask)].map(|thread| thread.join().unwrap())
        });
        let refused = |result: &Result<_, AcquireError>| {
            matches!(result, Err(AcquireError::AlreadyHeld(_) | AcquireError::AlreadyWaiting))
        };
        assert!(results.iter().any(Result::is_ok) && results.iter().any(refused), "{results:?}");
        session.release(b"one").unwrap();
    }
}

#[test]
fn modes_conversions_and_inspection() {
    let (_server, url) = serve();
    let (one, two) = (connect(&url), connect(&url));
    assert_eq!(one.inspect(b"a"), Ok(Inspection::default()));
    let first = one.acquire(b"a", Mode::Shared, NOW).unwrap();
    let second = two.acquire(b"a", Mode::Shared, NOW).unwrap();
    assert_eq!((first.holders, second.holders), (1, 2));
    assert_eq!(one.convert(b"a", Mode::Exclusive, NOW), Err(AcquireError::TimedOut));
    let short = Some(Duration::from_millis(20));
    assert_eq!(one.convert(b"a", Mode::Exclusive, short), Err(AcquireError::TimedOut));
    thread::scope(|scope| {
        let upgrade = scope.spawn(|| one.convert(b"a", Mode::Exclusive, None));
        until(&two, b"a", |a| a.waiters == 1);
        let circle = two.convert(b"a", Mode::Exclusive, None);
        assert!(matches!(circle, Err(AcquireError::Deadlock(_))), "{circle:?}");
        two.release(b"a").unwrap();
        assert!(upgrade.join().unwrap().unwrap().token > second.token);
    });
    let seen = one.inspect(b"a").unwrap();
    assert_eq!((seen.mode, seen.holders, seen.waiters), (Some(Mode::Exclusive), 1, 0));
    assert_eq!(seen.held.map(|held| held.mode), Some(Mode::Exclusive));
    assert_eq!(two.inspect(b"a").unwrap().held, None);
    assert_eq!(one.convert(b"a", Mode::Exclusive, NOW).map(|grant| grant.holders), Ok(1));
    one.convert(b"a", Mode::Shared, NOW).unwrap();
    two.acquire(b"a", Mode::Shared, NOW).unwrap();
    assert_eq!(one.convert(b"b", Mode::Shared, NOW), Err(AcquireError::NotHeld));
    assert_eq!(one.release(b"b"), Err(ReleaseError::NotHeld));
}

#[test]
fn what_is_wrong_is_said() {
    let (_server, url) = serve();
    let session = connect(&url);
    let long = [b'x'; 2000];
    assert!(matches!(session.acquire(&long, Mode::Shared, NOW), Err(AcquireError::Invalid(_))));
    assert_eq!(session.inspect(&long).unwrap(), Inspection::default());
    let twice = session.acquire_all(&exclusive(&["a", "a"]), NOW);
    assert!(matches!(twice, Err(AcquireError::Invalid(_))));
    assert!(matches!(session.acquire_all(&[], NOW), Err(AcquireError::Invalid(_))));
    // More than a server takes in one message: said before it would cost the connection.
    let megabyte: Vec<_> = (0..200).map(|n| (LockName::new(&[n; 6000]), Mode::Shared)).collect();
    assert!(matches!(session.acquire_all(&megabyte, NOW), Err(AcquireError::Invalid(_))));
    for name in [b"".as_slice(), b"\xff\0\n", "ä\u{1F512}".as_bytes(), &[0; 1024]] {
        session.acquire(name, Mode::Exclusive, NOW).unwrap();
        assert_eq!(session.inspect(name).unwrap().holders, 1);
        session.release(name).unwrap();
    }
    assert!(session.stands());
}

#[test]
fn a_deadlock_names_the_owners() {
    let (_server, url) = serve();
    let open = |owner| client::Session::connect(&url, Some(owner), SOON).unwrap();
    let (ann, bob) = (open("ann"), open("bob"));
    ann.acquire(b"a", Mode::Exclusive, NOW).unwrap();
    bob.acquire(b"b", Mode::Exclusive, NOW).unwrap();
    thread::scope(|scope| {
        let waiting = scope.spawn(|| ann.acquire(b"b", Mode::Exclusive, None));
        until(&bob, b"b", |b| b.waiters == 1);
        let circle = vec!["bob".to_owned(), "ann".to_owned()];
        assert_eq!(bob.acquire(b"a", Mode::Exclusive, None), Err(AcquireError::Deadlock(circle)));
        bob.close();
        waiting.join().unwrap().unwrap();
    });
}

#[test]
fn several_at_once_or_none() {
    let (_server, url) = serve();
    let (one, two) = (connect(&url), connect(&url));
    let all = one.acquire_all(&exclusive(&["a", "b", "c"]), NOW).unwrap();
    assert_eq!(one.inspect(b"c").unwrap().held.unwrap().token, all.token);
    assert_eq!(two.acquire_all(&exclusive(&["x", "c"]), NOW), Err(AcquireError::TimedOut));
    assert_eq!(two.inspect(b"x").unwrap().mode, None);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| two.acquire_all(&exclusive(&["x", "a", "b"]), None));
        until(&one, b"x", |x| x.waiters == 1);
        one.release_all(&names(&["a", "b"])).unwrap();
        waiting.join().unwrap().unwrap();
    });
    assert_eq!(one.release_all(&names(&["c", "nothing"])), Err(ReleaseError::NotHeld));
    assert_eq!(two.inspect(b"c").unwrap().mode, None, "what there was to release is released");
    let many: Vec<_> = (0..1000).map(|n| (LockName::from(format!("n{n}").as_str()), Mode::Shared)).collect();
    two.acquire_all(&many, NOW).unwrap();
    two.release_all(&many.into_iter().map(|(name, _)| name).collect::<Vec<_>>()).unwrap();
    assert_eq!(two.inspect(b"n999").unwrap().mode, None);
}

#[test]
fn a_place_in_the_queue_is_kept_collected_or_given_up() {
    let (_server, url) = serve();
    let (holder, first, second) = (connect(&url), connect(&url), connect(&url));
    assert!(matches!(holder.enqueue(b"a", Mode::Exclusive), Ok(Attempt::Granted(_))));
    assert_eq!(first.enqueue(b"a", Mode::Exclusive), Ok(Attempt::Queued));
    assert_eq!(second.enqueue(b"a", Mode::Exclusive), Ok(Attempt::Queued));
    for limit in [0, 10] {
        let waited = first.wait(b"a", Some(Duration::from_millis(limit)));
        assert_eq!(waited, Err(AcquireError::TimedOut), "and the place is kept");
    }
    assert_eq!(holder.inspect(b"a").unwrap().waiters, 2);
    assert_eq!(first.release(b"a"), Ok(Released::Place));
    assert_eq!(first.wait(b"a", None), Err(AcquireError::NotHeld));
    assert_eq!(first.enqueue(b"a", Mode::Exclusive), Ok(Attempt::Queued), "behind the second now");
    holder.release(b"a").unwrap();
    second.wait(b"a", Some(SOON)).unwrap();
    assert_eq!(first.wait(b"a", NOW), Err(AcquireError::TimedOut));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| first.wait(b"a", None));
        first.cancel();
        assert_eq!(waiting.join().unwrap(), Err(AcquireError::Cancelled));
    });
    until(&holder, b"a", |a| a.waiters == 0);
    assert_eq!(first.wait(b"a", None), Err(AcquireError::NotHeld));
}

/// Sessions that contend for one room while their waits end by grant, time-out and cancel all at once.
#[test]
fn a_grant_that_crosses_a_cancel_or_a_time_out_lets_nobody_else_in() {
    let (_server, url) = serve();
    let (room, stop, ends) = (Room::default(), AtomicBool::new(false), Ends::default());
    let sessions: Vec<client::Session> = (0..4).map(|_| connect(&url)).collect();
    thread::scope(|scope| {
        for (seed, session) in (1..).zip(&sessions) {
            let (room, stop, ends) = (&room, &stop, &ends);
            scope.spawn(move || {
                let mut dice = Dice(seed);
                while !stop.load(SeqCst) {
                    let limit = (dice.below(4) > 0).then(|| dice.micros(300));
                    if ends.count(session.acquire(b"room", Mode::Exclusive, limit)) {
                        room.alone(thread::yield_now);
                        assert_eq!(session.release(b"room"), Ok(Released::Hold));
                    }
                }
            });
            scope.spawn(move || {
                let mut dice = Dice(seed + 100);
                while !stop.load(SeqCst) {
                    thread::sleep(dice.micros(200));
                    session.cancel();
                }
            });
        }
        // One that waits without limit waits for the others, who all let go.
        ends.until_all_are_many(&stop);
    });
    let seen = connect(&url).acquire(b"room", Mode::Exclusive, Some(SOON));
    assert!(seen.is_ok(), "a lock was left behind: {seen:?}");
}

/// The same with conversions: giving up an upgrade must neither lose the shared lock nor keep others out.
#[test]
fn an_upgrade_that_is_given_up_keeps_what_was_held() {
    let (_server, url) = serve();
    let (room, stop, ends) = (Room::default(), AtomicBool::new(false), Ends::default());
    let sessions: Vec<client::Session> = (0..4).map(|_| connect(&url)).collect();
    thread::scope(|scope| {
        for (seed, session) in (1..).zip(&sessions) {
            let (room, stop, ends) = (&room, &stop, &ends);
            scope.spawn(move || {
                let mut dice = Dice(seed);
                while !stop.load(SeqCst) {
                    let shared = session.acquire(b"room", Mode::Shared, Some(SOON));
                    if shared == Err(AcquireError::Cancelled) {
                        continue;
                    }
                    shared.unwrap();
                    room.share(thread::yield_now);
                    let limit = Some(dice.micros(3000));
                    if ends.count(session.convert(b"room", Mode::Exclusive, limit)) {
                        room.alone(thread::yield_now);
                        session.convert(b"room", Mode::Shared, NOW).unwrap();
                    }
                    room.share(thread::yield_now);
                    assert_eq!(session.release(b"room"), Ok(Released::Hold));
                }
            });
            scope.spawn(move || {
                let mut dice = Dice(seed + 100);
                while !stop.load(SeqCst) {
                    thread::sleep(dice.micros(2000));
                    session.cancel();
                }
            });
        }
        ends.until_all_are_many(&stop);
    });
    assert!(connect(&url).acquire(b"room", Mode::Exclusive, Some(SOON)).is_ok());
}

#[test]
fn when_the_server_goes_every_call_says_so() {
    // One that stops in order would hand the locks of the first connection it closes to the others.
    let server = Process::start();
    let (holder, session) = (connect(&server.1), connect(&server.1));
    holder.acquire_all(&exclusive(&["a", "b", "c"]), NOW).unwrap();
    session.acquire(b"s", Mode::Shared, NOW).unwrap();
    holder.acquire(b"s", Mode::Shared, NOW).unwrap();
    assert_eq!(session.enqueue(b"c", Mode::Exclusive), Ok(Attempt::Queued));
    thread::scope(|scope| {
        let acquire = scope.spawn(|| session.acquire(b"a", Mode::Exclusive, Some(SOON)));
        let all = scope.spawn(|| session.acquire_all(&exclusive(&["b", "d"]), None));
        let convert = scope.spawn(|| session.convert(b"s", Mode::Exclusive, None));
        let wait = scope.spawn(|| session.wait(b"c", None));
        for name in ["a", "b", "s"] {
            until(&holder, name.as_bytes(), |seen| seen.waiters == 1);
        }
        assert!(session.stands());
        drop(server);
        for blocked in [acquire, all, convert, wait] {
            let result = blocked.join().unwrap();
            assert!(is_lost(&result), "{result:?}");
        }
    });
    assert!(!session.stands());
    assert!(!holder.stands(), "found out without another call");
    assert!(is_lost(&holder.acquire(b"a", Mode::Exclusive, NOW)), "and not that it is held already");
    assert!(matches!(holder.release(b"a"), Err(ReleaseError::Lost(_))));
    assert!(matches!(holder.inspect(b"a"), Err(InspectError::Lost(_))));
}

#[test]
fn the_end_of_a_session_frees_its_locks() {
    let (_server, url) = serve();
    let other = connect(&url);
    for end in [|session: client::Session| session.close(), |session| drop(session)] {
        let session = connect(&url);
        session.acquire(b"a", Mode::Exclusive, NOW).unwrap();
        end(session);
        let grant = other.acquire(b"a", Mode::Exclusive, Some(SOON)).unwrap();
        assert!(grant.orphaned, "its holder has vanished");
        other.release(b"a").unwrap();
    }
    other.close();
    assert!(is_lost(&other.acquire(b"a", Mode::Exclusive, NOW)));
}

fn is_readable(fd: impl AsFd, limit: Duration) -> bool {
    let limit = Timespec::try_from(limit).unwrap();
    poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&limit)).unwrap() > 0
}

#[test]
fn the_descriptor_tells_of_a_lost_server() {
    let ((one, url_of_one), (two, url_of_two)) = (serve(), serve());
    let urls = format!("{url_of_one},{url_of_two}");
    let alone = Session::connect(&url_of_one, None, SOON).unwrap();
    let both = Session::connect(&urls, None, SOON).unwrap();
    for session in [&alone, &both] {
        session.acquire(b"a", Mode::Exclusive, NOW).unwrap();
        session.release(b"a").unwrap();
        assert!(!is_readable(session.lost_fd().unwrap(), Duration::ZERO));
        assert!(session.stands());
    }
    two.stop();
    assert!(is_readable(both.lost_fd().unwrap(), SOON) && !both.stands());
    assert!(alone.stands());
    one.stop();
    assert!(is_readable(alone.lost_fd().unwrap(), SOON) && !alone.stands());
    assert!(Session::open(&Broker::default(), None).lost_fd().is_none());
}

#[test]
fn several_servers_share_the_names() {
    let servers: Vec<(Server, String)> = (0..3).map(|_| serve()).collect();
    let urls: Vec<&str> = servers.iter().map(|(_, url)| url.as_str()).collect();
    let set = ServerSet::connect(&urls.join(","), Some("set"), SOON).unwrap();
    let reversed: Vec<&str> = urls.iter().rev().copied().collect();
    let other = ServerSet::connect(&reversed.join(" , "), None, SOON).unwrap();
    let all: Vec<String> = (0..60).map(|n| format!("name {n}")).collect();
    for name in &all {
        set.acquire(name.as_bytes(), Mode::Exclusive, NOW).unwrap();
        assert_eq!(other.acquire(name.as_bytes(), Mode::Exclusive, NOW), Err(AcquireError::TimedOut));
    }
    // Each name is on exactly one of them, and none has all.
    let direct: Vec<client::Session> = urls.iter().map(|url| connect(url)).collect();
    let homes = |name: &String| -> Vec<usize> {
        (0..3).filter(|&at| direct[at].inspect(name.as_bytes()).unwrap().mode.is_some()).collect()
    };
    let homes: Vec<Vec<usize>> = all.iter().map(homes).collect();
    assert!(homes.iter().all(|home| home.len() == 1), "{homes:?}");
    let apart = homes.iter().position(|home| *home != homes[0]).unwrap();
    set.release_all(&all.iter().map(|name| name.as_str().into()).collect::<Vec<_>>()).unwrap();

    let split = set.acquire_all(&exclusive(&[&all[0], &all[apart]]), NOW);
    assert!(matches!(&split, Err(AcquireError::Invalid(why)) if why.contains("at once")), "{split:?}");
    let together: Vec<&str> =
        (0..60).filter(|&n| homes[n] == homes[0]).map(|n| all[n].as_str()).take(5).collect();
    set.acquire_all(&exclusive(&together), NOW).unwrap();

    let gone = homes[0][0];
    let mut servers = servers;
    servers.remove(gone).0.stop();
    let lost = |name: &String| is_lost(&set.acquire(name.as_bytes(), Mode::Exclusive, NOW));
    assert!(all.iter().zip(&homes).all(|(name, home)| lost(name) == (home[0] == gone)));
    assert!(!set.stands());
}

#[test]
fn a_server_that_cannot_be_had_is_no_session() {
    let (_server, url) = serve();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(ServerSet::connect(&format!("{url},tcp://{free}"), None, SOON).is_err());
    assert!(ServerSet::connect(&format!("{url},{url}"), None, SOON).is_err());
}

#[test]
fn a_unix_socket_serves_as_well() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lockd.sock");
    let listen = vec![format!("message+unix:{}", path.display()).parse().unwrap()];
    let config = Config { listen, ..Config::default() };
    let server = Server::start(&Broker::default(), config, Service::locks()).unwrap();
    let session = Session::connect(&format!("unix:{}", path.display()), Some("me"), SOON).unwrap();
    session.acquire_all(&[(b"a", Mode::Exclusive), (b"b", Mode::Shared)], NOW).unwrap();
    session.release_all(&[b"a", b"b"]).unwrap();
    server.stop();
    assert!(!session.stands());
}

#[test]
fn a_session_here_and_one_there_make_the_same_calls() {
    let (_server, url) = serve();
    let broker = Broker::default();
    let pairs = [
        (Session::open(&broker, None), Session::open(&broker, None)),
        (Session::connect(&url, None, SOON).unwrap(), Session::connect(&url, None, SOON).unwrap()),
    ];
    for (one, two) in pairs {
        assert!(matches!(one.enqueue(b"a", Mode::Exclusive), Ok(Attempt::Granted(_))));
        assert!(matches!(one.acquire(b"a", Mode::Shared, NOW), Err(AcquireError::AlreadyHeld(_))));
        assert_eq!(two.enqueue(b"a", Mode::Shared), Ok(Attempt::Queued));
        assert_eq!(two.wait(b"a", NOW), Err(AcquireError::TimedOut));
        assert_eq!(one.inspect(b"a").unwrap().waiters, 1);
        two.cancel();
        assert_eq!(two.wait(b"a", NOW), Err(AcquireError::Cancelled));
        assert_eq!(two.wait(b"a", NOW), Err(AcquireError::NotHeld));
        one.convert(b"a", Mode::Shared, NOW).unwrap();
        two.acquire(b"a", Mode::Shared, Some(SOON)).unwrap();
        assert_eq!(one.release_all(&[b"a", b"none"]), Err(ReleaseError::NotHeld));
        assert_eq!(two.release(b"a"), Ok(Released::Hold));
        assert!(one.stands());
        one.close();
        assert!(!one.stands());
        assert!(is_lost(&one.acquire(b"a", Mode::Exclusive, NOW)));
        assert!(matches!(one.release(b"a"), Err(ReleaseError::Lost(_))));
    }
}

#[test]
fn own_commands_beside_the_locks() {
    let mut service = Service::locks();
    service.on("double", |call: &mut Call<'_, '_>| {
        let number: Option<u64> = call.parameters().and_then(|number| number.get().parse().ok());
        call.reply(&number.map(|number| 2 * number));
    });
    let (server, url) = serve_with(service);
    let client = Arc::new(MessageClient::connect(&url, SOON).unwrap());
    let asking: Vec<_> = (0..8_u64)
        .map(|number| {
            let client = client.clone();
            thread::spawn(move || {
                for number in number * 100..number * 100 + 100 {
                    let result = client.rpc("double", &number, Some(SOON)).unwrap();
                    assert_eq!(result.get(), (2 * number).to_string());
                }
            })
        })
        .collect();
    asking.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(client.rpc("triple", &1, None).unwrap_err(), RpcError::Unknown);
    server.stop();
    assert!(matches!(client.rpc("double", &1, None), Err(RpcError::Lost(_))));
}

/// A server in a process of its own, killed when dropped.
struct Process(Child, String);

impl Process {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_lockd"))
            .args(["serve", "--listen", "message://127.0.0.1:0"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let url = log.find_map(|line| Some(line.unwrap().split_once("listening on ")?.1.to_owned())).unwrap();
        // Whatever it has to say later, nobody is to keep it from saying it.
        thread::spawn(move || log.for_each(drop));
        Self(child, url)
    }

    fn pause(&self) {
        let pid = Pid::from_child(&self.0);
        kill_process(pid, Signal::STOP).unwrap();
        // Told once every thread of it has stopped.
        waitpid(Some(pid), WaitOptions::UNTRACED).unwrap();
    }

    fn resume(&self) {
        kill_process(Pid::from_child(&self.0), Signal::CONT).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_paused_server_holds_nobody_up_and_loses_nothing() {
    let server = Process::start();
    let (session, other) = (connect(&server.1), connect(&server.1));
    session.acquire(b"kept", Mode::Exclusive, NOW).unwrap();
    session.acquire(b"shared", Mode::Shared, NOW).unwrap();
    server.pause();
    let start = Instant::now();
    let wanted = exclusive(&["b", "c"]);
    thread::scope(|scope| {
        let acquire = scope.spawn(|| session.acquire(b"a", Mode::Exclusive, NOW));
        let all = scope.spawn(|| session.acquire_all(&wanted, Some(Duration::from_millis(100))));
        let convert = scope.spawn(|| session.convert(b"shared", Mode::Exclusive, NOW));
        for late in [acquire, all, convert] {
            assert_eq!(late.join().unwrap(), Err(AcquireError::TimedOut));
        }
        let cancelled = scope.spawn(|| session.acquire(b"d", Mode::Exclusive, None));
        while !cancelled.is_finished() {
            session.cancel();
        }
        assert_eq!(cancelled.join().unwrap(), Err(AcquireError::Cancelled));
    });
    assert!((Duration::from_secs(1)..SOON).contains(&start.elapsed()));
    assert!(session.stands(), "its kernel answers for it");
    server.resume();
    // All that was asked for was granted meanwhile, and has been given back without being asked again.
    let all = exclusive(&["a", "b", "c", "d"]);
    other.acquire_all(&all, Some(SOON)).unwrap();
    other.acquire(b"shared", Mode::Shared, Some(SOON)).unwrap();
    assert_eq!(other.acquire(b"kept", Mode::Shared, NOW), Err(AcquireError::TimedOut));
    assert_eq!(session.release(b"shared"), Ok(Released::Hold));
    assert_eq!(session.release(b"kept"), Ok(Released::Hold));
    assert_eq!(session.acquire(b"a", Mode::Exclusive, NOW), Err(AcquireError::TimedOut));
}
