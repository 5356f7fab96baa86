//! One cluster in a random run: what happens to its servers, connections and clients, by the seed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use super::super::child::ClientOrders;
use super::super::fleet::Fleet;
use super::super::resuming::breaking::{self, Break};
use super::super::resuming::proxy::{Act, Which};
use super::super::run::{BYTES_PER_CALL, END_NOTICE_MAX, GRANT_DELAY_MAX, judge};
use super::super::wire::Protocol;
use super::clocks::{Clocks, MACHINE_RATE};
use super::cluster::{Cluster, EtcdWay, Setup};
use crate::checker::{Rules, Verdict};
use crate::history::{History, SECOND};
use crate::plan::Mix;
use crate::random::Random;

/// Something that happens in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// The active server is killed, perhaps again within the grace of the next one.
    KillActive,
    /// It is stopped for longer than it may speak: the kernel ends it.
    StopActive,
    /// It is stopped for so short a time that it goes on as before.
    PauseActive,
    CutActiveFromEtcd,
    /// What goes to or comes from etcd arrives later.
    SlowEtcd,
    StandDown,
    Terminate,
    KillStandby,
    PauseStandby,
    KillClients,
    PauseClients,
    Reset,
    ResetClientSide,
    ResetServerSide,
    Cut,
    /// No client of the active server can reach it for a while.
    Outage,
}

/// The parameters of a run with one cluster or several.
#[derive(Clone, Copy, Debug)]
pub(super) struct Course {
    pub(super) name: &'static str,
    pub(super) mix: Mix,
    pub(super) clusters: usize,
    pub(super) servers: usize,
    pub(super) etcd_members: usize,
    pub(super) processes: usize,
    pub(super) threads: u64,
    /// The run ends after `millis` milliseconds, or when all clusters together have had this many
    /// calls and fail-overs.
    pub(super) millis: u64,
    pub(super) calls: u64,
    pub(super) fail_overs: u64,
    /// The average interval between two events of a kind, in milliseconds.
    pub(super) every: &'static [(Event, u64)],
    /// The average interval at which the leader of etcd is stopped, in milliseconds.
    pub(super) etcd_every: u64,
    /// A client keeps a lock for seconds once in about this many steps.
    pub(super) stays: u64,
    /// No process of clients is stopped, and all sessions resume: then no increment of a counter that
    /// only a lock guards may be lost.
    pub(super) is_smooth: bool,
    /// How fast the clocks of each cluster's servers run, in thousandths; none: as the machine's.
    pub(super) clock_rates: &'static [&'static [u64]],
}

/// How far the clusters of a run have come.
#[derive(Default)]
pub(super) struct Progress {
    pub(super) calls: AtomicU64,
    pub(super) fail_overs: AtomicU64,
}

/// Times in milliseconds: for how long servers stay down; after which a killed one is followed by the
/// next one's end within its grace; for how long servers and clients are stopped, and etcd is cut off
/// or slow.
const DOWN: (u64, u64) = (0, 2000);
const LOOP: (u64, u64) = (1500, 8000);
const STOPS: (u64, u64) = (1100, 4000);
const PAUSES: (u64, u64) = (50, 600);
const STANDBY_PAUSES: (u64, u64) = (50, 3000);
const CLIENT_PAUSES: (u64, u64) = (100, 11_000);
const ETCD_TROUBLE: (u64, u64) = (50, 2500);
/// Before the end of a run nothing happens to servers for this long: the last grace is over then.
const QUIET_AT_LAST: Duration = Duration::from_millis(14_500);

/// What is to be undone.
#[derive(Clone, Copy, Debug)]
enum Due {
    Start(usize),
    Continue(usize),
    OpenWayToEtcd(usize),
    ContinueClients(usize),
}

pub(super) struct ClusterInRun<'a> {
    course: Course,
    number: usize,
    seed: u64,
    directory: TempDir,
    random: Random,
    cluster: Cluster,
    fleet: Fleet,
    due: Vec<(Instant, Due)>,
    done: BTreeMap<Event, usize>,
    began: Instant,
    progress: &'a [Progress],
}

impl<'a> ClusterInRun<'a> {
    pub(super) fn begin(
        course: Course,
        number: usize,
        run_seed: u64,
        etcd: &[String],
        clocks: Option<Clocks<'_>>,
        progress: &'a [Progress],
    ) -> Self {
        let seed = Random::for_part(run_seed, 100 + number as u64).next();
        let directory = tempfile::tempdir().unwrap();
        let mut cluster = Cluster::start(&Setup {
            directory: directory.path(),
            program: clocks.map_or(Path::new(env!("CARGO_BIN_EXE_lockd")), |clocks| &clocks.built.program),
            etcd,
            name: &format!("cluster-{number}"),
            servers: course.servers,
            dead_peer_seconds: Setup::DEAD_PEER_SECONDS,
            leader_seconds: Setup::LEADER_SECONDS,
            clocks,
        });
        cluster.until_active(start_again);
        let orders = ClientOrders {
            seed,
            process: 0,
            threads: course.threads,
            directory: directory.path().to_owned(),
            endpoints: endpoints(&cluster, course.is_smooth),
            mix: course.mix,
            text_can_share: true,
            misbehaves: 2000,
            stays: course.stays,
            has_standbys: true,
        };
        Self {
            course,
            number,
            seed,
            random: Random::for_part(seed, 7),
            cluster,
            fleet: Fleet::start(orders, course.processes),
            directory,
            due: Vec::new(),
            done: BTreeMap::new(),
            began: Instant::now(),
            progress,
        }
    }

    pub(super) fn go(&mut self) {
        let length = Duration::from_millis(self.course.millis);
        let mut next: BTreeMap<(u64, Event), ()> = BTreeMap::new();
        for &(event, every) in self.course.every {
            next.insert((self.random.between(every / 2, every * 3 / 2), event), ());
        }
        let mut rounds = 0_u64;
        while self.began.elapsed() + QUIET_AT_LAST < length && !self.has_reached_the_goal() {
            let at = u64::try_from(self.began.elapsed().as_millis()).unwrap();
            while let Some(entry) = next.first_entry().filter(|entry| entry.key().0 <= at) {
                let (_, event) = entry.remove_entry().0;
                let again = self.carry_out(event);
                let every =
                    self.course.every.iter().find(|(other, _)| *other == event).map_or(0, |one| one.1);
                let after = again.unwrap_or_else(|| self.random.between(every / 2, every * 3 / 2));
                next.insert((at + after.max(1), event), ());
            }
            self.undo_what_is_due();
            rounds += 1;
            if rounds.is_multiple_of(64) {
                self.report_progress();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.end_quietly();
    }

    /// The clients end at a server that answers, and grants.
    fn end_quietly(&mut self) {
        (0..self.cluster.len()).for_each(|member| {
            self.cluster.set_way_to_etcd(member, EtcdWay::Open);
            self.cluster.front(member).act(Which::All, Act::LetGo);
            self.cluster.front(member).accept(true);
        });
        let quiet_until = Instant::now() + QUIET_AT_LAST;
        while Instant::now() < quiet_until {
            self.undo_what_is_due();
            std::thread::sleep(Duration::from_millis(2));
        }
        // Those that a clock has not reached yet.
        self.due.iter_mut().for_each(|due| due.0 = Instant::now());
        self.undo_what_is_due();
        self.cluster.until_active(start_again);
        self.report_progress();
    }

    fn report_progress(&self) {
        let own = &self.progress[self.number];
        own.calls.store(self.fleet.noted() / BYTES_PER_CALL, Ordering::Relaxed);
        own.fail_overs.store(self.cluster.fail_overs() as u64, Ordering::Relaxed);
    }

    fn has_reached_the_goal(&self) -> bool {
        let sum = |of: fn(&Progress) -> &AtomicU64| -> u64 {
            self.progress.iter().map(|one| of(one).load(Ordering::Relaxed)).sum()
        };
        sum(|one| &one.calls) >= self.course.calls && sum(|one| &one.fail_overs) >= self.course.fail_overs
    }

    fn millis(&mut self, (low, high): (u64, u64)) -> Instant {
        Instant::now() + Duration::from_millis(self.random.between(low, high))
    }

    fn undo_what_is_due(&mut self) {
        for member in self.cluster.look() {
            self.due.retain(|(_, due)| !matches!(due, Due::Continue(of) if *of == member));
            let down = self.millis(DOWN);
            self.due.push((down, Due::Start(member)));
        }
        let over: Vec<_> = self.due.extract_if(.., |(at, _)| *at <= Instant::now()).collect();
        for (_, due) in over {
            match due {
                Due::Start(member) => self.cluster.start_again(member),
                Due::Continue(member) => self.cluster.signal(member, Signal::CONT),
                Due::OpenWayToEtcd(member) => self.cluster.set_way_to_etcd(member, EtcdWay::Open),
                Due::ContinueClients(slot) => self.fleet.resume(slot),
            }
        }
    }

    /// Lets it happen. After how many milliseconds it is to happen again, if that is not by chance.
    fn carry_out(&mut self, event: Event) -> Option<u64> {
        let again = match event {
            Event::KillClients | Event::PauseClients => self.happens_to_clients(event),
            Event::KillStandby | Event::PauseStandby => {
                let active = self.cluster.active();
                let standbys: Vec<usize> = (0..self.cluster.len())
                    .filter(|&member| Some(member) != active && self.cluster.runs(member))
                    .collect();
                if standbys.is_empty() {
                    return Some(200);
                }
                let member = self.random.one_of(&standbys);
                self.happens_to_server(event, member)
            }
            Event::Reset | Event::ResetClientSide | Event::ResetServerSide | Event::Cut => {
                let how = match event {
                    Event::Reset => Break::Reset,
                    Event::ResetClientSide => Break::ResetClientSide,
                    Event::ResetServerSide => Break::ResetServerSide,
                    _ => Break::Cut,
                };
                let Some(active) = self.cluster.active() else { return Some(50) };
                breaking::break_one(self.cluster.front(active), how, &mut self.random);
                None
            }
            _ => {
                let Some(active) = self.cluster.active() else { return Some(50) };
                self.happens_to_server(event, active)
            }
        };
        *self.done.entry(event).or_default() += 1;
        again
    }

    fn happens_to_clients(&mut self, event: Event) -> Option<u64> {
        let slot = usize::try_from(self.random.below(self.fleet.len() as u64)).unwrap();
        if event == Event::KillClients {
            self.fleet.kill(slot);
            self.due.retain(|(_, due)| !matches!(due, Due::ContinueClients(of) if *of == slot));
        } else {
            self.fleet.pause(slot);
            let until = self.millis(CLIENT_PAUSES);
            self.due.push((until, Due::ContinueClients(slot)));
        }
        None
    }

    fn happens_to_server(&mut self, event: Event, member: usize) -> Option<u64> {
        let pause = |this: &mut Self, length| {
            this.cluster.signal(member, Signal::STOP);
            let until = this.millis(length);
            this.due.push((until, Due::Continue(member)));
        };
        match event {
            Event::KillActive | Event::KillStandby => {
                self.cluster.signal(member, Signal::KILL);
                let is_loop = event == Event::KillActive && self.random.percent(30);
                return is_loop.then(|| self.random.between(LOOP.0, LOOP.1));
            }
            Event::StopActive => pause(self, STOPS),
            Event::PauseActive => pause(self, PAUSES),
            Event::PauseStandby => pause(self, STANDBY_PAUSES),
            Event::CutActiveFromEtcd | Event::SlowEtcd => {
                let slow = [EtcdWay::RequestsKept, EtcdWay::AnswersKept];
                let is_slow = event == Event::SlowEtcd;
                let way = if is_slow { self.random.one_of(&slow) } else { EtcdWay::Cut };
                self.cluster.set_way_to_etcd(member, way);
                let until = self.millis(ETCD_TROUBLE);
                self.due.push((until, Due::OpenWayToEtcd(member)));
            }
            Event::StandDown => self.cluster.stand_down(member),
            Event::Terminate => self.cluster.signal(member, Signal::TERM),
            Event::Outage => breaking::interrupt(self.cluster.front(member), &mut self.random),
            _ => {}
        }
        None
    }

    /// Ends the clients and the servers, and has everything checked.
    pub(super) fn finish(self) -> (History, Verdict) {
        let Self { course, number, seed, directory, mut cluster, fleet, done, began, .. } = self;
        let mut gathered = fleet.finish();
        cluster.look();
        gathered.history.servers = cluster.lives();
        let conflicts = cluster.conflicts();
        drop(cluster);
        let resumptions = gathered.history.sessions.iter().filter_map(|session| session.resumption.as_ref());
        let (doubts, resumed) = resumptions.fold((0, 0), |(doubts, resumed), resumption| {
            (doubts + resumption.doubts, resumed + resumption.resumed)
        });
        let servers = &gathered.history.servers;
        let mut head = format!(
            "{}, cluster {number}, seed {seed}, ran {:.1} s\n  {} fail-overs, {} of them without a hand-over",
            course.name,
            began.elapsed().as_secs_f64(),
            servers.len().saturating_sub(1),
            servers.windows(2).filter(|pair| pair[0].is_remembered).count(),
        );
        let _ = write!(head, "; {doubts} times in doubt, {resumed} times resumed\n  events: {done:?}");
        assert_eq!(conflicts, 0, "two sessions claimed one lock\n{head}");
        let rates = course.clock_rates.iter().copied().flatten();
        let clock_lead = rates.max().map_or(0, |rate| rate.saturating_sub(MACHINE_RATE));
        // A stopped server, and an election of etcd.
        let rules = Rules {
            grant_delay_max: GRANT_DELAY_MAX + 5 * SECOND,
            end_notice_max: END_NOTICE_MAX,
            clock_lead,
        };
        let verdict = judge(&head, &gathered, &rules, directory.path(), course.is_smooth);
        (gathered.history, verdict)
    }
}

/// On a busy machine a server may end at any time.
fn start_again(cluster: &mut Cluster) {
    for member in cluster.look() {
        cluster.start_again(member);
    }
}

/// What clients connect to: those that resume through the proxies and directly, and, unless the run
/// is smooth, those of all other kinds directly.
fn endpoints(cluster: &Cluster, is_smooth: bool) -> Vec<(Protocol, String)> {
    let (through, direct) = (cluster.places(true), cluster.places(false));
    let mut endpoints = vec![
        (Protocol::Resumable, through.clone()),
        (Protocol::Resumable, through.clone()),
        (Protocol::Resumable, direct.clone()),
        (Protocol::ResumableLibrary, through),
        (Protocol::ResumableLibrary, direct.clone()),
    ];
    if !is_smooth {
        endpoints.push((Protocol::Library, direct));
        for protocol in [Protocol::Lockd, Protocol::Glockd, Protocol::Message] {
            endpoints.extend(cluster.addresses(protocol).into_iter().map(|address| (protocol, address)));
        }
    }
    endpoints
}
