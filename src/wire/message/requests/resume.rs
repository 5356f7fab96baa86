//! The parameters of `resume`, with which a client continues its session on a new connection.
//! Knows which are well-formed; whether the session may be continued is decided by the server.

use std::collections::HashSet;
use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::value::RawValue;

use crate::broker::{LockName, Mode};
use crate::wire::message::object::values_of;
use crate::wire::message::requests::serialize::NameAndMode;
use crate::wire::message::requests::{
    HelloRequest, Malformed, borrow_text, object, parse_hello, read_mode, read_name,
};
use crate::wire::message::resume_grant::{ResumeGrant, ResumeId, ResumeSecret, from_digits};
use crate::wire::message::values::{LOCK_NAME, seconds};

/// `resume`: the first message of a connection, instead of `hello`.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct ResumeRequest {
    /// What the client would say in `hello`.
    #[serde(flatten)]
    pub hello: HelloRequest,
    /// What the server told last.
    #[serde(flatten)]
    pub grant: ResumeGrant,
    /// The dead-peer timeout that the server told with the grant, in whole seconds.
    #[serde(rename = "deadPeerTimeout", with = "seconds")]
    pub dead_peer_timeout: Duration,
    /// The number of this attempt: from 1, higher than that of any earlier one of the session.
    pub attempt: u64,
    /// All the locks that the client believes to hold. When read, each name is there once.
    #[serde(rename = "locks")]
    pub claims: Vec<Claim>,
}

/// A lock that a client believes to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The lock.
    pub name: LockName,
    /// The mode in which it is held; of a conversion under way, the one that allows more holders.
    pub mode: Mode,
    /// The fencing token of the grant.
    pub token: u64,
}

impl fmt::Debug for ResumeRequest {
    /// Leaves out the names, which may be many.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut written = f.debug_struct("ResumeRequest");
        written.field("hello", &self.hello).field("grant", &self.grant);
        written.field("dead_peer_timeout", &self.dead_peer_timeout).field("attempt", &self.attempt);
        written.field("claims", &self.claims.len()).finish()
    }
}

impl Serialize for Claim {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        NameAndMode(&self.name, Some(self.mode)).serialize_into(&mut map)?;
        map.serialize_entry("token", &self.token)?;
        map.end()
    }
}

/// Reads the parameters of `resume`.
///
/// # Errors
///
/// The errors of [`parse_hello`]; if `session` or `secret` is not a string of 32 hexadecimal
/// digits; if `epoch`, `deadPeerTimeout` or `attempt` is not a whole number from 0 up; if `locks` is
/// not an array of objects, each with a name, a mode or limit as in
/// [`parse_lock`](super::parse_lock), and a token; if it has a name twice.
pub fn parse_resume(parameters: &RawValue) -> Result<ResumeRequest, Malformed> {
    let keys = ["session", "epoch", "secret", "deadPeerTimeout", "attempt", "locks"];
    let [session, epoch, secret, timeout, attempt, locks] = object(parameters.get(), keys)?;
    let grant = ResumeGrant {
        session: ResumeId(read_digits("session", session)?),
        epoch: read_number("epoch", epoch)?,
        secret: ResumeSecret(read_digits("secret", secret)?),
    };
    Ok(ResumeRequest {
        hello: parse_hello(parameters)?,
        grant,
        dead_peer_timeout: Duration::from_secs(read_number("deadPeerTimeout", timeout)?),
        attempt: read_number("attempt", attempt)?,
        claims: read_claims(locks)?,
    })
}

fn read_digits(key: &'static str, value: Option<&RawValue>) -> Result<[u8; 16], Malformed> {
    let text = borrow_text(key, value)?.ok_or(Malformed::new(key, "is missing"))?;
    from_digits(&text).ok_or(Malformed::new(key, "is not 32 hexadecimal digits"))
}

fn read_number(key: &'static str, value: Option<&RawValue>) -> Result<u64, Malformed> {
    let value = value.ok_or(Malformed::new(key, "is missing"))?;
    value.get().parse().map_err(|_| Malformed::new(key, "is not a whole number from 0 up"))
}

fn read_claims(locks: Option<&RawValue>) -> Result<Vec<Claim>, Malformed> {
    let problem = |problem| Malformed::new("locks", problem);
    let entries: Vec<&RawValue> = serde_json::from_str(locks.ok_or(problem("is missing"))?.get())
        .map_err(|_| problem("is not an array"))?;
    let claims: Vec<_> = entries.into_iter().map(read_claim).collect::<Result<_, _>>()?;
    let distinct: HashSet<_> = claims.iter().map(|claim| &claim.name).collect();
    if distinct.len() < claims.len() { Err(problem("has a name twice")) } else { Ok(claims) }
}

fn read_claim(entry: &RawValue) -> Result<Claim, Malformed> {
    let keys = [LOCK_NAME.text, LOCK_NAME.hex, "mode", "limit", "token"];
    let [text, hex, mode, limit, token] = values_of(entry.get(), keys)
        .map_err(|_| Malformed::new("locks", "has an entry that is not an object"))?;
    Ok(Claim {
        name: read_name(LOCK_NAME, text, hex)?.ok_or(Malformed::new(LOCK_NAME.text, "is missing"))?,
        mode: read_mode(mode, limit)?.ok_or(Malformed::new("mode", "is missing"))?,
        token: read_number("token", token)?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(json: &str) -> Result<ResumeRequest, String> {
        let raw = RawValue::from_string(json.to_owned()).unwrap();
        parse_resume(&raw).map_err(|malformed| malformed.to_string())
    }

    const ID: &str = "000102030405060708090a0b0c0d0e0f";

    /// The parameters with these locks, and with the value of one key exchanged.
    fn parameters(locks: &str, key: &str, value: &str) -> String {
        let quoted = format!("\"{ID}\"");
        let parts = [
            ("session", quoted.as_str()),
            ("epoch", "7"),
            ("secret", &quoted),
            ("deadPeerTimeout", "25"),
            ("attempt", "3"),
            ("locks", locks),
        ];
        let parts = parts.map(|(one, usual)| format!("\"{one}\":{}", if one == key { value } else { usual }));
        format!("{{{}}}", parts.join(","))
    }

    #[test]
    fn every_part_is_read() {
        let locks = concat!(
            r#"[{"lockName":"a","mode":"exclusive","token":123},"#,
            r#"{"lockNameHex":"ff","limit":4,"token":124},{"lockName":"p","mode":"shared","token":9}]"#
        );
        let request = parse(&parameters(locks, "", "")).unwrap();
        assert_eq!((request.grant.session.0[15], request.grant.secret.0[1], request.grant.epoch), (15, 1, 7));
        assert_eq!((request.attempt, request.dead_peer_timeout.as_secs()), (3, 25));
        let claim = |name: &[u8], mode, token| Claim { name: LockName::new(name), mode, token };
        let limited = Mode::at_most(4).unwrap();
        let expected =
            [claim(b"a", Mode::Exclusive, 123), claim(b"\xff", limited, 124), claim(b"p", Mode::Shared, 9)];
        assert_eq!(request.claims, expected);
        assert_eq!(serde_json::to_string(&request.claims).unwrap(), locks);
    }

    #[test]
    fn the_parameters_of_hello_are_read_too() {
        let hello = r#"{"client":"c","authToken":"t","windDown":2,"#;
        let request = parse(&parameters("[]", "", "").replacen('{', hello, 1)).unwrap();
        assert_eq!(request.hello.client.as_deref(), Some("c"));
        assert_eq!(request.hello.auth_token.as_deref(), Some("t"));
        assert_eq!((request.hello.wind_down, request.hello.resumable), (Duration::from_secs(2), false));
        assert!(request.claims.is_empty());
    }

    #[test]
    fn malformed_parameters_are_refused_with_a_reason() {
        let a = r#"{"lockName":"a","mode":"shared","token":1}"#;
        let cases = [
            ("session", "null", "session is missing"),
            ("session", "1", "session is not a string"),
            ("secret", "\"00\"", "secret is not 32 hexadecimal digits"),
            ("epoch", "-1", "epoch is not a whole number from 0 up"),
            ("deadPeerTimeout", "1.5", "deadPeerTimeout is not a whole number from 0 up"),
            ("attempt", "\"1\"", "attempt is not a whole number from 0 up"),
            ("attempt", "null", "attempt is missing"),
            ("locks", "null", "locks is missing"),
            ("locks", "{}", "locks is not an array"),
            ("locks", "[\"a\"]", "locks has an entry that is not an object"),
            ("locks", "[{}]", "lockName is missing"),
            ("locks", r#"[{"lockName":"a","token":1}]"#, "mode is missing"),
            ("locks", r#"[{"lockName":"a","mode":"shared"}]"#, "token is missing"),
            (
                "locks",
                r#"[{"lockName":"a","mode":"both","token":1}]"#,
                "mode is neither exclusive nor shared",
            ),
            ("locks", &format!("[{a},{a}]"), "locks has a name twice"),
        ];
        for (key, value, reason) in cases {
            assert_eq!(parse(&parameters("[]", key, value)), Err(reason.to_owned()), "{key}: {value}");
        }
        assert_eq!(parse("{}"), Err("session is missing".to_owned()));
    }

    #[test]
    fn the_secrets_and_the_names_are_not_shown() {
        let locks = r#"[{"lockName":"private","mode":"shared","token":1}]"#;
        let shown = format!("{:?}", parse(&parameters(locks, "", "")).unwrap());
        assert!(!shown.contains("private") && shown.matches(ID).count() == 1, "{shown}");
    }

    proptest! {
        #[test]
        fn a_request_that_a_client_writes_is_read_unchanged(
            names in proptest::collection::btree_set(any::<Vec<u8>>(), 0..5),
            (attempt, epoch, token) in any::<(u64, u64, u64)>(),
            timeout in 0_u64..40_000,
            (session, secret) in any::<([u8; 16], [u8; 16])>(),
            text in proptest::option::of(".{1,12}"),
            mode in prop_oneof![Just(Mode::Exclusive), Just(Mode::Shared), Just(Mode::at_most(3).unwrap())],
            resumable: bool,
        ) {
            let hello = HelloRequest {
                client: text.clone(),
                version: text.clone(),
                auth_token: text,
                wind_down: Duration::from_secs(timeout % 3600),
                resumable,
            };
            let claims = names.iter().map(|name| Claim { name: LockName::new(name), mode, token }).collect();
            let request = ResumeRequest {
                hello,
                grant: ResumeGrant { session: ResumeId(session), epoch, secret: ResumeSecret(secret) },
                dead_peer_timeout: Duration::from_secs(timeout),
                attempt,
                claims,
            };
            let written = serde_json::value::to_raw_value(&request).unwrap();
            prop_assert_eq!(parse_resume(&written), Ok(request));
        }
    }
}
