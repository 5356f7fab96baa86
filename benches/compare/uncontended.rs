//! Uncontended locks, the usual case: how many requests per second, what each costs the server, and
//! how long it takes.

use crate::figures::{Measured, Subject, by_turns, grouped, table};
use crate::servers::Server;

const CONNECTIONS: [u32; 4] = [1, 16, 64, 256];
/// Many short rounds: on which processors the kernel runs client and server varies between rounds,
/// and within a round its effect does not average out.
const ROUNDS: usize = 11;
const SECONDS: &str = "--seconds=0.5";

/// All servers that are installed. The others are compared with the echo server.
struct AllServers {
    echo: Server,
    lockd: Server,
    batch: Server,
    others: Vec<Server>,
}

impl AllServers {
    fn start() -> Self {
        let others = [Server::redis(), Server::memcached(), Server::postgres()];
        Self {
            echo: Server::echo(),
            lockd: Server::lockd(&[]),
            batch: Server::lockd(&["--scheduling=batch"]),
            others: others.into_iter().flatten().collect(),
        }
    }

    /// The subjects; the first is the echo server.
    fn subjects(&self) -> Vec<Subject<'_>> {
        let (lockd, batch) = (&self.lockd, &self.batch);
        let mut subjects = vec![
            Subject::of(&self.echo),
            Subject::at(lockd.address_for("glockd"), lockd, "lockd, `glockd`"),
            Subject::at(lockd.address_for("message"), lockd, "lockd, `message`"),
            Subject::at(batch.address_for("glockd"), batch, "lockd, `glockd`, `--scheduling batch`"),
        ];
        subjects.extend(self.others.iter().map(Subject::of));
        subjects
    }
}

/// One request at a time on each connection, for several numbers of connections.
pub(crate) fn one_at_a_time() -> String {
    let servers = AllServers::start();
    let subjects = servers.subjects();
    let measured: Vec<Vec<Option<Measured>>> = CONNECTIONS
        .iter()
        .map(|count| by_turns(&subjects, ROUNDS, &[SECONDS, &format!("--connections={count}")]))
        .collect();
    let with = |what: &str, show: &dyn Fn(&Measured, &Measured) -> String| {
        let mut head = vec![what.to_owned()];
        head.extend(
            CONNECTIONS.map(|count| format!("{count} connection{}", if count == 1 { "" } else { "s" })),
        );
        let rows: Vec<Vec<String>> = subjects
            .iter()
            .enumerate()
            .map(|(at, subject)| {
                let cell = |by_count: &Vec<Option<Measured>>| match (&by_count[at], &by_count[0]) {
                    (Some(own), Some(echo)) => show(own, echo),
                    _ => "–".to_owned(),
                };
                [subject.name.clone()].into_iter().chain(measured.iter().map(cell)).collect()
            })
            .collect();
        table(&head, &rows)
    };
    let ratio = |own: f64, echo: f64| format!("({:.2})", own / echo);
    [
        with("requests a second (of the echo's)", &|own, echo| {
            let (own, echo) = (own.requests_per_second(), echo.requests_per_second());
            format!("{} {}", grouped(own), ratio(own, echo))
        }),
        with("CPU time of the server, µs a request (of the echo's)", &|own, echo| {
            format!("{:.1} {}", own.server_cpu(), ratio(own.server_cpu(), echo.server_cpu()))
        }),
        with("latency, µs: median · 99 % within", &|own, _| {
            format!("{:.0} · {:.0}", own.median("/latency/p50"), own.p99())
        }),
    ]
    .join("\n")
}

/// 32 requests at a time on each of 16 connections.
pub(crate) fn many_at_a_time() -> String {
    let servers = AllServers::start();
    let subjects = servers.subjects();
    let measured = by_turns(&subjects, ROUNDS, &[SECONDS, "--connections=16", "--depth=32"]);
    let head = [
        "16 connections, 32 deep",
        "requests a second",
        "of the echo's",
        "CPU time of the server, µs a request",
        "99 % within, µs",
    ];
    let echo = measured[0].as_ref().map_or(f64::NAN, Measured::requests_per_second);
    let rows: Vec<Vec<String>> = subjects
        .iter()
        .zip(&measured)
        .filter_map(|(subject, measured)| {
            let measured = measured.as_ref()?;
            Some(vec![
                subject.name.clone(),
                grouped(measured.requests_per_second()),
                format!("{:.2}", measured.requests_per_second() / echo),
                format!("{:.2}", measured.server_cpu()),
                grouped(measured.p99()),
            ])
        })
        .collect();
    table(&head.map(str::to_owned), &rows)
}
