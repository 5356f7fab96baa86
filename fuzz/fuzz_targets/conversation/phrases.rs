//! Requests that make sense, so that inputs need not find them byte by byte.

use lockd::protocol::frame;
use lockd::server::Protocol;

const NAMES: [&str; 5] = ["a", "b", "c", "", "a b"];

const LOCKD: [&str; 8] = ["g N", "r N", "i N", "sg N", "sr N", "si N", "q", "q full"];

const GLOCKD: [&str; 20] = [
    "g N",
    "r N",
    "i N",
    "sg N",
    "sr N",
    "si N",
    "gw 0.00001 N",
    "gw - N",
    "sgw 0.00001 N",
    "sgw - N",
    "t N",
    "me",
    "iam N",
    "who",
    "d",
    "sd N",
    "dump",
    "dump shared",
    "q",
    "help",
];

const MESSAGES: [&str; 22] = [
    r#"{"command":"lock","parameters":{"lockName":"N"},"id":I}"#,
    r#"{"command":"lock","parameters":{"lockName":"N","mode":"shared"},"id":I}"#,
    r#"{"command":"lock","parameters":{"lockName":"N","timeLimit":0},"id":I}"#,
    r#"{"command":"lock","parameters":{"lockName":"N","mode":"shared","timeLimit":0},"id":I}"#,
    r#"{"command":"lock","parameters":{"lockName":"N","timeLimit":0.00001},"id":I}"#,
    r#"{"command":"lock","parameters":{"lockNames":["N","x"]},"id":I}"#,
    r#"{"command":"lock","parameters":{"lockNames":["b","c",{"lockName":"N","mode":"shared"}]},"id":I}"#,
    r#"{"command":"lock","parameters":{"lockNames":["a","b"],"mode":"shared","timeLimit":0},"id":I}"#,
    r#"{"command":"unlock","parameters":{"lockName":"N"},"id":I}"#,
    r#"{"command":"unlock","parameters":{"lockNames":["N","x"]},"id":I}"#,
    r#"{"command":"unlock","lockName":"N"}"#,
    r#"{"command":"unlock","lockNames":["a","b","c"]}"#,
    r#"{"command":"convert","parameters":{"lockName":"N","mode":"exclusive"},"id":I}"#,
    r#"{"command":"convert","parameters":{"lockName":"N","mode":"shared"},"id":I}"#,
    r#"{"command":"convert","parameters":{"lockName":"N","mode":"exclusive","timeLimit":0},"id":I}"#,
    r#"{"command":"cancel","parameters":{"id":P},"id":I}"#,
    r#"{"command":"inspect","parameters":{"lockName":"N"},"id":I}"#,
    r#"{"command":"list","parameters":{"prefix":"N","limit":2},"id":I}"#,
    r#"{"command":"identify","parameters":{"name":"N"},"id":I}"#,
    r#"{"command":"stats","id":I}"#,
    r#"{"command":"hello","parameters":{},"id":I}"#,
    r#"{"command":"dance","parameters":{"N":1},"id":I}"#,
];

/// The request that these two bytes choose; `id` is one that was not used before.
pub(crate) fn phrase(protocol: Protocol, which: u8, name: u8, id: u32) -> Vec<u8> {
    let phrases: &[&str] = match protocol {
        Protocol::Lockd => &LOCKD,
        Protocol::Glockd => &GLOCKD,
        Protocol::Message => &MESSAGES,
    };
    let phrase = phrases[usize::from(which) % phrases.len()];
    let count = u8::try_from(NAMES.len()).expect("a few");
    let text = phrase.replace('N', NAMES[usize::from(name % count)]);
    let text = text
        .replace('I', &id.to_string())
        .replace('P', &id.wrapping_sub(u32::from(name / count)).to_string());
    whole(protocol, text.as_bytes())
}

/// A line or a frame.
pub(crate) fn whole(protocol: Protocol, text: &[u8]) -> Vec<u8> {
    match protocol {
        Protocol::Lockd | Protocol::Glockd => [text, b"\n"].concat(),
        Protocol::Message => {
            let mut out = Vec::new();
            frame::encode(&mut out, |out| out.extend_from_slice(text));
            out
        }
    }
}
