//! The `glockd` protocol as a client sees it: holders, registered names, and counters.

use std::collections::BTreeMap;

use crate::support::eventually;
use crate::support::line_client::LineClient;
use crate::support::server::Server;

const NOTHING: [&str; 0] = [];

#[test]
fn me_shows_the_address_and_the_registered_name() {
    let server = Server::start();
    let mut client = server.glockd();
    let address = client.address();
    assert_eq!(client.ask("me"), format!("1 {address} {address}\r\n"));
    assert_eq!(client.ask("iam the first client"), "1 ok\r\n");
    assert_eq!(client.ask("me"), format!("1 {address} the first client\r\n"));
    assert_eq!(client.ask("iam another"), "1 ok\r\n");
    assert_eq!(client.ask("me"), format!("1 {address} another\r\n"));
    assert_eq!(client.ask("iam"), "1 ok\r\n");
    assert_eq!(client.ask("me"), format!("1 {address} {address}\r\n"));
}

#[test]
fn unix_connections_are_numbered() {
    let server = Server::start();
    let numbers: Vec<u64> = (0..3)
        .map(|_| {
            let reply = LineClient::new(server.unix("glockd")).ask("me");
            let (address, name) = reply.strip_prefix("1 ").unwrap().trim_end().split_once(' ').unwrap();
            assert_eq!(address, name);
            address.strip_prefix("unix:").expect(address).parse().unwrap()
        })
        .collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
}

#[test]
fn who_lists_the_connections_with_a_name() {
    let server = Server::start();
    let (mut a, mut b, mut nameless) = (server.glockd(), server.glockd(), server.glockd());
    assert_eq!(nameless.ask_all("who"), NOTHING);
    assert_eq!(a.ask("iam worker"), "1 ok\r\n");
    assert_eq!(b.ask("iam boss"), "1 ok\r\n");
    let (worker, boss) = (format!("{}: worker\n", a.address()), format!("{}: boss\n", b.address()));
    let mut both = vec![worker.clone(), boss];
    both.sort();
    assert_eq!(nameless.ask_all_sorted("who"), both);
    assert_eq!(nameless.ask_all("who worker").concat(), worker);
    assert_eq!(nameless.ask_all("who nobody"), NOTHING);
    assert_eq!(b.ask("iam"), "1 ok\r\n");
    assert_eq!(nameless.ask_all("who"), [worker]);
    drop(a);
    eventually("the name goes with its connection", || nameless.ask_all("who").is_empty());
}

#[test]
fn d_lists_exclusive_locks() {
    let server = Server::start();
    let (mut a, mut b) = (server.glockd(), server.glockd());
    assert_eq!(a.ask_all("d"), NOTHING);
    a.ask("g foo");
    b.ask("g bar");
    b.ask("iam b");
    b.ask("sg shared");
    let foo = format!("foo: {}\n", a.address());
    assert_eq!(a.ask_all_sorted("d"), ["bar: b\n", foo.as_str()]);
    assert_eq!(a.ask_all("d foo"), [foo]);
    assert_eq!(a.ask_all("d bar"), ["bar: b\n"]);
    assert_eq!(a.ask_all("d other"), NOTHING);
    assert_eq!(a.ask_all("d shared"), NOTHING);
}

#[test]
fn sd_lists_a_line_for_each_holder_of_a_shared_lock() {
    let server = Server::start();
    let (mut a, mut b) = (server.glockd(), server.glockd());
    assert_eq!(a.ask_all("sd"), NOTHING);
    a.ask("sg foo");
    b.ask("sg foo");
    b.ask("sg bar");
    b.ask("iam b");
    b.ask("g exclusive");
    let foo = format!("foo: {}\n", a.address());
    let mut both = vec![foo.clone(), "foo: b\n".to_owned()];
    both.sort();
    assert_eq!(a.ask_all_sorted("sd foo"), both);
    let mut all = vec!["bar: b\n".to_owned(), foo, "foo: b\n".to_owned()];
    all.sort();
    assert_eq!(a.ask_all_sorted("sd"), all);
    assert_eq!(a.ask_all("sd exclusive"), NOTHING);
}

#[test]
fn holders_are_listed_in_the_order_in_which_they_acquired() {
    let server = Server::start();
    // The order of connecting is different.
    let mut clients: Vec<_> = (0..5).map(|_| server.glockd()).collect();
    let order = [3, 0, 4, 1, 2];
    for number in order {
        assert!(clients[number].ask("sg x").starts_with(|first: char| first.is_ascii_digit()));
    }
    let mut addresses: Vec<String> = order.iter().map(|&number| clients[number].address()).collect();
    let lines = |addresses: &[String]| -> Vec<String> {
        addresses.iter().map(|address| format!("x: {address}\n")).collect()
    };
    assert_eq!(clients[0].ask_all("sd x"), lines(&addresses));
    assert_eq!(clients[0].ask_all("sd"), lines(&addresses));
    assert_eq!(clients[0].ask("dump shared"), format!("map[x:[{}]]\r\n", addresses.join(" ")));
    // A client that releases and acquires again comes last.
    assert_eq!(clients[3].ask("sr x"), "1 Shared Lock Release Success: x\r\n");
    assert_eq!(clients[3].ask("sg x"), "5 Shared Lock Get Success: x\r\n");
    addresses.rotate_left(1);
    assert_eq!(clients[0].ask_all("sd x"), lines(&addresses));
}

#[test]
fn who_lists_connections_in_the_order_in_which_they_came() {
    let server = Server::start();
    let mut clients: Vec<_> = (0..5).map(|_| server.glockd()).collect();
    for number in [3, 0, 4, 1, 2] {
        assert_eq!(clients[number].ask("iam worker"), "1 ok\r\n");
    }
    let lines: Vec<String> = clients.iter().map(|client| format!("{}: worker\n", client.address())).collect();
    assert_eq!(clients[0].ask_all("who"), lines);
    assert_eq!(clients[0].ask_all("who worker"), lines);
}

#[test]
fn dump_of_anything_but_shared_is_of_the_exclusive_locks() {
    let server = Server::start();
    let mut client = server.glockd();
    assert_eq!(client.ask("g x"), "1 Lock Get Success: x\r\n");
    assert_eq!(client.ask("sg y"), "1 Shared Lock Get Success: y\r\n");
    let exclusive = format!("map[x:{}]\r\n", client.address());
    for request in ["dump", "dump exclusive", "dump x", "dump shared y", "dump Shared", "dump  \t \r"] {
        assert_eq!(client.ask(request), exclusive, "{request:?}");
    }
    let before = counters(&mut client);
    assert_eq!(before["command_dump"], 6);
    assert_eq!(before["invalid_commands"], 0);
    assert_eq!(client.ask(" dump \t shared "), format!("map[y:[{}]]\r\n", client.address()));
}

#[test]
fn dump_shows_addresses_on_one_line() {
    let server = Server::start();
    let (mut a, mut b) = (server.glockd(), server.glockd());
    assert_eq!(a.ask("dump"), "map[]\r\n");
    assert_eq!(a.ask("dump shared"), "map[]\r\n");
    a.ask("iam a");
    a.ask("g foo");
    a.ask("sg bar");
    let (of_a, of_b) = (a.address(), b.address());
    assert_eq!(a.ask("dump"), format!("map[foo:{of_a}]\r\n"));
    assert_eq!(a.ask("dump shared"), format!("map[bar:[{of_a}]]\r\n"));
    b.ask("g two");
    b.ask("sg bar");
    let both = a.ask("dump");
    let orders = [format!("map[foo:{of_a} two:{of_b}]\r\n"), format!("map[two:{of_b} foo:{of_a}]\r\n")];
    assert!(orders.contains(&both), "{both:?}");
    let shared = a.ask("dump shared");
    let orders = [format!("map[bar:[{of_a} {of_b}]]\r\n"), format!("map[bar:[{of_b} {of_a}]]\r\n")];
    assert!(orders.contains(&shared), "{shared:?}");
}

#[test]
fn without_dump_the_listings_are_disabled() {
    let server = Server::with(&["--no-dump"]);
    let mut client = server.glockd();
    assert_eq!(client.ask("g foo"), "1 Lock Get Success: foo\r\n");
    for request in ["d", "d foo", "sd", "sd foo", "dump", "dump shared", "who", "who me"] {
        assert_eq!(client.ask(request), "0 disabled\r\n", "{request}");
    }
    assert_eq!(client.ask("iam me"), "1 ok\r\n");
    assert_eq!(client.ask("me"), format!("1 {} me\r\n", client.address()));
}

#[test]
fn without_registry_names_are_disabled() {
    let server = Server::with(&["--no-registry"]);
    let mut client = server.glockd();
    let address = client.address();
    for request in ["iam me", "iam", "who", "who me"] {
        assert_eq!(client.ask(request), "0 disabled\r\n", "{request}");
    }
    assert_eq!(client.ask("me"), format!("1 {address} {address}\r\n"));
    assert_eq!(client.ask("g foo"), "1 Lock Get Success: foo\r\n");
    assert_eq!(client.ask_all("d"), [format!("foo: {address}\n")]);
}

const KEYS: [&str; 19] = [
    "command_d",
    "command_dump",
    "command_g",
    "command_i",
    "command_iam",
    "command_me",
    "command_q",
    "command_r",
    "command_sd",
    "command_sg",
    "command_si",
    "command_sr",
    "command_who",
    "connections",
    "invalid_commands",
    "locks",
    "orphans",
    "shared_locks",
    "shared_orphans",
];

fn counters(client: &mut LineClient) -> BTreeMap<String, u64> {
    let entry = |line: &String| {
        let (key, number) = line.strip_suffix('\n').unwrap().split_once(": ").expect(line);
        (key.to_owned(), number.parse().expect(line))
    };
    client.ask_all("q").iter().map(entry).collect()
}

#[test]
fn the_counters_are_sorted_by_key() {
    let server = Server::start();
    let lines = server.glockd().ask_all("q");
    let keys: Vec<&str> = lines.iter().map(|line| line.split_once(": ").unwrap().0).collect();
    assert_eq!(keys, KEYS);
}

#[test]
fn commands_are_counted_by_kind() {
    let server = Server::start();
    let mut client = server.glockd();
    let before = counters(&mut client);
    let requests = [
        "g foo", "r foo", "i foo", "sg foo", "sr foo", "si foo", "me", "iam me", "who", "d", "sd", "dump",
        "nonsense",
    ];
    for request in requests {
        client.ask_all(request);
    }
    let after = counters(&mut client);
    let gain = |key: &str| after[key] - before[key];
    for key in ["g", "r", "sg", "sr", "si", "me", "iam", "who", "d", "sd", "dump", "q"] {
        assert_eq!(gain(&format!("command_{key}")), 1, "command_{key}");
    }
    // An `i` is sent after each request, to find the end of the reply.
    assert_eq!(gain("command_i"), 15);
    assert_eq!(gain("invalid_commands"), 1);
}

#[test]
fn connections_locks_and_orphans_are_counted() {
    let server = Server::start();
    let mut client = server.glockd();
    let mut holder = server.glockd();
    for request in ["g a", "g b", "g c", "sg a", "sg b"] {
        assert!(holder.ask(request).starts_with('1'));
    }
    assert_eq!(client.ask("sg a"), "2 Shared Lock Get Success: a\r\n");
    assert_eq!(holder.ask("r c"), "1 Lock Release Success: c\r\n");
    let held = counters(&mut client);
    assert_eq!([held["connections"], held["locks"], held["shared_locks"]], [2, 2, 2]);
    assert_eq!([held["orphans"], held["shared_orphans"]], [0, 0]);
    drop(holder);
    let gone = [("connections", 1), ("locks", 0), ("shared_locks", 1), ("orphans", 2), ("shared_orphans", 2)];
    for (key, number) in gone {
        eventually(&format!("{key} is {number}"), || counters(&mut client)[key] == number);
    }
}
