//! The locks of every `lockd run` that this one runs under, as the environment tells. None of them can be had until
//! this one has ended, so to wait for one would be to wait for ever.
//!
//! A variable is not proof: a daemon keeps its environment after the `lockd run` that started it has ended. So a
//! name counts as held only while the server shows it held with the fencing token that the variable has.

use std::ffi::{OsStr, OsString};
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt;

use lockd::Session;

/// The variable. Each level is `TOKEN:NAME,NAME…`, the innermost last, with spaces between them. In a name, whatever
/// is not a letter, a digit or one of `-._/` is written `%` and two hexadecimal digits for each byte.
pub(super) const VARIABLE: &str = "LOCKD_HELD";

/// How long the variable may be, in bytes: a command that is started again and again by itself must not find an
/// environment some day that is too long to start anything.
const LENGTH_MAX: usize = 16 << 10;

/// What the `lockd run`s have acquired that this one runs under.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ancestors(Vec<Level>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Level {
    token: u64,
    names: Vec<Vec<u8>>,
}

impl Ancestors {
    pub(super) fn of_environment() -> Self {
        std::env::var_os(VARIABLE).map_or_else(Self::default, |text| Self::parse(&text))
    }

    /// What makes no sense is left out: then a wait may last for ever, as it would without the variable.
    fn parse(text: &OsStr) -> Self {
        let levels = text.to_str().unwrap_or_default().split_ascii_whitespace();
        Self(levels.filter_map(Level::parse).collect())
    }

    /// The first of the names that one of them holds, as the server shows it. `None` also if it does not show
    /// anything.
    pub(super) fn held_name(&self, session: &Session, names: &[OsString]) -> Option<OsString> {
        let is_held = |name: &&OsString| {
            let tokens = self.tokens(name.as_bytes());
            if tokens.is_empty() {
                return false;
            }
            // Of the names that begin with a name the first is that name itself.
            let Ok(page) = session.list(name.as_bytes(), None, 1) else { return false };
            let lock = page.locks.first();
            lock.filter(|lock| lock.name().is_some_and(|listed| listed.as_bytes() == name.as_bytes()))
                .is_some_and(|lock| lock.holders.iter().any(|holder| tokens.contains(&holder.token)))
        };
        names.iter().find(is_held).cloned()
    }

    fn tokens(&self, name: &[u8]) -> Vec<u64> {
        let levels = self.0.iter().filter(|level| level.names.iter().any(|own| own == name));
        levels.map(|level| level.token).collect()
    }

    /// What the variable is to be for a command under these locks too. If that would be too long the outermost
    /// levels are missing.
    pub(super) fn with(&self, token: u64, names: &[OsString]) -> String {
        let own = Level { token, names: names.iter().map(|name| name.as_bytes().to_vec()).collect() };
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

impl Level {
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
            // Writing to a string does not fail.
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
    fn what_is_passed_on_is_what_is_found() {
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
    fn what_makes_no_sense_is_left_out() {
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
