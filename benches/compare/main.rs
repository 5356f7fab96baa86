//! Measures lockd beside a server that does nothing and beside what others would take in its stead, by turns
//! in the same minutes, and writes what came of it into `docs/performance.md`, between the marks that are
//! there for it. Says nothing about the figures: that is the document's.
//!
//! `cargo bench --bench compare -- SECTION…` measures some sections only; `make bench` all of them.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a measurement that goes wrong is of no use, and is started by hand"
)]

mod contended;
mod document;
mod figures;
mod flock;
mod growth;
mod idle;
mod in_process;
mod machine;
mod plot;
mod servers;
mod stalls;
mod uncontended;

use document::Document;

/// A part of the document: the mark it stands under, and what measures it.
type Section = (&'static str, fn(&Document) -> String);

const SECTIONS: [Section; 8] = [
    ("machine", |_| machine::describe()),
    ("uncontended", |_| uncontended::one_at_a_time()),
    ("pipelined", |_| uncontended::many_at_a_time()),
    ("contended", |_| contended::measure()),
    ("idle", |_| idle::measure()),
    ("stalls", |_| stalls::measure()),
    ("in-process", in_process::measure),
    ("growth", growth::measure),
];

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if let [flock::WORKER, path, seconds] = arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        return flock::work(path, seconds.parse().unwrap());
    }
    let known = |argument: &&String| !SECTIONS.iter().any(|(name, _)| name == argument);
    if let Some(unknown) = arguments.iter().find(known) {
        let names: Vec<&str> = SECTIONS.iter().map(|(name, _)| *name).collect();
        eprintln!("there is no section {unknown:?}: there are {}", names.join(", "));
        std::process::exit(2);
    }
    let document = Document::open();
    for (name, measure) in SECTIONS {
        if arguments.is_empty() || arguments.iter().any(|argument| argument == name) {
            eprintln!("measuring: {name}");
            let text = measure(&document);
            eprintln!("{text}");
            document.replace(name, &text);
        }
    }
}
