//! What a client asks, from the bytes that it sent. Pure: no socket, no clock, nothing of what is served.

use crate::cli::http::response::{Response, Status};

/// The longest head of a request.
pub(super) const HEAD_MAX: usize = 8 << 10;
const HEADERS_MAX: usize = 64;

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Head,
    Other,
}

/// A request, as far as anything here depends on it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) path: String,
    /// What stands behind the question mark, as it came.
    pub(super) query: String,
    pub(super) host: String,
    pub(super) origin: Option<String>,
    /// From where the browser says that the request comes (`Sec-Fetch-Site`).
    pub(super) fetch_site: Option<String>,
    pub(super) keep_alive: bool,
}

impl Request {
    pub(super) fn is_head(&self) -> bool {
        self.method == Method::Head
    }
}

/// What the bytes so far come to.
#[derive(Debug)]
pub(super) enum Parsed {
    Incomplete,
    /// A request, and how many bytes it has.
    Request(Request, usize),
    /// Nothing that follows could be understood.
    Refused(Response),
}

/// Reads the head of a request. One with a body is refused: nothing here takes any.
pub(super) fn parse(input: &[u8]) -> Parsed {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut head = httparse::Request::new(&mut headers);
    let too_large = || refused(Status::TooLarge, "the request is too large");
    match head.parse(&input[..input.len().min(HEAD_MAX)]) {
        Ok(httparse::Status::Complete(length)) => match understand(&head) {
            Ok(request) => Parsed::Request(request, length),
            Err(why) => refused(Status::BadRequest, why),
        },
        Ok(httparse::Status::Partial) if input.len() < HEAD_MAX => Parsed::Incomplete,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => too_large(),
        Err(error) => refused(Status::BadRequest, &format!("not a request of HTTP/1.1: {error}")),
    }
}

fn refused(status: Status, why: &str) -> Parsed {
    Parsed::Refused(Response::text(status, why))
}

fn understand(head: &httparse::Request<'_, '_>) -> Result<Request, &'static str> {
    let method = match head.method {
        Some("GET") => Method::Get,
        Some("HEAD") => Method::Head,
        _ => Method::Other,
    };
    let target = head.path.unwrap_or_default();
    // With another method the target may be anything, and does not matter.
    if method != Method::Other && !target.starts_with('/') {
        return Err("the request's target does not begin with a slash");
    }
    let has_body = header(head, "content-length")?.is_some_and(|length| length != "0")
        || header(head, "transfer-encoding")?.is_some();
    if has_body && method != Method::Other {
        return Err("a request with a body");
    }
    let connection = header(head, "connection")?.unwrap_or_default().to_ascii_lowercase();
    let says = |option: &str| connection.split(',').any(|said| said.trim() == option);
    let lives_on = if head.version == Some(1) { !says("close") } else { says("keep-alive") };
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    Ok(Request {
        method,
        path: path.to_owned(),
        query: query.to_owned(),
        host: header(head, "host")?.ok_or("the header Host is missing")?.to_owned(),
        origin: header(head, "origin")?.map(str::to_owned),
        fetch_site: header(head, "sec-fetch-site")?.map(str::to_owned),
        // A body of which nothing is known cannot be passed over.
        keep_alive: lives_on && method != Method::Other,
    })
}

/// The value of a header that may stand there once.
fn header<'h>(head: &httparse::Request<'_, 'h>, name: &str) -> Result<Option<&'h str>, &'static str> {
    let mut found = head.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
    match (found.next(), found.next()) {
        (None, _) => Ok(None),
        (Some(header), None) => std::str::from_utf8(header.value)
            .map(|value| Some(value.trim()))
            .map_err(|_| "a header is not UTF-8"),
        (Some(_), Some(_)) => Err("a header is there twice"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Request {
        match parse(text.as_bytes()) {
            Parsed::Request(request, length) if length == text.len() => request,
            other => panic!("{text:?}: {other:?}"),
        }
    }

    fn refusal(text: &[u8]) -> Status {
        match parse(text) {
            Parsed::Refused(response) => response.status,
            other => panic!("{:?}: {other:?}", text.escape_ascii().to_string()),
        }
    }

    #[test]
    fn a_request_is_understood_once_it_is_whole() {
        let text = "GET /locks?prefix=a%20b HTTP/1.1\r\nhOST: localhost:1 \r\nOrigin: http://localhost:1\r\nSec-Fetch-Site: same-origin\r\n\r\n";
        let expected = Request {
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
    fn a_connection_lives_on_if_both_sides_say_so() {
        for (start, lives_on) in [
            ("GET / HTTP/1.1\r\n", true),
            ("GET / HTTP/1.1\r\nConnection: foo, CLOSE\r\n", false),
            ("GET / HTTP/1.0\r\n", false),
            ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n", true),
            ("HEAD / HTTP/1.1\r\nContent-Length: 0\r\n", true),
            ("POST / HTTP/1.1\r\nContent-Length: 10\r\n", false),
            ("OPTIONS * HTTP/1.1\r\n", false),
        ] {
            assert_eq!(request(&format!("{start}Host: a\r\n\r\n")).keep_alive, lives_on, "{start}");
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
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
            assert_eq!(refusal(text), Status::BadRequest, "{}", text.escape_ascii());
        }
    }

    #[test]
    fn a_head_has_bounds() {
        let with = |filler: &str| format!("GET / HTTP/1.1\r\nHost: a\r\n{filler}\r\n\r\n");
        let long = with(&format!("X: {}", "x".repeat(HEAD_MAX)));
        assert_eq!(refusal(long.as_bytes()), Status::TooLarge);
        assert_eq!(refusal(&long.as_bytes()[..HEAD_MAX]), Status::TooLarge);
        assert_eq!(refusal(with("X: x\r\n".repeat(HEADERS_MAX).trim()).as_bytes()), Status::TooLarge);
        let fits = with(&format!("X: {}", "x".repeat(HEAD_MAX - with("X: ").len())));
        assert_eq!(fits.len(), HEAD_MAX);
        assert!(matches!(parse(fits.as_bytes()), Parsed::Request(..)));
    }
}
