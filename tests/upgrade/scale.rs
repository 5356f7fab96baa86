//! Upgrades of servers with many connections: every lock stays with its holder, every wait stays or
//! ends at its time, nobody is disconnected, and clients that are busy notice nothing but a pause.
//!
//! Connections come in threes, one of each protocol: the one of `lockd` only holds, and the two
//! others also wait for what it holds. Five threes in a row are alike but for what they wait for.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::site::Site;
use crate::support::eventually;
use crate::support::frame_client::FrameClient;
use crate::support::line_client::LineClient;
use crate::support::server::raise_descriptor_limit;
use crate::support::socket::connect;

/// Locks and waits repeat after this many connections.
const PERIOD: usize = 15;

enum Client {
    Lines(LineClient),
    Frames(FrameClient),
}

/// What a connection waits for.
enum Wait {
    Nothing,
    /// Until the end: the line, or the reply to this request.
    Long(Option<u64>),
    /// The same, with a time limit that ends it.
    Short(Option<u64>, Instant),
}

struct Connection {
    number: usize,
    client: Client,
    wait: Wait,
    /// The token of its first lock; only `message` tells it.
    token: Option<u64>,
}

/// The name of a connection's lock.
fn name(connection: usize, lock: usize) -> String {
    format!("c{connection}-{lock}")
}

/// Which of five threes a connection is in.
fn group(connection: usize) -> usize {
    connection / 3 % 5
}

/// Whether waits for this lock have a time limit that ends them.
fn is_waited_for_shortly(name: &str) -> bool {
    let numbers = name.strip_prefix('c').and_then(|rest| rest.split_once('-'));
    numbers.is_some_and(|(connection, lock)| group(connection.parse().unwrap()) == 1 && lock != "3")
}

impl Connection {
    /// Connects, and acquires four locks.
    fn open(site: &Site, number: usize) -> Self {
        let protocol = ["lockd", "glockd", "message"][number % 3];
        let is_tcp = (number / 3).is_multiple_of(2);
        let endpoint =
            if is_tcp { site.server.tcp_endpoint(protocol) } else { site.server.unix_endpoint(protocol) };
        let socket = connect(&endpoint);
        let mut token = None;
        let client = if protocol == "message" {
            let mut client = FrameClient::new(socket);
            let set = json!({"lockNames": [name(number, 0), name(number, 1)]});
            token = ok(&client.call("lock", set))["token"].as_u64();
            ok(&client.call("lock", json!({"lockName": name(number, 2), "limit": 2})));
            ok(&client.call("lock", json!({"lockName": name(number, 3), "mode": "shared"})));
            if group(number) == 3 {
                // So that the one before has somebody to wait for when it converts.
                ok(&client.call("lock", json!({"lockName": name(number - 3, 3), "mode": "shared"})));
            }
            Client::Frames(client)
        } else {
            let mut client = LineClient::new(socket);
            let requests: String = (0..4).map(|lock| format!("g {}\n", name(number, lock))).collect();
            client.send(requests);
            (0..4).for_each(|_| assert!(client.line().starts_with('1')));
            Client::Lines(client)
        };
        Self { number, client, wait: Wait::Nothing, token }
    }

    /// Begins to wait, if it is one of those that do.
    fn begin_wait(&mut self, short: Duration) {
        let (group, held) = (group(self.number), self.number - self.number % 3);
        if group > 2 || self.number == held {
            return;
        }
        let ends = Instant::now() + short;
        let limit = short.as_secs_f64();
        let request = match &mut self.client {
            Client::Lines(client) => {
                let limit = if group == 1 { limit } else { 600.0 };
                client.send(format!("gw {limit} {}\n", name(held, 0)));
                None
            }
            Client::Frames(client) => Some(match group {
                0 => {
                    let set = json!([name(held, 1), format!("w{}", self.number)]);
                    client.request("lock", json!({"lockNames": set}))
                }
                1 => {
                    client.request("lock", json!({"lockName": name(held, 2), "limit": 3, "timeLimit": limit}))
                }
                _ => {
                    let own = name(self.number, 3);
                    client.request("convert", json!({"lockName": own, "mode": "exclusive", "timeLimit": 600}))
                }
            }),
        };
        self.wait = if group == 1 { Wait::Short(request, ends) } else { Wait::Long(request) };
    }

    /// Asks for its own lock: it is served, and the lock is still its own. A line client that waits
    /// cannot ask.
    fn still_holds(&mut self) {
        match &mut self.client {
            Client::Lines(client) if matches!(self.wait, Wait::Nothing) => {
                assert!(client.ask(&format!("i {}", name(self.number, 0))).starts_with('1'));
            }
            Client::Lines(_) => {}
            Client::Frames(client) => {
                let again = client.call("lock", json!({"lockName": name(self.number, 0)}));
                assert_eq!((&again["already"], again["token"].as_u64()), (&json!(true), self.token));
            }
        }
    }

    /// Its wait with a time limit has been ended by that, and not before.
    fn ends_in_time(&mut self) {
        let Wait::Short(request, ends) = self.wait else { return };
        match (&mut self.client, request) {
            (Client::Frames(client), Some(id)) => assert_eq!(client.result(id)["status"], "timeout"),
            (Client::Lines(client), _) => assert!(client.line().starts_with('0')),
            (Client::Frames(_), None) => unreachable!("a request has an id"),
        }
        assert!(Instant::now() >= ends, "a wait ended before its time");
        self.wait = Wait::Nothing;
    }

    fn release_all(&mut self) {
        let number = self.number;
        match &mut self.client {
            Client::Lines(client) => {
                for lock in 0..4 {
                    assert!(client.ask(&format!("r {}", name(number, lock))).starts_with('1'));
                }
            }
            Client::Frames(client) => {
                let mut names: Vec<String> = (0..4).map(|lock| name(number, lock)).collect();
                names.extend((group(number) == 3).then(|| name(number - 3, 3)));
                ok(&client.call("unlock", json!({"lockNames": names})));
            }
        }
    }

    /// What it has waited for all the time is granted.
    fn is_granted(&mut self) {
        let Wait::Long(request) = self.wait else { return };
        match (&mut self.client, request) {
            (Client::Frames(client), Some(id)) => drop(ok(&client.result(id))),
            (Client::Lines(client), _) => assert!(client.line().starts_with('1')),
            (Client::Frames(_), None) => unreachable!("a request has an id"),
        }
    }
}

fn ok(result: &Value) -> &Value {
    assert_eq!(result["status"], "ok", "{result}");
    result
}

/// Who holds and awaits a lock, as the server lists it: each session with its mode, holders with
/// their tokens. And for how long each holder has held it.
#[derive(Debug, PartialEq)]
struct Listed {
    holders: Vec<(Value, Value, Value, u64)>,
    waiters: Vec<(Value, Value, Value)>,
    held_for: Vec<f64>,
}

/// All locks but those of the load.
fn listing(observer: &mut FrameClient) -> BTreeMap<String, Listed> {
    let mut all = BTreeMap::new();
    let mut after = String::new();
    loop {
        let page = observer.call("list", json!({"limit": 1000, "after": after}));
        let locks = ok(&page)["locks"].as_array().unwrap();
        for lock in locks {
            let name = lock["lockName"].as_str().unwrap().to_owned();
            let each = |key: &str| lock[key].as_array().unwrap().clone();
            let holders = each("holders").into_iter().map(|it| {
                let token = it["token"].as_u64().unwrap();
                (it["session"].clone(), lock["mode"].clone(), it["limit"].clone(), token)
            });
            let waiters = each("waiters").into_iter();
            let waiters = waiters.map(|it| (it["session"].clone(), it["mode"].clone(), it["limit"].clone()));
            let mut listed =
                Listed { holders: holders.collect(), waiters: waiters.collect(), held_for: vec![] };
            listed.held_for = each("holders").iter().map(|it| it["heldFor"].as_f64().unwrap()).collect();
            if is_waited_for_shortly(&name) {
                listed.waiters.clear();
            }
            after.clone_from(&name);
            if !name.starts_with("load") {
                all.insert(name, listed);
            }
        }
        if page["more"] != true {
            return all;
        }
    }
}

/// Nothing has changed, and every hold has only become longer.
fn assert_unchanged(before: &BTreeMap<String, Listed>, now: &BTreeMap<String, Listed>) {
    assert_eq!(before.len(), now.len(), "the number of locks");
    for ((name, one), (other_name, other)) in before.iter().zip(now) {
        assert_eq!(
            (name, &one.holders, &one.waiters),
            (other_name, &other.holders, &other.waiters),
            "who holds and awaits {name}"
        );
        assert!(
            one.held_for.iter().zip(&other.held_for).all(|(one, other)| other >= one),
            "since when: {name}"
        );
    }
}

/// A client that acquires and releases locks that the others want, too, until `done`. Returns the
/// longest time that it has waited for an answer.
fn load(site: &Site, number: usize, done: &AtomicBool, holders: &[AtomicUsize; 2]) -> Duration {
    let protocol = ["lockd", "glockd", "message"][number % 3];
    let endpoint =
        if number < 3 { site.server.tcp_endpoint(protocol) } else { site.server.unix_endpoint(protocol) };
    let mut client = match protocol {
        "message" => Client::Frames(FrameClient::new(connect(&endpoint))),
        _ => Client::Lines(LineClient::new(connect(&endpoint))),
    };
    let mut longest = Duration::ZERO;
    for round in number.. {
        if done.load(SeqCst) {
            break;
        }
        let lock = round % holders.len();
        let (name, begun) = (format!("load-{lock}"), Instant::now());
        let granted = match &mut client {
            Client::Frames(client) => ok(&client.lock(&name)).is_object(),
            Client::Lines(client) if protocol == "lockd" => client.ask(&format!("g {name}")).starts_with('1'),
            Client::Lines(client) => client.ask(&format!("gw 600 {name}")).starts_with('1'),
        };
        longest = longest.max(begun.elapsed());
        assert!(granted || protocol == "lockd");
        if granted {
            assert_eq!(holders[lock].fetch_add(1, SeqCst), 0, "two hold {name}");
            holders[lock].fetch_sub(1, SeqCst);
            match &mut client {
                Client::Frames(client) => drop(ok(&client.call("unlock", json!({"lockName": name})))),
                Client::Lines(client) => assert!(client.ask(&format!("r {name}")).starts_with('1')),
            }
        }
        // Those that wait have a turn, and so have the processors.
        std::thread::sleep(Duration::from_micros(500));
    }
    longest
}

/// What is printed of a run.
struct Figures {
    pauses: Vec<u64>,
    longest: Duration,
}

/// Upgrades the server so many times while the load goes on.
fn upgrade_under_load(site: &Site, connections: &mut [Connection], upgrades: usize) -> Figures {
    let (done, holders) = (AtomicBool::new(false), [AtomicUsize::new(0), AtomicUsize::new(0)]);
    let mut observer = site.server.message();
    let mut pauses = Vec::new();
    let longest = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..6)
            .map(|number| {
                let (done, holders) = (&done, &holders);
                scope.spawn(move || load(site, number, done, holders))
            })
            .collect();
        // Ends the load whatever happens: the threads are waited for.
        let _ends = EndLoad(&done);
        let before = listing(&mut observer);
        for _ in 0..upgrades {
            let (status, told, error) = site.ask();
            assert!(status == 0 && !told.contains("not kept"), "{told}{error}");
            pauses.push(observer.call("stats", json!({}))["upgradePause"].as_u64().unwrap());
            assert_unchanged(&before, &listing(&mut observer));
            connections.iter_mut().for_each(Connection::still_holds);
        }
        done.store(true, SeqCst);
        clients.into_iter().map(|client| client.join().unwrap()).max().unwrap()
    });
    Figures { pauses, longest }
}

struct EndLoad<'a>(&'a AtomicBool);

impl Drop for EndLoad<'_> {
    fn drop(&mut self) {
        self.0.store(true, SeqCst);
    }
}

/// A server with this many connections, which hold four times as many locks, and 2 in 5 of which
/// wait, is upgraded so many times. Waits with a short time limit end after `short`.
fn at_scale(count: usize, upgrades: usize, short: Duration) {
    assert!(count.is_multiple_of(PERIOD), "whole groups");
    raise_descriptor_limit();
    let site = Site::everywhere(&["--connections-max", "20000"]);
    let mut connections: Vec<_> = (0..count).map(|number| Connection::open(&site, number)).collect();
    connections.iter_mut().for_each(|connection| connection.begin_wait(short));
    let waits = connections.iter().filter(|connection| !matches!(connection.wait, Wait::Nothing)).count();
    assert_eq!(waits, count * 2 / 5);
    let mut observer = site.server.message();
    eventually("all of them wait", || {
        let stats = observer.call("stats", json!({}));
        stats["waits"].as_u64().unwrap() >= waits as u64
    });
    let Figures { mut pauses, longest } = upgrade_under_load(&site, &mut connections, upgrades);
    connections.iter_mut().for_each(Connection::ends_in_time);
    let stats = observer.call("stats", json!({}));
    assert_eq!(stats["upgrades"], json!(upgrades));
    // Those that wait are asked last: what they wait for is free then.
    connections.iter_mut().filter(|it| matches!(it.wait, Wait::Nothing)).for_each(Connection::release_all);
    connections.iter_mut().for_each(Connection::is_granted);
    pauses.sort_unstable();
    say(&format!(
        "{count} connections, {} locks, {waits} waits, {upgrades} upgrades: nobody was served for {} ms (median), \
         {} ms (most); the longest time to an answer was {} ms",
        count * 4,
        pauses[pauses.len() / 2],
        pauses[pauses.len() - 1],
        longest.as_millis(),
    ));
}

#[expect(clippy::print_stdout, reason = "figures for people")]
fn say(text: &str) {
    println!("{text}");
}

#[test]
fn two_hundred_connections_notice_nothing() {
    at_scale(210, 3, Duration::from_secs(2));
}

#[test]
#[ignore = "takes minutes: make check-deep"]
fn deep_scale() {
    at_scale(105, 50, Duration::from_secs(5));
    at_scale(1005, 50, Duration::from_secs(10));
    at_scale(5010, 50, Duration::from_secs(30));
}
