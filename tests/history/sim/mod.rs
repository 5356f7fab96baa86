//! Many clients of a broker in this process, in simulated time: every run follows from its seed
//! alone, thousands of them take seconds, and a wait of a minute takes nothing. The clients do what
//! clients of a server do, with requests and replies that take time on their way; they are killed
//! now and then; and they record what they see.
//!
//! Now and then the server hangs up on a client. Four things happen then, each later than the one
//! before: the server hangs up; its own kernel may give up telling the client, and reset; the
//! client's kernel is told, from when on the client knows whenever it looks; and the server hears
//! that it was told. A client looks at once, unless it dozes: then what comes lies in its socket
//! until it looks, be it a grant or the end.

pub(crate) mod broken;
pub(crate) mod real;
pub(crate) mod subject;

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::dice::Dice;
use crate::history::{Ask, Call, History, MILLISECOND, Mode, NEVER, Name, Nanos, Outcome, SECOND, Session};
use crate::plan::{Mix, Plan, Step};
use subject::{Answer, End, Subject};

/// How a run is set up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) seed: u64,
    pub(crate) clients: usize,
    /// For how long clients ask for more.
    pub(crate) length: Nanos,
    pub(crate) mix: Mix,
    /// A client is killed after every so many steps, about; 0: never.
    pub(crate) kills: u64,
    /// The server hangs up on a client after every so many steps, about, and clients doze; 0:
    /// never.
    pub(crate) hang_ups: u64,
    pub(crate) belief: Belief,
}

/// What a client makes of a grant that it finds in its socket when the connection has ended since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Belief {
    /// Nothing: it looks for the end before it says yes, and finds it.
    OfTheLiving,
    /// The defect of saying yes: somebody else may have the lock by then.
    Stale,
}

/// How long those who still wait at the end go on waiting: what they wait for is free by then.
const DRAIN: Nanos = 10 * SECOND;

/// What the checker may rely on in such a run.
pub(crate) const PATIENCE: Nanos = 2 * SECOND;

/// How long requests and replies are under way.
const WAY: (Nanos, Nanos) = (10_000, 200_000);

/// How much longer it may take until a client is told that its server has hung up, or its server
/// that it is gone.
const NOTICE_MAX: Nanos = 5 * MILLISECOND;

/// How long the server's kernel tries to tell a client before it resets the connection.
const TELLS_FOR: Nanos = MILLISECOND / 2;

/// Of the clients on which the server may hang up one in so many does not look at its socket for so
/// long.
const DOZES: (u64, (Nanos, Nanos)) = (3, (MILLISECOND, 15 * MILLISECOND));

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    /// A client is to do its next step.
    Act,
    /// Its request reaches the broker.
    Arrive,
    /// It learns that the request is queued.
    Ack,
    /// The limit of its wait has come, at the broker.
    Limit(u64),
    /// The answer reaches the client.
    Reply(Reply),
    /// The server hangs up on the client.
    HangUp,
    /// The server's kernel gives up telling it.
    OwnReset,
    /// The client's kernel is told.
    End,
    /// The client looks, and finds the end.
    Lost,
    /// The broker notices that the client's session has ended.
    Gone(usize),
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

/// When, the how manieth it is, of which client and session, and what.
type Due = (Nanos, u64, usize, usize, Event);

struct Client {
    plan: Plan,
    /// Its session, in the history and at the broker.
    session: usize,
    held: Vec<(Name, Mode)>,
    /// What it is at, and which call that is.
    step: Option<(Step, usize)>,
    /// It does not look at its socket before that.
    looks_at: Nanos,
    /// When the last of what the server has sent it arrives: nothing overtakes on a connection.
    delivered: Nanos,
    /// Whether the server has hung up on its session.
    is_hung_up: bool,
    /// Whether its kernel has been told so.
    has_ended: bool,
}

struct Simulator<'a, S> {
    setup: Setup,
    subject: &'a mut S,
    dice: Dice,
    clients: Vec<Client>,
    events: BinaryHeap<Reverse<Due>>,
    happened: u64,
    now: Nanos,
    history: History,
}

/// Lets clients loose on the broker, and gives what they have recorded.
pub(crate) fn run(setup: Setup, subject: &mut impl Subject) -> History {
    let mut simulator = Simulator {
        setup,
        subject,
        dice: Dice::of_part(setup.seed, 2),
        clients: Vec::new(),
        events: BinaryHeap::new(),
        happened: 0,
        now: 0,
        history: History::default(),
    };
    for client in 0..setup.clients {
        let dice = Dice::of_part(setup.seed, 100 + client as u64);
        let plan = Plan { dice, mix: setup.mix };
        simulator.clients.push(Client {
            plan,
            session: 0,
            held: Vec::new(),
            step: None,
            looks_at: 0,
            delivered: 0,
            is_hung_up: false,
            has_ended: false,
        });
        simulator.open(client);
    }
    simulator.go_on();
    simulator.history
}

impl<S: Subject> Simulator<'_, S> {
    fn open(&mut self, client: usize) {
        let session = self.history.sessions.len();
        let label = format!("client {client}, session {session}");
        let opened = self.now;
        self.history.sessions.push(Session { label, opened, stood_until: NEVER, ..Session::default() });
        self.subject.open(session);
        let it = &mut self.clients[client];
        (it.session, it.step) = (session, None);
        (it.looks_at, it.delivered, it.is_hung_up, it.has_ended) = (0, 0, false, false);
        it.held.clear();
        self.after(self.now + 1, client, Event::Act);
    }

    fn after(&mut self, at: Nanos, client: usize, event: Event) {
        self.happened += 1;
        let session = self.clients[client].session;
        self.events.push(Reverse((at, self.happened, client, session, event)));
    }

    /// The server sends this to the client. It takes this long, or as long as what was sent before.
    fn send(&mut self, client: usize, way: Nanos, event: Event) {
        let it = &mut self.clients[client];
        it.delivered = (self.now + way).max(it.delivered + 1);
        let at = it.delivered;
        self.after(at, client, event);
    }

    /// The client does this as soon as it looks at its socket; false: it looks now.
    fn when_it_looks(&mut self, client: usize, event: Event) -> bool {
        let looks_at = self.clients[client].looks_at;
        let dozes = self.now < looks_at;
        if dozes {
            self.after(looks_at, client, event);
        }
        dozes
    }

    fn way(&mut self) -> Nanos {
        self.dice.between(WAY.0, WAY.1)
    }

    fn go_on(&mut self) {
        while let Some(Reverse((at, _, client, session, event))) = self.events.pop() {
            if at > self.setup.length + DRAIN {
                break;
            }
            // No two moments are the same.
            self.now = at.max(self.now + 1);
            self.subject.pass_time(self.now);
            self.pass_on_decisions();
            let is_current = self.clients[client].session == session;
            match event {
                Event::Gone(session) => {
                    self.subject.end(session);
                    self.history.sessions[session].gone_at.get_or_insert(self.now);
                }
                Event::OwnReset if self.history.sessions[session].gone_at.is_none() => {
                    self.subject.own_reset(session);
                }
                Event::Arrive if is_current && !self.clients[client].is_hung_up => self.arrive(client),
                Event::HangUp if is_current => self.hang_up(client),
                Event::End if is_current => self.told_of_end(client),
                Event::Lost if is_current => self.lost(client),
                Event::Limit(ticket) => self.subject.cancel(session, ticket),
                Event::Act if is_current => self.act(client),
                Event::Ack | Event::Reply(_) if is_current && self.when_it_looks(client, event) => {}
                Event::Ack if is_current => self.ack(client),
                Event::Reply(reply) if is_current => self.reply(client, reply),
                _ => {}
            }
            self.pass_on_decisions();
        }
        self.finish();
    }

    fn finish(&mut self) {
        self.history.end = self.setup.length + DRAIN;
        for client in &mut self.clients {
            let session = &mut self.history.sessions[client.session];
            session.stood_until = session.stood_until.min(self.history.end);
            if let Some((_, call)) = client.step.take() {
                let call = &mut self.history.calls[call];
                (call.end, call.outcome) = (self.history.end, Outcome::Unanswered);
            }
        }
    }

    fn act(&mut self, client: usize) {
        let kills = self.setup.kills;
        let is_over = self.now > self.setup.length;
        if !is_over && self.dice.once_in(kills) {
            return self.kill(client);
        }
        let it = &mut self.clients[client];
        let step = match (is_over, it.held.is_empty()) {
            (true, true) => return,
            (true, false) => Step::Release,
            (false, _) => it.plan.next(&it.held),
        };
        self.ask(client, step);
        let way = self.way();
        self.after(self.now + way, client, Event::Arrive);
        if !is_over {
            self.disturb(client);
        }
        // Some are killed while they wait.
        if !is_over && self.dice.once_in(2 * kills) {
            self.kill(client);
        }
    }

    /// Records the call of this step.
    fn ask(&mut self, client: usize, step: Step) {
        let it = &mut self.clients[client];
        let exclusive = |name: &Name| (*name, Mode::Exclusive);
        let (ask, wants) = match &step {
            Step::Acquire { wants, limit, .. } => (Ask::Acquire { limit: *limit }, wants.clone()),
            Step::Convert { name, mode, limit } => (Ask::Convert { limit: *limit }, vec![(*name, *mode)]),
            Step::Release => (Ask::Release, it.held.clone()),
            Step::Stray(name) => (Ask::Release, vec![exclusive(name)]),
            Step::Inspect(name) => (Ask::Inspect, vec![exclusive(name)]),
        };
        it.step = Some((step, self.history.calls.len()));
        self.history.calls.push(Call {
            session: it.session,
            ask,
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
        session.stood_until = session.stood_until.min(self.now);
        let notice = self.way() + self.dice.below(NOTICE_MAX);
        self.after(self.now + notice, client, Event::Gone(number));
        self.open(client);
    }

    /// The client has asked for something: it may doze now, and the server may hang up on it before
    /// long.
    fn disturb(&mut self, client: usize) {
        let hang_ups = self.setup.hang_ups;
        if hang_ups == 0 {
            return;
        }
        let (one_in, (low, high)) = DOZES;
        if self.dice.once_in(one_in) {
            self.clients[client].looks_at = self.now + self.dice.between(low, high);
        }
        if self.dice.once_in(hang_ups) {
            let at = self.now + self.way() + self.dice.below(NOTICE_MAX);
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
        self.subject.hang_up(number);
        self.after(self.now + TELLS_FOR, client, Event::OwnReset);
        let way = self.way() + self.dice.below(NOTICE_MAX);
        self.send(client, way, Event::End);
    }

    /// From now on the client knows whenever it looks, and its kernel acknowledges that.
    fn told_of_end(&mut self, client: usize) {
        let it = &mut self.clients[client];
        it.has_ended = true;
        let number = it.session;
        let session = &mut self.history.sessions[number];
        session.stood_until = session.stood_until.min(self.now);
        let way = self.way();
        self.after(self.now + way, client, Event::Gone(number));
        if !self.when_it_looks(client, Event::Lost) {
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
        // The number of its call is a ticket that no other wait has.
        let waits = |limit: Option<Nanos>| (limit != Some(0)).then_some(call as u64);
        let reply = match step {
            Step::Acquire { wants, limit, acked } => {
                let answer = self.subject.acquire(session, &wants, waits(limit));
                self.answer(client, answer, limit, acked, call)
            }
            Step::Convert { name, mode, limit } => {
                let answer = self.subject.convert(session, name, mode, waits(limit));
                self.answer(client, answer, limit, true, call)
            }
            Step::Release => {
                let held = self.clients[client].held.clone();
                // All of them, whatever is said of one.
                let released = held.iter().filter(|(name, _)| self.subject.release(session, *name)).count();
                Some(if released == held.len() { Reply::Released } else { Reply::NotHeld })
            }
            Step::Stray(name) => {
                let released = self.subject.release(session, name);
                Some(if released { Reply::Released } else { Reply::NotHeld })
            }
            Step::Inspect(name) => Some(Reply::Seen(self.subject.holders(session, name))),
        };
        if let Some(reply) = reply {
            let way = self.way();
            self.send(client, way, Event::Reply(reply));
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
                    let way = self.way();
                    self.send(client, way, Event::Ack);
                }
                return None;
            }
        })
    }

    fn pass_on_decisions(&mut self) {
        for (session, ticket, end) in self.subject.decided() {
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
            let way = self.way();
            self.send(client, way, Event::Reply(reply));
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
        if it.has_ended && !(is_grant && self.setup.belief == Belief::Stale) {
            // It has lain there, and the end after it: nobody knows what has become of it since.
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
