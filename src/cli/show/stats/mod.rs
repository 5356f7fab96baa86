//! `lockd stats`: a server's statistics, for people and for monitoring programs.
//!
//! - `reply` is what a server sends; `formats` writes it; `nagios` compares it with limits. What
//!   each number means comes from the server's own table,
//!   [`STATISTICS`](lockd::server::STATISTICS).

mod formats;
mod nagios;
mod reply;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::thread::Builder;
use std::time::Duration;

use clap::{Args, ValueEnum};
use lockd::client::ServerUrl;

use crate::cli::messages::{EXIT_USAGE, exit_with_message};
use crate::cli::server_option::ServerOption;
use crate::cli::show::{ShowError, Unreachable, ask, finish, servers};
use crate::cli::text::seconds;
use nagios::Threshold;
use reply::StatsReply;

/// How long a check for Nagios takes at most, without `--timeout`.
const NAGIOS_LIMIT: Duration = Duration::from_secs(10);

/// How to write the statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum StatsFormat {
    Text,
    Json,
    /// For a plugin of Munin: a graph of the state and one of the requests
    Munin,
    /// For a plugin of Nagios: one line, and exit status 0, 1, 2 or 3
    Nagios,
    /// Prometheus' text format, for the node exporter's textfile collector
    Prometheus,
}

/// What Munin can ask for in addition to values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum MuninArgument {
    /// The description of the graphs
    Config,
    /// Whether there is a server to watch
    Autoconf,
}

/// What to show.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
A plugin for Munin is a file with these lines; it knows config and autoconf:

  #!/bin/sh
  exec lockd stats --format munin \"$@\"

A check for Nagios: lockd stats --format nagios -w waiting=20 -c waiting=100 -c connections=1:9000. A RANGE is as in \
the Monitoring Plugins Guidelines: 10 is good from 0 to 10, 10: from 10 up, ~:10 up to 10, 10:20 from 10 to 20; @1:5 is \
good outside of 1 to 5. Exit status 0 is OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN. A server that cannot be reached, or does \
not answer in time, is CRITICAL; a mistake in the arguments, or a statistic that the server does not have, is UNKNOWN.

As text, several servers are shown one after the other, and as JSON by their addresses. The other formats are for one \
server.")]
pub(crate) struct StatsOptions {
    /// How to write them
    #[arg(short, long, value_enum, default_value = "text")]
    format: StatsFormat,

    /// With --format nagios: the range in which a statistic causes no warning. Its name is the one
    /// in --format json. May be given several times, once for each statistic
    #[arg(short, long, value_name = "STATISTIC=RANGE")]
    warning: Vec<Threshold>,

    /// With --format nagios: the range in which a statistic is not critical
    #[arg(short, long, value_name = "STATISTIC=RANGE")]
    critical: Vec<Threshold>,

    /// With --format nagios: how long the check may take; without this, 10 s
    #[arg(short, long, value_name = "SECONDS", value_parser = time_limit, allow_negative_numbers = true)]
    timeout: Option<Duration>,

    /// With --format munin: `config` describes the graphs, `autoconf` says whether there is a
    /// server
    #[arg(value_name = "ARGUMENT", value_enum)]
    argument: Option<MuninArgument>,

    #[command(flatten)]
    at: ServerOption,
}

/// A time limit other than zero.
fn time_limit(text: &str) -> Result<Duration, String> {
    let limit = seconds(text)?;
    if limit.is_zero() { Err("must be longer than 0 s".to_owned()) } else { Ok(limit) }
}

pub(crate) fn stats(options: &StatsOptions) -> ExitCode {
    let mistake = mistake(options);
    if options.format == StatsFormat::Nagios {
        let (code, line) = match mistake {
            None => nagios::check(&reply_in_time(options), &options.warning, &options.critical),
            Some(why) => unknown(&why),
        };
        // If nobody reads it, the exit status still says it.
        let _ = writeln!(io::stdout(), "{line}");
        return ExitCode::from(code);
    }
    mistake.map_or_else(|| finish(show(options)), |why| exit_with_message(&why, EXIT_USAGE))
}

const ONE_SERVER: &str = "this format is for one server: give one with --server";

/// Arguments that contradict each other. This is checked before a server is asked, so that Nagios
/// never takes a mistake in the arguments for the state of a server.
fn mistake(options: &StatsOptions) -> Option<String> {
    let has_limits = !options.warning.is_empty() || !options.critical.is_empty() || options.timeout.is_some();
    match (options.format, options.argument) {
        // Munin wants autoconf to exit with 0 also with several servers; then it prints no, and
        // why.
        (StatsFormat::Munin, Some(MuninArgument::Autoconf)) if !has_limits => return None,
        (StatsFormat::Munin, _) | (_, None) => {}
        (_, Some(_)) => return Some("config and autoconf are for --format munin".to_owned()),
    }
    if options.format != StatsFormat::Nagios && has_limits {
        return Some("--warning, --critical and --timeout are for --format nagios".to_owned());
    }
    let twice = nagios::given_twice(&options.warning).or_else(|| nagios::given_twice(&options.critical));
    if let Some(key) = twice {
        return Some(format!("two ranges are given for {key}"));
    }
    let is_for_one = !matches!(options.format, StatsFormat::Text | StatsFormat::Json);
    // A text that is not a list of addresses has been refused by the option already.
    let several = ServerUrl::parse_list(&options.at.urls).is_ok_and(|servers| servers.len() > 1);
    (is_for_one && several).then(|| ONE_SERVER.to_owned())
}

/// Whether these arguments of the program ask for the format of Nagios, even if they are wrong
/// otherwise: then a mistake has the exit status that Nagios expects.
pub(crate) fn is_for_nagios(arguments: &[OsString]) -> bool {
    let is_format = |text: &str| ["--format=nagios", "-fnagios", "-f=nagios"].contains(&text);
    let is_given = |pair: &[OsString]| matches!(pair, [key, value] if (key == "-f" || key == "--format") && value == "nagios");
    arguments.get(1).is_some_and(|command| command == "stats")
        && (arguments.windows(2).any(is_given)
            || arguments.iter().any(|argument| argument.to_str().is_some_and(is_format)))
}

/// The exit status and the line for Nagios if a mistake keeps the check from being made.
pub(crate) fn unknown(why: &str) -> (u8, String) {
    nagios::unknown(why)
}

/// The statistics of the one server, or why there are none. Resolving a name has no time limit, so
/// this is done in a thread that is abandoned if it takes too long.
fn reply_in_time(options: &StatsOptions) -> Result<StatsReply, String> {
    let (tell, told) = crossbeam_channel::bounded(1);
    let asked = options.clone();
    let ask = move || {
        // It fails if the reply comes too late.
        let _ = tell.send(reply_of_one(&asked));
    };
    Builder::new().spawn(ask).map_err(|error| error.to_string())?;
    let limit = options.timeout.unwrap_or(NAGIOS_LIMIT);
    let late = |_| Err(ShowError::Failed(format!("no answer within {} s", limit.as_secs_f64())));
    told.recv_timeout(limit).unwrap_or_else(late).map_err(|error| match error {
        ShowError::NoReader => String::new(),
        ShowError::Failed(why) => why,
    })
}

/// The statistics of the one server.
fn reply_of_one(options: &StatsOptions) -> Result<StatsReply, ShowError> {
    match servers(&options.at)?.as_slice() {
        [only] => reply_of(only).map_err(ShowError::Failed),
        _ => Err(ShowError::Failed(ONE_SERVER.to_owned())),
    }
}

fn reply_of(server: &ServerUrl) -> Result<StatsReply, String> {
    ask(server, "stats", &serde_json::json!({})).and_then(|reply| StatsReply::read(reply.get()))
}

fn show(options: &StatsOptions) -> Result<(), ShowError> {
    let mut unreachable = Unreachable::default();
    let text = match (options.format, options.argument) {
        (StatsFormat::Munin, Some(MuninArgument::Config)) => formats::munin_config(),
        (StatsFormat::Munin, Some(MuninArgument::Autoconf)) => formats::munin_autoconf(reply_of_one(options)),
        (StatsFormat::Text | StatsFormat::Json, _) => several(options, &mut unreachable)?,
        (StatsFormat::Prometheus, _) => formats::prometheus(&reply_of_one(options)?),
        (StatsFormat::Munin | StatsFormat::Nagios, _) => formats::munin(&reply_of_one(options)?),
    };
    io::stdout().write_all(text.as_bytes())?;
    unreachable.into_result()
}

/// The statistics of all servers that answer, as text or JSON.
fn several(options: &StatsOptions, unreachable: &mut Unreachable) -> Result<String, ShowError> {
    let servers = servers(&options.at)?;
    let is_one = servers.len() == 1;
    let mut shown = Vec::new();
    for server in &servers {
        match reply_of(server) {
            Ok(reply) => shown.push((server.to_string(), reply)),
            Err(why) if is_one => return Err(ShowError::Failed(why)),
            Err(why) => unreachable.add(server.as_str(), &why),
        }
    }
    Ok(match (options.format, shown.as_slice()) {
        (StatsFormat::Json, [(_, reply)]) if is_one => formats::json(reply),
        (_, [(_, reply)]) if is_one => formats::text(reply),
        (StatsFormat::Json, _) => formats::json_of_several(&shown),
        _ => formats::text_of_several(&shown),
    })
}
