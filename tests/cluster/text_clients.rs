//! Clients of the text protocols, which have no word for a standby: what they had before, the end of
//! the connection, is all that they get.

use serde_json::json;

use crate::servers::Cluster;
use crate::support::line_client::LineClient;

const PROTOCOLS: [&str; 2] = ["lockd", "glockd"];

fn client(cluster: &Cluster, index: usize, protocol: &str) -> LineClient {
    LineClient::new(cluster.server(index).tcp(protocol))
}

fn token(cluster: &Cluster, index: usize, name: &str) -> u64 {
    let listed = cluster.message(index).call("list", json!({"prefix": name}));
    listed["locks"][0]["holders"][0]["token"].as_u64().expect("a holder")
}

#[test]
fn they_are_turned_away_by_a_standby_and_served_by_it_once_it_is_active() {
    let mut cluster = Cluster::start(2);
    let active = cluster.await_active();
    let standby = 1 - active;
    let mut holders = PROTOCOLS.map(|protocol| client(&cluster, active, protocol));
    let mut tokens = Vec::new();
    for (holder, protocol) in holders.iter_mut().zip(PROTOCOLS) {
        assert!(holder.ask(&format!("g {protocol}")).starts_with('1'));
        tokens.push(token(&cluster, active, protocol));
        // Without a word, whether it has asked or not.
        assert_eq!(client(&cluster, standby, protocol).read_to_end(), b"");
        let mut asking = client(&cluster, standby, protocol);
        let _ = asking.socket().send(format!("g {protocol}\n").as_bytes());
        assert_eq!(asking.read_to_end(), b"");
    }
    cluster.kill(active);
    for holder in &mut holders {
        assert_eq!(holder.read_to_end(), b"");
    }
    assert_eq!(cluster.await_next(active), standby);
    let mut next = PROTOCOLS.map(|protocol| client(&cluster, standby, protocol));
    for (client, protocol) in next.iter_mut().zip(PROTOCOLS) {
        assert!(client.ask(&format!("g {protocol}")).starts_with('0'), "it is not free yet");
    }
    // glockd has a request that waits; then the other may ask again.
    next[1].send("gw - glockd\n");
    assert_eq!(next[1].line(), "1 Lock Get Success: glockd\r\n");
    assert!(next[0].ask("g lockd").starts_with('1'));
    for (protocol, before) in PROTOCOLS.into_iter().zip(tokens) {
        assert!(token(&cluster, standby, protocol) > before);
    }
}
