//! `lockd serve`: the server as a process, with its pidfile, its user and its signals.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use lockd::broker::Broker;
use lockd::server::{Bound, Inherited, Server, Service};
use lockd::state::{self, Keeper};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use crate::http::{self, Http, Rules};

use super::logging::{self, Style};
use super::options::{ServeOptions, Settings};
use super::pidfile::Pidfile;
use super::privileges;
use super::systemd::{self, Manager};

/// How long clients are given to acknowledge the end, at a stop.
const TELL_LIMIT: Duration = Duration::from_millis(500);

/// What the main thread waits for.
enum Event {
    Reload,
    Stop,
    Failed,
}

pub(super) fn serve(options: &ServeOptions) -> ExitCode {
    let settings = match options.settings() {
        Ok(settings) => settings,
        Err(error) => {
            // There is nobody to tell but the one who reads this.
            let _ = writeln!(io::stderr(), "lockd: {error}");
            return ExitCode::from(2);
        }
    };
    // First of all: see there.
    let inherited = systemd::inherited_sockets();
    let style = if systemd::logs_to_journal() { Style::Journal } else { Style::Plain };
    if let Err(error) = logging::start(settings.log_level, style) {
        let _ = writeln!(io::stderr(), "lockd: the log cannot be written: {error}");
        return ExitCode::FAILURE;
    }
    let code = inherited.and_then(|inherited| run(options, settings, inherited)).unwrap_or_else(|error| {
        log::error!("{error}");
        ExitCode::FAILURE
    });
    logging::finish();
    code
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
    if let Some(user) = &settings.user {
        let as_user = |error: io::Error| io::Error::new(error.kind(), format!("user {user}: {error}"));
        settings.state_dir.as_deref().map(state::prepare).transpose()?;
        privileges::become_user(user, bound.own_addresses(), settings.state_dir.as_deref())
            .map_err(as_user)?;
    }
    let (broker, keeper) = match &settings.state_dir {
        Some(directory) => {
            let (broker, keeper) = state::resume(directory, settings.limits, dead_peer_timeout)?;
            (broker, Some(keeper))
        }
        None => (Broker::new(settings.limits), None),
    };
    let server = bound.serve(&broker, Service::locks())?;
    server.on_failure(move || {
        // The main thread is there to hear it, or is stopping anyway.
        let _ = events.send(Event::Failed);
    });
    for address in server.addresses() {
        log::info!("listening on {address}");
    }
    let http = Http::serve(http, &broker, server.traffic(), rules)?;
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
    let running = Running { options, broker, server, http, keeper, manager };
    let code = running.wait(&happened);
    log::info!("stopping");
    running.manager.tell_stopping();
    running.stop();
    drop(pidfile);
    log::info!("stopped");
    Ok(code)
}

struct Running<'a> {
    options: &'a ServeOptions,
    broker: Broker,
    server: Server,
    http: Http,
    keeper: Option<Keeper>,
    manager: Manager,
}

impl Running<'_> {
    fn wait(&self, happened: &Receiver<Event>) -> ExitCode {
        loop {
            self.manager.beat(&self.broker, &self.server);
            match self.manager.next(happened) {
                Ok(Event::Reload) => {
                    self.manager.tell_reloading();
                    match self.reload() {
                        Ok(()) => log::info!("the configuration has been read again"),
                        Err(error) => {
                            log::error!("the configuration stays as it was: {}", in_one_line(&error))
                        }
                    }
                    self.manager.tell_ready(&self.server);
                }
                Ok(Event::Stop) => return ExitCode::SUCCESS,
                Err(RecvTimeoutError::Timeout) => {}
                Ok(Event::Failed) | Err(RecvTimeoutError::Disconnected) => return ExitCode::FAILURE,
            }
        }
    }

    /// Reads the configuration again. What is wrong with it changes nothing.
    fn reload(&self) -> Result<(), String> {
        let settings = self.options.settings()?;
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
        self.server.reconfigure(settings.config)
    }

    fn stop(self) {
        // First of all nothing is granted any more: no lock of a connection that is closed goes to another
        // one that is about to be.
        self.broker.shut();
        let Some(keeper) = self.keeper else { return self.server.stop() };
        let failed = self.broker.has_failed();
        let untold = self.server.stop_and_tell(TELL_LIMIT);
        if failed || untold > 0 {
            log::warn!(
                "{untold} clients that held locks may not know that they do not: the next run waits for them to find out"
            );
        } else if let Err(error) = keeper.stopped() {
            log::error!("the state directory cannot be written: {error}");
        }
    }
}

/// A mistake in a file comes with the place, drawn in several lines.
fn in_one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
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
