//! The load: a closed loop, in which each lock loop makes its next request when the last one has
//! been answered. A single thread serves all connections, so that the load takes little CPU time
//! from a server on the same machine. Every reply is verified; the first wrong one ends the load.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::time::{ClockId, clock_gettime};

use super::connection::{LoadConnection, LockLoop, LoopStep, REPLY_LIMIT, unexpected};
use super::dialect::{BenchProtocol, LockSpec, ReplyKind};
use super::measurement::Measurement;
use super::target::BenchTarget;
use super::usage::ProcessUsage;

/// The shape of the load.
#[derive(Clone, Debug)]
pub(super) struct LoadPlan {
    pub(super) connections: usize,
    /// How many lock loops, and so unanswered requests, each connection has.
    pub(super) depth: usize,
    /// Whether all connections acquire the same name.
    pub(super) one_name: bool,
    /// Whether they wait in the queue of the lock, instead of trying.
    pub(super) wait: bool,
    /// How long each lock is held.
    pub(super) hold: Duration,
    pub(super) warm_up: Duration,
    pub(super) length: Duration,
}

/// Puts `target` under load.
///
/// # Errors
/// If the server cannot be reached, or gives a wrong reply.
pub(super) fn run(target: &BenchTarget, plan: &LoadPlan) -> Result<Measurement, String> {
    let text = |error| target.error_text(&error);
    let mut load = Load::new(target, plan).map_err(text)?;
    load.begin().map_err(text)?;
    load.go_on(plan.warm_up).map_err(text)?;
    let measurement = load.measure(target.pid, plan.length).map_err(text)?;
    load.wind_down().map_err(text)?;
    Ok(measurement)
}

struct Load<'a> {
    plan: &'a LoadPlan,
    protocol: BenchProtocol,
    connections: Vec<LoadConnection>,
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    scratch: Vec<u8>,
    start: Instant,
    /// Locks that are held for a while: when to release each, its connection and its loop.
    holds: VecDeque<(u64, usize, usize)>,
    /// With one name for all: whether the lock is held.
    is_held: bool,
    /// With one name for all: when the last holder sent its release.
    released_at: Option<u64>,
    /// When input last arrived.
    last_input_at: u64,
    measured_from: u64,
    /// Whether no lock is to be acquired any more.
    is_ending: bool,
    /// How many lock loops have not ended yet.
    running_loops: usize,
    measurement: Measurement,
}

impl<'a> Load<'a> {
    fn new(target: &BenchTarget, plan: &'a LoadPlan) -> io::Result<Self> {
        let protocol = target.address.protocol;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut connections = Vec::new();
        for number in 0..plan.connections {
            let mut connection = LoadConnection::connect(&target.address)?;
            for at in 0..plan.depth {
                let name = if plan.one_name { 0 } else { number * plan.depth + at };
                let spec = LockSpec { number: name as u64, owner: number as u64, wait: plan.wait };
                let requests = protocol.requests(&spec).map_err(io::Error::other)?;
                connection.loops.push(LockLoop::new(requests));
            }
            connection.stop_blocking()?;
            let data = epoll::EventData::new_u64(number as u64);
            epoll::add(&epoll, &connection, data, epoll::EventFlags::IN)?;
            connections.push(connection);
        }
        Ok(Self {
            plan,
            protocol,
            connections,
            epoll,
            events: Vec::with_capacity(512),
            scratch: vec![0; 64 << 10],
            start: Instant::now(),
            holds: VecDeque::new(),
            is_held: false,
            released_at: None,
            last_input_at: 0,
            measured_from: 0,
            is_ending: false,
            running_loops: plan.connections * plan.depth,
            measurement: Measurement::new()?,
        })
    }

    fn now(&self) -> u64 {
        nanos(self.start.elapsed())
    }

    /// Makes the first request of every lock loop.
    fn begin(&mut self) -> io::Result<()> {
        for at in 0..self.connections.len() {
            let now = self.now();
            for loop_at in 0..self.plan.depth {
                self.connections[at].request(loop_at, LoopStep::Acquire, now);
            }
            self.flush(at)?;
        }
        Ok(())
    }

    /// Measures for this length of time, from now on.
    fn measure(&mut self, pid: Option<u32>, length: Duration) -> io::Result<Measurement> {
        self.measurement = Measurement::new()?;
        let usage = || pid.map(ProcessUsage::of).transpose();
        let (before, own_before, start) = (usage()?, own_cpu(), Instant::now());
        self.measured_from = self.now();
        self.go_on(length)?;
        let elapsed = start.elapsed();
        let mut measurement = std::mem::replace(&mut self.measurement, Measurement::new()?);
        measurement.elapsed = elapsed;
        measurement.own_cpu = own_cpu().saturating_sub(own_before);
        measurement.server =
            usage()?.zip(before).map(|(after, before)| (after.cpu_since(&before), after.resident));
        Ok(measurement)
    }

    /// Waits until every lock loop has released its lock and ended: not every server frees the
    /// locks of connections that have ended.
    fn wind_down(&mut self) -> io::Result<()> {
        self.is_ending = true;
        while self.running_loops > 0 {
            self.go_on(Duration::from_millis(1))?;
        }
        Ok(())
    }

    /// Runs the load for this length of time.
    fn go_on(&mut self, length: Duration) -> io::Result<()> {
        let end = self.now().saturating_add(nanos(length));
        loop {
            let now = self.now();
            if now >= end {
                return Ok(());
            }
            self.release_due(now)?;
            let until = self.holds.front().map_or(end, |(due, ..)| *due).min(end);
            let timeout = Duration::from_nanos(until.saturating_sub(now)).min(REPLY_LIMIT);
            self.events.clear();
            let timeout = Timespec::try_from(timeout).ok();
            match epoll::wait(&self.epoll, spare_capacity(&mut self.events), timeout.as_ref()) {
                Ok(0) if self.holds.is_empty() && self.now() >= self.last_input_at + nanos(REPLY_LIMIT) => {
                    return Err(self.silence());
                }
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let events = std::mem::take(&mut self.events);
            for event in &events {
                self.handle_event(usize::try_from(event.data.u64()).unwrap_or(usize::MAX), event.flags)?;
            }
            self.events = events;
        }
    }

    fn handle_event(&mut self, at: usize, flags: epoll::EventFlags) -> io::Result<()> {
        // An error or the end of the connection is found by reading, after the input before it.
        if flags != epoll::EventFlags::OUT {
            let input = self.connections[at].read(&mut self.scratch)?;
            let now = self.now();
            self.last_input_at = now;
            let mut done = 0;
            while let Some(reply) = self.protocol.reply(&input[done..]) {
                self.handle_reply(at, reply.outcome, now)?;
                done += reply.len;
            }
            self.connections[at].keep(input, done);
        }
        self.flush(at)
    }

    /// The error for a server that has not answered within [`REPLY_LIMIT`].
    fn silence(&self) -> io::Error {
        let protocol = self.protocol;
        io::Error::other(match self.last_input_at {
            0 => format!("no reply for ten seconds: the server hangs, or does not speak {protocol} there"),
            _ => "no reply for ten seconds".to_owned(),
        })
    }

    /// Checks the reply to a lock loop's request, and makes its next one.
    fn handle_reply(&mut self, at: usize, reply: &[u8], now: u64) -> io::Result<()> {
        let protocol = self.protocol;
        let wrong = || unexpected(protocol, reply);
        let loop_at = self.connections[at].next_unanswered().ok_or_else(wrong)?;
        let lock_loop = &self.connections[at].loops[loop_at];
        self.measurement.requests += 1;
        // Earlier requests also waited while this thread prepared the measurement.
        if lock_loop.requested_at >= self.measured_from {
            self.measurement.latency.saturating_record(now.saturating_sub(lock_loop.requested_at));
        }
        match (lock_loop.step, lock_loop.request().check(reply)) {
            (LoopStep::Acquire, ReplyKind::Granted) => {
                self.granted(now)?;
                if self.plan.hold.is_zero() && !self.plan.one_name {
                    self.release(at, loop_at, now);
                } else {
                    // With one name for all, it is released only after all input has been read: a
                    // grant to a second holder would be found there.
                    let due = now.saturating_add(nanos(self.plan.hold));
                    self.holds.push_back((due, at, loop_at));
                }
            }
            (LoopStep::Acquire, ReplyKind::Refused) if self.plan.one_name && !self.plan.wait => {
                self.measurement.refused += 1;
                self.acquire(at, loop_at, now);
            }
            (LoopStep::Release, ReplyKind::Granted) => self.acquire(at, loop_at, now),
            _ => return Err(wrong()),
        }
        Ok(())
    }

    /// With one name for all, no connection may be granted the lock before its holder has sent the
    /// release. This thread alone sends and reads, so it sees these events in the order in which
    /// they happened.
    fn granted(&mut self, now: u64) -> io::Result<()> {
        if !self.plan.one_name {
            return Ok(());
        }
        if std::mem::replace(&mut self.is_held, true) {
            return Err(io::Error::other("two holders at once"));
        }
        if let Some(released_at) = self.released_at.take().filter(|_| self.plan.wait) {
            self.measurement.hand_over.saturating_record(now.saturating_sub(released_at));
        }
        Ok(())
    }

    fn acquire(&mut self, at: usize, loop_at: usize, now: u64) {
        if self.is_ending {
            self.running_loops -= 1;
        } else {
            self.connections[at].request(loop_at, LoopStep::Acquire, now);
        }
    }

    fn release(&mut self, at: usize, loop_at: usize, now: u64) {
        self.is_held = false;
        self.released_at = Some(now);
        self.connections[at].request(loop_at, LoopStep::Release, now);
    }

    /// Releases the locks that have been held long enough.
    fn release_due(&mut self, now: u64) -> io::Result<()> {
        while let Some(&(due, at, loop_at)) = self.holds.front() {
            if due > now && !self.is_ending {
                break;
            }
            self.holds.pop_front();
            self.release(at, loop_at, now);
            self.flush(at)?;
        }
        Ok(())
    }

    /// Sends, and watches the socket for room while it has not taken all of the output.
    fn flush(&mut self, at: usize) -> io::Result<()> {
        let connection = &mut self.connections[at];
        let is_stuck = !connection.flush()?;
        if std::mem::replace(&mut connection.is_stuck, is_stuck) != is_stuck {
            let room = if is_stuck { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
            let data = epoll::EventData::new_u64(at as u64);
            epoll::modify(&self.epoll, connection, data, epoll::EventFlags::IN | room)?;
        }
        Ok(())
    }
}

fn nanos(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
}

/// The CPU time of this thread, which is the whole load.
fn own_cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}
