//! `lockd serve`: the server as a process, with its pidfile, its user and its signals. This starts
//! it, or goes on with the server of an earlier version that this program has replaced; `running` is
//! what it does from then on.

use std::io::{self, Write};
use std::net::TcpListener;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender, unbounded};
use lockd::broker::{Broker, Limits, Stats};
use lockd::server::cluster::{ClusterConfig, Member};
use lockd::server::keeper::Keeper;
use lockd::server::snapshot::RestoredServer;
use lockd::server::state_dir;
use lockd::server::{Bound, ControlSocket, Inherited, Server, Service, Upgrades, allow_parking};
use nix::sys::signal::Signal;

use super::cluster_member;
use super::configuration;
use super::control::{self, Asker, Order, Reply};
use super::grace_log::{StoreKind, log_grace};
use super::http::{self, Http, Rules, Shown};
use super::logging::{self, LogStyle};
use super::messages::{EXIT_USAGE, exit_with_message};
use super::options::{ServeOptions, Settings};
use super::pidfile::Pidfile;
use super::privileges;
use super::reload::ActiveOptions;
use super::running::{AtOnce, End, ReloadState, RunningServer, ServeEvent, StopOutcome};
use super::signal_gate::{SignalGate, stops};
use super::systemd::{self, ServiceManager};
use super::text::harmless;
use super::upgrade::{self, Predecessor, StateDirHandOver, SuccessorSettings, UpgradeClaim};

/// The exit status after a clean stop that could not be recorded in the state directory.
const EXIT_NOT_RECORDED: u8 = 3;

pub(super) fn serve(options: &ServeOptions) -> ExitCode {
    if upgrade::is_rehearsal() {
        return upgrade::rehearse(options);
    }
    match Predecessor::find() {
        Ok(None) => start(options),
        Ok(Some(predecessor)) => go_on(options, predecessor),
        Err(error) => exit_with_message(&format!("cannot take over: {error}"), 1),
    }
}

fn start(options: &ServeOptions) -> ExitCode {
    let settings = match configuration::settings(options) {
        Ok(settings) if options.check => return check(&settings),
        Ok(settings) => settings,
        Err(mistake) => return exit_with_message(&mistake, EXIT_USAGE),
    };
    if settings.cluster.is_some()
        && let Err(reason) = ClusterConfig::check_process()
    {
        return exit_with_message(&format!("cluster: {reason}"), EXIT_USAGE);
    }
    // Before anything is opened, as that function requires.
    let inherited = systemd::inherited_sockets();
    with_log(&settings, upgrade::program_path(), |process| {
        let active = ActiveOptions::new(settings.given.clone());
        let served = OpenServer::open(&settings, inherited?, &process.events)?;
        for address in served.server.addresses() {
            log::info!("listening on {address}");
        }
        for address in served.http.addresses() {
            log::info!("listening on http://{address}");
        }
        if let Some(cause) = served.keeper.as_ref().and_then(Keeper::grace_cause) {
            log_grace(cause, served.broker.grace(), StoreKind::Directory);
        }
        process.run(options, active, served, 0)
    })
}

/// Goes on with the server of an earlier version, which this program has replaced in its process.
/// If that is not possible, nothing is served, as after a crash.
fn go_on(options: &ServeOptions, predecessor: Predecessor) -> ExitCode {
    let SuccessorSettings { settings, active, changes } = match predecessor.settings(options) {
        Ok(settings) => settings,
        Err(error) => return exit_with_message(&format!("cannot take over: {error}"), 1),
    };
    let program = PathBuf::from(predecessor.program.program.clone());
    upgrade::set_process_name(&program);
    with_log(&settings, program, |process| {
        let upgrades = predecessor.program.upgrades + 1;
        let reload = predecessor.program.reload;
        logging::add_lost(predecessor.program.lost_lines);
        let taken = TakenOver::from(&settings, predecessor);
        let TakenOver { served, asker, report } =
            taken.map_err(|error| io::Error::new(error.kind(), format!("cannot take over: {error}")))?;
        log::info!("{report}");
        changes.into_iter().for_each(|(level, text)| log::log!(level, "{text}"));
        if let Some(asker) = asker {
            asker.tell(&Reply::Done(report));
        }
        if reload {
            // It cannot fail: the receiver is in the same value.
            let _ = process.events.send(ServeEvent::Reload);
        }
        process.run(options, active, served, upgrades)
    })
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

/// Runs the server while its log is written.
fn with_log(
    settings: &Settings,
    program: PathBuf,
    run: impl FnOnce(ServerProcess) -> io::Result<ExitCode>,
) -> ExitCode {
    // Before there is any thread, as that function requires.
    let process = ServerProcess::new(program);
    let style = if systemd::logs_to_journal() { LogStyle::Journal } else { LogStyle::Plain };
    if let Err(error) = logging::start(settings.log_level, style) {
        return exit_with_message(&format!("the log cannot be written: {error}"), 1);
    }
    let code = process.and_then(run).unwrap_or_else(|error| {
        log::error!("{error}");
        ExitCode::FAILURE
    });
    logging::finish();
    code
}

/// What the process has before it serves anything.
struct ServerProcess {
    events: Sender<ServeEvent>,
    received: Receiver<ServeEvent>,
    signals: SignalGate,
    claim: UpgradeClaim,
    program: PathBuf,
}

impl ServerProcess {
    /// Takes the signals. To be called before there is any other thread, and before anything is
    /// created that only an orderly end removes.
    fn new(program: PathBuf) -> io::Result<Self> {
        let (events, received) = unbounded();
        let claim = UpgradeClaim::default();
        allow_parking()?;
        let (to, own) = (events.clone(), claim.clone());
        let signals = SignalGate::open(move |signal| {
            let event = match signal {
                Signal::SIGHUP => ServeEvent::Reload,
                signal if stops(signal) => ServeEvent::Stop,
                _ if own.take() => ServeEvent::Upgrade(None),
                _ => {
                    log::error!("not upgraded, the server goes on as before: an upgrade is in progress");
                    return true;
                }
            };
            to.send(event).is_ok()
        })?;
        Ok(Self { events, received, signals, claim, program })
    }

    /// Serves until the server is to stop, and stops it.
    fn run(
        self,
        options: &ServeOptions,
        active: ActiveOptions,
        served: OpenServer,
        upgrades: u64,
    ) -> io::Result<ExitCode> {
        let OpenServer { broker, server, http, keeper, member, pidfile, control } = served;
        let failed = self.events.clone();
        server.on_failure(move || {
            // If the main thread does not receive events any more, it is stopping.
            let _ = failed.send(ServeEvent::Failed);
        });
        if let Some(control) = &control {
            let (events, claim) = (self.events.clone(), self.claim.clone());
            control::serve(control.clone(), move |order, asker| {
                // If the main thread does not receive events any more, it is stopping.
                let _ = match order {
                    Order::StandDown => events.send(ServeEvent::StandDown(asker)),
                    Order::Upgrade if claim.take() => events.send(ServeEvent::Upgrade(Some(asker))),
                    Order::Upgrade => {
                        asker.tell(&Reply::Refused("an upgrade is in progress".to_owned()));
                        Ok(())
                    }
                };
            })?;
        }
        let mut manager = ServiceManager::new();
        manager.notify_ready(&server);
        let mut running = RunningServer {
            options,
            active,
            broker,
            server,
            http,
            keeper,
            member,
            manager,
            pidfile,
            control,
            signals: self.signals,
            events: self.events,
            reload: ReloadState::Idle,
            program: self.program,
            upgrades,
            claim: self.claim,
            upgrading: None,
        };
        let end = running.wait(&self.received).unwrap_or_else(|AtOnce(code)| {
            // Nothing more may be said to clients, so there is nothing to wait for but the log.
            logging::finish();
            std::process::exit(code.into())
        });
        log::info!("stopping");
        running.manager.notify_stopping();
        let StopOutcome { is_recorded, handed_over } = running.stop();
        log::info!("stopped");
        let code = match end {
            End::Stopped => ExitCode::SUCCESS,
            End::Failed => ExitCode::FAILURE,
            End::StoodDown(asker) => {
                // If it has not, the log says why.
                if handed_over {
                    asker.tell(&Reply::Done("handed over, to the next server that is there".to_owned()));
                }
                ExitCode::from(cluster_member::EXIT_NOT_ACTIVE)
            }
        };
        Ok(if is_recorded { code } else { ExitCode::from(EXIT_NOT_RECORDED) })
    }
}

/// What is served, and with what.
struct OpenServer {
    broker: Broker,
    server: Server,
    http: Http,
    /// Of a standby only from when on it is the active server.
    keeper: Option<Keeper>,
    member: Option<Member>,
    pidfile: Option<Pidfile>,
    control: Option<Arc<ControlSocket>>,
}

impl OpenServer {
    /// Opens everything, and gives up privileges once all addresses are bound.
    fn open(settings: &Settings, inherited: Vec<Inherited>, events: &Sender<ServeEvent>) -> io::Result<Self> {
        let pidfile = settings.pidfile.as_deref().map(Pidfile::hold).transpose()?;
        privileges::raise_descriptor_limit(settings.config.connections_max);
        let rules = Rules::new(&settings.config, &settings.http_hosts);
        let http = http::bind(&settings.http)?;
        let mut config = settings.config.clone();
        if !inherited.is_empty() && settings.listens_by_default {
            config.listen.clear();
        }
        let bound = Bound::with_inherited(config, inherited)?;
        let control = settings.control.as_deref().map(control::bind).transpose()?;
        if let Some(account) = &settings.account {
            account.take_over(&bound, control.as_ref(), settings.state_dir())?;
        }
        let (broker, server, keeper, member) = match &settings.cluster {
            Some(cluster) => {
                if settings.state_dir.is_some() {
                    log::info!("state-dir is not used: what a run leaves to the next is kept in etcd");
                }
                let (broker, server, member) = join_cluster(cluster, settings.limits, bound, events)?;
                (broker, server, None, Some(member))
            }
            None => {
                let (broker, server, keeper) = serve_alone(settings, bound)?;
                (broker, server, keeper, None)
            }
        };
        let cluster = member.as_ref().map(Member::reader);
        let shown = Shown { broker: broker.clone(), stats: server.stats_reader(), cluster };
        let http = Http::serve(http, shown, rules, SystemTime::now())?;
        Ok(Self { broker, server, http, keeper, member, pidfile, control: control.map(Arc::new) })
    }
}

fn serve_alone(settings: &Settings, bound: Bound) -> io::Result<(Broker, Server, Option<Keeper>)> {
    let (broker, keeper) = match settings.state_dir() {
        Some(directory) => {
            let timeout = settings.config.dead_peer_timeout;
            let (broker, keeper) =
                state_dir::resume(directory, settings.limits, timeout, settings.is_first_start)?;
            (broker, Some(keeper))
        }
        None => (Broker::new(settings.limits), None),
    };
    let resumption = keeper.as_ref().map(Keeper::resumption);
    let server = bound.serve_resumable(&broker, Service::locks(), resumption)?;
    Ok((broker, server, keeper))
}

fn join_cluster(
    cluster: &ClusterConfig,
    limits: Limits,
    bound: Bound,
    events: &Sender<ServeEvent>,
) -> io::Result<(Broker, Server, Member)> {
    let broker = Broker::standby(limits);
    let cluster = cluster_member::with_address(cluster, bound.addresses());
    let server = bound.serve_as_standby(&broker, Service::locks(), cluster.etcd.name())?;
    let events = events.clone();
    // If the main thread does not receive events any more, it is stopping.
    let report = move |event| _ = events.send(ServeEvent::Member(event));
    let member = cluster.join(&broker, &server, report)?;
    Ok((broker, server, member))
}

/// What an earlier version has served until now, and this one serves from now on.
struct TakenOver {
    served: OpenServer,
    /// The client that has asked for the upgrade.
    asker: Option<Asker>,
    /// What was kept, and how long it took.
    report: String,
}

impl TakenOver {
    /// Takes everything over. `settings` are those with which the earlier version has opened it, as
    /// far as a restart would be needed to change them.
    ///
    /// # Errors
    /// If anything cannot be taken over. Then nothing is served.
    fn from(settings: &Settings, predecessor: Predecessor) -> io::Result<Self> {
        let Predecessor { program, server: state } = predecessor;
        privileges::raise_descriptor_limit(settings.config.connections_max);
        let own = |number: &RawFd| upgrade::own(*number);
        let pidfile = match (&settings.pidfile, &program.pidfile) {
            (Some(path), Some(number)) => Some(Pidfile::handed_over(own(number)?, path)),
            _ => None,
        };
        let control = match (&settings.control, &program.control) {
            (Some(path), Some(control)) => Some(Arc::new(control::go_on(path, *control)?)),
            _ => None,
        };
        let asker = program.asker.as_ref().map(own).transpose()?.map(Asker::handed_over);
        let listeners = program.http.iter().map(own).collect::<io::Result<Vec<_>>>()?;
        let tokens_end = program.state_dir.as_ref().map(|state_dir| state_dir.keeper.tokens_end);
        let (connections, lost) = (state.connections(), state.lost_connections().count());
        let tokens_end = tokens_end.unwrap_or(u64::MAX);
        let restored = RestoredServer::new(state, settings.config.clone(), settings.limits, tokens_end)?;
        let broker = restored.broker().clone();
        // If something fails from here on, the connections end. Then a lock of one that has ended
        // must not be granted to one that ends a moment later.
        let shut = |error| {
            broker.shut();
            error
        };
        let keeper = match (&settings.state_dir, &program.state_dir) {
            (Some(path), Some(StateDirHandOver { directory, keeper })) => {
                let keeper =
                    own(directory).and_then(|locked| state_dir::go_on(path, locked, keeper, &broker));
                let keeper = keeper.map_err(shut)?;
                keeper.set_dead_peer_timeout(settings.config.dead_peer_timeout).map_err(shut)?;
                Some(keeper)
            }
            _ => None,
        };
        let kept = kept(connections - lost, lost, &broker.stats());
        let resumption = keeper.as_ref().map(Keeper::resumption);
        let server = restored.serve(Service::locks(), resumption)?;
        let rules = Rules::new(&settings.config, &settings.http_hosts);
        let listeners = listeners.into_iter().map(TcpListener::from).collect();
        let shown = Shown { broker: broker.clone(), stats: server.stats_reader(), cluster: None };
        let http = Http::serve(listeners, shown, rules, program.started).map_err(shut)?;
        let pause = Duration::from_nanos(upgrade::monotonic_nanos().saturating_sub(program.ceased));
        let last = Some((Instant::now(), pause));
        server.set_upgrades(Upgrades { count: program.upgrades + 1, last });
        let report = format!(
            "upgraded from {} to {}: {kept}; nobody was served for {} ms",
            program.version,
            env!("CARGO_PKG_VERSION"),
            pause.as_millis()
        );
        let served = OpenServer { broker, server, http, keeper, member: None, pidfile, control };
        Ok(Self { served, asker, report })
    }
}

/// What was kept, and what was not.
fn kept(connections: usize, lost: usize, stats: &Stats) -> String {
    let count = |number: usize, what: &str| {
        let ending = if number == 1 { "" } else { "s" };
        format!("{number} {what}{ending}")
    };
    let locks = count(stats.locks + stats.shared_locks, "lock");
    let kept =
        format!("kept {}, {locks}, {}", count(connections, "connection"), count(stats.waiting, "wait"));
    match lost {
        0 => kept,
        lost => format!("{kept}; not kept: {} in TLS or a handshake", count(lost, "connection")),
    }
}
