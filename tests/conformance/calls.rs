//! The commands of the contract, as calls of a driver.

use std::thread;
use std::time::{Duration, Instant};

use crate::driver::{Driver, HANG, encoded};
use crate::outcome::{Answer, Word};
use crate::verdict::Verdict;

/// How long a driver may take to open a session.
const CONNECT_MS: u64 = 10_000;

pub(crate) const EXCLUSIVE: &str = "exclusive";
pub(crate) const SHARED: &str = "shared";

fn wait(limit: Option<Duration>) -> String {
    limit.map_or_else(|| "forever".to_owned(), |limit| limit.as_millis().to_string())
}

pub(crate) fn acquiring(name: impl AsRef<[u8]>, mode: &str, limit: Option<Duration>) -> String {
    format!("acquire {} {mode} {}", encoded(name.as_ref()), wait(limit))
}

pub(crate) fn acquiring_set(names: &[&str], mode: &str, limit: Option<Duration>) -> String {
    let names: Vec<_> = names.iter().map(|name| encoded(name.as_bytes())).collect();
    format!("acquire-set {mode} {} {}", wait(limit), names.join(" "))
}

pub(crate) fn converting(name: &str, mode: &str, limit: Option<Duration>) -> String {
    format!("convert {} {mode} {}", encoded(name.as_bytes()), wait(limit))
}

impl Driver {
    /// Tries to open a session.
    pub(crate) fn connect(&self, owner: &str, urls: &[&str]) -> Verdict<Answer> {
        let limit = Some(Duration::from_millis(CONNECT_MS));
        self.ask(&format!("connect {owner} {CONNECT_MS} {}", urls.join(" ")), limit)
    }

    pub(crate) fn acquire(
        &self,
        name: impl AsRef<[u8]>,
        mode: &str,
        limit: Option<Duration>,
    ) -> Verdict<Answer> {
        self.ask(&acquiring(name, mode, limit), limit)
    }

    /// Acquires what must be free.
    pub(crate) fn hold(&self, name: impl AsRef<[u8]>, mode: &str) -> Verdict<Answer> {
        self.acquire(name, mode, Some(Duration::ZERO))?.must_be(Word::Granted)
    }

    /// Begins to wait for a lock, without a time limit.
    pub(crate) fn begin_acquire(&self, name: &str, mode: &str) -> Verdict {
        self.say(&acquiring(name, mode, None), None)
    }

    pub(crate) fn acquire_set(&self, names: &[&str], mode: &str, limit: Option<Duration>) -> Verdict<Answer> {
        self.ask(&acquiring_set(names, mode, limit), limit)
    }

    pub(crate) fn convert(&self, name: &str, mode: &str, limit: Option<Duration>) -> Verdict<Answer> {
        self.ask(&converting(name, mode, limit), limit)
    }

    pub(crate) fn release(&self, name: impl AsRef<[u8]>) -> Verdict<Answer> {
        self.ask(&format!("release {}", encoded(name.as_ref())), None)
    }

    pub(crate) fn check(&self, name: impl AsRef<[u8]>) -> Verdict<Answer> {
        self.ask(&format!("check {}", encoded(name.as_ref())), None)
    }

    pub(crate) fn inspect(&self, name: &str) -> Verdict<Answer> {
        self.ask(&format!("inspect {}", encoded(name.as_bytes())), None)
    }

    pub(crate) fn notice(&self, limit: Duration) -> Verdict<Answer> {
        self.ask(&format!("notice {}", limit.as_millis()), Some(limit))
    }

    /// What the session is, as far as can be known without waiting.
    pub(crate) fn state(&self) -> Verdict<Answer> {
        self.ask("state", None)
    }

    /// Waits until the session is in doubt: the end of its connection may still be on its way.
    pub(crate) fn until_doubt(&self) -> Verdict {
        let deadline = Instant::now() + HANG;
        loop {
            let state = self.state()?.must_be_one_of(&[Word::Alive, Word::Doubt])?;
            if state.word == Word::Doubt || Instant::now() > deadline {
                return state.must_be(Word::Doubt).map(drop);
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// What it is once it is no longer in doubt.
    pub(crate) fn certain(&self, limit: Duration) -> Verdict<Answer> {
        self.ask(&format!("certain {}", limit.as_millis()), Some(limit))
    }

    /// Starts a command in the background.
    pub(crate) fn in_background(&self, command: &str) -> Verdict {
        self.ask(&format!("in-background {command}"), None)?.must_be(Word::Ok).map(drop)
    }

    pub(crate) fn cancel(&self) -> Verdict {
        self.ask("cancel", None)?.must_be(Word::Ok).map(drop)
    }

    pub(crate) fn close(&self) -> Verdict {
        self.ask("close", None)?.must_be(Word::Ok).map(drop)
    }
}
