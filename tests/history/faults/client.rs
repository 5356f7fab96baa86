//! One client of a fault run: a thread that opens one session after another, locks, counts,
//! releases, and logs it all. From time to time it misbehaves, and its session ends as sessions of
//! broken programs do.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::child::{ClientOrders, log_path};
use super::counter::Counters;
use super::log::{Counter, Log, now};
use super::resuming;
use super::resuming::session::Standing;
use super::wire::{Client, Lost, Protocol};
use crate::history::{CallKind, Mode, Name, Nanos, Outcome};
use crate::plan::{Mix, Plan, Step};
use crate::random::Random;

/// How often a client that may count does so, in percent.
const COUNTS_PERCENT: u64 = 25;
/// How often it continues without a pause, in percent.
const NO_PAUSE_PERCENT: u64 = 85;

/// How a client ends its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Misbehavior {
    Close,
    /// It resets the connection.
    Reset,
    /// It closes its sending side, and continues to read.
    HalfClose,
    /// It closes the connection in the middle of a request.
    Cut,
    /// It closes the connection while a request waits.
    Abandon,
    /// It makes many requests and does not read the replies.
    NeverReads,
}

const MISBEHAVIORS: [Misbehavior; 6] = [
    Misbehavior::Close,
    Misbehavior::Reset,
    Misbehavior::HalfClose,
    Misbehavior::Cut,
    Misbehavior::Abandon,
    Misbehavior::NeverReads,
];

/// What a client does when it takes no more steps. It was certainly alive at the time.
enum AtLast {
    Ends(Nanos),
    Misbehaves(Nanos),
}

/// How a client opens a session: at one of the endpoints, or in this process.
pub(crate) type Connect<'a> = &'a (dyn Fn(&mut Random) -> Option<(Protocol, String, Client)> + Sync);

struct Thread<'a> {
    orders: &'a ClientOrders,
    thread: u64,
    connect: Connect<'a>,
    stop: &'a AtomicBool,
    plan: Plan,
    counters: Vec<Counters>,
    log: Log,
}

/// Connects to one of the endpoints.
pub(crate) fn connect(orders: &ClientOrders, random: &mut Random) -> Option<(Protocol, String, Client)> {
    let at = random.below(orders.endpoints.len() as u64);
    let (protocol, address) = &orders.endpoints[usize::try_from(at).unwrap()];
    let over = if address.starts_with('/') { "Unix socket" } else { "TCP" };
    // Unique among the sessions of a run.
    let owner = format!("owner-{:016x}", random.below(u64::MAX));
    let mut client = Client::connect(*protocol, address, &owner).ok()?;
    if orders.has_standbys {
        client.finds_active().ok()?;
    }
    Some((*protocol, format!("{protocol:?} over {over}, {owner}"), client))
}

/// Runs one client until `stop`.
pub(crate) fn run(orders: &ClientOrders, thread: u64, connect: Connect<'_>, stop: &AtomicBool) {
    let random = Random::for_part(orders.seed, orders.process * 1000 + thread);
    let counters = (0..orders.mix.names).map(|name| Counters::open(&orders.directory, name).unwrap());
    let mut it = Thread {
        orders,
        thread,
        connect,
        stop,
        plan: Plan { random, mix: orders.mix },
        counters: counters.collect(),
        log: Log::create(&log_path(&orders.directory, orders.process, thread)).unwrap(),
    };
    while !stop.load(Ordering::Relaxed) {
        it.session();
        it.log.flush();
    }
}

/// The steps that a client of this protocol can take.
fn mix_of(protocol: Protocol, orders: &ClientOrders) -> Mix {
    let mix = orders.mix;
    let shared = if orders.text_can_share { mix.shared } else { 0 };
    // The text protocols have no limited locks.
    let text_mix = Mix { sets: 0, converts: 0, inspects: 0, acked: 0, shared, limited: 0, ..mix };
    match protocol {
        Protocol::Lockd => Mix { tries: 100, unlimited: 0, ..text_mix },
        Protocol::Glockd => text_mix,
        // Without what cannot be dated in doubt.
        Protocol::ResumableLibrary => Mix { converts: 0, inspects: 0, acked: 0, ..mix },
        Protocol::Message | Protocol::Library | Protocol::Resumable => mix,
    }
}

impl Thread<'_> {
    fn session(&mut self) {
        let opened = now();
        let Some((protocol, label, mut client)) = (self.connect)(&mut self.plan.random) else {
            return std::thread::sleep(Duration::from_millis(3));
        };
        self.plan.mix = mix_of(protocol, self.orders);
        self.log.opened(opened, &format!("process {}, thread {}, {label}", self.orders.process, self.thread));
        if client.as_rider().is_some() {
            self.log.can_resume();
        }
        match self.steps(&mut client) {
            Ok(AtLast::Misbehaves(at)) => return self.misbehave(client, at),
            Ok(AtLast::Ends(at)) => self.log.ending_at(at),
            Err(Lost) => self.log.lost(),
        }
        client.close();
        self.log.gone();
    }

    /// Takes steps until the run is over, or the client is to misbehave.
    fn steps(&mut self, client: &mut Client) -> Result<AtLast, Lost> {
        let mut held = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            if self.plan.random.one_in(self.orders.misbehaves)
                && let Some(at) = self.certainly_alive(client)?
            {
                return Ok(AtLast::Misbehaves(at));
            }
            self.step(client, &mut held)?;
        }
        if !held.is_empty() {
            self.carry_out(client, &mut held, Step::Release)?;
        }
        Ok(AtLast::Ends(self.certainly_alive(client)?.unwrap_or_else(now)))
    }

    /// A time at which the session certainly went on, if it does.
    fn certainly_alive(&mut self, client: &mut Client) -> Result<Option<Nanos>, Lost> {
        let at = now();
        match client.as_rider().map(|rider| rider.look(&mut self.log)) {
            None | Some(Standing::Alive) => Ok(Some(at)),
            Some(Standing::InDoubt) => Ok(None),
            Some(Standing::Lost) => Err(Lost),
        }
    }

    fn step(&mut self, client: &mut Client, held: &mut Vec<(Name, Mode)>) -> Result<(), Lost> {
        if let Some(rider) = client.as_rider() {
            resuming::riding::stay(
                rider,
                &mut self.plan.random,
                self.orders.stays,
                self.stop,
                &mut self.log,
            )?;
            *held = rider.holds();
        }
        let step = self.plan.next(held);
        let outcome = self.carry_out(client, held, step)?;
        match (held.as_slice(), outcome) {
            (&[(name, Mode::Exclusive)], Outcome::Granted(token))
                if self.plan.random.percent(COUNTS_PERCENT) =>
            {
                self.count(name, token);
            }
            (held, _) => self.pause(!held.is_empty()),
        }
        Ok(())
    }

    fn pause(&mut self, holds: bool) {
        let pause = self.plan.pause(holds);
        if !self.plan.random.percent(NO_PAUSE_PERCENT) {
            self.log.flush();
            std::thread::sleep(Duration::from_nanos(pause));
        }
    }

    /// Makes the call of this step.
    fn carry_out(
        &mut self,
        client: &mut Client,
        held: &mut Vec<(Name, Mode)>,
        step: Step,
    ) -> Result<Outcome, Lost> {
        let log = &mut self.log;
        if let Some(rider) = client.as_rider() {
            let outcome = rider.carry_out(step, log)?;
            *held = rider.holds();
            return Ok(outcome);
        }
        let outcome = match &step {
            Step::Acquire { wants, limit, acked } => {
                log.calling(CallKind::Acquire { limit: *limit }, wants);
                client.acquire(wants, *limit, *acked, log)?
            }
            Step::Convert { name, mode, limit } => {
                log.calling(CallKind::Convert { limit: *limit }, &[(*name, *mode)]);
                client.convert(*name, *mode, *limit, log)?
            }
            Step::Release => {
                log.calling(CallKind::Release, held);
                client.release(held)?
            }
            Step::StrayRelease(name) => {
                let stray = [(*name, Mode::Exclusive)];
                log.calling(CallKind::Release, &stray);
                client.release(&stray)?
            }
            Step::Inspect(name) => {
                log.calling(CallKind::Inspect, &[(*name, Mode::Exclusive)]);
                client.inspect(*name)?
            }
        };
        self.log.answered(outcome);
        match (step, outcome) {
            (Step::Acquire { wants, .. }, Outcome::Granted(_)) => *held = wants,
            (Step::Convert { name, mode, .. }, Outcome::Granted(_)) => *held = vec![(name, mode)],
            (Step::Release, _) | (Step::Convert { .. }, Outcome::NotHeld) => held.clear(),
            _ => {}
        }
        Ok(outcome)
    }

    /// Reads the counters of a name, pauses, and writes them one higher.
    fn count(&mut self, name: Name, token: Option<u64>) {
        let counters = &self.counters[name as usize];
        let plain = counters.read_plain().unwrap() + 1;
        let fenced = token.and_then(|token| counters.read_fenced(token).unwrap()).map(|value| value + 1);
        self.pause(true);
        let counters = &self.counters[name as usize];
        let counter = Counter { name, fenced: false };
        self.log.increment(counter, plain, false);
        counters.write_plain(plain).unwrap();
        self.log.increment(counter, plain, true);
        if let (Some(value), Some(token)) = (fenced, token) {
            let counter = Counter { name, fenced: true };
            self.log.increment(counter, value, false);
            if counters.write_fenced(token, value).unwrap().is_some() {
                self.log.increment(counter, value, true);
            }
        }
    }

    fn misbehave(&mut self, client: Client, at: Nanos) {
        let misbehavior = match self.plan.random.one_of(&MISBEHAVIORS) {
            // Not every one of them has a socket on which a request could wait.
            Misbehavior::Abandon if matches!(client, Client::Rider(_)) => Misbehavior::Close,
            any => any,
        };
        let name = self.plan.random.below(u64::from(self.orders.mix.names));
        let want = (u32::try_from(name).unwrap(), Mode::Exclusive);
        let (request, harmless) = (client.request_bytes(want), client.harmless_bytes());
        match (misbehavior, &client) {
            // The library ends its session in one way only.
            (_, Client::Library(_)) => self.log.ending_at(at),
            (Misbehavior::NeverReads, _) => self.log.provoking_at(at),
            (Misbehavior::Abandon, _) => self.log.calling(CallKind::Acquire { limit: None }, &[want]),
            _ => self.log.ending_at(at),
        }
        if let Some(mut socket) = client.into_socket() {
            match misbehavior {
                Misbehavior::Close => {}
                Misbehavior::Reset => socket.set_linger(Some(Duration::ZERO)).unwrap(),
                Misbehavior::HalfClose => half_close(&mut socket),
                Misbehavior::Cut => {
                    let part = self.plan.random.below(request.len() as u64 - 1) + 1;
                    let _ = socket.write_all(&request[..usize::try_from(part).unwrap()]);
                }
                Misbehavior::Abandon => {
                    let _ = socket.write_all(&request);
                    self.log.ending_at(at);
                }
                Misbehavior::NeverReads => self.ask_without_reading(&mut socket, &harmless.repeat(2000)),
            }
        }
        self.log.gone();
    }

    /// Sends requests until the socket takes no more, since no reply is read.
    fn ask_without_reading(&mut self, socket: &mut socket2::Socket, requests: &[u8]) {
        socket.set_write_timeout(Some(Duration::from_millis(30))).unwrap();
        for _ in 0..400 {
            if socket.write_all(requests).is_err() {
                break;
            }
        }
        let pause: Nanos = self.plan.random.below(50);
        std::thread::sleep(Duration::from_millis(pause));
        if self.plan.random.percent(50) {
            socket.set_linger(Some(Duration::ZERO)).unwrap();
        }
    }
}

/// Closes the sending side, after which the server must end the connection, and reads until it has.
fn half_close(socket: &mut socket2::Socket) {
    let _ = socket.shutdown(Shutdown::Write);
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut rest = Vec::new();
    if let Err(error) = socket.read_to_end(&mut rest) {
        let timed_out = error.kind() == std::io::ErrorKind::WouldBlock;
        assert!(!timed_out, "the server did not end a connection that its client had half closed");
    }
}
