//! Redis, with locks as its documentation describes them: `SET … NX PX …`, and a script that
//! deletes the key if it still belongs to the client.

use super::request::{CheckedRequest, LockRequests, LockSpec, ParsedReply};

const RELEASE: &str =
    "if redis.call('get',KEYS[1])==ARGV[1] then return redis.call('del',KEYS[1]) else return 0 end";
/// The script's SHA-1, by which Redis finds it. If it were wrong, every release would fail.
const RELEASE_SHA1: &str = "b998f9dfb154cdbea8cda65ad5177aadf0e945a2";

pub(super) fn hello() -> Vec<u8> {
    command(&["SCRIPT", "LOAD", RELEASE])
}

pub(super) fn requests(spec: &LockSpec) -> Result<LockRequests, &'static str> {
    let (name, owner) = (spec.name_without_waiting()?, spec.owner.to_string());
    let acquire = command(&["SET", &name, &owner, "NX", "PX", "30000"]);
    let release = command(&["EVALSHA", RELEASE_SHA1, "1", &name, &owner]);
    Ok(LockRequests {
        acquire: CheckedRequest::new(acquire, "+OK\r\n").or_refused("$-1\r\n"),
        release: CheckedRequest::new(release, ":1\r\n"),
    })
}

pub(super) fn reply(input: &[u8]) -> Option<ParsedReply<'_>> {
    let mut len = memchr::memchr(b'\n', input)? + 1;
    // The first line of a string is its length, or -1 for no string.
    if let Some(text) = input[..len].strip_prefix(b"$")
        && let Ok(bytes) = str::from_utf8(text).unwrap_or_default().trim_end().parse::<usize>()
    {
        len += bytes + b"\r\n".len();
    }
    Some(ParsedReply { len, outcome: input.get(..len)? })
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
        assert!(reply(&input[..10]).is_none());
        assert_eq!(reply(input).unwrap().len, 11);
        assert_eq!(reply(&input[11..]).unwrap().len, 5);
    }
}
