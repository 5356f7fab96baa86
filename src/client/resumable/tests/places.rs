//! Sessions that resume on a server that moves to another of its places.

use super::*;
use crate::client::fake_server::STANDBY;

fn group(urls: &[&str]) -> String {
    let places: Vec<&str> = urls.iter().map(|url| url.strip_prefix("tcp://").unwrap()).collect();
    format!("tcp://{}", places.join(","))
}

/// Answers this many attempts as a standby does.
fn refuse(server: &Listening, attempts: usize) {
    for _ in 0..attempts {
        server.accept().refuse_as_standby();
    }
}

#[test]
fn it_resumes_where_the_server_is_active_now_and_begins_there_the_next_time() {
    let (has_read, read) = signal();
    let (one, first) = serve_all(move |server| {
        let mut peer = begin(&server);
        grant(&mut peer, 7);
        read();
        peer.reset();
        drop(peer);
        let (mut peer, resume) = resuming(&server);
        assert_eq!(resume.parameters["attempt"], 1);
        peer.reply(resume.id, STANDBY);
        assert!(peer.ends_by_reset(), "it is no end of the session");
    });
    let (two, second) = serve_all(move |server| {
        // Where the session looks first for the server.
        server.accept().refuse_as_standby();
        let (mut peer, parameters) = resume(&server, 2);
        assert_eq!((&parameters["attempt"], &parameters["epoch"]), (&json!(2), &json!(1)));
        peer.expect("identify");
        peer.reset();
        // The place where it was last comes first.
        let (mut peer, parameters) = resume(&server, 2);
        assert_eq!((&parameters["attempt"], &parameters["epoch"]), (&json!(3), &json!(2)));
        peer.expect("identify");
        peer.outlast();
    });
    let session = connect(&group(&[&two, &one]));
    session.acquire(b"a", Mode::Exclusive, None).unwrap();
    has_read();
    until(&session, |_| session.resumes() == 2);
    assert_eq!(session.held(b"a").unwrap().unwrap().token, 7);
    session.close();
    first.join().unwrap();
    second.join().unwrap();
}

#[test]
fn a_place_that_says_nothing_does_not_use_up_the_time_of_a_session_in_doubt() {
    let (has_read, read) = signal();
    let (one, first) = serve_all(move |server| {
        let mut peer = begin(&server);
        grant(&mut peer, 7);
        read();
        peer.reset();
        // From now on its kernel accepts connections, and nothing answers on them.
        let mut hanging = server.accept();
        assert!(hanging.ends_by_reset());
    });
    let (two, second) = serve_all(move |server| {
        let (mut peer, parameters) = resume(&server, 2);
        assert_eq!(parameters["attempt"], 2);
        peer.outlast();
    });
    let session = connect(&group(&[&one, &two]));
    session.acquire(b"a", Mode::Exclusive, None).unwrap();
    has_read();
    until(&session, |_| session.resumes() == 1);
    assert_eq!(session.held(b"a").unwrap().unwrap().token, 7);
    session.close();
    first.join().unwrap();
    second.join().unwrap();
}

#[test]
fn a_session_that_holds_nothing_begins_anew_at_another_place_after_rounds_of_standbys() {
    let (has_seen, seen) = signal();
    let (one, first) = serve_all(|server| {
        begin(&server).reset();
        refuse(&server, 2);
    });
    let (two, second) = serve_all(move |server| {
        refuse(&server, 1);
        seen();
        let mut peer = begin(&server);
        grant(&mut peer, 9);
        peer.outlast();
    });
    let session = connect(&group(&[&one, &two]));
    let failed = until(&session, |state| matches!(state, SessionState::InDoubt { failures: 1.., .. }));
    let SessionState::InDoubt { last_failure: Some(reason), .. } = failed else { panic!("{failed:?}") };
    assert!(reason.starts_with("127.0.0.1:") && reason.contains("is a standby of the cluster c"), "{reason}");
    has_seen();
    assert_eq!(session.acquire(b"a", Mode::Exclusive, Some(SOON)).unwrap().token, 9);
    assert_eq!(session.resumes(), 0);
    session.close();
    first.join().unwrap();
    second.join().unwrap();
}

#[test]
fn a_server_that_does_not_answer_is_looked_for_at_its_other_places_while_the_connection_stands() {
    let (one, first) = serve_all(move |server| {
        let mut peer = begin(&server);
        grant(&mut peer, 7);
        peer.expect("ping");
        // Its kernel goes on to acknowledge what it is sent.
        let mut hanging = server.accept();
        assert!(hanging.ends_by_reset());
        assert!(peer.ends_by_reset(), "the session goes on elsewhere, so its end is no word of its client");
    });
    let (two, second) = serve_all(move |server| {
        let (mut peer, parameters) = resume(&server, 2);
        assert_eq!(parameters["locks"].as_array().unwrap().len(), 1);
        peer.expect("identify");
        peer.outlast();
    });
    let session = connect(&group(&[&one, &two]));
    session.acquire(b"a", Mode::Exclusive, None).unwrap();
    let doubt = until(&session, in_doubt);
    let SessionState::InDoubt { reason, .. } = doubt else { panic!("{doubt:?}") };
    assert!(reason.contains("does not answer"), "{reason}");
    until(&session, is_alive);
    assert_eq!((session.resumes(), session.held(b"a").unwrap().unwrap().token), (1, 7));
    session.close();
    first.join().unwrap();
    second.join().unwrap();
}
