//! A session that resumes, by the rules for clients (docs/protocol.md): when its client believes in
//! its locks, when it is in doubt, and when it has lost them. Each rule can be broken, to see whether
//! the checker finds it. Nothing here waits, except for what the caller waits for.

use rustix::event::PollFlags;
use serde_json::{Value, json};

use super::clock::Clock;
use super::connection::{Connection, Incoming};
use crate::faults::log::{Log, now};
use crate::faults::wire::Lost;
use crate::history::{MILLISECOND, Mode, NEVER, Name, Nanos, SECOND};
use crate::random::Random;

/// How long an attempt may take from connecting to the answer.
const ATTEMPT_LIMIT: Nanos = 2 * SECOND;
/// The longest pause before the next attempt: at first, and at last.
const PAUSES: (Nanos, Nanos) = (50 * MILLISECOND, SECOND);

/// A rule that a client breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// It believes in its locks for ever.
    NoLimit,
    /// It ends the stream of a connection that it gives up.
    EndsStreamInDoubt,
    /// It claims what it has asked to release.
    ClaimsReleases,
    /// It takes for proof that its connection has stood until a moment ago.
    TrustsKernel,
    /// It reads the answer to `resume` before it looks at its limit.
    TakesLateAnswers,
}

/// A lock that the client believes to hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) name: Name,
    /// Of a conversion in flight, the one that allows more holders.
    pub(super) mode: Mode,
    pub(super) token: u64,
}

/// What the client was told, with which it can resume.
struct Told {
    session: Value,
    epoch: Value,
    secret: Value,
    dead_peer_timeout: u64,
}

impl Told {
    fn of(greeting: &Value) -> Self {
        let (resume, keepalive) = (&greeting["resume"], &greeting["keepalive"]);
        Self {
            session: resume["session"].clone(),
            epoch: resume["epoch"].clone(),
            secret: resume["secret"].clone(),
            dead_peer_timeout: keepalive["deadPeerTimeout"].as_u64().expect("a time in whole seconds"),
        }
    }

    /// B, in whole seconds.
    fn bound(&self) -> Nanos {
        7 * self.dead_peer_timeout / 25 * SECOND
    }

    /// D: for how long an answered request proves that the locks are kept.
    fn limit(&self) -> Nanos {
        2 * self.bound() + 2500 * MILLISECOND
    }
}

/// A connection on which the session may go on.
struct Attempt {
    connection: Connection,
    id: u64,
    /// When it is given up.
    until: Nanos,
    /// How many locks it claims.
    claims: usize,
}

/// The search for a connection on which the session goes on, or on which a new one begins.
struct Doubt {
    /// Until when the locks are believed in, by the client's clock; `None` if it holds nothing.
    limit: Option<Nanos>,
    /// Connections that stay open, and unread.
    old: Vec<Connection>,
    attempt: Option<Attempt>,
    next: Nanos,
    pause: Nanos,
}

enum State {
    Attached(Connection),
    Doubt(Doubt),
    /// With the connections that are closed when the caller has ended.
    Lost(Vec<Connection>),
}

/// What a client says when it is asked whether it holds its locks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Alive,
    InDoubt,
    Lost,
}

pub(crate) struct ResumableSession {
    /// The places of its server.
    places: Vec<String>,
    /// How many attempts to connect were begun; each is at the next place.
    tries: usize,
    owner: String,
    broken: Option<Broken>,
    pub(super) clock: Clock,
    random: Random,
    state: State,
    told: Option<Told>,
    attempts: u64,
    pub(super) held: Vec<Held>,
    /// What is asked to be released, until that is confirmed.
    pub(super) releasing: Vec<Held>,
    /// What is to be released on the next connection before anything else: it was claimed.
    unlock_first: Vec<Name>,
    /// Since its machine woke up, nothing has been answered that was sent after that moment.
    woke: Option<Nanos>,
    ping: Option<Nanos>,
}

impl ResumableSession {
    /// Begins a session. It connects when it is used, at one of the places in `address`.
    pub(crate) fn new(address: &str, owner: &str, seed: u64) -> Self {
        Self {
            places: address.split(',').map(str::to_owned).collect(),
            tries: 0,
            owner: owner.to_owned(),
            broken: None,
            clock: Clock::default(),
            random: Random::new(seed),
            state: State::Doubt(Doubt::new(None, Vec::new())),
            told: None,
            attempts: 0,
            held: Vec::new(),
            releasing: Vec::new(),
            unlock_first: Vec::new(),
            woke: None,
            ping: None,
        }
    }

    pub(crate) fn breaking(self, broken: Broken) -> Self {
        Self { broken: Some(broken), ..self }
    }

    fn breaks(&self, rule: Broken) -> bool {
        self.broken == Some(rule)
    }

    /// The connection, if the session has one.
    pub(super) fn attached(&mut self) -> Option<&mut Connection> {
        match &mut self.state {
            State::Attached(connection) => Some(connection),
            _ => None,
        }
    }

    /// Looks at what has come until now, and in doubt takes the next step of connecting again.
    /// Never waits.
    pub(crate) fn look(&mut self, log: &mut Log) -> Standing {
        if let State::Attached(connection) = &mut self.state {
            if connection.read_up_to_now() {
                self.confirm(log);
                self.keep_proven();
                return if self.woke.is_some() { Standing::InDoubt } else { Standing::Alive };
            }
            self.has_ended(log);
        }
        if let State::Doubt(_) = self.state {
            self.go_on_connecting(log);
        }
        match self.state {
            State::Attached(_) if self.woke.is_none() => Standing::Alive,
            State::Attached(_) | State::Doubt(_) => Standing::InDoubt,
            State::Lost(_) => Standing::Lost,
        }
    }

    /// Looks until the session stands or is lost, or it is `until`.
    pub(super) fn look_until(&mut self, until: Nanos, log: &mut Log) -> Result<bool, Lost> {
        loop {
            match self.look(log) {
                Standing::Alive => return Ok(true),
                Standing::Lost => return Err(Lost),
                Standing::InDoubt if now() >= until => return Ok(false),
                Standing::InDoubt => std::thread::sleep(std::time::Duration::from_millis(1)),
            }
        }
    }

    /// Notes what was answered since the machine of the client woke up.
    pub(super) fn confirm(&mut self, log: &mut Log) {
        let State::Attached(connection) = &self.state else { return };
        if self.woke.is_some_and(|woke| connection.proof > woke) {
            self.woke = None;
            log.is_answered_again();
        }
        if self.ping.is_some_and(|sent| connection.proof >= sent) {
            self.ping = None;
        }
    }

    /// Asks for a new proof if the last one is old, and something is held.
    fn keep_proven(&mut self) {
        let at = self.clock.now();
        let (State::Attached(connection), Some(told)) = (&mut self.state, &self.told) else { return };
        let is_old = at > connection.proof + told.bound() / 2;
        let is_wanted =
            !self.held.is_empty() && is_old || self.woke.is_some_and(|woke| !connection.awaits(woke));
        if is_wanted && self.ping.is_none() {
            connection.send("ping", &json!({}), at);
            self.ping = Some(at);
        }
    }

    /// The connection has ended, in whatever way.
    pub(super) fn has_ended(&mut self, log: &mut Log) {
        let state = std::mem::replace(&mut self.state, State::Lost(Vec::new()));
        let State::Attached(connection) = state else {
            self.state = state;
            return;
        };
        self.ping = None;
        if self.held.is_empty() && self.releasing.is_empty() {
            // There is nothing to lose: the old connection is closed as any other.
            self.state = State::Doubt(Doubt::new(None, Vec::new()));
            return;
        }
        let told = self.told.as_ref().expect("it has held something");
        let at = self.clock.now();
        let proof = if self.breaks(Broken::TrustsKernel) { at } else { connection.proof };
        let limit = if self.breaks(Broken::NoLimit) { NEVER } else { proof + told.limit() };
        if at > limit {
            log.believed_until(connection.stood_at.max(self.clock.when(limit)));
            self.state = State::Lost(vec![connection]);
            return;
        }
        log.in_doubt(self.clock.when(limit));
        if self.breaks(Broken::EndsStreamInDoubt) {
            connection.end_stream();
        }
        self.state = State::Doubt(Doubt::new(Some(limit), vec![connection]));
    }

    fn go_on_connecting(&mut self, log: &mut Log) {
        let is_over = |session: &Self| session.limit_is_over();
        if is_over(self) && !self.breaks(Broken::TakesLateAnswers) {
            return self.lose(log);
        }
        let State::Doubt(doubt) = &mut self.state else { return };
        let Some(attempt) = &mut doubt.attempt else {
            if is_over(self) {
                return self.lose(log);
            }
            return self.try_to_connect();
        };
        match attempt.connection.receive(0) {
            Incoming::Answer(id, answer) if id == attempt.id => {
                // Read in time, if the limit is not over now.
                if is_over(self) && !self.breaks(Broken::TakesLateAnswers) {
                    return self.lose(log);
                }
                self.is_answered(&answer, log);
            }
            Incoming::Answer(..) => {}
            Incoming::End => self.give_attempt_up(),
            Incoming::Nothing if now() > attempt.until => self.give_attempt_up(),
            Incoming::Nothing if is_over(self) => self.lose(log),
            Incoming::Nothing => {}
        }
    }

    fn limit_is_over(&self) -> bool {
        let State::Doubt(Doubt { limit: Some(limit), .. }) = &self.state else { return false };
        self.clock.now() > *limit
    }

    fn try_to_connect(&mut self) {
        let claims = self.claims();
        let State::Doubt(doubt) = &mut self.state else { return };
        let at = now();
        if at < doubt.next {
            return;
        }
        let place = &self.places[self.tries % self.places.len()];
        self.tries += 1;
        // Only after a round of all places it pauses.
        if self.tries.is_multiple_of(self.places.len()) {
            doubt.next = at + self.random.between(0, doubt.pause);
            doubt.pause = (2 * doubt.pause).min(PAUSES.1);
        }
        let Ok(mut connection) = Connection::open(place) else { return };
        let sent = self.clock.now();
        let id = match (&self.told, doubt.limit) {
            (Some(told), Some(_)) => {
                self.attempts += 1;
                let parameters = json!({
                    "session": told.session, "epoch": told.epoch, "secret": told.secret,
                    "deadPeerTimeout": told.dead_peer_timeout, "attempt": self.attempts, "locks": claims,
                });
                connection.send("resume", &parameters, sent)
            }
            _ => connection.send("hello", &json!({"resumable": true}), sent),
        };
        doubt.attempt = Some(Attempt { connection, id, until: at + ATTEMPT_LIMIT, claims: claims.len() });
    }

    /// What the client claims to hold: fixed before the request is sent.
    fn claims(&self) -> Vec<Value> {
        let releasing = self.releasing.iter().filter(|_| self.breaks(Broken::ClaimsReleases));
        let claim = |held: &Held| {
            let (name, token) = (format!("n{}", held.name), held.token);
            match held.mode {
                Mode::Exclusive => json!({"lockName": name, "mode": "exclusive", "token": token}),
                Mode::Limited(limit) => json!({"lockName": name, "limit": limit.get(), "token": token}),
                Mode::Shared => json!({"lockName": name, "mode": "shared", "token": token}),
            }
        };
        self.held.iter().chain(releasing).map(claim).collect()
    }

    fn give_attempt_up(&mut self) {
        let ends_stream = self.breaks(Broken::EndsStreamInDoubt);
        let State::Doubt(doubt) = &mut self.state else { return };
        let Some(attempt) = doubt.attempt.take() else { return };
        if ends_stream {
            attempt.connection.end_stream();
            doubt.old.push(attempt.connection);
        } else {
            attempt.connection.reset();
        }
    }

    fn is_answered(&mut self, answer: &Value, log: &mut Log) {
        match answer["status"].as_str() {
            Some("ok") => self.attach(answer, log),
            Some("ended") => {
                let State::Doubt(doubt) = &self.state else { return };
                let claims = doubt.attempt.as_ref().map_or(0, |attempt| attempt.claims);
                log.told_ended(claims);
                self.lose(log);
            }
            Some("refused") => self.give_attempt_up(),
            _ => panic!("a client that asked to resume, or said hello, was answered {answer}"),
        }
    }

    fn attach(&mut self, greeting: &Value, log: &mut Log) {
        let State::Doubt(Doubt { limit, old, attempt: Some(mut attempt), .. }) =
            std::mem::replace(&mut self.state, State::Lost(Vec::new()))
        else {
            return;
        };
        log.connected(attempt.connection.since);
        // The place that was active last comes first.
        self.tries -= 1;
        if limit.is_some() {
            log.resumed();
        } else {
            // Attempts are numbered from one for each session.
            self.attempts = 0;
        }
        old.into_iter().for_each(Connection::reset);
        self.told = Some(Told::of(greeting));
        self.releasing.clear();
        let at = self.clock.now();
        for name in self.unlock_first.drain(..) {
            attempt.connection.send("unlock", &json!({"lockName": format!("n{name}")}), at);
        }
        attempt.connection.send("identify", &json!({"name": self.owner}), at);
        self.state = State::Attached(attempt.connection);
        self.confirm(log);
    }

    /// The session is over. What it had stays open until its caller has ended.
    fn lose(&mut self, log: &mut Log) {
        let State::Doubt(doubt) = std::mem::replace(&mut self.state, State::Lost(Vec::new())) else { return };
        let limit = doubt.limit.map_or(NEVER, |limit| self.clock.when(limit));
        log.believed_until(limit.min(now()));
        let attempt = doubt.attempt.map(|attempt| attempt.connection);
        self.state = State::Lost(doubt.old.into_iter().chain(attempt).collect());
    }

    /// Gives up what it holds under these names, without a word to the server for now.
    pub(super) fn give_up(&mut self, names: &[Name]) {
        let State::Doubt(doubt) = &self.state else { return };
        // What an attempt claims already must be released afterwards.
        let is_claimed = doubt.attempt.is_some();
        for held in self.held.extract_if(.., |held| names.contains(&held.name)) {
            if is_claimed {
                self.unlock_first.push(held.name);
            } else {
                self.releasing.push(held);
            }
        }
    }

    /// Waits until something has come for its attempt to resume, and does not read it.
    pub(super) fn leave_unread(&self, until: Nanos) {
        if let State::Doubt(doubt) = &self.state
            && let Some(attempt) = &doubt.attempt
        {
            attempt.connection.wait(PollFlags::IN, until);
        }
    }

    /// From now on its machine sleeps, until [`wake`](Self::wake): it does nothing, and its clock
    /// stands still. Returns the time.
    pub(crate) fn sleep(&mut self, log: &mut Log) -> Nanos {
        let since = now();
        log.asleep(since);
        since
    }

    pub(crate) fn wake(&mut self, since: Nanos) {
        self.clock.stopped_since(since);
        self.woke = Some(self.clock.now());
    }

    /// Whether nothing has been answered yet since its machine woke up.
    pub(super) fn is_unsure(&self) -> bool {
        self.woke.is_some()
    }

    /// The socket that the session has, for misuse.
    pub(crate) fn into_socket(self) -> Option<socket2::Socket> {
        match self.state {
            State::Attached(connection) => Some(connection.into_socket()),
            _ => None,
        }
    }

    /// Ends the session: by the end of the stream on all its connections.
    pub(crate) fn close(self) {
        match self.state {
            State::Attached(connection) => connection.end_stream(),
            State::Doubt(Doubt { old, attempt, .. }) => {
                let attempt = attempt.map(|attempt| attempt.connection);
                old.iter().chain(&attempt).for_each(Connection::end_stream);
            }
            State::Lost(connections) => connections.iter().for_each(Connection::end_stream),
        }
    }
}

impl Doubt {
    fn new(limit: Option<Nanos>, old: Vec<Connection>) -> Self {
        Self { limit, old, attempt: None, next: 0, pause: PAUSES.0 }
    }
}
