//! Random runs of clients that resume: the server is killed, stopped cleanly, killed again within its
//! grace, stopped for a while, and loses its state directory; connections are reset on either side,
//! and cut in one direction or both; clients are killed, stopped for longer than their limit, kicked,
//! and their machines sleep. All by the seed, and everything is recorded and checked.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::breaking::{self, Break};
use super::proxy::{Act, Proxy, Which};
use crate::checker::{Model, Rules, Verdict};
use crate::faults::DEEP_CALLS;
use crate::faults::child::ClientOrders;
use crate::faults::daemon::Daemon;
use crate::faults::fleet::Fleet;
use crate::faults::run::{BYTES_PER_CALL, END_NOTICE_MAX, GRANT_DELAY_MAX, judge};
use crate::faults::wire::Protocol;
use crate::history::{Call, History, MILLISECOND, Nanos, Outcome, SECOND, Session};
use crate::plan::Mix;
use crate::random::{Random, fresh_seed};

/// The parameters of a run.
#[derive(Clone, Copy, Debug)]
struct Ride {
    name: &'static str,
    mix: Mix,
    processes: usize,
    threads: u64,
    millis: u64,
    /// The run ends when about `calls` calls have been made, or after `millis` milliseconds.
    calls: u64,
    /// The average interval between two events of a kind, in milliseconds.
    every: &'static [(Event, u64)],
    /// For how long client processes and the server are stopped, in milliseconds.
    pauses: (u64, u64),
    server_pauses: (u64, u64),
    /// The server loses its state directory at one in about this many ends.
    forgets: u64,
    /// A client keeps a lock for seconds once in about this many steps.
    stays: u64,
    /// Whether some clients use the library.
    library: bool,
    /// No process of clients is stopped, and all sessions resume: then no increment of a counter that
    /// only a lock guards may be lost.
    is_smooth: bool,
}

/// Something that happens in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    KillServer,
    StopServer,
    PauseServer,
    /// The server replaces itself, and keeps its clients.
    Upgrade,
    KillClients,
    PauseClients,
    Kick,
    Reset,
    ResetClientSide,
    ResetServerSide,
    Cut,
    /// All connections end, and none can be made for a while.
    Outage,
}

struct Riding {
    ride: Ride,
    random: Random,
    daemon: Daemon,
    proxy: Proxy,
    fleet: Fleet,
    /// When the server is to be started again, or to be continued.
    down_until: Option<Instant>,
    stopped_until: Option<Instant>,
    stopped: Vec<(Instant, usize)>,
    kicked: Vec<(String, Nanos)>,
    done: BTreeMap<Event, usize>,
}

/// The longest time that a server stays down, and for which a killed one runs before it is killed
/// again within its grace, in milliseconds.
const DOWN_MAX: u64 = 3000;
const LOOP_MAX: u64 = 6000;
/// For how long before the end of a run the server is not ended any more: the last grace is over
/// then.
const QUIET_AT_LAST: Duration = Duration::from_secs(15);

impl Riding {
    fn go(&mut self) {
        let start = Instant::now();
        let length = Duration::from_millis(self.ride.millis);
        let mut next: BTreeMap<(u64, Event), ()> = BTreeMap::new();
        for &(event, every) in self.ride.every {
            next.insert((self.random.between(every / 2, every * 3 / 2), event), ());
        }
        let mut rounds = 0_u64;
        while start.elapsed() < length {
            let at = u64::try_from(start.elapsed().as_millis()).unwrap();
            while let Some(entry) = next.first_entry().filter(|entry| entry.key().0 <= at) {
                let (_, event) = entry.remove_entry().0;
                let again = self.carry_out(event, length.saturating_sub(start.elapsed()));
                let every = self.ride.every.iter().find(|(other, _)| *other == event).map_or(0, |one| one.1);
                let after = again.unwrap_or_else(|| self.random.between(every / 2, every * 3 / 2));
                next.insert((at + after.max(1), event), ());
            }
            self.continue_what_is_due();
            rounds += 1;
            if rounds.is_multiple_of(64) && self.fleet.noted() >= self.ride.calls * BYTES_PER_CALL {
                break;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        // The clients end at a server that answers.
        (self.down_until, self.stopped_until) =
            (self.down_until.map(|_| Instant::now()), self.stopped_until.map(|_| Instant::now()));
        self.continue_what_is_due();
        self.proxy.act(Which::All, Act::LetGo);
        self.proxy.accept(true);
        self.daemon.finish_upgrade();
    }

    fn continue_what_is_due(&mut self) {
        let is_due = |until: &mut Instant| *until <= Instant::now();
        if self.down_until.take_if(is_due).is_some() {
            self.daemon.start_again();
        }
        if self.stopped_until.take_if(is_due).is_some() {
            self.daemon.signal(Signal::CONT);
        }
        let over: Vec<_> = self.stopped.extract_if(.., |(until, _)| *until <= Instant::now()).collect();
        over.into_iter().for_each(|(_, slot)| self.fleet.resume(slot));
        assert!(self.down_until.is_some() || self.daemon.runs(), "the server ended by itself");
    }

    fn millis(&mut self, (low, high): (u64, u64)) -> Duration {
        Duration::from_millis(self.random.between(low, high))
    }

    /// Lets it happen. After how many milliseconds it is to happen again, if that is not by chance.
    fn carry_out(&mut self, event: Event, left: Duration) -> Option<u64> {
        let server_runs = self.down_until.is_none() && self.stopped_until.is_none();
        if matches!(event, Event::KillServer | Event::StopServer) && left < QUIET_AT_LAST {
            return Some(u64::MAX / 2);
        }
        let slot = usize::try_from(self.random.below(self.fleet.len() as u64)).unwrap();
        match event {
            Event::KillServer | Event::StopServer => {
                if self.down_until.is_some() || event == Event::StopServer && !server_runs {
                    return Some(200);
                }
                self.stopped_until = None;
                self.daemon.end(if event == Event::KillServer { Signal::KILL } else { Signal::TERM });
                if self.random.one_in(self.ride.forgets) {
                    self.daemon.forget();
                }
                let down = self.millis((0, DOWN_MAX));
                self.down_until = Some(Instant::now() + down);
            }
            Event::PauseServer if server_runs => {
                self.daemon.signal(Signal::STOP);
                let stopped = self.millis(self.ride.server_pauses);
                self.stopped_until = Some(Instant::now() + stopped);
            }
            Event::Kick if server_runs => self.kicked.extend(self.daemon.kick_holder(&mut self.random)),
            Event::Upgrade if server_runs => self.daemon.begin_upgrade(),
            Event::PauseServer | Event::Kick | Event::Upgrade => return Some(200),
            Event::KillClients => {
                self.fleet.kill(slot);
                self.stopped.retain(|(_, stopped)| *stopped != slot);
            }
            Event::PauseClients => {
                self.fleet.pause(slot);
                let stopped = self.millis(self.ride.pauses);
                self.stopped.push((Instant::now() + stopped, slot));
            }
            Event::Reset => breaking::break_one(&self.proxy, Break::Reset, &mut self.random),
            Event::ResetClientSide => {
                breaking::break_one(&self.proxy, Break::ResetClientSide, &mut self.random)
            }
            Event::ResetServerSide => {
                breaking::break_one(&self.proxy, Break::ResetServerSide, &mut self.random)
            }
            Event::Cut => breaking::break_one(&self.proxy, Break::Cut, &mut self.random),
            Event::Outage => breaking::interrupt(&self.proxy, &mut self.random),
        }
        *self.done.entry(event).or_default() += 1;
        let is_loop = event == Event::KillServer && self.random.percent(25);
        is_loop.then(|| self.random.between(DOWN_MAX, LOOP_MAX))
    }
}

/// Begins a run in this directory.
fn begin(ride: Ride, seed: u64, directory: &Path) -> Riding {
    let mut daemon = Daemon::start(directory, &["--shared-excludes", "--allow-kick"], true);
    daemon.has_resumable();
    let proxy = Proxy::start(daemon.address());
    let direct = daemon.address().to_owned();
    let through = proxy.address().to_owned();
    let mut endpoints = vec![
        (Protocol::Resumable, through.clone()),
        (Protocol::Resumable, through.clone()),
        (Protocol::Resumable, direct.clone()),
    ];
    if !ride.is_smooth {
        endpoints.push((Protocol::Message, direct.clone()));
    }
    let mut mix = ride.mix;
    if ride.library {
        endpoints.extend([(Protocol::ResumableLibrary, through), (Protocol::ResumableLibrary, direct)]);
        // The library asks again by itself, and does not say when: what an earlier request may have
        // got cannot be told from what the last one has.
        mix.inspects = 0;
    }
    let orders = ClientOrders {
        seed,
        process: 0,
        threads: ride.threads,
        directory: directory.to_owned(),
        endpoints,
        mix,
        text_can_share: true,
        misbehaves: 2000,
        stays: ride.stays,
        has_standbys: false,
    };
    Riding {
        ride,
        random: Random::for_part(seed, 7),
        daemon,
        proxy,
        fleet: Fleet::start(orders, ride.processes),
        down_until: None,
        stopped_until: None,
        stopped: Vec::new(),
        kicked: Vec::new(),
        done: BTreeMap::new(),
    }
}

/// How much later than a server's end a client may have read what it sent.
const READ_LATER_MAX: Nanos = 10 * SECOND;

/// A server with a new state directory begins again with its tokens. Makes all of its tokens higher
/// than those before. If it is not certain which server has given a token, that token is left out.
fn renumber(history: &mut History) {
    let news: Vec<Nanos> =
        history.servers.iter().filter(|server| server.is_new).map(|server| server.started).collect();
    for index in 0..history.calls.len() {
        let Call { session, start, end, .. } = history.calls[index];
        // The library does not say when it has connected.
        let Session { resumption, .. } = &history.sessions[session];
        let is_known = resumption.as_ref().is_none_or(|resumption| !resumption.connected.is_empty());
        let at = if is_known { history.connected(session, end) } else { end };
        let is_certain =
            is_known || !news.iter().any(|new| *new <= end && start.saturating_sub(READ_LATER_MAX) <= *new);
        let before = news.iter().filter(|new| **new <= at).count() as u64;
        if let Outcome::Granted(token) = &mut history.calls[index].outcome {
            // Tokens are below 2^53.
            *token = token.filter(|_| is_certain).map(|token| token + (before << 54));
        }
    }
}

/// Carries a run out, and judges it.
fn run(ride: Ride) -> (History, Verdict) {
    let seed = fresh_seed();
    let directory = tempfile::tempdir().unwrap();
    let start = Instant::now();
    let mut riding = begin(ride, seed, directory.path());
    riding.go();
    let Riding { daemon, proxy, fleet, kicked, done, .. } = riding;
    let mut gathered = fleet.finish();
    kicked.iter().for_each(|(owner, since)| gathered.was_ended(owner, *since));
    gathered.history.servers.clone_from(&daemon.lives);
    renumber(&mut gathered.history);
    let conflicts = daemon.conflicts();
    drop((daemon, proxy));
    let resumptions = gathered.history.sessions.iter().filter_map(|session| session.resumption.as_ref());
    let (doubts, resumed) = resumptions.fold((0, 0), |(doubts, resumed), resumption| {
        (doubts + resumption.doubts, resumed + resumption.resumed)
    });
    let mut head = format!("{}, LOCKD_SEED={seed}, ran {:.1} s\n", ride.name, start.elapsed().as_secs_f64());
    let _ = write!(head, "  events: {done:?}; {doubts} times in doubt, {resumed} times resumed");
    assert_eq!(conflicts, 0, "two sessions claimed one lock\n{head}");
    let server_pause = ride.server_pauses.1 * MILLISECOND;
    let rules = Rules {
        grant_delay_max: GRANT_DELAY_MAX + server_pause,
        end_notice_max: END_NOTICE_MAX,
        clock_lead: 0,
    };
    // A client that was stopped does not check its session before it writes, nor do others that can
    // lose theirs.
    let verdict = judge(&head, &gathered, &rules, directory.path(), ride.is_smooth);
    assert!(doubts > 0 && resumed > 0, "nothing was tried: {head}");
    (gathered.history, verdict)
}

const USUAL: Ride = Ride {
    name: "",
    mix: Mix {
        names: 48,
        unlimited: 1,
        hold: (0, 400_000),
        idle: (0, 200_000),
        limit: (1_000_000, 30_000_000),
        ..Mix::READ_WRITE
    },
    processes: 4,
    threads: 4,
    millis: 36_000,
    calls: u64::MAX / BYTES_PER_CALL,
    every: &[
        (Event::KillServer, 9000),
        (Event::StopServer, 9000),
        (Event::PauseServer, 9000),
        (Event::KillClients, 2000),
        (Event::PauseClients, 9000),
        (Event::Kick, 400),
        (Event::Reset, 250),
        (Event::ResetClientSide, 250),
        (Event::ResetServerSide, 250),
        (Event::Cut, 250),
        (Event::Outage, 9000),
    ],
    pauses: (100, 11_000),
    server_pauses: (100, 3000),
    forgets: 12,
    stays: 25,
    library: false,
    is_smooth: false,
};

#[test]
fn sessions_that_resume_break_nothing() {
    let (history, verdict) =
        run(Ride { name: "a short run with sessions that resume", library: true, ..USUAL });
    assert!(history.calls.len() > 500, "only {} calls", history.calls.len());
    assert!(history.servers.len() > 2, "the server did not end");
    let doubts = verdict.checked.get(&Model::Resume).copied().unwrap_or_default();
    assert!(doubts > 5, "only {doubts} times in doubt");
}

/// A million calls, with as many faults as leave time for them.
fn deep(ride: Ride) {
    let calls = DEEP_CALLS * 11 / 10;
    let (history, verdict) = run(Ride {
        calls,
        millis: 1_500_000,
        stays: 500,
        threads: 8,
        // A wait without a limit is one call in the time of a hundred.
        mix: Mix { unlimited: 0, ..ride.mix },
        every: &[
            (Event::KillServer, 35_000),
            (Event::StopServer, 25_000),
            (Event::PauseServer, 40_000),
            (Event::KillClients, 3000),
            (Event::PauseClients, 12_000),
            (Event::Kick, 1500),
            (Event::Reset, 600),
            (Event::ResetClientSide, 600),
            (Event::ResetServerSide, 600),
            (Event::Cut, 600),
            (Event::Outage, 60_000),
        ],
        server_pauses: (100, 11_000),
        forgets: 20,
        ..ride
    });
    assert!(history.calls.len() as u64 >= DEEP_CALLS, "only {} calls", history.calls.len());
    let doubts = verdict.checked.get(&Model::Resume).copied().unwrap_or_default();
    assert!(doubts > 100, "only {doubts} times in doubt");
}

#[test]
#[ignore = "takes minutes: make check-deep"]
fn deep_sessions_that_resume() {
    deep(Ride { name: "sessions that resume", ..USUAL });
}

#[test]
#[ignore = "takes minutes: make check-deep"]
fn deep_sessions_that_resume_with_the_library() {
    let mix = Mix { sets: 20, converts: 5, ..USUAL.mix };
    deep(Ride { name: "sessions that resume, also with the library", library: true, mix, ..USUAL });
}

#[test]
#[ignore = "takes minutes: make check-deep"]
fn deep_counters_that_sessions_that_resume_guard() {
    let every = &[
        (Event::KillServer, 20_000),
        (Event::StopServer, 9000),
        (Event::Upgrade, 3000),
        (Event::KillClients, 2000),
        (Event::Kick, 400),
        (Event::Reset, 600),
        (Event::ResetClientSide, 600),
        (Event::ResetServerSide, 600),
        (Event::Cut, 600),
        (Event::Outage, 9000),
    ];
    let mix = Mix { shared: 0, converts: 0, unlimited: 0, ..USUAL.mix };
    let ride = Ride { mix, every, millis: 120_000, stays: 50, library: true, is_smooth: true, ..USUAL };
    run(Ride { name: "counters that sessions that resume guard", ..ride });
}
