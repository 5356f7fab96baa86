//! A session and its locks in one call, which waits for the server too.

use std::net::TcpListener;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use lockd::broker::{AcquireError, Broker, Limits, Mode};
use lockd::client::ConnectOptions;
use lockd::server::{Config, Server, Service};
use lockd::{Session, WaitError, WaitEvent};

use crate::support::*;

/// The address of a server that does not exist.
const NO_SERVER: &str = "unix:/nonexistent/lockd.sock";

const A: [(&[u8], Mode); 1] = [(b"a", Mode::Exclusive)];

/// An address on which no other test listens, and on which servers can be started.
fn address() -> String {
    format!("message://{}", TcpListener::bind("127.0.7.2:0").unwrap().local_addr().unwrap())
}

pub(crate) fn serve_at(address: &str) -> Server {
    let config = Config { listen: vec![address.parse().unwrap()], ..Config::default() };
    Server::start(&Broker::new(Limits::default()), config, Service::locks()).unwrap()
}

fn options() -> ConnectOptions<'static> {
    ConnectOptions { owner: Some("waiter"), ..ConnectOptions::default() }
}

fn go_on(_: WaitEvent<'_>) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn a_waiter_outlives_its_server_and_its_first_session_is_closed() {
    let address = address();
    let mut server = serve_at(&address);
    let holder = connect(&address);
    holder.acquire(b"a", Mode::Exclusive, NOW).unwrap();
    let (events, told) = channel::<(&str, Option<Arc<Session>>)>();
    let url = address.clone();
    let waiter = thread::spawn(move || {
        Session::connect_and_acquire(&url, &A, Some(SOON), &options(), |event| {
            let (name, session) = match event {
                WaitEvent::Connected(session) => ("connected", Some(session.clone())),
                WaitEvent::Waiting { not_yet: None } => ("waiting", None),
                WaitEvent::NoServer { .. } => ("no server", None),
                _ => ("unexpected", None),
            };
            events.send((name, session)).unwrap();
            ControlFlow::Continue(())
        })
    });
    let (name, first) = told.recv_timeout(SOON).unwrap();
    let first = first.unwrap();
    assert_eq!(name, "connected");
    assert_eq!(told.recv_timeout(SOON).unwrap().0, "waiting");
    server.stop();
    assert_eq!(told.recv_timeout(SOON).unwrap().0, "no server");
    assert!(!first.is_alive(), "closed before another one is opened");
    server = serve_at(&address);
    let (session, grant) = waiter.join().unwrap().unwrap();
    let second = told.into_iter().find_map(|(_, session)| session).unwrap();
    assert!(Arc::ptr_eq(&session, &second) && !first.is_alive());
    assert!(is_lost(&first.acquire(b"a", Mode::Exclusive, NOW)));
    assert_eq!(session.held(b"a").unwrap().unwrap().token, grant.token);
    // From now on it is a session like any other.
    server.stop();
    assert!(is_readable(session.lost_fd().unwrap(), SOON));
    assert!(is_lost(&session.acquire(b"b", Mode::Exclusive, NOW)));
}

#[test]
fn the_time_limit_covers_everything() {
    let start = Instant::now();
    let limit = Duration::from_millis(200);
    let result = Session::connect_and_acquire(NO_SERVER, &A, Some(limit), &options(), go_on);
    assert!(start.elapsed() >= limit);
    assert!(result.is_err_and(|error| error.is_absence() && matches!(error, WaitError::Connect(_))));
    let (_server, url) = serve();
    let holder = connect(&url);
    holder.acquire(b"a", Mode::Exclusive, NOW).unwrap();
    let result = Session::connect_and_acquire(&url, &A, Some(limit), &options(), go_on);
    assert!(matches!(result, Err(WaitError::Acquire(AcquireError::TimedOut))));
    until(&holder, b"a", |state| state.waiters == 0);
}

#[test]
fn a_try_and_a_mistake_are_not_waited_through() {
    let never = |_: WaitEvent<'_>| panic!("it does not wait");
    let all = |urls: &str, wants: &[(&[u8], Mode)], limit| {
        Session::connect_and_acquire(urls, wants, limit, &options(), never).err().unwrap()
    };
    assert!(all(NO_SERVER, &A, NOW).is_absence());
    for (urls, wants) in [("nonsense", &A[..]), (NO_SERVER, &[A[0], A[0]]), (NO_SERVER, &[])] {
        assert!(!all(urls, wants, None).is_absence(), "{urls}");
    }
    let two = format!("{NO_SERVER},unix:/nonexistent/other.sock");
    let names: Vec<String> = (0..64).map(|number| format!("name {number}")).collect();
    let wants: Vec<_> = names.iter().map(|name| (name.as_bytes(), Mode::Exclusive)).collect();
    let error = all(&two, &wants, None);
    assert!(matches!(error, WaitError::Acquire(AcquireError::Invalid(_))), "{error}");
}

#[test]
fn the_caller_can_end_the_wait() {
    let cancelled = |result| matches!(result, Err(WaitError::Acquire(AcquireError::Cancelled)));
    let stop = |_: WaitEvent<'_>| ControlFlow::Break(());
    assert!(cancelled(Session::connect_and_acquire(NO_SERVER, &A, None, &options(), stop)));
    let (_server, url) = serve();
    assert!(cancelled(Session::connect_and_acquire(&url, &A, None, &options(), stop)));
    let holder = connect(&url);
    holder.acquire(b"a", Mode::Exclusive, NOW).unwrap();
    let stop_waiting = |event: WaitEvent<'_>| match event {
        WaitEvent::Waiting { .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    assert!(cancelled(Session::connect_and_acquire(&url, &A, None, &options(), stop_waiting)));
    // From another thread, while it is in the queue.
    let (sessions, opened) = channel();
    let waiter = thread::spawn(move || {
        Session::connect_and_acquire(&url, &A, None, &options(), |event| {
            if let WaitEvent::Connected(session) = event {
                sessions.send(session.clone()).unwrap();
            }
            ControlFlow::Continue(())
        })
    });
    until(&holder, b"a", |state| state.waiters == 1);
    opened.recv_timeout(SOON).unwrap().cancel();
    assert!(cancelled(waiter.join().unwrap()));
    until(&holder, b"a", |state| state.waiters == 0);
}

#[test]
fn report_is_called_while_nothing_changes_and_can_end_the_wait_then() {
    let (_server, url) = serve();
    let holder = connect(&url);
    holder.acquire(b"a", Mode::Exclusive, NOW).unwrap();
    // Accepts connections, but never answers.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    for url in [url, format!("tcp://{}", mute.local_addr().unwrap())] {
        let mut told = 0;
        let mut kept = None;
        let result = Session::connect_and_acquire(&url, &A, None, &options(), |event| {
            match event {
                WaitEvent::Connected(session) => kept = Some(session.clone()),
                WaitEvent::StillWaiting => told += 1,
                WaitEvent::Interrupted => panic!("the options do not ask for it"),
                _ => {}
            }
            if told == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(matches!(result, Err(WaitError::Acquire(AcquireError::Cancelled))));
        // Even if the session is still there, its place is given up.
        until(&holder, b"a", |state| state.waiters == 0);
        assert_eq!(kept.is_some(), url.starts_with("message"));
    }
}

#[test]
fn of_several_servers_only_the_one_of_the_names_is_asked() {
    let (_server, url) = serve();
    let urls = format!("{NO_SERVER},{url}");
    let mut asked = [false; 2];
    for name in (0..64).map(|number| format!("name {number}")) {
        let wants = [(name.as_bytes(), Mode::Exclusive)];
        match Session::connect_and_acquire(&urls, &wants, NOW, &options(), go_on) {
            Err(error) => {
                assert!(error.is_absence(), "{error}");
                asked[0] = true;
            }
            Ok((session, _)) => {
                asked[1] = true;
                // The session before may not have ended there yet.
                assert_eq!(session.list(name.as_bytes(), None, 0).unwrap().locks[0].lock_name, name);
                // Names of the other server are not locked here instead.
                let others = (0..64).map(|number| format!("other {number}"));
                let lost =
                    others.filter(|other| is_lost(&session.acquire(other.as_bytes(), Mode::Exclusive, NOW)));
                assert!(lost.count() > 0);
            }
        }
    }
    assert_eq!(asked, [true; 2]);
}
