//! Contended locks: the time from one holder's release to the next one's grant.

use crate::figures::{Subject, by_turns, grouped, table};
use crate::flock;
use crate::servers::Server;

const ROUNDS: usize = 5;

/// Hand-overs of one name, compared with round trips to the echo server on one connection: a
/// hand-over over a socket cannot be faster than that.
pub(crate) fn measure() -> String {
    let (echo, lockd, postgres) = (Server::echo(), Server::lockd(&[]), Server::postgres());
    let (many, most) = (["--contended", "--connections=16"], ["--contended", "--connections=1000"]);
    let mut subjects = vec![
        Subject::at(&echo.address, &echo, "echo, a round trip on one connection").with(&many),
        Subject::at(lockd.address_for("glockd"), &lockd, "lockd, `glockd`, 16 connections").with(&many),
        Subject::at(lockd.address_for("glockd"), &lockd, "lockd, `glockd`, 1,000 connections").with(&most),
        Subject::at(lockd.address_for("message"), &lockd, "lockd, `message`, 16 connections").with(&many),
        Subject::at(lockd.address_for("message"), &lockd, "lockd, `message`, 1,000 connections").with(&most),
    ];
    if let Some(postgres) = &postgres {
        subjects.push(Subject::at(&postgres.address, postgres, "PostgreSQL, 16 connections").with(&many));
    }
    let measured = by_turns(&subjects, ROUNDS, &["--seconds=1"]);
    let echo = measured[0].as_ref().map_or(f64::NAN, |echo| echo.median("/handOversPerSecond"));
    let mut rows: Vec<Vec<String>> = subjects
        .iter()
        .zip(&measured)
        .filter_map(|(subject, measured)| {
            let measured = measured.as_ref()?;
            let each_second = measured.median("/handOversPerSecond");
            Some(vec![
                subject.name.clone(),
                grouped(each_second),
                format!("{:.2}", each_second / echo),
                format!("{:.0}", measured.median("/handOver/p50")),
                format!("{:.0}", measured.median("/handOver/p99")),
            ])
        })
        .collect();
    let each_second = flock::contended(16);
    rows.push(vec![
        "flock(2), 16 processes".to_owned(),
        grouped(each_second),
        format!("{:.2}", each_second / echo),
        "–".to_owned(),
        "–".to_owned(),
    ]);
    let head =
        ["one name", "hand-overs a second", "of the echo's round trips", "median, µs", "99 % within, µs"];
    table(&head.map(str::to_owned), &rows)
}
