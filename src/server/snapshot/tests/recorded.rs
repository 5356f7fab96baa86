//! The recorded state of a server with connections of every kind. Every lockd must read it, so the
//! file stays as it is. When the format gets another version, a file with that number is recorded
//! with `UPDATE_STATE=1`, and this one is still read: see `tests/upgrade/recorded.rs`.

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

use super::*;
use crate::server::snapshot::types::StateSnapshot;
use crate::wire::changed_leaves::for_each_changed_leaf;

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/upgrade/state-1.json")
}

/// The recorded state.
pub(in crate::server::snapshot) fn example() -> ServerSnapshot {
    serde_json::from_str(&fs::read_to_string(path()).unwrap()).unwrap()
}

/// Records the state of a server with every kind of connection.
#[cfg(feature = "websocket")]
#[test]
fn the_state_of_a_server_with_connections_of_every_kind_is_complete() {
    use super::clients::text_frame;
    let directory = tempfile::tempdir().unwrap();
    let unix = format!("message+unix:{}/socket", directory.path().display());
    let listen = [
        "message://127.0.0.1:0",
        "glockd://127.0.0.1:0",
        "lockd://127.0.0.1:0",
        "glockd+ws://127.0.0.1:0",
        &unix,
    ];
    let server = start(&listen);
    let mut clients: Vec<Client> =
        [0, 0, 1, 1, 2, 3, 3, 4].into_iter().map(|index| connect(&server, index)).collect();
    clients[0].call(r#"{"command":"hello","parameters":{"windDown":30},"id":0}"#);
    clients[0].call(r#"{"command":"identify","parameters":{"name":"holder"},"id":1}"#);
    clients[0].call(r#"{"command":"lock","parameters":{"lockName":"report"},"id":2}"#);
    clients[1].request(r#"{"command":"lock","parameters":{"lockName":"report"},"id":"first"}"#);
    clients[1].request(r#"{"command":"lock","parameters":{"lockName":"pool","mode":"shared"},"id":2}"#);
    clients[1].reply();
    clients[1].request(r#"{"command":"lock","parameters":{"lockName":"report","timeLimit":600,"lim"#);
    clients[2].ask("g held\n");
    clients[2].send("half a li");
    clients[3].send("gw 600 held\nr held\n");
    clients[4].send([b'x'; 5000]);
    clients[4].line();
    clients[5].begin_websocket();
    clients[5].send(&text_frame("g ws\n")[..9]);
    clients[6].send("GET / HT");
    clients[7].call(r#"{"command":"ping","id":1}"#);
    wait_until("all waits have begun", || server.state.broker.stats().waiting == 2);
    let snapshot = server.while_parked(LIMIT, |parked| parked.snapshot().unwrap()).unwrap();
    assert_eq!((snapshot.connections(), snapshot.listeners.len()), (8, 5));
    assert!(path_of(&snapshot).is_some());
    let lost: Vec<_> = snapshot.lost_connections().map(|(_, why)| why).collect();
    assert_eq!(lost, ["it is amid its handshake"]);
    assert_eq!(snapshot.descriptors().len(), 8 + 5 + 2);
    snapshot.check(&config(&[]), Limits::default()).unwrap();
    if std::env::var_os("UPDATE_STATE").is_some() {
        let mut snapshot = snapshot.clone();
        for listener in &mut snapshot.listeners {
            if let AddressSnapshot::Unix(path) = &mut listener.address {
                *path = b"/run/lockd/socket".to_vec();
            }
        }
        fs::write(path(), serde_json::to_string_pretty(&snapshot).unwrap() + "\n").unwrap();
    }
    // The same kinds as were recorded. Each listener accepts by itself, so their order may differ.
    let kinds = |snapshot: &ServerSnapshot| {
        let kind = |state: &StateSnapshot| matches!(state, StateSnapshot::Lost { .. });
        let kinds = snapshot.connections.iter();
        let mut kinds: Vec<_> =
            kinds.map(|one| (one.protocol.to_string(), one.is_tcp, kind(&one.state))).collect();
        kinds.sort();
        kinds
    };
    assert_eq!(kinds(&snapshot), kinds(&example()));
    stop(server);
}

/// Whether all values of `part` are in `whole`, which may have more fields.
fn has_all_of(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(key, part)| whole.get(key).is_some_and(|whole| has_all_of(whole, part)))
        }
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(whole, part)| has_all_of(whole, part))
        }
        _ => whole == part,
    }
}

#[test]
fn the_recorded_state_is_read_and_written_again_without_a_change() {
    let recorded: Value = serde_json::from_str(&fs::read_to_string(path()).unwrap()).unwrap();
    let snapshot = example();
    assert!(has_all_of(&serde_json::to_value(&snapshot).unwrap(), &recorded));
    assert_eq!(decode(&encode(&snapshot).unwrap()).unwrap(), snapshot);
    if cfg!(feature = "websocket") {
        snapshot.check(&config(&[]), Limits::default()).unwrap();
    }
}

#[test]
fn no_changed_value_of_the_state_breaks_the_check() {
    let (mut read, mut refused) = (0, 0);
    for_each_changed_leaf(&example(), |changed: ServerSnapshot| {
        read += 1;
        refused += usize::from(changed.check(&config(&[]), Limits::default()).is_err());
    });
    assert!(read > 500 && refused > 100, "{read} read, {refused} refused");
}
