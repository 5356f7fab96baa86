//! The command line: arguments, configuration, signals, and output for people. Everything else is the
//! library's.

mod at;
mod bench;
mod complaint;
mod documents;
mod http;
mod logging;
mod options;
mod pidfile;
mod privileges;
mod reload;
mod run;
mod serve;
mod show;
mod sources;
mod systemd;
mod text;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use bench::BenchOptions;
use documents::{CompletionsOptions, ManOptions};
use options::ServeOptions;
use run::RunOptions;
use show::{InspectOptions, KickOptions, ListOptions, StatsOptions, WatchOptions};

/// A lock broker: named locks, held only by processes that are still there.
#[derive(Parser)]
#[command(name = "lockd", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: ServeOptions,
}

#[derive(Subcommand)]
enum Command {
    /// Serve locks to the network (what lockd does without a command, too)
    Serve(ServeOptions),
    /// Run a command while holding a lock
    Run(RunOptions),
    /// List locks, who holds them, and how many wait
    List(ListOptions),
    /// Show a lock, who holds it, who waits for it, and why
    Inspect(InspectOptions),
    /// Show locks in the terminal as they come and go
    Watch(WatchOptions),
    /// Show the server's figures, for people or for monitoring
    Stats(StatsOptions),
    /// End a client's connection
    Kick(KickOptions),
    /// Measure a server under load: requests a second, latencies, CPU time, memory
    Bench(BenchOptions),
    /// Write the completions for a shell, to be sourced or installed
    Completions(CompletionsOptions),
    /// Write the manual pages
    #[command(hide = true)]
    Man(ManOptions),
    /// The same as `serve` for as long as `bench`, which starts it, is there
    #[command(hide = true)]
    BenchServe(ServeOptions),
    /// The server that `bench` compares with: repeats lines, and does nothing else
    #[command(hide = true)]
    BenchEcho,
}

/// Runs the program. Exit status 0 after a clean stop, 1 if it cannot be started or has failed (`serve`, `run` and
/// `stats` have more), 2 for arguments or a configuration that make no sense.
pub(crate) fn main() -> ExitCode {
    let cli = sources::command_line();
    match cli.command {
        Some(Command::Serve(options)) => serve::serve(&options),
        Some(Command::Run(options)) => run::run(&options),
        Some(Command::List(options)) => show::list(&options),
        Some(Command::Inspect(options)) => show::inspect(&options),
        Some(Command::Watch(options)) => show::watch(&options),
        Some(Command::Stats(options)) => show::stats(&options),
        Some(Command::Kick(options)) => show::kick(&options),
        Some(Command::Bench(options)) => bench::bench(&options),
        Some(Command::Completions(options)) => documents::completions(&options),
        Some(Command::Man(options)) => documents::man(&options),
        Some(Command::BenchServe(options)) => {
            bench::end_with_parent();
            serve::serve(&options)
        }
        Some(Command::BenchEcho) => {
            bench::end_with_parent();
            bench::serve_echo()
        }
        None => serve::serve(&cli.serve),
    }
}
