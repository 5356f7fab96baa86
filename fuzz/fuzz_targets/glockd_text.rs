//! The codec of the `glockd` protocol: any stream, cut anywhere.
#![no_main]

use std::borrow::Cow;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use lockd::wire::text::glockd::{DumpEncoder, Reply, Request, Statistics, encode_pair, parse};
use lockd_fuzz::naive_text::{assert_lines, assert_one_line, command_and_name};
use lockd_fuzz::text_stream::lines_however_cut;

fuzz_target!(|data: &[u8]| {
    let Some(lines) = lines_however_cut(data, |line| drop(parse(line))) else { return };
    for line in &lines {
        check_line(line);
    }
    check_listings(&lines);
});

fn expected(command: &[u8], name: Vec<u8>) -> Request<'static> {
    let some_name = (!name.is_empty()).then(|| Cow::Owned(name.clone()));
    let name = Cow::Owned(name);
    match command {
        b"g" => Request::Acquire(name),
        b"r" => Request::Release(name),
        b"i" => Request::Inspect(name),
        b"sg" => Request::AcquireShared(name),
        b"sr" => Request::ReleaseShared(name),
        b"si" => Request::InspectShared(name),
        b"gw" => expected_wait(&name, false),
        b"sgw" => expected_wait(&name, true),
        b"t" => Request::Token(name),
        b"me" => Request::Me,
        b"iam" => Request::Iam(some_name),
        b"who" => Request::Who(some_name),
        b"d" => Request::List { name: some_name, shared: false },
        b"sd" => Request::List { name: some_name, shared: true },
        b"dump" => Request::Dump { shared: *name == *b"shared" },
        b"q" => Request::Statistics,
        b"help" => Request::Help,
        _ => Request::Invalid,
    }
}

fn expected_wait(rest: &[u8], shared: bool) -> Request<'static> {
    let mut words = rest.splitn(2, |&byte| byte == b' ');
    let (seconds, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    match limit_of(seconds) {
        Some(limit) => Request::AcquireWaiting { name: Cow::Owned(name.to_vec()), limit, shared },
        None => Request::InvalidWait(Cow::Owned(rest.to_vec())),
    }
}

/// Digits with at most one point among them, or `-` for no limit (the inner `None`).
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

fn check_line(line: &[u8]) {
    let request = parse(line);
    let (command, name) = command_and_name(line);
    let expected = expected(&command, name.clone());
    match (&request, &expected) {
        (
            Request::AcquireWaiting { name, limit, shared },
            Request::AcquireWaiting { name: name_too, limit: limit_too, shared: shared_too },
        ) => {
            assert_eq!((name, shared), (name_too, shared_too), "{}", line.escape_ascii());
            assert!(are_close(*limit, *limit_too), "{limit:?}, {limit_too:?}: {}", line.escape_ascii());
        }
        _ => assert_eq!(request, expected, "{}", line.escape_ascii()),
    }
    // Written as it was understood, it is understood so again.
    let again = [&command[..], b" ", &name, b"\r"].concat();
    assert_eq!(parse(&again), request, "{}", line.escape_ascii());
    check_replies(&name);
}

/// A limit may be off by what a floating-point number of that size cannot tell apart.
fn are_close(one: Option<Duration>, other: Option<Duration>) -> bool {
    let (Some(one), Some(other)) = (one, other) else { return one == other };
    let off = one.abs_diff(other).as_secs_f64();
    off <= 2e-9 || off <= one.as_secs_f64() * 1e-15
}

fn check_replies(name: &[u8]) {
    let holders = name.len();
    let (address, rest, yes) = (b"unix:1".as_slice(), name, holders.is_multiple_of(2));
    let replies = [
        Reply::Acquire { granted: yes, name },
        Reply::Release { released: yes, name },
        Reply::Inspect { locked: yes, name },
        Reply::AcquireShared { granted: yes, holders, name },
        Reply::ReleaseShared { released: yes, name },
        Reply::InspectShared { holders, name },
        Reply::Token(yes.then_some(holders as u64)),
        Reply::Me { address, name },
        Reply::Ok,
        Reply::NameTooLong,
        Reply::Disabled,
        Reply::InvalidWait { rest },
        Reply::LineTooLong,
    ];
    for reply in replies {
        let mut out = Vec::new();
        reply.encode(&mut out);
        assert_one_line(&out);
        let says_yes = out.first().is_some_and(|first| (b'1'..=b'9').contains(first));
        if let Reply::Acquire { granted, .. } = reply {
            assert_eq!(says_yes, granted);
            assert!(out.ends_with(&[name, b"\r\n"].concat()), "the name is not repeated");
        }
    }
}

/// Whatever names there are, they make no line of their own.
fn check_listings(lines: &[Vec<u8>]) {
    let (mut pairs, mut dump, mut shared) = (Vec::new(), Vec::new(), Vec::new());
    let mut encoder = DumpEncoder::start(&mut dump);
    let mut shared_encoder = DumpEncoder::start(&mut shared);
    for line in lines {
        let (command, name) = command_and_name(line);
        encode_pair(&mut pairs, line, &name);
        encoder.entry(&mut dump, line, b"unix:1");
        shared_encoder.begin_shared_entry(&mut shared, &name);
        shared_encoder.holder(&mut shared, 0, &command);
        shared_encoder.end_shared_entry(&mut shared);
    }
    encoder.end(&mut dump);
    shared_encoder.end(&mut shared);
    assert_lines(&pairs, lines.len());
    assert_one_line(&dump);
    // Holders are addresses, which have no line breaks; a command has none either.
    assert_one_line(&shared);
    let mut out = Vec::new();
    Statistics { locks: lines.len() as u64, ..Statistics::default() }.encode(&mut out);
    assert_lines(&out, 19);
}
