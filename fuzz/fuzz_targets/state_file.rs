//! The text of the state file: any bytes are refused or read, and every state is read as it was
//! written.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lockd::server::keeper::fuzz_driver::{RECORD_BYTES_MAX, StateRecord, read, write};

fuzz_target!(|data: &[u8]| {
    if let Ok(state) = read(data) {
        // Only the exact text that would be written is accepted: a guess could grant a lock that is
        // held.
        assert_eq!(write(&state).as_bytes(), data);
    }
    let Some((number, rest)) = data.split_first_chunk::<8>() else { return };
    let Some((seconds, [how, at, bit, rest @ ..])) = rest.split_first_chunk::<8>() else { return };
    let (number, seconds) = (u64::from_le_bytes(*number), u64::from_le_bytes(*seconds));
    let epoch = (how & 2 != 0).then_some(number.rotate_left(u32::from(*bit)));
    let held = (how & 1 != 0).then_some(u16::from(how >> 2));
    let state = StateRecord::new(number, seconds, epoch, held);
    let text = write(&state).into_bytes();
    assert!(text.len() < RECORD_BYTES_MAX);
    assert_eq!(read(&text), Ok(state));
    // Truncated, changed, extended, or with a part replaced by the input.
    let at = usize::from(*at) % text.len();
    assert!(read(&text[..at]).is_err());
    let mut changed = text.clone();
    changed[at] ^= 1 << (bit % 8);
    assert!(read(&changed).is_err());
    for other in [[&text[..], rest].concat(), [&text[..at], rest].concat(), [rest, &text[at..]].concat()] {
        assert!(other == text || read(&other).is_err(), "{}", other.escape_ascii());
    }
});
