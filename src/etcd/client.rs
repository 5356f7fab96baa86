//! The calls to an etcd cluster: which end point is asked, for how long, and what is asked again.
//!
//! The end points are asked in turn, beginning with the one that has answered last. A request to
//! read is sent to the next one if there is no answer. A transaction is sent once: only if no
//! connection could be made, or etcd wants another token and so has not carried it out, there is
//! another attempt.

use std::fmt;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::answer::{EtcdAnswer, NO_USERS, not_etcd};
use super::error::{EtcdError, FailedRequest};
use super::gateway;
use super::http::{Deadlines, HttpEndPoint, HttpPost};
use super::keys::{KeyCondition, KeyValue, Transacted, Write};
use super::url::{EtcdUrl, EtcdUser};
use crate::os::sync::{Arc, AtomicUsize, Mutex, Ordering};
use crate::os::tls::ClientTls;

/// What is wrong with an end point of another etcd cluster.
const OTHER_CLUSTER: &str = "answers as another etcd cluster than the others";

/// An etcd cluster. Threads may share it.
pub struct Etcd {
    url: EtcdUrl,
    end_points: Vec<HttpEndPoint>,
    /// The one to ask first.
    preferred: AtomicUsize,
    /// The id in the first answer, which all others must have.
    cluster_id: OnceLock<u64>,
    user: Option<Credentials>,
    /// Shows that the user has given the password. `None` before that, or if etcd has no users.
    token: Mutex<Option<Arc<str>>>,
}

struct Credentials {
    user: String,
    password: String,
}

impl fmt::Debug for Etcd {
    /// Without the password and the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Etcd").field("url", &self.url).finish_non_exhaustive()
    }
}

/// One call: what is asked, and until when.
struct EtcdCall<'a> {
    path: &'static str,
    body: &'a [u8],
    writes: bool,
    deadline: Instant,
}

impl Etcd {
    /// Reads the files that the address names. Connects nothing.
    ///
    /// # Errors
    /// If one of the files is missing or of no use.
    pub fn new(url: &EtcdUrl) -> Result<Self, EtcdError> {
        let tls = url.tls().map(ClientTls::load).transpose().map_err(EtcdError::of_set_up)?;
        let credentials = |user: &EtcdUser| {
            let file = &user.password_file;
            let password = std::fs::read_to_string(file).map_err(|error| {
                EtcdError::of_set_up(format!("the password in {} cannot be read: {error}", file.display()))
            })?;
            let password = password.trim_end_matches(['\r', '\n']).to_owned();
            Ok(Credentials { user: user.name.clone(), password })
        };
        Ok(Self {
            url: url.clone(),
            end_points: url.end_points().iter().map(|end| HttpEndPoint::new(end, tls.clone())).collect(),
            preferred: AtomicUsize::new(0),
            cluster_id: OnceLock::new(),
            user: url.user().map(credentials).transpose()?,
            token: Mutex::new(None),
        })
    }

    /// Asks every end point that answers within `limit` for the id of its etcd cluster, one after
    /// the other.
    ///
    /// # Errors
    /// If they are not of one etcd cluster, or none answers.
    pub fn check_endpoints(&self, limit: Duration) -> Result<(), EtcdError> {
        let deadline = deadline_after(limit);
        let mut failures = Vec::new();
        for (index, end_point) in self.end_points.iter().enumerate() {
            let left = self.end_points.len().saturating_sub(index);
            let rest = deadline.saturating_duration_since(Instant::now());
            let until = Instant::now() + rest / u32::try_from(left).unwrap_or(u32::MAX);
            let deadlines = Deadlines { connected: until, answered: until };
            let request = HttpPost { path: gateway::STATUS, body: b"{}", token: None };
            let asked = end_point.post(request, deadlines).and_then(|answer| self.check_cluster(answer));
            if let Err(failed) = asked {
                let is_other = failed.text == OTHER_CLUSTER;
                let failure = (end_point.name().to_owned(), failed);
                if is_other {
                    return Err(EtcdError::new(&[failure]));
                }
                failures.push(failure);
            }
        }
        if failures.len() < self.end_points.len() { Ok(()) } else { Err(EtcdError::new(&failures)) }
    }

    /// The key with what was last written to it at any end point before this call (linearizable).
    ///
    /// # Errors
    /// If no end point has answered within `limit`.
    pub fn read_key(&self, key: &str, limit: Duration) -> Result<Option<KeyValue>, EtcdError> {
        let found = self.read(&gateway::read_key(key), limit)?;
        Ok(found.into_iter().next())
    }

    /// All keys that begin with the prefix, as they are at one moment during this call
    /// (linearizable).
    ///
    /// # Errors
    /// If no end point has answered within `limit`.
    pub fn read_prefix(&self, prefix: &str, limit: Duration) -> Result<Vec<KeyValue>, EtcdError> {
        self.read(&gateway::read_prefix(prefix), limit)
    }

    /// One transaction: if all conditions hold, everything is written, otherwise nothing. etcd
    /// refuses a transaction that writes one key twice, also if one of the writes deletes all keys
    /// with a prefix.
    ///
    /// # Errors
    /// If etcd has refused it, or it is not known whether it was carried out
    /// ([`EtcdError::may_have_happened`]).
    pub fn transact(
        &self,
        conditions: &[KeyCondition<'_>],
        writes: &[Write<'_>],
        limit: Duration,
    ) -> Result<Transacted, EtcdError> {
        let body = gateway::transaction(conditions, writes).to_string();
        let call = EtcdCall {
            path: gateway::TRANSACTION,
            body: body.as_bytes(),
            writes: true,
            deadline: deadline_after(limit),
        };
        self.call(&call, |answer| {
            let succeeded = gateway::has_succeeded(&answer.value)?;
            Some(Transacted { succeeded, revision: answer.revision })
        })
    }

    fn read(&self, request: &Value, limit: Duration) -> Result<Vec<KeyValue>, EtcdError> {
        let body = request.to_string();
        let call = EtcdCall {
            path: gateway::RANGE,
            body: body.as_bytes(),
            writes: false,
            deadline: deadline_after(limit),
        };
        self.call(&call, |answer| gateway::key_values(&answer.value))
    }

    /// Asks one end point after the other, until one has answered or the call must end.
    fn call<T>(&self, call: &EtcdCall<'_>, read: impl Fn(&EtcdAnswer) -> Option<T>) -> Result<T, EtcdError> {
        let count = self.end_points.len();
        let first = self.preferred.load(Ordering::Relaxed);
        let mut failures = Vec::new();
        for step in 0..count {
            let index = (first + step) % count;
            let Some(end_point) = self.end_points.get(index) else { break };
            let asked = self.ask(end_point, call, step + 1 < count);
            let mut failed = match asked.and_then(|answer| read(&answer).ok_or_else(not_etcd)) {
                Ok(result) => return Ok(result),
                Err(failed) => failed,
            };
            failed.may_have_happened &= call.writes;
            // Unless another thread has gone on to another one already.
            let next = (index + 1) % count;
            let _ = self.preferred.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
            let ends = failed.was_sent && (call.writes || failed.is_permanent);
            failures.push((end_point.name().to_owned(), failed));
            if ends || call.deadline <= Instant::now() {
                break;
            }
        }
        Err(EtcdError::new(&failures))
    }

    /// Asks one end point, with a new token if etcd wants one.
    fn ask(
        &self,
        end_point: &HttpEndPoint,
        call: &EtcdCall<'_>,
        others_left: bool,
    ) -> Result<EtcdAnswer, FailedRequest> {
        let rest = call.deadline.saturating_duration_since(Instant::now());
        let share = Instant::now() + if others_left { rest / 2 } else { rest };
        // Once a transaction is sent, no other end point is asked.
        let answered = if call.writes { call.deadline } else { share };
        let deadlines = Deadlines { connected: share, answered };
        let post = |token: Option<&str>| {
            let request = HttpPost { path: call.path, body: call.body, token };
            end_point.post(request, deadlines).and_then(|answer| self.check_cluster(answer))
        };
        let Some(credentials) = &self.user else { return post(None) };
        let known = self.token.lock().clone();
        let to_authenticate = Deadlines { connected: share, answered: share };
        let token = match known {
            Some(token) => Some(token),
            None => self.authenticate(end_point, credentials, to_authenticate)?,
        };
        match post(token.as_deref()) {
            Err(failed) if failed.wants_token => {
                let token = self.authenticate(end_point, credentials, to_authenticate)?;
                post(token.as_deref())
            }
            result => result,
        }
    }

    /// Gives the password for a token. `None` if etcd has no users at present.
    fn authenticate(
        &self,
        end_point: &HttpEndPoint,
        credentials: &Credentials,
        deadlines: Deadlines,
    ) -> Result<Option<Arc<str>>, FailedRequest> {
        let body = gateway::authenticate(&credentials.user, &credentials.password).to_string();
        let request = HttpPost { path: gateway::AUTHENTICATE, body: body.as_bytes(), token: None };
        let asked = end_point.post(request, deadlines).and_then(|answer| self.check_cluster(answer));
        let token = match asked {
            Ok(answer) => Some(gateway::token(&answer.value).ok_or_else(not_etcd)?.into()),
            Err(failed) if failed.text == NO_USERS => None,
            // What the caller asks for was not sent.
            Err(failed) => return Err(failed.of_authentication()),
        };
        self.token.lock().clone_from(&token);
        Ok(token)
    }

    /// Refuses the answer of another etcd cluster than the one that has answered first.
    fn check_cluster(&self, answer: EtcdAnswer) -> Result<EtcdAnswer, FailedRequest> {
        if *self.cluster_id.get_or_init(|| answer.cluster_id) == answer.cluster_id {
            return Ok(answer);
        }
        Err(FailedRequest::in_doubt(OTHER_CLUSTER).permanently())
    }
}

fn deadline_after(limit: Duration) -> Instant {
    // A day is as good as no limit.
    Instant::now() + limit.min(Duration::from_secs(86_400))
}
