//! Redis, as its documentation has locks: `SET … NX PX …`, and a script that deletes the key if it is still
//! the asker's.

use super::{Dialect, Exchange, Reply, Request, Want};

/// Redis' protocol.
pub(in super::super) struct Redis;

const RELEASE: &str =
    "if redis.call('get',KEYS[1])==ARGV[1] then return redis.call('del',KEYS[1]) else return 0 end";
/// What Redis knows the script by: its SHA-1. Were it another script's, every release would fail.
const RELEASE_SHA1: &str = "b998f9dfb154cdbea8cda65ad5177aadf0e945a2";

impl Dialect for Redis {
    fn greeting(&self) -> Vec<u8> {
        command(&["SCRIPT", "LOAD", RELEASE])
    }

    fn exchange(&self, want: &Want) -> Result<Exchange, &'static str> {
        let (name, owner) = (want.name_without_waiting()?, want.owner.to_string());
        let acquire = command(&["SET", &name, &owner, "NX", "PX", "30000"]);
        let release = command(&["EVALSHA", RELEASE_SHA1, "1", &name, &owner]);
        Ok(Exchange {
            acquire: Request::new(acquire, "+OK\r\n").or_refused("$-1\r\n"),
            release: Request::new(release, ":1\r\n"),
        })
    }

    fn reply<'a>(&self, input: &'a [u8]) -> Option<Reply<'a>> {
        let mut len = memchr::memchr(b'\n', input)? + 1;
        // A string has its length in the first line, or -1 if there is none.
        if let Some(text) = input[..len].strip_prefix(b"$")
            && let Ok(bytes) = str::from_utf8(text).unwrap_or_default().trim_end().parse::<usize>()
        {
            len += bytes + b"\r\n".len();
        }
        Some(Reply { len, verdict: input.get(..len)? })
    }
}

fn command(parts: &[&str]) -> Vec<u8> {
    let mut command = format!("*{}\r\n", parts.len());
    for part in parts {
        command += &format!("${}\r\n{part}\r\n", part.len());
    }
    command.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_is_read_to_its_end() {
        let input = b"$5\r\nhello\r\n+OK\r\n";
        assert!(Redis.reply(&input[..10]).is_none());
        assert_eq!(Redis.reply(input).unwrap().len, 11);
        assert_eq!(Redis.reply(&input[11..]).unwrap().len, 5);
    }
}
