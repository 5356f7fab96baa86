//! What somebody speaks, judging by the first bytes: for clients and servers that have met at the wrong port. Only
//! guesses, and only from bytes; nobody is given a lock by it.

use std::fmt;

use memchr::memchr;

/// What the first bytes of a stream look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DetectedProtocol {
    /// The beginning of TLS, or an alert of it.
    Tls,
    /// A request or an answer of HTTP, with which a WebSocket begins, too.
    Http,
    /// A frame of the `message` protocol with an object in it.
    Message,
    /// Lines of text, as in the protocols `lockd` and `glockd`, and in many others.
    Text,
}

impl fmt::Display for DetectedProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls => "TLS",
            Self::Http => "HTTP",
            Self::Message => "message",
            Self::Text => "text",
        })
    }
}

/// What a request of HTTP begins with.
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT"];

/// What a stream that begins so is; `None` if it is nothing known, or if that cannot be told yet.
#[must_use]
pub fn detect_protocol(bytes: &[u8]) -> Option<DetectedProtocol> {
    match bytes {
        [0x15 | 0x16, 3, ..] => Some(DetectedProtocol::Tls),
        [0, _, _, _, b'{', ..] => Some(DetectedProtocol::Message),
        _ if is_http(bytes) => Some(DetectedProtocol::Http),
        [a, b, c, d, ..] if [a, b, c, d].into_iter().all(|&byte| is_text(byte)) => {
            Some(DetectedProtocol::Text)
        }
        _ => None,
    }
}

/// The first line, if it is text: shortened, and without anything that could be more than text.
#[must_use]
pub fn first_line(bytes: &[u8]) -> String {
    let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    String::from_utf8_lossy(line).chars().take(LINE_CHARACTERS_MAX).flat_map(char::escape_debug).collect()
}

/// How much of a line is shown.
const LINE_CHARACTERS_MAX: usize = 160;

fn is_http(bytes: &[u8]) -> bool {
    if bytes.starts_with(b"HTTP/1") {
        return true;
    }
    let is_request = METHODS
        .iter()
        .any(|method| bytes.strip_prefix(method.as_bytes()).is_some_and(|rest| rest.first() == Some(&b' ')));
    // Once the line is whole, it must say so: a line of another protocol may begin with such a word.
    is_request
        && memchr(b'\n', bytes).is_none_or(|end| {
            let line = bytes.get(..end).unwrap_or_default().trim_ascii_end();
            line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0") || line.ends_with(b" HTTP/2.0")
        })
}

fn is_text(byte: u8) -> bool {
    matches!(byte, b' '..=b'~' | b'\t' | b'\r' | b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spoken_is_known_by_its_first_bytes() {
        for (bytes, expected) in [
            (&b"\x16\x03\x01\x02\0\x01"[..], Some(DetectedProtocol::Tls)),
            (b"\x15\x03\x03\0\x02\x02\x46", Some(DetectedProtocol::Tls)),
            (b"GET / HTTP/1.1\r\nHost: a\r\n", Some(DetectedProtocol::Http)),
            (b"OPTIONS * HTTP/1.0\n", Some(DetectedProtocol::Http)),
            (b"HTTP/1.1 400 Bad Request\r\n", Some(DetectedProtocol::Http)),
            (b"GET /as-far-as-it-has-come", Some(DetectedProtocol::Http)),
            (b"GET no more\n", Some(DetectedProtocol::Text)),
            (b"GETTING / HTTP/1.1\n", Some(DetectedProtocol::Text)),
            (b"g foo\n", Some(DetectedProtocol::Text)),
            (b"1 Got Lock\r\n", Some(DetectedProtocol::Text)),
            (b"\0\0\0\x02{}", Some(DetectedProtocol::Message)),
            (b"\0\x01\x0a\x0a{", Some(DetectedProtocol::Message)),
            (b"\0\0\0\x02", None),
            (b"\x16", None),
            (b"q\n", None),
            (b"", None),
            (b"\xff\xfe\0\0", None),
        ] {
            assert_eq!(detect_protocol(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn a_line_that_is_shown_has_no_more_than_text_in_it() {
        assert_eq!(first_line(b"0 Refused: no\r\nmore"), "0 Refused: no");
        assert_eq!(first_line(b"\x1b[2Ja"), "\\u{1b}[2Ja");
        assert_eq!(first_line(&[b'a'; 1000]).len(), LINE_CHARACTERS_MAX);
    }
}
