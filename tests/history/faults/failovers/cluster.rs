//! The servers of one cluster as processes, each with a proxy before it for its clients, and one
//! before each member of etcd. Knows when each of them was active, as far as that is certain. All
//! end when this is dropped.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::super::child::{Orders, start};
use super::super::daemon::{CONFLICT, free_ports};
use super::super::log::now;
use super::super::resuming::proxy::{Act, Proxy, Side, Which};
use super::super::wire::{Address, Protocol};
use super::clocks::{Clock, Clocks, MACHINE_RATE};
use crate::history::{NEVER, Nanos, SECOND, ServerLife};
use crate::random::Random;

/// The exit status of a server that is not the active one any more, and of one that was told to end
/// and could not write that down.
const NOT_ACTIVE: i32 = 4;
const NOT_RECORDED: i32 = 3;
/// For how long before a process is found to have ended its connections may have ended.
const ENDING_MAX: Nanos = 2 * SECOND;
/// What a server logs once it has become active.
const IS_ACTIVE: &str = "this server is the active one from now on (run ";
/// How many of its last lines are shown if a server ends as it should not.
const LINES_SHOWN: usize = 40;

/// What is between a server and etcd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EtcdWay {
    Open,
    /// Its connections are reset, and it gets no new ones.
    Cut,
    /// What it sends is kept, and arrives later.
    RequestsKept,
    /// What etcd answers is kept, and arrives later.
    AnswersKept,
}

/// One server, which is started again and again.
struct Member {
    arguments: Vec<String>,
    /// `None`: that of the machine.
    clock: Option<Clock>,
    control: PathBuf,
    endpoints: Vec<(Protocol, Address)>,
    /// Before it, for its clients.
    front: Proxy,
    /// Between it and each member of etcd.
    to_etcd: Vec<Proxy>,
    process: Option<Child>,
    /// Which of the runs the process is.
    run: usize,
    /// The command that asks it to hand over.
    asking: Option<Child>,
}

/// One process, from its start to its end.
#[derive(Clone, Copy, Debug)]
struct ServerRun {
    /// At this time it was certainly there, as a process.
    seen: Nanos,
    /// Before it was told to end.
    stopped: Option<Nanos>,
    /// After it had ended.
    ended: Nanos,
    /// It was told to hand over.
    is_clean: bool,
    /// How fast its clock runs, in thousandths.
    clock_rate: u64,
}

/// A run that has become active.
#[derive(Clone, Copy, Debug)]
struct Reign {
    epoch: u64,
    run: usize,
    /// After it had become active.
    ready: Nanos,
}

/// What the servers have logged.
#[derive(Default)]
struct Logged {
    reigns: Vec<Reign>,
    conflicts: usize,
    /// The last lines of all of them.
    lines: Vec<String>,
}

/// What a cluster is made of.
#[derive(Clone, Copy)]
pub(crate) struct Setup<'a> {
    /// For the control sockets.
    pub(crate) directory: &'a Path,
    pub(crate) program: &'a Path,
    /// The places of etcd.
    pub(crate) etcd: &'a [String],
    pub(crate) name: &'a str,
    pub(crate) servers: usize,
    pub(crate) dead_peer_seconds: u64,
    pub(crate) leader_seconds: u64,
    /// `None`: the machine's clock, for all servers. The first server is the first active one then.
    pub(crate) clocks: Option<Clocks<'a>>,
}

impl Setup<'_> {
    /// The least dead-peer timeout and leader timeout that there are.
    pub(crate) const DEAD_PEER_SECONDS: u64 = 12;
    pub(crate) const LEADER_SECONDS: u64 = 1;
}

pub(crate) struct Cluster {
    program: PathBuf,
    dead_peer_seconds: u64,
    /// For how long before a server is seen to have ended it may have ended connections, if it was
    /// not told to end.
    ending_max: Nanos,
    began: Nanos,
    members: Vec<Member>,
    runs: Vec<ServerRun>,
    logged: Arc<Mutex<Logged>>,
}

impl Cluster {
    /// Starts the servers.
    pub(crate) fn start(setup: &Setup<'_>) -> Self {
        let mut random = Random::new(now() ^ u64::from(std::process::id()));
        let members = (0..setup.servers).map(|index| Member::new(setup, index, &mut random));
        let mut cluster = Self {
            program: setup.program.to_owned(),
            dead_peer_seconds: setup.dead_peer_seconds,
            ending_max: ENDING_MAX,
            began: now(),
            members: members.collect(),
            runs: Vec::new(),
            logged: Arc::default(),
        };
        cluster.start_again(0);
        if setup.clocks.is_some() {
            cluster.until_active(|cluster| _ = cluster.look());
        }
        (1..setup.servers).for_each(|member| cluster.start_again(member));
        cluster
    }

    /// No client of a server notices its end before it is seen here.
    pub(crate) fn ends_are_seen_at_once(&mut self) {
        self.ending_max = 0;
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    /// The places of all servers, through the proxies or directly, as in a URL.
    pub(crate) fn places(&self, through_proxies: bool) -> Address {
        let place = |member: &Member| match through_proxies {
            true => member.front.address().to_owned(),
            false => member.address(Protocol::Message),
        };
        self.members.iter().map(place).collect::<Vec<_>>().join(",")
    }

    /// The addresses of all servers for this protocol, without proxies.
    pub(crate) fn addresses(&self, protocol: Protocol) -> Vec<Address> {
        self.members.iter().map(|member| member.address(protocol)).collect()
    }

    /// What is between a server and its clients.
    pub(crate) fn front(&self, member: usize) -> &Proxy {
        &self.members[member].front
    }

    /// Starts a server that does not run.
    pub(crate) fn start_again(&mut self, member: usize) {
        let run = self.runs.len();
        let member = &mut self.members[member];
        let clock_rate = member.clock.as_ref().map_or(MACHINE_RATE, |clock| clock.rate);
        self.runs.push(ServerRun { seen: now(), stopped: None, ended: NEVER, is_clean: false, clock_rate });
        let orders = match &member.clock {
            None => Orders::Serve(self.program.clone(), member.arguments.clone()),
            Some(clock) => clock.orders(&self.program, &member.arguments),
        };
        let mut process = start(&orders, Stdio::piped());
        read_log(&mut process, run, &self.logged);
        (member.process, member.run) = (Some(process), run);
    }

    /// The server that was the last one to become active, if it runs.
    pub(crate) fn active(&self) -> Option<usize> {
        let run = self.logged.lock().unwrap().reigns.iter().max_by_key(|reign| reign.epoch)?.run;
        self.members.iter().position(|member| member.process.is_some() && member.run == run)
    }

    pub(crate) fn runs(&self, member: usize) -> bool {
        self.members[member].process.is_some()
    }

    /// How many servers have become active after others.
    pub(crate) fn fail_overs(&self) -> usize {
        self.logged.lock().unwrap().reigns.len().saturating_sub(1)
    }

    pub(crate) fn conflicts(&self) -> usize {
        self.logged.lock().unwrap().conflicts
    }

    /// Looks which servers have ended, and returns those.
    pub(crate) fn look(&mut self) -> Vec<usize> {
        (0..self.members.len()).filter(|&member| self.has_ended(member)).collect()
    }

    /// Whether a server that has run until now has ended.
    fn has_ended(&mut self, index: usize) -> bool {
        let member = &mut self.members[index];
        let Some(process) = &mut member.process else { return false };
        let run = &mut self.runs[member.run];
        let at = now();
        let status = process.try_wait().unwrap();
        let Some(status) = status else {
            run.seen = at;
            self.look_at_hand_over(index, false);
            return false;
        };
        run.ended = now();
        member.process = None;
        let is_told = run.is_clean && (status.success() || status.code() == Some(NOT_RECORDED));
        let is_expected = is_told || is_usual(status);
        if !is_expected {
            let logged = self.logged.lock().unwrap();
            panic!("a server has ended with {status}:\n{}", logged.lines.join("\n"));
        }
        self.look_at_hand_over(index, true);
        true
    }

    /// A server that has refused to hand over goes on.
    fn look_at_hand_over(&mut self, index: usize, has_ended: bool) {
        let member = &mut self.members[index];
        let Some(asking) = &mut member.asking else { return };
        let status = if has_ended { Some(asking.wait().unwrap()) } else { asking.try_wait().unwrap() };
        let Some(status) = status else { return };
        member.asking = None;
        if status.code() == Some(1) {
            let run = &mut self.runs[member.run];
            (run.stopped, run.is_clean) = (None, false);
        }
    }

    /// Sends a signal to a server. One that ends it is `SIGKILL` or `SIGTERM`.
    pub(crate) fn signal(&mut self, member: usize, signal: Signal) {
        if matches!(signal, Signal::KILL | Signal::TERM) {
            self.is_told_to_end(member, signal == Signal::TERM);
        }
        let Some(process) = &mut self.members[member].process else { return };
        // One that has been waited for has no id any more.
        if process.try_wait().unwrap().is_none() {
            kill_process(Pid::from_child(process), signal).unwrap();
        }
    }

    /// Asks a server to hand over, by the command for that.
    pub(crate) fn stand_down(&mut self, member: usize) {
        if self.members[member].asking.is_some() {
            return;
        }
        self.is_told_to_end(member, true);
        let mut command = Command::new(&self.program);
        command.arg("stand-down").arg("--control").arg(&self.members[member].control);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.members[member].asking = Some(command.spawn().expect("the lockd binary runs"));
    }

    /// What happens to it from now on ends it. It may have ended already, for another reason: so the
    /// time counts at which it was last seen.
    pub(crate) fn is_told_to_end(&mut self, member: usize, is_clean: bool) {
        let member = &mut self.members[member];
        let Some(process) = &mut member.process else { return };
        let run = &mut self.runs[member.run];
        let at = now();
        if process.try_wait().unwrap().is_none() {
            run.seen = at;
        }
        run.stopped = run.stopped.or(Some(run.seen));
        run.is_clean |= is_clean;
    }

    /// From now on this is what is between a server and etcd.
    pub(crate) fn set_way_to_etcd(&self, member: usize, way: EtcdWay) {
        for proxy in &self.members[member].to_etcd {
            let kept = match way {
                EtcdWay::Open | EtcdWay::Cut => None,
                EtcdWay::RequestsKept => Some(Side::Server),
                EtcdWay::AnswersKept => Some(Side::Client),
            };
            proxy.keep_new(kept);
            proxy.accept(way != EtcdWay::Cut);
            match (way, kept) {
                (_, Some(side)) => proxy.act(Which::All, Act::Keep(side)),
                (EtcdWay::Cut, None) => {
                    proxy.act(Which::All, Act::Reset(Side::Server));
                    proxy.act(Which::All, Act::Reset(Side::Client));
                }
                _ => proxy.act(Which::All, Act::LetGo),
            }
        }
    }

    /// What a server sends to etcd counts as not ended, whatever becomes of the server.
    pub(crate) fn keep_ends_from_etcd(&self, member: usize) {
        let to_etcd = &self.members[member].to_etcd;
        to_etcd.iter().for_each(Proxy::keep_ends);
    }

    /// What etcd has answered to a server, and has been kept, arrives; what the server sends from now
    /// on is kept.
    pub(crate) fn let_answers_go(&self, member: usize) {
        for proxy in &self.members[member].to_etcd {
            proxy.act(Which::All, Act::Keep(Side::Server));
            proxy.act(Which::All, Act::LetGoTo(Side::Client));
            proxy.keep_new(Some(Side::Server));
        }
    }

    /// Waits until a server is active other than this one.
    pub(crate) fn until_active_after(&mut self, other: usize) -> usize {
        self.until("another server is active", |cluster| {
            cluster.look();
            cluster.active().filter(|active| *active != other)
        })
    }

    pub(crate) fn until_ended(&mut self, member: usize) {
        self.until("the server has ended", |cluster| {
            cluster.look();
            (!cluster.runs(member)).then_some(())
        });
    }

    /// Waits until a server is active, while `meanwhile` happens.
    pub(crate) fn until_active(&mut self, mut meanwhile: impl FnMut(&mut Self)) -> usize {
        self.until("a server is active", |cluster| {
            meanwhile(cluster);
            cluster.active()
        })
    }

    fn until<R>(&mut self, what: &str, mut found: impl FnMut(&mut Self) -> Option<R>) -> R {
        let deadline = now() + 60 * SECOND;
        loop {
            if let Some(found) = found(self) {
                return found;
            }
            if now() > deadline {
                panic!("not in time: {what}:\n{}", self.logged.lock().unwrap().lines.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The times at which servers were active, for the checker.
    pub(crate) fn lives(&self) -> Vec<ServerLife> {
        let mut reigns = self.logged.lock().unwrap().reigns.clone();
        reigns.sort_by_key(|reign| reign.epoch);
        let mut lives: Vec<ServerLife> = Vec::new();
        for Reign { run, ready, .. } in reigns {
            let run = self.runs[run];
            // As it passes by that server's clock.
            let dead_peer = self.dead_peer_seconds * SECOND * MACHINE_RATE / run.clock_rate;
            let seen = if run.ended == NEVER { NEVER } else { run.seen - self.ending_max };
            let stopped = run.stopped.unwrap_or(seen).min(run.ended);
            let (started, grace) = match lives.last() {
                None => (self.began, 0),
                Some(before) => after(before, ready, dead_peer),
            };
            lives.push(ServerLife {
                started,
                ready,
                stopped,
                ended: run.ended,
                grace,
                grace_max: dead_peer,
                is_remembered: !run.is_clean,
                is_new: false,
            });
        }
        lives
    }
}

/// From when on clients can have been those of the server after `before`, and how long it must grant
/// nothing from then on.
fn after(before: &ServerLife, ready: Nanos, dead_peer: Nanos) -> (Nanos, Nanos) {
    // One that hands over is followed by the next one before it has ended.
    let started = before.ended.min(ready);
    let in_grace = before.grace > 0 && before.ended < before.started + before.grace;
    let must_wait = before.is_remembered || in_grace;
    // It has become active when the one before had certainly stopped, and its grace begins then.
    let until = before.stopped.saturating_add(dead_peer);
    (started, if must_wait { until.saturating_sub(started) } else { 0 })
}

fn is_usual(status: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt;
    status.signal() == Some(Signal::KILL.as_raw()) || status.code() == Some(NOT_ACTIVE)
}

/// Reads what a server logs, in a thread that ends with it.
fn read_log(process: &mut Child, run: usize, logged: &Arc<Mutex<Logged>>) {
    let stderr = process.stderr.take().expect("a pipe");
    let logged = logged.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).split(b'\n') {
            let Ok(line) = line else { return };
            let line = String::from_utf8_lossy(&line).into_owned();
            let mut logged = logged.lock().unwrap();
            if let Some((_, epoch)) = line.split_once(IS_ACTIVE) {
                let epoch = epoch.trim_end_matches(')').parse().expect("the number of a run");
                logged.reigns.push(Reign { epoch, run, ready: now() });
            }
            logged.conflicts += usize::from(line.contains(CONFLICT));
            let surplus = (logged.lines.len() + 1).saturating_sub(LINES_SHOWN);
            logged.lines.drain(..surplus);
            logged.lines.push(format!("{run}: {line}"));
        }
    });
}

impl Member {
    fn new(setup: &Setup<'_>, index: usize, random: &mut Random) -> Self {
        let protocols =
            [(Protocol::Message, "message"), (Protocol::Lockd, "lockd"), (Protocol::Glockd, "glockd")];
        let ports = free_ports(protocols.len(), random);
        let (mut arguments, mut endpoints) = (vec!["--log-level=info".to_owned()], Vec::new());
        for ((protocol, scheme), port) in protocols.into_iter().zip(ports) {
            arguments.push(format!("--listen={scheme}://127.0.0.1:{port}"));
            endpoints.push((protocol, format!("127.0.0.1:{port}")));
        }
        let to_etcd: Vec<Proxy> = setup.etcd.iter().map(|place| Proxy::start(place)).collect();
        let places: Vec<&str> = to_etcd.iter().map(Proxy::address).collect();
        let control = setup.directory.join(format!("control-{index}"));
        arguments.extend([
            format!("--cluster=etcd://{}/{}", places.join(","), setup.name),
            format!("--control={}", control.display()),
            format!("--dead-peer-timeout={}", setup.dead_peer_seconds),
            format!("--leader-timeout={}", setup.leader_seconds),
            "--first-start".to_owned(),
            "--shared-excludes".to_owned(),
        ]);
        let front = Proxy::start(&endpoints[0].1);
        let clock = setup.clocks.map(|clocks| clocks.of(index));
        Self { arguments, clock, control, endpoints, front, to_etcd, process: None, run: 0, asking: None }
    }

    fn address(&self, protocol: Protocol) -> Address {
        let mut of_protocol = self.endpoints.iter().filter(|endpoint| endpoint.0 == protocol);
        of_protocol.next().expect("a server speaks all protocols").1.clone()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        for process in [&mut self.process, &mut self.asking] {
            if let Some(mut process) = process.take() {
                // Both calls fail only if it has already ended.
                let _ = process.kill();
                let _ = process.wait();
            }
        }
    }
}
