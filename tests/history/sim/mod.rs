//! Many clients of a broker in this process, in simulated time. Every run is determined by its seed
//! alone, thousands of runs take seconds, and a wait of a minute takes no real time. The clients do
//! what clients of a server do, and their requests and replies take time on the way. From time to
//! time a client is killed. The clients record what they see.
//!
//! From time to time the server hangs up on a client. Four events follow, each later than the one
//! before:
//! - the server hangs up;
//! - its own kernel may give up trying to tell the client, and resets the connection;
//! - the client's kernel is told, and from then on the client finds out whenever it reads;
//! - the server learns that the client's kernel was told. A client reads at once unless it pauses.
//!   During a pause, everything that arrives stays in its socket until it reads: a grant or the
//!   end.

pub(crate) mod broker_under_test;
pub(crate) mod faulty;
pub(crate) mod real;
pub(crate) mod tokens;
pub(crate) mod upgrading;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::history::{
    Call, CallKind, History, MILLISECOND, Mode, NEVER, Name, Nanos, Outcome, SECOND, Session,
};
use crate::plan::{Mix, Plan, Step};
use crate::random::Random;
use broker_under_test::{Answer, BrokerUnderTest, End};

/// The parameters of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) seed: u64,
    pub(crate) clients: usize,
    /// How long clients make new requests.
    pub(crate) length: Nanos,
    pub(crate) mix: Mix,
    /// A client is killed once in about this many steps; 0: never.
    pub(crate) kills: u64,
    /// The server hangs up on a client once in about this many steps, and clients pause their
    /// reading; 0: never.
    pub(crate) hang_ups: u64,
    pub(crate) stale_grants: StaleGrants,
}

/// What a client does with a grant that it reads from its socket after the connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StaleGrants {
    /// It checks for the end of the connection before it reports the grant, and finds it.
    Discarded,
    /// It reports the grant, which is a defect: another session may have the lock by then.
    Believed,
}

/// How long clients that still wait at the end continue to wait: what they wait for is free by
/// then.
const DRAIN: Nanos = 10 * SECOND;

/// How long the broker may take to grant what it can grant in such a run.
pub(crate) const GRANT_DELAY_MAX: Nanos = 2 * SECOND;

/// The shortest and longest time that a request or reply takes on the way.
const LATENCY: (Nanos, Nanos) = (10_000, 200_000);

/// The longest additional time until a client is told that its server has hung up, or until a
/// server notices that its client has gone.
const NOTICE_MAX: Nanos = 5 * MILLISECOND;

/// How long the server's kernel tries to tell a client of the end before it resets the connection.
const RESET_AFTER: Nanos = MILLISECOND / 2;

/// One in this many clients on which the server may hang up does not read its socket for a time
/// between these limits.
const READ_PAUSES: (u64, (Nanos, Nanos)) = (3, (MILLISECOND, 15 * MILLISECOND));

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A client does its next step.
    Act,
    /// The client's request reaches the broker.
    Arrive,
    /// The client learns that the request is queued.
    Ack,
    /// The time limit of the client's wait passes, at the broker.
    Limit(u64),
    /// The reply reaches the client.
    Reply(Reply),
    /// The server hangs up on the client.
    HangUp,
    /// The server's kernel gives up trying to tell the client, and resets the connection.
    OwnReset,
    /// The client's kernel is told of the end.
    End,
    /// The client reads, and finds the end.
    Lost,
    /// The broker notices that the client's session has ended.
    EndNoticed(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reply {
    Granted(u64),
    Busy,
    TimedOut,
    Deadlock,
    Refused,
    NotHeld,
    Released,
    Seen(u32),
}

/// An event with its time, its sequence number, its client and its session.
type Due = (Nanos, u64, usize, usize, Event);

struct Client {
    plan: Plan,
    /// Its session, in the history and at the broker.
    session: usize,
    held: Vec<(Name, Mode)>,
    /// The current step, and the index of its call.
    step: Option<(Step, usize)>,
    /// It does not read its socket before this time.
    reads_at: Nanos,
    /// When the last message that the server has sent to it arrives. Messages on a connection stay
    /// in order.
    delivered: Nanos,
    /// Whether the server has hung up on its session.
    is_hung_up: bool,
    /// Whether its kernel has been told of that.
    has_ended: bool,
}

struct Simulator<'a, S> {
    setup: Setup,
    broker: &'a mut S,
    random: Random,
    clients: Vec<Client>,
    events: BinaryHeap<Reverse<Due>>,
    event_count: u64,
    now: Nanos,
    history: History,
}

/// Runs clients against the broker, and returns what they have recorded.
pub(crate) fn run(setup: Setup, broker: &mut impl BrokerUnderTest) -> History {
    let mut simulator = Simulator {
        setup,
        broker,
        random: Random::for_part(setup.seed, 2),
        clients: Vec::new(),
        events: BinaryHeap::new(),
        event_count: 0,
        now: 0,
        history: History::default(),
    };
    for client in 0..setup.clients {
        let random = Random::for_part(setup.seed, 100 + client as u64);
        let plan = Plan { random, mix: setup.mix };
        simulator.clients.push(Client {
            plan,
            session: 0,
            held: Vec::new(),
            step: None,
            reads_at: 0,
            delivered: 0,
            is_hung_up: false,
            has_ended: false,
        });
        simulator.open(client);
    }
    simulator.run_events();
    simulator.history
}

impl<S: BrokerUnderTest> Simulator<'_, S> {
    fn open(&mut self, client: usize) {
        let session = self.history.sessions.len();
        let label = format!("client {client}, session {session}");
        let opened = self.now;
        self.history.sessions.push(Session { label, opened, alive_until: NEVER, ..Session::default() });
        self.broker.open(session);
        let it = &mut self.clients[client];
        (it.session, it.step) = (session, None);
        (it.reads_at, it.delivered, it.is_hung_up, it.has_ended) = (0, 0, false, false);
        it.held.clear();
        self.after(self.now + 1, client, Event::Act);
    }

    fn after(&mut self, at: Nanos, client: usize, event: Event) {
        self.event_count += 1;
        let session = self.clients[client].session;
        self.events.push(Reverse((at, self.event_count, client, session, event)));
    }

    /// The server sends this to the client. It takes `latency`, or longer if an earlier message is
    /// still on its way.
    fn send(&mut self, client: usize, latency: Nanos, event: Event) {
        let it = &mut self.clients[client];
        it.delivered = (self.now + latency).max(it.delivered + 1);
        let at = it.delivered;
        self.after(at, client, event);
    }

    /// If the client is not reading now, schedules `event` for when it reads. Returns whether it
    /// did so.
    fn defer_until_read(&mut self, client: usize, event: Event) -> bool {
        let reads_at = self.clients[client].reads_at;
        let is_paused = self.now < reads_at;
        if is_paused {
            self.after(reads_at, client, event);
        }
        is_paused
    }

    fn latency(&mut self) -> Nanos {
        self.random.between(LATENCY.0, LATENCY.1)
    }

    fn run_events(&mut self) {
        while let Some(Reverse((at, _, client, session, event))) = self.events.pop() {
            if at > self.setup.length + DRAIN {
                break;
            }
            // No two events happen at the same time.
            self.now = at.max(self.now + 1);
            self.broker.pass_time(self.now);
            self.send_results();
            let is_current = self.clients[client].session == session;
            match event {
                Event::EndNoticed(session) => {
                    self.broker.end(session);
                    self.history.sessions[session].gone_at.get_or_insert(self.now);
                }
                Event::OwnReset if self.history.sessions[session].gone_at.is_none() => {
                    self.broker.own_reset(session);
                }
                Event::Arrive if is_current && !self.clients[client].is_hung_up => self.arrive(client),
                Event::HangUp if is_current => self.hang_up(client),
                Event::End if is_current => self.end_arrives(client),
                Event::Lost if is_current => self.lost(client),
                Event::Limit(ticket) => self.broker.cancel(session, ticket),
                Event::Act if is_current => self.act(client),
                Event::Ack | Event::Reply(_) if is_current && self.defer_until_read(client, event) => {}
                Event::Ack if is_current => self.ack(client),
                Event::Reply(reply) if is_current => self.reply(client, reply),
                _ => {}
            }
            self.send_results();
        }
        self.finish();
    }

    fn finish(&mut self) {
        self.history.end = self.setup.length + DRAIN;
        for client in &mut self.clients {
            let session = &mut self.history.sessions[client.session];
            session.alive_until = session.alive_until.min(self.history.end);
            if let Some((_, call)) = client.step.take() {
                let call = &mut self.history.calls[call];
                (call.end, call.outcome) = (self.history.end, Outcome::Unanswered);
            }
        }
    }

    fn act(&mut self, client: usize) {
        let kills = self.setup.kills;
        let is_over = self.now > self.setup.length;
        if !is_over && self.random.one_in(kills) {
            return self.kill(client);
        }
        let it = &mut self.clients[client];
        let step = match (is_over, it.held.is_empty()) {
            (true, true) => return,
            (true, false) => Step::Release,
            (false, _) => it.plan.next(&it.held),
        };
        self.record_call(client, step);
        let latency = self.latency();
        self.after(self.now + latency, client, Event::Arrive);
        if !is_over {
            self.disturb(client);
        }
        // Some clients are killed while they wait.
        if !is_over && self.random.one_in(2 * kills) {
            self.kill(client);
        }
    }

    /// Records the call of this step.
    fn record_call(&mut self, client: usize, step: Step) {
        let it = &mut self.clients[client];
        let exclusive = |name: &Name| (*name, Mode::Exclusive);
        let (kind, wants) = match &step {
            Step::Acquire { wants, limit, .. } => (CallKind::Acquire { limit: *limit }, wants.clone()),
            Step::Convert { name, mode, limit } => {
                (CallKind::Convert { limit: *limit }, vec![(*name, *mode)])
            }
            Step::Release => (CallKind::Release, it.held.clone()),
            Step::StrayRelease(name) => (CallKind::Release, vec![exclusive(name)]),
            Step::Inspect(name) => (CallKind::Inspect, vec![exclusive(name)]),
        };
        it.step = Some((step, self.history.calls.len()));
        self.history.calls.push(Call {
            session: it.session,
            kind,
            wants: wants.into(),
            start: self.now,
            end: NEVER,
            queued: None,
            gave_up: None,
            outcome: Outcome::Unknown,
        });
    }

    fn kill(&mut self, client: usize) {
        let number = self.clients[client].session;
        let session = &mut self.history.sessions[number];
        session.alive_until = session.alive_until.min(self.now);
        let notice = self.latency() + self.random.below(NOTICE_MAX);
        self.after(self.now + notice, client, Event::EndNoticed(number));
        self.open(client);
    }

    /// The client has made a request: it may pause its reading now, and the server may hang up on
    /// it soon.
    fn disturb(&mut self, client: usize) {
        let hang_ups = self.setup.hang_ups;
        if hang_ups == 0 {
            return;
        }
        let (one_in, (low, high)) = READ_PAUSES;
        if self.random.one_in(one_in) {
            self.clients[client].reads_at = self.now + self.random.between(low, high);
        }
        if self.random.one_in(hang_ups) {
            let at = self.now + self.latency() + self.random.below(NOTICE_MAX);
            self.after(at, client, Event::HangUp);
        }
    }

    fn hang_up(&mut self, client: usize) {
        let it = &mut self.clients[client];
        if std::mem::replace(&mut it.is_hung_up, true) {
            return;
        }
        let number = it.session;
        let session = &mut self.history.sessions[number];
        (session.hung_up_at, session.provoked) = (Some(self.now), true);
        self.broker.hang_up(number);
        self.after(self.now + RESET_AFTER, client, Event::OwnReset);
        let latency = self.latency() + self.random.below(NOTICE_MAX);
        self.send(client, latency, Event::End);
    }

    /// From now on the client finds out whenever it reads, and its kernel acknowledges the end.
    fn end_arrives(&mut self, client: usize) {
        let it = &mut self.clients[client];
        it.has_ended = true;
        let number = it.session;
        let session = &mut self.history.sessions[number];
        session.alive_until = session.alive_until.min(self.now);
        let latency = self.latency();
        self.after(self.now + latency, client, Event::EndNoticed(number));
        if !self.defer_until_read(client, Event::Lost) {
            self.lost(client);
        }
    }

    fn lost(&mut self, client: usize) {
        let session = self.clients[client].session;
        self.history.sessions[session].lost_at = Some(self.now);
        self.open(client);
    }

    fn arrive(&mut self, client: usize) {
        let it = &self.clients[client];
        let session = it.session;
        let Some((step, call)) = it.step.clone() else { return };
        // The index of the call is a ticket that no other wait has.
        let waits = |limit: Option<Nanos>| (limit != Some(0)).then_some(call as u64);
        let reply = match step {
            Step::Acquire { wants, limit, acked } => {
                let answer = self.broker.acquire(session, &wants, waits(limit));
                self.answer(client, answer, limit, acked, call)
            }
            Step::Convert { name, mode, limit } => {
                let answer = self.broker.convert(session, name, mode, waits(limit));
                self.answer(client, answer, limit, true, call)
            }
            Step::Release => {
                let held = self.clients[client].held.clone();
                // Release all of them, even if one release fails.
                let released = held.iter().filter(|(name, _)| self.broker.release(session, *name)).count();
                Some(if released == held.len() { Reply::Released } else { Reply::NotHeld })
            }
            Step::StrayRelease(name) => {
                let released = self.broker.release(session, name);
                Some(if released { Reply::Released } else { Reply::NotHeld })
            }
            Step::Inspect(name) => Some(Reply::Seen(self.broker.holders(session, name))),
        };
        if let Some(reply) = reply {
            let latency = self.latency();
            self.send(client, latency, Event::Reply(reply));
        }
    }

    fn answer(
        &mut self,
        client: usize,
        answer: Answer,
        limit: Option<Nanos>,
        acked: bool,
        call: usize,
    ) -> Option<Reply> {
        Some(match answer {
            Answer::Granted(token) => Reply::Granted(token),
            Answer::Busy => Reply::Busy,
            Answer::Deadlock => Reply::Deadlock,
            Answer::NotHeld => Reply::NotHeld,
            Answer::Refused => Reply::Refused,
            Answer::Queued => {
                if let Some(limit) = limit {
                    self.after(self.now + limit, client, Event::Limit(call as u64));
                }
                if acked {
                    let latency = self.latency();
                    self.send(client, latency, Event::Ack);
                }
                return None;
            }
        })
    }

    fn send_results(&mut self) {
        for (session, ticket, end) in self.broker.decided() {
            let waits = |client: &Client| {
                client.session == session
                    && !client.is_hung_up
                    && client.step.as_ref().is_some_and(|(_, call)| *call as u64 == ticket)
            };
            let Some(client) = self.clients.iter().position(waits) else { continue };
            let reply = match end {
                End::Granted(token) => Reply::Granted(token),
                End::Cancelled => Reply::TimedOut,
                End::Lost => continue,
            };
            let latency = self.latency();
            self.send(client, latency, Event::Reply(reply));
        }
    }

    fn ack(&mut self, client: usize) {
        if let Some((_, call)) = self.clients[client].step {
            self.history.calls[call].queued.get_or_insert(self.now);
        }
    }

    fn reply(&mut self, client: usize, reply: Reply) {
        let it = &mut self.clients[client];
        let is_grant = matches!(reply, Reply::Granted(_));
        if it.has_ended && !(is_grant && self.setup.stale_grants == StaleGrants::Believed) {
            // The reply was in the socket before the end of the connection. What happened to the
            // lock since then is unknown.
            return;
        }
        let Some((step, call)) = it.step.take() else { return };
        let call = &mut self.history.calls[call];
        call.end = self.now;
        call.outcome = match reply {
            Reply::Granted(token) => Outcome::Granted(Some(token)),
            Reply::Busy => Outcome::Busy,
            Reply::TimedOut => Outcome::TimedOut,
            Reply::Deadlock => Outcome::Deadlock,
            Reply::Refused => Outcome::Refused,
            Reply::NotHeld => Outcome::NotHeld,
            Reply::Released => Outcome::Released,
            Reply::Seen(holders) => Outcome::Seen(holders),
        };
        match (step, reply) {
            (Step::Acquire { wants, .. }, Reply::Granted(_)) => it.held = wants,
            (Step::Convert { name, mode, .. }, Reply::Granted(_)) => it.held = vec![(name, mode)],
            (Step::Release, _) => it.held.clear(),
            (Step::Convert { .. }, Reply::NotHeld) => it.held.clear(),
            _ => {}
        }
        let pause = it.plan.pause(!it.held.is_empty());
        self.after(self.now + pause, client, Event::Act);
    }
}
