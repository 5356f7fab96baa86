//! `lockd bench`: puts a server under load and says how fast it answers and what that costs it. Without a
//! server to measure it starts a lockd, and beside it a server that does nothing but repeat lines, and
//! measures both by turns: what a busy machine does to one of them it does to the other, and their ratio
//! stands.

mod account;
mod bystanders;
mod dialect;
pub(super) mod echo;
mod load;
mod pipe;
mod report;
mod tally;
mod target;
mod wrong_port;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use load::Plan;
use pipe::Pipe;
use report::Report;
use tally::Figures;
use target::{Address, Protocol, Target};

use super::privileges::raise_descriptor_limit;

/// In the environment of a server that is to end with the process that started it: that one's process id.
const PARENT: &str = "LOCKD_BENCH_PARENT";

/// What to measure.
#[derive(Args, Debug)]
#[command(after_help = "\
Each connection acquires a lock, releases it, and again, each time as soon as it has been answered. \
Every reply is checked, and the first that is wrong ends it all with exit status 1.

Give --server for one that is there already: glockd://127.0.0.1:9999, message+unix:/run/lockd.sock. \
For comparison redis://, memcached://, postgres:// and echo:// are understood, too.")]
pub(super) struct BenchOptions {
    /// Measure the server there: PROTOCOL://HOST:PORT or PROTOCOL+unix:PATH [default: a lockd of its own, and
    /// an echo server beside it]
    #[arg(short, long, value_name = "ADDRESS")]
    server: Option<Address>,

    /// The process of that server, for its CPU time and memory
    #[arg(long, value_name = "PID", requires = "server")]
    pid: Option<u32>,

    /// What to speak with a lockd of its own: lockd, glockd or message
    #[arg(short, long, default_value = "glockd", conflicts_with = "server")]
    protocol: Protocol,

    /// Connections
    #[arg(short, long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    connections: u32,

    /// Requests that each connection has under way at a time
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    depth: u32,

    /// Let all try for one and the same lock, again and again until they get it
    #[arg(long, conflicts_with_all = ["depth", "contended"])]
    one_name: bool,

    /// Let all wait in the queue for one and the same lock, and measure how long it takes from the release
    /// by one to the grant to the next; the echo server's figures are then round trips on one connection
    #[arg(long, conflicts_with = "depth")]
    contended: bool,

    /// How long to hold each lock
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 0.0, value_parser = not_negative)]
    hold: f64,

    /// Connections beside these that hold a lock each and do nothing
    #[arg(long, value_name = "N", default_value_t = 0)]
    idle: u64,

    /// Locks beside these that are held meanwhile
    #[arg(long, value_name = "N", default_value_t = 0)]
    held: u64,

    /// How long to measure in each round
    #[arg(short = 't', long, value_name = "SECONDS", default_value_t = 2.0, value_parser = positive)]
    seconds: f64,

    /// How often to measure each server, by turns
    #[arg(short, long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Write the figures as JSON
    #[arg(long)]
    json: bool,

    /// Options for the lockd of its own
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

/// Lets this process end when the one that started it does, however that ends.
pub(super) fn end_with_parent() {
    // Should the kernel refuse, a server may stay behind that is not ended properly: no reason not to measure.
    let _ = set_parent_process_death_signal(Some(Signal::KILL));
    // It may have ended before that.
    let parent = getppid().map(|pid| pid.as_raw_nonzero().to_string());
    if std::env::var(PARENT).ok().is_some_and(|expected| Some(expected) != parent) {
        std::process::exit(1);
    }
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

fn measure(options: &BenchOptions) -> Result<Report, String> {
    let descriptors = u64::from(options.connections).saturating_add(options.idle);
    raise_descriptor_limit(usize::try_from(descriptors).unwrap_or(usize::MAX));
    let targets = options.targets()?;
    // Kept to the end: they hold what they hold.
    let _bystanders: Vec<Vec<Pipe>> =
        targets.iter().map(|target| options.bystanders(target)).collect::<Result<_, _>>()?;
    let mut rounds: Vec<Vec<Figures>> = targets.iter().map(|_| Vec::new()).collect();
    for _ in 0..options.rounds {
        for (target, figures) in targets.iter().zip(&mut rounds) {
            figures.push(options.figures(target)?);
        }
    }
    let names = targets.iter().map(|target| target.name.clone());
    Ok(Report::new(options.title(&targets), names.zip(rounds)))
}

impl BenchOptions {
    fn plan(&self) -> Plan {
        let length = Duration::from_secs_f64(self.seconds);
        Plan {
            connections: self.connections as usize,
            depth: self.depth as usize,
            one_name: self.one_name || self.contended,
            wait: self.contended,
            hold: Duration::from_secs_f64(self.hold / 1000.0),
            warm_up: length / 10,
            length,
        }
    }

    /// The figures of one round.
    fn figures(&self, target: &Target) -> Result<Figures, String> {
        let plan = self.plan();
        if target.address.protocol != Protocol::Echo {
            return Ok(load::run(target, &plan)?.figures());
        }
        // It knows no names, so nobody is in another's way.
        let unhindered = Plan { one_name: false, wait: false, ..plan };
        if !plan.wait {
            return Ok(load::run(target, &unhindered)?.figures());
        }
        // A release has to get there, and the grant back to another: what a hand-over is to be compared
        // with is a round trip on one connection.
        let figures = load::run(target, &Plan { connections: 1, ..unhindered })?.figures();
        Ok(Figures {
            hand_overs_per_second: figures.requests_per_second,
            hand_over: Some(figures.latency),
            ..figures
        })
    }

    fn targets(&self) -> Result<Vec<Target>, String> {
        if let Some(address) = &self.server {
            return Ok(vec![Target::at(address.clone(), self.pid)]);
        }
        if !matches!(self.protocol, Protocol::Lockd | Protocol::Glockd | Protocol::Message) {
            return Err(format!("{} is not a protocol of lockd's: give --server", self.protocol));
        }
        let lockd = Target::own_lockd(self.protocol, &self.options).map_err(|error| error.to_string())?;
        let echo = Target::own_echo().map_err(|error| error.to_string())?;
        Ok(vec![lockd, echo])
    }

    fn bystanders(&self, target: &Target) -> Result<Vec<Pipe>, String> {
        let said = |error| target.failed(&error);
        let mut bystanders = bystanders::hold_idle(target, self.idle).map_err(said)?;
        bystanders.extend(bystanders::hold_many(target, self.held).map_err(said)?);
        Ok(bystanders)
    }

    fn title(&self, targets: &[Target]) -> String {
        let protocol = targets.first().map_or(self.protocol, |target| target.address.protocol);
        let names = match (self.contended, self.one_name) {
            (true, _) => "waiting for one name",
            (_, true) => "trying for one name",
            _ => "each its own names",
        };
        let mut title = format!("{protocol}: {} connections, {} deep, {names}", self.connections, self.depth);
        for (what, count) in [("idle connections", self.idle), ("locks held", self.held)] {
            if count > 0 {
                title += &format!(", {count} {what} beside");
            }
        }
        if self.hold > 0.0 {
            title += &format!(", held for {} ms", self.hold);
        }
        title + &format!("; median of {} rounds of {} s", self.rounds, self.seconds)
    }
}
