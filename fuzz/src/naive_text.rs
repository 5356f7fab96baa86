//! The text protocols read in the plainest way, from their description in `docs/protocol.md`.

/// What stands in a stream: its lines, `None` for each that has more than `line_max` bytes. What stands behind
/// the last newline counts only if it is too long already.
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

/// The command of a line and its name: white space dropped at both ends, the command up to the first space,
/// white space in the name folded.
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

/// A reply is one line: ended by `\r\n`, with no other line feed in it.
pub fn assert_one_line(reply: &[u8]) {
    assert!(reply.ends_with(b"\r\n"), "not ended: {}", reply.escape_ascii());
    let feeds = reply.iter().filter(|&&byte| byte == b'\n').count();
    assert_eq!(feeds, 1, "more than a line: {}", reply.escape_ascii());
}

/// A listing has so many lines, each ended by `\n` alone.
pub fn assert_lines(listing: &[u8], count: usize) {
    assert!(listing.is_empty() || listing.ends_with(b"\n"), "not ended: {}", listing.escape_ascii());
    let feeds = listing.iter().filter(|&&byte| byte == b'\n').count();
    assert_eq!(feeds, count, "a line too many or too few: {}", listing.escape_ascii());
    assert!(!listing.contains(&b'\r'), "a carriage return: {}", listing.escape_ascii());
}
