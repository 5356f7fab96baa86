//! The codec of the `lockd` protocol: any stream, cut anywhere.
#![no_main]

use std::borrow::Cow;

use libfuzzer_sys::fuzz_target;
use lockd::wire::text::lockd::{DetailsEncoder, Reply, Request, Statistics, parse};
use lockd_fuzz::naive_text::{assert_lines, assert_one_line, command_and_name};
use lockd_fuzz::text_stream::lines_however_cut;

fuzz_target!(|data: &[u8]| {
    let Some(lines) = lines_however_cut(data, |line| drop(parse(line))) else { return };
    for line in &lines {
        check_line(line);
    }
    check_listing(&lines);
});

fn expected(command: &[u8], name: Vec<u8>) -> Request<'static> {
    let name = Cow::Owned(name);
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

fn check_line(line: &[u8]) {
    let request = parse(line);
    let (command, name) = command_and_name(line);
    assert_eq!(request, expected(&command, name.clone()), "{}", line.escape_ascii());
    // Written as it was understood, it is understood so again.
    let again = [&command[..], b" ", &name, b"\r"].concat();
    assert_eq!(parse(&again), request, "{}", line.escape_ascii());
    let count = name.len();
    let replies = [
        Reply::Acquire(count.is_multiple_of(2)),
        Reply::Release(count.is_multiple_of(2)),
        Reply::Inspect(count.is_multiple_of(2)),
        Reply::AcquireShared { granted: count.is_multiple_of(2), holders: count },
        Reply::InspectShared(count),
        Reply::LineTooLong,
    ];
    for reply in replies {
        let mut out = Vec::new();
        reply.encode(&mut out);
        assert_one_line(&out);
    }
}

/// Whatever names there are, they make no line of their own.
fn check_listing(lines: &[Vec<u8>]) {
    let names: Vec<Vec<u8>> = lines.iter().map(|line| command_and_name(line).1).collect();
    let half = names.len() / 2;
    let (locks, shares) = (&names[..half], &names[half..]);
    // The array and its two entries with one in the second: brackets, and an empty line behind each inner one.
    let expected = 3 + (4 + locks.len()) + 4 + (4 + shares.len());
    let mut out = Vec::new();
    let encoder = DetailsEncoder::start(&mut out);
    locks.iter().for_each(|name| encoder.lock(&mut out, name, b"unix:1"));
    encoder.begin_shares(&mut out);
    encoder.begin_holder(&mut out, b"unix:2");
    shares.iter().enumerate().for_each(|(number, name)| encoder.share(&mut out, number, name));
    encoder.end_holder(&mut out);
    encoder.end(&mut out);
    assert_lines(&out, expected);
    let count = lines.len() as u64;
    let statistics =
        Statistics { pid: 1, conns: count, command_q: u64::MAX - count, ..Statistics::default() };
    let mut out = Vec::new();
    statistics.encode(&mut out);
    assert_lines(&out, 15);
}
