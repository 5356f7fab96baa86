//! What is where. Everything here looks, and changes nothing.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::cli::http::locks::Listing;
use crate::cli::http::metrics::Figures;
use crate::cli::http::request::{Method, Request};
use crate::cli::http::response::{Response, Status};
use crate::cli::http::room::Place;
use crate::cli::http::{Shared, metrics, query, trust};

/// The page, with `NONCE` where each response has a random number of its own.
const PAGE: &str = include_str!("page.html");

/// How many may have locks listed or wait for that: few enough that there are connections left for others.
pub(super) const LISTERS_MAX: usize = 16;

/// Answers a request that came in at the address `here`.
pub(super) fn respond(shared: &Shared, here: IpAddr, request: &Request) -> Response {
    if let Err(why) = trust::check(request, here, &shared.rules().hosts) {
        return Response::text(Status::Forbidden, why);
    }
    if request.method == Method::Other {
        return Response::text(Status::NotAllowed, "there is nothing to be changed here: GET and HEAD only");
    }
    match request.path.as_str() {
        "/" => page(),
        "/locks" => locks(shared, &request.query),
        "/history" => history(shared, &request.query),
        "/metrics" => figures(shared),
        "/healthz" => health(shared.broker.has_failed(), shared.broker.is_shut(), shared.broker.grace()),
        _ => Response::text(Status::NotFound, "there are /, /locks, /history, /metrics and /healthz"),
    }
}

fn page() -> Response {
    // Two keyed hashes, each with keys of its own that nobody knows.
    let [one, other] = [0, 1].map(|part: u8| RandomState::new().hash_one(part));
    let nonce = format!("{one:016x}{other:016x}");
    Response::page(PAGE.replace("NONCE", &nonce), &nonce)
}

fn locks(shared: &Shared, parameters: &str) -> Response {
    if !shared.rules().config.dump {
        return Response::text(Status::Forbidden, "listing is disabled on this server (no-dump)");
    }
    match query::parameters(parameters).and_then(|parameters| Listing::read(&parameters)) {
        Ok(listing) => {
            let Some(_lister) = Place::take(&shared.listers) else {
                return Response::text(Status::Unavailable, "too many ask for locks at once");
            };
            let _one_at_a_time = shared.listing.lock();
            let mut page = listing.page(&shared.broker).to_json();
            page.shrink_to_fit();
            Response::json(page)
        }
        Err(why) => Response::text(Status::BadRequest, &why),
    }
}

fn history(shared: &Shared, parameters: &str) -> Response {
    let after = |parameters: Vec<(String, Vec<u8>)>| match &parameters[..] {
        [] => Ok(None),
        [(name, value)] if name == "after" => {
            let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            number.map(Some).ok_or_else(|| "after is not a number".to_owned())
        }
        _ => Err("the one parameter there is is after".to_owned()),
    };
    match query::parameters(parameters).and_then(after) {
        Ok(after) => Response::json(shared.history.to_json(after)),
        Err(why) => Response::text(Status::BadRequest, &why),
    }
}

fn figures(shared: &Shared) -> Response {
    let figures = Figures {
        stats: shared.broker.stats(),
        grace: shared.broker.grace(),
        connections: shared.traffic.connections(),
        connections_refused: shared.traffic.connections_refused(),
        messages: shared.traffic.messages(),
        http_connections: shared.connections.open(),
        http_connections_displaced: shared.connections.displaced(),
        http_connections_refused: shared.refused.load(Relaxed),
        started: shared.started,
    };
    Response::figures(metrics::text(&figures))
}

/// Whether this server does what it is for. One that waits for the holders of a run before does: to start
/// it anew would make the wait longer.
fn health(failed: bool, is_shut: bool, grace: Duration) -> Response {
    match (failed, is_shut) {
        (true, _) => Response::text(Status::Unavailable, "failed"),
        (false, true) => Response::text(Status::Unavailable, "stopping"),
        (false, false) if grace.is_zero() => Response::text(Status::Ok, "ok"),
        (false, false) => {
            let seconds = grace.as_secs_f64().ceil();
            Response::text(Status::Ok, &format!("ok, but nothing is granted for another {seconds} s"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::http::room::Room;

    #[test]
    fn a_server_in_its_grace_is_well() {
        let second = Duration::from_secs(1);
        for (failed, is_shut, grace, status, body) in [
            (false, false, Duration::ZERO, Status::Ok, "ok\n"),
            (false, false, second / 2, Status::Ok, "ok, but nothing is granted for another 1 s\n"),
            (false, true, second, Status::Unavailable, "stopping\n"),
            (true, true, Duration::ZERO, Status::Unavailable, "failed\n"),
        ] {
            let response = health(failed, is_shut, grace);
            assert_eq!((response.status, response.body.as_str()), (status, body));
        }
    }

    #[test]
    fn so_many_can_have_locks_listed_and_others_when_they_are_done() {
        let listers = Room::for_at_most(LISTERS_MAX);
        let all: Vec<_> = std::iter::from_fn(|| Place::take(&listers)).collect();
        assert_eq!(all.len(), LISTERS_MAX);
        drop(all);
        assert!(Place::take(&listers).is_some());
    }

    #[test]
    fn each_page_has_a_nonce_of_its_own() {
        let [one, other] = [page(), page()].map(|page| page.body);
        assert_ne!(one, other);
        assert!(!one.contains("NONCE"));
        assert_eq!(PAGE.matches("nonce=\"NONCE\"").count(), PAGE.matches("NONCE").count());
    }

    #[test]
    fn the_page_needs_nothing_from_elsewhere_and_makes_no_markup_of_texts() {
        for other in [
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
            // The one address there is names what SVG is, and is not asked for anything.
            let page = PAGE.replace("http://www.w3.org/2000/svg", "");
            assert!(!page.contains(other), "{other}");
        }
    }
}
