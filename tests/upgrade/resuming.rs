//! Sessions that resume go on through upgrades: those that have a connection, those that have none
//! now, and those in TLS, whose connection an upgrade ends.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::site::Site;
use crate::support::eventually;
use crate::support::resumable::{exclusive, reset, resumable, resumed};

fn holder(site: &Site, name: &str) -> Value {
    site.server.message().call("list", json!({"prefix": name}))["locks"][0]["holders"][0].clone()
}

#[test]
fn a_session_resumes_after_upgrades_and_at_a_later_run() {
    let state = tempfile::tempdir().unwrap();
    let state = state.path().to_str().unwrap();
    let options = ["--first-start", "--state-dir", state, "--dead-peer-timeout", "12", "--allow-kick"];
    let site = Site::start(&options);
    let server = &site.server;
    let (mut standing, mut told_standing) = resumable(server);
    let (mut doubtful, mut told_doubtful) = resumable(server);
    let (mut kicked, mut told_kicked) = resumable(server);
    let locks = [standing.lock("standing"), doubtful.lock("doubtful"), kicked.lock("kicked")];
    reset(doubtful);
    let address = kicked.address();
    assert_eq!(server.message().call("kick", json!({"address": address}))["status"], "ok");
    eventually("two sessions are in doubt", || {
        ["doubtful", "kicked"].iter().all(|name| holder(&site, name)["inDoubt"].is_number())
    });
    for _ in 0..2 {
        let (status, told, error) = site.ask();
        assert!(status == 0, "{told}{error}");
    }
    assert!(standing.is_served());
    let epoch = told_doubtful.epoch.clone();
    let mut doubtful = resumed(server, &mut told_doubtful, &exclusive("doubtful", &locks[1]));
    assert_eq!(told_doubtful.epoch, epoch, "an upgrade continues the run");
    let ended = server.message().call("resume", told_kicked.request(&exclusive("kicked", &locks[2])));
    assert_eq!(ended["status"], "ended", "{ended}");
    assert!(doubtful.is_served());
    let mut site = site;
    site.server.signal(Signal::KILL);
    site.server.wait();
    let listen =
        |launch: crate::support::server::Launch| launch.listen("message://127.0.0.1:0").args(options);
    let site = site.start_again(|launch, _| listen(launch));
    let _standing = resumed(&site.server, &mut told_standing, &exclusive("standing", &locks[0]));
    let _doubtful = resumed(&site.server, &mut told_doubtful, &exclusive("doubtful", &locks[1]));
    assert_eq!(holder(&site, "standing")["token"], locks[0]["token"]);
}

/// The connection that it has left may still be there.
#[test]
fn a_session_that_has_just_resumed_does_not_keep_the_server_from_an_upgrade() {
    let state = tempfile::tempdir().unwrap();
    let options = ["--first-start", "--state-dir", state.path().to_str().unwrap()];
    let site = Site::start(&options);
    let (mut client, mut told) = resumable(&site.server);
    let granted = client.lock("x");
    for round in 0..10 {
        let before = client;
        client = resumed(&site.server, &mut told, &exclusive("x", &granted));
        if round % 2 == 0 {
            reset(before);
        }
        let (status, told, error) = site.ask();
        assert!(status == 0, "round {round}: {told}{error}");
        assert!(client.is_served());
    }
}
