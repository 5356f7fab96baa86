//! Servers of a cluster on an etcd that asks who they are: by a password, or by certificates.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::authority::Authority;
use crate::etcd::{EtcdCluster, EtcdTls};
use crate::etcd_client::etcdctl;
use crate::servers::{Cluster, Ended, token};
use crate::support::server::Launch;

/// A server with this address of etcd ends by itself, and says this.
fn assert_refused(cluster: &Cluster, part: &str) {
    let options = cluster.options();
    let launch = Launch::new().args(options.iter().map(String::as_str));
    let (status, log) = launch.listen("message://127.0.0.1:0").run();
    assert_eq!(status.code(), Some(2), "{log}");
    assert!(log.contains(part), "{log}");
}

/// Two servers, one after the other, are active.
fn assert_works(cluster: &mut Cluster) {
    for _ in 0..2 {
        cluster.add(&[]);
    }
    let active = cluster.await_active();
    let first = token(&cluster.message(active).try_lock("x"));
    assert_eq!(cluster.stand_down(active), Ended::With(4));
    let next = cluster.await_next(active);
    assert!(token(&cluster.message(next).try_lock("x")) > first);
    cluster.start_again(active);
    cluster.await_standby(active, next);
}

#[test]
fn a_user_that_may_write_the_keys_of_the_cluster_is_enough() {
    let etcd = EtcdCluster::start(1);
    let grant = "role grant-permission mine --prefix=true readwrite /lockd/main/";
    for arguments in [
        "user add root:top",
        "role add mine",
        grant,
        "user add me:secret",
        "user grant-role me mine",
        "auth enable",
    ] {
        etcdctl(&etcd, arguments);
    }
    let directory = tempfile::tempdir().unwrap();
    let url = |etcd: &EtcdCluster, password: &str| {
        let file = directory.path().join(password);
        fs::write(&file, format!("{password}\n")).unwrap();
        format!("{}?user=me&password-file={}", etcd.url("main"), file.display())
    };
    let (good, wrong, none) = (url(&etcd, "secret"), url(&etcd, "wrong"), etcd.url("main"));
    let mut cluster = Cluster::on(etcd).at(wrong);
    assert_refused(&cluster, "password is wrong");
    cluster = cluster.at(none);
    assert_refused(&cluster, "wants a user");
    cluster = cluster.at(good);
    assert_works(&mut cluster);

    // What etcd refuses once the cluster works is put right there, and the standbys wait for that.
    let active = cluster.await_active();
    etcdctl(&cluster.etcd, "--user root:top role revoke-permission mine --prefix=true /lockd/main/");
    assert_eq!(cluster.end(active), Ended::With(4));
    let log = cluster.server(active).log().join("\n");
    assert!(log.contains("permission denied"), "{log}");
    cluster.await_log(1 - active, "permission denied");
    etcdctl(&cluster.etcd, &format!("--user root:top {grant}"));
    assert_eq!(cluster.await_next(active), 1 - active);
}

#[test]
fn certificates_are_enough() {
    let authority = Authority::new();
    let tls = EtcdTls { ca: authority.ca(), cert_and_key: authority.issue("127.0.0.1") };
    let etcd = EtcdCluster::start_with(1, Some(tls));
    let url = |ca: &Path| format!("{}?ca={}", etcd.url("main"), ca.display());
    let own = authority.issue("lockd");
    let good = format!("{}&cert={}", url(&authority.ca()), own.display());
    let stranger = Authority::new();
    let refused = [
        (url(&authority.ca()), "refuses this client"),
        (format!("{}&cert={}", url(&stranger.ca()), own.display()), "is not trusted"),
    ];
    let mut cluster = Cluster::on(etcd);
    for (url, part) in refused {
        cluster = cluster.at(url);
        assert_refused(&cluster, part);
    }
    cluster = cluster.at(good);
    assert_works(&mut cluster);
}

/// The kernel could not end it when its time is over, so that its clients would hold their locks on,
/// beside those of the next server.
#[test]
fn process_1_of_a_container_is_refused() {
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", env!("CARGO_BIN_EXE_lockd"), "serve"]);
    command.args(["--cluster", "etcd://127.0.0.1:1/main", "--listen", "message://127.0.0.1:0"]);
    let ended = command.output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    if said.contains("unshare") {
        return eprintln!("skipped: no process namespace can be made here: {said}");
    }
    assert_eq!(ended.status.code(), Some(2), "{said}");
    assert!(said.contains("process 1 of a container"), "{said}");
}
