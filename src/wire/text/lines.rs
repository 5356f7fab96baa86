//! The lines of both text protocols: finds where a line ends, and splits it into a command and a
//! name. Knows bytes only; `request` knows what the commands mean.

use std::borrow::Cow;

use memchr::memchr;

/// Finds the lines of a stream, and skips lines that are too long.
///
/// It keeps no bytes: the caller keeps the bytes that [`decode`](Self::decode) did not consume and
/// passes them again once more bytes have arrived after them. Its only state is whether the next
/// bytes belong to a line that was already reported as too long.
#[derive(Debug)]
pub struct LineDecoder {
    line_max: usize,
    /// True from the report of a long line until its newline has been seen.
    skipping: bool,
}

/// What [`LineDecoder::decode`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// A line without its `\n`. A `\r` before the `\n` is not removed.
    Complete(&'a [u8]),
    /// A line longer than the limit has begun. The rest of it will be skipped.
    TooLong,
    /// More bytes are needed.
    Incomplete,
}

impl LineDecoder {
    /// A decoder at the start of a stream. A line may have up to `line_max` bytes before its `\n`;
    /// a `\r` counts.
    #[must_use]
    pub fn new(line_max: usize) -> Self {
        Self { line_max, skipping: false }
    }

    /// Whether the next bytes belong to a line that was already reported as too long.
    #[must_use]
    pub fn is_skipping(&self) -> bool {
        self.skipping
    }

    /// A decoder that goes on where another one was, which [was skipping](Self::is_skipping) or
    /// not.
    #[must_use]
    pub fn resumed(line_max: usize, is_skipping: bool) -> Self {
        Self { line_max, skipping: is_skipping }
    }

    /// Reads the line that `input` begins with, and returns the number of bytes consumed.
    ///
    /// [`Line::TooLong`] is reported once for each long line, as soon as the line is known to be
    /// too long. Later calls skip the rest of it, and return [`Line::Incomplete`] with the number
    /// of bytes skipped. In all other cases [`Line::Incomplete`] consumes nothing.
    pub fn decode<'a>(&mut self, input: &'a [u8]) -> (usize, Line<'a>) {
        let skipped = if self.skipping { self.skip(input) } else { 0 };
        let (consumed, line) = self.decode_line(input.get(skipped..).unwrap_or_default());
        (skipped + consumed, line)
    }

    /// Consumes the rest of a long line, or the part of it that has arrived.
    fn skip(&mut self, input: &[u8]) -> usize {
        let Some(end) = memchr(b'\n', input) else { return input.len() };
        self.skipping = false;
        end + 1
    }

    fn decode_line<'a>(&mut self, input: &'a [u8]) -> (usize, Line<'a>) {
        let Some(end) = memchr(b'\n', input) else {
            // While a long line is skipped, `input` is empty here and so not reported again.
            if input.len() <= self.line_max {
                return (0, Line::Incomplete);
            }
            self.skipping = true;
            return (input.len(), Line::TooLong);
        };
        match input.get(..end) {
            Some(line) if end <= self.line_max => (end + 1, Line::Complete(line)),
            _ => (end + 1, Line::TooLong),
        }
    }
}

/// Splits a line into the command, which goes up to the first space, and the name after it.
///
/// White space (space, `\t`, `\n`, `\r`, `\x0b`, `\x0c`) is trimmed from both ends of the line and
/// of the name, and runs of it inside the name become one space, as in the originals. A name that
/// needs no folding is borrowed; nearly all names are.
#[must_use]
#[inline]
pub fn split_command(line: &[u8]) -> (&[u8], Cow<'_, [u8]>) {
    let line = trim_end(trim_start(line));
    match split_at_space(line) {
        Some((command, name)) => (command, fold(trim_start(name))),
        None => (line, Cow::Borrowed(&[])),
    }
}

/// Splits at the first space, which becomes part of neither side.
pub(super) fn split_at_space(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = text.iter().position(|&byte| byte == b' ')?;
    Some((text.get(..space)?, text.get(space + 1..)?))
}

/// White space as in C's `isspace`; `u8::is_ascii_whitespace` lacks `\x0b`.
fn is_white(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

fn trim_start(mut text: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = text
        && is_white(*first)
    {
        text = rest;
    }
    text
}

fn trim_end(mut text: &[u8]) -> &[u8] {
    while let [rest @ .., last] = text
        && is_white(*last)
    {
        text = rest;
    }
    text
}

/// Folds runs of white space inside a trimmed name to one space each.
fn fold(name: &[u8]) -> Cow<'_, [u8]> {
    if is_folded(name) {
        return Cow::Borrowed(name);
    }
    let words = name.split(|&byte| is_white(byte)).filter(|word| !word.is_empty());
    Cow::Owned(words.collect::<Vec<_>>().join(&b' '))
}

/// Whether white space occurs as single spaces only.
fn is_folded(name: &[u8]) -> bool {
    // White space is among the lowest bytes, and few names have any of these.
    if name.iter().all(|&byte| byte > b' ') {
        return true;
    }
    let mut after_space = false;
    name.iter().all(|&byte| {
        let space = byte == b' ';
        let folded = if space { !after_space } else { !is_white(byte) };
        after_space = space;
        folded
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The lines that a connection reads from a stream that arrives in these pieces; `None` is a
    /// line that is too long.
    fn lines_of<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, line_max: usize) -> Vec<Option<Vec<u8>>> {
        let mut decoder = LineDecoder::new(line_max);
        let (mut buffer, mut lines) = (Vec::new(), Vec::new());
        for piece in pieces {
            buffer.extend_from_slice(piece);
            loop {
                let (consumed, line) = decoder.decode(&buffer);
                let found = match line {
                    Line::Complete(line) => Some(Some(line.to_vec())),
                    Line::TooLong => Some(None),
                    Line::Incomplete => None,
                };
                assert!(consumed > 0 || found.is_none(), "a line was found in no bytes");
                buffer.drain(..consumed);
                let Some(line) = found else { break };
                lines.push(line);
            }
            assert!(buffer.len() <= line_max, "more is kept than a line may have");
        }
        lines
    }

    #[test]
    fn a_stream_may_be_split_anywhere() {
        let stream = b"g foo\r\n\ni  bar\nfar too long for this\n12345678\n1234567\r\n123456789\nr x\nrest";
        let expected = [
            Some(&b"g foo\r"[..]),
            Some(b""),
            Some(b"i  bar"),
            None,
            Some(b"12345678"),
            Some(b"1234567\r"),
            None,
            Some(b"r x"),
        ]
        .map(|line| line.map(<[u8]>::to_vec));
        assert_eq!(lines_of([&stream[..]], 8), expected);
        assert_eq!(lines_of(stream.chunks(1), 8), expected, "a byte at a time");
        for at in 0..=stream.len() {
            let (left, right) = stream.split_at(at);
            assert_eq!(lines_of([left, right], 8), expected, "split at {at}");
        }
    }

    #[test]
    fn a_stream_goes_on_with_another_decoder_wherever_it_is_cut() {
        let stream = b"g foo\r\nfar too long for this\n12345678\nr x\n";
        for at in 0..=stream.len() {
            let (left, right) = stream.split_at(at);
            let mut lines = Vec::new();
            let mut decoder = LineDecoder::new(8);
            let mut buffer = Vec::new();
            for piece in [left, right] {
                buffer.extend_from_slice(piece);
                decoder = LineDecoder::resumed(8, decoder.is_skipping());
                loop {
                    let (consumed, line) = decoder.decode(&buffer);
                    let found = match line {
                        Line::Complete(line) => Some(line.to_vec()),
                        Line::TooLong => Some(b"too long".to_vec()),
                        Line::Incomplete => None,
                    };
                    buffer.drain(..consumed);
                    let Some(line) = found else { break };
                    lines.push(line);
                }
            }
            assert_eq!(lines, [&b"g foo\r"[..], b"too long", b"12345678", b"r x"], "cut at {at}");
        }
    }

    #[test]
    fn a_long_line_is_reported_before_its_end_and_once() {
        let mut decoder = LineDecoder::new(4);
        assert_eq!(decoder.decode(b"1234"), (0, Line::Incomplete));
        assert_eq!(decoder.decode(b"12345"), (5, Line::TooLong));
        assert_eq!(decoder.decode(b"6789"), (4, Line::Incomplete));
        assert_eq!(decoder.decode(b"0\nq\n"), (4, Line::Complete(b"q")));
    }

    #[test]
    fn commands_and_names_are_trimmed_and_folded() {
        let cases: [(&[u8], &[u8], &[u8]); 12] = [
            (b"g foo", b"g", b"foo"),
            (b" g  NAME", b"g", b"NAME"),
            (b"g foo\r", b"g", b"foo"),
            (b"\t\x0b\x0c g foo bar \r", b"g", b"foo bar"),
            (b"g  a \t  b\x0bc\rd  ", b"g", b"a b c d"),
            (b"g a  b", b"g", b"a b"),
            (b"g \xff\x00\xc3", b"g", b"\xff\x00\xc3"),
            (b"g", b"g", b""),
            (b"g  \t", b"g", b""),
            (b"g\tfoo", b"g\tfoo", b""),
            (b"", b"", b""),
            (b" \r", b"", b""),
        ];
        for (line, command, name) in cases {
            let found = split_command(line);
            assert_eq!((found.0, &*found.1), (command, name), "{:?}", line.escape_ascii().to_string());
        }
    }

    #[test]
    fn a_name_that_needs_no_folding_is_borrowed() {
        assert!(matches!(split_command(b"g two words\r").1, Cow::Borrowed(b"two words")));
    }

    proptest! {
        #[test]
        fn any_stream_is_split_as_a_simple_reader_would(
            stream in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b' '), any::<u8>()], 0..200),
            piece in 1_usize..40,
            line_max in 0_usize..20,
        ) {
            let mut expected: Vec<_> = stream.split(|&byte| byte == b'\n').collect();
            // The bytes after the last newline are not a line yet, but they may be too long
            // already.
            if expected.last().is_some_and(|rest| rest.len() <= line_max) {
                expected.pop();
            }
            let expected: Vec<_> =
                expected.into_iter().map(|line| (line.len() <= line_max).then(|| line.to_vec())).collect();
            prop_assert_eq!(lines_of(stream.chunks(piece), line_max), expected);
        }

        #[test]
        fn any_name_is_folded(line in proptest::collection::vec(prop_oneof![Just(b' '), 8_u8..15, any::<u8>()], 0..40)) {
            let (command, name) = split_command(&line);
            prop_assert!(!command.contains(&b' '));
            prop_assert!(is_folded(&name));
            prop_assert_eq!(trim_end(trim_start(&name)), &*name);
            let squeeze = |text: &[u8]| text.iter().copied().filter(|&b| !is_white(b)).collect::<Vec<_>>();
            prop_assert_eq!(squeeze(&line), squeeze(&[command, &name].concat()));
        }
    }
}
