//! The codec of the `glockd` dialect: any stream, cut anywhere.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lockd::wire::text::TextDialect;
use lockd::wire::text::glockd::{DumpEncoder, GlockdStatistics, encode_pair};
use lockd_fuzz::naive_text::{assert_lines, assert_one_line, command_and_name};
use lockd_fuzz::text_stream::check_codec;

fuzz_target!(|data: &[u8]| {
    if let Some(lines) = check_codec(TextDialect::Glockd, data) {
        check_listings(&lines);
    }
});

/// No name can add a line to a listing.
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
    GlockdStatistics { locks: lines.len() as u64, ..GlockdStatistics::default() }.encode(&mut out);
    assert_lines(&out, 19);
}
