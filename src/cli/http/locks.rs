//! `/locks`: a page of locks, as the message protocol's `list` has it.

use lockd::broker::{Broker, LockName, PageQuery, Space};
use lockd::wire::message::{ListRequest, LockPage};

/// The page of locks that is asked for.
#[derive(Debug)]
pub(super) struct Listing {
    query: PageQuery,
    /// Only locks that have waiters.
    waiting: bool,
}

impl Listing {
    /// # Errors
    /// If a parameter is unknown or has a wrong value; the message says which.
    pub(super) fn read(parameters: &[(String, Vec<u8>)]) -> Result<Self, String> {
        let query = PageQuery {
            space: Space::Main,
            prefix: LockName::new(b""),
            after: None,
            limit: ListRequest::LIMIT,
        };
        let mut listing = Self { query, waiting: false };
        for (name, value) in parameters {
            let text = || std::str::from_utf8(value).unwrap_or_default();
            match name.as_str() {
                "prefix" => listing.query.prefix = LockName::new(value),
                "after" => listing.query.after = Some(LockName::new(value)),
                "limit" => match text().parse() {
                    Ok(limit @ 1..=ListRequest::LIMIT_MAX) => listing.query.limit = limit,
                    _ => return Err(format!("limit is not a number from 1 to {}", ListRequest::LIMIT_MAX)),
                },
                "waiting" => match text() {
                    "0" => listing.waiting = false,
                    "1" => listing.waiting = true,
                    _ => return Err("waiting is neither 0 nor 1".to_owned()),
                },
                "space" => match text() {
                    "main" => listing.query.space = Space::Main,
                    "counted" => listing.query.space = Space::Counted,
                    _ => return Err("space is neither main nor counted".to_owned()),
                },
                _ => return Err("the parameters are prefix, after, limit, waiting and space".to_owned()),
            }
        }
        Ok(listing)
    }

    pub(super) fn page(&self, broker: &Broker) -> LockPage {
        let page =
            if self.waiting { broker.page_with_waiters(&self.query) } else { broker.page(&self.query) };
        page.into()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use lockd::broker::{Key, Mode, ObservedSession, Observer, Outcome, Ticket, Wait};

    use super::*;
    use crate::cli::http::query::parameters;

    struct IgnoringObserver;

    impl Observer for IgnoringObserver {
        fn decided(&self, _: Ticket, _: Outcome) {}
        fn deliver(&self) {}
    }

    fn session(broker: &Broker) -> ObservedSession {
        broker.attach("somewhere", Arc::new(IgnoringObserver))
    }

    fn listing(query: &str) -> Result<Listing, String> {
        Listing::read(&parameters(query)?)
    }

    fn listed(broker: &Broker, query: &str) -> (Vec<String>, bool) {
        let page = listing(query).unwrap().page(broker);
        (page.locks.into_iter().map(|lock| lock.lock_name).collect(), page.more)
    }

    #[test]
    fn unknown_parameters_and_wrong_values_are_refused() {
        for query in
            ["limit=0", "limit=1001", "limit=x", "waiting=yes", "waiting", "space=x", "prefx=a", "limit=%ff"]
        {
            assert!(listing(query).is_err(), "{query}");
        }
        let read = listing("prefix=%ff&after=b&limit=1000&waiting=1&space=counted").unwrap();
        assert!(read.waiting && read.query.limit == 1000 && read.query.space == Space::Counted);
        assert_eq!(read.query.prefix.as_bytes(), b"\xff");
        assert_eq!(read.query.after, Some("b".into()));
    }

    #[test]
    fn locks_that_have_waiters_are_shown_in_pages() {
        let broker = Broker::default();
        let (holder, waiter) = (session(&broker), session(&broker));
        for name in ["a", "b1", "b2", "b3", "b4", "c"] {
            holder.try_acquire(Space::Main, name.as_bytes(), Mode::Exclusive).unwrap();
        }
        for (ticket, name) in (0..).zip(["c", "b4", "b2", "b1"]) {
            let wants = [(Key::main(name), Mode::Shared)];
            waiter.acquire(&wants, Some(Wait { ticket, limit: None })).unwrap();
        }
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(listed(&broker, "waiting=1"), (names(&["b1", "b2", "b4", "c"]), false));
        assert_eq!(listed(&broker, "waiting=1&limit=2&prefix=b"), (names(&["b1", "b2"]), true));
        assert_eq!(listed(&broker, "waiting=1&limit=2&prefix=b&after=b2"), (names(&["b4"]), false));
        assert_eq!(listed(&broker, "waiting=1&space=counted"), (names(&[]), false));
        assert_eq!(listed(&broker, "prefix=b&limit=3"), (names(&["b1", "b2", "b3"]), true));
    }
}
