//! A server that speaks another protocol than the one to be measured: what it is, judging by the first bytes of its
//! answer, and what to write instead. Words only; knows no sockets.

use lockd::wire::first_bytes::{DetectedProtocol, detect_protocol, first_line};

use super::target::Protocol;

/// What is wrong with a server that begins an answer so, and what to write instead; `None` if that is not known.
/// A whole message is given without its length.
pub(super) fn meant(protocol: Protocol, answer: &[u8]) -> Option<String> {
    let line = first_line(answer);
    if protocol == Protocol::Message && answer.starts_with(b"{") {
        return line.contains("asks for a secret").then(|| NO_SECRET.to_owned());
    }
    let instead = |meant: &str| format!("write {meant}:// instead of {protocol}://");
    match detect_protocol(answer)? {
        DetectedProtocol::Tls => Some(IN_TLS.to_owned()),
        DetectedProtocol::Http => Some(format!(
            "it speaks HTTP there (\"{line}\"): lockd, glockd and message are measured at ports of their own"
        )),
        DetectedProtocol::Message if protocol == Protocol::Message => None,
        DetectedProtocol::Message => Some(format!("it speaks message there: {}", instead("message"))),
        DetectedProtocol::Text => match line.split_once("Refused: this port speaks ") {
            Some((_, speaks)) if speaks.contains(" in TLS") => Some(format!("{IN_TLS} (\"{line}\")")),
            Some((_, speaks)) => {
                let speaks = speaks.split([',', ' ']).next().unwrap_or_default();
                Some(format!("it speaks {speaks} there: {}", instead(speaks)))
            }
            None if protocol == Protocol::Message => Some(format!(
                "it speaks a text protocol there (\"{line}\"): {}, or glockd://",
                instead("lockd")
            )),
            None => None,
        },
    }
}

const IN_TLS: &str = "it speaks TLS there, which lockd bench does not: give it a listener without TLS";

const NO_SECRET: &str =
    "it asks for a secret, which lockd bench does not show: give it a server without --auth-token-file";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant_is_told_by_the_first_answer() {
        for (protocol, answer, said) in [
            (Protocol::Glockd, &b"\x15\x03\x03\0\x02\x02\x46"[..], "speaks TLS"),
            (Protocol::Glockd, b"0 Refused: this port speaks glockd in TLS\r\n", "speaks TLS"),
            (
                Protocol::Lockd,
                b"0 Refused: this port speaks message, not text\r\n",
                "write message:// instead",
            ),
            (
                Protocol::Message,
                b"0 Refused: this port speaks lockd, not message\r\n",
                "write lockd:// instead",
            ),
            (Protocol::Message, b"2 What?\r\n", "(\"2 What?\"): write lockd:// instead"),
            (Protocol::Message, b"HTTP/1.1 400 Bad Request\r\n", "speaks HTTP"),
            (Protocol::Lockd, b"\0\0\0\x02{}", "write message:// instead of lockd://"),
            (Protocol::Message, br#"{"error":"this server asks for a secret"}"#, "without --auth-token-file"),
        ] {
            let meant = meant(protocol, answer).unwrap();
            assert!(meant.contains(said), "{meant}");
        }
        for (protocol, answer) in [
            (Protocol::Glockd, &b"2 What?\r\n"[..]),
            (Protocol::Message, b"\0\0\0\x02{}"),
            (Protocol::Message, b"{}"),
            (Protocol::Redis, b"-ERR\r\n"),
            (Protocol::Lockd, b""),
        ] {
            assert_eq!(meant(protocol, answer), None);
        }
    }
}
