//! `lockd serve`: the server as a process, with its pidfile, its user and its signals.

use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use lockd::broker::Broker;
use lockd::server::state_dir::{self, Keeper};
use lockd::server::{Bound, Inherited, Server, Service};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use crate::cli::http::{self, Http, Rules};

use super::complaint::{MISTAKE, complain};
use super::logging::{self, Style};
use super::options::{ServeOptions, Settings};
use super::pidfile::Pidfile;
use super::privileges;
use super::reload::InEffect;
use super::sources;
use super::systemd::{self, Manager};
use super::text::harmless;

/// How long clients are given to acknowledge the end, at a stop.
const TELL_LIMIT: Duration = Duration::from_millis(500);
/// The exit status after a clean stop that could not be noted in the state directory.
const NOT_NOTED: u8 = 3;

/// What the main thread waits for.
enum Event {
    Reload,
    /// What has been read for a reload.
    Read(Result<Box<Settings>, String>),
    Stop,
    Failed,
}

pub(super) fn serve(options: &ServeOptions) -> ExitCode {
    let settings = match sources::settings(options) {
        Ok(settings) if options.check => return check(&settings),
        Ok(settings) => settings,
        Err(mistake) => return complain(&mistake, MISTAKE),
    };
    // First of all: see there.
    let inherited = systemd::inherited_sockets();
    let style = if systemd::logs_to_journal() { Style::Journal } else { Style::Plain };
    if let Err(error) = logging::start(settings.log_level, style) {
        return complain(&format!("the log cannot be written: {error}"), 1);
    }
    let code = inherited.and_then(|inherited| run(options, settings, inherited)).unwrap_or_else(|error| {
        log::error!("{error}");
        ExitCode::FAILURE
    });
    logging::finish();
    code
}

/// Says whether a server could be started with these settings, as far as that can be known without doing anything.
fn check(settings: &Settings) -> ExitCode {
    // Nobody to tell is no reason for another status.
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
    let (events, happened) = channel();
    // Before anything is made that an orderly end removes.
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
        // The main thread is there to hear it, or is stopping anyway.
        let _ = failed.send(Event::Failed);
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
    let manager = Manager::new();
    manager.tell_ready(&server);
    let in_effect = RefCell::new(InEffect::new(settings.given));
    let reading = Cell::new(Reading::Nothing);
    let running = Running { options, in_effect, broker, server, http, keeper, manager, events, reading };
    let code = running.wait(&happened);
    log::info!("stopping");
    running.manager.tell_stopping();
    let noted = running.stop();
    drop(pidfile);
    log::info!("stopped");
    Ok(if noted { code } else { ExitCode::from(NOT_NOTED) })
}

struct Running<'a> {
    options: &'a ServeOptions,
    in_effect: RefCell<InEffect>,
    broker: Broker,
    server: Server,
    http: Http,
    keeper: Option<Keeper>,
    manager: Manager,
    events: Sender<Event>,
    reading: Cell<Reading>,
}

/// Whether the configuration is being read again.
#[derive(Clone, Copy)]
enum Reading {
    Nothing,
    Once,
    /// It was asked for once more meanwhile, and may have changed after it was read.
    OnceMore,
}

impl Running<'_> {
    fn wait(&self, happened: &Receiver<Event>) -> ExitCode {
        loop {
            self.manager.beat(&self.broker, &self.server);
            match self.manager.next(happened) {
                Ok(Event::Reload) => match self.reading.get() {
                    Reading::Nothing => self.read(),
                    Reading::Once | Reading::OnceMore => self.reading.set(Reading::OnceMore),
                },
                Ok(Event::Read(settings)) => {
                    match settings.and_then(|settings| self.reload(*settings)) {
                        Ok(()) => log::info!("the configuration has been read again"),
                        Err(error) => log::error!("the configuration stays as it was: {error}"),
                    }
                    self.manager.tell_ready(&self.server);
                    if let Reading::OnceMore = self.reading.replace(Reading::Nothing) {
                        self.read();
                    }
                }
                Ok(Event::Stop) => return ExitCode::SUCCESS,
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Event::Failed) | Err(RecvTimeoutError::Disconnected) => return ExitCode::FAILURE,
            }
        }
    }

    /// Has the configuration read again, by a thread: a file may be on a file server that hangs, and meanwhile the
    /// server must stop when it is told to, and give its service manager signs of life.
    fn read(&self) {
        self.manager.tell_reloading();
        self.reading.set(Reading::Once);
        let (options, events) = (self.options.clone(), self.events.clone());
        let work = move || {
            // If nobody is there to hear it any more, the server has stopped.
            let _ = events.send(Event::Read(sources::settings(&options).map(Box::new)));
        };
        if let Err(error) = std::thread::Builder::new().name("lockd-reload".to_owned()).spawn(work) {
            // The main thread is this one: it hears it.
            let _ = self.events.send(Event::Read(Err(error.to_string())));
        }
    }

    /// Puts into effect what has been read. What is wrong with it changes nothing.
    fn reload(&self, settings: Settings) -> Result<(), String> {
        // Before anything changes.
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
        // Last, so that what is told has happened; and where the level was lowered, it is not seen, as was asked for.
        for change in self.in_effect.borrow_mut().reload(settings.given) {
            if change.takes_restart { log::warn!("{}", change.text) } else { log::info!("{}", change.text) }
        }
        Ok(())
    }

    /// Says whether all is noted that the next run must know.
    fn stop(self) -> bool {
        // First of all nothing is granted any more: no lock of a connection that is closed goes to another
        // one that is about to be.
        self.broker.shut();
        let Some(keeper) = self.keeper else {
            self.server.stop();
            return true;
        };
        let failed = self.broker.has_failed();
        let untold = self.server.stop_and_tell(TELL_LIMIT);
        if failed || untold > 0 {
            log::warn!(
                "{untold} clients that held locks may not know that they do not: the next run waits for them to find out"
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

fn watch_signals(events: Sender<Event>) -> io::Result<()> {
    // The second of these ends the process at once: the flag is down when the first one comes, and up
    // from then on. The order of registration is what makes it so.
    let stopping = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        flag::register_conditional_shutdown(signal, 1, stopping.clone())?;
        flag::register(signal, stopping.clone())?;
    }
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
    let pass_on = move || {
        for signal in signals.forever() {
            let event = if signal == SIGHUP { Event::Reload } else { Event::Stop };
            if events.send(event).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("lockd-signals".to_owned()).spawn(pass_on)?;
    Ok(())
}
