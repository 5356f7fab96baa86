//! The calls, with servers that hang, fail, lie and answer too much.

use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use super::fake_etcd::{FakeEtcd, SOON, answer, refusal, success};
use super::keys::KeyCondition;
use super::{Etcd, EtcdError, EtcdUrl, Transacted, Write};

/// For calls that must fail because the time is over.
const BRIEF: Duration = Duration::from_secs(2);

fn client(places: &[String]) -> Etcd {
    let url: EtcdUrl = format!("etcd://{}/n", places.join(",")).parse().unwrap();
    Etcd::new(&url).unwrap()
}

fn write(etcd: &Etcd, limit: Duration) -> Result<Transacted, EtcdError> {
    let condition = KeyCondition { key: "a", revision: 0 };
    etcd.transact(&[condition], &[Write::Put { key: "a", value: b"x" }], limit)
}

/// A place where nothing listens.
fn closed() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn hanging() -> FakeEtcd {
    let (sender, receiver) = channel::<()>();
    let receiver = Mutex::new(receiver);
    FakeEtcd::start(move |_, _| {
        let _keep = &sender;
        let _ = receiver.lock().unwrap().recv_timeout(SOON);
        false
    })
}

#[test]
fn threads_may_share_it() {
    fn is_shared<T: Send + Sync>() {}
    is_shared::<Etcd>();
}

#[test]
fn one_connection_serves_many_calls() {
    let fake = FakeEtcd::answering(1, ",\"succeeded\":true");
    let etcd = client(&[fake.place()]);
    for _ in 0..5 {
        assert_eq!(write(&etcd, SOON).unwrap(), Transacted { succeeded: true, revision: 5 });
        assert_eq!(etcd.read_key("a", SOON).unwrap(), None);
    }
    assert_eq!((fake.connections(), fake.requests().len()), (1, 10));
}

#[test]
fn a_read_goes_on_to_the_next_end_point_and_the_next_call_begins_there() {
    let (hanging, fake) = (hanging(), FakeEtcd::answering(1, ""));
    let etcd = client(&[hanging.place(), fake.place()]);
    assert_eq!(etcd.read_prefix("a", BRIEF).unwrap(), []);
    assert_eq!(etcd.read_prefix("a", SOON).unwrap(), []);
    assert_eq!((hanging.requests().len(), fake.requests().len()), (1, 2));
}

#[test]
fn a_transaction_that_was_sent_is_not_sent_again() {
    let (hanging, fake) = (hanging(), FakeEtcd::answering(1, ""));
    let etcd = client(&[hanging.place(), fake.place()]);
    let error = write(&etcd, BRIEF).unwrap_err();
    assert!(error.may_have_happened() && !error.is_permanent(), "{error}");
    assert!(error.to_string().contains(&hanging.place()), "{error}");
    assert_eq!(fake.requests().len(), 0);
    write(&etcd, SOON).unwrap();
    assert_eq!(hanging.requests().len(), 1);
}

#[test]
fn a_transaction_goes_to_the_first_end_point_that_can_be_reached() {
    let fake = FakeEtcd::answering(1, "");
    let etcd = client(&[closed(), closed(), fake.place()]);
    write(&etcd, SOON).unwrap();
    let etcd = client(&[closed(), closed()]);
    let error = write(&etcd, SOON).unwrap_err();
    assert!(!error.may_have_happened() && !error.is_permanent(), "{error}");
    assert_eq!(error.to_string().matches("refused").count(), 2, "{error}");
}

#[test]
fn an_answer_that_comes_too_late_is_not_taken_for_the_answer_to_the_next_request() {
    let (late, wait) = channel::<()>();
    let wait = Mutex::new(wait);
    let fake = FakeEtcd::start(move |asked, stream| {
        let succeeded = if asked.path.ends_with("txn") {
            let _ = wait.lock().unwrap().recv_timeout(SOON);
            ",\"succeeded\":true"
        } else {
            ""
        };
        answer(stream, 200, &success(1, succeeded));
        true
    });
    let etcd = client(&[fake.place()]);
    etcd.read_key("a", SOON).unwrap();
    assert!(write(&etcd, BRIEF).unwrap_err().may_have_happened());
    late.send(()).unwrap();
    assert_eq!(etcd.read_key("a", SOON).unwrap(), None);
    assert_eq!(fake.connections(), 2);
}

#[test]
fn an_answer_that_is_cut_off_leaves_a_transaction_in_doubt() {
    let whole = format!("HTTP/1.1 200 OK\r\nContent-Length: 60\r\n\r\n{}", success(1, ""));
    for cut in [0, 1, 10, 17, 20, 40, whole.len() - 1] {
        let part = whole.as_bytes()[..cut].to_vec();
        let fake = FakeEtcd::start(move |_, stream| {
            let _ = std::io::Write::write_all(stream, &part);
            false
        });
        let error = write(&client(&[fake.place()]), SOON).unwrap_err();
        assert!(error.may_have_happened() && !error.is_permanent(), "{cut}: {error}");
        assert_eq!(fake.requests().len(), 1);
        let error = client(&[fake.place()]).read_key("a", SOON).unwrap_err();
        assert!(!error.may_have_happened(), "{cut}: {error}");
    }
}

#[test]
fn an_end_point_without_a_leader_is_passed_over_for_reading_only() {
    let sick = FakeEtcd::start(|_, stream| {
        answer(stream, 503, &refusal("etcdserver: request timed out", 14));
        true
    });
    let fake = FakeEtcd::answering(1, "");
    let etcd = client(&[sick.place(), fake.place()]);
    etcd.read_key("a", SOON).unwrap();
    let etcd = client(&[sick.place(), fake.place()]);
    let error = write(&etcd, SOON).unwrap_err();
    assert!(error.may_have_happened() && !error.is_permanent(), "{error}");
    assert_eq!(fake.paths(), ["/v3/kv/range"]);
}

#[test]
fn another_etcd_cluster_is_refused() {
    let (one, other) = (FakeEtcd::answering(1, ""), FakeEtcd::answering(2, ""));
    let etcd = client(&[one.place(), closed(), other.place()]);
    for _ in 0..2 {
        let error = etcd.check_endpoints(SOON).unwrap_err();
        assert!(error.is_permanent() && error.to_string().contains("another etcd cluster"), "{error}");
        assert!(error.to_string().contains(&other.place()), "{error}");
    }
    client(&[closed(), one.place(), one.place().replace("127.0.0.1", "localhost")])
        .check_endpoints(SOON)
        .unwrap();
    let error = client(&[closed(), closed()]).check_endpoints(SOON).unwrap_err();
    assert!(!error.is_permanent(), "{error}");

    let id = std::sync::atomic::AtomicU64::new(1);
    let changing = FakeEtcd::start(move |_, stream| {
        answer(stream, 200, &success(id.fetch_add(1, std::sync::atomic::Ordering::SeqCst), ""));
        true
    });
    let etcd = client(&[changing.place(), one.place()]);
    etcd.read_key("a", SOON).unwrap();
    let error = write(&etcd, SOON).unwrap_err();
    assert!(error.is_permanent() && error.may_have_happened(), "{error}");
}

#[test]
fn an_answer_may_not_be_too_long() {
    let value = "A".repeat(20 << 20);
    let body = success(1, &format!(",\"x\":\"{value}\""));
    let fake = FakeEtcd::start(move |_, stream| {
        answer(stream, 200, &body);
        true
    });
    let error = client(&[fake.place()]).read_key("a", SOON).unwrap_err();
    assert!(error.to_string().contains("16 MiB"), "{error}");
}

#[test]
fn a_transaction_that_the_other_side_does_not_read_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let etcd = client(&[listener.local_addr().unwrap().to_string()]);
    let value = vec![0; 16 << 20];
    let error = etcd.transact(&[], &[Write::Put { key: "a", value: &value }], BRIEF).unwrap_err();
    assert!(error.may_have_happened() && !error.is_permanent(), "{error}");
}

#[test]
fn an_answer_that_comes_one_byte_at_a_time_ends_at_the_limit_as_well() {
    let fake = FakeEtcd::start(|_, stream| {
        let mut sent =
            std::io::Write::write_all(stream, b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
        while sent.is_ok() {
            std::thread::sleep(Duration::from_millis(10));
            sent = std::io::Write::write_all(stream, b" ");
        }
        false
    });
    let error = write(&client(&[fake.place()]), BRIEF).unwrap_err();
    assert!(error.may_have_happened() && !error.is_permanent(), "{error}");
    assert!(error.to_string().contains("no answer within"), "{error}");
}

#[cfg(feature = "tls")]
#[test]
fn nothing_is_sent_before_tls_is_agreed_on() {
    let authority = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, authority.cert.pem()).unwrap();
    // The kernel accepts connections for them.
    let silent = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
    let places = silent.each_ref().map(|listener| listener.local_addr().unwrap().to_string());
    let url = format!("etcd+tls://{}/n?ca={}", places.join(","), ca.display());
    let etcd = Etcd::new(&url.parse().unwrap()).unwrap();
    let error = write(&etcd, BRIEF).unwrap_err();
    assert!(!error.may_have_happened() && !error.is_permanent(), "{error}");
    assert_eq!(error.to_string().matches("not connected within").count(), 2, "{error}");
}

#[test]
fn a_redirection_is_not_followed() {
    let target = FakeEtcd::answering(1, "");
    let place = target.place();
    for status in [301, 302, 307, 308] {
        let location =
            format!("HTTP/1.1 {status} X\r\nLocation: http://{place}/\r\nContent-Length: 0\r\n\r\n");
        let fake = FakeEtcd::start(move |_, stream| {
            std::io::Write::write_all(stream, location.as_bytes()).unwrap();
            true
        });
        let error = write(&client(&[fake.place()]), SOON).unwrap_err();
        assert!(error.is_permanent() && error.may_have_happened(), "{error}");
    }
    assert_eq!(target.connections(), 0);
}

/// The client of a server with users, and the directory with its password.
fn user_client(places: &[String]) -> (Etcd, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    std::fs::write(&file, "secret\n").unwrap();
    let url = format!("etcd://{}/n?user=me&password-file={}", places.join(","), file.display());
    (Etcd::new(&url.parse().unwrap()).unwrap(), directory)
}

/// A server that wants the last token that it has given, and gives another one each time.
fn with_tokens(forgets: bool) -> FakeEtcd {
    let given = Mutex::new(0);
    FakeEtcd::start(move |asked, stream| {
        let mut given = given.lock().unwrap();
        if asked.path == "/v3/auth/authenticate" {
            assert_eq!(asked.body, "{\"name\":\"me\",\"password\":\"secret\"}");
            *given += 1;
            answer(stream, 200, &success(1, &format!(",\"token\":\"t{given}\"")));
        } else if asked.token.as_ref() == Some(&format!("t{given}")) {
            if forgets {
                *given += 1;
            }
            answer(stream, 200, &success(1, ",\"succeeded\":true"));
        } else {
            answer(stream, 401, &refusal("etcdserver: invalid auth token", 16));
        }
        true
    })
}

#[test]
fn a_token_is_renewed_when_it_has_run_out() {
    let fake = with_tokens(false);
    let (etcd, _directory) = user_client(&[fake.place()]);
    for _ in 0..3 {
        assert!(write(&etcd, SOON).unwrap().succeeded);
    }
    let (log_in, transaction) = ("/v3/auth/authenticate", "/v3/kv/txn");
    assert_eq!(fake.paths(), [log_in, transaction, transaction, transaction]);

    let fake = with_tokens(true);
    let (etcd, _directory) = user_client(&[fake.place()]);
    for _ in 0..2 {
        assert!(write(&etcd, SOON).unwrap().succeeded);
    }
    assert_eq!(fake.paths(), [log_in, transaction, transaction, log_in, transaction]);
}

#[test]
fn a_refused_password_is_permanent_and_nothing_else_is_sent() {
    let fake = FakeEtcd::start(|_, stream| {
        let message = "etcdserver: authentication failed, invalid user ID or password";
        answer(stream, 400, &refusal(message, 3));
        true
    });
    let other = FakeEtcd::answering(1, "");
    let (etcd, _directory) = user_client(&[fake.place(), other.place()]);
    let error = write(&etcd, SOON).unwrap_err();
    assert!(error.is_permanent() && !error.may_have_happened(), "{error}");
    assert!(
        error.to_string().contains("password is wrong") && !error.to_string().contains("secret"),
        "{error}"
    );
    assert_eq!((fake.paths().len(), other.connections()), (1, 0));
    assert!(!format!("{etcd:?}").contains("secret"));
}

#[test]
fn a_server_without_users_needs_no_token() {
    let fake = FakeEtcd::start(|asked, stream| {
        if asked.path.ends_with("authenticate") {
            answer(stream, 400, &refusal("etcdserver: authentication is not enabled", 9));
        } else {
            assert_eq!(asked.token, None);
            answer(stream, 200, &success(1, ""));
        }
        true
    });
    let (etcd, _directory) = user_client(&[fake.place()]);
    write(&etcd, SOON).unwrap();
}

#[test]
fn files_that_are_missing_are_found_before_anything_is_asked() {
    for text in ["etcd://a/n?user=me&password-file=/nonexistent", "etcd+tls://a/n?ca=/nonexistent"] {
        let error = Etcd::new(&text.parse().unwrap()).unwrap_err();
        assert!(error.is_permanent() && error.to_string().contains("/nonexistent"), "{error}");
    }
}
