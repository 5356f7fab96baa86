//! The protocols of the servers that can be measured: lockd's own, and those of programs that might
//! be used as a lock server instead. Bytes only: what to send, and what the reply must be. Knows no
//! sockets and no time.

mod message;
mod postgres;
mod redis;
mod request;
mod text;

use std::fmt;
use std::str::FromStr;

pub(super) use request::{CheckedRequest, LockRequests, LockSpec, ParsedReply, ReplyKind};

/// A protocol that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BenchProtocol {
    Lockd,
    Glockd,
    Message,
    /// `message` with sessions that resume.
    Resumable,
    Echo,
    Baton,
    Redis,
    Memcached,
    Postgres,
}

impl BenchProtocol {
    const ALL: [(Self, &'static str); 9] = [
        (Self::Lockd, "lockd"),
        (Self::Glockd, "glockd"),
        (Self::Message, "message"),
        (Self::Resumable, "resumable"),
        (Self::Echo, "echo"),
        (Self::Baton, "baton"),
        (Self::Redis, "redis"),
        (Self::Memcached, "memcached"),
        (Self::Postgres, "postgres"),
    ];

    /// The request that comes before all others on a connection and has one reply; empty if there
    /// is none.
    pub(super) fn hello(self) -> Vec<u8> {
        match self {
            Self::Resumable => message::resumable_hello(),
            Self::Redis => redis::hello(),
            Self::Postgres => postgres::hello(),
            _ => Vec::new(),
        }
    }

    /// Whether it is length-prefixed JSON.
    pub(super) fn is_message(self) -> bool {
        matches!(self, Self::Message | Self::Resumable)
    }

    /// Whether the reply to it is that of a server that can be measured.
    pub(super) fn accepts(self, hello_reply: &[u8]) -> bool {
        self != Self::Resumable || message::is_resumable(hello_reply)
    }

    /// The requests that acquire and release `spec`.
    ///
    /// # Errors
    /// If the protocol cannot do that.
    pub(super) fn requests(self, spec: &LockSpec) -> Result<LockRequests, &'static str> {
        match self {
            Self::Lockd => text::lockd(spec),
            Self::Glockd => Ok(text::glockd(spec)),
            Self::Message | Self::Resumable => Ok(message::requests(spec)),
            Self::Echo => text::echo(spec),
            Self::Baton => Ok(text::baton(spec)),
            Self::Redis => redis::requests(spec),
            Self::Memcached => text::memcached(spec),
            Self::Postgres => Ok(postgres::requests(spec)),
        }
    }

    /// The first reply in `input`, once it is complete.
    pub(super) fn reply(self, input: &[u8]) -> Option<ParsedReply<'_>> {
        match self {
            Self::Lockd | Self::Glockd | Self::Echo | Self::Baton | Self::Memcached => text::reply(input),
            Self::Message | Self::Resumable => message::reply(input),
            Self::Redis => redis::reply(input),
            Self::Postgres => postgres::reply(input),
        }
    }
}

impl fmt::Display for BenchProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = Self::ALL.iter().find(|(protocol, _)| protocol == self);
        f.write_str(named.map_or("", |(_, name)| name))
    }
}

impl FromStr for BenchProtocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.iter().find(|(_, name)| *name == text);
        let names = || Self::ALL.map(|(_, name)| name).join(", ");
        known.map(|(protocol, _)| *protocol).ok_or_else(|| format!("{text:?} is not one of {}", names()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: LockSpec = LockSpec { number: 7, owner: 3, wait: false };

    /// Checks that the reply `input` is found as soon as it is complete, and no sooner; says what
    /// kind it is.
    fn kind(protocol: BenchProtocol, request: &CheckedRequest, input: &[u8]) -> ReplyKind {
        let with_rest = [input, b"\0rest"].concat();
        for len in 0..input.len() {
            let begin = input[..len].escape_ascii().to_string();
            assert!(protocol.reply(&with_rest[..len]).is_none(), "{begin:?}");
        }
        let reply = protocol.reply(&with_rest).unwrap();
        assert_eq!(reply.len, input.len());
        request.check(reply.outcome)
    }

    #[test]
    fn grants_refusals_and_wrong_replies_are_told_apart() {
        let pg = |value: &[u8]| {
            let row = [&[0, 1][..], &u32::try_from(value.len()).unwrap().to_be_bytes(), value].concat();
            let part = |kind: u8, body: &[u8]| {
                [&[kind][..], &u32::try_from(body.len() + 4).unwrap().to_be_bytes(), body].concat()
            };
            [part(b'T', b"columns"), part(b'D', &row), part(b'C', b"SELECT 1\0"), part(b'Z', b"I")].concat()
        };
        let frame =
            |text: &str| [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat();
        let lines = |lines: [&str; 3]| lines.map(|line| line.as_bytes().to_vec());
        let cases: [(BenchProtocol, [Vec<u8>; 3]); 6] = [
            (BenchProtocol::Lockd, lines(["1 Got Lock\r\n", "0 Cannot Get Lock\r\n", "1 Released Lock\r\n"])),
            (
                BenchProtocol::Glockd,
                lines([
                    "1 Lock Get Success: lock:7\r\n",
                    "0 Lock Get Failure: lock:7\r\n",
                    "1 Lock Release Success: lock:7\r\n",
                ]),
            ),
            (
                BenchProtocol::Message,
                [
                    frame(r#"{"id":7,"result":{"status":"ok","token":5}}"#),
                    frame(r#"{"id":7,"result":{"status":"timeout"}}"#),
                    frame(r#"{"id":7,"result":{"status":"ok"}}"#),
                ],
            ),
            (BenchProtocol::Redis, lines(["+OK\r\n", "$-1\r\n", ":1\r\n"])),
            (BenchProtocol::Memcached, lines(["STORED\r\n", "NOT_STORED\r\n", "DELETED\r\n"])),
            (BenchProtocol::Postgres, [pg(b"t"), pg(b"f"), pg(b"t")]),
        ];
        for (protocol, [granted, refused, released]) in cases {
            let LockRequests { acquire, release } = protocol.requests(&SPEC).unwrap();
            assert_eq!(kind(protocol, &acquire, &granted), ReplyKind::Granted);
            assert_eq!(kind(protocol, &acquire, &refused), ReplyKind::Refused);
            assert_eq!(kind(protocol, &release, &released), ReplyKind::Granted);
            assert_eq!(kind(protocol, &release, &refused), ReplyKind::Wrong);
        }
    }

    #[test]
    fn the_reply_of_echo_and_baton_is_the_request() {
        for protocol in [BenchProtocol::Echo, BenchProtocol::Baton] {
            let LockRequests { acquire, release } = protocol.requests(&SPEC).unwrap();
            assert_eq!(kind(protocol, &acquire, &acquire.bytes), ReplyKind::Granted);
            assert_eq!(kind(protocol, &acquire, &release.bytes), ReplyKind::Wrong);
        }
    }

    #[test]
    fn only_protocols_with_queues_can_wait_for_a_lock() {
        let spec = LockSpec { wait: true, ..SPEC };
        let protocols: [(BenchProtocol, bool); 9] = [
            (BenchProtocol::Lockd, false),
            (BenchProtocol::Glockd, true),
            (BenchProtocol::Message, true),
            (BenchProtocol::Resumable, true),
            (BenchProtocol::Echo, false),
            (BenchProtocol::Baton, true),
            (BenchProtocol::Redis, false),
            (BenchProtocol::Memcached, false),
            (BenchProtocol::Postgres, true),
        ];
        for (protocol, waits) in protocols {
            assert_eq!(protocol.requests(&spec).is_ok(), waits);
        }
    }
}
