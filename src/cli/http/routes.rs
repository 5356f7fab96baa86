//! Answers a request by its path. All of it reads, and changes nothing.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use lockd::server::cluster::{ClusterReader, ClusterView};

use crate::cli::http::locks::Listing;
use crate::cli::http::metrics::Metrics;
use crate::cli::http::request::{HttpRequest, Method};
use crate::cli::http::response::{HttpResponse, HttpStatus};
use crate::cli::http::state::HttpState;
use crate::cli::http::{cluster, query, trust};

/// The page. Each response has a random number of its own in place of `NONCE`.
const PAGE: &str = include_str!("page.html");

/// Answers a request that arrived at the address `here`.
pub(super) fn respond(state: &HttpState, here: IpAddr, request: &HttpRequest) -> HttpResponse {
    if let Err(why) = trust::check(request, here, &state.rules().hosts) {
        return HttpResponse::text(HttpStatus::Forbidden, why);
    }
    if request.method == Method::Other {
        return HttpResponse::text(HttpStatus::NotAllowed, "nothing can be changed here: GET and HEAD only");
    }
    match request.path.as_str() {
        "/" => page(),
        "/locks" => locks(state, &request.query),
        "/history" => history(state, &request.query),
        "/cluster" => HttpResponse::json(cluster::to_json(view(state).as_ref())),
        "/metrics" => metrics(state),
        "/healthz" => health(state),
        "/livez" => alive(state.broker.has_failed()),
        _ => HttpResponse::text(
            HttpStatus::NotFound,
            "the paths are /, /locks, /history, /cluster, /metrics, /healthz and /livez",
        ),
    }
}

fn page() -> HttpResponse {
    // Each `RandomState` has random keys of its own, so the two hashes cannot be predicted.
    let [one, other] = [0, 1].map(|part: u8| RandomState::new().hash_one(part));
    let nonce = format!("{one:016x}{other:016x}");
    HttpResponse::page(PAGE.replace("NONCE", &nonce), &nonce)
}

fn locks(state: &HttpState, parameters: &str) -> HttpResponse {
    if !state.rules().config.dump {
        return HttpResponse::text(HttpStatus::Forbidden, "listing is disabled on this server (no-dump)");
    }
    // An empty list would look as if nothing were locked.
    if let Some(standby) = standby(state) {
        return standby;
    }
    match query::parameters(parameters).and_then(|parameters| Listing::read(&parameters)) {
        Ok(listing) => {
            let Some(_permit) = state.listings.try_acquire() else {
                return HttpResponse::text(
                    HttpStatus::Unavailable,
                    "too many requests list locks at the same time",
                );
            };
            let _one_at_a_time = state.listing.lock();
            let mut page = listing.page(&state.broker).to_json();
            page.shrink_to_fit();
            HttpResponse::json(page)
        }
        Err(why) => HttpResponse::text(HttpStatus::BadRequest, &why),
    }
}

fn history(state: &HttpState, parameters: &str) -> HttpResponse {
    let after = |parameters: Vec<(String, Vec<u8>)>| match &parameters[..] {
        [] => Ok(None),
        [(name, value)] if name == "after" => {
            let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            number.map(Some).ok_or_else(|| "after is not a number".to_owned())
        }
        _ => Err("the only parameter is after".to_owned()),
    };
    match query::parameters(parameters).and_then(after) {
        Ok(after) => HttpResponse::json(state.history.to_json(after)),
        Err(why) => HttpResponse::text(HttpStatus::BadRequest, &why),
    }
}

fn metrics(state: &HttpState) -> HttpResponse {
    let metrics = Metrics {
        server: state.stats.read(),
        cluster: view(state),
        http_connections: state.connections.open(),
        http_connections_displaced: state.connections.displaced(),
        http_connections_refused: state.refused.load(Relaxed),
        started: state.started,
    };
    HttpResponse::metrics(metrics.into_text())
}

/// Whether clients get locks here: not from a standby.
fn health(state: &HttpState) -> HttpResponse {
    let broker = &state.broker;
    standby(state).unwrap_or_else(|| works(broker.has_failed(), broker.is_shut(), broker.grace()))
}

/// What the server is in its cluster, if it is a member of one.
fn view(state: &HttpState) -> Option<ClusterView> {
    state.cluster.as_ref().map(ClusterReader::read)
}

/// The response to a request for what only the active server of a cluster has; `None` unless this
/// server is a standby.
fn standby(state: &HttpState) -> Option<HttpResponse> {
    let broker = &state.broker;
    let view = view(state).filter(|view| !view.is_active && !broker.has_failed() && !broker.is_shut())?;
    let active = view.active.map_or_else(String::new, |active| format!("; the active server is {active}"));
    let text = format!("standby of the cluster {}{active}", view.cluster);
    Some(HttpResponse::text(HttpStatus::Unavailable, &text))
}

/// Whether the process is of any use: a standby is.
fn alive(has_failed: bool) -> HttpResponse {
    if has_failed {
        HttpResponse::text(HttpStatus::Unavailable, "failed")
    } else {
        HttpResponse::text(HttpStatus::Ok, "ok")
    }
}

/// Whether the server works. A server in its grace does: if a service manager restarted it because
/// of that, the grace would only begin again.
fn works(has_failed: bool, is_shut: bool, grace: Duration) -> HttpResponse {
    match (has_failed, is_shut) {
        (true, _) => HttpResponse::text(HttpStatus::Unavailable, "failed"),
        (false, true) => HttpResponse::text(HttpStatus::Unavailable, "stopping"),
        (false, false) if grace.is_zero() => HttpResponse::text(HttpStatus::Ok, "ok"),
        (false, false) => {
            let seconds = grace.as_secs_f64().ceil();
            HttpResponse::text(HttpStatus::Ok, &format!("ok, but nothing is granted for another {seconds} s"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_in_its_grace_is_healthy() {
        let second = Duration::from_secs(1);
        for (has_failed, is_shut, grace, status, body) in [
            (false, false, Duration::ZERO, HttpStatus::Ok, "ok\n"),
            (false, false, second / 2, HttpStatus::Ok, "ok, but nothing is granted for another 1 s\n"),
            (false, true, second, HttpStatus::Unavailable, "stopping\n"),
            (true, true, Duration::ZERO, HttpStatus::Unavailable, "failed\n"),
        ] {
            let response = works(has_failed, is_shut, grace);
            assert_eq!((response.status, response.body.as_str()), (status, body));
        }
    }

    #[test]
    fn each_page_has_a_nonce_of_its_own() {
        let [one, other] = [page(), page()].map(|page| page.body);
        assert_ne!(one, other);
        assert!(!one.contains("NONCE"));
        assert_eq!(PAGE.matches("nonce=\"NONCE\"").count(), PAGE.matches("NONCE").count());
    }

    #[test]
    fn the_page_loads_nothing_from_elsewhere_and_inserts_no_markup() {
        for forbidden in [
            "http://",
            "https://",
            "src=",
            "@import",
            "url(",
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            " style=",
            " onclick=",
        ] {
            // The only address in it is the name space of SVG, which is not loaded.
            let page = PAGE.replace("http://www.w3.org/2000/svg", "");
            assert!(!page.contains(forbidden), "{forbidden}");
        }
    }
}
