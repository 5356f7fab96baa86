//! The commands of the program and their arguments. Definitions only: each command has its options
//! in its own module.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use super::bench::BenchOptions;
use super::cluster_status::ClusterCommand;
use super::control::{StandDownOptions, UpgradeOptions};
use super::options::ServeOptions;
use super::run::RunOptions;
use super::show::{InspectOptions, KickOptions, ListOptions, StatsOptions, WatchOptions};

/// The exit status of the server, for its help and its manual page.
pub(super) const SERVER_EXIT_STATUS: &str = "\
0 after a clean stop; 1 if the server cannot be started or has failed; 2 for wrong arguments or a wrong configuration; \
3 after a clean stop that could not be recorded in the state directory or in etcd (if the disk is full, for example): the \
next start waits as it does after a crash; 4 if the server was the active one of a cluster, and is not any more: it is \
to be started again, as a standby.";

/// A lock server: keeps named locks for programs on one or many machines, as long as they are
/// alive.
#[derive(Parser)]
#[command(name = "lockd", version, args_conflicts_with_subcommands = true)]
pub(super) struct Cli {
    #[command(subcommand)]
    pub(super) command: Option<CliCommand>,
    #[command(flatten)]
    pub(super) serve: ServeOptions,
}

#[derive(Subcommand)]
pub(super) enum CliCommand {
    /// Serve locks to the network; the default if no command is given
    Serve(ServeOptions),
    /// Run a command while holding a lock
    Run(RunOptions),
    /// List locks, their holders, and the number of waiters
    List(ListOptions),
    /// Show one lock with its holders and waiters, and what each waiter waits for
    Inspect(InspectOptions),
    /// Show locks in the terminal, updated continuously
    Watch(WatchOptions),
    /// Show the server's statistics, for people or for monitoring
    Stats(StatsOptions),
    /// End a client's connection
    Kick(KickOptions),
    /// Let a server become the new version of the program that has been installed in its place, and
    /// keep its connections and locks
    Upgrade(UpgradeOptions),
    /// Let the active server of a cluster hand over to another one
    StandDown(StandDownOptions),
    /// Show the servers of a cluster
    #[command(subcommand, disable_help_subcommand = true)]
    Cluster(ClusterCommand),
    /// Measure a server under load: requests per second, latencies, CPU time, memory
    Bench(BenchOptions),
    /// Print the completions for a shell, to be sourced or installed
    Completions {
        /// The shell; its completions are printed on standard output
        shell: Shell,
    },
    /// Write the manual pages
    #[command(hide = true)]
    Man {
        /// Directory for the pages: lockd.1, lockd-serve.1 and so on
        directory: PathBuf,
        /// Date shown on the pages, like 2026-01-31
        #[arg(long, value_name = "DATE", default_value = "undated")]
        date: String,
    },
    /// The same as `serve`, but ends with the `bench` that has started it
    #[command(hide = true)]
    BenchServe(ServeOptions),
    /// The echo server that `bench` compares with
    #[command(hide = true)]
    BenchEcho,
    /// The baton server that `bench --contended` compares with
    #[command(hide = true)]
    BenchBaton,
}
