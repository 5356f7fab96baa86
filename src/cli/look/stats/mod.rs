//! `lockd stats`: the server's figures, as people and as monitoring programs want them.
//!
//! - `figures`: what figures there are and what they mean; `formats`: how they are written; `nagios`: whether
//!   they are good.

mod figures;
mod formats;
mod nagios;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::super::at::At;
use super::{Trouble, ask, finish};
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

/// What to show.
#[derive(Args, Debug)]
#[command(after_help = "\
A plugin for Munin is a file with these lines:

  #!/bin/sh
  exec lockd stats --format munin \"$@\"

A check for Nagios: lockd stats --format nagios --warning waiting=20 --critical waiting=100 --critical \
connections=9000. A server that does not answer is critical.")]
pub(in crate::cli) struct StatsOptions {
    /// How to write them
    #[arg(short, long, value_enum, default_value = "text")]
    format: Format,

    /// With --format nagios: a figure above which it is to warn, by the name that --format json has; may be given
    /// several times
    #[arg(long, value_name = "FIGURE=N")]
    warning: Vec<Threshold>,

    /// With --format nagios: a figure above which it is critical
    #[arg(long, value_name = "FIGURE=N")]
    critical: Vec<Threshold>,

    /// With --format munin: `config` describes the graphs, as Munin asks for it
    #[arg(value_name = "ARGUMENT", value_parser = ["config"])]
    argument: Option<String>,

    #[command(flatten)]
    at: At,
}

pub(in crate::cli) fn stats(options: &StatsOptions) -> ExitCode {
    if options.format == Format::Nagios {
        let asked = figures(options).map_err(|trouble| match trouble {
            Trouble::NoReader => String::new(),
            Trouble::Words(words) => words,
        });
        let (code, line) = nagios::judge(&asked, &options.warning, &options.critical);
        // Nobody to tell is no reason for another status.
        let _ = writeln!(io::stdout(), "{line}");
        return ExitCode::from(code);
    }
    finish(show(options))
}

fn figures(options: &StatsOptions) -> Result<Figures, Trouble> {
    let reply = ask(&options.at, "stats", &serde_json::json!({}))?;
    Figures::read(reply.get()).map_err(Trouble::Words)
}

fn show(options: &StatsOptions) -> Result<(), Trouble> {
    let text = match (options.format, &options.argument) {
        (Format::Munin, Some(_)) => formats::munin_config(),
        (_, Some(_)) => return Err(Trouble::Words("config is for --format munin".to_owned())),
        (Format::Text, None) => formats::text(&figures(options)?),
        (Format::Json, None) => formats::json(&figures(options)?),
        (Format::Prometheus, None) => formats::prometheus(&figures(options)?),
        (Format::Munin | Format::Nagios, None) => formats::munin(&figures(options)?),
    };
    Ok(io::stdout().write_all(text.as_bytes())?)
}
