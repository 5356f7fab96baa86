//! A response and its bytes, with the headers that restrict what a browser may do with it. Pure.

use std::fmt::Write;

/// The statuses that are used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HttpStatus {
    Ok,
    BadRequest,
    Forbidden,
    NotFound,
    NotAllowed,
    Timeout,
    TooLarge,
    Unavailable,
}

impl HttpStatus {
    fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::BadRequest => "400 Bad Request",
            Self::Forbidden => "403 Forbidden",
            Self::NotFound => "404 Not Found",
            Self::NotAllowed => "405 Method Not Allowed",
            Self::Timeout => "408 Request Timeout",
            Self::TooLarge => "431 Request Header Fields Too Large",
            Self::Unavailable => "503 Service Unavailable",
        }
    }
}

/// A response.
#[derive(Debug)]
pub(super) struct HttpResponse {
    pub(super) status: HttpStatus,
    content_type: &'static str,
    /// The `Content-Security-Policy`: what a browser may load and run for it.
    policy: String,
    pub(super) body: String,
}

/// Nothing may be loaded, and no page may show it in a frame.
const LOAD_NOTHING: &str = "default-src 'none'; frame-ancestors 'none'";

impl HttpResponse {
    fn new(status: HttpStatus, content_type: &'static str, body: String) -> Self {
        Self { status, content_type, policy: LOAD_NOTHING.to_owned(), body }
    }

    /// One line of text for people.
    pub(super) fn text(status: HttpStatus, line: &str) -> Self {
        Self::new(status, "text/plain; charset=utf-8", format!("{line}\n"))
    }

    pub(super) fn json(body: String) -> Self {
        Self::new(HttpStatus::Ok, "application/json", body)
    }

    /// Metrics in the text format of Prometheus.
    pub(super) fn metrics(body: String) -> Self {
        Self::new(HttpStatus::Ok, "text/plain; version=0.0.4; charset=utf-8", body)
    }

    /// A page. A browser runs only the styles and scripts in it that have this nonce, and lets it
    /// send requests only to this server.
    pub(super) fn page(body: String, nonce: &str) -> Self {
        let policy = format!(
            "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
             img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
             require-trusted-types-for 'script'"
        );
        Self { policy, ..Self::new(HttpStatus::Ok, "text/html; charset=utf-8", body) }
    }

    /// The bytes to send; with `head_only`, for the method HEAD, without the body.
    pub(super) fn encode(self, close: bool, head_only: bool) -> Vec<u8> {
        let Self { status, content_type, policy, mut body } = self;
        let mut head = format!(
            "HTTP/1.1 {}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n\
             Content-Security-Policy: {policy}\r\nX-Content-Type-Options: nosniff\r\nX-Frame-Options: DENY\r\n\
             Referrer-Policy: no-referrer\r\nCross-Origin-Resource-Policy: same-origin\r\n",
            status.line(),
            body.len(),
        );
        if status == HttpStatus::NotAllowed {
            head.push_str("Allow: GET, HEAD\r\n");
        }
        // Writing to a string cannot fail.
        let _ = write!(head, "Connection: {}\r\n\r\n", if close { "close" } else { "keep-alive" });
        if head_only {
            return head.into_bytes();
        }
        // A page of locks is long and its client may be slow, so the body is not copied a second
        // time.
        body.reserve_exact(head.len());
        body.insert_str(0, &head);
        body.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_has_the_length_of_the_body_also_if_the_body_is_left_out() {
        let response = || HttpResponse::text(HttpStatus::NotFound, "ä");
        let whole = String::from_utf8(response().encode(false, false)).unwrap();
        let head = String::from_utf8(response().encode(false, true)).unwrap();
        assert_eq!(whole, format!("{head}ä\n"));
        assert!(head.starts_with("HTTP/1.1 404 Not Found\r\n") && head.ends_with("\r\n\r\n"));
        assert!(head.contains("Content-Length: 3\r\n") && head.contains("Connection: keep-alive\r\n"));
        assert!(!head.contains("Allow:"));
        let refused = HttpResponse::text(HttpStatus::NotAllowed, "").encode(true, false);
        let refused = String::from_utf8(refused).unwrap();
        assert!(
            refused.contains("\r\nAllow: GET, HEAD\r\n") && refused.contains("\r\nConnection: close\r\n")
        );
    }
}
