//! Guesses from its first bytes which protocol a peer speaks, so that a client at the wrong port
//! gets a helpful message. No lock may ever depend on such a guess.

use std::fmt;

use memchr::memchr;

/// What the first bytes of a stream look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DetectedProtocol {
    /// The first record of a TLS handshake, or a TLS alert.
    Tls,
    /// An HTTP request or response. A WebSocket handshake is one too.
    Http,
    /// A frame of the `message` protocol with an object in it.
    Message,
    /// Lines of text, as in the protocols `lockd` and `glockd` and many others.
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

/// The methods that an HTTP request begins with.
const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT"];

/// The protocol of a stream that begins with these bytes. `None` if it is unknown, or if more bytes
/// are needed to tell.
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

/// The first line for people to read: shortened, and with control characters escaped, so that it is
/// safe in a log and on a terminal.
#[must_use]
pub fn first_line(bytes: &[u8]) -> String {
    let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next().unwrap_or_default();
    String::from_utf8_lossy(line).chars().take(LINE_CHARACTERS_MAX).flat_map(char::escape_debug).collect()
}

/// The number of characters of a line that are shown.
const LINE_CHARACTERS_MAX: usize = 160;

fn is_http(bytes: &[u8]) -> bool {
    if bytes.starts_with(b"HTTP/1") {
        return true;
    }
    let is_request = METHODS
        .iter()
        .any(|method| bytes.strip_prefix(method.as_bytes()).is_some_and(|rest| rest.first() == Some(&b' ')));
    // Once the line is complete it must end with a version: a line of another protocol may begin
    // with such a word.
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
    fn a_protocol_is_detected_by_its_first_bytes() {
        for (bytes, expected) in [
            (&b"\x16\x03\x01\x02\0\x01"[..], Some(DetectedProtocol::Tls)),
            (b"\x15\x03\x03\0\x02\x02\x46", Some(DetectedProtocol::Tls)),
            (b"GET / HTTP/1.1\r\nHost: a\r\n", Some(DetectedProtocol::Http)),
            (b"OPTIONS * HTTP/1.0\n", Some(DetectedProtocol::Http)),
            (b"HTTP/1.1 400 Bad Request\r\n", Some(DetectedProtocol::Http)),
            (b"GET /an-incomplete-line", Some(DetectedProtocol::Http)),
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
    fn a_shown_line_is_short_and_has_no_control_characters() {
        assert_eq!(first_line(b"0 Refused: no\r\nmore"), "0 Refused: no");
        assert_eq!(first_line(b"\x1b[2Ja"), "\\u{1b}[2Ja");
        assert_eq!(first_line(&[b'a'; 1000]).len(), LINE_CHARACTERS_MAX);
    }
}
