//! Whether a request comes from a page of this server, or from no page at all: what keeps pages of others from
//! reading what is served here, in the browser of someone who may. Pure.
//!
//! Such a page can have its own host's name lead to this server. So requests for names that are not known as
//! this server's are refused; and others, if the browser says that another page has made them.

use std::net::IpAddr;

use crate::cli::http::request::Request;

/// Lets the request pass, or says why not. `here` is the address at which it came in, `names` are those of this
/// server.
pub(super) fn check(request: &Request, here: IpAddr, names: &[String]) -> Result<(), &'static str> {
    if !is_own_host(&request.host, here, names) {
        return Err(
            "this host is not served here: use the address itself, localhost, or a name of --http-host",
        );
    }
    if request.origin.as_deref().is_some_and(|origin| !is_of_host(origin, &request.host)) {
        return Err("pages of other sites are not answered");
    }
    match request.fetch_site.as_deref() {
        None | Some("same-origin" | "none") => Ok(()),
        Some(_) => Err("other sites may not lead here: enter the address by hand"),
    }
}

/// Whether a `Host` is this server. Its port may be that of a tunnel, so any will do.
fn is_own_host(host: &str, here: IpAddr, names: &[String]) -> bool {
    let Some(host) = without_port(host) else { return false };
    if host.eq_ignore_ascii_case("localhost") || names.iter().any(|name| name.eq_ignore_ascii_case(host)) {
        return true;
    }
    // Nobody can have an address lead elsewhere; and through a tunnel one comes by that of its beginning.
    host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback() || address == here.to_canonical())
}

/// The host without its port, and without the brackets of an IPv6 address; `None` if it is no host.
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

/// Whether an origin is a page of this host; with TLS if something before this server adds that.
fn is_of_host(origin: &str, host: &str) -> bool {
    let of = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    of.is_some_and(|of| of.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::http::request::Method;

    fn is_trusted(host: &str, origin: Option<&str>, fetch_site: Option<&str>) -> bool {
        let request = Request {
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
    fn only_hosts_of_this_server_are_served() {
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
    fn an_ipv4_address_is_known_at_an_ipv6_socket() {
        assert!(is_own_host("10.0.0.5", "::ffff:10.0.0.5".parse().unwrap(), &[]));
        assert!(!is_own_host("10.0.0.5", "fe80::1".parse().unwrap(), &[]));
    }

    #[test]
    fn only_pages_of_the_same_host_are_answered() {
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
    fn what_another_site_leads_to_is_not_answered() {
        assert!(is_trusted("localhost", None, Some("none")));
        for site in ["cross-site", "same-site", "", "Same-Origin"] {
            assert!(!is_trusted("localhost", None, Some(site)), "{site}");
        }
    }
}
