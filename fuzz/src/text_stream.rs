//! What must hold for a stream of either text dialect: the lines do not depend on how the stream is
//! cut, each line means what a simple reader says, and every reply is one line.

use std::time::Duration;

use lockd::wire::text::{TextDialect, TextMode, TextReply, TextRequest};

use crate::naive_text::{self, assert_one_line, command_and_name};
use crate::pieces::Case;
use crate::reading;

const LINE_MAX: [usize; 8] = [4096, 0, 1, 2, 7, 20, 255, 100_000];

/// Checks the codec with the stream that an input describes, and returns the lines of the stream
/// without those that are too long. `None` if the input describes no stream.
///
/// # Panics
/// If the codec breaks a rule of the module's description.
pub fn check_codec(dialect: TextDialect, data: &[u8]) -> Option<Vec<Vec<u8>>> {
    let lines = lines_however_cut(dialect, data)?;
    for line in &lines {
        check_line(dialect, line);
    }
    Some(lines)
}

fn lines_however_cut(dialect: TextDialect, data: &[u8]) -> Option<Vec<Vec<u8>>> {
    let case = Case::read(data)?;
    let line_max = LINE_MAX[usize::from(case.limit) % LINE_MAX.len()];
    let expected = naive_text::lines(&case.stream, line_max);
    let mut first = None;
    for way in case.ways() {
        let read = reading::lines(&way, line_max);
        assert_eq!(read.found, expected, "the lines differ from those that a simple reader finds");
        assert_eq!(read.taken + read.left.len(), case.stream.len());
        let first = first.get_or_insert((read.taken, read.left.clone()));
        assert_eq!(*first, (read.taken, read.left), "it matters how the stream was cut");
    }
    if let Some(long) = case.long() {
        let read = reading::lines(&[&long], line_max);
        read.found.iter().flatten().for_each(|line| drop(dialect.parse(line)));
    }
    Some(expected.into_iter().flatten().collect())
}

fn check_line(dialect: TextDialect, line: &[u8]) {
    let request = dialect.parse(line);
    let (command, name) = command_and_name(line);
    match (&request, &naive_text::request(dialect, &command, &name)) {
        (
            TextRequest::AcquireWaiting { mode, name, limit },
            TextRequest::AcquireWaiting { mode: expected_mode, name: expected_name, limit: expected_limit },
        ) => {
            assert_eq!((mode, name), (expected_mode, expected_name), "{}", line.escape_ascii());
            let is_close = are_close(*limit, *expected_limit);
            assert!(is_close, "{limit:?}, {expected_limit:?}: {}", line.escape_ascii());
        }
        (_, expected) => assert_eq!(request, *expected, "{}", line.escape_ascii()),
    }
    // A request that is written in its trimmed and folded form is read the same again.
    let again = [&command[..], b" ", &name, b"\r"].concat();
    assert_eq!(dialect.parse(&again), request, "{}", line.escape_ascii());
    check_replies(dialect, &name);
}

/// Whether two time limits differ by no more than the precision of a floating-point number allows.
fn are_close(one: Option<Duration>, other: Option<Duration>) -> bool {
    let (Some(one), Some(other)) = (one, other) else { return one == other };
    let off = one.abs_diff(other).as_secs_f64();
    off <= 2e-9 || off <= one.as_secs_f64() * 1e-15
}

fn check_replies(dialect: TextDialect, name: &[u8]) {
    let count = name.len();
    let yes = count.is_multiple_of(2);
    for mode in [TextMode::Exclusive, TextMode::Shared] {
        let holders = yes.then_some(count + 1);
        let granted = encoded(dialect, TextReply::Acquire { mode, name, holders });
        let says_yes = granted.first().is_some_and(|first| (b'1'..=b'9').contains(first));
        assert_eq!(says_yes, yes);
        let repeats_name = granted.ends_with(&[b": ", name, b"\r\n"].concat());
        assert!(dialect == TextDialect::Lockd || repeats_name, "the name is not repeated");
        encoded(dialect, TextReply::Release { mode, name, released: yes });
        encoded(dialect, TextReply::Inspect { mode, name, holders: count });
    }
    let others = [
        TextReply::Token(yes.then_some(count as u64)),
        TextReply::Me { address: b"unix:1", name },
        TextReply::Ok,
        TextReply::NameTooLong,
        TextReply::Disabled,
        TextReply::InvalidWait(name),
        TextReply::LineTooLong,
    ];
    for reply in others {
        encoded(dialect, reply);
    }
}

fn encoded(dialect: TextDialect, reply: TextReply<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    reply.encode(dialect, &mut out);
    assert_one_line(&out);
    out
}
