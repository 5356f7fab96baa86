//! `lockd serve`: the server as a process, with its pidfile, its user and its signals. The main
//! thread waits for events of all kinds on one channel, and acts on them one after the other.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use lockd::broker::Broker;
use lockd::server::state_dir::{self, Keeper};
use lockd::server::{Bound, Inherited, Server, Service};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use super::configuration;
use super::http::{self, Http, Rules};
use super::logging::{self, LogStyle};
use super::messages::{EXIT_USAGE, exit_with_message};
use super::options::{ServeOptions, Settings};
use super::pidfile::Pidfile;
use super::privileges;
use super::reload::ActiveOptions;
use super::systemd::{self, ServiceManager};
use super::text::harmless;

/// How long a stop waits for clients to acknowledge that they have lost their locks.
const STOP_TELL_LIMIT: Duration = Duration::from_millis(500);
/// The exit status after a clean stop that could not be recorded in the state directory.
const EXIT_NOT_RECORDED: u8 = 3;

/// What the main thread waits for.
enum ServeEvent {
    /// The configuration is to be read again.
    Reload,
    /// The configuration has been read again.
    ReloadRead(Result<Box<Settings>, String>),
    Stop,
    /// The broker has failed.
    Failed,
}

pub(super) fn serve(options: &ServeOptions) -> ExitCode {
    let settings = match configuration::settings(options) {
        Ok(settings) if options.check => return check(&settings),
        Ok(settings) => settings,
        Err(mistake) => return exit_with_message(&mistake, EXIT_USAGE),
    };
    // Before anything is opened, as that function requires.
    let inherited = systemd::inherited_sockets();
    let style = if systemd::logs_to_journal() { LogStyle::Journal } else { LogStyle::Plain };
    if let Err(error) = logging::start(settings.log_level, style) {
        return exit_with_message(&format!("the log cannot be written: {error}"), 1);
    }
    let code = inherited.and_then(|inherited| run(options, settings, inherited)).unwrap_or_else(|error| {
        log::error!("{error}");
        ExitCode::FAILURE
    });
    logging::finish();
    code
}

/// `--check`: prints the warnings that a start would log, and `ok`.
fn check(settings: &Settings) -> ExitCode {
    // If the output cannot be written, the exit status must be enough.
    for warning in settings.config.warnings() {
        let _ = writeln!(io::stderr(), "lockd: warning: {}", harmless(&warning));
    }
    let _ = writeln!(io::stdout(), "ok");
    ExitCode::SUCCESS
}

fn run(options: &ServeOptions, mut settings: Settings, inherited: Vec<Inherited>) -> io::Result<ExitCode> {
    if !inherited.is_empty() && settings.listens_by_default {
        settings.config.listen.clear();
    }
    let (events, received_events) = unbounded();
    // Before anything is created that only an orderly end removes.
    watch_signals(events.clone())?;
    let pidfile = settings.pidfile.as_deref().map(Pidfile::hold).transpose()?;
    privileges::raise_descriptor_limit(settings.config.connections_max);
    let dead_peer_timeout = settings.config.dead_peer_timeout;
    let rules = Rules::new(&settings.config, &settings.http_hosts);
    let http = http::bind(&settings.http)?;
    let bound = Bound::with_inherited(settings.config, inherited)?;
    if let Some(account) = settings.account {
        account.take_over(&bound, settings.state_dir.as_deref())?;
    }
    let (broker, keeper) = match &settings.state_dir {
        Some(directory) => {
            let (broker, keeper) = state_dir::resume(directory, settings.limits, dead_peer_timeout)?;
            (broker, Some(keeper))
        }
        None => (Broker::new(settings.limits), None),
    };
    let server = bound.serve(&broker, Service::locks())?;
    let failed = events.clone();
    server.on_failure(move || {
        // If the main thread does not receive events any more, it is stopping.
        let _ = failed.send(ServeEvent::Failed);
    });
    for address in server.addresses() {
        log::info!("listening on {address}");
    }
    let http = Http::serve(http, &broker, server.stats_reader(), rules)?;
    for address in http.addresses() {
        log::info!("listening on http://{address}");
    }
    let grace = broker.grace();
    if !grace.is_zero() {
        log::warn!(
            "the last run did not stop cleanly: nothing is granted for {} s",
            grace.as_secs_f64().ceil()
        );
    }
    let mut manager = ServiceManager::new();
    manager.notify_ready(&server);
    let active = ActiveOptions::new(settings.given);
    let reload = ReloadState::Idle;
    let mut running =
        RunningServer { options, active, broker, server, http, keeper, manager, events, reload };
    let code = running.wait(&received_events);
    log::info!("stopping");
    running.manager.notify_stopping();
    let is_recorded = running.stop();
    drop(pidfile);
    log::info!("stopped");
    Ok(if is_recorded { code } else { ExitCode::from(EXIT_NOT_RECORDED) })
}

struct RunningServer<'a> {
    options: &'a ServeOptions,
    active: ActiveOptions,
    broker: Broker,
    server: Server,
    http: Http,
    keeper: Option<Keeper>,
    manager: ServiceManager,
    events: Sender<ServeEvent>,
    reload: ReloadState,
}

/// Whether the configuration is being read again.
enum ReloadState {
    Idle,
    Reading,
    /// Another reload was requested in the meantime. The file may have changed after it was read,
    /// so it must be read once more.
    ReadAgain,
}

impl RunningServer<'_> {
    /// Handles events until the server is to stop; the exit status of an orderly stop.
    fn wait(&mut self, events: &Receiver<ServeEvent>) -> ExitCode {
        loop {
            self.manager.beat(&self.broker, &self.server);
            match self.manager.next(events) {
                Ok(ServeEvent::Reload) => match self.reload {
                    ReloadState::Idle => self.read_again(),
                    ReloadState::Reading | ReloadState::ReadAgain => self.reload = ReloadState::ReadAgain,
                },
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
                Ok(ServeEvent::Stop) => return ExitCode::SUCCESS,
                Err(RecvTimeoutError::Timeout) => {}
                Ok(ServeEvent::Failed) | Err(RecvTimeoutError::Disconnected) => return ExitCode::FAILURE,
            }
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
        if let Some(keeper) = &self.keeper {
            let timeout = settings.config.dead_peer_timeout;
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

    /// Stops the server. Returns whether everything that the next run must know is recorded.
    fn stop(self) -> bool {
        // The broker is shut first. Otherwise a lock of a connection that is closed now could be
        // granted to one that is closed a moment later.
        self.broker.shut();
        let Some(keeper) = self.keeper else {
            self.server.stop();
            return true;
        };
        let failed = self.broker.has_failed();
        let unaware = self.server.stop_and_tell(STOP_TELL_LIMIT);
        if failed || unaware > 0 {
            log::warn!(
                "{unaware} clients may not know yet that they have lost their locks: the next run waits for them to find out"
            );
        } else if let Err(error) = keeper.stopped() {
            log::error!(
                "the state directory cannot be written, so the next run waits as after a crash: {error}"
            );
            return false;
        }
        true
    }
}

/// Starts the thread that turns signals into events.
fn watch_signals(events: Sender<ServeEvent>) -> io::Result<()> {
    // The second of these signals ends the process at once. Handlers run in the order of their
    // registration: at the first signal the conditional shutdown finds the flag unset, and the flag
    // is set only after that.
    let stopping = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        flag::register_conditional_shutdown(signal, 1, stopping.clone())?;
        flag::register(signal, stopping.clone())?;
    }
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let send_events = move || {
        for signal in signals.forever() {
            let event = if signal == SIGHUP { ServeEvent::Reload } else { ServeEvent::Stop };
            if events.send(event).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("lockd-signals".to_owned()).spawn(send_events)?;
    Ok(())
}
