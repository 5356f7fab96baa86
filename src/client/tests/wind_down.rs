//! Sessions that ask for time to end their work. The server is told that the work has ended when
//! the session is closed, not when it is lost.

use super::*;
use crate::client::ConnectOptions;
use crate::os::socket::{PollFd, PollFlags, wait_for};

/// Runs a session that asks for a minute. `end` is how the server ends it, and `close` is what the
/// program does then; its result is kept until the server is done.
fn winds_down<T>(end: fn(&mut Peer), close: fn(RemoteSession) -> T) {
    let (is_lost, lost) = signal();
    let (is_seen, seen) = signal();
    let (url, server) = serve(move |mut peer| {
        let hello = peer.expect("hello");
        assert_eq!(hello.parameters["windDown"].as_f64(), Some(60.0));
        peer.accept_hello(&hello);
        peer.expect("lock");
        end(&mut peer);
        lost();
        assert!(!peer.sees_the_end(), "the work has not ended yet");
        is_seen();
        peer.outlast();
    });
    let wind_down = Duration::from_secs(60);
    let options = ConnectOptions { timeout: SOON, wind_down, ..ConnectOptions::default() };
    let session = RemoteSession::connect_with(&url, &options).unwrap();
    let reason = super::lost(session.acquire(b"a", Mode::Exclusive, None));
    assert!(!session.is_alive());
    assert_eq!(super::lost(session.acquire(b"b", Mode::Exclusive, None)), reason);
    let mut fds = [PollFd::new(&session, PollFlags::IN)];
    wait_for(&mut fds, Some(SOON)).unwrap();
    assert!(fds[0].revents().contains(PollFlags::IN), "the descriptor shows the loss");
    is_lost();
    seen();
    let _kept = close(session);
    server.join().unwrap();
}

#[test]
fn only_the_program_closes_a_session_that_the_server_has_ended() {
    // Closing is enough, even if the session is not dropped.
    let close = |session: RemoteSession| {
        session.close();
        session
    };
    winds_down(|peer| peer.end_output(), close);
    winds_down(|peer| peer.end_output(), drop);
}

#[test]
fn only_the_program_closes_a_session_lost_to_a_malformed_message() {
    winds_down(|peer| peer.say("[]"), drop);
}

#[test]
fn without_wind_down_the_server_is_told_of_the_loss_at_once() {
    let (is_lost, lost) = signal();
    let (session, server) = session(|mut peer| {
        peer.expect("lock");
        peer.end_output();
        lost();
        assert!(peer.sees_the_end());
    });
    super::lost(session.acquire(b"a", Mode::Exclusive, None));
    is_lost();
    server.join().unwrap();
}

#[test]
fn a_wind_down_of_more_than_an_hour_counts_as_an_hour() {
    let (url, server) = serve(|mut peer| {
        let hello = peer.expect("hello");
        assert_eq!(hello.parameters["windDown"].as_f64(), Some(3600.0));
        peer.accept_hello(&hello);
        peer.outlast();
    });
    let options = ConnectOptions { timeout: SOON, wind_down: Duration::MAX, ..ConnectOptions::default() };
    drop(RemoteSession::connect_with(&url, &options).unwrap());
    server.join().unwrap();
}
