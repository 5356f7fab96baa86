//! Decides whether a request comes from a page of this server, or from no page at all. Pure.
//!
//! Somebody who may read these pages may also open a page of another site in the same browser. That
//! page must not be able to read what is served here. Two checks prevent it. The other site can
//! have its own host name resolve to this server's address (DNS rebinding), so a request is refused
//! unless its `Host` is known to be this server's. And a request is refused if the browser says
//! that a page of another site has made it.

use std::net::IpAddr;

use crate::cli::http::request::HttpRequest;

/// Checks a request that arrived at the address `here`; `names` are the host names of this server.
///
/// # Errors
/// Why it is not to be answered.
pub(super) fn check(request: &HttpRequest, here: IpAddr, names: &[String]) -> Result<(), &'static str> {
    if !is_own_host(&request.host, here, names) {
        return Err(
            "this host is not served here: use the address itself, localhost, or a name given with --http-host",
        );
    }
    if request.origin.as_deref().is_some_and(|origin| !is_of_host(origin, &request.host)) {
        return Err("requests from pages of other sites are not answered");
    }
    match request.fetch_site.as_deref() {
        None | Some("same-origin" | "none") => Ok(()),
        Some(_) => Err("links from other sites are not followed here: enter the address by hand"),
    }
}

/// Whether a `Host` names this server. The port may be that of a tunnel, so any port will do.
fn is_own_host(host: &str, here: IpAddr, names: &[String]) -> bool {
    let Some(host) = without_port(host) else { return false };
    if host.eq_ignore_ascii_case("localhost") || names.iter().any(|name| name.eq_ignore_ascii_case(host)) {
        return true;
    }
    // An address, unlike a name, cannot be made to lead elsewhere. A browser that uses a tunnel
    // sends the address of the tunnel's beginning, which is a loopback address.
    host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback() || address == here.to_canonical())
}

/// The host without its port, and without the brackets of an IPv6 address; `None` if it is not a
/// host.
fn without_port(host: &str) -> Option<&str> {
    let (host, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']')? {
            (host, "") => (host, None),
            (host, rest) => (host, Some(rest.strip_prefix(':')?)),
        },
        None => host.split_once(':').map_or((host, None), |(host, port)| (host, Some(port))),
    };
    let is_port = |port: &str| port.parse::<u16>().is_ok();
    (!host.is_empty() && port.is_none_or(is_port)).then_some(host)
}

/// Whether an origin is this host. Its scheme is `https` where a proxy in front of this server adds
/// TLS.
fn is_of_host(origin: &str, host: &str) -> bool {
    let host_of_origin = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    host_of_origin.is_some_and(|other| other.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::http::request::Method;

    fn is_trusted(host: &str, origin: Option<&str>, fetch_site: Option<&str>) -> bool {
        let request = HttpRequest {
            method: Method::Get,
            path: "/".to_owned(),
            query: String::new(),
            host: host.to_owned(),
            origin: origin.map(str::to_owned),
            fetch_site: fetch_site.map(str::to_owned),
            keep_alive: true,
        };
        check(&request, "10.0.0.5".parse().unwrap(), &["locks.example".to_owned()]).is_ok()
    }

    #[test]
    fn only_this_servers_hosts_are_served() {
        for host in [
            "localhost",
            "LocalHost:9",
            "127.0.0.1",
            "127.0.0.1:2627",
            "[::1]",
            "[::1]:80",
            "10.0.0.5:1",
            "Locks.Example",
            "locks.example:443",
        ] {
            assert!(is_trusted(host, None, None), "{host}");
        }
        for host in [
            "",
            ":80",
            "evil.example",
            "localhost.evil.example",
            "locks.example.evil",
            "xlocks.example",
            "10.0.0.6",
            "0.0.0.0:2627",
            "0",
            "2130706433",
            "0x7f000001",
            "[::]",
            "[::1",
            "[::1]x",
            "[::1]:x",
            "::1",
            "localhost:",
            "localhost:x",
            "localhost:1:2",
            "localhost:99999",
            "127.0.0.1@evil.example",
            "localhost,evil.example",
            "localhost evil.example",
        ] {
            assert!(!is_trusted(host, None, None), "{host}");
        }
    }

    #[test]
    fn an_ipv4_host_is_recognized_at_an_ipv6_socket() {
        assert!(is_own_host("10.0.0.5", "::ffff:10.0.0.5".parse().unwrap(), &[]));
        assert!(!is_own_host("10.0.0.5", "fe80::1".parse().unwrap(), &[]));
    }

    #[test]
    fn only_requests_of_the_same_origin_are_answered() {
        for origin in ["http://localhost:1", "https://LOCALHOST:1"] {
            assert!(is_trusted("localhost:1", Some(origin), Some("same-origin")), "{origin}");
        }
        for origin in [
            "",
            "null",
            "http://localhost",
            "http://localhost:2",
            "http://evil.example",
            "localhost:1",
            "http://localhost:1/",
            "http://localhost:1.evil.example",
            "ftp://localhost:1",
        ] {
            assert!(!is_trusted("localhost:1", Some(origin), None), "{origin}");
        }
    }

    #[test]
    fn requests_that_another_site_causes_are_not_answered() {
        assert!(is_trusted("localhost", None, Some("none")));
        for site in ["cross-site", "same-site", "", "Same-Origin"] {
            assert!(!is_trusted("localhost", None, Some(site)), "{site}");
        }
    }
}
