//! What is measured: lockd, and what a program might use instead to lock by name.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasher, RandomState};
use std::hint::black_box;
use std::ops::Range;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use hashbrown::HashTable;
use lockd::Session;
use lockd::broker::{AcquireError, Broker, Mode};
use lockmap::LockMap;

use super::names::{self, Name};

/// Something that locks by name.
pub(crate) trait Subject: Sync {
    fn label(&self) -> &'static str;

    fn acquire(&self, name: &[u8]);

    fn release(&self, name: &[u8]);

    /// Acquires these names and keeps them.
    fn hold(&self, numbers: Range<usize>) {
        numbers.map(names::held).for_each(|name| self.acquire(&name));
    }

    /// The nanoseconds to acquire and release a free name, on average.
    fn pairs(&self, names: &[Name]) -> f64 {
        time(names, |name| {
            self.acquire(name);
            self.release(name);
        })
    }

    /// The nanoseconds to release and acquire a held name, on average.
    fn pairs_of_held(&self, names: &[Name]) -> f64 {
        time(names, |name| {
            self.release(name);
            self.acquire(name);
        })
    }

    /// Acquires and releases each name that nobody holds at that moment. Returns how many.
    fn pairs_of_free(&self, names: &[Name]) -> usize;

    /// A subject for another thread that shares these locks; `None` if all threads can use this
    /// one.
    fn for_thread(&self) -> Option<Box<dyn Subject>> {
        None
    }
}

pub(crate) fn all() -> Vec<Box<dyn Subject>> {
    let broker = Broker::default();
    vec![Box::new(Lockd::new(&broker)), Box::new(KeyedLocks::new()), Box::new(MutexMap::default())]
}

/// The nanoseconds that `work` takes for each name.
fn time<'a>(names: &'a [Name], mut work: impl FnMut(&'a [u8])) -> f64 {
    let start = Instant::now();
    names.iter().for_each(|name| work(name));
    start.elapsed().as_nanos() as f64 / names.len() as f64
}

pub(crate) struct Lockd {
    broker: Broker,
    session: Session,
}

impl Lockd {
    pub(crate) fn new(broker: &Broker) -> Self {
        Self { broker: broker.clone(), session: Session::open(broker, None) }
    }
}

impl Subject for Lockd {
    fn label(&self) -> &'static str {
        "lockd"
    }

    fn acquire(&self, name: &[u8]) {
        black_box(self.session.acquire(name, Mode::Exclusive, None).unwrap());
    }

    fn release(&self, name: &[u8]) {
        black_box(self.session.release(name).unwrap());
    }

    fn pairs_of_free(&self, names: &[Name]) -> usize {
        let acquires = |name: &[u8]| {
            let answer = self.session.acquire(name, Mode::Exclusive, Some(Duration::ZERO));
            assert!(matches!(answer, Ok(_) | Err(AcquireError::TimedOut)), "{answer:?}");
            black_box(answer).is_ok()
        };
        names.iter().filter(|name| acquires(name)).inspect(|name| self.release(name)).count()
    }

    fn for_thread(&self) -> Option<Box<dyn Subject>> {
        Some(Box::new(Self::new(&self.broker)))
    }
}

/// The crate `lockmap`: keyed locks for one process, without owners, limits or a queue that can be
/// inspected.
struct KeyedLocks(LockMap<Box<[u8]>, ()>);

impl KeyedLocks {
    fn new() -> Self {
        Self(LockMap::new())
    }
}

impl Subject for KeyedLocks {
    fn label(&self) -> &'static str {
        "lockmap"
    }

    /// A lock of this crate is a guard. A name with a value is in the table just as a held name
    /// would be.
    fn acquire(&self, name: &[u8]) {
        black_box(self.0.insert_by_ref(name, ()));
    }

    fn release(&self, name: &[u8]) {
        black_box(self.0.remove(name));
    }

    fn pairs(&self, names: &[Name]) -> f64 {
        time(names, |name| drop(black_box(self.0.entry_by_ref(name))))
    }

    fn pairs_of_free(&self, names: &[Name]) -> usize {
        names.iter().filter(|name| black_box(self.0.try_entry_by_ref(&***name)).is_some()).count()
    }
}

/// One mutex around a map from names to owners, as it can be written in ten lines. A caller cannot
/// wait for a name.
#[derive(Default)]
struct MutexMap(Mutex<HashMap<Box<[u8]>, u32>>);

impl Subject for MutexMap {
    fn label(&self) -> &'static str {
        "mutex-hashmap"
    }

    fn acquire(&self, name: &[u8]) {
        black_box(self.0.lock().unwrap().insert(name.into(), 1));
    }

    fn release(&self, name: &[u8]) {
        black_box(self.0.lock().unwrap().remove(name));
    }

    fn pairs_of_free(&self, names: &[Name]) -> usize {
        let acquires = |name: &[u8]| {
            let mut owners = self.0.lock().unwrap();
            match owners.entry(name.into()) {
                Entry::Vacant(free) => {
                    free.insert(1);
                    true
                }
                Entry::Occupied(_) => false,
            }
        };
        names.iter().filter(|name| black_box(acquires(name))).inspect(|name| self.release(name)).count()
    }
}

/// A hash table with names and nothing else: when it grows, its cost is the cost of memory.
#[derive(Default)]
pub(crate) struct LookUp {
    hasher: RandomState,
    names: HashTable<Name>,
}

impl LookUp {
    pub(crate) fn hold(&mut self, numbers: Range<usize>) {
        for name in numbers.map(names::held) {
            let Self { hasher, names } = self;
            let hash = hasher.hash_one(&*name);
            names.insert_unique(hash, name, |name| hasher.hash_one(&**name));
        }
    }

    pub(crate) fn find(&self, names: &[Name]) -> f64 {
        time(names, |name| {
            let hash = self.hasher.hash_one(name);
            black_box(self.names.find(hash, |known| **known == *name));
        })
    }
}
