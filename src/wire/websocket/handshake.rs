//! The handshake of WebSocket: an HTTP request, which is accepted or refused.
//!
//! A browser sends such a request for any page that asks for it, with the site of the page as the
//! `Origin`. So the origin must be checked. The `Host` must be checked too: the owner of a name can
//! point it to this machine (DNS rebinding), and a page from there has an origin that equals the
//! host.

use std::net::IpAddr;

use tungstenite::handshake::machine::TryParse;
use tungstenite::handshake::server::{Request, create_response, write_response};

use crate::wire::first_bytes::{DetectedProtocol, detect_protocol};
use crate::wire::websocket::Upgrade;

/// The longest request, in bytes.
const REQUEST_BYTES_MAX: usize = 8 << 10;

/// Answers the bytes that have arrived from a client. Pages of `origins` may connect, in addition
/// to pages of the host itself.
pub(crate) fn upgrade(bytes: &[u8], origins: &[String]) -> Upgrade {
    match Request::try_parse(bytes) {
        Ok(None) if bytes.len() <= REQUEST_BYTES_MAX => Upgrade::Incomplete,
        Ok(None) => refused("431 Request Header Fields Too Large", "its request is too long".to_owned()),
        Err(error) => {
            let seen = match detect_protocol(bytes) {
                Some(DetectedProtocol::Http) => format!(": {error}"),
                Some(other) => format!(": it is {other}"),
                None => String::new(),
            };
            let reason = format!("that is no request for a WebSocket, which this port speaks{seen}");
            refused("400 Bad Request", reason)
        }
        Ok(Some((consumed, request))) => match answer(&request, origins) {
            Ok(response) => Upgrade::Accepted { response, consumed },
            Err((status, reason)) => refused(status, reason),
        },
    }
}

fn answer(request: &Request, origins: &[String]) -> Result<Vec<u8>, (&'static str, String)> {
    let header = |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap_or_default());
    // Before anything else is checked, so that a client that wants no WebSocket learns why.
    let response = create_response(request)
        .map_err(|error| ("426 Upgrade Required", format!("that is no request for a WebSocket: {error}")))?;
    let host = host_of(header("host").unwrap_or_default());
    if !is_trusted_host(host, origins) {
        let reason = format!("the host {host:?} is not this one: --ws-origin lets it in");
        return Err(("403 Forbidden", reason));
    }
    if let Some(origin) = header("origin")
        && host_of_origin(origin) != Some(host)
        && !origins.iter().any(|known| known.eq_ignore_ascii_case(origin))
    {
        let reason = format!("pages of {origin:?} may not connect: --ws-origin lets them in");
        return Err(("403 Forbidden", reason));
    }
    let mut written = Vec::new();
    write_response(&mut written, &response)
        .map_err(|error| ("500 Internal Server Error", error.to_string()))?;
    Ok(written)
}

/// Whether no stranger can have pointed this host's name to this machine: it is an address,
/// `localhost`, or the host of an origin that may connect.
fn is_trusted_host(host: &str, origins: &[String]) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    address.parse::<IpAddr>().is_ok()
        || host.eq_ignore_ascii_case("localhost")
        || origins.iter().filter_map(|origin| host_of_origin(origin)).any(|known| known == host)
}

/// The host in `HOST` or `HOST:PORT`.
fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// The host in `SCHEME://HOST:PORT`.
fn host_of_origin(origin: &str) -> Option<&str> {
    origin.split_once("://").map(|(_, authority)| host_of(authority))
}

fn refused(status: &str, reason: String) -> Upgrade {
    let body = format!("{reason}\n");
    let response = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    Upgrade::Refused { response: response.into_bytes(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(host: &str, more: &str) -> String {
        format!(
            "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
        )
    }

    fn status(request: &str, origins: &[&str]) -> String {
        let origins: Vec<String> = origins.iter().map(|&origin| origin.to_owned()).collect();
        let response = match upgrade(request.as_bytes(), &origins) {
            Upgrade::Incomplete => return "incomplete".to_owned(),
            Upgrade::Accepted { response, consumed } => {
                assert_eq!(consumed, request.len());
                response
            }
            Upgrade::Refused { response, .. } => response,
        };
        String::from_utf8(response).unwrap()[9..12].to_owned()
    }

    #[test]
    fn the_response_is_that_of_the_rfc_and_the_bytes_after_the_request_are_left() {
        let mut bytes = request("127.0.0.1:9998", "").into_bytes();
        let length = bytes.len();
        bytes.extend_from_slice(b"\x81\x80....");
        let Upgrade::Accepted { response, consumed } = upgrade(&bytes, &[]) else { panic!("refused") };
        let response = String::from_utf8(response).unwrap().to_ascii_lowercase();
        assert!(response.starts_with("http/1.1 101 "), "{response}");
        assert!(response.contains("sec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n"), "{response}");
        assert!(response.ends_with("\r\n\r\n") && consumed == length);
    }

    #[test]
    fn a_request_in_pieces_is_waited_for_but_an_endless_one_is_refused() {
        let whole = request("localhost", "");
        for length in 0..whole.len() {
            assert_eq!(upgrade(&whole.as_bytes()[..length], &[]), Upgrade::Incomplete, "{length}");
        }
        let endless = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(REQUEST_BYTES_MAX));
        assert_eq!(status(&endless, &[]), "431");
    }

    #[test]
    fn a_request_that_is_not_for_a_websocket_is_refused() {
        for text in ["g foo\r\n\r\n", "\u{16}\u{3}\u{1}\r\n\r\n", "GET\r\n\r\n"] {
            assert_eq!(status(text, &[]), "400", "{text:?}");
        }
        assert_eq!(status("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", &[]), "426");
        let old = request("localhost", "").replace("Version: 13", "Version: 8");
        assert_eq!(status(&old, &[]), "426");
        let posted = request("localhost", "").replace("GET", "POST");
        assert_eq!(status(&posted, &[]), "400");
    }

    #[test]
    fn pages_of_other_sites_may_not_connect() {
        let listed = ["https://locks.example", "http://other.example:8080"];
        for (host, origin, expected) in [
            ("127.0.0.1:9998", "", "101"),
            ("[::1]:9998", "", "101"),
            ("localhost:9998", "Origin: http://localhost:3000\r\n", "101"),
            ("127.0.0.1:9998", "Origin: http://127.0.0.1\r\n", "101"),
            ("127.0.0.1:9998", "Origin: http://localhost\r\n", "403"),
            ("127.0.0.1:9998", "Origin: https://evil.example\r\n", "403"),
            ("127.0.0.1:9998", "Origin: null\r\n", "403"),
            ("127.0.0.1:9998", "Origin: https://127.0.0.1.evil.example\r\n", "403"),
            ("127.0.0.1:9998", "Origin: https://locks.example\r\n", "101"),
            ("127.0.0.1:9998", "Origin: http://locks.example\r\n", "403"),
            ("locks.example:9998", "Origin: https://locks.example\r\n", "101"),
            ("other.example", "", "101"),
            // The owner of this name may have pointed it to this machine.
            ("evil.example:9998", "Origin: http://evil.example:9998\r\n", "403"),
            ("evil.example:9998", "", "403"),
            ("", "", "403"),
        ] {
            assert_eq!(status(&request(host, origin), &listed), expected, "{host} {origin}");
        }
    }
}
