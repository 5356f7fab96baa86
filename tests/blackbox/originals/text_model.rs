//! The replies of lockd and glockd, the originals, to a line.

use std::collections::BTreeMap;

/// Which of the two originals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Original {
    Lockd,
    Glockd,
}

/// What a reply must be.
pub(crate) enum Reply {
    /// Exactly these bytes.
    Exactly(Vec<u8>),
    /// These parts in any order, with a separator between them, a prefix and a suffix.
    InAnyOrder { start: &'static str, parts: Vec<Vec<u8>>, between: &'static str, end: &'static str },
}

impl Reply {
    /// A reply of this length, in any order.
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Exactly(bytes) => bytes.len(),
            Self::InAnyOrder { start, parts, between, end } => {
                let all: usize = parts.iter().map(Vec::len).sum();
                start.len() + all + between.len() * parts.len().saturating_sub(1) + end.len()
            }
        }
    }

    pub(crate) fn is(&self, bytes: &[u8]) -> bool {
        match self {
            Self::Exactly(expected) => bytes == expected,
            Self::InAnyOrder { start, parts, between, end } => {
                let inside =
                    bytes.strip_prefix(start.as_bytes()).and_then(|b| b.strip_suffix(end.as_bytes()));
                inside.is_some_and(|inside| are_in_any_order(inside, parts, between.as_bytes()))
            }
        }
    }
}

fn are_in_any_order(bytes: &[u8], parts: &[Vec<u8>], between: &[u8]) -> bool {
    if parts.is_empty() {
        return bytes.is_empty();
    }
    (0..parts.len()).any(|first| {
        let mut others = parts.to_vec();
        let part = others.swap_remove(first);
        let Some(rest) = bytes.strip_prefix(part.as_slice()) else { return false };
        let between = if others.is_empty() { b"" } else { between };
        rest.strip_prefix(between).is_some_and(|rest| are_in_any_order(rest, &others, between))
    })
}

struct Connected {
    address: String,
    name: Option<Vec<u8>>,
}

/// One of the originals. Connections are numbered in the order in which they came.
pub(crate) struct Model {
    original: Original,
    pid: u32,
    connections: BTreeMap<usize, Connected>,
    /// Open connections that do not belong to the dialogue.
    others: usize,
    exclusive: BTreeMap<Vec<u8>, usize>,
    /// The holders in the order in which they acquired.
    shared: BTreeMap<Vec<u8>, Vec<usize>>,
    counts: BTreeMap<&'static str, u64>,
}

const COUNTED: [&str; 13] = ["d", "dump", "g", "i", "iam", "me", "q", "r", "sd", "sg", "si", "sr", "who"];

impl Model {
    pub(crate) fn new(original: Original, pid: u32, others: usize) -> Self {
        let (connections, exclusive) = (BTreeMap::new(), BTreeMap::new());
        Self {
            original,
            pid,
            connections,
            others,
            exclusive,
            shared: BTreeMap::new(),
            counts: BTreeMap::new(),
        }
    }

    pub(crate) fn connect(&mut self, who: usize, address: String) {
        self.connections.insert(who, Connected { address, name: None });
    }

    pub(crate) fn disconnect(&mut self, who: usize) {
        self.connections.remove(&who);
        let before = self.exclusive.len();
        self.exclusive.retain(|_, holder| *holder != who);
        *self.counts.entry("orphans").or_default() += (before - self.exclusive.len()) as u64;
        for holders in self.shared.values_mut() {
            let before = holders.len();
            holders.retain(|holder| *holder != who);
            *self.counts.entry("shared_orphans").or_default() += (before - holders.len()) as u64;
        }
    }

    pub(crate) fn answer(&mut self, who: usize, line: &[u8]) -> Reply {
        let line = line.trim_ascii();
        let space = line.iter().position(|&byte| byte == b' ');
        let (command, rest) = line.split_at(space.unwrap_or(line.len()));
        let words = rest.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
        let name = words.collect::<Vec<_>>().join(&b' ');
        let command = COUNTED.into_iter().find(|known| known.as_bytes() == command);
        let command = command.filter(|command| {
            self.original == Original::Glockd || ["g", "r", "i", "sg", "sr", "si", "q"].contains(command)
        });
        *self.counts.entry(command.unwrap_or("invalid")).or_default() += 1;
        match (self.original, command) {
            (_, None) => Reply::Exactly(Vec::new()),
            (Original::Lockd, Some("q")) => self.lockd_statistics(),
            (Original::Glockd, Some("q")) => self.glockd_statistics(),
            (_, Some(command)) => {
                self.lock_command(who, command, &name).unwrap_or_else(|| self.look(who, command, &name))
            }
        }
    }

    fn lock_command(&mut self, who: usize, command: &str, name: &[u8]) -> Option<Reply> {
        let holder = self.exclusive.get(name).copied();
        let sharers = self.shared.entry(name.to_vec()).or_default();
        let number = match command {
            "g" if holder.is_none() => {
                self.exclusive.insert(name.to_vec(), who);
                1
            }
            "g" => usize::from(self.original == Original::Glockd && holder == Some(who)),
            "r" if holder == Some(who) => {
                self.exclusive.remove(name);
                1
            }
            "r" => 0,
            "i" => usize::from(holder.is_some()),
            "sg" => {
                if !sharers.contains(&who) {
                    sharers.push(who);
                }
                sharers.len()
            }
            "sr" => {
                let before = sharers.len();
                sharers.retain(|sharer| *sharer != who);
                before - sharers.len()
            }
            "si" => sharers.len(),
            _ => return None,
        };
        let (yes, no) = match (self.original, command) {
            (Original::Lockd, "g" | "sg") => ("Got Lock", "Cannot Get Lock"),
            (Original::Lockd, "r" | "sr") => ("Released Lock", "Cannot Release Lock"),
            (Original::Lockd, _) => ("Locked", "Not Locked"),
            (Original::Glockd, "g") => ("Lock Get Success: ", "Lock Get Failure: "),
            (Original::Glockd, "r") => ("Lock Release Success: ", "Lock Release Failure: "),
            (Original::Glockd, "i") => ("Lock Is Locked: ", "Lock Not Locked: "),
            (Original::Glockd, "sg") => ("Shared Lock Get Success: ", ""),
            (Original::Glockd, "sr") => ("Shared Lock Release Success: ", "Shared Lock Release Failure: "),
            (Original::Glockd, _) => ("Shared Lock Is Locked: ", "Shared Lock Not Locked: "),
        };
        let text = if number > 0 { yes } else { no };
        let repeated = if self.original == Original::Glockd { name } else { b"" };
        Some(Reply::Exactly([format!("{number} {text}").as_bytes(), repeated, b"\r\n"].concat()))
    }

    fn look(&mut self, who: usize, command: &str, name: &[u8]) -> Reply {
        let asker = &self.connections[&who];
        let name_or_address = |connected: &Connected| {
            connected.name.clone().unwrap_or_else(|| connected.address.clone().into_bytes())
        };
        let named = |holder: &usize| name_or_address(&self.connections[holder]);
        let pair = |key: &[u8], value: &[u8]| [key, b": ", value, b"\n"].concat();
        let is_wanted = |lock: &[u8]| name.is_empty() || name == lock;
        let address = |holder: &usize| self.connections[holder].address.as_str();
        let any_order = |start, parts, between, end| Reply::InAnyOrder { start, parts, between, end };
        match command {
            "me" => Reply::Exactly(
                [b"1 ", asker.address.as_bytes(), b" ", &name_or_address(asker), b"\r\n"].concat(),
            ),
            "iam" => {
                let registered = (!name.is_empty()).then(|| name.to_vec());
                self.connections.get_mut(&who).unwrap().name = registered;
                Reply::Exactly(b"1 ok\r\n".to_vec())
            }
            "who" => {
                let all =
                    self.connections.values().filter_map(|one| Some((&one.address, one.name.as_ref()?)));
                let wanted = all.filter(|(_, registered)| is_wanted(registered));
                let lines = wanted.map(|(address, registered)| pair(address.as_bytes(), registered));
                Reply::Exactly(lines.collect::<Vec<_>>().concat())
            }
            "d" => {
                let wanted = self.exclusive.iter().filter(|(lock, _)| is_wanted(lock));
                any_order("", wanted.map(|(lock, holder)| pair(lock, &named(holder))).collect(), "", "")
            }
            "sd" => {
                let wanted =
                    self.shared.iter().filter(|(lock, holders)| is_wanted(lock) && !holders.is_empty());
                let lines = |(lock, holders): (&Vec<u8>, &Vec<usize>)| {
                    holders.iter().flat_map(|holder| pair(lock, &named(holder))).collect()
                };
                any_order("", wanted.map(lines).collect(), "", "")
            }
            "dump" if name == b"shared" => {
                let held = self.shared.iter().filter(|(_, holders)| !holders.is_empty());
                let entry = |(lock, holders): (&Vec<u8>, &Vec<usize>)| {
                    let addresses = holders.iter().map(address).collect::<Vec<_>>().join(" ");
                    [lock, format!(":[{addresses}]").as_bytes()].concat()
                };
                any_order("map[", held.map(entry).collect(), " ", "]\r\n")
            }
            "dump" => {
                let entry = |(lock, holder): (&Vec<u8>, &usize)| {
                    [lock.as_slice(), b":", address(holder).as_bytes()].concat()
                };
                any_order("map[", self.exclusive.iter().map(entry).collect(), " ", "]\r\n")
            }
            other => panic!("{other} is no command"),
        }
    }

    fn count(&self, key: &str) -> u64 {
        self.counts.get(key).copied().unwrap_or(0)
    }

    /// The number of names held exclusively, and of names held shared.
    fn held(&self) -> [usize; 2] {
        [self.exclusive.len(), self.shared.values().filter(|holders| !holders.is_empty()).count()]
    }

    fn lockd_statistics(&self) -> Reply {
        let commands = ["g", "r", "i", "sg", "sr", "si", "q"];
        let all: u64 = commands.iter().chain(&["invalid"]).map(|command| self.count(command)).sum();
        let mut text = format!("Array\n(\n    [pid] => {}\n", self.pid);
        let mut entry = |key: &str, number: u64| text.push_str(&format!("    [{key}] => {number}\n"));
        entry("conns", (self.connections.len() + self.others) as u64);
        entry("locks", self.held().iter().sum::<usize>() as u64);
        entry("orphans", self.count("orphans") + self.count("shared_orphans"));
        entry("commands", all);
        for command in commands {
            entry(&format!("command_{command}"), self.count(command));
        }
        Reply::Exactly(format!("{text})\n").into_bytes())
    }

    fn glockd_statistics(&self) -> Reply {
        let [locks, shared_locks] = self.held().map(|held| held as u64);
        let connections = (self.connections.len() + self.others) as u64;
        let commands = COUNTED.map(|command| (format!("command_{command}"), self.count(command)));
        let rest = [
            ("connections", connections),
            ("invalid_commands", self.count("invalid")),
            ("locks", locks),
            ("orphans", self.count("orphans")),
            ("shared_locks", shared_locks),
            ("shared_orphans", self.count("shared_orphans")),
        ];
        let rest = rest.map(|(key, number)| (key.to_owned(), number));
        let lines = commands.into_iter().chain(rest).map(|(key, number)| format!("{key}: {number}\n"));
        Reply::Exactly(lines.collect::<String>().into_bytes())
    }
}
