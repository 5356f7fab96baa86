//! The replies of pkLockServer, the original, to a message; and those of lockd where the original
//! would send nothing: to a wait that no release can end, and to an unknown command.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A message of a client.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    /// The parts of a `lock`, as they are written (`None` is absent), and the lock name that they
    /// mean.
    Lock { id: Option<&'static str>, name: Result<&'static str, Malformed> },
    /// An `unlock` with its name at the top level: the name as it is written, and the lock name
    /// that it means.
    Unlock { written: &'static str, name: &'static str },
    /// An `unlock` without a name, or with an invalid one.
    UnlockOfNothing,
    /// A command that the original does not know.
    Unknown { id: Option<&'static str> },
    /// A message that is not a request.
    Nothing,
    /// Input that is not a message.
    NoMessage,
}

/// What is wrong with a `lock`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// There are no parameters.
    NoParameters,
    /// The parameters contain no name.
    NoName,
}

#[derive(Default)]
struct Lock {
    holder: Option<usize>,
    /// The connection that waits, and the id of its request.
    queue: VecDeque<(usize, &'static str)>,
}

/// The original. Connections are numbers.
#[derive(Default)]
pub(crate) struct Model {
    locks: BTreeMap<&'static str, Lock>,
    /// The beginnings of the messages that each connection must receive, in order.
    pub(crate) due: BTreeMap<usize, VecDeque<String>>,
}

impl Model {
    pub(crate) fn waits_for(&self, who: usize, name: &str) -> bool {
        self.locks.get(name).is_some_and(|lock| lock.queue.iter().any(|(waiter, _)| *waiter == who))
    }

    pub(crate) fn handle(&mut self, who: usize, request: &Request) {
        match *request {
            Request::Lock { id: None, .. }
            | Request::Lock { name: Err(Malformed::NoParameters), .. }
            | Request::Unknown { id: None }
            | Request::Nothing => {}
            Request::Lock { id: Some(id), name: Err(Malformed::NoName) } => self.result(who, id, "invalid"),
            Request::Lock { id: Some(id), name: Ok(name) } => self.lock(who, id, name),
            Request::Unlock { written, name } => {
                let result = if self.give_up(who, name) { "ok" } else { "notFound" };
                let text = format!(r#"{{"attempted":"unlock","result":"{result}","lockName":{written}}}"#);
                // The reply would have to come before the grant that it causes only if both went to
                // one connection, which cannot wait for a lock that it holds.
                self.say(who, text);
            }
            Request::UnlockOfNothing => {
                self.say(who, r#"{"attempted":"unlock","result":"invalid"}"#.to_owned());
            }
            Request::Unknown { id: Some(id) } => self.result(who, id, "unknown"),
            Request::NoMessage => self.say(who, r#"{"error":"#.to_owned()),
        }
    }

    pub(crate) fn disconnect(&mut self, who: usize) {
        self.due.remove(&who);
        // Its waits end before its locks go to others.
        for lock in self.locks.values_mut() {
            lock.queue.retain(|(waiter, _)| *waiter != who);
        }
        for name in self.locks.keys().copied().collect::<Vec<_>>() {
            self.give_up(who, name);
        }
    }

    fn lock(&mut self, who: usize, id: &'static str, name: &'static str) {
        let lock = self.locks.entry(name).or_default();
        if lock.holder.is_none_or(|holder| holder == who) {
            lock.holder = Some(who);
            return self.result(who, id, "ok");
        }
        lock.queue.push_back((who, id));
        if self.is_waited_for_by_itself(who) {
            self.locks.get_mut(name).unwrap().queue.pop_back();
            self.result(who, id, "deadlock");
        }
    }

    fn is_waited_for_by_itself(&self, who: usize) -> bool {
        let (mut seen, mut next) = (BTreeSet::new(), vec![who]);
        while let Some(one) = next.pop() {
            for lock in self.locks.values() {
                let Some(place) = lock.queue.iter().position(|(waiter, _)| *waiter == one) else { continue };
                let ahead = lock.queue.iter().take(place).map(|(waiter, _)| *waiter).chain(lock.holder);
                for other in ahead {
                    if other == who {
                        return true;
                    }
                    if seen.insert(other) {
                        next.push(other);
                    }
                }
            }
        }
        false
    }

    /// Releases it or leaves its queue; false if there was nothing to give up.
    fn give_up(&mut self, who: usize, name: &str) -> bool {
        let Some(lock) = self.locks.get_mut(name) else { return false };
        if lock.holder == Some(who) {
            let next = lock.queue.pop_front();
            lock.holder = next.map(|(waiter, _)| waiter);
            if let Some((waiter, id)) = next {
                self.result(waiter, id, "ok");
            }
            return true;
        }
        let before = lock.queue.len();
        lock.queue.retain(|(waiter, _)| *waiter != who);
        lock.queue.len() < before
    }

    fn result(&mut self, who: usize, id: &str, status: &str) {
        self.say(who, format!(r#"{{"id":{id},"result":{{"status":"{status}""#));
    }

    fn say(&mut self, who: usize, beginning: String) {
        self.due.entry(who).or_default().push_back(beginning);
    }
}
