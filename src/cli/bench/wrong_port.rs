//! The message for a server that speaks another protocol than the one to be measured: which
//! protocol it is, as the first bytes of its reply show, and what to write instead. Text only;
//! knows no sockets.

use lockd::wire::first_bytes::{DetectedProtocol, detect_protocol, first_line};

use super::dialect::BenchProtocol;

/// What is wrong with a server whose reply begins with these bytes, and what to write instead;
/// `None` if the reply does not show it. A complete message is given without its length.
pub(super) fn explain_reply(protocol: BenchProtocol, reply: &[u8]) -> Option<String> {
    let line = first_line(reply);
    if protocol.is_message() && reply.starts_with(b"{") {
        return line.contains("asks for a secret").then(|| NO_SECRET.to_owned());
    }
    let instead = |other: &str| format!("write {other}:// instead of {protocol}://");
    match detect_protocol(reply)? {
        DetectedProtocol::Tls => Some(IN_TLS.to_owned()),
        DetectedProtocol::Http => Some(format!(
            "it speaks HTTP there (\"{line}\"): lockd, glockd and message are measured at ports of their own"
        )),
        DetectedProtocol::Message if protocol.is_message() => None,
        DetectedProtocol::Message => Some(format!("it speaks message there: {}", instead("message"))),
        DetectedProtocol::Text => match line.split_once("Refused: this port speaks ") {
            Some((_, speaks)) if speaks.contains(" in TLS") => Some(format!("{IN_TLS} (\"{line}\")")),
            Some((_, speaks)) => {
                let speaks = speaks.split([',', ' ']).next().unwrap_or_default();
                Some(format!("it speaks {speaks} there: {}", instead(speaks)))
            }
            None if protocol.is_message() => Some(format!(
                "it speaks a text protocol there (\"{line}\"): {}, or glockd://",
                instead("lockd")
            )),
            None => None,
        },
    }
}

const IN_TLS: &str = "it speaks TLS there, which lockd bench does not: give it a listener without TLS";

const NO_SECRET: &str =
    "it asks for a secret, which lockd bench does not have: give it a server without --auth-token-file";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_reply_shows_which_protocol_the_server_speaks() {
        for (protocol, reply, said) in [
            (BenchProtocol::Glockd, &b"\x15\x03\x03\0\x02\x02\x46"[..], "speaks TLS"),
            (BenchProtocol::Glockd, b"0 Refused: this port speaks glockd in TLS\r\n", "speaks TLS"),
            (
                BenchProtocol::Lockd,
                b"0 Refused: this port speaks message, not text\r\n",
                "write message:// instead",
            ),
            (
                BenchProtocol::Message,
                b"0 Refused: this port speaks lockd, not message\r\n",
                "write lockd:// instead",
            ),
            (BenchProtocol::Message, b"2 What?\r\n", "(\"2 What?\"): write lockd:// instead"),
            (BenchProtocol::Message, b"HTTP/1.1 400 Bad Request\r\n", "speaks HTTP"),
            (BenchProtocol::Lockd, b"\0\0\0\x02{}", "write message:// instead of lockd://"),
            (
                BenchProtocol::Message,
                br#"{"error":"this server asks for a secret"}"#,
                "without --auth-token-file",
            ),
        ] {
            let text = explain_reply(protocol, reply).unwrap();
            assert!(text.contains(said), "{text}");
        }
        for (protocol, reply) in [
            (BenchProtocol::Glockd, &b"2 What?\r\n"[..]),
            (BenchProtocol::Message, b"\0\0\0\x02{}"),
            (BenchProtocol::Message, b"{}"),
            (BenchProtocol::Redis, b"-ERR\r\n"),
            (BenchProtocol::Lockd, b""),
        ] {
            assert_eq!(explain_reply(protocol, reply), None);
        }
    }
}
