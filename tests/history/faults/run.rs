//! Carries out a fault run: starts the server and the clients, injects the faults of the schedule,
//! gathers what the clients recorded, has it checked, and reports the result.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::child::ClientOrders;
use super::daemon::Daemon;
use super::fleet::Fleet;
use super::gather::Gathered;
use super::local;
use super::wire::Protocol;
use crate::checker::{Rules, Verdict, check};
use crate::history::{History, NEVER, Nanos, SECOND};
use crate::plan::Mix;
use crate::random::{Random, fresh_seed};

/// How long a broker may take to grant what it can grant before it counts as stuck. The time is
/// long because the machine may be busy with other work.
pub(super) const GRANT_DELAY_MAX: Nanos = 8 * SECOND;
/// How long a server may take to notice that a connection has ended.
pub(super) const END_NOTICE_MAX: Nanos = 3 * SECOND;

/// About how many bytes are logged for a call.
pub(super) const BYTES_PER_CALL: u64 = 56;

/// One run at a time: a run needs the machine for itself, except for one that mostly waits.
static TURN: Mutex<()> = Mutex::new(());

pub(crate) fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A fault that is injected into processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    KillClients,
    PauseClients,
    /// The server hangs up on a client that holds a lock.
    KickHolder,
    KillServer,
    StopServer,
    /// The server replaces itself, and keeps its clients.
    Upgrade,
}

/// The parameters of a fault run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) mix: Mix,
    pub(crate) processes: usize,
    pub(crate) threads: u64,
    /// The run ends when about `calls` calls have been made, or after `millis` milliseconds.
    pub(crate) calls: u64,
    pub(crate) millis: u64,
    /// The average interval between two faults of a kind, in milliseconds; 0: never.
    pub(crate) kills: u64,
    pub(crate) pauses: u64,
    pub(crate) kicks: u64,
    pub(crate) server_kills: u64,
    pub(crate) server_stops: u64,
    pub(crate) upgrades: u64,
    /// The shortest and longest time for which clients are stopped, in milliseconds: longer than
    /// their time limits.
    pub(crate) pause_ms: (u64, u64),
    pub(crate) misbehaves: u64,
    /// The least number of upgrades that must succeed.
    pub(crate) upgrades_min: usize,
    pub(crate) keeps_state: bool,
    /// The greatest number of times that the server is killed or stopped.
    pub(crate) server_faults_max: usize,
    /// Whether other runs wait until this one is over.
    pub(crate) alone: bool,
}

impl Scenario {
    /// What most runs have.
    pub(crate) const USUAL: Self = Self {
        name: "",
        mix: Mix::MUTEX,
        processes: 4,
        threads: 4,
        calls: u64::MAX / BYTES_PER_CALL,
        millis: 1500,
        kills: 150,
        pauses: 200,
        kicks: 0,
        server_kills: 0,
        server_stops: 0,
        upgrades: 0,
        pause_ms: (100, 600),
        misbehaves: 300,
        upgrades_min: 0,
        keeps_state: false,
        server_faults_max: usize::MAX,
        alone: true,
    };

    fn every(&self, fault: Fault) -> u64 {
        match fault {
            Fault::KillClients => self.kills,
            Fault::PauseClients => self.pauses,
            Fault::KickHolder => self.kicks,
            Fault::KillServer => self.server_kills,
            Fault::StopServer => self.server_stops,
            Fault::Upgrade => self.upgrades,
        }
    }
}

/// The faults to come. `next` holds the time, in milliseconds since the start, and the kind of
/// each.
struct Schedule {
    random: Random,
    next: BTreeMap<(u64, Fault), ()>,
    scenario: Scenario,
}

impl Schedule {
    fn new(seed: u64, scenario: Scenario) -> Self {
        let mut schedule = Self { random: Random::for_part(seed, 7), next: BTreeMap::new(), scenario };
        let of_clients = [Fault::KillClients, Fault::PauseClients, Fault::KickHolder];
        let of_servers = [Fault::KillServer, Fault::StopServer, Fault::Upgrade];
        of_clients.into_iter().chain(of_servers).for_each(|fault| schedule.plan(0, fault));
        schedule
    }

    fn plan(&mut self, after: u64, fault: Fault) {
        let every = self.scenario.every(fault);
        if every > 0 {
            let at = after + self.random.between(every / 2, every * 3 / 2);
            self.next.insert((at, fault), ());
        }
    }

    /// The next fault that is due, with the generator for its choices.
    fn due(&mut self, at: u64) -> Option<(Fault, &mut Random)> {
        let (&(when, fault), ()) = self.next.first_key_value().filter(|((when, _), ())| *when <= at)?;
        self.next.remove(&(when, fault));
        self.plan(when, fault);
        Some((fault, &mut self.random))
    }
}

/// A run in progress.
struct Run {
    scenario: Scenario,
    daemon: Daemon,
    fleet: Fleet,
    /// The client processes that are stopped, and when each is to continue.
    stopped: Vec<(Instant, usize)>,
    /// The owners that were kicked, each with a time before that.
    kicked: Vec<(String, Nanos)>,
    done: BTreeMap<Fault, usize>,
}

impl Run {
    fn run_schedule(&mut self, seed: u64) {
        let mut schedule = Schedule::new(seed, self.scenario);
        let start = Instant::now();
        let length = Duration::from_millis(self.scenario.millis);
        let mut rounds = 0;
        while start.elapsed() < length {
            let at = u64::try_from(start.elapsed().as_millis()).unwrap();
            while let Some((fault, random)) = schedule.due(at) {
                self.inflict(fault, random);
            }
            let is_over = |(until, _): &mut (Instant, usize)| *until <= Instant::now();
            let over: Vec<_> = self.stopped.extract_if(.., is_over).collect();
            over.into_iter().for_each(|(_, slot)| self.fleet.resume(slot));
            assert!(self.daemon.runs(), "the server ended by itself");
            rounds += 1;
            if rounds % 64 == 0 && self.fleet.noted() >= self.scenario.calls * BYTES_PER_CALL {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn inflict(&mut self, fault: Fault, random: &mut Random) {
        let lives = self.daemon.lives.len();
        if matches!(fault, Fault::KillServer | Fault::StopServer) && lives > self.scenario.server_faults_max {
            return;
        }
        *self.done.entry(fault).or_default() += 1;
        let slot = usize::try_from(random.below(self.fleet.len() as u64)).unwrap();
        let (low, high) = self.scenario.pause_ms;
        let pause = Duration::from_millis(random.between(low, high));
        match fault {
            Fault::KillClients => {
                self.fleet.kill(slot);
                self.stopped.retain(|(_, stopped)| *stopped != slot);
            }
            Fault::PauseClients => {
                self.fleet.pause(slot);
                self.stopped.push((Instant::now() + pause, slot));
            }
            Fault::Upgrade => self.daemon.begin_upgrade(),
            Fault::KickHolder => self.kicked.extend(self.daemon.kick_holder(random)),
            Fault::KillServer | Fault::StopServer => {
                self.daemon.end(if fault == Fault::KillServer { Signal::KILL } else { Signal::TERM });
                self.daemon.start_again();
            }
        }
    }
}

/// Carries a scenario out and judges it.
pub(crate) fn run(scenario: Scenario) -> (History, Verdict) {
    let _turn = scenario.alone.then(turn);
    let seed = fresh_seed();
    let directory = tempfile::tempdir().unwrap();
    let start = Instant::now();
    let options = ["--shared-excludes", "--allow-kick"];
    let daemon = Daemon::start(directory.path(), &options, scenario.keeps_state);
    let mut endpoints = daemon.endpoints().to_vec();
    if scenario.kicks > 0 {
        // Most clients use the library here. Only those have the server wait until they know, and
        // are kicked.
        let library: Vec<_> =
            endpoints.iter().filter(|(protocol, _)| *protocol == Protocol::Library).cloned().collect();
        (0..4).for_each(|_| endpoints.extend_from_slice(&library));
    }
    let orders = ClientOrders {
        seed,
        process: 0,
        threads: scenario.threads,
        directory: directory.path().to_owned(),
        endpoints,
        mix: scenario.mix,
        text_can_share: true,
        misbehaves: scenario.misbehaves,
        stays: 0,
        has_standbys: false,
    };
    let fleet = Fleet::start(orders, scenario.processes);
    let (stopped, kicked, done) = (Vec::new(), Vec::new(), BTreeMap::new());
    let mut run = Run { scenario, daemon, fleet, stopped, kicked, done };
    run.run_schedule(seed);
    let Run { mut daemon, fleet, kicked, done, .. } = run;
    daemon.finish_upgrade();
    let mut gathered = fleet.finish();
    kicked.iter().for_each(|(owner, since)| gathered.was_kicked(owner, *since));
    gathered.history.servers.clone_from(&daemon.lives);
    let upgrades = std::mem::take(&mut daemon.upgrades);
    drop(daemon);
    let mut head = format!("{}, LOCKD_SEED={seed}, ran {:.1} s\n  faults: {done:?}", scenario.name, {
        start.elapsed().as_secs_f64()
    });
    if scenario.upgrades > 0 {
        head.push_str(&format!("\n  {upgrades}"));
        assert!(upgrades.done >= scenario.upgrades_min, "{head}");
    }
    let rules = Rules { grant_delay_max: GRANT_DELAY_MAX, end_notice_max: END_NOTICE_MAX, clock_lead: 0 };
    // A client that holds while its server ends, or hangs up on it, does not check its session
    // before it writes. Only a server with a state directory waits for such clients. Without that
    // wait the plain counter may lose an increment, and only the tokens of the fenced one keep the
    // old holder out.
    let has_ends = scenario.server_kills > 0 && !scenario.keeps_state || scenario.server_stops > 0;
    let plain_too = !has_ends && scenario.kicks == 0;
    let verdict = judge(&head, &gathered, &rules, directory.path(), plain_too);
    (gathered.history, verdict)
}

/// Runs the same clients as threads of this process, until `calls` calls have been made or `millis`
/// milliseconds have passed.
pub(crate) fn run_here(name: &str, mix: Mix, threads: u64, calls: u64, millis: u64) -> (History, Verdict) {
    let _turn = turn();
    let seed = fresh_seed();
    let directory = tempfile::tempdir().unwrap();
    let start = Instant::now();
    let (bytes, length) = (calls * BYTES_PER_CALL, Duration::from_millis(millis));
    let gathered = local::run(seed, mix, threads, bytes, length, directory.path());
    let head = format!("{name}, LOCKD_SEED={seed}, ran {:.1} s", start.elapsed().as_secs_f64());
    let rules = Rules { grant_delay_max: GRANT_DELAY_MAX, end_notice_max: END_NOTICE_MAX, clock_lead: 0 };
    let verdict = judge(&head, &gathered, &rules, directory.path(), true);
    (gathered.history, verdict)
}

/// Has a run checked, prints a summary, and fails if anything is wrong.
pub(super) fn judge(
    head: &str,
    gathered: &Gathered,
    rules: &Rules,
    directory: &Path,
    plain_too: bool,
) -> Verdict {
    let start = Instant::now();
    let verdict = check(&gathered.history, rules);
    let lost = gathered.lost_updates(directory, plain_too);
    let words = if verdict.acquits() && lost.is_empty() { "no violation" } else { "VIOLATIONS" };
    let told = format!("{head}\n{}\n  {words}, found in {:.1} s", account(gathered, &verdict), {
        start.elapsed().as_secs_f64()
    });
    say(&told);
    let is_well = verdict.acquits() && lost.is_empty();
    assert!(is_well, "{told}\n{}\n{}", verdict.report(&gathered.history), lost.join("\n"));
    verdict
}

#[expect(clippy::print_stdout, reason = "a run exists to show its result")]
pub(crate) fn say(text: &str) {
    println!("{text}");
}

fn account(gathered: &Gathered, verdict: &Verdict) -> String {
    let history = &gathered.history;
    let unknown = history.calls.iter().filter(|call| call.end == NEVER).count();
    let granted = history.calls.iter().filter(|call| call.is_granted()).count();
    let queued = history.calls.iter().filter(|call| call.queued.is_some()).count();
    let lost = history.sessions.iter().filter(|session| session.lost_at.is_some()).count();
    format!(
        "  {} calls, {granted} of them granted, {queued} known to be queued, {unknown} without a reply; {} sessions, \
         {lost} of them lost; {} increments\n  calls checked against each model: {:?}",
        history.calls.len(),
        history.sessions.len(),
        gathered.increments(),
        verdict.checked,
    )
}
