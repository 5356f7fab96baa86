//! `lockd cluster status`: what the server at each place of a cluster is. Asks the servers alone, not
//! etcd, so it shows what clients find.
//!
//! - `place_state` reads what the server at one place answers, `report` writes it and says whether all
//!   is well. Both are pure; this file asks.

mod place_state;
mod report;

use std::io::{self, Write};
use std::process::ExitCode;
use std::thread::Builder;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use crossbeam_channel::Receiver;
use lockd::client::{MessageClient, ServerUrl};

use crate::cli::messages::{EXIT_USAGE, exit_with_message};
use crate::cli::server_option::ServerOption;
use place_state::PlaceState;
use report::{GroupReport, Reports};

/// How long connecting to a place and its answer may take.
const LIMIT: Duration = Duration::from_secs(2);
/// How much longer its answer is waited for, so that the place's own error is seen.
const SLACK: Duration = Duration::from_millis(500);
/// The exit status if no place answers.
const EXIT_NO_SERVER: u8 = 69;

/// What to do with a cluster.
#[derive(Subcommand, Debug)]
pub(crate) enum ClusterCommand {
    /// Ask each server what it is: active or a standby
    Status(ClusterStatusOptions),
}

/// What to ask.
#[derive(Args, Debug)]
#[command(after_help = "\
--server names the places of the cluster's servers, as for clients: tcp://a:20934,b:20934,c:20934. Each is asked by \
itself, for 2 s at most; etcd is not asked. The role of a server is active, standby, alone (it is not a member of a \
cluster), unreachable, or unknown (it could not be asked, or has not said what it is). The active server tells its \
cluster and the number of its run, and a standby where the active server is, if it knows that.

Exit status: 0 if exactly one of the servers is active; 1 if none or more than one is, or if one is not a member \
of a cluster; 2 for wrong arguments; 69 if no place answers. Of several clusters (tcp://a,b,tcp://c,d), 0 if that is \
so for each of them, and 69 if none has answered.

With --json one object, {\"servers\":[...]}, with one entry for each cluster, {\"server\":URL,\"places\":[...]}. An \
entry in places has place, as it is written in the URL, and role; with the role active also cluster (its name) and \
epoch (the number of the run), with standby perhaps active (HOST:PORT), with unreachable and unknown reason (for \
people). More keys may be added.")]
pub(crate) struct ClusterStatusOptions {
    /// Write JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    at: ServerOption,
}

pub(crate) fn cluster(command: &ClusterCommand) -> ExitCode {
    let ClusterCommand::Status(options) = command;
    let servers = match ServerUrl::parse_list(&options.at.urls) {
        Ok(servers) => servers,
        Err(error) => return exit_with_message(&error.to_string(), EXIT_USAGE),
    };
    let reports = Reports(servers.iter().map(ask_group).collect());
    let text = if options.json { reports.to_json() } else { reports.to_text() };
    // If nobody reads it, the exit status still says it.
    let _ = io::stdout().write_all(text.as_bytes());
    let problems = reports.problems();
    let code = match (reports.has_answers(), problems.is_empty()) {
        (false, _) => EXIT_NO_SERVER,
        (true, false) => 1,
        (true, true) => return ExitCode::SUCCESS,
    };
    exit_with_message(&problems.join("\nlockd: "), code)
}

fn ask_group(server: &ServerUrl) -> GroupReport {
    let report = ask_places(server);
    // One server may have handed over to another one between their answers.
    if report.active().count() > 1 { ask_places(server) } else { report }
}

/// Asks all places at once.
fn ask_places(server: &ServerUrl) -> GroupReport {
    let deadline = Instant::now() + LIMIT + SLACK;
    let asked: Vec<_> =
        server.each_place().into_iter().map(|(place, alone)| (place, begin_to_ask(alone))).collect();
    let state = |answer: Result<Receiver<PlaceState>, io::Error>| match answer {
        Ok(answer) => answer.recv_deadline(deadline).unwrap_or_else(|_| PlaceState::unanswered(LIMIT)),
        Err(error) => PlaceState::Unreachable { reason: error.to_string() },
    };
    let places = asked.into_iter().map(|(place, answer)| (place, state(answer))).collect();
    GroupReport { server: server.to_string(), places }
}

/// Asks in a thread of its own. Resolving a name has no time limit, so the thread is abandoned if it
/// takes too long.
fn begin_to_ask(address: String) -> io::Result<Receiver<PlaceState>> {
    let (tell, told) = crossbeam_channel::bounded(1);
    let ask = move || {
        // It fails if the answer comes too late.
        let _ = tell.send(ask(&address));
    };
    Builder::new().spawn(ask)?;
    Ok(told)
}

fn ask(address: &str) -> PlaceState {
    let deadline = Instant::now() + LIMIT;
    let client = match MessageClient::connect(address, LIMIT) {
        Ok(client) => client,
        Err(error) => return PlaceState::of_connect_error(&error),
    };
    let left = deadline.saturating_duration_since(Instant::now());
    match client.rpc("stats", &serde_json::json!({}), Some(left)) {
        Ok(result) => PlaceState::of_stats(result.get()),
        Err(error) => PlaceState::of_rpc_error(&error, LIMIT),
    }
}
