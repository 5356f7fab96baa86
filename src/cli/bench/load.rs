//! The load: one thread that sees to all connections as their replies come, so that it takes as little as
//! can be from a server on the same machine. Closed loop: each lane asks again when it has been answered.
//! Every reply is verified; the first that is wrong ends the load.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::time::{ClockId, clock_gettime};

use super::account::Account;
use super::dialect::{Dialect, Verdict, Want};
use super::pipe::{Asking, Lane, PATIENCE, Pipe, unexpected};
use super::tally::Tally;
use super::target::{Protocol, Target};

/// What the load is to be.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) connections: usize,
    /// How many requests a connection has unanswered at a time.
    pub(super) depth: usize,
    /// All connections ask for the same name.
    pub(super) one_name: bool,
    /// They wait for it in its queue.
    pub(super) wait: bool,
    /// How long each holds a lock.
    pub(super) hold: Duration,
    pub(super) warm_up: Duration,
    pub(super) length: Duration,
}

/// Puts `target` under load.
///
/// # Errors
/// If it cannot be reached, or answers what it should not.
pub(super) fn run(target: &Target, plan: &Plan) -> Result<Tally, String> {
    let said = |error| target.failed(&error);
    let mut load = Load::new(target, plan).map_err(said)?;
    load.begin().map_err(said)?;
    load.go_on(plan.warm_up).map_err(said)?;
    let tally = load.measure(target.pid, plan.length).map_err(said)?;
    load.wind_down().map_err(said)?;
    Ok(tally)
}

struct Load<'a> {
    plan: &'a Plan,
    protocol: Protocol,
    dialect: &'static dyn Dialect,
    pipes: Vec<Pipe>,
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
    scratch: Vec<u8>,
    start: Instant,
    /// Locks that are held for a while: when to release them, and by whom they are held.
    holds: VecDeque<(u64, usize, usize)>,
    /// Where all want one name: whether somebody has it, and since when nobody does.
    is_held: bool,
    released_at: Option<u64>,
    /// When there was last something to read.
    heard_at: u64,
    measured_from: u64,
    /// Nobody acquires any more.
    is_ending: bool,
    /// Lanes that have still something to do.
    busy: usize,
    tally: Tally,
}

impl<'a> Load<'a> {
    fn new(target: &Target, plan: &'a Plan) -> io::Result<Self> {
        let dialect = target.address.protocol.dialect();
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut pipes = Vec::new();
        for connection in 0..plan.connections {
            let mut pipe = Pipe::connect(&target.address)?;
            for lane in 0..plan.depth {
                let number = if plan.one_name { 0 } else { connection * plan.depth + lane };
                let want = Want { number: number as u64, owner: connection as u64, wait: plan.wait };
                pipe.lanes.push(Lane::new(dialect.exchange(&want).map_err(io::Error::other)?));
            }
            pipe.stop_blocking()?;
            let data = epoll::EventData::new_u64(connection as u64);
            epoll::add(&epoll, &pipe, data, epoll::EventFlags::IN)?;
            pipes.push(pipe);
        }
        Ok(Self {
            plan,
            protocol: target.address.protocol,
            dialect,
            pipes,
            epoll,
            events: Vec::with_capacity(512),
            scratch: vec![0; 64 << 10],
            start: Instant::now(),
            holds: VecDeque::new(),
            is_held: false,
            released_at: None,
            heard_at: 0,
            measured_from: 0,
            is_ending: false,
            busy: plan.connections * plan.depth,
            tally: Tally::new()?,
        })
    }

    fn now(&self) -> u64 {
        nanos(self.start.elapsed())
    }

    /// Lets every lane ask for the first time.
    fn begin(&mut self) -> io::Result<()> {
        for at in 0..self.pipes.len() {
            let now = self.now();
            for lane in 0..self.plan.depth {
                self.pipes[at].ask(lane, Asking::Acquire, now);
            }
            self.flush(at)?;
        }
        Ok(())
    }

    /// Counts from now on, for so long.
    fn measure(&mut self, pid: Option<u32>, length: Duration) -> io::Result<Tally> {
        self.tally = Tally::new()?;
        let account = || pid.map(Account::of).transpose();
        let (before, own_before, start) = (account()?, own_cpu(), Instant::now());
        self.measured_from = self.now();
        self.go_on(length)?;
        let elapsed = start.elapsed();
        let mut tally = std::mem::replace(&mut self.tally, Tally::new()?);
        tally.elapsed = elapsed;
        tally.own_cpu = own_cpu().saturating_sub(own_before);
        tally.server =
            account()?.zip(before).map(|(after, before)| (after.cpu_since(&before), after.resident));
        Ok(tally)
    }

    /// Lets everyone come to the end and release what it has: not every server does that for those who
    /// are gone.
    fn wind_down(&mut self) -> io::Result<()> {
        self.is_ending = true;
        while self.busy > 0 {
            self.go_on(Duration::from_millis(1))?;
        }
        Ok(())
    }

    fn go_on(&mut self, length: Duration) -> io::Result<()> {
        let end = self.now().saturating_add(nanos(length));
        loop {
            let now = self.now();
            if now >= end {
                return Ok(());
            }
            self.release_due(now)?;
            let until = self.holds.front().map_or(end, |(due, ..)| *due).min(end);
            let timeout = Duration::from_nanos(until.saturating_sub(now)).min(PATIENCE);
            self.events.clear();
            let timeout = Timespec::try_from(timeout).ok();
            match epoll::wait(&self.epoll, spare_capacity(&mut self.events), timeout.as_ref()) {
                Ok(0) if self.holds.is_empty() && self.now() >= self.heard_at + nanos(PATIENCE) => {
                    return Err(self.silent());
                }
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let events = std::mem::take(&mut self.events);
            for event in &events {
                self.see_to(usize::try_from(event.data.u64()).unwrap_or(usize::MAX), event.flags)?;
            }
            self.events = events;
        }
    }

    fn see_to(&mut self, at: usize, flags: epoll::EventFlags) -> io::Result<()> {
        // An error or an end is read like what comes before it.
        if flags != epoll::EventFlags::OUT {
            let input = self.pipes[at].read(&mut self.scratch)?;
            let now = self.now();
            self.heard_at = now;
            let mut done = 0;
            while let Some(reply) = self.dialect.reply(&input[done..]) {
                self.answered(at, reply.verdict, now)?;
                done += reply.len;
            }
            self.pipes[at].keep(input, done);
        }
        self.flush(at)
    }

    /// That nothing has been heard for as long as there is patience.
    fn silent(&self) -> io::Error {
        let protocol = self.protocol;
        io::Error::other(match self.heard_at {
            0 => format!("no reply for ten seconds: it hangs, or does not speak {protocol} there"),
            _ => "no reply for ten seconds".to_owned(),
        })
    }

    /// What becomes of a lane when it has been answered.
    fn answered(&mut self, at: usize, reply: &[u8], now: u64) -> io::Result<()> {
        let protocol = self.protocol;
        let wrong = || unexpected(protocol, reply);
        let lane_at = self.pipes[at].next_asked().ok_or_else(wrong)?;
        let lane = &self.pipes[at].lanes[lane_at];
        self.tally.requests += 1;
        // What was asked before also waited for this thread to prepare for measuring.
        if lane.asked_at >= self.measured_from {
            self.tally.latency.saturating_record(now.saturating_sub(lane.asked_at));
        }
        match (lane.asking, lane.request().judge(reply)) {
            (Asking::Acquire, Verdict::Granted) => {
                self.granted(now)?;
                if self.plan.hold.is_zero() && !self.plan.one_name {
                    self.release(at, lane_at, now);
                } else {
                    // One name is released only when all has been read that has come: only then would the
                    // grant to a second holder show.
                    let due = now.saturating_add(nanos(self.plan.hold));
                    self.holds.push_back((due, at, lane_at));
                }
            }
            (Asking::Acquire, Verdict::Refused) if self.plan.one_name && !self.plan.wait => {
                self.tally.refused += 1;
                self.acquire(at, lane_at, now);
            }
            (Asking::Release, Verdict::Granted) => self.acquire(at, lane_at, now),
            _ => return Err(wrong()),
        }
        Ok(())
    }

    /// Where all want one name, nobody may be granted it before its holder has sent the release. This
    /// thread sends and reads everything, so what it sees is the order in which things happened.
    fn granted(&mut self, now: u64) -> io::Result<()> {
        if !self.plan.one_name {
            return Ok(());
        }
        if std::mem::replace(&mut self.is_held, true) {
            return Err(io::Error::other("two holders at once"));
        }
        if let Some(released_at) = self.released_at.take().filter(|_| self.plan.wait) {
            self.tally.hand_over.saturating_record(now.saturating_sub(released_at));
        }
        Ok(())
    }

    fn acquire(&mut self, at: usize, lane: usize, now: u64) {
        if self.is_ending {
            self.busy -= 1;
        } else {
            self.pipes[at].ask(lane, Asking::Acquire, now);
        }
    }

    fn release(&mut self, at: usize, lane: usize, now: u64) {
        self.is_held = false;
        self.released_at = Some(now);
        self.pipes[at].ask(lane, Asking::Release, now);
    }

    /// Releases what has been held for long enough.
    fn release_due(&mut self, now: u64) -> io::Result<()> {
        while let Some(&(due, at, lane)) = self.holds.front() {
            if due > now && !self.is_ending {
                break;
            }
            self.holds.pop_front();
            self.release(at, lane, now);
            self.flush(at)?;
        }
        Ok(())
    }

    /// Sends, and has the socket watched for room for as long as it has taken too little.
    fn flush(&mut self, at: usize) -> io::Result<()> {
        let pipe = &mut self.pipes[at];
        let is_stuck = !pipe.flush()?;
        if std::mem::replace(&mut pipe.is_stuck, is_stuck) != is_stuck {
            let room = if is_stuck { epoll::EventFlags::OUT } else { epoll::EventFlags::empty() };
            let data = epoll::EventData::new_u64(at as u64);
            epoll::modify(&self.epoll, pipe, data, epoll::EventFlags::IN | room)?;
        }
        Ok(())
    }
}

fn nanos(length: Duration) -> u64 {
    u64::try_from(length.as_nanos()).unwrap_or(u64::MAX)
}

fn own_cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default()
}
