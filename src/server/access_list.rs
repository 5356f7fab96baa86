//! The access list: which addresses may connect over TCP. The listeners check it when they accept a
//! connection (`listener.rs`), and so does the program's page (`cli/http/listener.rs`). Access to a
//! Unix socket is decided by the mode of its file.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::config::Config;

impl Config {
    /// The access list that allows only this machine.
    #[must_use]
    pub fn loopback() -> Vec<IpNet> {
        let v4 = ipnet::Ipv4Net::new(Ipv4Addr::LOCALHOST, 8).map(|net| IpNet::V4(net.trunc()));
        let v6 = ipnet::Ipv6Net::new(Ipv6Addr::LOCALHOST, 128).map(IpNet::V6);
        v4.into_iter().chain(v6).collect()
    }

    /// Whether a peer at this address may connect.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        // An IPv6 listener shows an IPv4 peer as `::ffff:a.b.c.d`.
        let address = address.to_canonical();
        self.allow.iter().any(|net| net.contains(&address))
    }
}

/// Reads an entry of the access list: `IP` or `IP/BITS`.
///
/// # Errors
/// If `text` is neither.
pub fn parse_allow(text: &str) -> Result<IpNet, String> {
    let net = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    net.map_err(|_| format!("{text:?} is neither an IP address nor a network like 10.0.0.0/8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_default_only_this_machine_may_connect() {
        let config = Config::default();
        for (address, allowed) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("10.0.0.1", false),
            ("::2", false),
        ] {
            assert_eq!(config.allows(address.parse().unwrap()), allowed, "{address}");
        }
        let config = Config { allow: vec![parse_allow("10.0.0.0/8").unwrap()], ..config };
        assert!(config.allows("10.1.2.3".parse().unwrap()) && !config.allows("127.0.0.1".parse().unwrap()));
        assert!(parse_allow("10.0.0.0/33").is_err());
    }
}
