//! The results of `inspect` and `list`: the holders and waiters of locks, as server and client see
//! them on the wire and as `Session::list` returns them. Knows the keys and the broker's listings;
//! the broker collects the holders and waiters.
//!
//! A missing part of a result counts as empty, so that a refusal can be read as the result too. Its
//! status is not `Ok`, and [`LockResult`](super::LockResult) reads its reason.

use std::iter::Peekable;

use serde::{Deserialize, Serialize};

use crate::broker::{self, LockName, Mode, SessionInfo};
use crate::wire::message::replies::{Status, push_json};
use crate::wire::message::values::{from_hex, is_false, mode, mode_or_null, to_text};

/// The most bytes that [`ListedLock::more_holders`] and [`ListedLock::more_waiters`] take.
const MORE_BYTES: usize = 64;

/// The result of `inspect`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InspectResult {
    /// `Ok`, unless the request was invalid.
    pub status: Status,
    /// The mode in force: of those in which it is held, the one that allows the fewest holders.
    /// `None` if it is free.
    #[serde(flatten, with = "mode_or_null")]
    pub mode: Option<Mode>,
    /// The number of holders.
    #[serde(default)]
    pub holders: usize,
    /// The number of waiters.
    #[serde(default)]
    pub waiters: usize,
    /// Whether the last exclusive holder vanished without releasing, and no later holder has been
    /// told so yet.
    #[serde(default, skip_serializing_if = "is_false")]
    pub orphaned: bool,
}

/// The result of `list`: one page of locks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ListResult {
    /// `Ok`, unless the request was invalid.
    pub status: Status,
    /// The locks, in the order of their names' bytes.
    #[serde(default)]
    pub locks: Vec<ListedLock>,
    /// Whether there are names after the last of these.
    #[serde(default)]
    pub more: bool,
}

/// A page of locks, without the status of the reply that it came in.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LockPage {
    /// The locks, in the order of their names' bytes.
    pub locks: Vec<ListedLock>,
    /// Whether there are names after the last of these. False for an empty page.
    pub more: bool,
}

/// The space for JSON that is left on a page.
struct PageSpace {
    bytes_left: usize,
    scratch: Vec<u8>,
}

impl PageSpace {
    /// Reserves space for a value and a comma. Returns false and reserves nothing if fewer than
    /// `keep_free` bytes would be left.
    fn reserve(&mut self, value: &impl Serialize, keep_free: usize) -> bool {
        self.scratch.clear();
        push_json(&mut self.scratch, value);
        let left = self.bytes_left.checked_sub(self.scratch.len() + 1).filter(|&left| left >= keep_free);
        self.bytes_left = left.unwrap_or(self.bytes_left);
        left.is_some()
    }

    /// Moves values to the page until `keep_free` bytes are left.
    fn fill<T: Serialize>(
        &mut self,
        shown: &mut Vec<T>,
        from: &mut Peekable<impl Iterator<Item = T>>,
        keep_free: usize,
    ) {
        shown.extend(std::iter::from_fn(|| from.next_if(|value| self.reserve(value, keep_free))));
    }
}

impl LockPage {
    /// The most bytes of JSON that the locks of one page take. A page ends there even if there are
    /// more names. A lock whose holders and waiters alone take more has a page of its own, which
    /// does not show all of them.
    pub const BYTES_MAX: usize = 256 << 10;

    /// The page as JSON, `{"locks":[…],"more":…}`. Contains no zero byte.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Cannot fail: the values are strings and numbers, and the keys are strings.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl From<broker::Page> for LockPage {
    fn from(page: broker::Page) -> Self {
        let mut space = PageSpace { bytes_left: Self::BYTES_MAX, scratch: Vec::new() };
        let (mut locks, mut more) = (Vec::new(), page.more);
        for lock in &page.locks {
            let (shown, is_complete) = ListedLock::fitting(lock, &mut space);
            // The first lock is always shown, because the next page continues after its name.
            if !is_complete && !locks.is_empty() {
                more = true;
                break;
            }
            locks.push(shown);
        }
        debug_assert!(!more || !locks.is_empty(), "the next page continues after the last name of this one");
        Self { locks, more }
    }
}

/// A lock on a page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedLock {
    /// The name for people to read; bytes that are not UTF-8 are replaced.
    pub lock_name: String,
    /// The name's bytes in hexadecimal, if they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock_name_hex: Option<String>,
    /// The mode in force, as in [`InspectResult`]; `None` if there are only waiters.
    #[serde(flatten, with = "mode_or_null")]
    pub mode: Option<Mode>,
    /// As in [`InspectResult`].
    #[serde(default, skip_serializing_if = "is_false")]
    pub orphaned: bool,
    /// The holders, or as many as fit on a page.
    pub holders: Vec<ListedHolder>,
    /// The number of holders that did not fit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_holders: usize,
    /// The waiters in the order of the queue, or as many as fit on a page.
    pub waiters: Vec<ListedWaiter>,
    /// The number of waiters after these, which did not fit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_waiters: usize,
}

/// For `skip_serializing_if`, which passes a reference.
fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl ListedLock {
    /// A lock of this name without holders and waiters.
    #[must_use]
    pub fn new(name: &LockName) -> Self {
        let (lock_name, lock_name_hex) = to_text(name);
        Self {
            lock_name,
            lock_name_hex,
            mode: None,
            orphaned: false,
            holders: Vec::new(),
            more_holders: 0,
            waiters: Vec::new(),
            more_waiters: 0,
        }
    }

    /// The number of holders, with those that did not fit.
    #[must_use]
    pub fn holder_count(&self) -> usize {
        self.holders.len() + self.more_holders
    }

    /// Whether its holders allow one more, in `mode`.
    #[must_use]
    pub fn admits(&self, mode: Mode) -> bool {
        self.mode.map_or(mode, |in_force| in_force.min(mode)).allows(self.holder_count() + 1)
    }

    /// The lock with as many of its holders and waiters as fit, and whether all of them fit. If
    /// there are too many of both, each get half of the space.
    fn fitting(lock: &broker::LockInfo, space: &mut PageSpace) -> (Self, bool) {
        let (mode, orphaned) = (lock.mode, lock.orphaned);
        let mut shown = Self { mode, orphaned, ..Self::new(&lock.key.name) };
        let fits = space.reserve(&shown, MORE_BYTES);
        let mut holders = lock.holders.iter().map(ListedHolder::from).peekable();
        let mut waiters = lock.waiters.iter().map(ListedWaiter::from).peekable();
        space.fill(&mut shown.waiters, &mut waiters, space.bytes_left / 2);
        space.fill(&mut shown.holders, &mut holders, MORE_BYTES);
        space.fill(&mut shown.waiters, &mut waiters, MORE_BYTES);
        shown.more_holders = lock.holders.len() - shown.holders.len();
        shown.more_waiters = lock.waiters.len() - shown.waiters.len();
        let is_complete = fits && shown.more_holders == 0 && shown.more_waiters == 0;
        (shown, is_complete)
    }

    /// The exact name, with which the next page can be asked for as `after`. `None` if
    /// `lock_name_hex` is not hexadecimal.
    #[must_use]
    pub fn name(&self) -> Option<LockName> {
        match &self.lock_name_hex {
            Some(hex) => from_hex(hex).map(|bytes| LockName::new(&bytes)),
            None => Some(LockName::from(self.lock_name.as_str())),
        }
    }
}

/// The name that a session has registered, for people to read.
fn name_of(session: &SessionInfo) -> Option<String> {
    session.name().map(|name| String::from_utf8_lossy(&name).into_owned())
}

impl From<&broker::HolderInfo> for ListedHolder {
    fn from(holder: &broker::HolderInfo) -> Self {
        Self {
            address: holder.session.address().to_string(),
            name: name_of(&holder.session),
            limit: holder.mode.limit(),
            token: holder.token,
            held_for: holder.held_for.as_secs_f64(),
            session: Some(holder.session.id()),
            in_doubt: holder.session.in_doubt().map(|time| time.as_secs_f64()),
        }
    }
}

impl From<&broker::WaiterInfo> for ListedWaiter {
    fn from(waiter: &broker::WaiterInfo) -> Self {
        Self {
            address: waiter.session.address().to_string(),
            name: name_of(&waiter.session),
            mode: waiter.mode,
            waiting_for: waiter.waiting_for.as_secs_f64(),
            session: Some(waiter.session.id()),
        }
    }
}

/// A holder of a listed lock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedHolder {
    /// The address of its connection.
    pub address: String,
    /// The name it registered, if any.
    #[serde(default)]
    pub name: Option<String>,
    /// How many holders it allows, if it holds a limited lock. The lowest limit of all holders is in
    /// force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// The fencing token of its grant.
    pub token: u64,
    /// The seconds since it acquired the lock.
    pub held_for: f64,
    /// The server's number for its session, which no other session of that server ever has; `None`
    /// from a server that does not tell. Addresses are not enough: connections to two ports can
    /// come from one address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<u64>,
    /// The seconds since its session lost its connection, if the server keeps the session's locks
    /// because the client may come back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_doubt: Option<f64>,
}

/// A waiter for a listed lock.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedWaiter {
    /// The address of its connection.
    pub address: String,
    /// The name it registered, if any.
    #[serde(default)]
    pub name: Option<String>,
    /// The mode that it asks for.
    #[serde(flatten, with = "mode")]
    pub mode: Mode,
    /// The seconds since it began to wait.
    pub waiting_for: f64,
    /// As [`ListedHolder::session`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(value: &impl Serialize) -> String {
        serde_json::to_string(value).unwrap()
    }

    #[test]
    fn the_mode_of_a_free_name_is_null() {
        let free = InspectResult { status: Status::Ok, mode: None, holders: 0, waiters: 0, orphaned: false };
        let held = InspectResult {
            mode: Some(Mode::Shared),
            holders: 2,
            waiters: 3,
            orphaned: true,
            ..free.clone()
        };
        assert_eq!(json(&free), r#"{"status":"ok","mode":null,"holders":0,"waiters":0}"#);
        assert_eq!(json(&held), r#"{"status":"ok","mode":"shared","holders":2,"waiters":3,"orphaned":true}"#);
        for result in [free, held] {
            assert_eq!(serde_json::from_str::<InspectResult>(&json(&result)).unwrap(), result);
        }
    }

    #[test]
    fn a_page_lists_holders_and_waiters() {
        let mut lock = ListedLock::new(&LockName::from("foo"));
        lock.mode = Some(Mode::Exclusive);
        lock.holders.push(ListedHolder {
            address: "127.0.0.1:57871".to_owned(),
            name: Some("bob".to_owned()),
            limit: None,
            token: 5,
            held_for: 1.5,
            session: Some(9),
            in_doubt: None,
        });
        lock.waiters.push(ListedWaiter {
            address: "unix:3".to_owned(),
            name: None,
            mode: Mode::Shared,
            waiting_for: 0.25,
            session: None,
        });
        let mut lost = ListedLock::new(&LockName::new(b"a\xff"));
        lost.orphaned = true;
        let page = ListResult { status: Status::Ok, locks: vec![lost, lock], more: true };
        let expected = concat!(
            r#"{"status":"ok","locks":["#,
            r#"{"lockName":"a�","lockNameHex":"61ff","mode":null,"orphaned":true,"holders":[],"waiters":[]},"#,
            r#"{"lockName":"foo","mode":"exclusive","#,
            r#""holders":[{"address":"127.0.0.1:57871","name":"bob","token":5,"heldFor":1.5,"session":9}],"#,
            r#""waiters":[{"address":"unix:3","name":null,"mode":"shared","waitingFor":0.25}]}"#,
            r#"],"more":true}"#,
        );
        assert_eq!(json(&page), expected);
        assert_eq!(serde_json::from_str::<ListResult>(expected).unwrap(), page);
    }

    #[test]
    fn a_holder_in_doubt_shows_since_when() {
        let holder = ListedHolder {
            address: "unix:3".to_owned(),
            name: None,
            limit: None,
            token: 5,
            held_for: 9.0,
            session: None,
            in_doubt: Some(2.5),
        };
        let expected = r#"{"address":"unix:3","name":null,"token":5,"heldFor":9.0,"inDoubt":2.5}"#;
        assert_eq!(json(&holder), expected);
        assert_eq!(serde_json::from_str::<ListedHolder>(expected).unwrap(), holder);
    }

    #[test]
    fn a_page_is_the_result_without_its_status() {
        let mut lock = ListedLock::new(&LockName::new(b"\0"));
        lock.mode = Some(Mode::Shared);
        let result = json(&ListResult { status: Status::Ok, locks: vec![lock.clone()], more: true });
        let page = LockPage { locks: vec![lock], more: true };
        assert_eq!(page.to_json(), result.replace(r#""status":"ok","#, ""));
        assert!(!page.to_json().contains('\0'));
    }

    #[test]
    fn a_listed_lock_has_its_exact_name() {
        for name in [LockName::from("ä\u{fffd}\"\n"), LockName::new(b"\xff\x00"), LockName::new(b"")] {
            assert_eq!(ListedLock::new(&name).name(), Some(name));
        }
        let broken =
            ListedLock { lock_name_hex: Some("f".to_owned()), ..ListedLock::new(&LockName::from("a")) };
        assert_eq!(broken.name(), None);
    }

    #[test]
    fn a_refusal_can_be_read_as_the_result_of_the_command() {
        let refusal = r#"{"status":"refused","reason":"stopping"}"#;
        assert_eq!(serde_json::from_str::<InspectResult>(refusal).unwrap().status, Status::Refused);
        assert_eq!(serde_json::from_str::<ListResult>(refusal).unwrap().status, Status::Refused);
        let wrong_mode = r#"{"status":"ok","mode":"upside down"}"#;
        assert!(serde_json::from_str::<InspectResult>(wrong_mode).is_err());
    }
}
