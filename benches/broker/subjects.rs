//! What is measured: lockd, and what a program might take in its stead to lock by name.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::hint::black_box;
use std::ops::Range;
use std::sync::Mutex;
use std::time::Instant;

use hashbrown::HashTable;
use lockd::Session;
use lockd::broker::{Broker, Mode};
use lockmap::LockMap;

use super::names::{self, Name};

/// Something that locks by name.
pub(crate) trait Subject: Sync {
    fn label(&self) -> &'static str;

    fn acquire(&self, name: &[u8]);

    fn release(&self, name: &[u8]);

    /// Takes these names, for good.
    fn hold(&self, numbers: Range<usize>) {
        numbers.map(names::held).for_each(|name| self.acquire(&name));
    }

    /// The nanoseconds it takes, on average, to lock and unlock a name that is free.
    fn pairs(&self, names: &[Name]) -> f64 {
        time(names, |name| {
            self.acquire(name);
            self.release(name);
        })
    }

    /// The same for unlocking and locking one that is held.
    fn pairs_of_held(&self, names: &[Name]) -> f64 {
        time(names, |name| {
            self.release(name);
            self.acquire(name);
        })
    }

    /// One for another thread, with the same locks; `None` if one for all will do.
    fn another(&self) -> Option<Box<dyn Subject>> {
        None
    }
}

pub(crate) fn all() -> Vec<Box<dyn Subject>> {
    let broker = Broker::default();
    vec![Box::new(Lockd::new(&broker)), Box::new(Keyed::new()), Box::new(Plain::default())]
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

    fn another(&self) -> Option<Box<dyn Subject>> {
        Some(Box::new(Self::new(&self.broker)))
    }
}

/// The crate `lockmap`: keyed locks for one process, without owners, limits or a queue one can look at.
struct Keyed(LockMap<Box<[u8]>, ()>);

impl Keyed {
    fn new() -> Self {
        Self(LockMap::new())
    }
}

impl Subject for Keyed {
    fn label(&self) -> &'static str {
        "lockmap"
    }

    /// Its locks are guards; a name that has a value is in its table as one that is held would be.
    fn acquire(&self, name: &[u8]) {
        black_box(self.0.insert_by_ref(name, ()));
    }

    fn release(&self, name: &[u8]) {
        black_box(self.0.remove(name));
    }

    fn pairs(&self, names: &[Name]) -> f64 {
        time(names, |name| drop(black_box(self.0.entry_by_ref(name))))
    }
}

/// One mutex around a map from names to owners: what one would write in ten lines. Nobody can wait.
#[derive(Default)]
struct Plain(Mutex<HashMap<Box<[u8]>, u32>>);

impl Subject for Plain {
    fn label(&self) -> &'static str {
        "mutex-hashmap"
    }

    fn acquire(&self, name: &[u8]) {
        black_box(self.0.lock().unwrap().insert(name.into(), 1));
    }

    fn release(&self, name: &[u8]) {
        black_box(self.0.lock().unwrap().remove(name));
    }
}

/// A hash table with names, and nothing around it: what is left of the cost when it grows is the memory's.
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
