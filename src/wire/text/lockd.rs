//! The `lockd` protocol, as the PHP original speaks it: requests that never wait, and replies that
//! name no lock. Knows lines and names; the counters and lists it prints are given to it.

use std::borrow::Cow;

use crate::wire::text::lines::split_command;
use crate::wire::{push_decimal, push_in_line};

/// A request: one line.
///
/// The names are trimmed and folded; the empty name is one too.
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
    /// `q` or `q full`. Anything but `full` after `q` is ignored.
    Statistics {
        /// Whether the locks and their holders are wanted too.
        full: bool,
    },
    /// Anything else. It is counted and gets no reply.
    Invalid,
}

/// Reads a line. It may still end in `\r`.
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
        b"q" => Request::Statistics { full: *name == *b"full" },
        _ => Request::Invalid,
    }
}

/// A reply of one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To `g`: whether the lock was granted.
    Acquire(bool),
    /// To `r` and `sr`: whether there was a lock to release.
    Release(bool),
    /// To `i`: whether it is locked.
    Inspect(bool),
    /// To `sg`.
    AcquireShared {
        /// Refused only if shared and exclusive locks exclude each other.
        granted: bool,
        /// How many hold it now; of no meaning when refused.
        holders: usize,
    },
    /// To `si`: how many hold it.
    InspectShared(usize),
    /// To a line longer than the limit.
    LineTooLong,
}

impl Reply {
    /// Appends the line, ended by `\r\n`.
    pub fn encode(self, out: &mut Vec<u8>) {
        let text: &[u8] = match self {
            Self::Acquire(true) => b"1 Got Lock",
            Self::Acquire(false) | Self::AcquireShared { granted: false, .. } => b"0 Cannot Get Lock",
            Self::Release(true) => b"1 Released Lock",
            Self::Release(false) => b"0 Cannot Release Lock",
            Self::Inspect(true) => b"1 Locked",
            Self::Inspect(false) | Self::InspectShared(0) => b"0 Not Locked",
            Self::LineTooLong => b"0 Line Too Long",
            Self::AcquireShared { granted: true, holders } => {
                push_decimal(out, holders);
                b" Got Lock"
            }
            Self::InspectShared(holders) => {
                push_decimal(out, holders);
                b" Locked"
            }
        };
        out.extend_from_slice(text);
        out.extend_from_slice(b"\r\n");
    }
}

/// What `q` tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// The process id of the server.
    pub pid: u32,
    /// Connections open now.
    pub conns: u64,
    /// Names held now.
    pub locks: u64,
    /// Locks freed by a lost connection since the start.
    pub orphans: u64,
    /// Commands since the start, the invalid ones included.
    pub commands: u64,
    /// Of these `g`.
    pub command_g: u64,
    /// Of these `r`.
    pub command_r: u64,
    /// Of these `i`.
    pub command_i: u64,
    /// Of these `sg`.
    pub command_sg: u64,
    /// Of these `sr`.
    pub command_sr: u64,
    /// Of these `si`.
    pub command_si: u64,
    /// Of these `q`.
    pub command_q: u64,
}

impl Statistics {
    /// Appends the figures as PHP's `print_r` prints an array, in the original's order.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let figures: [(&[u8], u64); 12] = [
            (b"pid", self.pid.into()),
            (b"conns", self.conns),
            (b"locks", self.locks),
            (b"orphans", self.orphans),
            (b"commands", self.commands),
            (b"command_g", self.command_g),
            (b"command_r", self.command_r),
            (b"command_i", self.command_i),
            (b"command_sg", self.command_sg),
            (b"command_sr", self.command_sr),
            (b"command_si", self.command_si),
            (b"command_q", self.command_q),
        ];
        open_array(out, 0);
        for (key, figure) in figures {
            push_key(out, 0, key);
            push_decimal(out, figure);
            out.push(b'\n');
        }
        close_array(out, 0);
    }
}

/// The second array of `q full`, written piece by piece as PHP's `print_r` prints nested arrays: first each
/// lock, then each holder of shared ones.
pub struct DetailsEncoder(());

impl DetailsEncoder {
    /// Begins the array, and the one of locks in it.
    #[must_use]
    pub fn start(out: &mut Vec<u8>) -> Self {
        open_array(out, 0);
        push_key(out, 0, b"locks");
        open_array(out, 1);
        Self(())
    }

    /// A lock and its holder.
    pub fn lock(&self, out: &mut Vec<u8>, name: &[u8], holder: &[u8]) {
        push_key(out, 1, name);
        out.extend_from_slice(holder);
        out.push(b'\n');
    }

    /// A shared lock and its count.
    pub fn shared_lock(&self, out: &mut Vec<u8>, name: &[u8], holders: usize) {
        self.lock(out, &[b"s:", name].concat(), holders.to_string().as_bytes());
    }

    /// Ends the locks and begins the shares.
    pub fn begin_shares(&self, out: &mut Vec<u8>) {
        close_array(out, 1);
        out.push(b'\n');
        push_key(out, 0, b"shares");
        open_array(out, 1);
    }

    /// Begins the array of a holder of shared locks.
    pub fn begin_holder(&self, out: &mut Vec<u8>, holder: &[u8]) {
        push_key(out, 1, holder);
        open_array(out, 2);
    }

    /// A shared lock of that holder; they are numbered from 0 up.
    pub fn share(&self, out: &mut Vec<u8>, number: usize, name: &[u8]) {
        push_key(out, 2, number.to_string().as_bytes());
        push_in_line(out, name);
        out.push(b'\n');
    }

    /// Ends the array of that holder.
    pub fn end_holder(&self, out: &mut Vec<u8>) {
        close_array(out, 2);
        out.push(b'\n');
    }

    /// Ends the array.
    pub fn end(self, out: &mut Vec<u8>) {
        close_array(out, 1);
        out.push(b'\n');
        close_array(out, 0);
    }
}

/// Begins an array as PHP's `print_r` does, `depth` arrays deep: eight columns for each level, and an empty line
/// behind a nested one (its own newline and that of the entry it stands in).
fn open_array(out: &mut Vec<u8>, depth: usize) {
    out.extend_from_slice(b"Array\n");
    push_indented(out, 8 * depth, b"(\n");
}

fn push_key(out: &mut Vec<u8>, depth: usize, key: &[u8]) {
    push_indented(out, 8 * depth + 4, b"[");
    push_in_line(out, key);
    out.extend_from_slice(b"] => ");
}

fn close_array(out: &mut Vec<u8>, depth: usize) {
    push_indented(out, 8 * depth, b")\n");
}

fn push_indented(out: &mut Vec<u8>, columns: usize, text: &[u8]) {
    out.resize(out.len() + columns, b' ');
    out.extend_from_slice(text);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        encode(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_request_is_read() {
        let name = || Cow::Borrowed(&b"two words"[..]);
        let cases = [
            ("g two words", Request::Acquire(name())),
            ("r two words\r", Request::Release(name())),
            (" i  two \t words ", Request::Inspect(name())),
            ("sg two words", Request::AcquireShared(name())),
            ("sr two words", Request::ReleaseShared(name())),
            ("si two words", Request::InspectShared(name())),
            ("g", Request::Acquire(Cow::Borrowed(b""))),
            ("q", Request::Statistics { full: false }),
            ("q full\r", Request::Statistics { full: true }),
            ("q fuller", Request::Statistics { full: false }),
            ("", Request::Invalid),
            ("G foo", Request::Invalid),
            ("gx foo", Request::Invalid),
            ("g\tfoo", Request::Invalid),
        ];
        for (line, request) in cases {
            assert_eq!(parse(line.as_bytes()), request, "{line:?}");
        }
    }

    #[test]
    fn every_reply_is_the_originals() {
        let cases = [
            (Reply::Acquire(true), "1 Got Lock\r\n"),
            (Reply::Acquire(false), "0 Cannot Get Lock\r\n"),
            (Reply::Release(true), "1 Released Lock\r\n"),
            (Reply::Release(false), "0 Cannot Release Lock\r\n"),
            (Reply::Inspect(true), "1 Locked\r\n"),
            (Reply::Inspect(false), "0 Not Locked\r\n"),
            (Reply::AcquireShared { granted: true, holders: 12 }, "12 Got Lock\r\n"),
            (Reply::AcquireShared { granted: false, holders: 3 }, "0 Cannot Get Lock\r\n"),
            (Reply::InspectShared(3), "3 Locked\r\n"),
            (Reply::InspectShared(0), "0 Not Locked\r\n"),
            (Reply::LineTooLong, "0 Line Too Long\r\n"),
        ];
        for (reply, line) in cases {
            assert_eq!(encoded(|out| reply.encode(out)), line);
        }
    }

    #[test]
    fn statistics_are_what_print_r_prints() {
        let statistics = Statistics {
            pid: 123,
            conns: 1,
            locks: 2,
            orphans: 3,
            commands: 4,
            command_g: 5,
            command_r: 6,
            command_i: 7,
            command_sg: 8,
            command_sr: 9,
            command_si: 10,
            command_q: u64::MAX,
        };
        let expected = "\
Array
(
    [pid] => 123
    [conns] => 1
    [locks] => 2
    [orphans] => 3
    [commands] => 4
    [command_g] => 5
    [command_r] => 6
    [command_i] => 7
    [command_sg] => 8
    [command_sr] => 9
    [command_si] => 10
    [command_q] => 18446744073709551615
)
";
        assert_eq!(encoded(|out| statistics.encode(out)), expected);
    }

    /// Printed by PHP 8 for `print_r(["locks" => ["foo" => "a:1", "s:bar" => "2"], "shares" =>
    /// ["a:1" => ["bar", "baz"], "b:2" => []]])`.
    #[test]
    fn details_are_what_print_r_prints() {
        let details = |out: &mut Vec<u8>| {
            let encoder = DetailsEncoder::start(out);
            encoder.lock(out, b"foo", b"a:1");
            encoder.shared_lock(out, b"bar", 2);
            encoder.begin_shares(out);
            encoder.begin_holder(out, b"a:1");
            encoder.share(out, 0, b"bar");
            encoder.share(out, 1, b"baz");
            encoder.end_holder(out);
            encoder.begin_holder(out, b"b:2");
            encoder.end_holder(out);
            encoder.end(out);
        };
        let expected = "\
Array
(
    [locks] => Array
        (
            [foo] => a:1
            [s:bar] => 2
        )

    [shares] => Array
        (
            [a:1] => Array
                (
                    [0] => bar
                    [1] => baz
                )

            [b:2] => Array
                (
                )

        )

)
";
        assert_eq!(encoded(details), expected);
    }

    proptest! {
        #[test]
        fn any_line_is_read(command in "g|r|i|sg|sr|si|q|[a-z]{0,3}", rest: Vec<u8>) {
            let line = [command.as_bytes(), &rest].concat();
            let known: [&[u8]; 7] = [b"g", b"r", b"i", b"sg", b"sr", b"si", b"q"];
            prop_assert_eq!(parse(&line) == Request::Invalid, !known.contains(&split_command(&line).0));
        }
    }
}
