//! The real client, with a server that sends what the input says. Whatever the server sends, every
//! call of the client must return, and the client must never believe in a lock that it was not
//! granted.
#![no_main]

mod server;

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use lockd::broker::{AcquireError, Attempt, Grant, Mode};
use lockd::client::RemoteSession;

use server::{Granted, Server};

/// No call may take longer: the server answers every request or closes the connection.
const SOON: Duration = Duration::from_secs(8);
const NAMES: [&[u8]; 3] = [b"a", b"b", b""];

static SERVER: LazyLock<Server> = LazyLock::new(Server::start);

fuzz_target!(|data: &[u8]| {
    // The number of calls, the calls, and then the server's script.
    let [count, rest @ ..] = data else { return };
    let (calls, script) = rest.split_at(rest.len().min(usize::from(count % 12)));
    SERVER.begin(script);
    let session = RemoteSession::connect(SERVER.url(), Some("fuzz"), SOON);
    if let Ok(session) = &session {
        calls.iter().for_each(|&call| carry_out(session, call));
        session.close();
        assert!(!session.is_alive());
    }
    drop(session);
    SERVER.finish();
});

fn carry_out(session: &RemoteSession, call: u8) {
    let start = Instant::now();
    let name = NAMES[usize::from(call / 16) % NAMES.len()];
    let mode = match (call & 8, call) {
        (0, _) => Mode::Exclusive,
        (_, 0..160) => Mode::Shared,
        _ => Mode::at_most(3).expect("a limit"),
    };
    let limit = Some(Duration::from_millis(1));
    match call % 8 {
        0 => believe("lock", name, &session.acquire(name, mode, limit)),
        1 => believe("lock", name, &session.acquire(name, mode, Some(Duration::ZERO))),
        2 => believe("convert", name, &session.convert(name, mode, limit)),
        3 => drop(session.release(name)),
        4 => match session.enqueue(name, mode) {
            Ok(Attempt::Granted(grant)) => believe("lock", name, &Ok(grant)),
            Ok(Attempt::Queued) => {
                let waited = session.wait(name, limit);
                // The grant may belong to an earlier call, which the server has answered late.
                if let Ok(grant) = waited {
                    assert!(SERVER.has_sent_grant("lock", name, grant.token), "{name:?}: {grant:?}");
                }
            }
            Err(_) => {}
        },
        5 => drop(session.inspect(name)),
        6 => drop(session.is_alive()),
        _ => {
            session.cancel();
            let _ = session.is_alive();
        }
    }
    assert!(start.elapsed() < SOON, "the call {call} has taken {:?}", start.elapsed());
}

/// Asserts that the server has sent a grant that the client believes in, for a request of this kind
/// and name.
fn believe(command: &'static str, name: &[u8], granted: &Result<Grant, AcquireError>) {
    if let Ok(grant) = granted {
        let has = SERVER.has_sent_grant(command, name, grant.token)
            // A conversion to the mode that is held returns the grant of the `lock`.
            || command == "convert" && SERVER.has_sent_grant("lock", name, grant.token);
        assert!(has, "{command} {name:?} was granted as {grant:?}, which the server has not sent");
    }
}

/// The grant in a reply; `None` if it is not a grant.
fn grant_in(reply: &serde_json::Value) -> Option<Granted> {
    let id = reply.get("id")?.as_u64()?;
    let result = reply.get("result")?;
    let is_ok = result.get("status")?.as_str()? == "ok";
    let token = result.get("token")?.as_u64()?;
    is_ok.then_some(Granted { id, token })
}
