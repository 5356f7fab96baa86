//! The `glockd` protocol with our extensions: what its lines mean, and the replies, which repeat the
//! name they are about. Knows lines and names; the lists and counters it prints are given to it.

use std::borrow::Cow;
use std::time::Duration;

use crate::wire::text::lines::{split_at_space, split_command};

mod replies;
pub use replies::{DumpEncoder, HELP, Reply, Statistics, encode_pair};

/// A request: one line.
///
/// The names are trimmed and folded. The empty name is a name to the lock commands; those that may
/// go without a name have `None` for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// `g NAME`: get the exclusive lock, or be refused at once.
    Acquire(Cow<'a, [u8]>),
    /// `r NAME`: release the exclusive lock.
    Release(Cow<'a, [u8]>),
    /// `i NAME`: is it locked exclusively?
    Inspect(Cow<'a, [u8]>),
    /// `sg NAME`: get the counted shared lock.
    AcquireShared(Cow<'a, [u8]>),
    /// `sr NAME`: release the counted shared lock.
    ReleaseShared(Cow<'a, [u8]>),
    /// `si NAME`: how many hold the shared lock?
    InspectShared(Cow<'a, [u8]>),
    /// `gw SECONDS NAME` or `sgw SECONDS NAME` (an extension): wait for the lock.
    AcquireWaiting {
        /// The name.
        name: Cow<'a, [u8]>,
        /// How long to wait at most; `None` is without limit. More seconds than a [`Duration`] can
        /// hold are [`Duration::MAX`], which no clock can be moved ahead by.
        limit: Option<Duration>,
        /// Whether it is `sgw`.
        shared: bool,
    },
    /// `gw` or `sgw` without a time limit that can be read. Holds all that stood behind the command.
    /// It is answered ([`Reply::InvalidWait`]), since its client waits for one line.
    InvalidWait(Cow<'a, [u8]>),
    /// `t NAME` (an extension): the fencing token of a lock the asker holds.
    Token(Cow<'a, [u8]>),
    /// `me`: the asker's address and name.
    Me,
    /// `iam NAME`: register a name for the connection, or reset it.
    Iam(Option<Cow<'a, [u8]>>),
    /// `who [NAME]`: the connections with a registered name, or with this one.
    Who(Option<Cow<'a, [u8]>>),
    /// `d [NAME]` or `sd [NAME]`: the locks, or this one, and who holds them.
    List {
        /// The only name asked for.
        name: Option<Cow<'a, [u8]>>,
        /// Whether it is `sd`.
        shared: bool,
    },
    /// `dump` or `dump shared`: all locks in one line. Anything but `shared` after `dump` is ignored.
    Dump {
        /// Whether it is `dump shared`.
        shared: bool,
    },
    /// `q`: the counters.
    Statistics,
    /// `help` (an extension): the commands.
    Help,
    /// Anything else. It is counted and gets no reply.
    Invalid,
}

/// Reads a line. It may still end in `\r`.
///
/// Anything after `me`, `q` and `help` is ignored, and anything but `shared` after `dump`.
#[must_use]
pub fn parse(line: &[u8]) -> Request<'_> {
    let (command, name) = split_command(line);
    match command {
        b"g" => Request::Acquire(name),
        b"r" => Request::Release(name),
        b"i" => Request::Inspect(name),
        b"sg" => Request::AcquireShared(name),
        b"sr" => Request::ReleaseShared(name),
        b"si" => Request::InspectShared(name),
        b"gw" => parse_wait(name, false),
        b"sgw" => parse_wait(name, true),
        b"t" => Request::Token(name),
        b"me" => Request::Me,
        b"iam" => Request::Iam(non_empty(name)),
        b"who" => Request::Who(non_empty(name)),
        b"d" => Request::List { name: non_empty(name), shared: false },
        b"sd" => Request::List { name: non_empty(name), shared: true },
        b"dump" => Request::Dump { shared: *name == *b"shared" },
        b"q" => Request::Statistics,
        b"help" => Request::Help,
        _ => Request::Invalid,
    }
}

fn non_empty(name: Cow<'_, [u8]>) -> Option<Cow<'_, [u8]>> {
    (!name.is_empty()).then_some(name)
}

/// Reads `SECONDS NAME`; without a name it is the empty one.
fn parse_wait(rest: Cow<'_, [u8]>, shared: bool) -> Request<'_> {
    let (seconds, _) = split_at_space(&rest).unwrap_or((&rest, b""));
    let Some(limit) = parse_seconds(seconds) else { return Request::InvalidWait(rest) };
    let name_start = seconds.len() + 1;
    let name = match rest {
        Cow::Borrowed(rest) => Cow::Borrowed(rest.get(name_start..).unwrap_or_default()),
        Cow::Owned(rest) => Cow::Owned(rest.get(name_start..).unwrap_or_default().to_vec()),
    };
    Request::AcquireWaiting { name, limit, shared }
}

/// Reads a decimal number of seconds, or `-` for no limit (the inner `None`).
fn parse_seconds(text: &[u8]) -> Option<Option<Duration>> {
    if text == b"-" {
        return Some(None);
    }
    // Rust reads more as a number than the protocol does: `inf`, `nan`, `1e3`, `+1`.
    if !text.iter().all(|&byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    let seconds: f64 = str::from_utf8(text).ok()?.parse().ok()?;
    Some(Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Cow<'_, [u8]> {
        Cow::Borrowed(text.as_bytes())
    }

    fn wait(text: &str, limit: Option<Duration>, shared: bool) -> Request<'_> {
        Request::AcquireWaiting { name: name(text), limit, shared }
    }

    #[test]
    fn every_request_is_read() {
        let cases = [
            ("g two words", Request::Acquire(name("two words"))),
            ("r foo\r", Request::Release(name("foo"))),
            ("i foo", Request::Inspect(name("foo"))),
            ("sg foo", Request::AcquireShared(name("foo"))),
            ("sr foo", Request::ReleaseShared(name("foo"))),
            ("si", Request::InspectShared(name(""))),
            ("t foo", Request::Token(name("foo"))),
            ("me and more", Request::Me),
            ("iam the  one", Request::Iam(Some(name("the one")))),
            ("iam \r", Request::Iam(None)),
            ("who", Request::Who(None)),
            ("who foo", Request::Who(Some(name("foo")))),
            ("d", Request::List { name: None, shared: false }),
            ("d foo", Request::List { name: Some(name("foo")), shared: false }),
            ("sd foo", Request::List { name: Some(name("foo")), shared: true }),
            ("dump", Request::Dump { shared: false }),
            ("dump  shared", Request::Dump { shared: true }),
            ("dump exclusive", Request::Dump { shared: false }),
            ("dump shared foo", Request::Dump { shared: false }),
            ("q full", Request::Statistics),
            ("help me", Request::Help),
            ("", Request::Invalid),
            ("dumpshared", Request::Invalid),
        ];
        for (line, request) in cases {
            assert_eq!(parse(line.as_bytes()), request, "{line:?}");
        }
    }

    #[test]
    fn a_wait_has_a_limit_and_a_name() {
        let seconds = |seconds: f64| Some(Duration::from_secs_f64(seconds));
        let cases = [
            ("gw 1 foo", wait("foo", seconds(1.0), false)),
            ("sgw 0.5 foo", wait("foo", seconds(0.5), true)),
            ("gw .5 two  words", wait("two words", seconds(0.5), false)),
            ("gw 5. foo", wait("foo", seconds(5.0), false)),
            ("gw 0 foo", wait("foo", seconds(0.0), false)),
            ("gw - foo", wait("foo", None, false)),
            ("sgw - - -", wait("- -", None, true)),
            ("gw 5", wait("", seconds(5.0), false)),
            ("gw 99999999999999999999999 foo", wait("foo", Some(Duration::MAX), false)),
        ];
        for (line, request) in cases {
            assert_eq!(parse(line.as_bytes()), request, "{line:?}");
        }
        let endless = format!("gw {} foo", "9".repeat(400));
        assert_eq!(parse(endless.as_bytes()), wait("foo", Some(Duration::MAX), false), "beyond f64");
    }

    #[test]
    fn a_wait_without_a_readable_limit_is_told_apart() {
        for rest in
            ["", "foo", "-1 foo", "nan foo", "inf foo", "1e3 foo", "+1 foo", ". foo", "1.2.3 foo", "-- x"]
        {
            for command in ["gw", "sgw"] {
                let line = format!("{command} {rest}");
                assert_eq!(parse(line.as_bytes()), Request::InvalidWait(name(rest)), "{line:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read(
            command in "g|r|i|sg|sr|si|gw|sgw|t|me|iam|who|d|sd|dump|q|help|[a-z]{0,4}",
            rest: Vec<u8>,
        ) {
            let known = "g r i sg sr si gw sgw t me iam who d sd dump q help";
            let is_known = known.split(' ').any(|known| known == command);
            let line = [command.as_bytes(), b" ", &rest].concat();
            // Behind the command white space may follow alone; then there is no space to end it.
            prop_assume!(split_command(&line).0 == command.as_bytes());
            prop_assert_eq!(parse(&line) == Request::Invalid, !is_known);
        }

        #[test]
        fn any_number_of_seconds_is_a_limit(seconds in "[0-9]{1,30}(\\.[0-9]{0,30})?") {
            let line = format!("gw {seconds} foo");
            let Request::AcquireWaiting { limit, .. } = parse(line.as_bytes()) else { panic!("{line:?}") };
            prop_assert!(limit.is_some());
        }
    }
}
