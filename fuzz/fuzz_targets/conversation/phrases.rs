//! Valid requests, so that inputs need not find them byte by byte.

use lockd::server::Protocol;
use lockd::wire::frame;

const NAMES: [&str; 5] = ["a", "b", "c", "", "a b"];

/// `@` stands for a name, `#` for a new id, `%` for one that was used before.
const LOCKD: [&str; 8] = ["g @", "r @", "i @", "sg @", "sr @", "si @", "q", "q full"];

const GLOCKD: [&str; 20] = [
    "g @",
    "r @",
    "i @",
    "sg @",
    "sr @",
    "si @",
    "gw 0.00001 @",
    "gw - @",
    "sgw 0.00001 @",
    "sgw - @",
    "t @",
    "me",
    "iam @",
    "who",
    "d",
    "sd @",
    "dump",
    "dump shared",
    "q",
    "help",
];

const MESSAGES: [&str; 22] = [
    r#"{"command":"lock","parameters":{"lockName":"@"},"id":#}"#,
    r#"{"command":"lock","parameters":{"lockName":"@","mode":"shared"},"id":#}"#,
    r#"{"command":"lock","parameters":{"lockName":"@","timeLimit":0},"id":#}"#,
    r#"{"command":"lock","parameters":{"lockName":"@","mode":"shared","timeLimit":0},"id":#}"#,
    r#"{"command":"lock","parameters":{"lockName":"@","timeLimit":0.00001},"id":#}"#,
    r#"{"command":"lock","parameters":{"lockNames":["@","x"]},"id":#}"#,
    r#"{"command":"lock","parameters":{"lockNames":["b","c",{"lockName":"@","mode":"shared"}]},"id":#}"#,
    r#"{"command":"lock","parameters":{"lockNames":["a","b"],"mode":"shared","timeLimit":0},"id":#}"#,
    r#"{"command":"unlock","parameters":{"lockName":"@"},"id":#}"#,
    r#"{"command":"unlock","parameters":{"lockNames":["@","x"]},"id":#}"#,
    r#"{"command":"unlock","lockName":"@"}"#,
    r#"{"command":"unlock","lockNames":["a","b","c"]}"#,
    r#"{"command":"convert","parameters":{"lockName":"@","mode":"exclusive"},"id":#}"#,
    r#"{"command":"convert","parameters":{"lockName":"@","mode":"shared"},"id":#}"#,
    r#"{"command":"convert","parameters":{"lockName":"@","mode":"exclusive","timeLimit":0},"id":#}"#,
    r#"{"command":"cancel","parameters":{"id":%},"id":#}"#,
    r#"{"command":"inspect","parameters":{"lockName":"@"},"id":#}"#,
    r#"{"command":"list","parameters":{"prefix":"@","limit":2},"id":#}"#,
    r#"{"command":"identify","parameters":{"name":"@"},"id":#}"#,
    r#"{"command":"stats","id":#}"#,
    r#"{"command":"hello","parameters":{},"id":#}"#,
    r#"{"command":"dance","parameters":{"@":1},"id":#}"#,
];

/// Requests for limited locks. Chosen by the highest bytes, so that those of the seeds keep their
/// meaning.
const LIMITED: [&str; 6] = [
    r#"{"command":"lock","parameters":{"lockName":"@","limit":2},"id":#}"#,
    r#"{"command":"lock","parameters":{"lockName":"@","limit":3,"timeLimit":0},"id":#}"#,
    r#"{"command":"lock","parameters":{"lockNames":["b",{"lockName":"@","limit":2}],"limit":3},"id":#}"#,
    r#"{"command":"convert","parameters":{"lockName":"@","limit":2},"id":#}"#,
    r#"{"command":"convert","parameters":{"lockName":"@","limit":3},"id":#}"#,
    r#"{"command":"lock","parameters":{"lockName":"@","limit":1},"id":#}"#,
];

/// The request that these two bytes choose. `id` must be new.
pub(crate) fn phrase(protocol: Protocol, which: u8, name: u8, id: u32) -> Vec<u8> {
    let phrases: &[&str] = match protocol {
        Protocol::Lockd => &LOCKD,
        Protocol::Glockd => &GLOCKD,
        Protocol::Message if which >= 220 => &LIMITED,
        Protocol::Message => &MESSAGES,
    };
    let phrase = phrases[usize::from(which) % phrases.len()];
    let count = u8::try_from(NAMES.len()).expect("a few");
    let text = phrase.replace('@', NAMES[usize::from(name % count)]);
    let text = text
        .replace('#', &id.to_string())
        .replace('%', &id.wrapping_sub(u32::from(name / count)).to_string());
    whole(protocol, text.as_bytes())
}

/// A complete line or frame with this content.
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
