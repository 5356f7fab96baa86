//! `lockd bench`: puts a server under load, and reports how fast it answers and what that costs it.
//! It knows the protocols by their bytes alone, so that it can measure any server. Without
//! `--server` it starts a lockd and an echo server and measures the two in turn: other work on the
//! machine slows both, so their ratio stays meaningful.
//!
//! - `target`: the server to be measured. `dialect`: the requests and replies of its protocol;
//!   `wrong_port`: the message if it speaks another one. `echo` and `baton`: the servers to compare
//!   with.
//! - `load`: the load, on a number of connections (`connection`); `background`: idle connections
//!   and held locks; `awake`: processors that must not idle.
//! - `measurement`, `usage`: what is measured. `report`: how it is shown.

mod awake;
mod background;
mod baton;
mod connection;
mod dialect;
mod echo;
mod load;
mod measurement;
mod report;
mod target;
mod usage;
mod wrong_port;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use awake::ProcessorsAwake;
pub(super) use baton::serve as serve_baton;
use connection::LoadConnection;
use dialect::BenchProtocol;
pub(super) use echo::serve as serve_echo;
use load::LoadPlan;
use measurement::RoundFigures;
use report::BenchReport;
pub(super) use target::end_with_parent;
use target::{Address, BenchTarget};

use super::privileges::raise_descriptor_limit;

#[derive(Args, Debug)]
#[command(after_help = "\
Each connection acquires a lock and releases it, over and over; it makes its next request as soon as the last one is \
answered. Every reply is checked. The first wrong reply ends the measurement with exit status 1.

To measure a server that already runs, use --server: glockd://127.0.0.1:9999, message+unix:/run/lockd.sock. \
resumable:// is message:// with sessions that resume. For comparison, redis://, memcached://, postgres://, echo:// and baton:// also work.")]
pub(super) struct BenchOptions {
    /// Measure the server at this address: PROTOCOL://HOST:PORT or PROTOCOL+unix:PATH [default:
    /// start a lockd and an echo server, and measure both]
    #[arg(short, long, value_name = "ADDRESS")]
    server: Option<Address>,

    /// Process id of that server, to measure its CPU time and memory
    #[arg(long, value_name = "PID", requires = "server")]
    pid: Option<u32>,

    /// Protocol for the lockd that is started: lockd, glockd or message
    #[arg(short, long, default_value = "glockd", conflicts_with = "server")]
    protocol: BenchProtocol,

    /// Number of connections
    #[arg(short, long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,

    /// Number of requests that each connection has unanswered at a time
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    depth: u32,

    /// Let all connections try to acquire the same lock, over and over
    #[arg(long, conflicts_with_all = ["depth", "contended"])]
    one_name: bool,

    /// Let all connections wait in the queue of the same lock, and measure the time from one
    /// holder's release to the next one's grant. The echo server's figures are then round trips on
    /// one connection, and a third server passes a baton on among as many connections, without any
    /// rules
    #[arg(long, conflicts_with = "depth")]
    contended: bool,

    /// Keep all processors from idling, with busy threads of the lowest priority: to wake an idle
    /// processor can take longer than a request
    #[arg(long)]
    awake: bool,

    /// How long each lock is held
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 0.0, value_parser = not_negative)]
    hold: f64,

    /// Number of further connections, each of which holds one lock and is idle
    #[arg(long, value_name = "N", default_value_t = 0)]
    idle: u64,

    /// Number of further locks that are held during the measurement
    #[arg(long, value_name = "N", default_value_t = 0)]
    held: u64,

    /// Length of each round
    #[arg(short = 't', long, value_name = "SECONDS", default_value_t = 2.0, value_parser = positive)]
    seconds: f64,

    /// Number of rounds; in each, every server is measured once
    #[arg(short, long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Print the figures as JSON
    #[arg(long)]
    json: bool,

    /// Options for the lockd that is started
    #[arg(last = true, value_name = "OPTION", conflicts_with = "server")]
    options: Vec<String>,
}

fn positive(text: &str) -> Result<f64, String> {
    let number = not_negative(text)?;
    if number > 0.0 { Ok(number) } else { Err("too short to measure anything".to_owned()) }
}

fn not_negative(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|error| format!("{error}"))?;
    if (0.0..=1e9).contains(&number) { Ok(number) } else { Err("not from 0 to a billion".to_owned()) }
}

pub(super) fn bench(options: &BenchOptions) -> ExitCode {
    let result = measure(options).and_then(|report| {
        let mut out = io::stdout().lock();
        let written = if options.json { report.write_json(&mut out) } else { report.write_text(&mut out) };
        written.map_err(|error| error.to_string())
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "lockd: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(options: &BenchOptions) -> Result<BenchReport, String> {
    let descriptors = u64::from(options.connections).saturating_add(options.idle);
    raise_descriptor_limit(usize::try_from(descriptors).unwrap_or(usize::MAX));
    let targets = options.targets()?;
    let _awake = options.awake.then(ProcessorsAwake::new).transpose().map_err(|error| error.to_string())?;
    // Kept to the end: dropping a connection releases its locks.
    let _background: Vec<Vec<LoadConnection>> =
        targets.iter().map(|target| options.background(target)).collect::<Result<_, _>>()?;
    let mut rounds: Vec<Vec<RoundFigures>> = targets.iter().map(|_| Vec::new()).collect();
    for _ in 0..options.rounds {
        for (target, figures) in targets.iter().zip(&mut rounds) {
            figures.push(options.figures(target)?);
        }
    }
    let names = targets.iter().map(|target| target.name.clone());
    Ok(BenchReport::new(options.title(&targets), names.zip(rounds)))
}

impl BenchOptions {
    fn plan(&self) -> LoadPlan {
        let length = Duration::from_secs_f64(self.seconds);
        LoadPlan {
            connections: self.connections as usize,
            depth: self.depth as usize,
            one_name: self.one_name || self.contended,
            wait: self.contended,
            hold: Duration::from_secs_f64(self.hold / 1000.0),
            warm_up: length / 10,
            length,
        }
    }

    fn figures(&self, target: &BenchTarget) -> Result<RoundFigures, String> {
        let plan = self.plan();
        if target.address.protocol != BenchProtocol::Echo {
            return Ok(load::run(target, &plan)?.figures());
        }
        // An echo server knows no locks, so it has nothing to wait for.
        let uncontended = LoadPlan { one_name: false, wait: false, ..plan };
        if !plan.wait {
            return Ok(load::run(target, &uncontended)?.figures());
        }
        // A hand-over is one message to the server and one back, as is a round trip on one
        // connection: the two can be compared.
        let figures = load::run(target, &LoadPlan { connections: 1, ..uncontended })?.figures();
        Ok(RoundFigures {
            hand_overs_per_second: figures.requests_per_second,
            hand_over: Some(figures.latency),
            ..figures
        })
    }

    fn targets(&self) -> Result<Vec<BenchTarget>, String> {
        if let Some(address) = &self.server {
            return Ok(vec![BenchTarget::at(address.clone(), self.pid)]);
        }
        if !matches!(self.protocol, BenchProtocol::Lockd | BenchProtocol::Glockd | BenchProtocol::Message) {
            return Err(format!("lockd does not speak {}: give --server", self.protocol));
        }
        let mut targets =
            vec![BenchTarget::start_lockd(self.protocol, &self.options), BenchTarget::start_echo()];
        if self.contended {
            targets.push(BenchTarget::start_baton());
        }
        targets.into_iter().collect::<Result<_, _>>().map_err(|error| error.to_string())
    }

    fn background(&self, target: &BenchTarget) -> Result<Vec<LoadConnection>, String> {
        let text = |error| target.error_text(&error);
        let mut connections = background::hold_idle(target, self.idle).map_err(text)?;
        connections.extend(background::hold_many(target, self.held).map_err(text)?);
        Ok(connections)
    }

    fn title(&self, targets: &[BenchTarget]) -> String {
        let protocol = targets.first().map_or(self.protocol, |target| target.address.protocol);
        let names = match (self.contended, self.one_name) {
            (true, _) => "waiting for one name",
            (_, true) => "trying for one name",
            _ => "a name of its own for each request",
        };
        let mut title = format!("{protocol}: {} connections, {} deep, {names}", self.connections, self.depth);
        for (what, count) in [("idle connections", self.idle), ("locks held", self.held)] {
            if count > 0 {
                title += &format!(", plus {count} {what}");
            }
        }
        if self.hold > 0.0 {
            title += &format!(", held for {} ms", self.hold);
        }
        if self.awake {
            title += ", processors kept awake";
        }
        title + &format!("; median of {} rounds of {} s", self.rounds, self.seconds)
    }
}
