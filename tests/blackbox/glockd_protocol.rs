//! The `glockd` protocol as a client sees it: taking and releasing locks.

use crate::support::eventually;
use crate::support::line_client::LineClient;
use crate::support::server::Server;

#[test]
fn exclusive_locks_are_got_refused_shown_and_released() {
    let server = Server::start();
    let (mut holder, mut other) = (server.glockd(), server.glockd());
    assert_eq!(holder.ask("i foo"), "0 Lock Not Locked: foo\r\n");
    assert_eq!(holder.ask("g foo"), "1 Lock Get Success: foo\r\n");
    assert_eq!(other.ask("g foo"), "0 Lock Get Failure: foo\r\n");
    assert_eq!(other.ask("i foo"), "1 Lock Is Locked: foo\r\n");
    assert_eq!(other.ask("r foo"), "0 Lock Release Failure: foo\r\n");
    assert_eq!(holder.ask("r foo"), "1 Lock Release Success: foo\r\n");
    assert_eq!(holder.ask("r foo"), "0 Lock Release Failure: foo\r\n");
    assert_eq!(holder.ask("i foo"), "0 Lock Not Locked: foo\r\n");
    assert_eq!(other.ask("g foo"), "1 Lock Get Success: foo\r\n");
}

#[test]
fn the_holder_succeeds_again_and_releases_once() {
    let server = Server::start();
    let (mut holder, mut other) = (server.glockd(), server.glockd());
    assert_eq!(holder.ask("g foo"), "1 Lock Get Success: foo\r\n");
    assert_eq!(holder.ask("g foo"), "1 Lock Get Success: foo\r\n");
    assert_eq!(holder.ask("r foo"), "1 Lock Release Success: foo\r\n");
    assert_eq!(other.ask("g foo"), "1 Lock Get Success: foo\r\n");
}

#[test]
fn shared_locks_are_counted() {
    let server = Server::start();
    let (mut a, mut b) = (server.glockd(), server.glockd());
    assert_eq!(a.ask("si foo"), "0 Shared Lock Not Locked: foo\r\n");
    assert_eq!(a.ask("sg foo"), "1 Shared Lock Get Success: foo\r\n");
    assert_eq!(b.ask("sg foo"), "2 Shared Lock Get Success: foo\r\n");
    assert_eq!(a.ask("sg foo"), "2 Shared Lock Get Success: foo\r\n");
    assert_eq!(a.ask("si foo"), "2 Shared Lock Is Locked: foo\r\n");
    assert_eq!(a.ask("sr foo"), "1 Shared Lock Release Success: foo\r\n");
    assert_eq!(a.ask("sr foo"), "0 Shared Lock Release Failure: foo\r\n");
    assert_eq!(b.ask("si foo"), "1 Shared Lock Is Locked: foo\r\n");
    assert_eq!(b.ask("sr foo"), "1 Shared Lock Release Success: foo\r\n");
    assert_eq!(b.ask("si foo"), "0 Shared Lock Not Locked: foo\r\n");
}

#[test]
fn exclusive_and_shared_locks_are_two_tables() {
    let server = Server::start();
    let (mut a, mut b) = (server.glockd(), server.glockd());
    assert_eq!(a.ask("g foo"), "1 Lock Get Success: foo\r\n");
    assert_eq!(b.ask("sg foo"), "1 Shared Lock Get Success: foo\r\n");
    assert_eq!(b.ask("r foo"), "0 Lock Release Failure: foo\r\n");
    assert_eq!(a.ask("sr foo"), "0 Shared Lock Release Failure: foo\r\n");
}

#[test]
fn with_shared_excludes_there_is_one_table() {
    let server = Server::with(&["--shared-excludes"]);
    let (mut a, mut b) = (server.glockd(), server.glockd());
    assert_eq!(a.ask("g foo"), "1 Lock Get Success: foo\r\n");
    let refused = b.ask("sg foo");
    assert!(refused.starts_with("0 ") && refused.ends_with("\r\n"), "{refused:?}");
    assert_eq!(a.ask("r foo"), "1 Lock Release Success: foo\r\n");
    assert_eq!(b.ask("sg foo"), "1 Shared Lock Get Success: foo\r\n");
    assert_eq!(a.ask("sg foo"), "2 Shared Lock Get Success: foo\r\n");
    assert_eq!(server.glockd().ask("g foo"), "0 Lock Get Failure: foo\r\n");
}

#[test]
fn white_space_around_and_within_a_name_is_folded() {
    let server = Server::start();
    let mut client = server.glockd();
    client.send(" g  NAME\n");
    assert_eq!(client.line(), "1 Lock Get Success: NAME\r\n");
    client.send("g  two \t words  \r\n");
    assert_eq!(client.line(), "1 Lock Get Success: two words\r\n");
    assert_eq!(client.ask("i two words"), "1 Lock Is Locked: two words\r\n");
}

#[test]
fn the_empty_name_is_a_name() {
    let server = Server::start();
    let mut client = server.glockd();
    assert_eq!(client.ask("g"), "1 Lock Get Success: \r\n");
    assert_eq!(client.ask("i "), "1 Lock Is Locked: \r\n");
    assert_eq!(client.ask("i foo"), "0 Lock Not Locked: foo\r\n");
    assert_eq!(client.ask("r"), "1 Lock Release Success: \r\n");
}

#[test]
fn names_are_bytes() {
    let server = Server::start();
    let mut client = server.glockd();
    client.send(b"g \xff\xfe\n");
    assert_eq!(client.line_bytes(), b"1 Lock Get Success: \xff\xfe\r\n");
    client.send(b"i \xff\xfe\n");
    assert_eq!(client.line_bytes(), b"1 Lock Is Locked: \xff\xfe\r\n");
    client.send(b"i \xff\xff\n");
    assert_eq!(client.line_bytes(), b"0 Lock Not Locked: \xff\xff\r\n");
}

#[test]
fn other_lines_get_no_reply() {
    let server = Server::start();
    let mut client = server.glockd();
    for line in ["", "  ", "x foo", "G foo", "get foo", "gfoo", "\u{1}"] {
        assert_eq!(client.ask_all(line), [""; 0], "{line:?}");
    }
}

#[test]
fn help_names_every_command_and_ends_with_an_empty_line() {
    let server = Server::start();
    let mut client = server.glockd();
    client.send("help\n");
    let mut help = String::new();
    loop {
        let line = client.line();
        if line.trim().is_empty() {
            break;
        }
        help.push_str(&line);
    }
    let commands =
        ["g", "r", "i", "sg", "sr", "si", "me", "iam", "who", "d", "sd", "dump", "q", "gw", "sgw", "t"];
    for command in commands {
        assert!(
            help.lines().any(|line| line.split(' ').next() == Some(command)),
            "{command} is not in {help}"
        );
    }
    assert_eq!(client.ask("i foo"), "0 Lock Not Locked: foo\r\n", "and nothing follows");
}

#[test]
fn locks_are_freed_when_the_connection_ends() {
    let server = Server::start();
    let mut other = server.glockd();
    let mut holder = server.glockd();
    holder.ask("g foo");
    holder.ask("sg foo");
    drop(holder);
    eventually("the exclusive lock is freed", || other.ask("i foo").starts_with('0'));
    eventually("the shared lock is freed", || other.ask("si foo").starts_with('0'));
}

fn over_tcp_and_unix(server: &Server) -> [LineClient; 2] {
    [server.glockd(), LineClient::new(server.unix("glockd"))]
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::start();
    for mut client in over_tcp_and_unix(&server) {
        let requests: String = (0..400).map(|n| format!("g k{n}\r\ni k{n}\nr k{n}\n")).collect();
        client.send(requests);
        for n in 0..400 {
            assert_eq!(client.line(), format!("1 Lock Get Success: k{n}\r\n"));
            assert_eq!(client.line(), format!("1 Lock Is Locked: k{n}\r\n"));
            assert_eq!(client.line(), format!("1 Lock Release Success: k{n}\r\n"));
        }
    }
}

#[test]
fn requests_may_arrive_in_any_pieces() {
    let server = Server::start();
    let requests = b"g foo\r\nx\n  i  foo \ngw 1 foo\nr foo\r\niam\nsg foo\nsr foo\n";
    let replies = [
        "1 Lock Get Success: foo\r\n",
        "1 Lock Is Locked: foo\r\n",
        "1 Lock Get Success: foo\r\n",
        "1 Lock Release Success: foo\r\n",
        "1 ok\r\n",
        "1 Shared Lock Get Success: foo\r\n",
        "1 Shared Lock Release Success: foo\r\n",
    ];
    let mut bystander = server.glockd();
    for mut client in over_tcp_and_unix(&server) {
        for split in 1..requests.len() {
            client.send(&requests[..split]);
            // Another client's round trip gives the server time to read the first piece alone.
            bystander.ask("i bar");
            client.send(&requests[split..]);
            for reply in replies {
                assert_eq!(client.line(), reply, "split at {split}");
            }
        }
        for byte in requests {
            client.send([*byte]);
        }
        for reply in replies {
            assert_eq!(client.line(), reply, "byte by byte");
        }
    }
}

#[test]
fn exactly_one_of_many_that_race_for_a_lock_gets_it() {
    let server = Server::start();
    for round in 0..20 {
        let got = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..8)
                .map(|_| {
                    let mut client = server.glockd();
                    scope.spawn(move || (client.ask(&format!("g race {round}")).starts_with('1'), client))
                })
                .collect();
            let outcomes: Vec<_> = racers.into_iter().map(|racer| racer.join().unwrap()).collect();
            outcomes.iter().filter(|(got, _)| *got).count()
        });
        assert_eq!(got, 1, "round {round}");
    }
}
