//! Several servers, other sockets, other commands.

use std::sync::Arc;
use std::thread;

use lockd::Session;
use lockd::broker::{AcquireError, Attempt, Broker, Mode, ReleaseError, Released};
use lockd::client::{self, MessageClient, RpcError};
use lockd::server::{Call, Config, Server, Service};

use crate::support::*;

#[test]
fn several_servers_share_the_names() {
    let servers: Vec<(Server, String)> = (0..3).map(|_| serve()).collect();
    let urls: Vec<&str> = servers.iter().map(|(_, url)| url.as_str()).collect();
    let set = Session::connect(&urls.join(","), Some("set"), SOON).unwrap();
    let reversed: Vec<&str> = urls.iter().rev().copied().collect();
    let other = Session::connect(&reversed.join(" , "), None, SOON).unwrap();
    let all: Vec<String> = (0..60).map(|n| format!("name {n}")).collect();
    for name in &all {
        set.acquire(name.as_bytes(), Mode::Exclusive, NOW).unwrap();
        assert_eq!(other.acquire(name.as_bytes(), Mode::Exclusive, NOW), Err(AcquireError::TimedOut));
    }
    // Each name is on exactly one of them, and no server has all.
    let direct: Vec<client::RemoteSession> = urls.iter().map(|url| connect(url)).collect();
    let homes = |name: &String| -> Vec<usize> {
        (0..3).filter(|&at| direct[at].inspect(name.as_bytes()).unwrap().mode.is_some()).collect()
    };
    let homes: Vec<Vec<usize>> = all.iter().map(homes).collect();
    assert!(homes.iter().all(|home| home.len() == 1), "{homes:?}");
    let apart = homes.iter().position(|home| *home != homes[0]).unwrap();
    set.release_all(&all.iter().map(|name| name.as_bytes()).collect::<Vec<_>>()).unwrap();

    let split = set.acquire_all(&[&all[0], &all[apart]].map(|name| (name.as_bytes(), Mode::Exclusive)), NOW);
    assert!(matches!(&split, Err(AcquireError::Invalid(why)) if why.contains("at once")), "{split:?}");
    let together: Vec<_> = (0..60)
        .filter(|&n| homes[n] == homes[0])
        .map(|n| (all[n].as_bytes(), Mode::Exclusive))
        .take(5)
        .collect();
    set.acquire_all(&together, NOW).unwrap();

    let gone = homes[0][0];
    let mut servers = servers;
    servers.remove(gone).0.stop();
    let lost = |name: &String| is_lost(&set.acquire(name.as_bytes(), Mode::Exclusive, NOW));
    assert!(all.iter().zip(&homes).all(|(name, home)| lost(name) == (home[0] == gone)));
    assert!(!set.is_alive());
}

#[test]
fn a_list_with_the_same_server_twice_is_refused() {
    let (_server, url) = serve();
    assert!(Session::connect(&format!("{url},{url}"), None, SOON).is_err());
}

#[test]
fn a_unix_socket_serves_as_well() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lockd.sock");
    let listen = vec![format!("message+unix:{}", path.display()).parse().unwrap()];
    let config = Config { listen, ..Config::default() };
    let server = Server::start(&Broker::default(), config, Service::locks()).unwrap();
    let session = Session::connect(&format!("unix:{}", path.display()), Some("me"), SOON).unwrap();
    session.acquire_all(&[(b"a", Mode::Exclusive), (b"b", Mode::Shared)], NOW).unwrap();
    session.release_all(&[b"a", b"b"]).unwrap();
    server.stop();
    assert!(!session.is_alive());
}

#[test]
fn a_local_and_a_remote_session_make_the_same_calls() {
    let (_server, url) = serve();
    let broker = Broker::default();
    let pairs = [
        (Session::open(&broker, None), Session::open(&broker, None)),
        (Session::connect(&url, None, SOON).unwrap(), Session::connect(&url, None, SOON).unwrap()),
    ];
    for (one, two) in pairs {
        assert!(matches!(one.enqueue(b"a", Mode::Exclusive), Ok(Attempt::Granted(_))));
        assert!(matches!(one.acquire(b"a", Mode::Shared, NOW), Err(AcquireError::AlreadyHeld(_))));
        assert_eq!(two.enqueue(b"a", Mode::Shared), Ok(Attempt::Queued));
        assert_eq!(two.wait(b"a", NOW), Err(AcquireError::TimedOut));
        assert_eq!(one.inspect(b"a").unwrap().waiters, 1);
        two.cancel();
        assert_eq!(two.wait(b"a", NOW), Err(AcquireError::Cancelled));
        assert_eq!(two.wait(b"a", NOW), Err(AcquireError::NotHeld));
        one.convert(b"a", Mode::Shared, NOW).unwrap();
        two.acquire(b"a", Mode::Shared, Some(SOON)).unwrap();
        assert_eq!(one.release_all(&[b"a", b"none"]), Err(ReleaseError::NotHeld));
        assert_eq!(two.release(b"a"), Ok(Released::Hold));
        assert!(one.is_alive());
        one.close();
        assert!(!one.is_alive());
        assert!(is_lost(&one.acquire(b"a", Mode::Exclusive, NOW)));
        assert!(matches!(one.release(b"a"), Err(ReleaseError::Lost(_))));
    }
}

#[test]
fn own_commands_work_in_addition_to_the_locks() {
    let mut service = Service::locks();
    service.on("double", |call: &mut Call<'_, '_>| {
        let number: Option<u64> = call.parameters().and_then(|number| number.get().parse().ok());
        call.reply(&number.map(|number| 2 * number));
    });
    let (server, url) = serve_with(service);
    let client = Arc::new(MessageClient::connect(&url, SOON).unwrap());
    let asking: Vec<_> = (0..8_u64)
        .map(|number| {
            let client = client.clone();
            thread::spawn(move || {
                for number in number * 100..number * 100 + 100 {
                    let result = client.rpc("double", &number, Some(SOON)).unwrap();
                    assert_eq!(result.get(), (2 * number).to_string());
                }
            })
        })
        .collect();
    asking.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(client.rpc("triple", &1, None).unwrap_err(), RpcError::Unknown);
    server.stop();
    assert!(matches!(client.rpc("double", &1, None), Err(RpcError::Lost(_))));
}

#[test]
fn a_command_may_be_answered_later_and_from_elsewhere() {
    let (later, kept) = std::sync::mpsc::channel();
    let mut service = Service::new();
    service.on("later", move |call: &mut Call<'_, '_>| later.send(call.responder().unwrap()).unwrap());
    service.on("now", |call: &mut Call<'_, '_>| call.reply(&"now"));
    let (_server, url) = serve_with(service);
    let client = MessageClient::connect(&url, SOON).unwrap();
    thread::scope(|scope| {
        let asking = scope.spawn(|| client.rpc("later", &1, Some(SOON)).unwrap());
        let responder = kept.recv_timeout(SOON).unwrap();
        assert_eq!(
            client.rpc("now", &1, Some(SOON)).unwrap().get(),
            r#""now""#,
            "a later reply delays no other request"
        );
        responder.reply(&"later");
        assert_eq!(asking.join().unwrap().get(), r#""later""#);
    });
    assert_eq!(client.rpc("lock", &1, Some(SOON)).unwrap_err(), RpcError::Unknown, "only its own commands");
}
