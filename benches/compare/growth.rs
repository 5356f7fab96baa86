//! How the cost grows with the number of connections, and with the number of names held: tables and
//! plots.

use plotters::prelude::SeriesLabelPosition;

use crate::document::Document;
use crate::figures::{Measured, Subject, by_turns, grouped, table};
use crate::in_process::BrokerFigures;
use crate::plot::{PlotLine, plot};
use crate::servers::Server;

const CONNECTIONS: [u32; 5] = [1, 10, 100, 1_000, 10_000];
const NAMES: [u32; 8] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000];
const ROUNDS: usize = 3;

pub(crate) fn measure(document: &Document) -> String {
    [connections(document), names(document)].join("\n")
}

fn connections(document: &Document) -> String {
    let servers: Vec<Server> =
        [Some(Server::echo()), Some(Server::lockd(&[])), Server::redis()].into_iter().flatten().collect();
    let subjects: Vec<Subject<'_>> = servers.iter().map(Subject::of).collect();
    let measured: Vec<Vec<Option<Measured>>> = CONNECTIONS
        .iter()
        .map(|count| by_turns(&subjects, ROUNDS, &["--seconds=1", &format!("--connections={count}")]))
        .collect();
    let rate = |by_count: &[Option<Measured>], at: usize| {
        by_count[at].as_ref().map_or(f64::NAN, Measured::requests_per_second)
    };
    let lines: Vec<PlotLine> = subjects
        .iter()
        .enumerate()
        .map(|(at, subject)| PlotLine {
            name: subject.name.clone(),
            points: CONNECTIONS.iter().zip(&measured).map(|(&x, by)| (f64::from(x), rate(by, at))).collect(),
        })
        .collect();
    plot(
        &document.plot("connections"),
        "busy connections",
        "requests a second",
        &lines,
        SeriesLabelPosition::LowerRight,
    );
    let mut head = vec!["connections".to_owned()];
    head.extend(subjects.iter().map(|subject| format!("{}, requests a second · CPU µs", subject.name)));
    let rows: Vec<Vec<String>> = CONNECTIONS
        .iter()
        .zip(&measured)
        .map(|(count, by_count)| {
            let cell = |measured: &Option<Measured>| match measured {
                Some(it) => format!("{} · {:.1}", grouped(it.requests_per_second()), it.server_cpu()),
                None => "–".to_owned(),
            };
            [grouped(f64::from(*count))].into_iter().chain(by_count.iter().map(cell)).collect()
        })
        .collect();
    table(&head, &rows)
}

fn names(document: &Document) -> String {
    let figures = BrokerFigures::read();
    let series = |series: &str, subject: &str| {
        figures.as_ref().map(|figures| figures.series(series, subject)).unwrap_or_default()
    };
    let in_process = [
        ("a free name", series("free", "lockd")),
        ("a held one at random", series("held", "lockd")),
        ("the same in `lockmap`", series("held", "lockmap")),
        ("bare look-up of a held one", series("held", "look-up")),
    ];
    let echo = Server::echo();
    let mut rows = Vec::new();
    for count in NAMES {
        // A new server each time, so that nothing is left of the last one.
        let lockd = Server::lockd(&[]);
        let subjects = [Subject::of(&lockd).with(&[&format!("--held={count}")]), Subject::of(&echo)];
        let measured = by_turns(&subjects, ROUNDS, &["--seconds=1", "--connections=16", "--depth=32"]);
        let [Some(lockd), Some(echo)] = &measured[..] else { continue };
        let nanos = in_process.iter().map(|(_, points)| {
            let point = points.iter().find(|(held, _)| *held == f64::from(count));
            point.map_or("–".to_owned(), |(_, nanos)| format!("{nanos:.0}"))
        });
        let server = [
            grouped(lockd.requests_per_second()),
            format!("{:.2}", lockd.requests_per_second() / echo.requests_per_second()),
            format!("{:.0}", lockd.median("/resident")),
        ];
        rows.push([grouped(f64::from(count))].into_iter().chain(nanos).chain(server).collect());
    }
    let mut head = vec!["names held".to_owned()];
    head.extend(in_process.iter().map(|(name, _)| format!("{name}, ns")));
    head.extend(
        ["server, 16 connections 32 deep: requests a second", "of the echo's", "MiB resident"]
            .map(str::to_owned),
    );
    let lines: Vec<PlotLine> = in_process
        .into_iter()
        .map(|(name, points)| PlotLine { name: name.replace('`', ""), points })
        .collect();
    plot(
        &document.plot("names"),
        "names held",
        "acquire + release in process, ns",
        &lines,
        SeriesLabelPosition::UpperLeft,
    );
    table(&head, &rows)
}
