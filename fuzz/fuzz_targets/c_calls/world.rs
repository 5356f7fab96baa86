//! The state of a run: two brokers (the program's own, which a server may serve, and the default
//! one), a model of each, and the sessions with what they have been told.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int};
use std::path::PathBuf;
use std::ptr;
use std::time::{Duration, Instant};

use lockd::ffi::{
    lock_acquire, lock_broker, lock_broker_free, lock_broker_new, lock_close, lock_info, lock_inspect,
    lock_inspect_slots, lock_last_error, lock_open, lock_release, lock_server, lock_server_stop,
    lock_session, lock_slots, lock_status,
};

use lockd::broker::Mode;

use crate::expected;
use crate::model::{Event, Model};
use crate::names::{GivenName, Names};

/// The index of the program's own broker, and of the default one.
pub(crate) const OWN: usize = 0;
pub(crate) const DEFAULT: usize = 1;

/// The most sessions at a time.
pub(crate) const SLOTS: usize = 6;

/// One broker and its model.
pub(crate) struct World {
    pub(crate) model: Model,
    /// A session that only inspects.
    pub(crate) observer: *mut lock_session,
    /// The highest fencing token of each name so far.
    pub(crate) tokens: BTreeMap<u8, u64>,
    sessions: u32,
}

/// A wait that `lock_enqueue` has begun and `lock_wait` can collect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Enqueued {
    /// It has this ticket in the model, and asks for this mode.
    Waiting(u64, Mode),
    Granted(Mode),
    Cancelled,
}

/// A session as a C program sees it.
pub(crate) struct Session {
    pub(crate) handle: *mut lock_session,
    pub(crate) world: usize,
    /// The session's number in the model.
    pub(crate) number: u32,
    pub(crate) is_remote: bool,
    pub(crate) is_lost: bool,
    pub(crate) enqueued: BTreeMap<u8, Enqueued>,
    /// The names whose wait, if there is one, is a conversion of a held lock; and the mode that it was
    /// held in before.
    pub(crate) converting: BTreeMap<u8, Mode>,
    /// The tokens of its locks that it has been told.
    pub(crate) tokens: BTreeMap<u8, u64>,
    pub(crate) lost_fd: c_int,
}

/// The whole state.
pub(crate) struct Worlds {
    pub(crate) names: Names,
    pub(crate) worlds: [World; 2],
    pub(crate) broker: *mut lock_broker,
    pub(crate) server: *mut lock_server,
    pub(crate) path: PathBuf,
    pub(crate) sessions: [Option<Session>; SLOTS],
}

impl World {
    fn new(broker: *mut lock_broker) -> Self {
        // SAFETY: a broker that was just made, or NULL.
        let observer = unsafe { lock_open(broker, c"observer".as_ptr()) };
        assert!(!observer.is_null(), "no session in this process");
        Self { model: Model::default(), observer, tokens: BTreeMap::new(), sessions: 0 }
    }

    /// The number of a new session.
    pub(crate) fn next_number(&mut self) -> u32 {
        self.sessions += 1;
        self.sessions
    }
}

impl Worlds {
    pub(crate) fn new(names: Names) -> Self {
        let broker = lock_broker_new();
        assert!(!broker.is_null(), "no broker");
        Self {
            names,
            worlds: [World::new(broker), World::new(ptr::null_mut())],
            broker,
            server: ptr::null_mut(),
            path: std::env::temp_dir().join(format!("lockd-fuzz-{}", std::process::id())),
            sessions: [const { None }; SLOTS],
        }
    }

    /// Applies an event to the model, and notes which of the sessions' waits end.
    pub(crate) fn apply(&mut self, world: usize, event: &Event) -> crate::model::Said {
        let (said, ends) = self.worlds[world].model.apply(event);
        for (number, ticket, end) in ends {
            let owner = |session: &&mut Session| session.world == world && session.number == number;
            let Some(session) = self.sessions.iter_mut().flatten().find(owner) else { continue };
            let wait = session.enqueued.iter().find_map(|(&name, wait)| match *wait {
                Enqueued::Waiting(other, mode) if other == ticket => Some((name, mode)),
                _ => None,
            });
            let Some((name, mode)) = wait else { continue };
            let after = match end {
                crate::model::End::Granted { .. } => {
                    // A lock that was converted has a new token.
                    session.tokens.remove(&name);
                    Enqueued::Granted(mode)
                }
                crate::model::End::Cancelled => Enqueued::Cancelled,
                other => panic!("a wait without a limit ended in {other:?}"),
            };
            session.enqueued.insert(name, after);
        }
        said
    }

    /// Opens an observer in place of one that was closed.
    pub(crate) fn reopen_observer(&mut self, world: usize) {
        let broker = if world == OWN { self.broker } else { ptr::null_mut() };
        // SAFETY: a broker, or NULL, and a string.
        self.worlds[world].observer = unsafe { lock_open(broker, c"observer".as_ptr()) };
        assert!(!self.worlds[world].observer.is_null());
    }

    /// Compares a name as an observer sees it with the model.
    pub(crate) fn compare_name(&self, world: usize, name: u8) -> Result<(), String> {
        let world = &self.worlds[world];
        let mut seen = untouched_info();
        let pointer = self.names.pointer(GivenName::Name(name));
        // SAFETY: a session, a string, and a place for the output.
        let status = unsafe { lock_inspect(world.observer, pointer, &mut seen) };
        assert_eq!(status, lock_status::LOCK_OK, "an observer cannot inspect");
        let expected = expected::info(&world.model, name);
        let text = self.names.text(name);
        if expected::as_tuple(&seen) != expected::as_tuple(&expected) {
            return Err(format!("{text:?}: {seen:?}, expected {expected:?}"));
        }
        let (seen, expected) = (slots(world.observer, pointer), expected::slots(&world.model, name));
        if expected::slots_as_tuple(&seen) != expected::slots_as_tuple(&expected) {
            return Err(format!("{text:?}: {seen:?}, expected {expected:?}"));
        }
        Ok(())
    }

    /// Waits until the broker agrees with the model, because other threads may have work left.
    pub(crate) fn await_model(&self, world: usize) {
        let until = Instant::now() + Duration::from_secs(5);
        for name in self.names.all() {
            while let Err(why) = self.compare_name(world, name) {
                assert!(Instant::now() < until, "never: {why}");
                std::thread::sleep(Duration::from_micros(50));
            }
        }
    }

    /// Compares all names in both brokers with the models.
    pub(crate) fn compare_all(&self) {
        for world in [OWN, DEFAULT] {
            self.worlds[world].model.check(&|| "the last call".to_owned());
            for name in self.names.all() {
                if let Err(why) = self.compare_name(world, name) {
                    panic!("{why}");
                }
            }
        }
    }

    /// Closes and frees everything. The default broker outlives this run, so nothing may be left in
    /// it.
    pub(crate) fn end(&mut self) {
        for slot in 0..SLOTS {
            self.inspect_all(slot);
        }
        for slot in 0..SLOTS {
            self.close_slot(slot);
        }
        for world in [OWN, DEFAULT] {
            let model = &self.worlds[world].model;
            assert!(model.held.is_empty() && model.waiting.is_empty());
            for name in self.names.all() {
                self.acquire_and_release(world, name);
            }
            // SAFETY: made by lock_open, and not used any more.
            unsafe { lock_close(self.worlds[world].observer) };
        }
        // SAFETY: made by lock_serve, or NULL.
        unsafe { lock_server_stop(self.server) };
        // SAFETY: made by lock_broker_new, or NULL.
        unsafe { lock_broker_free(self.broker) };
    }

    /// Acquires and releases the name: it must be free, and its orphaned mark is removed by that.
    fn acquire_and_release(&self, world: usize, name: u8) {
        let World { observer, ref tokens, .. } = self.worlds[world];
        let last = tokens.get(&name).copied();
        let name = self.names.pointer(GivenName::Name(name));
        let mut token = 0;
        // SAFETY: a session, a string, and a place for the output.
        let status = unsafe { lock_acquire(observer, name, 0, 0, &mut token) };
        assert_eq!(status, lock_status::LOCK_OK, "a free lock cannot be acquired");
        assert!(last < Some(token), "the token is not higher than all earlier ones of its name");
        // SAFETY: as above.
        let status = unsafe { lock_release(observer, name) };
        assert_eq!(status, lock_status::LOCK_OK);
    }
}

/// The slots of a lock, as an observer sees them.
fn slots(observer: *mut lock_session, name: *const c_char) -> lock_slots {
    let mut seen = lock_slots { holders: 77, waiters: 77, limit: 77, free: 77 };
    // SAFETY: a session, a string, and a place for the output.
    let status = unsafe { lock_inspect_slots(observer, name, &mut seen) };
    assert_eq!(status, lock_status::LOCK_OK, "an observer cannot inspect");
    seen
}

pub(crate) fn untouched_info() -> lock_info {
    lock_info { token: 77, holders: 77, waiters: 77, mode: 77, held: true, waiting: true, orphaned: true }
}

/// The message of this thread's last failure.
pub(crate) fn last_error() -> CString {
    let text = lock_last_error();
    assert!(!text.is_null());
    // SAFETY: a string until the next call of this thread.
    let text = unsafe { CStr::from_ptr(text) };
    assert!(text.to_str().is_ok(), "the last error is not UTF-8");
    text.to_owned()
}
