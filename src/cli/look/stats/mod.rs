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
use std::sync::mpsc::channel;
use std::thread::Builder;
use std::time::Duration;

use clap::{Args, ValueEnum};
use lockd::client::ServerUrl;
use serde_json::value::RawValue;

use super::super::at::At;
use super::super::text::seconds;
use super::{Gone, Trouble, ask_each, finish};
use figures::Figures;
use nagios::Threshold;

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
    /// that --format json has; may be given several times
    #[arg(short, long, value_name = "FIGURE=RANGE")]
    warning: Vec<Threshold>,

    /// With --format nagios: in what range a figure must be so that it is not critical
    #[arg(short, long, value_name = "FIGURE=RANGE")]
    critical: Vec<Threshold>,

    /// With --format nagios: how long all of it may take
    #[arg(short, long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    timeout: Duration,

    /// With --format munin: `config` describes the graphs, `autoconf` says whether there is a server, as Munin asks
    /// for it
    #[arg(value_name = "ARGUMENT", value_enum)]
    argument: Option<Argument>,

    #[command(flatten)]
    at: At,
}

pub(in crate::cli) fn stats(options: &StatsOptions) -> ExitCode {
    if options.format == Format::Nagios {
        let (code, line) = match options.argument {
            None => nagios::judge(&figures_in_time(options), &options.warning, &options.critical),
            Some(_) => unknown(OF_MUNIN),
        };
        // Nobody to tell is no reason for another status.
        let _ = writeln!(io::stdout(), "{line}");
        return ExitCode::from(code);
    }
    finish(show(options))
}

const OF_MUNIN: &str = "config and autoconf are for --format munin";

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
    let (tell, told) = channel();
    let asked = options.clone();
    let ask = move || {
        // Nobody listens any more if it comes too late.
        let _ = tell.send(figures(&asked));
    };
    Builder::new().spawn(ask).map_err(|error| error.to_string())?;
    let late = |_| Err(Trouble::Words(format!("no answer within {} s", options.timeout.as_secs_f64())));
    told.recv_timeout(options.timeout).unwrap_or_else(late).map_err(|trouble| match trouble {
        Trouble::NoReader => String::new(),
        Trouble::Words(words) => words,
    })
}

/// The figures of the one server.
fn figures(options: &StatsOptions) -> Result<Figures, Trouble> {
    let mut all = figures_of_each(options)?;
    match (all.pop(), all.pop()) {
        (Some((_, figures)), None) => figures.map_err(Trouble::Words),
        _ => Err(Trouble::Words(
            "in this format one server is asked at a time: give one with --server".to_owned(),
        )),
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
        (_, Some(_)) => return Err(Trouble::Words(OF_MUNIN.to_owned())),
        (Format::Text | Format::Json, None) => several(options, &mut gone)?,
        (Format::Prometheus, None) => formats::prometheus(&figures(options)?),
        (Format::Munin | Format::Nagios, None) => formats::munin(&figures(options)?),
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
