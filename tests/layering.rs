//! Who may use whom among the top modules, as `ARCHITECTURE.md` says. What a layer may not touch
//! of the standard library (sockets, clocks, threads) is in `clippy.toml`.

#![expect(clippy::expect_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each layer, and the layers it may use.
const LAYERS: [(&str, &[&str]); 12] = [
    ("broker", &[]),
    ("protocol", &["broker"]),
    ("fork", &["broker"]),
    // Of the broker its locks' primitives, for the sockets that a model checker has.
    ("socket", &["broker", "fork", "protocol"]),
    ("tls", &[]),
    ("state", &["broker", "fork", "protocol"]),
    ("server", &["broker", "fork", "protocol", "socket", "tls"]),
    ("client", &["broker", "fork", "protocol", "socket", "tls"]),
    // Of the protocol what a page of locks is, which the client has from there too.
    ("session", &["broker", "client", "protocol"]),
    ("ffi", &["broker", "client", "fork", "protocol", "server", "session", "state"]),
    ("http", &["broker", "protocol", "server"]),
    ("cli", &["broker", "protocol", "state", "server", "http", "client", "session"]),
];

/// What the rules of the table may use of the broker around them: no mutex, no clock, no shell.
const TABLE: [&str; 8] =
    ["Limits", "clock::Stamp", "histogram", "model", "name", "outcome", "table", "tokens"];

fn sources(of: &Path) -> Vec<PathBuf> {
    if of.is_file() {
        return vec![of.to_owned()];
    }
    let entries = fs::read_dir(of).into_iter().flatten().map(|entry| entry.expect("readable").path());
    entries
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}

fn source_of_layer(layer: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    [sources(&root.join(layer)), sources(&root.join(format!("{layer}.rs")))].concat()
}

/// The text without comments: prose may name any layer.
fn code(path: &Path) -> String {
    let text = fs::read_to_string(path).expect("readable");
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The first path segments behind each `prefix` in the code, those in braces too.
fn used(code: &str, prefix: &str) -> BTreeSet<String> {
    let segment = |text: &str| -> String {
        text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
    };
    code.match_indices(prefix)
        .flat_map(|(at, _)| {
            let rest = &code[at + prefix.len()..];
            match rest.strip_prefix('{') {
                Some(list) => list.split('}').next().unwrap_or("").split(',').map(segment).collect(),
                None => vec![segment(rest)],
            }
        })
        .filter(|name| !name.is_empty())
        .collect()
}

#[test]
fn layers_use_only_what_is_below_them() {
    for (layer, allowed) in LAYERS {
        let files = source_of_layer(layer);
        assert!(!files.is_empty(), "there is no layer {layer}");
        for file in files {
            let code = code(&file);
            let uses = used(&code, "crate::").into_iter().chain(used(&code, "lockd::"));
            let layers = uses.filter(|name| LAYERS.iter().any(|(other, _)| other == name));
            for other in layers.filter(|other| other != layer) {
                assert!(allowed.contains(&other.as_str()), "{} uses {other}", file.display());
            }
        }
    }
}

#[test]
fn the_rules_know_nothing_of_the_shell_around_them() {
    for file in source_of_layer("broker/table") {
        let code = code(&file).replace("in super::super", "").replace("in super", "");
        let shell = used(&code, "super::super::")
            .into_iter()
            .filter(|name| !TABLE.iter().any(|allowed| allowed.split("::").next() == Some(name)));
        assert_eq!(shell.collect::<Vec<_>>(), Vec::<String>::new(), "{}", file.display());
        for forbidden in ["Mutex", "Instant", "SystemTime", "thread", "clock::now", "log::"] {
            let allowed_in_tests = file.ends_with("tests.rs");
            assert!(allowed_in_tests || !code.contains(forbidden), "{} has {forbidden}", file.display());
        }
    }
}
