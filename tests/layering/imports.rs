//! Which paths a source file uses, as the compiler reads it: tokens, so that neither comments nor texts count, and
//! braces may be nested. Paths are made absolute; nothing is looked up.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::vec::IntoIter;

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The segments of a path, from the root of the crate on. `*` stands for all that is there.
pub(crate) type Found = Vec<String>;

/// What a file is of: the modules from the root down to it, the crate's own name outside, and its code.
pub(crate) struct Source<'a> {
    pub(crate) module: Vec<String>,
    pub(crate) code: &'a str,
}

type Tokens = Peekable<IntoIter<TokenTree>>;

impl Source<'_> {
    /// Every path in it that begins with `crate`, `lockd`, or as many `super` as it takes.
    pub(crate) fn paths(&self) -> BTreeSet<Found> {
        let tokens: TokenStream = self.code.parse().expect("code that can be read");
        let mut found = BTreeSet::new();
        walk(tokens, &self.module, &mut found);
        found
    }
}

/// Finds the paths in tokens that stand in this module.
fn walk(tokens: TokenStream, module: &[String], found: &mut BTreeSet<Found>) {
    let mut tokens = into_tokens(tokens);
    // The word before the last one, and whether a path goes on.
    let (mut previous, mut goes_on) = (String::new(), false);
    let mut last = String::new();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Group(group) if previous == "mod" && group.delimiter() == Delimiter::Brace => {
                walk(group.stream(), &[module, std::slice::from_ref(&last)].concat(), found);
            }
            TokenTree::Group(group) => walk(group.stream(), module, found),
            TokenTree::Ident(ident) => {
                let word = ident.to_string();
                let is_path = tokens.peek().is_some_and(is_colon);
                match base_of(&word, module) {
                    Some(base) if !goes_on && is_path => path(base, &mut tokens, found),
                    // The whole crate by another name.
                    Some(base) if base.is_empty() && last == "use" => drop(found.insert(all_of(&base))),
                    _ => {}
                }
                (previous, last) = (last, word);
                goes_on = false;
                continue;
            }
            TokenTree::Punct(punct) if punct.as_char() == ':' => {
                // A path may also begin with it.
                let is_amid = !last.is_empty() && last != "use";
                goes_on = tokens.next_if(is_colon).is_some() && is_amid;
            }
            TokenTree::Punct(_) | TokenTree::Literal(_) => goes_on = false,
        }
        (previous, last) = (String::new(), String::new());
    }
}

/// Where a path leads that begins with this word.
fn base_of(word: &str, module: &[String]) -> Option<Found> {
    match word {
        "crate" | "lockd" => Some(Vec::new()),
        "super" => Some(module.split_last().map_or_else(Vec::new, |(_, above)| above.to_vec())),
        "self" => Some(module.to_vec()),
        _ => None,
    }
}

/// Follows a path, or a tree of them, that has led to `base`.
fn path(mut base: Found, tokens: &mut Tokens, found: &mut BTreeSet<Found>) {
    while tokens.peek().is_some_and(is_colon) {
        let mut ahead = tokens.clone();
        ahead.next();
        if ahead.next_if(is_colon).is_none() {
            break;
        }
        *tokens = ahead;
        match tokens.next() {
            Some(TokenTree::Ident(ident)) if ident == "super" => drop(base.pop()),
            // The module itself, as any path to it.
            Some(TokenTree::Ident(ident)) if ident == "self" => {}
            Some(TokenTree::Ident(ident)) => base.push(ident.to_string()),
            Some(TokenTree::Punct(punct)) if punct.as_char() == '*' => base.push("*".to_owned()),
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                return tree(&base, group.stream(), found);
            }
            // Arguments of a generic type or function, which may have paths of their own.
            _ => break,
        }
    }
    if !base.is_empty() {
        found.insert(base);
    }
}

fn all_of(base: &[String]) -> Found {
    [base, &["*".to_owned()]].concat()
}

/// The branches of a tree: `{a::B, c::{D, E as F}, self, *}`.
fn tree(base: &[String], branches: TokenStream, found: &mut BTreeSet<Found>) {
    let mut tokens = into_tokens(branches);
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Ident(ident) if ident == "self" && base.is_empty() => drop(found.insert(all_of(base))),
            TokenTree::Ident(ident) if ident == "self" => drop(found.insert(base.to_vec())),
            TokenTree::Ident(ident) if ident == "as" => drop(tokens.next()),
            TokenTree::Ident(ident) if ident == "super" => {
                path(
                    base.split_last().map_or_else(Vec::new, |(_, above)| above.to_vec()),
                    &mut tokens,
                    found,
                );
            }
            TokenTree::Ident(ident) => {
                path([base, &[ident.to_string()]].concat(), &mut tokens, found);
            }
            TokenTree::Punct(punct) if punct.as_char() == '*' => drop(found.insert(all_of(base))),
            _ => {}
        }
    }
}

fn into_tokens(stream: TokenStream) -> Tokens {
    stream.into_iter().collect::<Vec<_>>().into_iter().peekable()
}

fn is_colon(token: &TokenTree) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == ':')
}

/// Every word in the code; what stands in comments and texts is none.
pub(crate) fn words(code: &str) -> BTreeSet<String> {
    fn gather(tokens: TokenStream, words: &mut BTreeSet<String>) {
        for token in tokens {
            match token {
                TokenTree::Group(group) => gather(group.stream(), words),
                TokenTree::Ident(ident) => drop(words.insert(ident.to_string())),
                TokenTree::Punct(_) | TokenTree::Literal(_) => {}
            }
        }
    }
    let mut words = BTreeSet::new();
    gather(code.parse().expect("code that can be read"), &mut words);
    words
}

#[test]
fn paths_are_found_in_every_form() {
    for (code, expected) in [
        ("use crate::broker;", &["broker"][..]),
        ("use crate::broker::Mode;", &["broker::Mode"]),
        ("use crate::{broker::{Mode}, server};", &["broker::Mode", "server"]),
        (
            "use crate::{broker::{name::{A, B}, Mode}, server::{self, Config}};",
            &["broker::Mode", "broker::name::A", "broker::name::B", "server", "server::Config"],
        ),
        ("use ::lockd::{client};", &["client"]),
        ("use lockd as l; use crate::{self as c};", &["*"]),
        ("use lockd::client::{RemoteSession as S, url};", &["client::RemoteSession", "client::url"]),
        ("pub(crate) use crate::server as broker;", &["server"]),
        ("use crate::*; use crate::server::*;", &["*", "server::*"]),
        ("use crate::{*, thread::Thread};", &["*", "thread::Thread"]),
        ("use {crate::tls, std::io, crate::fork::{Epoch}};", &["fork::Epoch", "tls"]),
        ("use crate\n    ::\n    server\n    ::Config;", &["server::Config"]),
        ("use /* of old */ crate /* :: */ :: /* crate::http */ server;", &["server"]),
        (
            "fn f() { let x: crate::server::Config = crate::client::connect::<crate::tls::Files>(); }",
            &["client::connect", "server::Config", "tls::Files"],
        ),
        (
            "impl<T: crate::socket::Stream> From<crate::state::Keeper> for T {}",
            &["socket::Stream", "state::Keeper"],
        ),
        ("println!(\"{}\", crate::http::page(&crate::cli::x));", &["cli::x", "http::page"]),
        ("macro_rules! m { () => { $crate::server::f() } }", &["server::f"]),
        ("#[cfg(test)] #[doc(alias = \"x\")] #[serde(with = \"crate::no\")] use crate::ffi;", &["ffi"]),
        ("// use crate::server;\n/* crate::server */ /// crate::server\nstruct S;", &[]),
        ("const T: &str = \"crate::server\"; const R: &str = r#\"crate::\"server\"\"#;", &[]),
        ("const C: char = ':'; fn f<'a>(x: &'a crate::tls::X) {}", &["tls::X"]),
        ("use super::super::server;", &["server"]),
        ("use super::{super::server, table};", &["broker::table", "server"]),
        ("use self::queue::Queue;", &["broker::table::queue::Queue"]),
        (
            "mod tests { use super::super::super::server; mod inner { use super::super::x; } }",
            &["broker::table::x", "server"],
        ),
        ("pub(in crate::client) fn f() {}", &["client"]),
        ("fn f() { thing.crate_(); text::lockd::server(); other::super_::x() }", &[]),
        ("fn f(self) { self.server::<u8>(); }", &[]),
        ("match x { A { crate_: _ } => y, B => crate::server::z }", &["server::z"]),
        ("let x: u8 = 1; let y = a ? crate::tls::b : c;", &["tls::b"]),
    ] {
        let module = vec!["broker".to_owned(), "table".to_owned()];
        let found: Vec<String> = Source { module, code }.paths().iter().map(|path| path.join("::")).collect();
        assert_eq!(found, expected, "{code}");
    }
}
