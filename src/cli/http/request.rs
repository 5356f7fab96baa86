//! Parses the head of a request. Pure: knows no socket, no clock, and not what is served.

use crate::cli::http::response::{HttpResponse, HttpStatus};

/// The longest head of a request.
pub(super) const HEAD_MAX: usize = 8 << 10;
const HEADERS_MAX: usize = 64;

/// The methods, as far as they are told apart here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Head,
    Other,
}

/// What these pages use of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HttpRequest {
    pub(super) method: Method,
    pub(super) path: String,
    /// What follows the question mark, still percent-encoded.
    pub(super) query: String,
    pub(super) host: String,
    pub(super) origin: Option<String>,
    /// `Sec-Fetch-Site`: where the request comes from, as the browser says.
    pub(super) fetch_site: Option<String>,
    pub(super) keep_alive: bool,
}

impl HttpRequest {
    pub(super) fn is_head(&self) -> bool {
        self.method == Method::Head
    }
}

/// The result of parsing the bytes received so far.
#[derive(Debug)]
pub(super) enum Parsed {
    Incomplete,
    /// A request, and how many bytes it has.
    Request(HttpRequest, usize),
    /// It is refused with this response, and nothing after it can be parsed.
    Refused(HttpResponse),
}

/// Parses the head of a request. A request with a body is refused, since nothing here takes one.
pub(super) fn parse(input: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut headers);
    let too_large = || refused(HttpStatus::TooLarge, "the request is too large");
    match head.parse(&input[..input.len().min(HEAD_MAX)]) {
        Ok(httparse::Status::Complete(length)) => match interpret(&head) {
            Ok(request) => Parsed::Request(request, length),
            Err(why) => refused(HttpStatus::BadRequest, why),
        },
        Ok(httparse::Status::Partial) if input.len() < HEAD_MAX => Parsed::Incomplete,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => too_large(),
        Err(error) => refused(HttpStatus::BadRequest, &format!("not a request of HTTP/1.1: {error}")),
    }
}

fn refused(status: HttpStatus, why: &str) -> Parsed {
    Parsed::Refused(HttpResponse::text(status, why))
}

fn interpret(head: &httparse::Request<'_, '_>) -> Result<HttpRequest, &'static str> {
    let method = match head.method {
        Some("GET") => Method::Get,
        Some("HEAD") => Method::Head,
        _ => Method::Other,
    };
    let target = head.path.unwrap_or_default();
    // With another method, which is refused later, the target may be anything, such as `*`.
    if method != Method::Other && !target.starts_with('/') {
        return Err("the request's target does not begin with a slash");
    }
    let has_body = header(head, "content-length")?.is_some_and(|length| length != "0")
        || header(head, "transfer-encoding")?.is_some();
    if has_body && method != Method::Other {
        return Err("a request with a body");
    }
    let connection = header(head, "connection")?.unwrap_or_default().to_ascii_lowercase();
    let has_option = |option: &str| connection.split(',').any(|given| given.trim() == option);
    let keep_alive = if head.version == Some(1) { !has_option("close") } else { has_option("keep-alive") };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Ok(HttpRequest {
        method,
        path: path.to_owned(),
        query: query.to_owned(),
        host: header(head, "host")?.ok_or("the header Host is missing")?.to_owned(),
        origin: header(head, "origin")?.map(str::to_owned),
        fetch_site: header(head, "sec-fetch-site")?.map(str::to_owned),
        // Another method may have a body of unknown length, so that the next request could not be
        // found.
        keep_alive: keep_alive && method != Method::Other,
    })
}

/// The value of a header that may be given once.
fn header<'h>(head: &httparse::Request<'_, 'h>, name: &str) -> Result<Option<&'h str>, &'static str> {
    let mut found = head.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
    match (found.next(), found.next()) {
        (None, _) => Ok(None),
        (Some(header), None) => std::str::from_utf8(header.value)
            .map(|value| Some(value.trim()))
            .map_err(|_| "a header is not UTF-8"),
        (Some(_), Some(_)) => Err("a header is given twice"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> HttpRequest {
        match parse(text.as_bytes()) {
            Parsed::Request(request, length) if length == text.len() => request,
            other => panic!("{text:?}: {other:?}"),
        }
    }

    fn refusal(text: &[u8]) -> HttpStatus {
        match parse(text) {
            Parsed::Refused(response) => response.status,
            other => panic!("{:?}: {other:?}", text.escape_ascii().to_string()),
        }
    }

    #[test]
    fn a_request_is_parsed_once_it_is_complete() {
        let text = "GET /locks?prefix=a%20b HTTP/1.1\r\nhOST: localhost:1 \r\nOrigin: http://localhost:1\r\nSec-Fetch-Site: same-origin\r\n\r\n";
        let expected = HttpRequest {
            method: Method::Get,
            path: "/locks".to_owned(),
            query: "prefix=a%20b".to_owned(),
            host: "localhost:1".to_owned(),
            origin: Some("http://localhost:1".to_owned()),
            fetch_site: Some("same-origin".to_owned()),
            keep_alive: true,
        };
        assert_eq!(request(text), expected);
        for end in 0..text.len() {
            assert!(matches!(parse(&text.as_bytes()[..end]), Parsed::Incomplete), "{end}");
        }
        let twice = format!("{text}GET");
        assert!(matches!(parse(twice.as_bytes()), Parsed::Request(_, length) if length == text.len()));
    }

    #[test]
    fn a_connection_is_kept_alive_if_the_client_allows_it() {
        for (start, keep_alive) in [
            ("GET / HTTP/1.1\r\n", true),
            ("GET / HTTP/1.1\r\nConnection: foo, CLOSE\r\n", false),
            ("GET / HTTP/1.0\r\n", false),
            ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n", true),
            ("HEAD / HTTP/1.1\r\nContent-Length: 0\r\n", true),
            ("POST / HTTP/1.1\r\nContent-Length: 10\r\n", false),
            ("OPTIONS * HTTP/1.1\r\n", false),
        ] {
            assert_eq!(request(&format!("{start}Host: a\r\n\r\n")).keep_alive, keep_alive, "{start}");
        }
    }

    #[test]
    fn malformed_requests_are_refused() {
        for text in [
            &b"\0\x01\x02"[..],
            b"GET /\r\n\r\n",
            b"GET / HTTP/2.0\r\n\r\n",
            b"GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nOrigin: b\r\norigin: c\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: \xff\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
        ] {
            assert_eq!(refusal(text), HttpStatus::BadRequest, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn the_size_of_a_head_is_limited() {
        let with = |filler: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{filler}\r\n\r\n");
        let long = with(&format!("X: {}", "x".repeat(HEAD_MAX)));
        assert_eq!(refusal(long.as_bytes()), HttpStatus::TooLarge);
        assert_eq!(refusal(&long.as_bytes()[..HEAD_MAX]), HttpStatus::TooLarge);
        assert_eq!(refusal(with("X: x\r\n".repeat(HEADERS_MAX).trim()).as_bytes()), HttpStatus::TooLarge);
        let fits = with(&format!("X: {}", "x".repeat(HEAD_MAX - with("X: ").len())));
        assert_eq!(fits.len(), HEAD_MAX);
        assert!(matches!(parse(fits.as_bytes()), Parsed::Request(..)));
    }
}
