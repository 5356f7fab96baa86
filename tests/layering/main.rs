//! The structure of `src`, as `ARCHITECTURE.md` describes it: which layer may use which, that no
//! files use each other in a cycle, and that no two types have the same name. `clippy.toml` lists
//! what a layer may not use of the standard library (sockets, clocks, threads).
//!
//! `scan` reads the files, `tree` resolves paths, `tests` tests both with small trees.

#![expect(clippy::expect_used, clippy::panic, reason = "a panic is how a test fails")]

mod scan;
mod tests;
mod tree;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::sync::LazyLock;

use scan::Scope;
use tree::{Edges, Target, Tree, cycles};

/// Each layer, and the layers it may use.
const LAYERS: [(&str, &[&str]); 9] = [
    ("os", &[]),
    ("etcd", &["os"]),
    ("broker", &["os"]),
    ("wire", &["broker", "os"]),
    ("server", &["broker", "etcd", "os", "wire"]),
    ("client", &["broker", "os", "wire"]),
    // Of the wire only the types of a page of locks, which the client uses, too.
    ("session", &["broker", "client", "wire"]),
    ("ffi", &["broker", "client", "os", "server", "session", "wire"]),
    ("cli", &["broker", "client", "etcd", "server", "session", "wire"]),
];

/// What the rules may use of the broker around them: modules, or single items of a module. No
/// mutex, no clock, no shell.
const RULES_MAY_USE: [(&str, Option<&str>); 10] = [
    ("blocks", None),
    ("clock", Some("Stamp")),
    ("histogram", None),
    ("limits", Some("Limits")),
    ("limits", Some("NAMES_AT_ONCE_MAX")),
    ("model", None),
    ("mode", None),
    ("name", None),
    ("outcome", None),
    ("tokens", None),
];

/// Names that the rules may not use, whatever crate they come from.
const NOT_IN_RULES: [&str; 5] = ["Mutex", "Instant", "SystemTime", "thread", "log"];

/// The sources, by their paths below `src`.
fn sources() -> BTreeMap<String, String> {
    fn gather(root: &Path, directory: &Path, files: &mut BTreeMap<String, String>) {
        for entry in fs::read_dir(directory).expect("readable") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                gather(root, &path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root).expect("below the root").to_str().expect("UTF-8");
                files.insert(name.to_owned(), fs::read_to_string(&path).expect("readable"));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = BTreeMap::new();
    gather(&root, &root, &mut files);
    files
}

static TREE: LazyLock<Tree> = LazyLock::new(|| Tree::new(&sources()).expect("a whole tree"));

/// The layer that something belongs to; an empty name for a crate as a whole.
fn layer_of(module: &[String], item: Option<&str>) -> String {
    module.get(1).map(String::as_str).or(item).unwrap_or_default().to_owned()
}

#[test]
fn layers_use_only_what_is_below_them() {
    let mut found = BTreeSet::new();
    for scope in &TREE.scopes {
        let layer = layer_of(&scope.module, None);
        found.insert(layer.clone());
        let Some((_, allowed)) = LAYERS.iter().find(|(known, _)| *known == layer) else { continue };
        for (path, Target { module, item }) in TREE.uses(scope) {
            let used = layer_of(&module, item.as_deref());
            assert!(used == layer || allowed.contains(&used.as_str()), "{} uses {path}", scope.file);
        }
    }
    // The roots of both crates are in no layer.
    let layers = LAYERS.iter().map(|(layer, _)| *layer).chain([""]).map(str::to_owned).collect();
    assert_eq!(found, layers);
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
fn the_rules_use_nothing_of_the_shell_around_them() {
    let is_rules = |module: &[String]| module.starts_with(&["lockd", "broker", "rules"].map(str::to_owned));
    let rules = || TREE.scopes.iter().filter(|scope| is_rules(&scope.module));
    assert!(rules().next().is_some());
    for scope in rules() {
        for (path, Target { module, item }) in TREE.uses(scope) {
            // To import a module is not a use; what is used of it is checked by itself.
            let Some(item) = item else { continue };
            let module: Vec<&str> = module.iter().skip(1).map(String::as_str).collect();
            let is_allowed = match module.as_slice() {
                // Says whether a model checker runs: then some limits are smaller.
                ["os", "sync", ..] => item == "IS_MODEL_CHECKED",
                ["broker", "rules", ..] => true,
                ["broker", module, ..] => RULES_MAY_USE
                    .iter()
                    .any(|(allowed, only)| allowed == module && only.is_none_or(|only| only == item)),
                _ => false,
            };
            assert!(is_allowed, "{} uses {path}", scope.file);
        }
        let imported = scope.imports.iter().map(|import| &import.path);
        let mut words = scope.paths.iter().chain(imported).flatten().chain(&scope.words);
        let forbidden = words.find(|word| NOT_IN_RULES.contains(&word.as_str()));
        assert!(scope.is_test || forbidden.is_none(), "{} has {forbidden:?}", scope.file);
    }
}

/// The cycles, with the paths that make them.
fn described(edges: &Edges) -> String {
    let mut text = String::new();
    for cycle in cycles(edges) {
        let _ = writeln!(text, "{} files use each other in a cycle:", cycle.len());
        for file in &cycle {
            for (used, path) in
                edges.get(file).into_iter().flatten().filter(|(used, _)| cycle.contains(*used))
            {
                let _ = writeln!(text, "  {file} uses {used}: {path}");
            }
        }
    }
    text
}

#[test]
fn no_files_use_each_other_in_a_cycle() {
    let cycles = described(&TREE.edges());
    assert!(cycles.is_empty(), "{cycles}");
}

/// Two types may have the same name if one module has both of them under it: then they are in
/// different builds, with a feature and without it.
#[test]
fn no_two_types_have_the_same_name() {
    let mut found: BTreeMap<&str, Vec<&Scope>> = BTreeMap::new();
    for scope in TREE.scopes.iter().filter(|scope| !scope.is_test) {
        scope.types.iter().for_each(|name| found.entry(name).or_default().push(scope));
    }
    let is_in_different_builds = |name: &str, declaring: &[&Scope]| {
        TREE.scopes.iter().any(|scope| {
            let targets = TREE.targets(&scope.module, &[name.to_owned()]);
            let is_one = |declaring: &&Scope| targets.iter().any(|target| target.module == declaring.module);
            targets.len() == declaring.len() && declaring.iter().all(is_one)
        })
    };
    let mut several = String::new();
    for (name, declaring) in found {
        if declaring.len() > 1 && !is_in_different_builds(name, &declaring) {
            let files: Vec<&str> = declaring.iter().map(|scope| scope.file.as_str()).collect();
            let _ = writeln!(several, "{name}: {}", files.join(", "));
        }
    }
    assert!(several.is_empty(), "{several}");
}
