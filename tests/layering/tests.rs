//! Tests `scan` and `tree` with small trees.

use std::collections::{BTreeMap, BTreeSet};

use crate::scan::scan;
use crate::tree::{Tree, cycles};

fn files(files: &[(&str, &str)]) -> BTreeMap<String, String> {
    files.iter().map(|(file, code)| ((*file).to_owned(), (*code).to_owned())).collect()
}

/// Which file uses which, as `a>b`.
fn edges(sources: &[(&str, &str)]) -> Vec<String> {
    let edges = Tree::new(&files(sources)).expect("a whole tree").edges();
    let of_file = |(file, used): (&String, &BTreeMap<String, String>)| {
        let name = |file: &str| file.trim_end_matches(".rs").to_owned();
        used.keys().map(|used| format!("{}>{}", name(file), name(used))).collect::<Vec<_>>()
    };
    edges.iter().flat_map(of_file).collect()
}

/// The imports and paths that are found in this code of the module `broker::table`.
fn found(code: &str) -> Vec<String> {
    let module = ["lockd", "broker", "table"].map(str::to_owned);
    let mut found = BTreeSet::new();
    for scope in scan("broker/table.rs", &module, false, code).scopes {
        for import in scope.imports {
            let all = if import.name.is_none() { "::*" } else { "" };
            found.insert(import.path.join("::") + all);
        }
        found.extend(scope.paths.iter().map(|path| path.join("::")));
    }
    found.into_iter().collect()
}

#[test]
fn every_form_of_a_path_is_found() {
    for (code, expected) in [
        ("use crate::broker;", &["crate::broker"][..]),
        ("use crate::{broker::{Mode}, server};", &["crate::broker::Mode", "crate::server"]),
        (
            "use crate::{broker::{name::{A, B}, Mode}, server::{self, Config}};",
            &[
                "crate::broker::Mode",
                "crate::broker::name::A",
                "crate::broker::name::B",
                "crate::server",
                "crate::server::Config",
            ],
        ),
        ("use ::lockd::{client};", &["lockd::client"]),
        ("use lockd as l; use crate::{self as c};", &["crate", "lockd"]),
        ("use lockd::client::{Session as S, url};", &["lockd::client::Session", "lockd::client::url"]),
        ("pub(crate) use crate::server as broker;", &["crate::server"]),
        ("use crate::*; use crate::server::*;", &["crate::*", "crate::server::*"]),
        ("use crate::{*, thread::Thread};", &["crate::*", "crate::thread::Thread"]),
        (
            "use {crate::tls, std::io, crate::fork::{Epoch}};",
            &["crate::fork::Epoch", "crate::tls", "std::io"],
        ),
        ("use crate\n    ::\n    server\n    ::Config;", &["crate::server::Config"]),
        ("use /* of old */ crate /* :: */ :: /* crate::http */ server;", &["crate::server"]),
        (
            "fn f() { let x: crate::server::Config = crate::client::connect::<crate::tls::Files>(); }",
            &["crate::client::connect", "crate::server::Config", "crate::tls::Files"],
        ),
        ("impl<T: crate::socket::Stream> From<a::B> for T {}", &["a::B", "crate::socket::Stream"]),
        ("println!(\"{}\", crate::http::page(&x::y));", &["crate::http::page", "x::y"]),
        ("macro_rules! m { () => { $crate::server::f() } }", &["crate::server::f"]),
        ("macro_rules! m { () => { use $crate::server::f; } }", &["crate::server::f"]),
        ("fn f() { use crate::server::g; g() }", &["crate::server::g"]),
        ("#[cfg(feature = \"x\")] #[doc = \"crate::no\"] use crate::ffi;", &["crate::ffi"]),
        ("struct S { #[serde(default, with = \"crate::hex\")] x: u8 }", &["crate::hex::*"]),
        ("// use crate::server;\n/* crate::server */ /// crate::server\nstruct S;", &[]),
        ("const T: &str = \"crate::server\"; const R: &str = r#\"crate::\"server\"\"#;", &[]),
        ("const C: char = ':'; fn f<'a>(x: &'a crate::tls::X) {}", &["crate::tls::X"]),
        ("use super::super::server;", &["super::super::server"]),
        ("use super::{super::server, table};", &["super::super::server", "super::table"]),
        ("use self::queue::Queue;", &["self::queue::Queue"]),
        ("use queue::Queue; fn f() { queue::g(); }", &["queue::Queue", "queue::g"]),
        ("pub(in crate::client) fn f(pub(super) x: u8) {}", &[]),
        ("fn f(self) -> impl T + use<'_> { self.server::<u8>().x::<y::Z>() }", &["y::Z"]),
        (
            "fn f() { <T as crate::server::A>::g(); Vec::<crate::tls::B>::new() }",
            &["crate::server::A", "crate::tls::B"],
        ),
        ("match x { A { crate_: _ } => y, B => crate::server::z }", &["crate::server::z"]),
        ("fn f() { for x in 0..crate::server::MAX {} }", &["crate::server::MAX"]),
    ] {
        assert_eq!(found(code), expected, "{code}");
    }
}

#[test]
fn an_import_leads_to_the_file_that_defines_the_item() {
    for code in [
        "use crate::a::b::X;",
        "use crate::a::X;",
        "use crate::a::Y;",
        "use crate::a; type T = a::X;",
        "use crate::{self as root}; type T = root::a::X;",
        "use super::a::{b as other}; type T = other::X;",
        "use crate::a::*; type T = X;",
        "pub use crate::a::X; type T = X;",
        "use crate::a::X::V;",
        "fn f() { use super::a::b::X as Z; }",
        "mod inner { pub mod more { use super::super::super::a::X; } }",
        "struct S { #[serde(with = \"crate::a::b\")] x: u8 }",
        "fn f() { let _ = crate::a::b::unknown(); }",
        "fn f() { made!(); }",
    ] {
        let sources = [
            ("lib.rs", "mod a; mod user; mod unused;"),
            ("a/mod.rs", "mod b; pub use b::*; pub use b::X as Y; pub use extern_crate::z;"),
            ("a/b.rs", "pub enum X { V } macro_rules! made { () => {} }"),
            ("user.rs", code),
            ("unused.rs", "use std::io; pub struct X; pub mod inner { use super::X; }"),
        ];
        assert_eq!(edges(&sources), ["user>a/b"], "{code}");
    }
}

#[test]
fn the_name_of_the_library_is_that_of_a_crate_only_in_the_program() {
    for (code, expected) in [
        ("type T = lockd::a::X;", &["main>a"][..]),
        ("use lockd::*; type T = a::X;", &["main>a"]),
        ("fn f() { ::lockd::a::unknown() }", &["main>a"]),
        ("mod b; fn f() { b::lockd::g() }", &["main>b/lockd"]),
    ] {
        let mut sources = vec![("lib.rs", "pub mod a;"), ("a.rs", "pub struct X;"), ("main.rs", code)];
        if code.contains("mod b") {
            sources.extend([("b.rs", "pub mod lockd;"), ("b/lockd.rs", "pub fn g() {}")]);
        }
        assert_eq!(edges(&sources), expected, "{code}");
    }
    let text = [
        ("lib.rs", "mod text; mod user;"),
        ("text/mod.rs", "pub mod lockd;"),
        ("text/lockd.rs", "pub struct Reply;"),
        ("user.rs", "use crate::text::lockd; type T = lockd::Reply;"),
    ];
    assert_eq!(edges(&text), ["user>text/lockd"]);
}

#[test]
fn declarations_re_exports_and_tests_are_not_uses() {
    for code in [
        "mod b; pub use b::X;",
        "mod b; pub(crate) use self::b::{X as Y};",
        "mod b; use crate::a::b;",
        "mod b; pub use b::*;",
        "mod b; pub(in crate::a::b) struct S;",
        "mod b; #[cfg(test)] mod tests { use super::b::X; }",
        "mod b; #[cfg(test)] use b::X; #[cfg(test)] fn f(x: X) {} #[cfg(fuzzing)] fn g() { b::f(); }",
        "mod b; impl S { #[cfg(all(test, explore = \"loom\"))] fn f() { b::f(); } }",
        "mod b; fn f(s: T) { s.X() }",
    ] {
        let sources = [("lib.rs", "mod a;"), ("a.rs", code), ("a/b.rs", "pub struct X; pub fn f() {}")];
        assert_eq!(edges(&sources), [""; 0], "{code}");
    }
    for code in [
        "mod b; use b::X;",
        "mod b; pub use b::X; fn f(x: X) {}",
        "mod b; #[cfg(not(test))] use b::X;",
        "mod b; fn f() { b::f() } #[cfg(test)] mod tests {}",
    ] {
        let sources = [("lib.rs", "mod a;"), ("a.rs", code), ("a/b.rs", "pub struct X; pub fn f() {}")];
        assert_eq!(edges(&sources), ["a>a/b"], "{code}");
    }
}

#[test]
fn cycles_are_found_also_through_re_exports() {
    let cycles_in = |sources: &[(&str, &str)]| {
        let tree = Tree::new(&files(sources)).expect("a whole tree");
        let cycles = cycles(&tree.edges()).into_iter();
        cycles.map(|cycle| cycle.into_iter().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
    };
    // The parent only re-exports what one child needs of another.
    let parent = ("lib.rs", "mod a; mod b; mod c; pub use a::A; use b::B; pub(crate) use c::C;");
    let straight = [
        parent,
        ("a.rs", "pub struct A(crate::B);"),
        ("b.rs", "pub struct B;"),
        ("c.rs", "use super::A; pub struct C(A);"),
    ];
    assert_eq!(cycles_in(&straight), [""; 0]);
    let round =
        [parent, ("a.rs", "pub struct A(crate::B);"), ("b.rs", "pub struct B(super::C);"), straight[3]];
    assert_eq!(cycles_in(&round), ["a.rs b.rs c.rs"]);
    let with_parent =
        [("lib.rs", "mod a; fn f() { a::g() } pub const N: u8 = 1;"), ("a.rs", "fn g() -> u8 { crate::N }")];
    assert_eq!(cycles_in(&with_parent), ["a.rs lib.rs"]);
    let two = [
        ("lib.rs", "mod a; mod b; mod c; mod d;"),
        ("a.rs", "use crate::b::B; struct A; fn f() { crate::c::g() }"),
        ("b.rs", "struct B(super::a::A);"),
        ("c.rs", "fn g() { crate::d::h() }"),
        ("d.rs", "use super::*; fn h() { c::g() }"),
    ];
    assert_eq!(cycles_in(&two), ["a.rs b.rs", "c.rs d.rs"]);
}

#[test]
fn every_file_belongs_to_a_module() {
    let sources = [
        ("lib.rs", "mod a; #[path = \"else/where.rs\"] mod b; mod c { mod d; }"),
        ("main.rs", "mod cli;"),
        ("cli/mod.rs", "use lockd::a::A; use crate::cli::e::E; mod e;"),
        ("cli/e.rs", "pub struct E;"),
        (
            "a.rs",
            "pub struct A; #[cfg_attr(explore = \"loom\", path = \"fake.rs\")] mod f; mod inner { mod g; }",
        ),
        ("a/f.rs", "use crate::b::B;"),
        ("fake.rs", "use crate::a::A;"),
        ("a/inner/g.rs", ""),
        ("else/where.rs", "pub struct B;"),
        ("c/d.rs", "use super::super::a::A;"),
    ];
    assert_eq!(edges(&sources), ["a/f>else/where", "c/d>a", "cli/mod>a", "cli/mod>cli/e"]);
    let with =
        |file: &'static str, code: &'static str| Tree::new(&files(&[&sources[..], &[(file, code)]].concat()));
    assert_eq!(with("c/x.rs", "").unwrap_err(), "c/x.rs is in no module");
    assert_eq!(with("c/d.rs", "mod y;").unwrap_err(), "there is no c/d/y.rs");
}

#[test]
fn types_are_found_wherever_they_are_declared() {
    let code = "
        pub(crate) struct A; enum B {} trait C { type No; } type D = A; union E { x: u8 }
        fn f() { struct F; let union = 1; } impl C for A { type No = u8; }
        mod inner { struct G; } #[cfg(test)] mod tests { struct Test; } macro_rules! m { () => { struct $x; } }";
    let scopes = scan("x.rs", &["lockd".to_owned()], false, code).scopes;
    let types: Vec<String> =
        scopes.into_iter().filter(|scope| !scope.is_test).flat_map(|scope| scope.types).collect();
    assert_eq!(types, ["A", "B", "C", "D", "E", "F", "G"]);
}
