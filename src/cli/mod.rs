//! The program `lockd`: its commands, its configuration, signals, and output for people. Everything
//! about locks is in the library; this module uses only what any other program could use.
//!
//! - `arguments`: the commands. `command_place`: mistakes in the line of `run`. `serve`: the server as a process, from its start on, and `running`: until it stops. `run`: a command under a lock.
//!   `show`: commands that look into a server. `bench`: a load for measurements. `generate`: manual
//!   pages and completions.
//! - `options`: the server's options; `configuration`: where they are read from; `reload`: what a
//!   reload changes.
//! - `upgrade`: the server becomes the next version of the program. `control`: orders for it.
//!   `cluster_member`: the server as one of several. `cluster_status`: what each of them is.
//!   `signal_gate`: the signals that direct it.
//! - `http`: the server's pages. `logging`, `systemd`, `pidfile`, `privileges`, `grace_log`: what
//!   a daemon needs.
//! - `chain`: who holds a lock, what that one waits for, and so on. `owner_name`: how a `lockd run`
//!   is called.
//! - `messages`, `text`, `text_table`: output for people. `processes`: the processes of the system.
//!
//! Channels and locks are those of crossbeam-channel and parking_lot. The library cannot use
//! parking_lot: a child forked by a program that uses the library might inherit its global table of
//! waiting threads in a locked state. The program is safe: all that its forked children do is exec,
//! and they take no lock before that.

mod arguments;
mod bench;
mod chain;
mod cluster_member;
mod cluster_status;
mod command_place;
mod configuration;
mod control;
mod generate;
mod grace_log;
mod http;
mod logging;
mod messages;
mod options;
mod owner_name;
mod pidfile;
mod privileges;
mod processes;
mod prometheus;
mod reload;
mod run;
mod running;
mod serve;
mod server_option;
mod show;
mod signal_gate;
mod systemd;
mod text;
mod text_table;
mod upgrade;

use std::process::ExitCode;

use arguments::CliCommand;

/// Runs the program. The exit status is 0 after success, 1 after a failure, and 2 for wrong
/// arguments or a wrong configuration; `serve`, `run` and `stats` have further ones.
pub(crate) fn main() -> ExitCode {
    let cli = configuration::command_line();
    match cli.command.unwrap_or(CliCommand::Serve(cli.serve)) {
        CliCommand::Serve(options) => serve::serve(&options),
        CliCommand::Run(options) => run::run(&options),
        CliCommand::List(options) => show::list(&options),
        CliCommand::Inspect(options) => show::inspect(&options),
        CliCommand::Watch(options) => show::watch(&options),
        CliCommand::Stats(options) => show::stats(&options),
        CliCommand::Kick(options) => show::kick(&options),
        CliCommand::Upgrade(options) => control::upgrade(&options),
        CliCommand::StandDown(options) => control::stand_down(&options),
        CliCommand::Cluster(command) => cluster_status::cluster(&command),
        CliCommand::Bench(options) => bench::bench(&options),
        CliCommand::Completions { shell } => generate::completions(shell),
        CliCommand::Man { directory, date } => generate::man(&directory, &date),
        CliCommand::BenchServe(options) => {
            bench::end_with_parent();
            serve::serve(&options)
        }
        CliCommand::BenchEcho => {
            bench::end_with_parent();
            bench::serve_echo()
        }
        CliCommand::BenchBaton => {
            bench::end_with_parent();
            bench::serve_baton()
        }
    }
}
