//! Long random dialogues over the text protocols, compared with a model of twenty lines.

use std::collections::{HashMap, HashSet};

use crate::support::line_client::LineClient;
use crate::support::server::Server;

const NAMES: [&str; 4] = ["a", "b", "a long name of several words", ""];
const COMMANDS: [&str; 6] = ["g", "r", "i", "sg", "sr", "si"];

/// A small generator, so that a failure can be repeated: the seed stands in its message.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % bound
    }
}

/// Who holds what, connections being numbers.
#[derive(Default)]
struct Model {
    exclusive: HashMap<&'static str, usize>,
    shared: HashMap<&'static str, HashSet<usize>>,
}

impl Model {
    /// The number the reply starts with. `again`: whether the holder of an exclusive lock gets it again.
    fn reply(&mut self, who: usize, command: &str, name: &'static str, again: bool) -> usize {
        let holder = self.exclusive.get(name).copied();
        let sharers = self.shared.entry(name).or_default();
        match command {
            "g" if holder.is_none() => {
                self.exclusive.insert(name, who);
                1
            }
            "g" => usize::from(again && holder == Some(who)),
            "r" if holder == Some(who) => {
                self.exclusive.remove(name);
                1
            }
            "r" => 0,
            "i" => usize::from(holder.is_some()),
            "sg" => {
                sharers.insert(who);
                sharers.len()
            }
            "sr" => usize::from(sharers.remove(&who)),
            "si" => sharers.len(),
            _ => unreachable!(),
        }
    }
}

/// Clients take turns; each sends some requests in one write and reads all the replies.
fn converse(server: &Server, protocol: &str, seed: u64) {
    let mut random = Random(seed);
    let mut model = Model::default();
    let mut clients =
        [server.tcp(protocol), server.unix(protocol), server.tcp(protocol), server.unix(protocol)]
            .map(LineClient::new);
    for turn in 0..500 {
        let who = random.below(clients.len());
        let mut requests = String::new();
        let mut expected = Vec::new();
        for _ in 0..=random.below(12) {
            let command = COMMANDS[random.below(COMMANDS.len())];
            let name = NAMES[random.below(NAMES.len())];
            requests.push_str(&format!("{command} {name}\n"));
            expected.push((command, name, model.reply(who, command, name, protocol == "glockd")));
        }
        clients[who].send(requests);
        for (command, name, number) in expected {
            let reply = clients[who].line();
            let replied: usize = reply.split(' ').next().unwrap().parse().unwrap();
            assert_eq!(replied, number, "seed {seed}, turn {turn}: {reply:?} to {command} {name:?} of {who}");
        }
    }
}

#[test]
fn lockd_answers_as_the_model() {
    let server = Server::start();
    for seed in [1, 2, 3] {
        converse(&server, "lockd", seed);
        server.await_no_locks();
    }
}

#[test]
fn glockd_answers_as_the_model() {
    let server = Server::start();
    for seed in [4, 5, 6] {
        converse(&server, "glockd", seed);
        server.await_no_locks();
    }
}
