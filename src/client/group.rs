//! One owner of locks on several servers: a session on each. Every name belongs to one server, the
//! same one for every client ([`rendezvous`](super::rendezvous)), which spreads the load. Decides
//! which server a call goes to and when the whole session is lost; the calls themselves are
//! [`ServerSession`]'s.
//!
//! If a server is gone, its names are not tried on another server: another session may still hold
//! them on the server that only this client cannot reach.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll;

use super::connect_error::{ConnectError, ConnectErrorKind, ConnectRefusal};
use super::connection::Lost;
use super::dial::{ConnectOptions, deadline};
use super::merge_pages::merge_pages;
use super::places::share_of_time;
use super::rendezvous::choose;
use super::server_session::ServerSession;
use super::session::InspectError;
use super::session_state::SessionState;
use super::url::ServerUrl;
use super::wait_hook::WaitHook;
use crate::broker::{AcquireError, Grant, LockName, Mode, ReleaseError, check_set};
use crate::os::fork::CloseOnForkFd;
use crate::wire::message::{ListRequest, LockPage};

/// A [`ServerSession`] on each of one or more servers. Its users see it as
/// [`Session`](crate::Session), which says what its calls do.
pub(crate) struct SessionGroup {
    servers: Vec<GroupMember>,
    /// With several servers: an epoll descriptor, readable when one of the connections is.
    watch: Option<CloseOnForkFd>,
}

struct GroupMember {
    url: ServerUrl,
    /// The error if the server could not be reached at the start, or was not asked.
    session: Result<ServerSession, ConnectError>,
    /// Whether the group is meant to have a session there.
    is_asked: bool,
}

impl GroupMember {
    fn session(&self) -> Result<&ServerSession, Lost> {
        self.session.as_ref().map_err(|error| Lost(error.to_string()))
    }
}

impl SessionGroup {
    /// Opens a session on every server in `urls`, a list separated by commas. One that answers is
    /// enough.
    ///
    /// The servers are tried one after another, each for an equal share of the time left, so a
    /// server whose packets are all dropped costs only its share. Trying all at once would not be
    /// faster: in the end the session must know whether it has that server, so it would wait for
    /// the whole timeout.
    pub(crate) fn connect_with(urls: &str, options: &ConnectOptions<'_>) -> Result<Self, ConnectError> {
        let parsed = ServerUrl::parse_list(urls)?;
        let deadline = deadline(Some(options.timeout));
        let mut servers = Vec::new();
        let all = parsed.len();
        for (tried, url) in parsed.into_iter().enumerate() {
            let timeout = share_of_time(options.timeout, all, deadline, all - tried);
            let options = ConnectOptions { timeout, ..*options };
            let session = ServerSession::connect_to(&url, &options, &mut WaitHook::none());
            servers.push(GroupMember { url, session, is_asked: true });
        }
        if servers.iter().all(|server: &GroupMember| server.session.is_err()) {
            let errors = servers.into_iter().filter_map(|server| server.session.err());
            return Err(ConnectError::of_all(errors.collect()));
        }
        let watch =
            watch(&servers).map_err(|error| ConnectError::Unreachable { server: urls.to_owned(), error })?;
        Ok(Self { servers, watch })
    }

    /// Opens a session on one of the servers, for names that belong to it. The others are not
    /// asked, and calls on their names fail: they must not reach this server, where those names are
    /// other locks.
    pub(crate) fn connect_to_one(
        urls: &[ServerUrl],
        server: usize,
        options: &ConnectOptions<'_>,
        hook: &mut WaitHook<'_>,
    ) -> Result<Self, ConnectError> {
        let mut servers = Vec::new();
        for (index, url) in urls.iter().enumerate() {
            let is_asked = index == server;
            let session = if is_asked {
                Ok(ServerSession::connect_to(url, options, hook)?)
            } else {
                let reason = "this session was opened for names of another server";
                Err(ConnectRefusal::new(ConnectErrorKind::Refused, reason).of(url))
            };
            servers.push(GroupMember { url: url.clone(), session, is_asked });
        }
        let unwatched = |error| ConnectError::Unreachable { server: urls[server].to_string(), error };
        let watch = watch(&servers).map_err(unwatched)?;
        Ok(Self { servers, watch })
    }

    /// The index of the server that all these names belong to.
    ///
    /// # Errors
    /// `Invalid` if no server can grant them at once, whether or not it is there.
    pub(crate) fn common_server(
        urls: &[ServerUrl],
        wants: &[(LockName, Mode)],
    ) -> Result<usize, AcquireError> {
        check_set(wants.iter().map(|(name, _)| ((), name)))?;
        let server_of = |name: &LockName| choose(urls.iter().map(ServerUrl::address), name.as_bytes());
        one_server(wants, server_of, |server| &urls[server])
    }

    /// The session on the server that the name belongs to; it carries out every call about one
    /// name.
    pub(crate) fn session_for(&self, name: &[u8]) -> Result<&ServerSession, Lost> {
        self.servers[self.server_of(name)].session()
    }

    pub(crate) fn acquire_all(
        &self,
        wants: &[(LockName, Mode)],
        limit: Option<Duration>,
    ) -> Result<Grant, AcquireError> {
        self.session_for_all(wants)?.acquire_all(wants, limit)
    }

    /// As [`ServerSession::acquire_with_hook`].
    pub(crate) fn acquire_with_hook(
        &self,
        wants: &[(LockName, Mode)],
        limit: Option<Duration>,
        hook: &mut WaitHook<'_>,
    ) -> Result<Grant, AcquireError> {
        self.session_for_all(wants)?.acquire_with_hook(wants, limit, hook)
    }

    /// The session on the server that all these names belong to.
    fn session_for_all(&self, wants: &[(LockName, Mode)]) -> Result<&ServerSession, AcquireError> {
        let server_of = |name: &LockName| self.server_of(name.as_bytes());
        let server = one_server(wants, server_of, |server| &self.servers[server].url)?;
        Ok(self.servers[server].session()?)
    }

    pub(crate) fn release_all(&self, names: &[LockName]) -> Result<(), ReleaseError> {
        let names_on = |index: usize| -> Vec<LockName> {
            names.iter().filter(|name| self.server_of(name.as_bytes()) == index).cloned().collect()
        };
        // Every server is sent its part before any answer is awaited: a server that hangs must not
        // delay the release of locks on the others.
        let mut begun = Vec::new();
        for (index, server) in self.servers.iter().enumerate() {
            let own = names_on(index);
            if !own.is_empty() {
                let session = server.session().map_err(ReleaseError::from);
                begun.push(session.and_then(|session| Ok((session, session.begin_release(&own)?))));
            }
        }
        let mut result = Ok(());
        for begun in begun {
            let released = begun.and_then(|(session, pending)| session.finish_release_all(pending));
            // A lost lock is worse news than a lock that was not held.
            let is_worse = |error: &ReleaseError| match error {
                ReleaseError::NotHeld => 0,
                ReleaseError::Doubt(_) => 1,
                ReleaseError::Lost(_) => 2,
            };
            result = match (result, released) {
                (Err(one), Err(other)) => Err(if is_worse(&other) > is_worse(&one) { other } else { one }),
                (result, released) => result.and(released),
            };
        }
        result
    }

    /// As [`ServerSession::list`], over all servers that the group is meant to have. Fails with the
    /// error of the first one that has one.
    pub(crate) fn list(&self, request: &ListRequest) -> Result<LockPage, InspectError> {
        let page = |server: &GroupMember| server.session()?.list(request);
        let asked: Vec<&GroupMember> = self.servers.iter().filter(|server| server.is_asked).collect();
        if let [server] = asked.as_slice() {
            return page(server);
        }
        let pages: Vec<LockPage> = asked.into_iter().map(page).collect::<Result<_, _>>()?;
        merge_pages(pages, request.limit, |name| self.server_of(name.as_bytes()))
            .ok_or_else(|| InspectError::Refused("a server has listed a name that makes no sense".to_owned()))
    }

    pub(crate) fn connect_error(&self, name: &[u8]) -> Option<&ConnectError> {
        self.servers[self.server_of(name)].session.as_ref().err()
    }

    pub(crate) fn cancel(&self) {
        self.sessions().for_each(ServerSession::cancel);
    }

    /// Whether the session has its locks on every server where it holds a lock or waits for one, and
    /// a connection to at least one server.
    pub(crate) fn state(&self) -> SessionState {
        self.combined(ServerSession::state)
    }

    /// The state of the whole session, of those that `state` returns for each server.
    fn combined(&self, state: impl Fn(&ServerSession) -> SessionState) -> SessionState {
        let mut any_alive = None;
        let (mut needed, mut unneeded) = (None, Vec::new());
        // Every server is asked, so that what has arrived from each is read and polling can start
        // again.
        for session in self.sessions() {
            let state = state(session);
            match &state {
                SessionState::Alive => any_alive = Some(state),
                SessionState::InDoubt { left: Some(_), .. } => needed = worse(needed, state),
                SessionState::Lost { .. } if session.holds_or_waits() => needed = worse(needed, state),
                // Nothing is held there, so it does not matter while there is another server.
                SessionState::InDoubt { left: None, .. } | SessionState::Lost { .. } => {
                    unneeded.push((session, state));
                }
            }
        }
        if any_alive.is_some() {
            // A lost session grants nothing more, so nothing will ever be held there.
            let is_lost = |state: &SessionState| matches!(state, SessionState::Lost { .. });
            let lost = unneeded.iter().filter(|(_, state)| is_lost(state));
            lost.for_each(|(session, _)| self.unwatch(session));
        }
        let absent = unneeded.into_iter().map(|(_, state)| state);
        let nothing = || SessionState::Lost { reason: "there is no server".to_owned() };
        needed.or(any_alive).or_else(|| absent.min_by_key(severity)).unwrap_or_else(nothing)
    }

    /// As [`state`](Self::state), once every server's is certain, or after `limit`.
    pub(crate) fn wait_certain(&self, limit: Option<Duration>) -> SessionState {
        let deadline = deadline(limit);
        let rest = |deadline: Instant| deadline.saturating_duration_since(Instant::now());
        self.combined(|session| session.wait_certain(deadline.map_or(limit, |deadline| Some(rest(deadline)))))
    }

    /// Whether all of its sessions are resumed if they lose their connections.
    pub(crate) fn is_resumable(&self) -> bool {
        self.sessions().all(ServerSession::is_resumable)
    }

    /// How often its sessions were resumed, together.
    pub(crate) fn resumes(&self) -> u64 {
        self.sessions().map(ServerSession::resumes).sum()
    }

    pub(crate) fn close(&self) {
        self.sessions().for_each(ServerSession::close);
    }

    pub(crate) fn abandon(&self) {
        self.sessions().for_each(ServerSession::abandon);
    }

    fn sessions(&self) -> impl Iterator<Item = &ServerSession> {
        self.servers.iter().filter_map(|server| server.session.as_ref().ok())
    }

    /// Removes a lost connection that is not needed from the watch. It would stay readable for
    /// ever, and a loop that polls would spin.
    fn unwatch(&self, session: &ServerSession) {
        if let Some(watch) = &self.watch {
            // Fails if it was removed before.
            let _ = epoll::delete(watch, session);
        }
    }

    fn server_of(&self, name: &[u8]) -> usize {
        choose(self.servers.iter().map(|server| server.url.address()), name)
    }
}

/// As [`ServerSession`]'s, for any of the connections, except lost ones that are known to be
/// unneeded.
impl AsFd for SessionGroup {
    #[expect(clippy::expect_used, reason = "connect_with makes no group without a session on some server")]
    fn as_fd(&self) -> BorrowedFd<'_> {
        let only = || self.sessions().next().expect("a session on one server").as_fd();
        self.watch.as_ref().map_or_else(only, AsFd::as_fd)
    }
}

/// How bad a state is.
fn severity(state: &SessionState) -> u8 {
    match state {
        SessionState::Alive => 0,
        SessionState::InDoubt { .. } => 1,
        SessionState::Lost { .. } => 2,
    }
}

/// The worse of two states; of two in doubt, the one with less time left.
fn worse(one: Option<SessionState>, other: SessionState) -> Option<SessionState> {
    let left = |state: &SessionState| match state {
        SessionState::InDoubt { left, .. } => *left,
        SessionState::Alive | SessionState::Lost { .. } => None,
    };
    let rank = |state: &SessionState| (severity(state), left(state).map(std::cmp::Reverse));
    one.into_iter().chain([other]).max_by_key(rank)
}

/// The server that all these names belong to.
fn one_server<'a>(
    wants: &[(LockName, Mode)],
    server_of: impl Fn(&LockName) -> usize,
    url: impl Fn(usize) -> &'a ServerUrl,
) -> Result<usize, AcquireError> {
    let Some((first, _)) = wants.first() else {
        return Err(AcquireError::Invalid("no name is given".to_owned()));
    };
    let server = server_of(first);
    let Some((other, _)) = wants.iter().find(|(name, _)| server_of(name) != server) else {
        return Ok(server);
    };
    let (here, there) = (url(server), url(server_of(other)));
    Err(AcquireError::Invalid(format!(
        "{first:?} belongs to {here} and {other:?} to {there}: they cannot be acquired at once"
    )))
}

fn watch(servers: &[GroupMember]) -> io::Result<Option<CloseOnForkFd>> {
    if let [_] = servers {
        return Ok(None);
    }
    let watch = CloseOnForkFd::open_anonymous(|| Ok(epoll::create(epoll::CreateFlags::CLOEXEC)?))?;
    for session in servers.iter().filter_map(|server| server.session.as_ref().ok()) {
        let data = epoll::EventData::new_u64(0);
        epoll::add(&watch, session, data, epoll::EventFlags::IN)?;
    }
    Ok(Some(watch))
}
