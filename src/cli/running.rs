//! The running server: its main thread waits for events of all kinds on one channel, and acts on
//! them one after the other.

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use lockd::broker::Broker;
use lockd::server::cluster::{Member, MemberEvent};
use lockd::server::keeper::Keeper;
use lockd::server::snapshot::{ServerSnapshot, encode};
use lockd::server::{ControlSocket, Server};

use super::cluster_member::{self, EXIT_NOT_ACTIVE};
use super::configuration;
use super::control::{Asker, Reply};
use super::grace_log::{StoreKind, log_grace};
use super::http::{Http, Rules};
use super::logging;
use super::messages::EXIT_USAGE;
use super::options::{ServeOptions, Settings};
use super::pidfile::Pidfile;
use super::reload::ActiveOptions;
use super::signal_gate::SignalGate;
use super::systemd::ServiceManager;
use super::upgrade::{self, ProgramFile, ProgramState, Rehearsal, StateDirHandOver, UpgradeClaim, Verdict};

/// How long a stop waits for clients to acknowledge that they have lost their locks.
const STOP_TELL_LIMIT: Duration = Duration::from_millis(500);
/// How long the next version may take to say whether it can take over.
const REHEARSAL_LIMIT: Duration = Duration::from_secs(10);
/// How long the threads of the server, and the keeper of the state directory, may take to stop for
/// an upgrade. Nobody is served meanwhile.
const PARK_LIMIT: Duration = Duration::from_secs(1);
/// How long the reader of the log may take meanwhile.
const LOG_LIMIT: Duration = Duration::from_millis(5);

/// What the main thread waits for.
pub(super) enum ServeEvent {
    /// The configuration is to be read again.
    Reload,
    /// The configuration has been read again.
    ReloadRead(Result<Box<Settings>, String>),
    /// The program is to be replaced by its next version. Whoever sends this has the claim.
    Upgrade(Option<Asker>),
    /// The next version has tried to take over, or could not be tried.
    Rehearsed(Result<Verdict, String>),
    /// Something has happened in the cluster that this server is a member of.
    Member(MemberEvent),
    /// Another server of the cluster is to become active.
    StandDown(Asker),
    Stop,
    /// The broker has failed.
    Failed,
}

/// Why the server is to stop, in order.
pub(super) enum End {
    /// It was told to.
    Stopped,
    /// Another server of the cluster is to become active.
    StoodDown(Asker),
    /// The broker has failed.
    Failed,
}

/// The server is to end at once, with this status: clients must be told nothing more.
pub(super) struct AtOnce(pub(super) u8);

/// Whether the configuration is being read again.
pub(super) enum ReloadState {
    Idle,
    Reading,
    /// Another reload was requested in the meantime. The file may have changed after it was read,
    /// so it must be read once more.
    ReadAgain,
    /// It is to be read once the upgrade that is in progress has come to nothing.
    Postponed,
}

/// An upgrade whose next version is being tried.
pub(super) struct Upgrading {
    /// Ends the child when this is dropped.
    _rehearsal: Rehearsal,
    program: ProgramFile,
    asker: Option<Asker>,
}

pub(super) struct RunningServer<'a> {
    pub(super) options: &'a ServeOptions,
    pub(super) active: ActiveOptions,
    pub(super) broker: Broker,
    pub(super) server: Server,
    pub(super) http: Http,
    /// Of a member of a cluster only while it is the active one.
    pub(super) keeper: Option<Keeper>,
    pub(super) member: Option<Member>,
    pub(super) manager: ServiceManager,
    pub(super) pidfile: Option<Pidfile>,
    pub(super) control: Option<Arc<ControlSocket>>,
    pub(super) signals: SignalGate,
    pub(super) events: Sender<ServeEvent>,
    pub(super) reload: ReloadState,
    /// Where the next version of the program will be.
    pub(super) program: PathBuf,
    /// How many upgrades there have been.
    pub(super) upgrades: u64,
    pub(super) claim: UpgradeClaim,
    pub(super) upgrading: Option<Upgrading>,
}

impl RunningServer<'_> {
    /// Handles events until the server is to stop.
    ///
    /// # Errors
    /// If it must end at once.
    pub(super) fn wait(&mut self, events: &Receiver<ServeEvent>) -> Result<End, AtOnce> {
        loop {
            let cluster =
                self.member.as_ref().map(|member| cluster_member::in_words(&member.reader().read()));
            self.manager.beat(&self.broker, &self.server, cluster.as_deref());
            match self.manager.next(events) {
                Ok(ServeEvent::Reload) => self.reload(),
                Ok(ServeEvent::ReloadRead(settings)) => {
                    match settings.and_then(|settings| self.apply(*settings)) {
                        Ok(()) => log::info!("the configuration has been read again"),
                        Err(error) => log::error!("the configuration stays as it was: {error}"),
                    }
                    self.manager.notify_ready(&self.server);
                    if let ReloadState::ReadAgain = std::mem::replace(&mut self.reload, ReloadState::Idle) {
                        self.read_again();
                    }
                }
                Ok(ServeEvent::Upgrade(asker)) => self.begin_upgrade(asker),
                Ok(ServeEvent::Rehearsed(verdict)) => self.finish_upgrade(verdict, events),
                Ok(ServeEvent::Member(event)) => self.note_member(event)?,
                Ok(ServeEvent::StandDown(asker)) => {
                    if let Some(end) = self.stand_down(asker) {
                        return Ok(end);
                    }
                }
                Ok(ServeEvent::Stop) => return Ok(End::Stopped),
                Err(RecvTimeoutError::Timeout) => {}
                Ok(ServeEvent::Failed) | Err(RecvTimeoutError::Disconnected) => {
                    return Ok(End::Failed);
                }
            }
        }
    }

    fn note_member(&mut self, event: MemberEvent) -> Result<(), AtOnce> {
        match event {
            MemberEvent::TookOver(keeper) => {
                log::info!("this server is the active one from now on (run {})", keeper.epoch());
                if let Some(cause) = keeper.grace_cause() {
                    log_grace(cause, self.broker.grace(), StoreKind::Etcd);
                }
                self.keeper = Some(keeper);
                self.manager.notify_ready(&self.server);
                Ok(())
            }
            MemberEvent::Over(reason) => {
                log::error!("this server is not the active one any more, and ends: {reason}");
                Err(AtOnce(EXIT_NOT_ACTIVE))
            }
            MemberEvent::Refused(reason) => {
                log::error!("this server cannot be a member of the cluster: {reason}");
                Err(AtOnce(EXIT_USAGE))
            }
        }
    }

    /// How the server ends so that another one of the cluster becomes active, if it can.
    fn stand_down(&self, asker: Asker) -> Option<End> {
        let refusal = match self.member.as_ref().map(Member::is_active) {
            Some(true) => {
                log::info!("standing down");
                tell(Some(&asker), "clients are being told");
                return Some(End::StoodDown(asker));
            }
            Some(false) => "it is a standby",
            None => "it is not a member of a cluster",
        };
        asker.tell(&Reply::Refused(refusal.to_owned()));
        None
    }

    fn reload(&mut self) {
        match self.reload {
            // The next version reads the configuration itself.
            ReloadState::Idle if self.upgrading.is_some() => self.reload = ReloadState::Postponed,
            ReloadState::Idle => self.read_again(),
            ReloadState::Reading => self.reload = ReloadState::ReadAgain,
            ReloadState::ReadAgain | ReloadState::Postponed => {}
        }
    }

    /// Reads the configuration again, in a thread of its own: a file may be on a file server that
    /// hangs, and until it is read the server must still stop when told to, and send signs of life
    /// to its service manager.
    fn read_again(&mut self) {
        self.manager.notify_reloading();
        self.reload = ReloadState::Reading;
        let (options, events) = (self.options.clone(), self.events.clone());
        let work = move || {
            // If the main thread does not receive events any more, it is stopping.
            let _ = events.send(ServeEvent::ReloadRead(configuration::settings(&options).map(Box::new)));
        };
        if let Err(error) = std::thread::Builder::new().name("lockd-reload".to_owned()).spawn(work) {
            // It cannot fail: the receiver lives in the caller of this function.
            let _ = self.events.send(ServeEvent::ReloadRead(Err(error.to_string())));
        }
    }

    /// Puts new settings into effect.
    ///
    /// # Errors
    /// If they cannot take effect: then nothing has changed.
    fn apply(&mut self, settings: Settings) -> Result<(), String> {
        // The checks come first, so that settings with a mistake change nothing.
        self.server
            .check(&settings.config)
            .map_err(|error| format!("{error}; what is bound stays until a restart"))?;
        let timeout = settings.config.dead_peer_timeout;
        if self.member.is_some() && timeout != self.server.dead_peer_timeout() {
            return Err("dead-peer-timeout: all servers of a cluster need the same, and must be stopped to \
                        change it"
                .to_owned());
        }
        if let Some(keeper) = &self.keeper {
            keeper.set_dead_peer_timeout(timeout).map_err(|error| format!("state directory: {error}"))?;
        }
        log::set_max_level(settings.log_level);
        self.broker.set_limits(settings.limits);
        self.http.set_rules(Rules::new(&settings.config, &settings.http_hosts));
        self.server.reconfigure(settings.config)?;
        // Last, so that the log does not report changes that have failed. The new log level applies
        // to these lines too.
        for (level, text) in self.active.reload(settings.given) {
            log::log!(level, "{text}");
        }
        Ok(())
    }

    /// Lets the next version try whether it can take over. The server serves on meanwhile.
    fn begin_upgrade(&mut self, asker: Option<Asker>) {
        let version = env!("CARGO_PKG_VERSION");
        log::info!("upgrading: {} tries whether it can take over from {version}", self.program.display());
        match self.rehearse() {
            Ok((rehearsal, program)) => {
                tell(asker.as_ref(), "the new version tries whether it can take over");
                self.upgrading = Some(Upgrading { _rehearsal: rehearsal, program, asker });
            }
            Err(reason) => self.refuse_upgrade(asker.as_ref(), &reason),
        }
    }

    fn rehearse(&self) -> Result<(Rehearsal, ProgramFile), String> {
        if self.member.is_some() {
            return Err(
                "a member of a cluster is not upgraded in place: stop it, or have it stand down, and \
                        start the new version"
                    .to_owned(),
            );
        }
        if !matches!(self.reload, ReloadState::Idle) {
            return Err("the configuration is being read again".to_owned());
        }
        let program = ProgramFile::open(&self.program)?;
        let (state, server) = self.at_rest(None, |state, server| (state, server))?;
        let state = write(&state, &server)?;
        let events = self.events.clone();
        let done = move |verdict| {
            // If the main thread does not receive events any more, it is stopping.
            let _ = events.send(ServeEvent::Rehearsed(verdict));
        };
        let rehearsal = Rehearsal::start(&program, state, REHEARSAL_LIMIT, done);
        Ok((rehearsal.map_err(|error| error.to_string())?, program))
    }

    /// Becomes the next version if that can take over. Otherwise the server goes on as before.
    fn finish_upgrade(&mut self, verdict: Result<Verdict, String>, events: &Receiver<ServeEvent>) {
        let Some(Upgrading { program, asker, .. }) = self.upgrading.take() else { return };
        let reason = match verdict {
            Ok(Verdict::Ready { version, dead_peer_timeout, .. }) => {
                tell(asker.as_ref(), &format!("version {version} can take over"));
                let timeout = Duration::from_secs(dead_peer_timeout);
                match self.hand_over(&program, timeout, asker.as_ref(), events) {
                    Ok(never) => match never {},
                    Err(reason) => reason,
                }
            }
            Ok(Verdict::Refused(reason)) | Err(reason) => {
                format!("the new version cannot take over: {reason}")
            }
        };
        self.refuse_upgrade(asker.as_ref(), &reason);
    }

    fn refuse_upgrade(&mut self, asker: Option<&Asker>, reason: &str) {
        log::error!("not upgraded, the server goes on as before: {reason}");
        if let Some(asker) = asker {
            asker.tell(&Reply::Refused(reason.to_owned()));
        }
        self.claim.give_up();
        if let ReloadState::Postponed = self.reload {
            self.read_again();
        }
    }

    /// Replaces this program by its next version. Returns only if that fails, and then everything is
    /// as before.
    fn hand_over(
        &mut self,
        next: &ProgramFile,
        timeout: Duration,
        asker: Option<&Asker>,
        events: &Receiver<ServeEvent>,
    ) -> Result<Infallible, String> {
        if !next.is_current() {
            return Err(format!("{} has been replaced meanwhile", self.program.display()));
        }
        if let Some(keeper) = &self.keeper {
            keeper.set_dead_peer_timeout(timeout).map_err(|error| format!("state directory: {error}"))?;
        }
        self.manager.notify_upgrading();
        // Now, since nobody is served while the log is written later.
        logging::finish();
        let result = self.execute(next, asker, events);
        self.manager.notify_ready(&self.server);
        result
    }

    fn execute(
        &self,
        next: &ProgramFile,
        asker: Option<&Asker>,
        events: &Receiver<ServeEvent>,
    ) -> Result<Infallible, String> {
        // From now on signals stay pending for the next version.
        let _gate = self.signals.close();
        let pending: Vec<ServeEvent> = events.try_iter().collect();
        let stops = |event: &ServeEvent| matches!(event, ServeEvent::Stop | ServeEvent::Failed);
        let result = if pending.iter().any(stops) {
            Err("the server is stopping".to_owned())
        } else {
            let reload = matches!(self.reload, ReloadState::Postponed)
                || pending.iter().any(|event| matches!(event, ServeEvent::Reload));
            self.at_rest(asker, |program, server| {
                if self.broker.has_failed() {
                    return Err("the broker has failed".to_owned());
                }
                // It is another state than the one that was tried, and there still is a way back.
                self.server.check_snapshot(&server)?;
                // Of what has been logged meanwhile; nothing, as a rule.
                let lost_lines = logging::finish_within(LOG_LIMIT);
                become_next(next, &ProgramState { reload, lost_lines, ..program }, &server)
            })
            .flatten()
        };
        // It cannot fail: the receiver lives in the caller of this function.
        pending.into_iter().for_each(|event| _ = self.events.send(event));
        result
    }

    /// Stops all threads that change something, and calls `with` with all that the next version
    /// must know. They go on when it returns.
    ///
    /// # Errors
    /// If they cannot be stopped in time: then `with` is not called.
    fn at_rest<R>(
        &self,
        asker: Option<&Asker>,
        with: impl FnOnce(ProgramState, ServerSnapshot) -> R,
    ) -> Result<R, String> {
        let ceased = upgrade::monotonic_nanos();
        let rest = self.keeper.as_ref().map(|keeper| keeper.rest(PARK_LIMIT)).transpose();
        let rest = rest.map_err(|error| error.to_string())?;
        let state_dir = rest.as_ref().and_then(|rest| {
            Some(StateDirHandOver { directory: rest.directory()?, keeper: rest.snapshot() })
        });
        let program = ProgramState {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            program: self.program.clone().into(),
            started: self.http.started(),
            ceased,
            options: self.active.values().clone(),
            upgrades: self.upgrades,
            lost_lines: 0,
            reload: false,
            pidfile: self.pidfile.as_ref().map(Pidfile::descriptor),
            state_dir,
            control: self.control.as_deref().and_then(ControlSocket::descriptors),
            asker: asker.map(Asker::descriptor),
            http: self.http.descriptors(),
        };
        let parked = self.server.while_parked(PARK_LIMIT, |parked| {
            let server = parked.snapshot()?;
            Ok(with(program, server))
        });
        parked.map_err(|error| error.to_string()).flatten()
    }

    /// Stops the server.
    pub(super) fn stop(self) -> StopOutcome {
        if let Some(control) = &self.control {
            control.remove();
        }
        // The broker is shut first. Otherwise a lock of a connection that is closed now could be
        // granted to one that is closed a moment later.
        self.broker.shut();
        let is_recorded = match self.keeper {
            Some(keeper) => {
                let failed = self.broker.has_failed();
                let unaware = self.server.stop_and_tell(STOP_TELL_LIMIT);
                record_stop(keeper, failed, unaware)
            }
            None => {
                self.server.stop();
                true
            }
        };
        // Last: from then on another server may be active.
        let handed_over = self.member.is_none_or(|member| match member.hand_over() {
            Ok(()) => true,
            Err(error) => {
                log::warn!("the next server must wait for the leader timeout before it takes over: {error}");
                false
            }
        });
        StopOutcome { is_recorded, handed_over }
    }
}

/// How a server has stopped.
pub(super) struct StopOutcome {
    /// Whether everything that the next run must know is recorded.
    pub(super) is_recorded: bool,
    /// Whether no other server of the cluster need wait for the end of this one's time.
    pub(super) handed_over: bool,
}

/// Returns whether everything that the next run must know is recorded.
fn record_stop(keeper: Keeper, failed: bool, unaware: usize) -> bool {
    if failed || unaware > 0 {
        log::warn!(
            "{unaware} clients may not know yet that they have lost their locks: the next run waits for them to find out"
        );
        return true;
    }
    let recorded = keeper.stopped();
    if let Err(error) = &recorded {
        log::error!(
            "this stop cannot be recorded in the state directory, or in etcd, so the next run waits as after a crash: {error}"
        );
    }
    recorded.is_ok()
}

fn tell(asker: Option<&Asker>, progress: &str) {
    if let Some(asker) = asker {
        asker.tell(&Reply::Progress(progress.to_owned()));
    }
}

/// Writes the state and becomes the next version.
///
/// # Errors
/// If that fails.
fn become_next(
    next: &ProgramFile,
    state: &ProgramState,
    server: &ServerSnapshot,
) -> Result<Infallible, String> {
    let mut descriptors = state.descriptors();
    let state = write(state, server)?;
    descriptors.extend(server.descriptors());
    Err(format!("{}: {}", next.path().display(), upgrade::execute(next, &state, &descriptors)))
}

/// Writes the state to a file in memory.
///
/// # Errors
/// If it cannot be written.
fn write(program: &ProgramState, server: &ServerSnapshot) -> Result<OwnedFd, String> {
    let server = encode(server).map_err(|error| error.to_string())?;
    upgrade::write_state(program, &server).map_err(|error| format!("the state cannot be written: {error}"))
}
