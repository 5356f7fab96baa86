//! The statistics of the `lockd` protocol, in the shape of PHP's `print_r`.

use crate::support::eventually;
use crate::support::line_client::LineClient;
use crate::support::server::Server;

const KEYS: [&str; 12] = [
    "pid",
    "conns",
    "locks",
    "orphans",
    "commands",
    "command_g",
    "command_r",
    "command_i",
    "command_sg",
    "command_sr",
    "command_si",
    "command_q",
];

/// The keys and numbers of `q`, after a check of everything around them.
fn statistics(client: &mut LineClient) -> Vec<(String, u64)> {
    let lines = client.ask_all("q");
    assert_eq!(lines[..2], ["Array\n", "(\n"]);
    assert_eq!(lines[lines.len() - 1], ")\n");
    lines[2..lines.len() - 1].iter().map(|line| entry(line)).collect()
}

fn entry(line: &str) -> (String, u64) {
    let inner = line.strip_prefix("    [").and_then(|rest| rest.strip_suffix('\n')).expect(line);
    let (key, number) = inner.split_once("] => ").expect(line);
    (key.to_owned(), number.parse().expect(line))
}

fn number(client: &mut LineClient, key: &str) -> u64 {
    let entries = statistics(client);
    entries.iter().find(|(name, _)| name == key).map(|(_, number)| *number).unwrap()
}

#[test]
fn the_keys_come_in_the_order_of_the_original() {
    let server = Server::start();
    let mut client = server.lockd();
    let entries = statistics(&mut client);
    let keys: Vec<&str> = entries.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, KEYS);
    assert_eq!(entries[0].1, u64::from(server.pid()));
}

#[test]
fn connections_locks_and_orphans_are_counted() {
    let server = Server::start();
    let mut client = server.lockd();
    assert_eq!(number(&mut client, "conns"), 1);
    let mut holder = server.lockd();
    assert_eq!(holder.ask("g foo"), "1 Got Lock\r\n");
    assert_eq!(holder.ask("g bar"), "1 Got Lock\r\n");
    assert_eq!(number(&mut client, "conns"), 2);
    assert_eq!(number(&mut client, "locks"), 2);
    assert_eq!(number(&mut client, "orphans"), 0);
    assert_eq!(holder.ask("r bar"), "1 Released Lock\r\n");
    assert_eq!(number(&mut client, "locks"), 1);
    drop(holder);
    eventually("the orphan is counted", || number(&mut client, "orphans") == 1);
    eventually("the lock is gone", || number(&mut client, "locks") == 0);
    eventually("the connection is gone", || number(&mut client, "conns") == 1);
}

#[test]
fn commands_are_counted_by_kind() {
    let server = Server::start();
    let mut client = server.lockd();
    let before = statistics(&mut client);
    for (count, command) in [(1, "g"), (2, "r"), (3, "i"), (4, "sg"), (5, "sr"), (6, "si")] {
        for _ in 0..count {
            client.ask(&format!("{command} foo"));
        }
    }
    let after = statistics(&mut client);
    let gain = |key: &str| {
        let place = KEYS.iter().position(|known| *known == key).unwrap();
        after[place].1 - before[place].1
    };
    assert_eq!(gain("command_g"), 1);
    assert_eq!(gain("command_r"), 2);
    // An `i` is sent after each `q`, to find the end of the reply.
    assert_eq!(gain("command_i"), 4);
    assert_eq!(gain("command_sg"), 4);
    assert_eq!(gain("command_sr"), 5);
    assert_eq!(gain("command_si"), 6);
    assert_eq!(gain("command_q"), 1);
    assert_eq!(gain("commands"), 1 + 2 + 4 + 4 + 5 + 6 + 1);
}

#[test]
fn full_statistics_list_locks_and_shares() {
    let server = Server::start();
    let (mut a, mut b) = (server.lockd(), server.lockd());
    assert_eq!(a.ask("g foo"), "1 Got Lock\r\n");
    assert_eq!(a.ask("sg bar"), "1 Got Lock\r\n");
    let brief = a.ask_all("q");
    let full = a.ask_all("q full");
    assert_eq!(full[..2], ["Array\n", "(\n"]);
    assert_eq!(full[brief.len() - 1], ")\n");
    // Locks of both kinds are listed together, in any order.
    let (foo, bar) = (format!("            [foo] => {}\n", a.address()), "            [s:bar] => 1\n");
    let expected = |locks: String| {
        format!(
            "Array\n(\n    [locks] => Array\n        (\n{locks}        )\n\n    \
             [shares] => Array\n        (\n            [{holder}] => Array\n                (\n\
             \x20                   [0] => bar\n                )\n\n        )\n\n)\n",
            holder = a.address()
        )
    };
    let details = full[brief.len()..].concat();
    assert!(
        [expected(format!("{foo}{bar}")), expected(format!("{bar}{foo}"))].contains(&details),
        "{details}"
    );

    assert_eq!(b.ask("sg bar"), "2 Got Lock\r\n");
    assert!(a.ask_all("q full").contains(&"            [s:bar] => 2\n".to_owned()));
}

#[test]
fn full_statistics_of_nothing_are_empty_arrays() {
    let server = Server::start();
    let mut client = server.lockd();
    let brief = client.ask_all("q");
    let expected = "Array\n(\n    [locks] => Array\n        (\n        )\n\n    \
                    [shares] => Array\n        (\n        )\n\n)\n";
    assert_eq!(client.ask_all("q full")[brief.len()..].concat(), expected);
}

#[test]
fn full_statistics_have_every_share_of_every_holder() {
    const SHARES: usize = 700;
    let server = Server::start();
    let (mut a, mut b) = (server.lockd(), server.lockd());
    // The second client shares half of its locks with the first.
    for (client, first) in [(&mut a, 0), (&mut b, SHARES / 2)] {
        client.send((first..first + SHARES).map(|n| format!("sg {n}\n")).collect::<String>());
        (0..SHARES).for_each(|_| assert!(client.line().ends_with(" Got Lock\r\n")));
    }
    let full = server.lockd().ask_all("q full");
    let (_, shares) = full.split_at(full.iter().position(|line| line.contains("[shares]")).unwrap());
    let mut expected = [(a.address(), 0), (b.address(), SHARES / 2)];
    expected.sort();
    let mut of_holder = shares;
    for (address, first) in expected {
        let start = of_holder.iter().position(|line| *line == format!("            [{address}] => Array\n"));
        of_holder = &of_holder[start.expect("the holders in the order of their addresses") + 2..];
        let mut names = Vec::new();
        for (number, line) in of_holder[..SHARES].iter().enumerate() {
            let (_, name) = line.split_once(&format!("                    [{number}] => ")).expect("a share");
            names.push(name.trim_end().parse::<usize>().unwrap());
        }
        names.sort_unstable();
        assert_eq!(names, (first..first + SHARES).collect::<Vec<_>>());
        assert_eq!(of_holder[SHARES..SHARES + 2], ["                )\n", "\n"]);
    }
}
