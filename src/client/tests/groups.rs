//! A server that may be at several places, some of which refuse, hang, or answer as standbys: which
//! place gets the session, and what is said if none does.

use std::ops::ControlFlow;

use super::*;
use crate::client::dial::ConnectOptions;
use crate::client::fake_server::serve_standby;
use crate::client::{ConnectError, ConnectErrorKind, ServerUrl, WaitHook};

/// A place where nothing listens.
fn closed() -> String {
    TcpListener::bind("127.0.7.4:0").unwrap().local_addr().unwrap().to_string()
}

fn group(urls: &[&str]) -> String {
    let places: Vec<&str> = urls.iter().map(|url| url.strip_prefix("tcp://").unwrap_or(url)).collect();
    format!("tcp://{}", places.join(","))
}

#[test]
fn the_session_begins_at_the_first_place_that_is_active() {
    let (standby, refuses) = serve_standby();
    let (active, serves) = serve_session(|mut peer| {
        let lock = peer.expect("lock");
        peer.reply(lock.id, &granted(3));
        peer.outlast();
    });
    let session = connect(&group(&[&closed(), &standby, &active, &closed()]));
    assert_eq!(session.acquire(b"a", Mode::Exclusive, None), Ok(grant(3)));
    refuses.join().unwrap();
    drop(session);
    serves.join().unwrap();
}

#[test]
fn a_client_of_other_commands_says_hello_to_find_the_active_server() {
    let (standby, refuses) = serve_standby();
    let (active, serves) = serve(|mut peer| {
        let hello = peer.expect("hello");
        peer.accept_hello(&hello);
        let stats = peer.expect("stats");
        peer.reply(stats.id, r#"{"status":"ok","locks":4}"#);
        peer.outlast();
    });
    let client = MessageClient::connect(&group(&[&standby, &active]), SOON).unwrap();
    let stats = client.rpc("stats", &serde_json::Map::new(), Some(SOON)).unwrap();
    assert!(stats.get().contains("\"locks\":4"));
    refuses.join().unwrap();
    drop(client);
    serves.join().unwrap();
}

#[test]
fn a_place_that_says_nothing_leaves_time_for_the_others() {
    // The kernel accepts the connection; nothing ever answers on it.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let (active, serves) = serve_session(|mut peer| peer.outlast());
    let session = connect(&group(&[&silent.local_addr().unwrap().to_string(), &active]));
    assert!(session.is_alive());
    drop(session);
    serves.join().unwrap();
}

#[test]
fn if_no_place_is_active_the_error_names_each_and_counts_as_absence() {
    let (standby, refuses) = serve_standby();
    let closed = closed();
    let url = group(&[&closed, &standby]);
    let error = RemoteSession::connect(&url, None, SOON).err().unwrap();
    assert_eq!(error.kind(), ConnectErrorKind::Standby);
    let standby = standby.strip_prefix("tcp://").unwrap();
    assert_eq!(
        error.to_string(),
        format!(
            "{url} cannot be reached: no server of the group is active: {closed}: Connection refused (os error 111); \
             {standby}: standby"
        )
    );
    refuses.join().unwrap();
    let url = group(&[&closed, "127.0.7.4:1"]);
    let error = MessageClient::connect(&url, SOON).err().unwrap();
    assert_eq!(error.kind(), ConnectErrorKind::NotListening);
    assert!(error.to_string().contains("no place of the group answers"), "{error}");
    let (alone, refuses) = serve_standby();
    let error = RemoteSession::connect(&alone, None, SOON).err().unwrap();
    assert_eq!(error.kind(), ConnectErrorKind::Standby);
    assert!(error.to_string().contains("the active server is b:1"), "{error}");
    let ConnectError::Refused { active, .. } = error else { panic!("{error}") };
    assert_eq!(active.as_deref(), Some("b:1"));
    refuses.join().unwrap();
}

#[test]
fn a_mistake_is_reported_at_once() {
    let (wrong, refuses) = serve(|mut peer| {
        let hello = peer.expect("hello");
        peer.reply(hello.id, r#"{"status":"refused","reason":"wrong authToken"}"#);
        peer.outlast();
    });
    let unasked = TcpListener::bind("127.0.0.1:0").unwrap();
    unasked.set_nonblocking(true).unwrap();
    let url = group(&[&closed(), &wrong, &unasked.local_addr().unwrap().to_string()]);
    let error = RemoteSession::connect(&url, None, SOON).err().unwrap();
    assert_eq!(error.kind(), ConnectErrorKind::Secret);
    let place = wrong.strip_prefix("tcp://").unwrap();
    assert!(error.to_string().starts_with(&format!("no session on {place}: wrong authToken")), "{error}");
    assert!(unasked.accept().is_err(), "the last place is not asked");
    refuses.join().unwrap();
}

#[test]
fn a_hook_that_ends_the_wait_leaves_the_other_places_alone() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let unasked = TcpListener::bind("127.0.0.1:0").unwrap();
    unasked.set_nonblocking(true).unwrap();
    let places = [&silent, &unasked].map(|listener| listener.local_addr().unwrap().to_string());
    let url: ServerUrl = group(&[&places[0], &places[1]]).parse().unwrap();
    let mut end = |_| ControlFlow::Break(());
    let mut hook = WaitHook::new(false, &mut end);
    let options = ConnectOptions { timeout: SOON, ..ConnectOptions::default() };
    let connected = RemoteSession::connect_to(&url, &options, &mut hook);
    assert!(connected.is_err() && hook.has_ended());
    assert!(unasked.accept().is_err());
}
