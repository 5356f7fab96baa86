//! `lockd stats`: the server's figures, as people and as monitoring programs want them.
//!
//! - `figures`: what figures there are and what they mean; `formats`: how they are written; `nagios`: whether
//!   they are good.

mod figures;
mod formats;
mod nagios;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::thread::Builder;
use std::time::Duration;

use clap::{Args, ValueEnum};
use lockd::client::ServerUrl;
use serde_json::value::RawValue;

use crate::cli::messages::{EXIT_USAGE, exit_with_message};
use crate::cli::server_option::ServerOption as At;
use crate::cli::show::{Gone, Trouble, ask_each, finish};
use crate::cli::text::seconds;
use figures::Figures;
use nagios::Threshold;

/// How long Nagios is kept waiting, unless it says so itself.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How to write the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
    /// For a plugin of Munin: a graph of what there is and one of what is done
    Munin,
    /// For a plugin of Nagios: one line, and exit status 0, 1, 2 or 3
    Nagios,
    /// Prometheus' text format, for the node exporter's textfile collector
    Prometheus,
}

/// What Munin can ask for beside values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Argument {
    /// The graphs
    Config,
    /// Whether there is a server to ask
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
not answer in time, is CRITICAL; an argument or a figure that makes no sense is UNKNOWN.

Several servers are shown one after the other as text, and as JSON by their addresses; the other formats are for one.")]
pub(in crate::cli) struct StatsOptions {
    /// How to write them
    #[arg(short, long, value_enum, default_value = "text")]
    format: Format,

    /// With --format nagios: in what range a figure must be so that there is no warning. The figure goes by the name
    /// that --format json has; may be given several times, once for each figure
    #[arg(short, long, value_name = "FIGURE=RANGE")]
    warning: Vec<Threshold>,

    /// With --format nagios: in what range a figure must be so that it is not critical
    #[arg(short, long, value_name = "FIGURE=RANGE")]
    critical: Vec<Threshold>,

    /// With --format nagios: how long all of it may take; without this, 10 s
    #[arg(short, long, value_name = "SECONDS", value_parser = time_limit, allow_negative_numbers = true)]
    timeout: Option<Duration>,

    /// With --format munin: `config` describes the graphs, `autoconf` says whether there is a server, as Munin asks
    /// for it
    #[arg(value_name = "ARGUMENT", value_enum)]
    argument: Option<Argument>,

    #[command(flatten)]
    at: At,
}

/// A time in which an answer can come.
fn time_limit(text: &str) -> Result<Duration, String> {
    let limit = seconds(text)?;
    if limit.is_zero() { Err("in no time there is no answer".to_owned()) } else { Ok(limit) }
}

pub(in crate::cli) fn stats(options: &StatsOptions) -> ExitCode {
    let mistake = mistake(options);
    if options.format == Format::Nagios {
        let (code, line) = match mistake {
            None => nagios::judge(&figures_in_time(options), &options.warning, &options.critical),
            Some(words) => unknown(&words),
        };
        // Nobody to tell is no reason for another status.
        let _ = writeln!(io::stdout(), "{line}");
        return ExitCode::from(code);
    }
    mistake.map_or_else(|| finish(show(options)), |words| exit_with_message(&words, EXIT_USAGE))
}

const ONE_SERVER: &str = "in this format one server is asked at a time: give one with --server";

/// What makes no sense in these arguments together. Found before a server is asked, so that it is never taken for the
/// state of one.
fn mistake(options: &StatsOptions) -> Option<String> {
    let has_limits = !options.warning.is_empty() || !options.critical.is_empty() || options.timeout.is_some();
    match (options.format, options.argument) {
        // It answers with an exit status of 0 in any case.
        (Format::Munin, Some(Argument::Autoconf)) if !has_limits => return None,
        (Format::Munin, _) | (_, None) => {}
        (_, Some(_)) => return Some("config and autoconf are for --format munin".to_owned()),
    }
    if options.format != Format::Nagios && has_limits {
        return Some("--warning, --critical and --timeout are for --format nagios".to_owned());
    }
    let twice = nagios::given_twice(&options.warning).or_else(|| nagios::given_twice(&options.critical));
    if let Some(figure) = twice {
        return Some(format!("two ranges are given for {figure}"));
    }
    let is_for_one = !matches!(options.format, Format::Text | Format::Json);
    // Text that is no list of addresses has been refused already.
    let several = ServerUrl::parse_list(&options.at.urls).is_ok_and(|servers| servers.len() > 1);
    (is_for_one && several).then(|| ONE_SERVER.to_owned())
}

/// Whether these arguments of the program are for Nagios, also if they make no sense otherwise: for it, a mistake has a
/// status of its own.
pub(in crate::cli) fn is_for_nagios(arguments: &[OsString]) -> bool {
    let is_format = |text: &str| ["--format=nagios", "-fnagios", "-f=nagios"].contains(&text);
    let is_given = |pair: &[OsString]| matches!(pair, [key, value] if (key == "-f" || key == "--format") && value == "nagios");
    arguments.get(1).is_some_and(|command| command == "stats")
        && (arguments.windows(2).any(is_given)
            || arguments.iter().any(|argument| argument.to_str().is_some_and(is_format)))
}

/// The exit status and the line for Nagios when a mistake keeps everything from being known.
pub(in crate::cli) fn unknown(words: &str) -> (u8, String) {
    nagios::unknown(words)
}

/// The figures of the one server, or why there are none. A resolver takes its time whatever limit there is, so this is
/// done in a thread that may be left behind.
fn figures_in_time(options: &StatsOptions) -> Result<Figures, String> {
    let (tell, told) = crossbeam_channel::bounded(1);
    let asked = options.clone();
    let ask = move || {
        // Nobody listens any more if it comes too late.
        let _ = tell.send(figures(&asked));
    };
    Builder::new().spawn(ask).map_err(|error| error.to_string())?;
    let limit = options.timeout.unwrap_or(TIMEOUT);
    let late = |_| Err(Trouble::Words(format!("no answer within {} s", limit.as_secs_f64())));
    told.recv_timeout(limit).unwrap_or_else(late).map_err(|trouble| match trouble {
        Trouble::NoReader => String::new(),
        Trouble::Words(words) => words,
    })
}

/// The figures of the one server.
fn figures(options: &StatsOptions) -> Result<Figures, Trouble> {
    let mut all = figures_of_each(options)?;
    match (all.pop(), all.pop()) {
        (Some((_, figures)), None) => figures.map_err(Trouble::Words),
        _ => Err(Trouble::Words(ONE_SERVER.to_owned())),
    }
}

/// A server's address, and its figures, or why there are none.
type FiguresOf = (String, Result<Figures, String>);

fn figures_of_each(options: &StatsOptions) -> Result<Vec<FiguresOf>, Trouble> {
    let replies = ask_each(&options.at, "stats", &serde_json::json!({}))?;
    let read = |(server, reply): (ServerUrl, Result<Box<RawValue>, String>)| {
        (server.to_string(), reply.and_then(|reply| Figures::read(reply.get())))
    };
    Ok(replies.into_iter().map(read).collect())
}

fn show(options: &StatsOptions) -> Result<(), Trouble> {
    let mut gone = Gone::default();
    let text = match (options.format, options.argument) {
        (Format::Munin, Some(Argument::Config)) => formats::munin_config(),
        (Format::Munin, Some(Argument::Autoconf)) => formats::munin_autoconf(figures(options)),
        (Format::Text | Format::Json, _) => several(options, &mut gone)?,
        (Format::Prometheus, _) => formats::prometheus(&figures(options)?),
        (Format::Munin | Format::Nagios, _) => formats::munin(&figures(options)?),
    };
    io::stdout().write_all(text.as_bytes())?;
    gone.tell()
}

/// The figures of all the servers that answer.
fn several(options: &StatsOptions, gone: &mut Gone) -> Result<String, Trouble> {
    let all = figures_of_each(options)?;
    let is_one = all.len() == 1;
    let mut shown = Vec::new();
    for (server, figures) in all {
        match figures {
            Ok(figures) => shown.push((server, figures)),
            Err(why) if is_one => return Err(Trouble::Words(why)),
            Err(why) => gone.add(&server, &why),
        }
    }
    Ok(match (options.format, shown.as_slice()) {
        (Format::Json, [(_, figures)]) if is_one => formats::json(figures),
        (_, [(_, figures)]) if is_one => formats::text(figures),
        (Format::Json, _) => formats::json_of_several(&shown),
        _ => formats::text_of_several(&shown),
    })
}
