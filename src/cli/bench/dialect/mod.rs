//! What a lock is called in the protocols of the servers that can be measured: ours, and those of programs
//! that others would take in its stead. Bytes only: what to send, and what the answer must be. Knows no
//! sockets and no time.

mod message;
mod postgres;
mod redis;
mod text;

pub(super) use message::Message;
pub(super) use postgres::Postgres;
pub(super) use redis::Redis;
pub(super) use text::{Echo, Glockd, Lockd, Memcached};

/// One protocol.
pub(super) trait Dialect {
    /// A request that comes before all others on a connection, and has one reply; empty if there is none.
    fn greeting(&self) -> Vec<u8> {
        Vec::new()
    }

    /// How `want` is acquired and released.
    ///
    /// # Errors
    /// If the protocol cannot do that.
    fn exchange(&self, want: &Want) -> Result<Exchange, &'static str>;

    /// The first reply in `input`, once all of it is there.
    fn reply<'a>(&self, input: &'a [u8]) -> Option<Reply<'a>>;
}

/// The first reply in what has been read.
pub(super) struct Reply<'a> {
    /// How many bytes it takes.
    pub(super) len: usize,
    /// The part of it that says what has become of the request.
    pub(super) verdict: &'a [u8],
}

/// A lock to be acquired and released.
#[derive(Clone, Copy, Debug)]
pub(super) struct Want {
    /// Its name is made of this.
    pub(super) number: u64,
    /// Tells connections apart where the protocol does not.
    pub(super) owner: u64,
    /// Whether to wait in its queue, rather than be refused.
    pub(super) wait: bool,
}

impl Want {
    fn name(&self) -> String {
        format!("lock:{}", self.number)
    }

    /// Its name, where the protocol has no queue to wait in.
    fn name_without_waiting(&self) -> Result<String, &'static str> {
        if self.wait { Err("with this protocol one cannot wait for a lock") } else { Ok(self.name()) }
    }
}

/// Two requests and their answers.
pub(super) struct Exchange {
    pub(super) acquire: Request,
    pub(super) release: Request,
}

/// A request, and how the verdict of its reply begins.
pub(super) struct Request {
    pub(super) bytes: Box<[u8]>,
    granted: Box<[u8]>,
    refused: Option<Box<[u8]>>,
}

/// What a server has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Granted,
    Refused,
    /// Nothing that could be an answer to that request.
    Wrong,
}

impl Request {
    fn new(bytes: impl Into<Vec<u8>>, granted: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into().into(), granted: granted.into().into(), refused: None }
    }

    fn or_refused(mut self, refused: impl Into<Vec<u8>>) -> Self {
        self.refused = Some(refused.into().into());
        self
    }

    pub(super) fn judge(&self, verdict: &[u8]) -> Verdict {
        if verdict.starts_with(&self.granted) {
            Verdict::Granted
        } else if self.refused.as_ref().is_some_and(|refused| verdict.starts_with(refused)) {
            Verdict::Refused
        } else {
            Verdict::Wrong
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANT: Want = Want { number: 7, owner: 3, wait: false };

    /// Reads `input` byte by byte and checks that the reply is found when it is whole, and not before.
    fn judge(dialect: &dyn Dialect, request: &Request, input: &[u8]) -> Verdict {
        let behind = [input, b"\0rest"].concat();
        for len in 0..input.len() {
            assert!(dialect.reply(&behind[..len]).is_none(), "{:?}", input[..len].escape_ascii().to_string());
        }
        let reply = dialect.reply(&behind).unwrap();
        assert_eq!(reply.len, input.len());
        request.judge(reply.verdict)
    }

    #[test]
    fn replies_are_told_apart() {
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
        let cases: [(&dyn Dialect, [Vec<u8>; 3]); 6] = [
            (&Lockd, lines(["1 Got Lock\r\n", "0 Cannot Get Lock\r\n", "1 Released Lock\r\n"])),
            (
                &Glockd,
                lines([
                    "1 Lock Get Success: lock:7\r\n",
                    "0 Lock Get Failure: lock:7\r\n",
                    "1 Lock Release Success: lock:7\r\n",
                ]),
            ),
            (
                &Message,
                [
                    frame(r#"{"id":7,"result":{"status":"ok","token":5}}"#),
                    frame(r#"{"id":7,"result":{"status":"timeout"}}"#),
                    frame(r#"{"id":7,"result":{"status":"ok"}}"#),
                ],
            ),
            (&Redis, lines(["+OK\r\n", "$-1\r\n", ":1\r\n"])),
            (&Memcached, lines(["STORED\r\n", "NOT_STORED\r\n", "DELETED\r\n"])),
            (&Postgres, [pg(b"t"), pg(b"f"), pg(b"t")]),
        ];
        for (dialect, [granted, refused, released]) in cases {
            let Exchange { acquire, release } = dialect.exchange(&WANT).unwrap();
            assert_eq!(judge(dialect, &acquire, &granted), Verdict::Granted);
            assert_eq!(judge(dialect, &acquire, &refused), Verdict::Refused);
            assert_eq!(judge(dialect, &release, &released), Verdict::Granted);
            assert_eq!(judge(dialect, &release, &refused), Verdict::Wrong);
        }
    }

    #[test]
    fn an_echo_repeats_the_request() {
        let Exchange { acquire, release } = Echo.exchange(&WANT).unwrap();
        assert_eq!(judge(&Echo, &acquire, &acquire.bytes), Verdict::Granted);
        assert_eq!(judge(&Echo, &acquire, &release.bytes), Verdict::Wrong);
    }

    #[test]
    fn only_where_there_is_a_queue_can_one_wait() {
        let want = Want { wait: true, ..WANT };
        let dialects: [(&dyn Dialect, bool); 6] = [
            (&Lockd, false),
            (&Glockd, true),
            (&Message, true),
            (&Redis, false),
            (&Memcached, false),
            (&Postgres, true),
        ];
        for (dialect, waits) in dialects {
            assert_eq!(dialect.exchange(&want).is_ok(), waits);
        }
    }
}
