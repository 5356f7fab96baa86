//! Clients that speak another protocol than their listener: how that is detected, what they are
//! told, and what is logged. Their requests are not handled. Pure: bytes in, bytes and text out.

use super::config::Protocol;
use crate::wire::first_bytes::{DetectedProtocol, detect_protocol};
use crate::wire::frame::{self, Frame};
use crate::wire::message;

/// A client at the wrong listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WrongProtocol {
    /// What the client speaks.
    speaks: DetectedProtocol,
    /// What the listener speaks.
    protocol: Protocol,
    /// The listener speaks its protocol in TLS, and the client speaks without.
    misses_tls: bool,
}

impl WrongProtocol {
    /// Examines the first bytes of a client of a listener for `protocol`, before any of them has
    /// been handled. `None` if they may be that protocol, or if that cannot be told yet. A client
    /// of the listener's own protocol is never found: only input that is invalid in that protocol
    /// is objected to. `bytes_max` is the most bytes that a line or a message of that protocol may
    /// have.
    pub(super) fn find(first: &[u8], protocol: Protocol, bytes_max: usize) -> Option<Self> {
        let speaks = detect_protocol(first)?;
        let is_wrong = match (protocol, speaks) {
            (Protocol::Message, DetectedProtocol::Message) => false,
            (Protocol::Message, _) => {
                matches!(frame::decode(first, bytes_max), (_, Frame::TooLong { .. }))
            }
            (Protocol::Lockd | Protocol::Glockd, DetectedProtocol::Text) => false,
            // An incomplete line may still become something else. But if it is too long, it must not
            // be skipped: what comes after it would be carried out, and that may be what a page in
            // a browser has sent.
            (Protocol::Lockd | Protocol::Glockd, DetectedProtocol::Http) => {
                first.contains(&b'\n') || first.len() > bytes_max
            }
            (Protocol::Lockd | Protocol::Glockd, DetectedProtocol::Tls | DetectedProtocol::Message) => true,
        };
        is_wrong.then_some(Self { speaks, protocol, misses_tls: false })
    }

    /// The same for a listener with TLS, at which a client has begun with something else.
    pub(super) fn find_outside_tls(first: &[u8], protocol: Protocol) -> Option<Self> {
        let speaks = detect_protocol(first).filter(|&speaks| speaks != DetectedProtocol::Tls)?;
        Some(Self { speaks, protocol, misses_tls: true })
    }

    /// What the client speaks, and where: for the log.
    pub(super) fn in_words(self) -> String {
        let Self { speaks, protocol, misses_tls } = self;
        match speaks {
            DetectedProtocol::Tls => {
                format!("a TLS client on a listener without TLS, which speaks {protocol}")
            }
            _ if misses_tls => format!("a client without TLS ({speaks}) on a listener of {protocol} in TLS"),
            _ => format!("a client that speaks {speaks} on a listener of {protocol}"),
        }
    }

    /// What the client is told: in its own protocol if possible, else in the listener's, so that
    /// its user can at least see what is there.
    pub(super) fn reply(self) -> Vec<u8> {
        let Self { speaks, protocol, misses_tls } = self;
        let (tls, other) = match speaks {
            DetectedProtocol::Tls => (" without TLS", String::new()),
            _ if misses_tls => (" in TLS", String::new()),
            _ => ("", format!(", not {speaks}")),
        };
        let text = format!("this port speaks {protocol}{tls}{other}");
        let line = || format!("0 Refused: {text}\r\n").into_bytes();
        match (speaks, protocol) {
            (DetectedProtocol::Http, _) => http(&text),
            (DetectedProtocol::Text, _) => line(),
            // TLS has sent it an alert already.
            _ if misses_tls => Vec::new(),
            (_, Protocol::Lockd | Protocol::Glockd) => line(),
            (_, Protocol::Message) => {
                let mut reply = Vec::new();
                frame::encode(&mut reply, |body| message::encode_error(body, &text));
                reply
            }
        }
    }
}

fn http(text: &str) -> Vec<u8> {
    let length = text.len() + 1;
    format!(
        "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {length}\r\n\r\n{text}\n"
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: [Protocol; 2] = [Protocol::Lockd, Protocol::Glockd];

    fn found(first: &[u8], protocol: Protocol) -> Option<String> {
        WrongProtocol::find(first, protocol, 1 << 20).map(WrongProtocol::in_words)
    }

    #[test]
    fn a_client_of_the_listeners_protocol_is_never_taken_for_another() {
        for protocol in TEXT {
            for first in
                [&b"g foo\n"[..], b"GET / HTTP", b"GET it\n", b"\0\n", b"\n", b"{\"command\"", b"\x16\n"]
            {
                assert_eq!(found(first, protocol), None, "{first:?}");
            }
        }
        for first in [&b"\0\0\0\x02{}"[..], b"\0\0\0\x02[]", b"", b"\0\0", b"GET"] {
            assert_eq!(found(first, Protocol::Message), None, "{first:?}");
        }
        let long = [&b"GET /"[..], &[b'a'; 100]].concat();
        for protocol in TEXT {
            assert_eq!(WrongProtocol::find(&long, protocol, 105), None);
            assert!(WrongProtocol::find(&long, protocol, 104).is_some());
            assert_eq!(WrongProtocol::find(&[b'g'; 105], protocol, 104), None);
        }
        // Where messages may be as long as this, it may be the length of one.
        assert_eq!(WrongProtocol::find(b"g foo\n", Protocol::Message, 1 << 31), None);
    }

    #[test]
    fn a_client_of_another_protocol_is_told_what_is_spoken_here() {
        let hello = b"\x16\x03\x01\x02\0\x01\0\n";
        let request = b"GET / HTTP/1.1\r\n\r\n";
        for protocol in TEXT {
            assert!(found(hello, protocol).unwrap().contains("a TLS client on a listener without TLS"));
            assert!(found(request, protocol).unwrap().contains("speaks HTTP on a listener"));
            assert!(found(b"\0\0\0\x0a{\n", protocol).unwrap().contains("speaks message on a listener"));
        }
        assert!(found(hello, Protocol::Message).unwrap().contains("a TLS client on a listener without TLS"));
        assert!(found(b"GET ", Protocol::Message).unwrap().contains("speaks HTTP"));
        assert!(found(b"g foo\n", Protocol::Message).unwrap().contains("speaks text"));
        let reply = |first: &[u8], protocol| {
            let reply = WrongProtocol::find(first, protocol, 1 << 20).unwrap().reply();
            String::from_utf8_lossy(&reply).into_owned()
        };
        assert!(reply(request, Protocol::Message).starts_with("HTTP/1.1 400"));
        assert_eq!(reply(b"g foo\n", Protocol::Message), "0 Refused: this port speaks message, not text\r\n");
        assert_eq!(reply(hello, Protocol::Glockd), "0 Refused: this port speaks glockd without TLS\r\n");
        assert!(reply(hello, Protocol::Message).ends_with("speaks message without TLS\"}"));
    }
}
