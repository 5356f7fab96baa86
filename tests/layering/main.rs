//! Who may use whom among the top modules, as `ARCHITECTURE.md` says. What a layer may not touch
//! of the standard library (sockets, clocks, threads) is in `clippy.toml`.

#![expect(clippy::expect_used, reason = "a panic is how a test fails")]

mod imports;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use imports::{Found, Source, words};

/// Each layer, and the layers it may use.
const LAYERS: [(&str, &[&str]); 8] = [
    ("os", &[]),
    ("broker", &["os"]),
    ("wire", &["broker", "os"]),
    ("server", &["broker", "os", "wire"]),
    ("client", &["broker", "os", "wire"]),
    // Of the wire what a page of locks is, which the client has from there too.
    ("session", &["broker", "client", "wire"]),
    ("ffi", &["broker", "client", "os", "server", "session", "wire"]),
    ("cli", &["broker", "client", "server", "session", "wire"]),
];

/// What the rules of the table may use of the broker around them: no mutex, no clock, no shell.
const TABLE: [&[&str]; 10] = [
    &["blocks"],
    &["clock", "Stamp"],
    &["histogram"],
    &["limits", "Limits"],
    &["limits", "NAMES_AT_ONCE_MAX"],
    &["model"],
    &["name"],
    &["outcome"],
    &["rules"],
    &["tokens"],
];

/// And what they may not use of anything.
const NOT_IN_TABLE: [&str; 5] = ["Mutex", "Instant", "SystemTime", "thread", "log"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The files under `of`, by their path from `src` on.
fn sources(of: &Path) -> Vec<PathBuf> {
    if root().join(of).is_file() {
        return vec![of.to_owned()];
    }
    let entries = fs::read_dir(root().join(of)).into_iter().flatten();
    let files = entries.flat_map(|entry| sources(&of.join(entry.expect("readable").file_name())));
    files.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

fn sources_of(layer: &str) -> Vec<PathBuf> {
    [sources(Path::new(layer)), sources(Path::new(&format!("{layer}.rs")))].concat()
}

/// The module that a file is.
fn module_of(file: &Path) -> Vec<String> {
    let module = file.with_extension("");
    let module = if module.ends_with("mod") { module.parent().expect("a directory") } else { &module };
    module.iter().map(|part| part.to_str().expect("a name").to_owned()).collect()
}

fn paths_in(file: &Path) -> BTreeSet<Found> {
    let code = fs::read_to_string(root().join(file)).expect("readable");
    Source { module: module_of(file), code: &code }.paths()
}

/// The top module that a name at the root of the crate is of: itself, or where it is re-exported from.
fn layer_of(name: &str, reexported: &BTreeSet<Found>) -> String {
    let from = reexported.iter().find(|path| path.last().is_some_and(|last| last == name));
    from.and_then(|path| path.first()).map_or(name, String::as_str).to_owned()
}

/// What `lib.rs` gives out from its modules, such as `session::Session`.
fn reexported() -> BTreeSet<Found> {
    // There, a path may begin with a module's own name.
    let code = fs::read_to_string(root().join("lib.rs")).expect("readable");
    let code = code.replace("pub use ", "pub use crate::");
    Source { module: Vec::new(), code: &code }.paths()
}

#[test]
fn layers_use_only_what_is_below_them() {
    let reexported = reexported();
    assert!(reexported.iter().any(|path| path == &["session", "Session"]), "{reexported:?}");
    let layers = || LAYERS.iter().map(|(layer, _)| *layer);
    for (layer, allowed) in LAYERS {
        let files = sources_of(layer);
        assert!(!files.is_empty(), "there is no layer {layer}");
        for file in files {
            for path in paths_in(&file) {
                let used = layer_of(&path[0], &reexported);
                // A name that is no layer's is the crate's own or, outside the library, this program's.
                let is_layer = used == "*" || layers().any(|layer| layer == used);
                assert!(
                    !is_layer || used == layer || allowed.contains(&used.as_str()),
                    "{} uses {}",
                    file.display(),
                    path.join("::")
                );
            }
        }
    }
}

#[test]
fn every_top_module_is_a_layer() {
    for entry in fs::read_dir(root()).expect("readable") {
        let name = entry.expect("readable").file_name();
        let module = Path::new(&name).with_extension("");
        let is_root = module.ends_with("lib") || module.ends_with("main");
        let is_layer = LAYERS.iter().any(|(layer, _)| module.ends_with(layer));
        assert!(is_root || is_layer, "src/{} is no layer here", name.display());
    }
}

#[test]
fn the_layers_are_those_that_are_documented() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md");
    let text = fs::read_to_string(path).expect("readable");
    let (_, table) = text.split_once("\n| layer | may use |\n").expect("a table of layers");
    let rows = table.lines().take_while(|line| line.starts_with('|')).filter(|line| line.starts_with("| `"));
    let in_code =
        |text: &str| -> BTreeSet<String> { text.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let mut documented = BTreeSet::new();
    for row in rows {
        let (layer, uses) = row.trim_start_matches("| ").split_once(" | ").expect("two columns");
        let layer = layer.trim_matches('`');
        let known = LAYERS.iter().find(|(known, _)| *known == layer);
        let (_, allowed) = known.expect("a layer of this test");
        let allowed: BTreeSet<String> = allowed.iter().map(|&layer| layer.to_owned()).collect();
        assert!(uses.contains("all of these") || in_code(uses) == allowed, "{layer}: {uses}");
        documented.insert(layer);
    }
    assert_eq!(documented, LAYERS.iter().map(|(layer, _)| *layer).collect());
}

#[test]
fn the_rules_know_nothing_of_the_shell_around_them() {
    for file in sources_of("broker/rules") {
        for path in paths_in(&file) {
            // Whether a model checker is at work, for which some figures are smaller.
            if path == ["os", "sync", "IS_EXPLORED"] {
                continue;
            }
            let [top, within @ ..] = path.as_slice() else { continue };
            let is_allowed = TABLE.iter().any(|allowed| {
                within.iter().zip(*allowed).all(|(word, allowed)| word == allowed)
                    && within.len() >= allowed.len()
            });
            assert!(top == "broker" && (within.is_empty() || is_allowed), "{}: {path:?}", file.display());
        }
        let code = fs::read_to_string(root().join(&file)).expect("readable");
        let forbidden = words(&code).into_iter().find(|word| NOT_IN_TABLE.contains(&word.as_str()));
        assert!(file.ends_with("tests.rs") || forbidden.is_none(), "{} has {forbidden:?}", file.display());
    }
}
