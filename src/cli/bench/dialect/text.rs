//! The protocols of lines: lockd's, glockd's, memcached's, and those of the servers
//! to compare with.

use super::request::{CheckedRequest, LockRequests, LockSpec, ParsedReply};

pub(super) fn lockd(spec: &LockSpec) -> Result<LockRequests, &'static str> {
    let name = spec.name_without_waiting()?;
    Ok(LockRequests {
        acquire: CheckedRequest::new(format!("g {name}\n"), "1 Got Lock\r\n")
            .or_refused("0 Cannot Get Lock\r\n"),
        release: CheckedRequest::new(format!("r {name}\n"), "1 Released Lock\r\n"),
    })
}

pub(super) fn glockd(spec: &LockSpec) -> LockRequests {
    let name = spec.name();
    let acquire = if spec.wait { format!("gw - {name}\n") } else { format!("g {name}\n") };
    LockRequests {
        acquire: CheckedRequest::new(acquire, format!("1 Lock Get Success: {name}\r\n"))
            .or_refused(format!("0 Lock Get Failure: {name}\r\n")),
        release: CheckedRequest::new(format!("r {name}\n"), format!("1 Lock Release Success: {name}\r\n")),
    }
}

/// memcached's `add`, which succeeds for one of many clients.
pub(super) fn memcached(spec: &LockSpec) -> Result<LockRequests, &'static str> {
    let name = spec.name_without_waiting()?;
    let acquire = format!("add {name} 0 30 1\r\n1\r\n");
    Ok(LockRequests {
        acquire: CheckedRequest::new(acquire, "STORED\r\n").or_refused("NOT_STORED\r\n"),
        release: CheckedRequest::new(format!("delete {name}\r\n"), "DELETED\r\n"),
    })
}

/// Requests as long as glockd's; each is its own reply.
pub(super) fn echo(spec: &LockSpec) -> Result<LockRequests, &'static str> {
    let name = spec.name_without_waiting()?;
    Ok(LockRequests { acquire: repeated(format!("g {name}\n")), release: repeated(format!("r {name}\n")) })
}

/// Asks for the one baton, and gives it back; the name means nothing.
pub(super) fn baton(spec: &LockSpec) -> LockRequests {
    let name = spec.name();
    LockRequests { acquire: repeated(format!("gw - {name}\n")), release: repeated(format!("r {name}\n")) }
}

fn repeated(line: String) -> CheckedRequest {
    CheckedRequest::new(line.clone(), line)
}

/// One line is one reply.
pub(super) fn reply(input: &[u8]) -> Option<ParsedReply<'_>> {
    let len = memchr::memchr(b'\n', input)? + 1;
    Some(ParsedReply { len, outcome: &input[..len] })
}
