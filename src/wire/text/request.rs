//! What a line of either text protocol asks for. The lock commands are the same in both; `glockd`
//! has more of them. Knows names and modes, and nothing about what the commands do.

use std::borrow::Cow;
use std::time::Duration;

use crate::broker::Mode;
use crate::wire::text::lines::{split_at_space, split_command};

/// One of the two text protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextDialect {
    /// The protocol `lockd`, as the PHP original speaks it: requests never wait, and replies do not
    /// name the lock.
    Lockd,
    /// The protocol `glockd` with our extensions: replies repeat the name of the lock.
    Glockd,
}

/// One of the two modes of the text protocols.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextMode {
    /// `g`, `r`, `i`, `d` and `dump`.
    Exclusive,
    /// `sg`, `sr`, `si`, `sd` and `dump shared`.
    Shared,
}

impl From<TextMode> for Mode {
    fn from(mode: TextMode) -> Self {
        match mode {
            TextMode::Exclusive => Self::Exclusive,
            TextMode::Shared => Self::Shared,
        }
    }
}

impl From<Mode> for TextMode {
    /// Limited locks have several holders, so they are shown as shared.
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Exclusive => Self::Exclusive,
            Mode::Limited(_) | Mode::Shared => Self::Shared,
        }
    }
}

/// A request: one line.
///
/// Names are trimmed, and white space within them is folded. The empty name is a name to the lock
/// commands. Commands that need no name have `None` instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextRequest<'a> {
    /// `g NAME`, `sg NAME`: acquire the lock, or be refused at once.
    Acquire {
        /// Exclusive for `g`, shared for `sg`.
        mode: TextMode,
        /// The lock.
        name: Cow<'a, [u8]>,
    },
    /// `r NAME`, `sr NAME`: release the lock.
    Release {
        /// Exclusive for `r`, shared for `sr`.
        mode: TextMode,
        /// The lock.
        name: Cow<'a, [u8]>,
    },
    /// `i NAME`, `si NAME`: how many sessions hold the lock?
    Inspect {
        /// Exclusive for `i`, shared for `si`.
        mode: TextMode,
        /// The lock.
        name: Cow<'a, [u8]>,
    },
    /// `q`: the statistics.
    Statistics {
        /// `q full` in `lockd`: the locks and their holders too. Any other word after `q` is
        /// ignored. Always false in `glockd`.
        full: bool,
    },
    /// `gw SECONDS NAME`, `sgw SECONDS NAME` (an extension of `glockd`): wait for the lock.
    AcquireWaiting {
        /// Exclusive for `gw`, shared for `sgw`.
        mode: TextMode,
        /// The lock.
        name: Cow<'a, [u8]>,
        /// The longest time to wait; `None` is without limit. A number of seconds that does not fit
        /// is [`Duration::MAX`], which no clock can be moved ahead by.
        limit: Option<Duration>,
    },
    /// `gw` or `sgw` without a readable time limit. Holds everything after the command. It gets a
    /// reply ([`TextReply::InvalidWait`](super::TextReply::InvalidWait)), because its client waits
    /// for one line.
    InvalidWait(Cow<'a, [u8]>),
    /// `t NAME` (an extension of `glockd`): the fencing token of a lock that the session holds.
    Token(Cow<'a, [u8]>),
    /// `me` in `glockd`: the address and the name of this connection.
    Me,
    /// `iam NAME` in `glockd`: register a name for this connection, or reset it.
    Iam(Option<Cow<'a, [u8]>>),
    /// `who [NAME]` in `glockd`: the connections with a registered name, or with this one.
    Who(Option<Cow<'a, [u8]>>),
    /// `d [NAME]`, `sd [NAME]` in `glockd`: the locks, or this one, and their holders.
    List {
        /// Exclusive for `d`, shared for `sd`.
        mode: TextMode,
        /// The only lock asked for.
        name: Option<Cow<'a, [u8]>>,
    },
    /// `dump`, `dump shared` in `glockd`: all locks in one line. Any other word after `dump` is
    /// ignored.
    Dump {
        /// Shared for `dump shared`, else exclusive.
        mode: TextMode,
    },
    /// `help` (an extension of `glockd`): the commands.
    Help,
    /// Any other line. It is counted and gets no reply.
    Invalid,
}

impl TextDialect {
    /// Reads a line. It may still end in `\r`.
    #[must_use]
    pub fn parse(self, line: &[u8]) -> TextRequest<'_> {
        let (command, name) = split_command(line);
        let (exclusive, shared) = (TextMode::Exclusive, TextMode::Shared);
        match command {
            b"g" => TextRequest::Acquire { mode: exclusive, name },
            b"r" => TextRequest::Release { mode: exclusive, name },
            b"i" => TextRequest::Inspect { mode: exclusive, name },
            b"sg" => TextRequest::Acquire { mode: shared, name },
            b"sr" => TextRequest::Release { mode: shared, name },
            b"si" => TextRequest::Inspect { mode: shared, name },
            b"q" => TextRequest::Statistics { full: self == Self::Lockd && *name == *b"full" },
            _ if self == Self::Glockd => parse_glockd(command, name),
            _ => TextRequest::Invalid,
        }
    }
}

/// Reads a command that only `glockd` has. Anything after `me` and `help` is ignored.
fn parse_glockd<'a>(command: &[u8], name: Cow<'a, [u8]>) -> TextRequest<'a> {
    let (exclusive, shared) = (TextMode::Exclusive, TextMode::Shared);
    match command {
        b"gw" => parse_wait(exclusive, name),
        b"sgw" => parse_wait(shared, name),
        b"t" => TextRequest::Token(name),
        b"me" => TextRequest::Me,
        b"iam" => TextRequest::Iam(non_empty(name)),
        b"who" => TextRequest::Who(non_empty(name)),
        b"d" => TextRequest::List { mode: exclusive, name: non_empty(name) },
        b"sd" => TextRequest::List { mode: shared, name: non_empty(name) },
        b"dump" => TextRequest::Dump { mode: if *name == *b"shared" { shared } else { exclusive } },
        b"help" => TextRequest::Help,
        _ => TextRequest::Invalid,
    }
}

fn non_empty(name: Cow<'_, [u8]>) -> Option<Cow<'_, [u8]>> {
    (!name.is_empty()).then_some(name)
}

/// Reads `SECONDS NAME`. If there is no name, it is the empty one.
fn parse_wait(mode: TextMode, rest: Cow<'_, [u8]>) -> TextRequest<'_> {
    let (seconds, _) = split_at_space(&rest).unwrap_or((&rest, b""));
    let Some(limit) = parse_seconds(seconds) else { return TextRequest::InvalidWait(rest) };
    let name_start = seconds.len() + 1;
    let name = match rest {
        Cow::Borrowed(rest) => Cow::Borrowed(rest.get(name_start..).unwrap_or_default()),
        Cow::Owned(rest) => Cow::Owned(rest.get(name_start..).unwrap_or_default().to_vec()),
    };
    TextRequest::AcquireWaiting { mode, name, limit }
}

/// Reads a decimal number of seconds, or `-` for no limit (the inner `None`).
fn parse_seconds(text: &[u8]) -> Option<Option<Duration>> {
    if text == b"-" {
        return Some(None);
    }
    // Rust reads numbers that the protocol does not have: `inf`, `nan`, `1e3`, `+1`.
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
    use TextDialect::{Glockd, Lockd};
    use TextMode::{Exclusive, Shared};

    fn name(text: &str) -> Cow<'_, [u8]> {
        Cow::Borrowed(text.as_bytes())
    }

    #[test]
    fn both_dialects_read_the_lock_commands() {
        let cases = [
            ("g two words", TextRequest::Acquire { mode: Exclusive, name: name("two words") }),
            ("r two words\r", TextRequest::Release { mode: Exclusive, name: name("two words") }),
            (" i  two \t words ", TextRequest::Inspect { mode: Exclusive, name: name("two words") }),
            ("sg two words", TextRequest::Acquire { mode: Shared, name: name("two words") }),
            ("sr foo", TextRequest::Release { mode: Shared, name: name("foo") }),
            ("si", TextRequest::Inspect { mode: Shared, name: name("") }),
            ("g", TextRequest::Acquire { mode: Exclusive, name: name("") }),
            ("q", TextRequest::Statistics { full: false }),
            ("q fuller", TextRequest::Statistics { full: false }),
            ("", TextRequest::Invalid),
            ("G foo", TextRequest::Invalid),
            ("gx foo", TextRequest::Invalid),
            ("g\tfoo", TextRequest::Invalid),
        ];
        for (line, request) in cases {
            for dialect in [Lockd, Glockd] {
                assert_eq!(dialect.parse(line.as_bytes()), request, "{dialect:?} {line:?}");
            }
        }
    }

    #[test]
    fn only_lockd_has_full_statistics() {
        assert_eq!(Lockd.parse(b"q full\r"), TextRequest::Statistics { full: true });
        assert_eq!(Glockd.parse(b"q full\r"), TextRequest::Statistics { full: false });
    }

    #[test]
    fn only_glockd_reads_the_other_commands() {
        let cases = [
            ("t foo", TextRequest::Token(name("foo"))),
            ("me and more", TextRequest::Me),
            ("iam the  one", TextRequest::Iam(Some(name("the one")))),
            ("iam \r", TextRequest::Iam(None)),
            ("who", TextRequest::Who(None)),
            ("who foo", TextRequest::Who(Some(name("foo")))),
            ("d", TextRequest::List { mode: Exclusive, name: None }),
            ("d foo", TextRequest::List { mode: Exclusive, name: Some(name("foo")) }),
            ("sd foo", TextRequest::List { mode: Shared, name: Some(name("foo")) }),
            ("dump", TextRequest::Dump { mode: Exclusive }),
            ("dump  shared", TextRequest::Dump { mode: Shared }),
            ("dump exclusive", TextRequest::Dump { mode: Exclusive }),
            ("dump shared foo", TextRequest::Dump { mode: Exclusive }),
            ("help me", TextRequest::Help),
            ("dumpshared", TextRequest::Invalid),
        ];
        for (line, request) in cases {
            assert_eq!(Glockd.parse(line.as_bytes()), request, "{line:?}");
            assert_eq!(Lockd.parse(line.as_bytes()), TextRequest::Invalid, "{line:?}");
        }
    }

    fn wait(text: &str, limit: Option<Duration>, mode: TextMode) -> TextRequest<'_> {
        TextRequest::AcquireWaiting { mode, name: name(text), limit }
    }

    #[test]
    fn a_wait_has_a_limit_and_a_name() {
        let seconds = |seconds: f64| Some(Duration::from_secs_f64(seconds));
        let cases = [
            ("gw 1 foo", wait("foo", seconds(1.0), Exclusive)),
            ("sgw 0.5 foo", wait("foo", seconds(0.5), Shared)),
            ("gw .5 two  words", wait("two words", seconds(0.5), Exclusive)),
            ("gw 5. foo", wait("foo", seconds(5.0), Exclusive)),
            ("gw 0 foo", wait("foo", seconds(0.0), Exclusive)),
            ("gw - foo", wait("foo", None, Exclusive)),
            ("sgw - - -", wait("- -", None, Shared)),
            ("gw 5", wait("", seconds(5.0), Exclusive)),
            ("gw 99999999999999999999999 foo", wait("foo", Some(Duration::MAX), Exclusive)),
        ];
        for (line, request) in cases {
            assert_eq!(Glockd.parse(line.as_bytes()), request, "{line:?}");
        }
        let beyond_f64 = format!("gw {} foo", "9".repeat(400));
        assert_eq!(Glockd.parse(beyond_f64.as_bytes()), wait("foo", Some(Duration::MAX), Exclusive));
    }

    #[test]
    fn a_wait_without_a_readable_limit_is_an_invalid_wait() {
        for rest in
            ["", "foo", "-1 foo", "nan foo", "inf foo", "1e3 foo", "+1 foo", ". foo", "1.2.3 foo", "-- x"]
        {
            for command in ["gw", "sgw"] {
                let line = format!("{command} {rest}");
                assert_eq!(Glockd.parse(line.as_bytes()), TextRequest::InvalidWait(name(rest)), "{line:?}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_line_is_read(
            command in "g|r|i|sg|sr|si|gw|sgw|t|me|iam|who|d|sd|dump|q|help|[a-z]{0,4}",
            rest: Vec<u8>,
        ) {
            let line = [command.as_bytes(), b" ", &rest].concat();
            // If only white space follows the command, no space is left to end it.
            prop_assume!(split_command(&line).0 == command.as_bytes());
            for (dialect, known) in
                [(Lockd, "g r i sg sr si q"), (Glockd, "g r i sg sr si gw sgw t me iam who d sd dump q help")]
            {
                let is_known = known.split(' ').any(|known| known == command);
                prop_assert_eq!(dialect.parse(&line) == TextRequest::Invalid, !is_known);
            }
        }

        #[test]
        fn any_number_of_seconds_is_a_limit(seconds in "[0-9]{1,30}(\\.[0-9]{0,30})?") {
            let line = format!("gw {seconds} foo");
            let request = Glockd.parse(line.as_bytes());
            let TextRequest::AcquireWaiting { limit, .. } = request else { panic!("{line:?}") };
            prop_assert!(limit.is_some());
        }
    }
}
