//! Requests to one end point by HTTP: POST, and the whole answer. Connections are kept for the next
//! request. Follows no redirects, uses no proxy, and asks nothing twice.

use std::time::{Duration, Instant};

use ureq::Agent;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

use super::addresses::in_words;
use super::answer::{EtcdAnswer, read_answer};
use super::connector::{ConnectionFailed, EtcdConnector};
use super::error::FailedRequest;
use super::url::EtcdEndPoint;
use crate::os::tls::ClientTls;

/// The most bytes of an answer.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// What is asked of one end point.
#[derive(Clone, Copy, Debug)]
pub(super) struct HttpPost<'a> {
    pub(super) path: &'a str,
    pub(super) body: &'a [u8],
    /// For the header `Authorization`.
    pub(super) token: Option<&'a str>,
}

/// Until when an end point may take its time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadlines {
    /// Until there is a connection.
    pub(super) connected: Instant,
    /// Until the whole answer has come.
    pub(super) answered: Instant,
}

/// One end point, with the connections to it.
#[derive(Debug)]
pub(super) struct HttpEndPoint {
    /// As in messages.
    name: String,
    base: String,
    agent: Agent,
}

impl HttpEndPoint {
    pub(super) fn new(end_point: &EtcdEndPoint, tls: Option<ClientTls>) -> Self {
        let name = end_point.to_string();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let config = Config::builder()
            .proxy(None)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .build();
        let agent = Agent::with_parts(config, EtcdConnector::new(end_point, tls), NoResolver);
        Self { base: format!("{scheme}://{name}"), name, agent }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Sends one request, and waits for the answer.
    pub(super) fn post(
        &self,
        request: HttpPost<'_>,
        deadlines: Deadlines,
    ) -> Result<EtcdAnswer, FailedRequest> {
        let now = Instant::now();
        let limit = deadlines.answered.saturating_duration_since(now);
        if limit.is_zero() {
            return Err(FailedRequest::unsent("no time was left to ask it"));
        }
        let (status, body) = self
            .exchange(request, deadlines.connected.saturating_duration_since(now), limit)
            .map_err(|error| explain(error, limit))?;
        read_answer(status, &body)
    }

    fn exchange(
        &self,
        request: HttpPost<'_>,
        connect_limit: Duration,
        limit: Duration,
    ) -> Result<(u16, Vec<u8>), ureq::Error> {
        let mut post = self
            .agent
            .post(format!("{}{}", self.base, request.path))
            .header("content-type", "application/json")
            .config()
            .timeout_connect(Some(connect_limit))
            .timeout_global(Some(limit))
            .build();
        if let Some(token) = request.token {
            post = post.header("authorization", token);
        }
        let mut response = post.send(request.body)?;
        let body = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec()?;
        Ok((response.status().as_u16(), body))
    }
}

/// What an error of the HTTP client means.
fn explain(error: ureq::Error, limit: Duration) -> FailedRequest {
    match error {
        ureq::Error::Other(error) => match error.downcast_ref::<ConnectionFailed>() {
            Some(failed) => {
                let made = if failed.is_unsent { FailedRequest::unsent } else { FailedRequest::in_doubt };
                let made = made(failed.text.clone());
                if failed.is_permanent { made.permanently() } else { made }
            }
            None => FailedRequest::in_doubt(error.to_string()),
        },
        ureq::Error::Timeout(_) => FailedRequest::in_doubt(format!("no answer within {}", in_words(limit))),
        ureq::Error::BodyExceedsLimit(_) => FailedRequest::in_doubt(format!(
            "its answer has more than {} MiB, which is too much",
            ANSWER_BYTES_MAX >> 20
        )),
        ureq::Error::Io(error) => FailedRequest::in_doubt(format!("the connection has ended: {error}")),
        ureq::Error::Protocol(error) => {
            FailedRequest::in_doubt(format!("its answer is no HTTP: {error}")).permanently()
        }
        error => FailedRequest::in_doubt(error.to_string()),
    }
}

/// The HTTP client resolves the name before each request, even if it has a connection. The connector
/// does that instead, when it makes one.
#[derive(Debug)]
struct NoResolver;

impl Resolver for NoResolver {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        Ok(self.empty())
    }
}
