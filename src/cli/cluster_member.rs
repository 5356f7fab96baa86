//! The server as a member of a cluster: where its clients find it, what its events come to, and what
//! its service manager and its pages are told. When it is active is decided in the library.

use lockd::server::cluster::{ClusterConfig, ClusterView};
use lockd::server::{Listen, ListenAddress, Protocol};

/// The exit status of a server that was active, and is not any more: it is to be started again, as a
/// standby.
pub(super) const EXIT_NOT_ACTIVE: u8 = 4;

/// The configuration with the address at which clients find the server, unless it is given: that of
/// the first listener for them, with the name of this machine if it listens on all addresses.
pub(super) fn with_address(cluster: &ClusterConfig, addresses: &[Listen]) -> ClusterConfig {
    let address = cluster.address.clone().or_else(|| addresses.iter().find_map(clients_address));
    ClusterConfig { address, ..cluster.clone() }
}

fn clients_address(listen: &Listen) -> Option<String> {
    let ListenAddress::Tcp(address) = &listen.address else { return None };
    if listen.protocol != Protocol::Message || listen.websocket {
        return None;
    }
    let (host, port) = address.rsplit_once(':')?;
    if is_every_address(host) {
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        return Some(format!("{name}:{port}"));
    }
    Some(address.clone())
}

/// Whether a listener at this host listens on all addresses of this machine.
pub(super) fn is_every_address(host: &str) -> bool {
    ["0.0.0.0", "[::]"].contains(&host)
}

/// What a server is in its cluster, in a few words.
pub(super) fn in_words(view: &ClusterView) -> String {
    let cluster = &view.cluster;
    match (view.is_active, &view.active) {
        (true, _) => format!("active in the cluster {cluster}"),
        (false, Some(active)) => format!("standby of the cluster {cluster}, active: {active}"),
        (false, None) => format!("standby of the cluster {cluster}, no server is active"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(listen: &[&str]) -> Option<String> {
        let addresses: Vec<Listen> = listen.iter().map(|text| text.parse().unwrap()).collect();
        addresses.iter().find_map(clients_address)
    }

    #[test]
    fn clients_find_the_server_at_its_first_listener_for_them() {
        let listen = ["lockd://10.0.0.1:1", "message+unix:/x", "message+tls://10.0.0.1:2", "message://h:3"];
        assert_eq!(found(&listen).as_deref(), Some("10.0.0.1:2"));
        assert_eq!(found(&["lockd://10.0.0.1:1"]), None);
        for all in ["message://0.0.0.0:5", "message://[::]:5"] {
            let address = found(&[all]).unwrap();
            assert!(
                address.ends_with(":5") && !address.starts_with('0') && !address.starts_with('['),
                "{address}"
            );
        }
    }
}
