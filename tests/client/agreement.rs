//! Sessions in this process and sessions on a server make the same calls: each call must have the
//! same result in both.

use std::fmt::Debug;
use std::time::{Duration, Instant};

use lockd::Session;
use lockd::broker::{AcquireError, Attempt, Broker, Inspection, Mode, ReleaseError};
use lockd::client::InspectError;
use lockd::server::{Config, Server, Service};
use proptest::prelude::*;

use crate::support::*;

/// One more than the smallest limit.
const SESSIONS: usize = 3;
const NAMES: [&[u8]; 2] = [b"a", b"b"];
const SHORT: Duration = Duration::from_millis(1);
const TWO: Mode = Mode::at_most(2).unwrap();
const THREE: Mode = Mode::at_most(3).unwrap();

/// A broker and its sessions, in this process or on a server over a Unix socket. When a call has
/// returned, every grant that it caused is in such a socket.
struct World {
    broker: Broker,
    server: Option<(Server, tempfile::TempDir)>,
    sessions: Vec<Session>,
}

impl World {
    fn here() -> Self {
        Self { broker: Broker::default(), server: None, sessions: Vec::new() }.filled()
    }

    fn there() -> Self {
        let (broker, directory) = (Broker::default(), tempfile::tempdir().unwrap());
        let listen = format!("message+unix:{}", directory.path().join("sock").display());
        let config = Config { listen: vec![listen.parse().unwrap()], ..Config::default() };
        let server = Server::start(&broker, config, Service::locks()).unwrap();
        Self { broker, server: Some((server, directory)), sessions: Vec::new() }.filled()
    }

    fn filled(mut self) -> Self {
        self.sessions = (0..SESSIONS).map(|_| self.open()).collect();
        self
    }

    fn open(&self) -> Session {
        match &self.server {
            None => Session::open(&self.broker, None),
            Some((server, _)) => Session::connect(&server.addresses()[0].to_string(), None, SOON).unwrap(),
        }
    }

    /// Ends a session, and opens another one in its place.
    fn replace(&mut self, at: usize, end: fn(Session)) {
        let new = self.open();
        end(std::mem::replace(&mut self.sessions[at], new));
        // A server notices it later.
        let deadline = Instant::now() + SOON;
        while self.broker.stats().sessions > SESSIONS {
            assert!(Instant::now() < deadline, "the session has not ended");
            std::thread::yield_now();
        }
    }

    fn seen(&self, at: usize, name: usize) -> Inspection {
        self.sessions[at].inspect(NAMES[name]).unwrap()
    }

    /// Waits until the session has received all that the server has decided so far, and the server
    /// has handled all that the session has sent.
    fn settle(&self, at: usize) {
        self.seen(at, 0);
    }

    /// The result of the call.
    fn make(&mut self, call: &Call) -> String {
        let Call { session: at, name, what } = *call;
        if let What::Close | What::Drop | What::Abandon = what {
            let end: fn(Session) = match what {
                What::Close => |session| session.close(),
                What::Drop => drop,
                _ => |session| session.abandon(),
            };
            self.replace(at, end);
            return "ended".to_owned();
        }
        let (session, name) = (&self.sessions[at], NAMES[name]);
        self.settle(at);
        let said = match what {
            What::Acquire(mode, limit) => said(session.acquire(name, mode, Some(limit))),
            What::AcquireBoth(mode) => said(session.acquire_all(&NAMES.map(|name| (name, mode)), NOW)),
            What::Convert(mode, limit) => said(session.convert(name, mode, Some(limit))),
            What::Enqueue(mode) => said(session.enqueue(name, mode)),
            What::EnqueueConvert(mode) => said(session.enqueue_convert(name, mode)),
            What::Wait => said(session.wait(name, NOW)),
            What::Release => format!("{:?}", session.release(name)),
            What::ReleaseBoth => format!("{:?}", session.release_all(&NAMES)),
            What::Cancel => {
                session.cancel();
                "cancelled".to_owned()
            }
            What::Close | What::Drop | What::Abandon => unreachable!(),
        };
        self.settle(at);
        said
    }
}

/// A result without its token, which differs from broker to broker.
fn said<T: Debug + Into<Said>>(result: Result<T, AcquireError>) -> String {
    match result {
        Ok(value) => format!("{:?}", value.into()),
        Err(AcquireError::AlreadyHeld(held)) => format!("already held {:?}", held.mode),
        // The cycle contains the sessions' addresses.
        Err(AcquireError::Deadlock(cycle)) => format!("deadlock of {}", cycle.size),
        Err(error) => format!("{error:?}"),
    }
}

#[derive(Debug)]
enum Said {
    Granted { _orphaned: bool, _holders: usize },
    Queued,
}

impl From<lockd::broker::Grant> for Said {
    fn from(grant: lockd::broker::Grant) -> Self {
        Self::Granted { _orphaned: grant.orphaned, _holders: grant.holders }
    }
}

impl From<Attempt> for Said {
    fn from(attempt: Attempt) -> Self {
        match attempt {
            Attempt::Granted(grant) => grant.into(),
            Attempt::Queued => Self::Queued,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum What {
    Acquire(Mode, Duration),
    AcquireBoth(Mode),
    Convert(Mode, Duration),
    Enqueue(Mode),
    EnqueueConvert(Mode),
    Wait,
    Release,
    ReleaseBoth,
    Cancel,
    Close,
    Drop,
    Abandon,
}

#[derive(Clone, Copy, Debug)]
struct Call {
    session: usize,
    name: usize,
    what: What,
}

fn call(session: usize, name: usize, what: What) -> Call {
    Call { session, name, what }
}

fn calls() -> impl Strategy<Value = Call> {
    let mode = || prop_oneof![Just(Mode::Exclusive), Just(Mode::Shared), Just(TWO), Just(THREE)];
    let limit = || prop_oneof![4 => Just(Duration::ZERO), 1 => Just(SHORT)];
    let what = prop_oneof![
        6 => (mode(), limit()).prop_map(|(mode, limit)| What::Acquire(mode, limit)),
        1 => mode().prop_map(What::AcquireBoth),
        4 => (mode(), limit()).prop_map(|(mode, limit)| What::Convert(mode, limit)),
        6 => mode().prop_map(What::Enqueue),
        4 => mode().prop_map(What::EnqueueConvert),
        10 => Just(What::Wait),
        4 => Just(What::Release),
        1 => Just(What::ReleaseBoth),
        7 => Just(What::Cancel),
        1 => prop_oneof![Just(What::Close), Just(What::Drop), Just(What::Abandon)],
    ];
    let name = prop_oneof![5 => Just(0), 1 => Just(1)];
    (0..SESSIONS, name, what).prop_map(|(session, name, what)| call(session, name, what))
}

/// Makes the calls in both worlds, and compares their results and the visible state after each.
fn agree(calls: &[Call]) {
    let (mut here, mut there) = (World::here(), World::there());
    for (at, call) in calls.iter().enumerate() {
        let done = || format!("{:?}", &calls[..=at]);
        // On a server a place counts as waited for until its outcome has been collected, as the
        // header says. So collect it before another call can show the difference.
        if !matches!(call.what, What::Wait | What::Cancel | What::Close | What::Drop | What::Abandon) {
            for name in 0..NAMES.len() {
                if there.seen(call.session, name).waiting {
                    let collect = self::call(call.session, name, What::Wait);
                    assert_eq!(here.make(&collect), there.make(&collect), "before the last of {}", done());
                }
            }
        }
        assert_eq!(here.make(call), there.make(call), "of the last of {}", done());
        for (session, name) in (0..SESSIONS).flat_map(|session| [(session, 0), (session, 1)]) {
            there.settle(session);
            let [mut here, mut there] = [&here, &there].map(|world| world.seen(session, name));
            for seen in [&mut here, &mut there] {
                if let Some(held) = &mut seen.held {
                    held.token = 0;
                }
            }
            if there.waiting {
                // As above.
                (here.held, here.waiting) = (there.held, there.waiting);
            }
            assert_eq!(here, there, "name {name} to session {session} after {}", done());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_calls_have_the_same_results_locally_and_on_a_server(calls in prop::collection::vec(calls(), 1..100)) {
        agree(&calls);
    }
}

/// The lock is free before and after the calls for each three modes.
#[test]
fn conversions_between_any_two_modes_have_the_same_results_locally_and_on_a_server() {
    const MODES: [Mode; 4] = [Mode::Exclusive, TWO, THREE, Mode::Shared];
    let acquire = |session, mode| call(session, 0, What::Acquire(mode, Duration::ZERO));
    let mut calls = Vec::new();
    for (own, other, to) in all_of(MODES) {
        // Some of these are refused, and then nobody is in the way.
        calls.extend([acquire(0, own), acquire(1, other), acquire(2, other)]);
        calls.push(call(0, 0, What::Convert(to, Duration::ZERO)));
        calls.push(call(0, 0, What::Convert(own, SHORT)));
        calls.extend([call(0, 0, What::EnqueueConvert(to)), call(0, 0, What::Wait)]);
        calls.extend([call(0, 0, What::Cancel), call(0, 0, What::Wait)]);
        calls.push(call(0, 0, What::EnqueueConvert(own)));
        calls.extend([call(1, 0, What::Release), call(0, 0, What::Wait)]);
        calls.extend([call(1, 0, What::Enqueue(other)), call(1, 0, What::Wait)]);
        calls.extend([call(2, 0, What::Release), call(1, 0, What::Wait), call(0, 0, What::Wait)]);
        calls.extend((0..SESSIONS).map(|session| call(session, 0, What::Release)));
    }
    agree(&calls);
}

fn all_of<T: Copy, const N: usize>(values: [T; N]) -> impl Iterator<Item = (T, T, T)> {
    let pairs = move |first| values.into_iter().map(move |second| (first, second));
    values
        .into_iter()
        .flat_map(pairs)
        .flat_map(move |(first, second)| values.map(|third| (first, second, third)))
}

#[test]
fn a_failed_call_leaves_the_report_of_a_cancelled_place_to_lock_wait() {
    use Mode::{Exclusive, Shared};
    let acquire = |mode| What::Acquire(mode, Duration::ZERO);
    let cancelled =
        [call(0, 0, acquire(Exclusive)), call(1, 0, What::Enqueue(Exclusive)), call(1, 0, What::Cancel)];
    let unconverted = [
        call(0, 0, acquire(Shared)),
        call(1, 0, acquire(Shared)),
        call(1, 0, What::EnqueueConvert(Exclusive)),
        call(1, 0, What::Cancel),
    ];
    for (start, between, told) in [
        (&cancelled[..], acquire(Exclusive), "Cancelled"),
        (&cancelled, What::Acquire(Exclusive, SHORT), "Cancelled"),
        (&cancelled, What::AcquireBoth(Exclusive), "Cancelled"),
        (&cancelled, What::Convert(Exclusive, Duration::ZERO), "Cancelled"),
        (&cancelled, What::Release, "NotHeld"),
        (&cancelled, What::Enqueue(Exclusive), "TimedOut"),
        (&unconverted, What::Convert(Exclusive, Duration::ZERO), "Cancelled"),
        (&unconverted, acquire(Exclusive), "Cancelled"),
        (&unconverted, What::Convert(Shared, Duration::ZERO), "NotHeld"),
        (&unconverted, What::EnqueueConvert(Shared), "NotHeld"),
        (&unconverted, What::Release, "NotHeld"),
    ] {
        for mut world in [World::here(), World::there()] {
            start.iter().for_each(|call| drop(world.make(call)));
            world.make(&call(1, 0, between));
            let is_remote = world.server.is_some();
            assert_eq!(world.make(&call(1, 0, What::Wait)), told, "{between:?} {is_remote}");
            if told != "TimedOut" {
                assert_eq!(world.make(&call(1, 0, What::Wait)), "NotHeld", "{between:?} {is_remote}");
            }
        }
    }
}

/// Otherwise a caller could wait there, and believe to hold the mode that it has asked for last.
#[test]
fn a_place_counts_only_in_the_mode_in_which_it_was_taken() {
    let is_refused = |said: Result<(), AcquireError>| matches!(&said, Err(AcquireError::Invalid(why)) if why.contains("already waits"));
    for world in [World::here(), World::there()] {
        let [holder, session, ..] = world.sessions.as_slice() else { unreachable!() };
        holder.acquire(b"a", Mode::Exclusive, NOW).unwrap();
        assert_eq!(session.enqueue(b"a", TWO), Ok(Attempt::Queued));
        for mode in [Mode::Exclusive, THREE, Mode::Shared] {
            assert!(is_refused(session.enqueue(b"a", mode).map(drop)), "{mode}");
            assert!(is_refused(session.acquire(b"a", mode, NOW).map(drop)), "{mode}");
            assert!(is_refused(session.acquire(b"a", mode, None).map(drop)), "{mode}");
        }
        let both = NAMES.map(|name| (name, TWO));
        assert!(is_refused(session.acquire_all(&both, None).map(drop)));
        assert_eq!(session.acquire_all(&both[..1], None), Err(AcquireError::AlreadyWaiting));
        assert_eq!(session.enqueue(b"a", TWO), Err(AcquireError::AlreadyWaiting));
        assert_eq!(session.acquire(b"a", TWO, None), Err(AcquireError::AlreadyWaiting));
        holder.release(b"a").unwrap();
        session.wait(b"a", Some(SOON)).unwrap();
        assert_eq!(session.held(b"a").unwrap().map(|held| held.mode), Some(TWO));

        holder.acquire(b"a", TWO, NOW).unwrap();
        assert_eq!(session.enqueue_convert(b"a", Mode::Exclusive), Ok(Attempt::Queued));
        for mode in [TWO, THREE, Mode::Shared] {
            assert!(is_refused(session.enqueue_convert(b"a", mode).map(drop)), "{mode}");
            assert!(is_refused(session.convert(b"a", mode, None).map(drop)), "{mode}");
        }
        assert_eq!(session.convert(b"a", Mode::Exclusive, None), Err(AcquireError::AlreadyWaiting));
    }
}

#[test]
fn every_call_of_an_ended_session_reports_the_end() {
    for world in [World::here(), World::there()] {
        let session = &world.sessions[0];
        session.close();
        let exclusive = [(b"a".as_slice(), Mode::Exclusive)];
        for said in [
            session.acquire(b"a", Mode::Exclusive, NOW).map(drop),
            session.acquire_all(&exclusive, NOW).map(drop),
            session.convert(b"a", Mode::Shared, NOW).map(drop),
            session.enqueue(b"a", Mode::Exclusive).map(drop),
            session.enqueue_convert(b"a", Mode::Exclusive).map(drop),
            session.wait(b"a", NOW).map(drop),
        ] {
            assert!(is_lost(&said), "{said:?}");
        }
        assert!(matches!(session.release(b"a"), Err(ReleaseError::Lost(_))));
        assert!(matches!(session.release_all(&[b"a"]), Err(ReleaseError::Lost(_))));
        assert!(matches!(session.held(b"a"), Err(InspectError::Lost(_))));
        assert!(matches!(session.inspect(b"a"), Err(InspectError::Lost(_))));
    }
}

#[test]
fn a_grant_that_came_before_a_cancel_is_kept() {
    for world in [World::here(), World::there()] {
        let [holder, session, ..] = world.sessions.as_slice() else { unreachable!() };
        holder.acquire(b"a", Mode::Exclusive, NOW).unwrap();
        assert_eq!(session.enqueue(b"a", Mode::Exclusive), Ok(Attempt::Queued));
        holder.release(b"a").unwrap();
        // The grant has arrived, and no call has read it yet.
        assert!(session.lost_fd().is_none_or(|fd| is_readable(fd, SOON)));
        session.cancel();
        let grant = session.wait(b"a", NOW).unwrap();
        assert_eq!(session.inspect(b"a").unwrap().held.map(|held| held.token), Some(grant.token));
    }
}
