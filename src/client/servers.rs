//! One owner of locks on several servers: each name belongs to one of them, the same one for every client. That
//! spreads load. A server that is gone takes its names with it, and they are tried on no other: another session
//! may hold them on the server that is gone for this client alone.
//!
//! Rendezvous hashing decides which server a name belongs to: the one with the highest score for the name. The
//! score is FNV-1a, 64 bits, over the address as it is written (without a `?` and what follows it), a zero byte
//! and the name; and then again over the eight bytes of that, the highest first. Of equal scores the address that
//! comes first by its bytes wins. So all clients must be given the same addresses, written alike, in any order; a
//! server more or less moves only its own names.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll;

use super::connect_error::ConnectError;
use super::connection::Lost;
use super::dial::{ConnectOptions, deadline};
use super::session::{InspectError, RemoteSession};
use super::url::ServerUrl;
use crate::broker::{AcquireError, Attempt, Grant, Held, Inspection, LockName, Mode, ReleaseError, Released};
use crate::os::fork::Descriptor;
use crate::wire::message::{ListRequest, LockPage};

/// A [`RemoteSession`] on each of several servers, or on one: the same calls, each for the server its name belongs
/// to.
///
/// A server that could not be reached at the start, or is gone since, takes its names with it: every call on one of
/// them ends with `Lost`. The other servers' names are not concerned, and nothing reconnects. The whole is lost
/// if a server is gone where it holds a lock or waits for one, or if all are gone: [`is_alive`](Self::is_alive).
///
/// A deadlock is found among the names of one server; one that runs over several is not.
pub struct SessionGroup {
    servers: Vec<Server>,
    /// Readable when one of several connections is.
    watch: Option<Descriptor>,
}

struct Server {
    url: ServerUrl,
    /// Why there is none, if there could be none at the start.
    session: Result<RemoteSession, ConnectError>,
}

impl Server {
    fn session(&self) -> Result<&RemoteSession, Lost> {
        self.session.as_ref().map_err(|error| Lost(error.to_string()))
    }
}

impl SessionGroup {
    /// Opens a session on every one of the servers in `urls`, which are separated by commas (see
    /// [`ServerUrl`]), within `timeout` in all; only resolving names may take longer. One that answers is enough.
    /// `owner` is what it is called in listings.
    ///
    /// The servers are tried one after another, each for an equal share of the time that is left: one that
    /// swallows all packets takes no more than its share. (To try all at the same time would be no better: the
    /// session has to know in the end whether it has that server, so it would wait for all of `timeout`.)
    ///
    /// # Errors
    /// [`ConnectError`] if there is a session on none of them.
    pub fn connect(urls: &str, owner: Option<&str>, timeout: Duration) -> Result<Self, ConnectError> {
        Self::connect_with(urls, &ConnectOptions { owner, timeout, ..ConnectOptions::default() })
    }

    /// As [`connect`](Self::connect), on every server as the options say.
    ///
    /// # Errors
    /// [`ConnectError`] if there is a session on none of them.
    pub fn connect_with(urls: &str, options: &ConnectOptions<'_>) -> Result<Self, ConnectError> {
        let parsed = ServerUrl::parse_list(urls)?;
        let deadline = deadline(Some(options.timeout));
        let mut servers = Vec::new();
        let all = parsed.len();
        for (tried, url) in parsed.into_iter().enumerate() {
            let share = |deadline| share(options.timeout, all, deadline, all - tried);
            let timeout = deadline.map_or(options.timeout, share);
            let session = RemoteSession::connect_to(&url, &ConnectOptions { timeout, ..*options });
            servers.push(Server { url, session });
        }
        if servers.iter().all(|server: &Server| server.session.is_err()) {
            let errors = servers.into_iter().filter_map(|server| server.session.err());
            return Err(ConnectError::of_all(errors.collect()));
        }
        let watch =
            watch(&servers).map_err(|error| ConnectError::Unreachable { server: urls.to_owned(), error })?;
        Ok(Self { servers, watch })
    }

    /// As [`RemoteSession::acquire`].
    ///
    /// # Errors
    /// [`AcquireError`]
    pub fn acquire(&self, name: &[u8], mode: Mode, limit: Option<Duration>) -> Result<Grant, AcquireError> {
        self.of(name)?.acquire(name, mode, limit)
    }

    /// As [`RemoteSession::acquire_all`].
    ///
    /// # Errors
    /// [`AcquireError`]; `Invalid` if the names belong to different servers, which cannot grant them at
    /// once.
    pub fn acquire_all(
        &self,
        wants: &[(LockName, Mode)],
        limit: Option<Duration>,
    ) -> Result<Grant, AcquireError> {
        let Some((first, _)) = wants.first() else {
            return Err(AcquireError::Invalid("no name is given".to_owned()));
        };
        let server = self.server_of(first.as_bytes());
        let elsewhere = wants.iter().find(|(name, _)| self.server_of(name.as_bytes()) != server);
        if let Some((other, _)) = elsewhere {
            let (here, there) = (self.url_of(first), self.url_of(other));
            return Err(AcquireError::Invalid(format!(
                "{first:?} belongs to {here} and {other:?} to {there}: they cannot be acquired at once"
            )));
        }
        self.of(first.as_bytes())?.acquire_all(wants, limit)
    }

    /// As [`RemoteSession::convert`].
    ///
    /// # Errors
    /// [`AcquireError`]
    pub fn convert(&self, name: &[u8], mode: Mode, limit: Option<Duration>) -> Result<Grant, AcquireError> {
        self.of(name)?.convert(name, mode, limit)
    }

    /// As [`RemoteSession::enqueue`].
    ///
    /// # Errors
    /// [`AcquireError`]
    pub fn enqueue(&self, name: &[u8], mode: Mode) -> Result<Attempt, AcquireError> {
        self.of(name)?.enqueue(name, mode)
    }

    /// As [`RemoteSession::enqueue_convert`].
    ///
    /// # Errors
    /// [`AcquireError`]
    pub fn enqueue_convert(&self, name: &[u8], mode: Mode) -> Result<Attempt, AcquireError> {
        self.of(name)?.enqueue_convert(name, mode)
    }

    /// As [`RemoteSession::wait`].
    ///
    /// # Errors
    /// [`AcquireError`]
    pub fn wait(&self, name: &[u8], limit: Option<Duration>) -> Result<Grant, AcquireError> {
        self.of(name)?.wait(name, limit)
    }

    /// As [`RemoteSession::release`].
    ///
    /// # Errors
    /// [`ReleaseError`]
    pub fn release(&self, name: &[u8]) -> Result<Released, ReleaseError> {
        self.of(name)?.release(name)
    }

    /// As [`RemoteSession::release_all`]; the names may belong to different servers.
    ///
    /// # Errors
    /// [`ReleaseError`]; `Lost` if that is so on any of the servers. What belongs to others is given up all the
    /// same.
    pub fn release_all(&self, names: &[LockName]) -> Result<(), ReleaseError> {
        let of_server = |index: usize| -> Vec<LockName> {
            names.iter().filter(|name| self.server_of(name.as_bytes()) == index).cloned().collect()
        };
        // All are told before any is waited for: one that hangs must not keep locks of others from going.
        let mut begun = Vec::new();
        for (index, server) in self.servers.iter().enumerate() {
            let own = of_server(index);
            if !own.is_empty() {
                let session = server.session().map_err(ReleaseError::from);
                begun.push(session.and_then(|session| Ok((session, session.begin_to_give_up(&own)?))));
            }
        }
        let mut result = Ok(());
        for begun in begun {
            let released = begun.and_then(|(session, given_up)| session.finish_release_all(given_up));
            result = match (result, released) {
                // That a lock was lost is worse news than that another was not held.
                (Err(ReleaseError::NotHeld), Err(error)) => Err(error),
                (result, released) => result.and(released),
            };
        }
        result
    }

    /// As [`RemoteSession::held`].
    ///
    /// # Errors
    /// [`InspectError`]
    pub fn held(&self, name: &[u8]) -> Result<Option<Held>, InspectError> {
        self.of(name)?.held(name)
    }

    /// As [`RemoteSession::inspect`].
    ///
    /// # Errors
    /// [`InspectError`]
    pub fn inspect(&self, name: &[u8]) -> Result<Inspection, InspectError> {
        self.of(name)?.inspect(name)
    }

    /// A page of the locks of all the servers; as [`RemoteSession::list`] for one.
    ///
    /// A name that is locked on several servers, by clients that were given other lists of servers, is shown
    /// once: as it stands on the server that it belongs to here.
    ///
    /// # Errors
    /// [`InspectError`] of the first server that has one; so `Lost` if one is gone, as nobody knows what is
    /// locked there.
    pub fn list(&self, request: &ListRequest) -> Result<LockPage, InspectError> {
        let page = |server: &Server| server.session()?.list(request);
        if let [server] = self.servers.as_slice() {
            return page(server);
        }
        let pages: Vec<LockPage> = self.servers.iter().map(page).collect::<Result<_, _>>()?;
        merge(pages, request.limit, |name| self.server_of(name.as_bytes()))
            .ok_or_else(|| InspectError::Refused("a server has listed a name that makes no sense".to_owned()))
    }

    /// Why every call on this name ends with `Lost` from the start: why there could be no session on the server
    /// that it belongs to. `None` if there was one, whatever has become of it.
    #[must_use]
    pub fn connect_error(&self, name: &[u8]) -> Option<&ConnectError> {
        self.servers[self.server_of(name)].session.as_ref().err()
    }

    /// As [`RemoteSession::cancel`], on every server.
    pub fn cancel(&self) {
        self.sessions().for_each(RemoteSession::cancel);
    }

    /// Whether the sessions stand on all the servers where this one holds a lock or waits for one, and on one
    /// server at least; as far as can be known without waiting.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let (mut any_alive, mut all_needed) = (false, true);
        let mut unneeded = Vec::new();
        // All are asked, so that what has come from each is read and polling starts afresh.
        for session in self.sessions() {
            if session.is_alive() {
                any_alive = true;
            } else if session.holds_or_waits() {
                all_needed = false;
            } else {
                // Nothing can be granted there from now on, so nothing will ever be held there.
                unneeded.push(session);
            }
        }
        if any_alive {
            unneeded.into_iter().for_each(|session| self.unwatch(session));
        }
        any_alive && all_needed
    }

    /// As [`RemoteSession::close`], on every server.
    pub fn close(&self) {
        self.sessions().for_each(RemoteSession::close);
    }

    /// As [`RemoteSession::abandon`], on every server.
    pub fn abandon(&self) {
        self.sessions().for_each(RemoteSession::abandon);
    }

    fn sessions(&self) -> impl Iterator<Item = &RemoteSession> {
        self.servers.iter().filter_map(|server| server.session.as_ref().ok())
    }

    /// The session on the server that the name belongs to.
    fn of(&self, name: &[u8]) -> Result<&RemoteSession, Lost> {
        self.servers[self.server_of(name)].session()
    }

    /// The end of a connection that nobody needs must not be readable for ever: a loop that polls would spin.
    fn unwatch(&self, session: &RemoteSession) {
        if let Some(watch) = &self.watch {
            // It fails if that has been done before.
            let _ = epoll::delete(watch, session);
        }
    }

    fn url_of(&self, name: &LockName) -> &ServerUrl {
        &self.servers[self.server_of(name.as_bytes())].url
    }

    fn server_of(&self, name: &[u8]) -> usize {
        choose(self.servers.iter().map(|server| server.url.address()), name)
    }
}

/// As [`RemoteSession`]'s, for any of the connections but those that are gone and known to be of no concern.
impl AsFd for SessionGroup {
    #[expect(clippy::expect_used, reason = "without a session on any server, connect makes no set")]
    fn as_fd(&self) -> BorrowedFd<'_> {
        let only = || self.sessions().next().expect("a session on one server").as_fd();
        self.watch.as_ref().map_or_else(only, AsFd::as_fd)
    }
}

/// The first `limit` locks of what each server has shown, in the order of their names; `None` if a name makes
/// no sense. `owner` says which server a name belongs to.
fn merge(pages: Vec<LockPage>, limit: usize, owner: impl Fn(&LockName) -> usize) -> Option<LockPage> {
    let (mut locks, mut more, mut end) = (Vec::new(), false, None);
    for (server, page) in pages.into_iter().enumerate() {
        let mut last = None;
        for lock in page.locks {
            let name = lock.name()?;
            last = Some(name.clone());
            locks.push((owner(&name) != server, name, lock));
        }
        // What comes behind the last one that this server has shown, nobody knows yet.
        if let Some(last) = last.filter(|_| page.more) {
            more = true;
            end = Some(end.map_or_else(|| last.clone(), |end: LockName| end.min(last.clone())));
        }
    }
    locks.sort_by(|(astray, name, _), (other_astray, other, _)| (name, astray).cmp(&(other, other_astray)));
    locks.dedup_by(|(_, name, _), (_, before, _)| name == before);
    let shown =
        locks.iter().take(limit).take_while(|(_, name, _)| end.as_ref().is_none_or(|end| name <= end));
    let shown = shown.count();
    more |= shown < locks.len();
    Some(LockPage { locks: locks.into_iter().take(shown).map(|(_, _, lock)| lock).collect(), more })
}

/// The time for the next server of `all`, of which `left` have not been tried yet: its share of what is left until
/// the deadline. Never less than its share of the whole, since the time of a resolver, which does not count, may
/// have taken all that was left.
fn share(timeout: Duration, all: usize, deadline: Instant, left: usize) -> Duration {
    let part = |time: Duration, of: usize| time / u32::try_from(of).unwrap_or(u32::MAX);
    part(deadline.saturating_duration_since(Instant::now()), left).max(part(timeout, all))
}

fn watch(servers: &[Server]) -> io::Result<Option<Descriptor>> {
    if let [_] = servers {
        return Ok(None);
    }
    let watch = Descriptor::open_anonymous(|| Ok(epoll::create(epoll::CreateFlags::CLOEXEC)?))?;
    for session in servers.iter().filter_map(|server| server.session.as_ref().ok()) {
        let data = epoll::EventData::new_u64(0);
        epoll::add(&watch, session, data, epoll::EventFlags::IN)?;
    }
    Ok(Some(watch))
}

/// Which of the servers the name belongs to; 0 if there is only one.
fn choose<'a>(servers: impl ExactSizeIterator<Item = &'a str>, name: &[u8]) -> usize {
    if servers.len() == 1 {
        return 0;
    }
    let rank = |&(_, server): &(usize, &'a str)| (score(server, name), std::cmp::Reverse(server.as_bytes()));
    servers.enumerate().max_by_key(rank).map_or(0, |(index, _)| index)
}

fn score(server: &str, name: &[u8]) -> u64 {
    let once = fnv1a(server.bytes().chain([0]).chain(name.iter().copied()));
    // Hashed once, servers that differ in a late byte would get scores that differ in few bits, and
    // their shares of the names would be uneven.
    fnv1a(once.to_be_bytes())
}

fn fnv1a(bytes: impl IntoIterator<Item = u8>) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    bytes.into_iter().fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message::ListedLock;

    fn names() -> impl Iterator<Item = String> {
        (0..10_000).map(|n| format!("job:{n}"))
    }

    fn servers(count: usize) -> Vec<String> {
        (1..=count).map(|n| format!("tcp://lock{n}.example.org:20934")).collect()
    }

    fn chosen<'a>(servers: &'a [String], name: &str) -> &'a str {
        &servers[choose(servers.iter().map(String::as_str), name.as_bytes())]
    }

    /// For other clients to be tested against; made with PHP's
    /// `hash('fnv1a64', hash('fnv1a64', $server . "\0" . $name, true))`.
    #[test]
    fn scores_and_choices_are_fixed() {
        for (server, name, expected) in [
            ("", b"".as_slice(), 0xe414_49fc_8a23_2c69),
            ("tcp://lock1.example.org:20934", b"foo", 0x57eb_4096_6afa_eec0),
            ("tcp://lock2.example.org:20934", b"foo", 0x5221_013b_83ee_0290),
            ("unix:/run/lockd.sock", b"a\xff\0b", 0xbf55_f2c7_c23a_e0d2),
        ] {
            assert_eq!(score(server, name), expected, "{server} {name:?}");
        }
        let three = servers(3);
        for (name, expected) in [("", 2), ("foo", 3), ("bar", 2), ("job:17", 1)] {
            assert_eq!(chosen(&three, name), three[expected - 1], "{name}");
        }
    }

    #[test]
    fn names_are_spread_evenly() {
        for count in [2, 3, 5, 10, 12] {
            let servers = servers(count);
            for server in &servers {
                let own = names().filter(|name| chosen(&servers, name) == server).count();
                let fair = 10_000 / count;
                assert!(own.abs_diff(fair) * 100 < fair * 10, "{server} of {count} has {own}");
            }
        }
    }

    #[test]
    fn another_server_moves_names_only_to_itself() {
        let (four, five) = (servers(4), servers(5));
        let moved = names().filter(|name| chosen(&four, name) != chosen(&five, name));
        let moved: Vec<String> = moved.collect();
        assert!(moved.iter().all(|name| chosen(&five, name) == five[4]));
        assert!((1_600..2_400).contains(&moved.len()), "{} moved", moved.len());
    }

    #[test]
    fn the_order_of_the_list_does_not_matter() {
        let forth = servers(5);
        let back: Vec<String> = forth.iter().rev().cloned().collect();
        assert!(names().all(|name| chosen(&forth, &name) == chosen(&back, &name)));
    }
    /// A page with these names, and whether there are more.
    fn page(names: &[&str], more: bool) -> LockPage {
        LockPage { locks: names.iter().map(|&name| ListedLock::new(&name.into())).collect(), more }
    }

    /// The names that two pages of two servers make together, where every name belongs to the second one.
    fn merged(limit: usize, pages: [LockPage; 2]) -> (Vec<String>, bool) {
        let page = merge(pages.into(), limit, |_| 1).unwrap();
        (page.locks.into_iter().map(|lock| lock.lock_name).collect(), page.more)
    }

    #[test]
    fn pages_are_merged_as_far_as_all_servers_have_told() {
        let is = |names: &[&str], more| (names.iter().map(|&name| name.to_owned()).collect(), more);
        let all = merged(9, [page(&["a", "c"], false), page(&["b", "d"], false)]);
        assert_eq!(all, is(&["a", "b", "c", "d"], false));
        let cut = merged(3, [page(&["a", "c"], false), page(&["b", "d"], false)]);
        assert_eq!(cut, is(&["a", "b", "c"], true));
        let untold = merged(9, [page(&["a", "c"], true), page(&["b", "d"], false)]);
        assert_eq!(untold, is(&["a", "b", "c"], true), "whether there is a ca, nobody knows yet");
        let untold = merged(9, [page(&["c"], true), page(&["a", "b"], true)]);
        assert_eq!(untold, is(&["a", "b"], true));
        assert_eq!(merged(9, [page(&["a"], true), page(&[], false)]), is(&["a"], true));
        assert_eq!(merged(9, [page(&[], false), page(&[], false)]), is(&[], false));
        assert_eq!(merged(2, [page(&["a", "b"], false), page(&["a", "b"], false)]), is(&["a", "b"], false));
    }

    #[test]
    fn a_name_on_two_servers_is_shown_as_the_one_it_belongs_to_has_it() {
        for mode in [Some(Mode::Exclusive), None] {
            let (astray, mut own) = (page(&["a"], false), page(&["a"], false));
            own.locks[0].mode = mode;
            own.locks[0].orphaned = true;
            let page = merge(vec![astray, own.clone()], 9, |_| 1);
            assert_eq!(page, Some(own));
        }
    }

    #[test]
    fn a_name_that_makes_no_sense_is_not_merged() {
        let mut strange = page(&["a"], false);
        strange.locks[0].lock_name_hex = Some("xy".to_owned());
        assert_eq!(merge(vec![strange, page(&[], false)], 9, |_| 0), None);
    }

    #[test]
    fn merged_pages_have_every_name_once_however_long_they_are() {
        let servers: [Vec<String>; 3] =
            [2, 3, 7].map(|step| (0..60).filter(|n| n % step == 0).map(|n| format!("{n:02}")).collect());
        let mut expected = servers.concat();
        expected.sort();
        expected.dedup();
        for limit in 1..=expected.len() {
            let (mut shown, mut more) = (Vec::<String>::new(), true);
            while more {
                let page_of = |names: &Vec<String>| {
                    let behind = |name: &&String| shown.last().is_none_or(|last| *name > last);
                    let rest: Vec<&str> = names.iter().filter(behind).map(String::as_str).collect();
                    page(&rest[..limit.min(rest.len())], rest.len() > limit)
                };
                let merged = merge(servers.iter().map(page_of).collect(), limit, |_| 0).unwrap();
                assert!(merged.locks.len() == limit || !merged.more, "{limit}");
                shown.extend(merged.locks.into_iter().map(|lock| lock.lock_name));
                more = merged.more;
            }
            assert_eq!(shown, expected, "{limit}");
        }
    }
}
