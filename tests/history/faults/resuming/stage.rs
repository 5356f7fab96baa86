//! A stage for one story: a server, proxies, and clients that do what the story says. What the
//! clients see is logged as in a random run, and judged by the same checker.

use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use super::session::{Broken, ResumableSession, Standing};
use crate::checker::{Rules, Verdict, check};
use crate::faults::child::log_path;
use crate::faults::daemon::Daemon;
use crate::faults::gather::{Gathered, Life};
use crate::faults::log::{Log, now};
use crate::faults::run::{END_NOTICE_MAX, GRANT_DELAY_MAX};
use crate::faults::wire::Lost;
use crate::history::{History, Mode, Name, Nanos, Outcome, SECOND, ServerLife};

/// How long something may take that happens at once.
pub(crate) const AT_ONCE: Nanos = 20 * SECOND;
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// The stage. Several stories may share one server: each has names of its own.
pub(crate) struct Stage {
    directory: TempDir,
    clients: u64,
    /// Those that an operator has ended, each with a time before that.
    kicked: Vec<(String, Nanos)>,
}

impl Stage {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), clients: 0, kicked: Vec::new() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// A server that the story ends and starts.
    pub(crate) fn server(&self) -> Daemon {
        self.server_that_is(Path::new(env!("CARGO_BIN_EXE_lockd")), 12)
    }

    /// The same with this program, and this dead-peer timeout in seconds.
    pub(crate) fn server_that_is(&self, program: &Path, dead_peer_timeout: u64) -> Daemon {
        let mut daemon = Daemon::new(self.path(), &["--shared-excludes", "--allow-kick"], true);
        daemon.has_resumable();
        daemon.set_program(program);
        daemon.set_dead_peer_timeout(dead_peer_timeout);
        daemon.start_again();
        daemon
    }

    /// A client at this address, which is connected.
    pub(crate) fn client(&mut self, address: &str, broken: Option<Broken>) -> Actor {
        let (mut log, owner) = self.log();
        log.can_resume();
        let session = ResumableSession::new(address, &owner, self.clients);
        let session = match broken {
            Some(broken) => session.breaking(broken),
            None => session,
        };
        let mut actor = Actor { session: Some(session), log, owner };
        actor.until("it is connected", Standing::Alive, now() + AT_ONCE);
        actor
    }

    /// The log of another client, and its name.
    pub(crate) fn log(&mut self) -> (Log, String) {
        let process = self.clients;
        self.clients += 1;
        let owner = format!("owner-{:016x}", now() ^ process);
        let mut log = Log::create(&log_path(self.path(), process, 0)).unwrap();
        log.opened(now(), &format!("client {process}, {owner}"));
        (log, owner)
    }

    /// An operator ends the session of this client.
    pub(crate) fn kick(&mut self, daemon: &Daemon, client: &Actor) {
        self.kicked.push((client.owner.clone(), now()));
        assert!(daemon.kick(&client.owner), "the client has a session");
    }

    /// What the clients have logged, judged.
    pub(crate) fn judge(self, daemon: &Daemon) -> (History, Verdict) {
        self.judge_with(&daemon.lives)
    }

    /// The same with servers of which this is known.
    pub(crate) fn judge_with(self, servers: &[ServerLife]) -> (History, Verdict) {
        let life = |process| Life { process, killed: None, gone: now(), pauses: Vec::new() };
        let lives: Vec<Life> = (0..self.clients).map(life).collect();
        let mut gathered = Gathered::of(&lives, self.path(), 1, now());
        gathered.history.servers = servers.to_vec();
        self.kicked.iter().for_each(|(owner, since)| gathered.was_ended(owner, *since));
        let rules = Rules { grant_delay_max: GRANT_DELAY_MAX, end_notice_max: END_NOTICE_MAX, clock_lead: 0 };
        let verdict = check(&gathered.history, &rules);
        (gathered.history, verdict)
    }
}

/// A client in a story.
pub(crate) struct Actor {
    session: Option<ResumableSession>,
    log: Log,
    owner: String,
}

impl Actor {
    fn session(&mut self) -> &mut ResumableSession {
        self.session.as_mut().expect("it has not ended")
    }

    pub(crate) fn acquire(&mut self, name: Name, limit: Option<Nanos>) -> Outcome {
        let Self { session, log, .. } = self;
        let session = session.as_mut().expect("it has not ended");
        session.acquire(&[(name, Mode::Exclusive)], limit, false, log).unwrap_or(Outcome::Unknown)
    }

    /// Acquires what is free, or will be.
    pub(crate) fn must_acquire(&mut self, name: Name) {
        let outcome = self.acquire(name, Some(60 * SECOND));
        assert!(matches!(outcome, Outcome::Granted(_)), "{outcome:?}");
    }

    pub(crate) fn release(&mut self, name: Name) -> Result<Outcome, Lost> {
        let Self { session, log, .. } = self;
        session.as_mut().expect("it has not ended").release(&[(name, Mode::Exclusive)], log)
    }

    pub(crate) fn holders(&mut self, name: Name) -> Outcome {
        let Self { session, log, .. } = self;
        session.as_mut().expect("it has not ended").inspect(name, log).unwrap_or(Outcome::Unknown)
    }

    /// Looks once.
    pub(crate) fn look(&mut self) -> Standing {
        let Self { session, log, .. } = self;
        session.as_mut().expect("it has not ended").look(log)
    }

    /// Waits until the answer to `resume` has come, and does not read it.
    pub(crate) fn leave_unread(&self, until: Nanos) {
        self.session.as_ref().expect("it has not ended").leave_unread(until);
    }

    /// Looks again and again until `until`, or it has lost its session.
    pub(crate) fn goes_on_until(&mut self, until: Nanos) -> Standing {
        loop {
            match self.look() {
                Standing::Lost => return Standing::Lost,
                standing if now() >= until => return standing,
                _ => std::thread::sleep(LOOK_INTERVAL),
            }
        }
    }

    /// Looks until its standing is this. When that was.
    pub(crate) fn until(&mut self, what: &str, standing: Standing, deadline: Nanos) -> Nanos {
        loop {
            let seen = self.look();
            if seen == standing {
                return now();
            }
            assert!(now() < deadline, "not in time: {what}; {seen:?}");
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// It finds out whether it still has its session.
    pub(crate) fn is_certain(&mut self) {
        let deadline = now() + AT_ONCE;
        while self.look() == Standing::InDoubt {
            assert!(now() < deadline, "A is in doubt for ever");
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Its machine sleeps, with its clock stopped, while this happens.
    pub(crate) fn sleep_while<R>(&mut self, happens: impl FnOnce() -> R) -> R {
        let Self { session, log, .. } = self;
        let since = session.as_mut().expect("it has not ended").sleep(log);
        let result = happens();
        self.session().wake(since);
        result
    }

    /// It is told that it has lost, or ends by itself.
    pub(crate) fn end(&mut self) {
        let Some(mut session) = self.session.take() else { return };
        let at = now();
        match session.look(&mut self.log) {
            Standing::Lost => self.log.lost(),
            Standing::Alive | Standing::InDoubt => self.log.ending_at(at),
        }
        session.close();
        self.log.gone();
        self.log.flush();
    }

    /// It dies: its kernel ends its connections. With input that it has not read, by a reset.
    pub(crate) fn die(&mut self, with_unread_input: bool) {
        self.log.ending_at(now());
        let Some(socket) = self.session.take().and_then(ResumableSession::into_socket) else { return };
        if with_unread_input {
            socket.set_linger(Some(Duration::ZERO)).unwrap();
        }
        drop(socket);
        self.log.gone();
        self.log.flush();
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.end();
        }
    }
}
