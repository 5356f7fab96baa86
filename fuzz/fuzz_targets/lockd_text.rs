//! The codec of the `lockd` dialect: any stream, cut anywhere.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lockd::wire::text::TextDialect;
use lockd::wire::text::lockd::{DetailsEncoder, LockdStatistics};
use lockd_fuzz::naive_text::{assert_lines, command_and_name};
use lockd_fuzz::text_stream::check_codec;

fuzz_target!(|data: &[u8]| {
    if let Some(lines) = check_codec(TextDialect::Lockd, data) {
        check_listings(&lines);
    }
});

/// No name can add a line to a listing.
fn check_listings(lines: &[Vec<u8>]) {
    let names: Vec<Vec<u8>> = lines.iter().map(|line| command_and_name(line).1).collect();
    let half = names.len() / 2;
    let (locks, shares) = (&names[..half], &names[half..]);
    // The outer array has two arrays in it, the second of which has one more. Each array takes two
    // lines for its brackets and one for its key, and an inner one is followed by an empty line.
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
        LockdStatistics { pid: 1, conns: count, command_q: u64::MAX - count, ..LockdStatistics::default() };
    let mut out = Vec::new();
    statistics.encode(&mut out);
    assert_lines(&out, 15);
}
