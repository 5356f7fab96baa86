//! The results of `inspect` and `list`: who holds what and who waits, as both sides see it on the
//! wire, and as one process tells it to another part of itself. Knows the keys, and what the broker's
//! listings have to go under them; collecting the holders is the broker's.
//!
//! What is missing of a result counts as empty when it is read, so that a refusal can be read too: it
//! has a status other than `Ok`, and [`LockResult`](super::LockResult) reads its reason.

use std::iter::Peekable;

use serde::{Deserialize, Serialize};

use crate::broker::{self, LockName, Mode, SessionInfo};
use crate::wire::message::replies::{Status, is_false, push_json};
use crate::wire::message::values::{from_hex, mode, mode_or_null, to_text};

/// What [`ListedLock::more_holders`] and [`ListedLock::more_waiters`] take.
const MORE_BYTES: usize = 64;

/// The result of `inspect`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InspectResult {
    /// `Ok`, unless the request was invalid.
    pub status: Status,
    /// How it is held; `None` if it is free.
    #[serde(default, with = "mode_or_null")]
    pub mode: Option<Mode>,
    /// How many hold it.
    #[serde(default)]
    pub holders: usize,
    /// How many wait for it.
    #[serde(default)]
    pub waiters: usize,
    /// Whether the last exclusive holder vanished without releasing, and nobody was told yet.
    #[serde(default, skip_serializing_if = "is_false")]
    pub orphaned: bool,
}

/// The result of `list`: one page.
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

/// A page of locks, without whose answer it was in.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LockPage {
    /// The locks, in the order of their names' bytes.
    pub locks: Vec<ListedLock>,
    /// Whether there are names after the last of these. Never of an empty page.
    pub more: bool,
}

/// How much JSON there is still room for on a page.
struct Room {
    bytes: usize,
    scratch: Vec<u8>,
}

impl Room {
    /// Takes room for a value and a comma, if there is as much and `leaving` beside it.
    fn take(&mut self, value: &impl Serialize, leaving: usize) -> bool {
        self.scratch.clear();
        push_json(&mut self.scratch, value);
        let left = self.bytes.checked_sub(self.scratch.len() + 1).filter(|&left| left >= leaving);
        self.bytes = left.unwrap_or(self.bytes);
        left.is_some()
    }

    /// Moves what there is room for.
    fn fill<T: Serialize>(
        &mut self,
        shown: &mut Vec<T>,
        from: &mut Peekable<impl Iterator<Item = T>>,
        leaving: usize,
    ) {
        shown.extend(std::iter::from_fn(|| from.next_if(|value| self.take(value, leaving))));
    }
}

impl LockPage {
    /// How many bytes of JSON the locks of one page take at most: then it ends, though there may be more names. A
    /// lock with more holders and waiters than that has a page of its own, and not all of them are shown.
    pub const BYTES_MAX: usize = 256 << 10;

    /// The page as JSON, `{"locks":[…],"more":…}`, without a zero byte in it.
    #[must_use]
    pub fn to_json(&self) -> String {
        // It cannot fail: strings and numbers under keys that are strings.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl From<broker::Page> for LockPage {
    fn from(page: broker::Page) -> Self {
        let mut room = Room { bytes: Self::BYTES_MAX, scratch: Vec::new() };
        let (mut locks, mut more) = (Vec::new(), page.more);
        for lock in &page.locks {
            let (shown, is_whole) = ListedLock::within(&mut room, lock);
            // The first lock is shown in any case, so that there is one to go on from.
            if !is_whole && !locks.is_empty() {
                more = true;
                break;
            }
            locks.push(shown);
        }
        Self { locks, more }
    }
}

/// A lock on a page.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListedLock {
    /// The name for people to read; what is not UTF-8 in it is replaced.
    pub lock_name: String,
    /// The name's bytes in hexadecimal, if they are not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lock_name_hex: Option<String>,
    /// How it is held; `None` if there are only waiters.
    #[serde(default, with = "mode_or_null")]
    pub mode: Option<Mode>,
    /// As in [`InspectResult`].
    #[serde(default, skip_serializing_if = "is_false")]
    pub orphaned: bool,
    /// Who holds it.
    pub holders: Vec<ListedHolder>,
    /// How many more hold it: more than there is room for on a page.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_holders: usize,
    /// Who waits for it, the next first.
    pub waiters: Vec<ListedWaiter>,
    /// How many more wait for it, after these.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more_waiters: usize,
}

/// For `skip_serializing_if`, which hands a reference over.
fn is_zero(count: &usize) -> bool {
    *count == 0
}

impl ListedLock {
    /// A lock of this name that nobody holds or waits for.
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

    /// The lock with those of its holders and waiters that there is room for, and whether there was room for all. If
    /// there are too many of both, each have half of it.
    fn within(room: &mut Room, lock: &broker::LockInfo) -> (Self, bool) {
        let (mode, orphaned) = (lock.mode, lock.orphaned);
        let mut shown = Self { mode, orphaned, ..Self::new(&lock.key.name) };
        let has_room = room.take(&shown, MORE_BYTES);
        let mut holders = lock.holders.iter().map(ListedHolder::from).peekable();
        let mut waiters = lock.waiters.iter().map(ListedWaiter::from).peekable();
        room.fill(&mut shown.waiters, &mut waiters, room.bytes / 2);
        room.fill(&mut shown.holders, &mut holders, MORE_BYTES);
        room.fill(&mut shown.waiters, &mut waiters, MORE_BYTES);
        shown.more_holders = lock.holders.len() - shown.holders.len();
        shown.more_waiters = lock.waiters.len() - shown.waiters.len();
        let is_whole = has_room && shown.more_holders == 0 && shown.more_waiters == 0;
        (shown, is_whole)
    }

    /// The exact name, to go on from with `after`; `None` if the hexadecimal digits are none.
    #[must_use]
    pub fn name(&self) -> Option<LockName> {
        match &self.lock_name_hex {
            Some(hex) => from_hex(hex),
            None => Some(LockName::from(self.lock_name.as_str())),
        }
    }
}

/// What a session has registered, for people to read.
fn name_of(session: &SessionInfo) -> Option<String> {
    session.name().map(|name| String::from_utf8_lossy(&name).into_owned())
}

impl From<&broker::HolderInfo> for ListedHolder {
    fn from(holder: &broker::HolderInfo) -> Self {
        Self {
            address: holder.session.address().to_owned(),
            name: name_of(&holder.session),
            token: holder.token,
            held_for: holder.held_for.as_secs_f64(),
        }
    }
}

impl From<&broker::WaiterInfo> for ListedWaiter {
    fn from(waiter: &broker::WaiterInfo) -> Self {
        Self {
            address: waiter.session.address().to_owned(),
            name: name_of(&waiter.session),
            mode: waiter.mode,
            waiting_for: waiter.waiting_for.as_secs_f64(),
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
    /// The fencing token of its grant.
    pub token: u64,
    /// For how many seconds it has held the lock.
    pub held_for: f64,
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
    /// The mode it wants.
    #[serde(with = "mode")]
    pub mode: Mode,
    /// For how many seconds it has waited.
    pub waiting_for: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(value: &impl Serialize) -> String {
        serde_json::to_string(value).unwrap()
    }

    #[test]
    fn an_inspection_says_null_for_a_free_name() {
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
            token: 5,
            held_for: 1.5,
        });
        lock.waiters.push(ListedWaiter {
            address: "unix:3".to_owned(),
            name: None,
            mode: Mode::Shared,
            waiting_for: 0.25,
        });
        let mut lost = ListedLock::new(&LockName::new(b"a\xff"));
        lost.orphaned = true;
        let page = ListResult { status: Status::Ok, locks: vec![lost, lock], more: true };
        let expected = concat!(
            r#"{"status":"ok","locks":["#,
            r#"{"lockName":"a�","lockNameHex":"61ff","mode":null,"orphaned":true,"holders":[],"waiters":[]},"#,
            r#"{"lockName":"foo","mode":"exclusive","#,
            r#""holders":[{"address":"127.0.0.1:57871","name":"bob","token":5,"heldFor":1.5}],"#,
            r#""waiters":[{"address":"unix:3","name":null,"mode":"shared","waitingFor":0.25}]}"#,
            r#"],"more":true}"#,
        );
        assert_eq!(json(&page), expected);
        assert_eq!(serde_json::from_str::<ListResult>(expected).unwrap(), page);
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
    fn the_exact_name_comes_back() {
        for name in [LockName::from("ä\u{fffd}\"\n"), LockName::new(b"\xff\x00"), LockName::new(b"")] {
            assert_eq!(ListedLock::new(&name).name(), Some(name));
        }
        let broken =
            ListedLock { lock_name_hex: Some("f".to_owned()), ..ListedLock::new(&LockName::from("a")) };
        assert_eq!(broken.name(), None);
    }

    #[test]
    fn a_refusal_is_readable_as_the_result_it_stands_for() {
        let refusal = r#"{"status":"refused","reason":"stopping"}"#;
        assert_eq!(serde_json::from_str::<InspectResult>(refusal).unwrap().status, Status::Refused);
        assert_eq!(serde_json::from_str::<ListResult>(refusal).unwrap().status, Status::Refused);
        let wrong_mode = r#"{"status":"ok","mode":"upside down"}"#;
        assert!(serde_json::from_str::<InspectResult>(wrong_mode).is_err());
    }
}
