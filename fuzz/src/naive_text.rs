//! A second, simple reader of the text protocols, written from `docs/protocol.md`.

use std::borrow::Cow;
use std::time::Duration;

use lockd::wire::text::{TextDialect, TextMode, TextRequest};

/// The lines of a stream; `None` for each line of more than `line_max` bytes. The bytes after the
/// last newline count only if they are too long already.
#[must_use]
pub fn lines(stream: &[u8], line_max: usize) -> Vec<Option<Vec<u8>>> {
    let mut parts: Vec<&[u8]> = stream.split(|&byte| byte == b'\n').collect();
    if parts.last().is_some_and(|rest| rest.len() <= line_max) {
        parts.pop();
    }
    parts.into_iter().map(|line| (line.len() <= line_max).then(|| line.to_vec())).collect()
}

/// Whether the byte is white space.
#[must_use]
pub fn is_white(byte: u8) -> bool {
    [b' ', b'\t', b'\n', b'\r', 0x0b, 0x0c].contains(&byte)
}

/// The command of a line and its name. White space is dropped at both ends of the line, the command
/// ends at the first space, and runs of white space in the name become one space.
#[must_use]
pub fn command_and_name(line: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let start = line.iter().position(|&byte| !is_white(byte)).unwrap_or(line.len());
    let end = line.iter().rposition(|&byte| !is_white(byte)).map_or(start, |last| last + 1);
    let line = &line[start..end];
    let Some(space) = line.iter().position(|&byte| byte == b' ') else { return (line.to_vec(), Vec::new()) };
    let mut name: Vec<u8> = Vec::new();
    for &byte in &line[space..] {
        match (is_white(byte), name.last()) {
            (true, None | Some(b' ')) => {}
            (true, _) => name.push(b' '),
            (false, _) => name.push(byte),
        }
    }
    if name.last() == Some(&b' ') {
        name.pop();
    }
    (line[..space].to_vec(), name)
}

/// What the dialect should make of a command and its name.
#[must_use]
pub fn request(dialect: TextDialect, command: &[u8], name: &[u8]) -> TextRequest<'static> {
    let (exclusive, shared) = (TextMode::Exclusive, TextMode::Shared);
    let some_name = (!name.is_empty()).then(|| Cow::Owned(name.to_vec()));
    let owned = Cow::Owned(name.to_vec());
    let is_glockd = dialect == TextDialect::Glockd;
    match command {
        b"g" => TextRequest::Acquire { mode: exclusive, name: owned },
        b"r" => TextRequest::Release { mode: exclusive, name: owned },
        b"i" => TextRequest::Inspect { mode: exclusive, name: owned },
        b"sg" => TextRequest::Acquire { mode: shared, name: owned },
        b"sr" => TextRequest::Release { mode: shared, name: owned },
        b"si" => TextRequest::Inspect { mode: shared, name: owned },
        b"q" => TextRequest::Statistics { full: !is_glockd && name == b"full" },
        b"gw" if is_glockd => wait(exclusive, name),
        b"sgw" if is_glockd => wait(shared, name),
        b"t" if is_glockd => TextRequest::Token(owned),
        b"me" if is_glockd => TextRequest::Me,
        b"iam" if is_glockd => TextRequest::Iam(some_name),
        b"who" if is_glockd => TextRequest::Who(some_name),
        b"d" if is_glockd => TextRequest::List { mode: exclusive, name: some_name },
        b"sd" if is_glockd => TextRequest::List { mode: shared, name: some_name },
        b"dump" if is_glockd && name == b"shared" => TextRequest::Dump { mode: shared },
        b"dump" if is_glockd => TextRequest::Dump { mode: exclusive },
        b"help" if is_glockd => TextRequest::Help,
        _ => TextRequest::Invalid,
    }
}

fn wait(mode: TextMode, rest: &[u8]) -> TextRequest<'static> {
    let mut words = rest.splitn(2, |&byte| byte == b' ');
    let (seconds, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    match limit_of(seconds) {
        Some(limit) => TextRequest::AcquireWaiting { mode, name: Cow::Owned(name.to_vec()), limit },
        None => TextRequest::InvalidWait(Cow::Owned(rest.to_vec())),
    }
}

/// Reads digits with at most one point among them, or `-` for no limit (the inner `None`).
fn limit_of(seconds: &[u8]) -> Option<Option<Duration>> {
    if seconds == b"-" {
        return Some(None);
    }
    let digits = seconds.iter().filter(|byte| byte.is_ascii_digit()).count();
    let points = seconds.iter().filter(|&&byte| byte == b'.').count();
    if digits == 0 || points > 1 || digits + points < seconds.len() {
        return None;
    }
    let text = String::from_utf8_lossy(seconds);
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let whole = whole.trim_start_matches('0');
    let Ok(whole) = format!("0{whole}").parse::<u64>() else { return Some(Some(Duration::MAX)) };
    let nanos: u32 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    Some(Some(Duration::new(whole, nanos)))
}

/// Asserts that a reply is one line: it ends with `\r\n` and has no other line feed.
///
/// # Panics
/// If it is not.
pub fn assert_one_line(reply: &[u8]) {
    assert!(reply.ends_with(b"\r\n"), "the line has no end: {}", reply.escape_ascii());
    let feeds = reply.iter().filter(|&&byte| byte == b'\n').count();
    assert_eq!(feeds, 1, "more than one line: {}", reply.escape_ascii());
}

/// Asserts that a listing has `count` lines, each of which ends with `\n` alone.
///
/// # Panics
/// If it does not.
pub fn assert_lines(listing: &[u8], count: usize) {
    let ends = listing.is_empty() || listing.ends_with(b"\n");
    assert!(ends, "the last line has no end: {}", listing.escape_ascii());
    let feeds = listing.iter().filter(|&&byte| byte == b'\n').count();
    assert_eq!(feeds, count, "the wrong number of lines: {}", listing.escape_ascii());
    assert!(!listing.contains(&b'\r'), "a carriage return: {}", listing.escape_ascii());
}
