//! What there is: two brokers (one of the program's own, which a server may serve, and the default one), a
//! model of each, sessions, and what is known of them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString, c_int};
use std::path::PathBuf;
use std::ptr;
use std::time::{Duration, Instant};

use lockd::ffi::{
    lock_acquire, lock_broker, lock_broker_free, lock_broker_new, lock_close, lock_info, lock_inspect,
    lock_last_error, lock_open, lock_release, lock_server, lock_server_stop, lock_session, lock_status,
};

use lockd::broker::Mode;

use crate::model::{Event, Model};
use crate::names::{Given, Names};

/// The broker of the program's own, and the default one.
pub(crate) const OWN: usize = 0;
pub(crate) const DEFAULT: usize = 1;

/// How many sessions there are at most.
pub(crate) const SLOTS: usize = 6;

/// One broker.
pub(crate) struct World {
    pub(crate) model: Model,
    /// A session that only looks.
    pub(crate) observer: *mut lock_session,
    /// The highest fencing token so far.
    pub(crate) token: u64,
    sessions: u32,
}

/// A place that `lock_enqueue` has taken, for `lock_wait` to ask about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// It is that of this ticket of the model's, for this mode.
    Waiting(u64, Mode),
    Granted(Mode),
    Cancelled,
}

/// A session, as far as C programs see it.
pub(crate) struct Session {
    pub(crate) handle: *mut lock_session,
    pub(crate) world: usize,
    /// What the model calls it.
    pub(crate) number: u32,
    pub(crate) is_remote: bool,
    pub(crate) is_lost: bool,
    pub(crate) places: BTreeMap<u8, Place>,
    /// The names whose place, if there is one, is to make exclusive what is held already.
    pub(crate) upgrading: BTreeSet<u8>,
    /// The tokens of its locks, as far as they have been told.
    pub(crate) tokens: BTreeMap<u8, u64>,
    pub(crate) lost_fd: c_int,
}

/// All of it.
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
        Self { model: Model::default(), observer, token: 0, sessions: 0 }
    }

    /// What a new session is called.
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

    /// Something happens in the model, and waits end by it.
    pub(crate) fn happen(&mut self, world: usize, event: &Event) -> crate::model::Said {
        let (said, ends) = self.worlds[world].model.apply(event);
        for (number, ticket, end) in ends {
            let owner = |session: &&mut Session| session.world == world && session.number == number;
            let Some(session) = self.sessions.iter_mut().flatten().find(owner) else { continue };
            let place = session.places.iter().find_map(|(&name, place)| match *place {
                Place::Waiting(other, mode) if other == ticket => Some((name, mode)),
                _ => None,
            });
            let Some((name, mode)) = place else { continue };
            let after = match end {
                crate::model::End::Granted { .. } => {
                    // One that was made exclusive has a new token.
                    session.tokens.remove(&name);
                    Place::Granted(mode)
                }
                crate::model::End::Cancelled => Place::Cancelled,
                other => panic!("a place without a limit ended so: {other:?}"),
            };
            session.places.insert(name, after);
        }
        said
    }

    /// A session that looks at the world, in place of one that was closed.
    pub(crate) fn observe_anew(&mut self, world: usize) {
        let broker = if world == OWN { self.broker } else { ptr::null_mut() };
        // SAFETY: a broker, or NULL, and a string.
        self.worlds[world].observer = unsafe { lock_open(broker, c"observer".as_ptr()) };
        assert!(!self.worlds[world].observer.is_null());
    }

    /// What an observer sees of a name is what the model says.
    pub(crate) fn look(&self, world: usize, name: u8) -> Result<(), String> {
        let world = &self.worlds[world];
        let mut seen = no_info();
        let pointer = self.names.pointer(Given::Name(name));
        // SAFETY: a session, a string, and a place to write to.
        let status = unsafe { lock_inspect(world.observer, pointer, &mut seen) };
        assert_eq!(status, lock_status::LOCK_OK, "an observer cannot look");
        let expected = crate::expected::info(&world.model, name);
        let text = self.names.text(name);
        if crate::expected::as_tuple(&seen) == crate::expected::as_tuple(&expected) {
            Ok(())
        } else {
            Err(format!("{text:?}: {seen:?}, expected {expected:?}"))
        }
    }

    /// Looks until what another thread has yet to do is done.
    pub(crate) fn await_model(&self, world: usize) {
        let until = Instant::now() + Duration::from_secs(5);
        for name in self.names.all() {
            while let Err(why) = self.look(world, name) {
                assert!(Instant::now() < until, "never: {why}");
                std::thread::sleep(Duration::from_micros(50));
            }
        }
    }

    /// Everything is as the models say.
    pub(crate) fn audit(&self) {
        for world in [OWN, DEFAULT] {
            self.worlds[world].model.check(&|| "the last call".to_owned());
            for name in self.names.all() {
                if let Err(why) = self.look(world, name) {
                    panic!("{why}");
                }
            }
        }
    }

    /// Closes and frees everything. Nothing is left behind: also the default broker outlives this.
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
                self.take_and_give_back(world, name);
            }
            // SAFETY: made by lock_open, and not used any more.
            unsafe { lock_close(self.worlds[world].observer) };
        }
        // SAFETY: made by lock_serve, or NULL.
        unsafe { lock_server_stop(self.server) };
        // SAFETY: made by lock_broker_new, or NULL.
        unsafe { lock_broker_free(self.broker) };
    }

    /// Everybody can have the name again; and what vanished holders have left is forgotten by that.
    fn take_and_give_back(&self, world: usize, name: u8) {
        let (observer, name) = (self.worlds[world].observer, self.names.pointer(Given::Name(name)));
        let mut token = 0;
        // SAFETY: a session, a string, and a place to write to.
        let status = unsafe { lock_acquire(observer, name, 0, 0, &mut token) };
        assert_eq!(status, lock_status::LOCK_OK, "a lock of nobody's cannot be had");
        assert!(token > self.worlds[world].token, "a token is no higher than those before");
        // SAFETY: as above.
        let status = unsafe { lock_release(observer, name) };
        assert_eq!(status, lock_status::LOCK_OK);
    }
}

pub(crate) fn no_info() -> lock_info {
    lock_info { token: 77, holders: 77, waiters: 77, mode: 77, held: true, waiting: true, orphaned: true }
}

/// What the last failure of this thread was.
pub(crate) fn last_error() -> CString {
    let text = lock_last_error();
    assert!(!text.is_null());
    // SAFETY: a string until the next call of this thread.
    let text = unsafe { CStr::from_ptr(text) };
    assert!(text.to_str().is_ok(), "the last error is no text");
    text.to_owned()
}
