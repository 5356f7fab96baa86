//! `lockd::etcd` with real etcd servers.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lockd::etcd::{Condition, Etcd, EtcdError, Transacted, Write};

use crate::authority::Authority;
use crate::etcd::{EtcdCluster, EtcdTls};
use crate::support::DEADLINE;

/// Long enough for an election.
const LIMIT: Duration = Duration::from_secs(10);

fn client(url: &str) -> Etcd {
    Etcd::new(&url.parse().unwrap()).unwrap()
}

fn put(etcd: &Etcd, key: &str, value: &str) -> Transacted {
    etcd.transact(&[], &[Write::Put { key, value: value.as_bytes() }], DEADLINE).unwrap()
}

fn value(etcd: &Etcd, key: &str) -> Option<String> {
    let found = etcd.read_key(key, DEADLINE).unwrap();
    found.map(|found| String::from_utf8(found.value).unwrap())
}

/// Repeats the call until it succeeds, as it must soon.
fn soon<T>(mut call: impl FnMut() -> Result<T, EtcdError>) -> T {
    let end = std::time::Instant::now() + DEADLINE;
    loop {
        match call() {
            Ok(result) => return result,
            Err(error) => {
                assert!(!error.is_permanent() && std::time::Instant::now() < end, "{error}");
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

#[test]
fn keys_are_written_read_compared_and_deleted() {
    let cluster = EtcdCluster::start(1);
    let etcd = client(&cluster.url("x"));
    etcd.check_endpoints(DEADLINE).unwrap();
    assert_eq!(etcd.read_key("a", DEADLINE).unwrap(), None);

    let absent = Condition { key: "a", revision: 0 };
    let every_byte: Vec<u8> = (0..=255).collect();
    let written = etcd.transact(&[absent], &[Write::Put { key: "a", value: &every_byte }], DEADLINE).unwrap();
    assert!(written.succeeded);
    let found = etcd.read_key("a", DEADLINE).unwrap().unwrap();
    assert_eq!((found.key.as_str(), &found.value, found.revision), ("a", &every_byte, written.revision));

    // All conditions must hold.
    let current = Condition { key: "a", revision: found.revision };
    let put = [Write::Put { key: "a", value: b"" }, Write::Put { key: "b/1", value: b"1" }];
    for conditions in [&[absent][..], &[current, Condition { key: "b/1", revision: 7 }]] {
        let refused = etcd.transact(conditions, &put, DEADLINE).unwrap();
        assert_eq!(refused, Transacted { succeeded: false, revision: written.revision });
    }
    let second = etcd.transact(&[current], &put, DEADLINE).unwrap();
    assert!(second.succeeded && second.revision > written.revision);
    let found = etcd.read_key("a", DEADLINE).unwrap().unwrap();
    assert_eq!((found.value.as_slice(), found.revision), (&b""[..], second.revision));

    let third = [Write::Put { key: "b/2", value: b"2" }, Write::Put { key: "b0", value: b"" }];
    let third = etcd.transact(&[], &third, DEADLINE).unwrap();
    let found = etcd.read_prefix("b/", DEADLINE).unwrap();
    let shown: Vec<_> = found.iter().map(|found| (found.key.as_str(), found.revision)).collect();
    assert_eq!(shown, [("b/1", second.revision), ("b/2", third.revision)]);
    assert_eq!(etcd.read_prefix("", DEADLINE).unwrap().len(), 4);

    let delete = [Write::Delete { key: "a" }, Write::DeletePrefix { prefix: "b/" }];
    assert!(etcd.transact(&[], &delete, DEADLINE).unwrap().succeeded);
    let left = etcd.read_prefix("", DEADLINE).unwrap();
    assert_eq!(left.iter().map(|found| found.key.as_str()).collect::<Vec<_>>(), ["b0"]);
    let absent = [Condition { key: "a", revision: 0 }];
    assert!(etcd.transact(&absent, &[Write::Delete { key: "a" }], DEADLINE).unwrap().succeeded);
}

#[test]
fn a_transaction_that_etcd_never_carries_out_is_refused_for_good() {
    let cluster = EtcdCluster::start(1);
    let etcd = client(&cluster.url("x"));
    let put = Write::Put { key: "a/1", value: b"" };
    for writes in [&[put, put][..], &[put, Write::DeletePrefix { prefix: "a/" }]] {
        let error = etcd.transact(&[], writes, DEADLINE).unwrap_err();
        assert!(error.is_permanent() && !error.may_have_happened(), "{error}");
        assert!(error.to_string().contains("duplicate key"), "{error}");
    }
    let large = vec![0; 3 << 20];
    let error = etcd.transact(&[], &[Write::Put { key: "a", value: &large }], DEADLINE).unwrap_err();
    assert!(error.is_permanent() && error.to_string().contains("too large"), "{error}");
    let large = vec![0; 1 << 20];
    assert!(etcd.transact(&[], &[Write::Put { key: "a", value: &large }], DEADLINE).unwrap().succeeded);
    assert_eq!(etcd.read_key("a", DEADLINE).unwrap().unwrap().value, large);
}

/// Runs etcdctl as root of etcd, and expects it to succeed.
pub(crate) fn etcdctl(cluster: &EtcdCluster, arguments: &str) {
    let mut etcdctl = Command::new("etcdctl");
    etcdctl.env("ETCDCTL_API", "3").args(["--endpoints", &cluster.place(0)]);
    let output = etcdctl.args(arguments.split(' ')).output();
    let output = output.expect("etcdctl: `make test-tools` installs it (Debian: etcd-client)");
    assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The address of a user, whose password is in a file of the directory.
fn user_url(cluster: &EtcdCluster, directory: &Path, user: &str, password: &str) -> String {
    let file = directory.join(format!("{user}-{password}"));
    fs::write(&file, format!("{password}\n")).unwrap();
    format!("{}?user={user}&password-file={}", cluster.url("x"), file.display())
}

#[test]
fn a_user_has_a_password_and_may_do_what_its_role_says() {
    let mut cluster = EtcdCluster::start(1);
    let directory = tempfile::tempdir().unwrap();
    let url = user_url(&cluster, directory.path(), "me", "secret");
    let early = client(&url);
    put(&early, "x/1", "before there are users");
    for arguments in [
        "user add root:top",
        "role add mine",
        "role grant-permission mine --prefix=true readwrite x/",
        "user add me:secret",
        "user grant-role me mine",
        "auth enable",
    ] {
        etcdctl(&cluster, arguments);
    }
    // It logs in once that is asked for, and again when etcd has forgotten its token.
    for etcd in [early, client(&url)] {
        etcd.check_endpoints(DEADLINE).unwrap();
        put(&etcd, "x/1", "with a user");
        assert_eq!(value(&etcd, "x/1").as_deref(), Some("with a user"));
        cluster.restart(0);
        put(&etcd, "x/1", "again");
        etcdctl(&cluster, "--user root:top role grant-permission mine read y");
        put(&etcd, "x/1", "after a change of the roles");
        let error = etcd.read_key("z", DEADLINE).unwrap_err();
        assert!(error.is_permanent() && error.to_string().contains("permission denied"), "{error}");
    }

    let wrong = client(&user_url(&cluster, directory.path(), "me", "wrong"));
    let nobody = client(&cluster.url("x"));
    for (etcd, part) in [(wrong, "password is wrong"), (nobody, "wants a user")] {
        let write = [Write::Put { key: "x/1", value: b"" }];
        let error = etcd.transact(&[], &write, DEADLINE).unwrap_err();
        assert!(error.is_permanent() && !error.may_have_happened(), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn both_sides_of_tls_show_certificates() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let tls = EtcdTls { ca: authority.ca(), cert_and_key: authority.issue("127.0.0.1") };
    let cluster = EtcdCluster::start_with(1, Some(tls));
    let files = |ca: &Path, cert: Option<&Path>| {
        let cert = cert.map(|cert| format!("&cert={}", cert.display())).unwrap_or_default();
        format!("{}?ca={}{cert}", cluster.url("x"), ca.display())
    };
    let own = authority.issue("me");
    let etcd = client(&files(&authority.ca(), Some(&own)));
    etcd.check_endpoints(DEADLINE).unwrap();
    for number in 0..3 {
        put(&etcd, "a", &number.to_string());
        assert_eq!(value(&etcd, "a"), Some(number.to_string()));
    }

    let by_name = format!("etcd+tls://{}/x", cluster.place(0).replace("127.0.0.1", "localhost"));
    let by_name = format!("{by_name}?ca={}&cert={}", authority.ca().display(), own.display());
    for (url, part) in [
        (files(&stranger.ca(), Some(&own)), "is not trusted"),
        (files(&authority.ca(), Some(&stranger.issue("me"))), "refuses this client's certificate"),
        (files(&authority.ca(), None), "refuses this client"),
        (by_name, "not for localhost"),
    ] {
        let error = client(&url).read_key("a", DEADLINE).unwrap_err();
        assert!(error.is_permanent() && error.to_string().contains(part), "{url}: {error}");
        let error = client(&url).check_endpoints(DEADLINE).unwrap_err();
        assert!(error.is_permanent() && error.to_string().contains(part), "{url}: {error}");
    }
    let plain = client(&format!("etcd://{}/x", cluster.place(0)));
    let error = plain.read_key("a", DEADLINE).unwrap_err();
    assert!(error.to_string().contains("write etcd+tls://"), "{error}");
    assert_eq!(value(&etcd, "a").as_deref(), Some("2"));
}

#[test]
fn a_server_without_tls_is_no_server_with_tls() {
    let cluster = EtcdCluster::start(1);
    let ca = Authority::new().ca().display().to_string();
    // The authority's files are gone by now.
    let error =
        Etcd::new(&format!("etcd+tls://{}/x?ca={ca}", cluster.place(0)).parse().unwrap()).unwrap_err();
    assert!(error.is_permanent() && error.to_string().contains(&ca), "{error}");
    let authority = Authority::new();
    let url = format!("etcd+tls://{}/x?ca={}", cluster.place(0), authority.ca().display());
    let error = client(&url).read_key("a", DEADLINE).unwrap_err();
    assert!(error.to_string().contains("write etcd://"), "{error}");
}

#[test]
fn a_stopped_member_delays_a_read_and_leaves_one_transaction_in_doubt() {
    let mut cluster = EtcdCluster::start(3);
    let leader = cluster.leader();
    let stopped = (leader + 1) % 3;
    let order = [stopped, leader, (leader + 2) % 3].map(|index| cluster.place(index)).join(",");
    let url = format!("etcd://{order}/x");
    let etcd = client(&url);
    put(&etcd, "a", "1");
    cluster.stop(stopped);
    assert_eq!(etcd.read_key("a", LIMIT).unwrap().unwrap().value, b"1");
    put(&etcd, "a", "2");

    let etcd = client(&url);
    let brief = Duration::from_secs(2);
    let error = etcd.transact(&[], &[Write::Put { key: "a", value: b"3" }], brief).unwrap_err();
    assert!(error.may_have_happened() && !error.is_permanent(), "{error}");
    put(&etcd, "a", "4");
    client(&url).check_endpoints(LIMIT).unwrap();
    cluster.go_on(stopped);
    // Now the transaction that was in doubt is carried out, or never.
    assert!(matches!(value(&etcd, "a").as_deref(), Some("3" | "4")));
}

#[test]
fn the_end_of_the_leader_ends_nothing() {
    let mut cluster = EtcdCluster::start(3);
    let etcd = client(&cluster.url("x"));
    let first = put(&etcd, "a", "1");
    let killed = cluster.leader();
    cluster.kill(killed);
    let condition = Condition { key: "a", revision: first.revision };
    // It may have been carried out by a call that has failed.
    let second =
        soon(|| etcd.transact(&[condition], &[Write::Put { key: "a", value: b"2" }], Duration::from_secs(2)));
    let found = etcd.read_key("a", DEADLINE).unwrap().unwrap();
    assert_eq!(found.value, b"2");
    assert!(!second.succeeded || second.revision == found.revision);

    let next = cluster.leader();
    assert_ne!(next, killed);
    cluster.stop(next);
    let brief = Duration::from_secs(2);
    let error = etcd.transact(&[], &[Write::Put { key: "b", value: b"" }], brief).unwrap_err();
    assert!(!error.is_permanent(), "one of three is not enough: {error}");
    let error = etcd.read_key("a", brief).unwrap_err();
    assert!(!error.is_permanent() && !error.may_have_happened(), "{error}");
    cluster.restart(killed);
    assert_eq!(soon(|| etcd.read_key("a", Duration::from_secs(2))).unwrap().value, b"2");
}

#[test]
fn a_server_of_another_etcd_cluster_in_the_list_is_found_out() {
    let (one, other) = (EtcdCluster::start(1), EtcdCluster::start(1));
    let etcd = client(&format!("etcd://{},{}/x", one.place(0), other.place(0)));
    let error = etcd.check_endpoints(DEADLINE).unwrap_err();
    assert!(error.is_permanent() && error.to_string().contains("another etcd cluster"), "{error}");
    assert!(error.to_string().contains(&other.place(0)), "{error}");
}
