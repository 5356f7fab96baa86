//! A server that may be at several places: of them one has a real server, and at the others nothing
//! listens, or a standby answers.

use std::net::TcpListener;
use std::ops::ControlFlow;
use std::sync::mpsc::channel;
use std::thread;

use lockd::broker::{AcquireError, Mode};
use lockd::client::{ConnectErrorKind, ConnectOptions, SessionState};
use lockd::{Session, WaitError, WaitEvent};
use rustix::process::Signal;

use crate::patient::serve_at;
use crate::resuming::{Runs, in_doubt, until};
use crate::standby::{standby, vacant};
use crate::support::*;

/// The place in the address of a server.
fn place(url: &str) -> &str {
    url.strip_prefix("message://").unwrap()
}

#[test]
fn names_are_spread_over_groups_wherever_each_of_them_is_active() {
    let ((_one, first), (_other, second)) = (serve(), serve());
    let (standby, vacant) = (standby(), vacant());
    // The kernel accepts the connections; nothing ever answers on them.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = listener.local_addr().unwrap();
    let (first_place, second_place) = (place(&first), place(&second));
    let forth = format!("tcp://{vacant},{silent},{first_place},tcp://{standby},{second_place}");
    let back = format!("tcp://{second_place},{standby},tcp://{first_place},{vacant},{silent}");
    let (holder, other) = [&forth, &back].map(|list| Session::connect(list, None, SOON).unwrap()).into();
    let names: Vec<String> = (0..40).map(|number| format!("name {number}")).collect();
    for name in &names {
        holder.acquire(name.as_bytes(), Mode::Exclusive, NOW).unwrap();
        let again = other.acquire(name.as_bytes(), Mode::Exclusive, NOW);
        assert_eq!(again, Err(AcquireError::TimedOut), "it belongs to the same server: {name}");
    }
    assert_eq!(other.list(b"", None, 100).unwrap().locks.len(), names.len());
    for url in [&first, &second] {
        let session = Session::connect(url, None, SOON).unwrap();
        let own = session.list(b"", None, 100).unwrap().locks.len();
        assert!((1..names.len()).contains(&own), "{own}");
    }
}

#[test]
fn a_session_that_resumes_moves_with_its_server_to_another_place() {
    for signal in [Signal::KILL, Signal::TERM] {
        let places = [vacant(), standby(), vacant()];
        let directory = tempfile::tempdir().unwrap();
        let mut runs = Runs::start(directory, &format!("message://{}", places[0]));
        let url = format!("tcp://{}?resume", places.join(","));
        let [holder, waiter] = [(); 2].map(|()| Session::connect(&url, None, SOON).unwrap());
        assert!(holder.is_resumable());
        let token = holder.acquire(b"a", Mode::Exclusive, NOW).unwrap().token;
        thread::scope(|scope| {
            let waiting = scope.spawn(|| waiter.acquire(b"a", Mode::Exclusive, None));
            // There, and back again.
            for (resumes, at) in [(1, 2), (2, 0)] {
                while holder.inspect(b"a").unwrap().waiters == 0 {}
                runs.end(signal);
                until(&holder, in_doubt);
                runs.listen = format!("message://{}", places[at]);
                runs.start_again();
                assert_eq!(holder.wait_certain(Some(SOON)), SessionState::Alive);
                assert_eq!(holder.resumes(), resumes);
                assert_eq!(holder.held(b"a").unwrap().unwrap().token, token);
            }
            while holder.inspect(b"a").unwrap().waiters == 0 {}
            holder.release(b"a").unwrap();
            let grant = waiting.join().unwrap().unwrap();
            assert!(grant.token > token && !grant.orphaned);
        });
    }
}

#[test]
fn a_waiter_waits_through_standbys_until_one_is_active() {
    let places = [standby(), vacant()];
    let url = format!("tcp://{}", places.join(","));
    let options = ConnectOptions::default();
    let wants = [(&b"a"[..], Mode::Exclusive)];
    let once = Session::connect_and_acquire(&url, &wants, NOW, &options, |_| ControlFlow::Continue(()));
    let Err(WaitError::Connect(error)) = once else { panic!("a session") };
    assert_eq!(error.kind(), ConnectErrorKind::Standby);
    let (tell, told) = channel();
    let waiter = thread::spawn(move || {
        Session::connect_and_acquire(&url, &wants, Some(SOON), &options, |event| {
            if let WaitEvent::NoServer { reason } = event {
                // Nobody listens any more once the first one is told.
                let _ = tell.send(reason.to_owned());
            }
            ControlFlow::Continue(())
        })
    });
    let reason = told.recv_timeout(SOON).unwrap();
    assert!(reason.contains("no server of the group is active"), "{reason}");
    assert!(reason.contains(&format!("{}: standby", places[0])), "{reason}");
    let _server = serve_at(&format!("message://{}", places[1]));
    let (session, grant) = waiter.join().unwrap().unwrap();
    assert_eq!(session.held(b"a").unwrap().unwrap().token, grant.token);
}
