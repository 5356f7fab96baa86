//! Limited locks on the wire: what is sent to a server that knows them, and that nothing is sent to
//! one that does not, because it would take a limited lock for an exclusive one.

use super::*;

const TWO: Mode = Mode::at_most(2).unwrap();
const FOUR: Mode = Mode::at_most(4).unwrap();

/// A session on a server that knows limited locks.
fn session_with_limits(script: impl FnOnce(Peer) + Send + 'static) -> (Arc<RemoteSession>, JoinHandle<()>) {
    let (url, server) = serve(|mut peer| {
        let hello = peer.expect("hello");
        peer.accept_hello_with(&hello, 25, r#"["limit"]"#);
        peer.expect("identify");
        script(peer);
    });
    (connect(&url), server)
}

#[test]
fn an_older_server_is_not_asked_for_a_limited_lock() {
    let (session, server) = session(|mut peer| {
        let lock = peer.expect("lock");
        assert_eq!(lock.parameters["lockName"], "a");
        peer.reply(lock.id, &granted(1));
        assert!(peer.next().is_none(), "nothing else was sent");
    });
    let both = [("b".into(), Mode::Shared), ("c".into(), TWO)];
    session.acquire(b"a", Mode::Shared, None).unwrap();
    for refused in [
        session.acquire(b"b", TWO, None).map(drop),
        session.acquire(b"b", TWO, NOW).map(drop),
        session.acquire_all(&both, None).map(drop),
        session.enqueue(b"b", TWO).map(drop),
        session.convert(b"a", TWO, None).map(drop),
        session.enqueue_convert(b"a", TWO).map(drop),
    ] {
        let is_told = |reason: &str| reason.contains("older than limited locks");
        assert!(matches!(&refused, Err(AcquireError::Refused(why)) if is_told(why)), "{refused:?}");
    }
    assert_eq!(session.wait(b"b", NOW), Err(AcquireError::NotHeld));
    assert_eq!(session.release(b"b"), Err(ReleaseError::NotHeld));
    assert_eq!(session.held(b"a"), Ok(Some(Held { mode: Mode::Shared, token: 1 })));
    session.close();
    server.join().unwrap();
}

#[test]
fn a_limit_is_sent_to_a_server_that_knows_limits() {
    let (session, server) = session_with_limits(|mut peer| {
        let lock = peer.expect("lock");
        assert_eq!((&lock.parameters["limit"], lock.parameters.get("mode")), (&4.into(), None));
        peer.reply(lock.id, &granted(1));
        let convert = peer.expect("convert");
        assert_eq!((&convert.parameters["limit"], convert.parameters.get("mode")), (&2.into(), None));
        peer.reply(convert.id, &granted(2));
        peer.outlast();
    });
    assert_eq!(session.acquire(b"a", FOUR, None), Ok(grant(1)));
    assert_eq!(session.convert(b"a", TWO, None), Ok(grant(2)));
    assert_eq!(session.held(b"a"), Ok(Some(Held { mode: TWO, token: 2 })));
    drop(session);
    server.join().unwrap();
}

#[test]
fn a_cancelled_conversion_to_a_lower_limit_is_converted_back_to_the_limit_before() {
    let (is_asked, asked) = signal();
    let (is_answered, answered) = signal();
    let (session, server) = session_with_limits(|mut peer| {
        let lock = peer.expect("lock");
        peer.reply(lock.id, &granted(1));
        let lower = peer.expect("convert");
        is_asked();
        let cancel = peer.expect("cancel");
        assert_eq!(cancel.parameters["id"], lower.id);
        // It was granted just before the cancel.
        peer.reply(lower.id, &granted(2));
        peer.reply(cancel.id, r#"{"status":"notFound"}"#);
        let back = peer.expect("convert");
        assert_eq!((&back.parameters["limit"], &back.parameters["timeLimit"]), (&4.into(), &0.into()));
        peer.reply(back.id, &granted(2));
        is_answered();
        peer.outlast();
    });
    session.acquire(b"a", FOUR, None).unwrap();
    let blocked = spawn(&session, |session| session.convert(b"a", TWO, None));
    asked();
    session.cancel();
    assert_eq!(blocked.join().unwrap(), Err(AcquireError::Cancelled));
    assert_eq!(session.held(b"a"), Ok(Some(Held { mode: FOUR, token: 1 })));
    answered();
    drop(session);
    server.join().unwrap();
}

/// Others may have come in, so it is unknown what the session holds.
#[test]
fn a_conversion_to_a_higher_limit_that_is_not_confirmed_ends_the_session() {
    let (is_asked, asked) = signal();
    let (session, server) = session_with_limits(|mut peer| {
        let lock = peer.expect("lock");
        peer.reply(lock.id, &granted(1));
        assert_eq!(peer.expect("convert").parameters["limit"], 4);
        is_asked();
        peer.outlast();
    });
    session.acquire(b"a", TWO, None).unwrap();
    let blocked = spawn(&session, |session| session.convert(b"a", FOUR, None));
    asked();
    session.cancel();
    let reason = lost(blocked.join().unwrap());
    assert!(reason.contains("change of the mode"), "{reason}");
    assert!(!session.is_alive());
    drop(session);
    server.join().unwrap();
}
