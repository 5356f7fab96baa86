//! How figures are written. Pure.

use std::fmt::Write as _;

use serde_json::Value;

use crate::cli::show::Trouble;
use crate::cli::show::stats::figures::{FIGURES, Figures, Kind};
use crate::cli::show::table::Table;
use crate::cli::text::{harmless, printable};

/// What the two graphs of Munin have.
const GRAPHS: [(&str, &str, &str, Kind, &[&str]); 2] = [
    (
        "lockd",
        "lockd: what there is",
        "number",
        Kind::Gauge,
        &["connections", "locks", "sharedLocks", "waiting"],
    ),
    (
        "lockd_requests",
        "lockd: what is done",
        "per ${graph_period}",
        Kind::Counter,
        &["grants", "waits", "timeouts", "deadlocks", "orphans", "connectionsRefused"],
    ),
];

/// A line for each figure, also for those that this program does not know.
pub(super) fn text(figures: &Figures) -> String {
    let mut table = Table::with_heads(&[]);
    table.take_lines();
    for (key, value) in &figures.0 {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let what = FIGURES.iter().find(|figure| figure.key == key).map_or("", |figure| figure.what);
        table.add(vec![printable(key.as_bytes()), printable(value.as_bytes()), what.to_owned()]);
    }
    lines(table.take_lines())
}

pub(super) fn json(figures: &Figures) -> String {
    format!("{}\n", harmless(&Value::Object(figures.0.clone()).to_string()))
}

/// As [`text`], each under its server.
pub(super) fn text_of_several(all: &[(String, Figures)]) -> String {
    let one = |(server, figures): &(String, Figures)| {
        format!("{}:\n{}", printable(server.as_bytes()), text(figures))
    };
    all.iter().map(one).collect::<Vec<_>>().join("\n")
}

/// One object, with those of the servers by their addresses.
pub(super) fn json_of_several(all: &[(String, Figures)]) -> String {
    let all = all.iter().map(|(server, figures)| (server.clone(), Value::Object(figures.0.clone())));
    format!("{}\n", harmless(&Value::Object(all.collect()).to_string()))
}

/// The text exposition format.
pub(super) fn prometheus(figures: &Figures) -> String {
    let version = figures.version().replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
    let mut text = format!(
        "# HELP lockd_build_info The server's version.\n# TYPE lockd_build_info gauge\n\
         lockd_build_info{{version=\"{version}\"}} 1\n"
    );
    let mut last = "";
    for figure in &FIGURES {
        let Some(number) = figures.number(figure.key) else { continue };
        let kind = if figure.kind == Kind::Counter { "counter" } else { "gauge" };
        let (metric, what) = (figure.metric, figure.mode.map_or(figure.what, |(_, both)| both));
        // Writing to a string does not fail; nor below.
        if metric != last {
            let _ = write!(text, "# HELP {metric} {what}\n# TYPE {metric} {kind}\n");
        }
        last = metric;
        let _ = match figure.mode {
            Some((mode, _)) => writeln!(text, "{metric}{{mode=\"{mode}\"}} {number}"),
            None => writeln!(text, "{metric} {number}"),
        };
    }
    text
}

/// Whether there is something to draw, as munin-node-configure asks for it: `yes`, or `no` with the reason.
pub(super) fn munin_autoconf(asked: Result<Figures, Trouble>) -> String {
    match asked {
        Ok(_) => "yes\n".to_owned(),
        Err(Trouble::NoReader) => "no\n".to_owned(),
        Err(Trouble::Words(words)) => format!("no ({})\n", harmless(&words.replace('\n', " "))),
    }
}

/// The graphs, as Munin asks for them.
pub(super) fn munin_config() -> String {
    let mut text = String::new();
    for (graph, title, unit, kind, keys) in GRAPHS {
        let _ = write!(
            text,
            "multigraph {graph}\ngraph_title {title}\ngraph_vlabel {unit}\ngraph_category lockd\n\
             graph_args --lower-limit 0\n"
        );
        for figure in FIGURES.iter().filter(|figure| keys.contains(&figure.key)) {
            let _ = writeln!(text, "{}.label {}", figure.key, figure.what);
            // A server that was started again is no fall.
            if kind == Kind::Counter {
                let _ = write!(text, "{0}.type DERIVE\n{0}.min 0\n", figure.key);
            }
        }
    }
    text
}

/// The values of the graphs.
pub(super) fn munin(figures: &Figures) -> String {
    let mut text = String::new();
    for (graph, .., keys) in GRAPHS {
        let _ = writeln!(text, "multigraph {graph}");
        for key in keys {
            // U is how Munin has it that a value is not known.
            let value = figures.number(key).map_or_else(|| "U".to_owned(), |number| number.to_string());
            let _ = writeln!(text, "{key}.value {value}");
        }
    }
    text
}

fn lines(lines: Vec<String>) -> String {
    lines.into_iter().map(|line| line + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> Figures {
        let told =
            r#"{"status":"ok","version":"0\n\"1","locks":3,"waiting":1,"grants":40,"mist\u001b":{"a":1}}"#;
        Figures::read(told).unwrap()
    }

    #[test]
    fn the_text_has_every_figure_and_no_control_character() {
        let text = text(&figures());
        let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert!(lines.contains(&vec!["locks", "3", "names", "held", "exclusively"]), "{text}");
        assert!(lines.contains(&vec!["waiting", "1", "requests", "that", "wait"]), "{text}");
        assert!(text.lines().count() == 5 && text.contains(r"mist\u{1b}") && text.contains(r"0\n"), "{text}");
    }

    #[test]
    fn prometheus_is_told_kinds_and_values() {
        let text = prometheus(&figures());
        assert!(text.contains("lockd_build_info{version=\"0\\n\\\"1\"} 1\n"), "{text}");
        assert!(text.contains("# TYPE lockd_locks gauge\nlockd_locks{mode=\"exclusive\"} 3\n"), "{text}");
        assert!(text.contains("# TYPE lockd_grants_total counter\nlockd_grants_total 40\n"), "{text}");
        assert!(!text.contains("lockd_deadlocks_total"), "what is not told is not made up");
    }

    #[test]
    fn munin_gets_a_value_for_everything_it_was_promised() {
        let (config, values) = (munin_config(), munin(&figures()));
        let fields = |text: &str, suffix: &str| {
            let mut fields: Vec<String> = text
                .lines()
                .filter_map(|line| line.split_once(suffix).map(|(field, _)| field.to_owned()))
                .collect();
            fields.sort();
            fields
        };
        assert_eq!(fields(&config, ".label "), fields(&values, ".value "));
        assert!(values.contains("locks.value 3\n") && values.contains("deadlocks.value U\n"), "{values}");
        assert!(
            config.contains("grants.type DERIVE\n") && !config.contains("\nlocks.type DERIVE\n"),
            "{config}"
        );
    }
}
