//! Measures lockd, an echo server, and servers that might be used instead of lockd, in turn within
//! the same minutes. Writes the results into `docs/performance.md`, between the marks for them. The
//! document interprets the figures; this program does not.
//!
//! `cargo bench --bench compare -- SECTION…` measures only these sections; `make bench` measures
//! all of them.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a measurement is started by hand, and a panic is how it fails"
)]

mod contended;
mod document;
mod figures;
mod flock;
mod growth;
mod idle;
mod in_process;
mod machine;
mod memory;
mod plot;
mod servers;
mod stalls;
mod uncontended;

use document::Document;

/// A section of the document: the name in its marks, and the function that measures it.
type Section = (&'static str, fn(&Document) -> String);

const SECTIONS: [Section; 9] = [
    ("machine", |_| machine::describe()),
    ("uncontended", |_| uncontended::one_at_a_time()),
    ("pipelined", |_| uncontended::many_at_a_time()),
    ("contended", |_| contended::measure()),
    ("idle", |_| idle::measure()),
    ("memory", memory::measure),
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
