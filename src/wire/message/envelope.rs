//! The envelope of a message: the command of a request, the id that a reply belongs to. Knows
//! nothing about parameters and results; they pass through as raw JSON.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::wire::message::object::{string, values_and_others, values_of};
use crate::wire::push_decimal;

/// The envelope of a request, whose parameters are not read yet.
///
/// A request that lacks any of the three parts gets no reply. The only such request with a meaning
/// is the old form of `unlock`, whose name is in [`body`](Self::body) itself.
#[derive(Clone, Debug)]
pub struct RequestEnvelope<'a> {
    /// The command, if it is a string.
    pub command: Option<Cow<'a, str>>,
    /// The id, if it is a number or a string. The reply repeats it byte for byte.
    pub id: Option<&'a RawValue>,
    /// The parameters, unless they are `null`.
    pub parameters: Option<&'a RawValue>,
    /// Whether the message has other keys than these three.
    pub has_others: bool,
    /// The whole message: an object.
    pub body: &'a str,
}

/// Reads the envelope of a request.
///
/// # Errors
///
/// If `body` is not one JSON object in UTF-8. The connection can go on, because the end of the
/// frame is known; [`encode_error`](super::encode_error) tells the client.
pub fn parse(body: &[u8]) -> Result<RequestEnvelope<'_>, BadMessage> {
    let body = str::from_utf8(body).map_err(|_| BadMessage::NotUtf8)?;
    let ([command, id, parameters], has_others) = values_and_others(body, ["command", "id", "parameters"])?;
    let command = command.and_then(string).transpose()?;
    let id = id.filter(|id| matches!(id.get().as_bytes(), [b'"' | b'-' | b'0'..=b'9', ..]));
    Ok(RequestEnvelope { command, id, parameters, has_others, body })
}

/// Appends a request: `{"command":…,"parameters":…,"id":…}`. `parameters` is one of this module's
/// request types, or any value that becomes a JSON object.
///
/// # Errors
///
/// If `parameters` cannot be written as JSON; then nothing is appended. This module's request types
/// can always be written.
pub fn encode_request(
    out: &mut Vec<u8>,
    id: u64,
    command: &str,
    parameters: &(impl Serialize + ?Sized),
) -> serde_json::Result<()> {
    let start = out.len();
    let written = append_request(out, id, command, parameters);
    if written.is_err() {
        out.truncate(start);
    }
    written
}

fn append_request(
    out: &mut Vec<u8>,
    id: u64,
    command: &str,
    parameters: &(impl Serialize + ?Sized),
) -> serde_json::Result<()> {
    out.extend_from_slice(b"{\"command\":");
    serde_json::to_writer(&mut *out, command)?;
    out.extend_from_slice(b",\"parameters\":");
    serde_json::to_writer(&mut *out, parameters)?;
    out.extend_from_slice(b",\"id\":");
    push_decimal(out, id);
    out.push(b'}');
    Ok(())
}

/// The envelope of a reply: to a request, or to a message that the server could not read.
#[derive(Clone, Debug)]
pub struct ReplyEnvelope<'a> {
    /// The id of the request. A reply without an id belongs to no request.
    pub id: Option<&'a RawValue>,
    /// The result, to be read as the result type of the command.
    pub result: Option<&'a RawValue>,
    /// Why there is no result.
    pub error: Option<Cow<'a, str>>,
}

/// Reads the envelope of a reply.
///
/// # Errors
///
/// If `body` is not one JSON object in UTF-8.
pub fn parse_reply(body: &[u8]) -> Result<ReplyEnvelope<'_>, BadMessage> {
    let body = str::from_utf8(body).map_err(|_| BadMessage::NotUtf8)?;
    let [id, result, error] = values_of(body, ["id", "result", "error"])?;
    Ok(ReplyEnvelope { id, result, error: error.and_then(string).transpose()? })
}

/// Why a body is not a message. Displayed, it is the text of the `{"error":…}` reply; it never
/// quotes the message.
#[derive(Debug)]
pub enum BadMessage {
    /// The bytes are not UTF-8.
    NotUtf8,
    /// The text is not JSON.
    NotJson(serde_json::Error),
    /// The text is JSON, but not an object.
    NotAnObject,
}

impl fmt::Display for BadMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUtf8 => f.write_str("the message is not UTF-8"),
            Self::NotJson(error) => write!(f, "the message is not JSON: {error}"),
            Self::NotAnObject => f.write_str("the message is not an object"),
        }
    }
}

impl std::error::Error for BadMessage {}

impl From<serde_json::Error> for BadMessage {
    fn from(error: serde_json::Error) -> Self {
        // A data error, as opposed to a syntax error, can only mean that it is not an object.
        if error.is_data() { Self::NotAnObject } else { Self::NotJson(error) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The command, id and parameters of a body.
    fn parts(body: &str) -> [Option<String>; 3] {
        let envelope = parse(body.as_bytes()).unwrap();
        assert_eq!(envelope.body, body);
        let raw = |value: Option<&RawValue>| value.map(|value| value.get().to_owned());
        [envelope.command.map(Cow::into_owned), raw(envelope.id), raw(envelope.parameters)]
    }

    fn some(parts: [&str; 3]) -> [Option<String>; 3] {
        parts.map(|part| Some(part.to_owned()))
    }

    #[test]
    fn the_parts_of_a_request_are_found() {
        let lock = r#"{"command":"lock","parameters":{"lockName":"foo"},"id":0}"#;
        assert_eq!(parts(lock), some(["lock", "0", r#"{"lockName":"foo"}"#]));
        let spaced = r#" { "id" : "a\"b" , "parameters" : [ ] , "x": [{}], "command" : "p\u0069ng" } "#;
        assert_eq!(parts(spaced), some(["ping", r#""a\"b""#, "[ ]"]));
        assert_eq!(
            parts(r#"{"command":"unlock","lockName":"foo"}"#),
            [Some("unlock".to_owned()), None, None]
        );
        assert_eq!(parts("{}"), [None, None, None]);
    }

    #[test]
    fn keys_other_than_the_three_are_noticed() {
        let has_others = |body: &str| parse(body.as_bytes()).unwrap().has_others;
        assert!(!has_others(r#"{"command":"lock","parameters":{"lockName":"foo"},"id":0}"#));
        assert!(!has_others("{}"));
        assert!(has_others(r#"{"command":"unlock","parameters":{},"lockName":"foo"}"#));
    }

    #[test]
    fn parts_of_the_wrong_type_are_absent() {
        assert_eq!(parts(r#"{"command":null,"id":null,"parameters":null}"#), [None, None, None]);
        for value in ["true", "[1]", "{\"a\":1}"] {
            assert_eq!(
                parts(&format!(r#"{{"command":{value},"id":{value}}}"#)),
                [None, None, None],
                "{value}"
            );
        }
        assert_eq!(parts(r#"{"command":1}"#), [None, None, None]);
        for id in ["0", "-1", "1.5e3", "18446744073709551616", "\"\""] {
            assert_eq!(parts(&format!(r#"{{"id":{id}}}"#)), [None, Some(id.to_owned()), None]);
        }
    }

    #[test]
    fn the_last_of_equal_keys_counts() {
        assert_eq!(
            parts(r#"{"command":"a","id":1,"id":2,"command":"b","parameters":1,"parameters":{}}"#),
            some(["b", "2", "{}"])
        );
    }

    #[test]
    fn a_body_that_is_not_a_message_is_refused_with_a_reason() {
        let reason = |body: &[u8]| parse(body).unwrap_err().to_string();
        assert_eq!(reason(b"{\"id\":\"\xff\"}"), "the message is not UTF-8");
        for other in ["[1,2]", "\"secret\"", "null", "1"] {
            assert_eq!(reason(other.as_bytes()), "the message is not an object", "{other}");
        }
        for broken in ["", "{\"id\":1", "{\"id\":1}}", "{\"id\":01}", "{'id':1}", r#"{"command":"\ud800"}"#] {
            let reason = reason(broken.as_bytes());
            assert!(reason.starts_with("the message is not JSON: "), "{broken}: {reason}");
        }
    }

    #[test]
    fn requests_and_replies_are_read_as_they_were_written() {
        let mut request = Vec::new();
        encode_request(&mut request, 7, "say \"x\"", &["a"]).unwrap();
        assert_eq!(request, br#"{"command":"say \"x\"","parameters":["a"],"id":7}"#);
        assert_eq!(parts(str::from_utf8(&request).unwrap()), some(["say \"x\"", "7", r#"["a"]"#]));

        let reply = parse_reply(br#"{"id":7,"result":{"status":"ok"}}"#).unwrap();
        assert_eq!(reply.id.unwrap().get(), "7");
        assert_eq!(reply.result.unwrap().get(), r#"{"status":"ok"}"#);
        assert_eq!(reply.error, None);
        let error = parse_reply(br#"{"error":"too long"}"#).unwrap();
        assert_eq!((error.error.as_deref(), error.id.is_none()), (Some("too long"), true));
    }

    #[test]
    fn parameters_that_cannot_become_json_leave_the_buffer_unchanged() {
        let no_json = std::collections::BTreeMap::from([(vec![1], 1)]);
        let mut out = b"before".to_vec();
        assert!(encode_request(&mut out, 1, "c", &no_json).is_err());
        assert_eq!(out, b"before");
    }

    /// Runs with the smallest stack that a connection's thread may have. A recursive reader would
    /// overflow it, and that would end the whole process.
    #[test]
    fn deep_nesting_needs_no_stack() {
        let deep = |open: &str, close: &str| open.repeat(500_000) + "1" + &close.repeat(500_000);
        let (array, object) = (deep("[", "]"), deep("{\"a\":", "}"));
        let bodies = [
            format!(r#"{{"command":"lock","id":1,"parameters":{array}}}"#),
            format!(r#"{{"command":{object},"id":{array},"x":{object}}}"#),
            array.clone(),
            "{\"x\":".to_owned() + &"[".repeat(500_000),
        ];
        let read = move || bodies.map(|body| parse(body.as_bytes()).is_ok());
        let thread = std::thread::Builder::new().stack_size(128 << 10).spawn(read).unwrap();
        assert_eq!(thread.join().unwrap(), [true, true, false, false]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_refused_or_are_an_object(body: Vec<u8>) {
            if let Ok(envelope) = parse(&body) {
                prop_assert!(serde_json::from_str::<serde_json::Value>(envelope.body).unwrap().is_object());
            }
        }

        /// Messages that are almost valid find more errors than random bytes do.
        #[test]
        fn a_damaged_message_is_refused_or_still_an_object(at in 0_usize..60, byte: u8) {
            let mut body = br#"{"command":"lock","parameters":{"lockName":"a\u00e4"},"id":12}"#.to_vec();
            body[at] = byte;
            let whole = serde_json::from_slice::<serde_json::Value>(&body);
            let is_object = whole.is_ok_and(|value| value.is_object());
            // A reader of the whole value refuses a lone surrogate anywhere, ours only in the parts
            // that it reads.
            prop_assert!(!is_object || parse(&body).is_ok());
        }
    }
}
