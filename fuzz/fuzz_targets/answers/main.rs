//! What a server may answer a client: the real client, and a server that says what the input has it say. Whatever
//! that is, every call of the client returns, and it believes in no lock that it was not granted.
#![no_main]

mod server;

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use lockd::broker::{AcquireError, Attempt, Grant, Mode};
use lockd::client::RemoteSession;

use server::{Granted, Server};

/// No call may take longer: what the server does not answer it ends with the connection.
const SOON: Duration = Duration::from_secs(8);
const NAMES: [&[u8]; 3] = [b"a", b"b", b""];

static SERVER: LazyLock<Server> = LazyLock::new(Server::start);

fuzz_target!(|data: &[u8]| {
    // How many calls, what they are, and behind that what the server does.
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
    let mode = if call & 8 == 0 { Mode::Exclusive } else { Mode::Shared };
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
                // It may be of an earlier call, which the server has granted late.
                if let Ok(grant) = waited {
                    assert!(SERVER.has_granted("lock", name, grant.token), "{name:?}: {grant:?}");
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

/// A grant is believed only if the server has sent it, in answer to just such a request.
fn believe(command: &'static str, name: &[u8], granted: &Result<Grant, AcquireError>) {
    if let Ok(grant) = granted {
        let has = SERVER.has_granted(command, name, grant.token)
            // A conversion to the mode that is held, and one under way, answer for it.
            || command == "convert" && SERVER.has_granted("lock", name, grant.token);
        assert!(has, "{command} {name:?} was granted as {grant:?}, which nobody has sent");
    }
}

/// What a reply must have been to be a grant.
fn is_grant(reply: &serde_json::Value) -> Option<Granted> {
    let id = reply.get("id")?.as_u64()?;
    let result = reply.get("result")?;
    let is_ok = result.get("status")?.as_str()? == "ok";
    let token = result.get("token")?.as_u64()?;
    is_ok.then_some(Granted { id, token })
}
