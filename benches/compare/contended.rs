//! Contended locks: the time from one holder's release to the next one's grant.

use crate::figures::{Measured, Subject, by_turns, grouped, table};
use crate::flock;
use crate::servers::Server;

const ROUNDS: usize = 5;
const FEW: [&str; 2] = ["--contended", "--connections=16"];
const MANY: [&str; 2] = ["--contended", "--connections=1000"];

/// Hand-overs of one name, compared with a baton that as many connections pass on without any
/// rules, and with round trips to the echo server on one connection. Measured on processors that
/// may idle and on processors that may not.
pub(crate) fn measure() -> String {
    let (echo, baton, lockd, postgres) =
        (Server::echo(), Server::baton(), Server::lockd(&[]), Server::postgres());
    let glockd = |name, options| Subject::at(lockd.address_for("glockd"), &lockd, name).with(options);
    let message = |name, options| Subject::at(lockd.address_for("message"), &lockd, name).with(options);
    let mut few = vec![
        Subject::at(&echo.address, &echo, "echo, a round trip on one connection").with(&FEW),
        Subject::at(&baton.address, &baton, "baton, 16 connections").with(&FEW),
        glockd("lockd, `glockd`, 16 connections", &FEW),
        message("lockd, `message`, 16 connections", &FEW),
    ];
    if let Some(postgres) = &postgres {
        few.push(Subject::at(&postgres.address, postgres, "PostgreSQL, 16 connections").with(&FEW));
    }
    let many = [
        Subject::at(&echo.address, &echo, "echo").with(&MANY),
        Subject::at(&baton.address, &baton, "baton, 1,000 connections").with(&MANY),
        glockd("lockd, `glockd`, 1,000 connections", &MANY),
        message("lockd, `message`, 1,000 connections", &MANY),
    ];
    let measured = by_turns(&few, ROUNDS, &["--seconds=1"]);
    let mut rows = rows_of(&few, &measured, "");
    let each_second = flock::contended(16);
    let of = |at: usize| format!("{:.2}", each_second / hand_overs(measured[at].as_ref()));
    let dash = || "–".to_owned();
    let flock_row =
        vec!["flock(2), 16 processes".to_owned(), grouped(each_second), of(0), of(1), dash(), dash()];
    rows.extend(rows_of(&many, &by_turns(&many, ROUNDS, &["--seconds=1"]), "").into_iter().skip(1));
    rows.push(flock_row);
    let awake = by_turns(&few, ROUNDS, &["--seconds=1", "--awake"]);
    rows.extend(rows_of(&few, &awake, "; processors kept awake"));
    let head = [
        "one name",
        "hand-overs a second",
        "of the echo's round trips",
        "of the baton's hand-overs",
        "median, µs",
        "99 % within, µs",
    ];
    table(&head.map(str::to_owned), &rows)
}

fn hand_overs(measured: Option<&Measured>) -> f64 {
    measured.map_or(f64::NAN, |measured| measured.median("/handOversPerSecond"))
}

/// A row for each subject, of which the first is the echo and the second the baton.
fn rows_of(subjects: &[Subject<'_>], measured: &[Option<Measured>], condition: &str) -> Vec<Vec<String>> {
    let (echo, baton) = (hand_overs(measured[0].as_ref()), hand_overs(measured[1].as_ref()));
    let row = |(subject, measured): (&Subject<'_>, &Option<Measured>)| {
        let measured = measured.as_ref()?;
        let each_second = hand_overs(Some(measured));
        Some(vec![
            format!("{}{condition}", subject.name),
            grouped(each_second),
            format!("{:.2}", each_second / echo),
            format!("{:.2}", each_second / baton),
            format!("{:.0}", measured.median("/handOver/p50")),
            format!("{:.0}", measured.median("/handOver/p99")),
        ])
    };
    subjects.iter().zip(measured).filter_map(row).collect()
}
