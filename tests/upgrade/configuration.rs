//! An upgrade with another configuration: connections keep what they have begun with, as at a reload.

use std::fs;

use serde_json::json;

use crate::site::Site;
use crate::support::frame_client::frame;

#[track_caller]
fn upgrade(site: &Site) {
    let (status, told, error) = site.ask();
    assert!(status == 0, "{told}{error}");
}

#[test]
fn connections_keep_what_they_have_begun_with() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("lockd.toml");
    fs::write(&config, "dead-peer-timeout = 30").unwrap();
    let site = Site::start(&["--config", config.to_str().unwrap()]);
    let (mut message, mut line) = (site.server.message(), site.server.glockd());
    assert_eq!(message.lock("one")["status"], "ok");
    assert!(line.ask("iam named").starts_with('1') && line.ask("g two").starts_with('1'));
    assert!(message.call("list", json!({})).to_string().contains("named"));
    let before = message.call("hello", json!({}));
    let long = frame(json!({"command": "ping", "id": "long", "more": "x".repeat(5000)}).to_string());
    message.send_bytes(&long[..4000]);
    let name = "n".repeat(200);
    line.send(format!("i {name}"));
    // There is one more configuration at each upgrade.
    fs::write(&config, "line-max = 50\nmessage-max = 1000\nno-dump = true\ndead-peer-timeout = 60").unwrap();
    upgrade(&site);
    let mut second = site.server.message();
    let of_second = second.call("hello", json!({}));
    fs::write(&config, "line-max = 60\nmessage-max = 2000\nno-dump = true\nno-registry = true").unwrap();
    upgrade(&site);
    message.send_bytes(&long[4000..]);
    assert_eq!(message.receive()["id"], "long");
    line.send("\n");
    assert!(line.line().starts_with('0'), "the line was not too long");
    assert_eq!(message.call("list", json!({}))["status"], "ok");
    assert_eq!(message.call("hello", json!({})), before);
    assert_eq!(second.call("hello", json!({})), of_second);
    assert_ne!(before, of_second, "{before}");
    assert_ne!(second.call("list", json!({}))["status"], "ok");
    assert_ne!(site.server.message().call("list", json!({}))["status"], "ok");
    let listed = message.call("list", json!({})).to_string();
    assert!(!listed.contains("named"), "names are forgotten: {listed}");
    assert_eq!(message.unlock("one")["result"], "ok");
    assert!(line.ask("r two").starts_with('1'));
}
