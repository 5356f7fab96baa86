//! The locks of the outer `lockd run`s that this one runs under, as the environment lists them.
//! None of these locks is released before this process ends, so a wait for one of them would last
//! for ever.
//!
//! The variable alone proves nothing: a daemon keeps its environment after the `lockd run` that
//! started it has ended. So a name counts as held only if the server shows that it is held with the
//! fencing token in the variable.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;

use lockd::Session;
use lockd::broker::Mode;
use lockd::wire::message::{ListedHolder, ListedLock};

/// The variable. It has one `TOKEN:NAME,NAME…` for each outer `lockd run`, the innermost last,
/// separated by spaces. In a name, every byte that is not a letter, a digit or one of `-._/` is
/// written as `%` and two hexadecimal digits.
pub(super) const VARIABLE: &str = "LOCKD_HELD";

/// The longest value of the variable, in bytes. A command that starts itself over and over would
/// otherwise end up with an environment that is too long to start any process.
const LENGTH_MAX: usize = 16 << 10;

/// The locks of the outer `lockd run`s, the innermost last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ancestors(Vec<AncestorLocks>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct AncestorLocks {
    token: u64,
    names: Vec<Vec<u8>>,
}

impl Ancestors {
    pub(super) fn of_environment() -> Self {
        std::env::var_os(VARIABLE).map_or_else(Self::default, |text| Self::parse(&text))
    }

    /// Parts that cannot be parsed are left out. Then a wait may last for ever, as it would without
    /// the variable.
    fn parse(text: &OsStr) -> Self {
        let levels = text.to_str().unwrap_or_default().split_ascii_whitespace();
        Self(levels.filter_map(AncestorLocks::parse).collect())
    }

    /// The first of `names` that an outer `lockd run` holds, according to the server, so that a
    /// request in `mode` would wait for it. `None` also if the server does not let clients list
    /// locks.
    pub(super) fn held_name(&self, session: &Session, names: &[OsString], mode: Mode) -> Option<OsString> {
        let is_held = |name: &&OsString| {
            let tokens = self.tokens(name.as_bytes());
            if tokens.is_empty() {
                return false;
            }
            // The first of all names that begin with a name is that name itself.
            let Ok(page) = session.list(name.as_bytes(), None, 1) else { return false };
            let lock = page.locks.first();
            lock.filter(|lock| lock.name().is_some_and(|listed| listed.as_bytes() == name.as_bytes()))
                .is_some_and(|lock| waits_for_holders(lock, &tokens, mode))
        };
        names.iter().find(is_held).cloned()
    }

    /// The tokens with which outer `lockd run`s may hold `name`.
    fn tokens(&self, name: &[u8]) -> Vec<u64> {
        let levels = self.0.iter().filter(|level| level.names.iter().any(|own| own == name));
        levels.map(|level| level.token).collect()
    }

    /// The variable for a command that runs under these locks and under `names`. If it would be too
    /// long, the outermost locks are left out.
    pub(super) fn with(&self, token: u64, names: &[OsString]) -> String {
        let own = AncestorLocks { token, names: names.iter().map(|name| name.as_bytes().to_vec()).collect() };
        let mut text = String::new();
        for level in std::iter::once(&own).chain(self.0.iter().rev()) {
            let level = level.to_text();
            if text.len() + level.len() >= LENGTH_MAX {
                break;
            }
            text = if text.is_empty() { level } else { format!("{level} {text}") };
        }
        text
    }
}

/// Whether a request in `mode` cannot be granted before one of the holders with these tokens goes:
/// they do not allow one more holder, or somebody waits ahead of it for whom that is so.
fn waits_for_holders(lock: &ListedLock, tokens: &[u64], mode: Mode) -> bool {
    let holders: Vec<&ListedHolder> =
        lock.holders.iter().filter(|holder| tokens.contains(&holder.token)).collect();
    let of_holder = |holder: &&ListedHolder| match holder.limit {
        Some(limit) => Mode::at_most(limit),
        None => lock.mode.filter(|mode| *mode == Mode::Exclusive),
    };
    let allowed = holders.iter().filter_map(of_holder).min().unwrap_or(Mode::Shared);
    let is_blocked = |mode: Mode| !mode.min(allowed).allows(holders.len() + 1);
    !holders.is_empty() && (is_blocked(mode) || lock.waiters.iter().any(|waiter| is_blocked(waiter.mode)))
}

impl AncestorLocks {
    fn parse(text: &str) -> Option<Self> {
        let (token, names) = text.split_once(':')?;
        Some(Self { token: token.parse().ok()?, names: names.split(',').map(decode).collect::<Option<_>>()? })
    }

    fn to_text(&self) -> String {
        let names: Vec<String> = self.names.iter().map(|name| encode(name)).collect();
        format!("{}:{}", self.token, names.join(","))
    }
}

fn encode(name: &[u8]) -> String {
    let mut text = String::new();
    for &byte in name {
        if byte.is_ascii_alphanumeric() || b"-._/".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(text, "%{byte:02x}");
        }
    }
    text
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let mut parts = text.split('%');
    let mut name = parts.next()?.as_bytes().to_vec();
    for part in parts {
        name.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        name.extend(part.get(2..)?.as_bytes());
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn names_and_tokens_survive_the_environment() {
        let all: Vec<OsString> = [&b"a b"[..], b"", b"x,y:z%41\n", b"\xff\0", "größe".as_bytes()]
            .map(|name| OsString::from_vec(name.to_vec()))
            .to_vec();
        let outer = Ancestors::default().with(7, &all);
        let text = Ancestors::parse(outer.as_ref()).with(8, &["b".into()]);
        let found = Ancestors::parse(text.as_ref());
        for name in &all {
            assert_eq!(found.tokens(name.as_bytes()), [7], "{text}");
        }
        assert_eq!(found.tokens(b"b"), [8]);
        assert!(found.tokens(b"a").is_empty());
        assert!(text.is_ascii() && text.ends_with(" 8:b"), "{text}");
    }

    #[test]
    fn parts_that_cannot_be_parsed_are_left_out() {
        let found = Ancestors::parse(OsStr::new(" x 5 :a 6:%4 7:%zz 8:a  9:%61,b"));
        assert_eq!(found.tokens(b"a"), [8, 9]);
        assert_eq!(Ancestors::parse(OsStr::from_bytes(b"5:\xff")), Ancestors::default());
    }

    #[test]
    fn the_variable_never_grows_too_long() {
        let mut text = String::new();
        for token in 0..10_000 {
            text = Ancestors::parse(text.as_ref()).with(token, &["backup".into()]);
        }
        assert!(text.len() < LENGTH_MAX && text.ends_with(" 9999:backup"));
        let long = OsString::from("a".repeat(LENGTH_MAX));
        assert_eq!(Ancestors::parse(text.as_ref()).with(1, &[long]), "");
    }
}
