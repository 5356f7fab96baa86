//! The `lockd` protocol as a client sees it: each request, and the bytes of its reply.

use crate::support::eventually;
use crate::support::line_client::LineClient;
use crate::support::server::Server;

const GOT: &str = "1 Got Lock\r\n";
const CANNOT_GET: &str = "0 Cannot Get Lock\r\n";
const RELEASED: &str = "1 Released Lock\r\n";
const CANNOT_RELEASE: &str = "0 Cannot Release Lock\r\n";
const LOCKED: &str = "1 Locked\r\n";
const NOT_LOCKED: &str = "0 Not Locked\r\n";

#[test]
fn exclusive_locks_are_got_refused_shown_and_released() {
    let server = Server::start();
    let (mut holder, mut other) = (server.lockd(), server.lockd());
    assert_eq!(holder.ask("i foo"), NOT_LOCKED);
    assert_eq!(holder.ask("g foo"), GOT);
    assert_eq!(other.ask("g foo"), CANNOT_GET);
    assert_eq!(other.ask("r foo"), CANNOT_RELEASE);
    assert_eq!(other.ask("i foo"), LOCKED);
    assert_eq!(holder.ask("i foo"), LOCKED);
    assert_eq!(holder.ask("r foo"), RELEASED);
    assert_eq!(holder.ask("r foo"), CANNOT_RELEASE);
    assert_eq!(other.ask("i foo"), NOT_LOCKED);
    assert_eq!(other.ask("g foo"), GOT);
}

#[test]
fn the_holder_is_refused_its_own_lock_and_keeps_it() {
    let server = Server::start();
    let mut holder = server.lockd();
    assert_eq!(holder.ask("g foo"), GOT);
    assert_eq!(holder.ask("g foo"), CANNOT_GET);
    assert_eq!(holder.ask("r foo"), RELEASED);
    assert_eq!(holder.ask("i foo"), NOT_LOCKED);
}

#[test]
fn shared_locks_are_counted() {
    let server = Server::start();
    let (mut a, mut b, mut c) = (server.lockd(), server.lockd(), server.lockd());
    assert_eq!(a.ask("si foo"), NOT_LOCKED);
    assert_eq!(a.ask("sg foo"), GOT);
    assert_eq!(b.ask("sg foo"), "2 Got Lock\r\n");
    assert_eq!(a.ask("sg foo"), "2 Got Lock\r\n", "once more by a holder changes nothing");
    assert_eq!(c.ask("sg foo"), "3 Got Lock\r\n");
    assert_eq!(c.ask("si foo"), "3 Locked\r\n");
    assert_eq!(a.ask("sr foo"), RELEASED);
    assert_eq!(a.ask("sr foo"), CANNOT_RELEASE);
    assert_eq!(a.ask("si foo"), "2 Locked\r\n");
    assert_eq!(b.ask("sr foo"), RELEASED);
    assert_eq!(c.ask("sr foo"), RELEASED);
    assert_eq!(c.ask("si foo"), NOT_LOCKED);
}

#[test]
fn exclusive_and_shared_locks_are_two_tables() {
    let server = Server::start();
    let (mut a, mut b) = (server.lockd(), server.lockd());
    assert_eq!(a.ask("g foo"), GOT);
    assert_eq!(b.ask("sg foo"), GOT);
    assert_eq!(a.ask("sg foo"), "2 Got Lock\r\n");
    assert_eq!(a.ask("sr foo"), RELEASED);
    assert_eq!(a.ask("i foo"), LOCKED);
    assert_eq!(a.ask("r foo"), RELEASED);
    assert_eq!(a.ask("si foo"), LOCKED);
}

#[test]
fn with_shared_excludes_there_is_one_table() {
    let server = Server::with(&["--shared-excludes"]);
    let (mut a, mut b) = (server.lockd(), server.lockd());
    assert_eq!(a.ask("g foo"), GOT);
    let refused = b.ask("sg foo");
    assert!(refused.starts_with("0 ") && refused.ends_with("\r\n"), "{refused:?}");
    assert_eq!(a.ask("sg bar"), GOT);
    assert_eq!(b.ask("g bar"), CANNOT_GET);
    assert_eq!(b.ask("sg bar"), "2 Got Lock\r\n");
    assert_eq!(a.ask("sr bar"), RELEASED);
    assert_eq!(b.ask("sr bar"), RELEASED);
    assert_eq!(a.ask("g bar"), GOT);
}

#[test]
fn white_space_around_and_within_a_name_is_folded() {
    let server = Server::start();
    let mut client = server.lockd();
    client.send(" g  two \t  words \r\n");
    assert_eq!(client.line(), GOT);
    assert_eq!(client.ask("i two words"), LOCKED);
    client.send("\t r   two words\n");
    assert_eq!(client.line(), RELEASED);
    assert_eq!(client.ask("i two words"), NOT_LOCKED);
}

#[test]
fn the_empty_name_is_a_name() {
    let server = Server::start();
    let mut client = server.lockd();
    assert_eq!(client.ask("g"), GOT);
    assert_eq!(client.ask("g "), CANNOT_GET);
    assert_eq!(client.ask("i"), LOCKED);
    assert_eq!(client.ask("i foo"), NOT_LOCKED);
    assert_eq!(client.ask("r"), RELEASED);
    assert_eq!(client.ask("sg"), GOT);
    assert_eq!(client.ask("si"), LOCKED);
}

#[test]
fn names_are_bytes() {
    let server = Server::start();
    let mut client = server.lockd();
    for name in [b"\xff\xfe".as_slice(), b"\xff\xfd", b"a\0b", "schlo\u{df}".as_bytes(), b"\x80"] {
        let line = |command: &[u8]| [command, b" ", name, b"\n"].concat();
        client.send(line(b"g"));
        assert_eq!(client.line(), GOT, "{name:?}");
        client.send(line(b"i"));
        assert_eq!(client.line(), LOCKED, "{name:?}");
    }
    client.send(b"i \xff\xff\n");
    assert_eq!(client.line(), NOT_LOCKED);
}

#[test]
fn other_lines_get_no_reply() {
    let server = Server::start();
    let mut client = server.lockd();
    for line in ["", "  ", "x foo", "G foo", "get foo", "gfoo", "\u{1}\u{2}", "gw 1 foo", "d", "iam me"] {
        assert_eq!(client.ask_all(line), [""; 0], "{line:?}");
    }
    assert_eq!(client.ask("i foo"), NOT_LOCKED);
}

#[test]
fn an_unterminated_line_is_no_request() {
    let server = Server::start();
    let mut client = server.lockd();
    client.send("g foo");
    client.socket().shutdown(std::net::Shutdown::Write).unwrap();
    client.read_to_end();
    assert_eq!(server.lockd().ask("i foo"), NOT_LOCKED);
}

#[test]
fn locks_are_freed_when_the_connection_ends() {
    for shared in [false, true] {
        let server = Server::start();
        let mut holder = server.lockd();
        let (get, show) = if shared { ("sg foo", "si foo") } else { ("g foo", "i foo") };
        assert_eq!(holder.ask(get), GOT);
        drop(holder);
        let mut other = server.lockd();
        eventually("the lock is freed", || other.ask(show) == NOT_LOCKED);
    }
}

fn over_tcp_and_unix(server: &Server) -> [LineClient; 2] {
    [server.lockd(), LineClient::new(server.unix("lockd"))]
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let server = Server::start();
    for mut client in over_tcp_and_unix(&server) {
        let requests: String = (0..400).map(|n| format!("g k{n}\ni k{n}\r\ng k{n}\nr k{n}\n")).collect();
        client.send(requests);
        for n in 0..400 {
            let replies = [client.line(), client.line(), client.line(), client.line()];
            assert_eq!(replies, [GOT, LOCKED, CANNOT_GET, RELEASED], "round {n}");
        }
    }
}

#[test]
fn requests_may_arrive_in_any_pieces() {
    let server = Server::start();
    let requests = b"g foo\r\nx\ni foo\n  g  foo \nr foo\r\nsg foo\nsr foo\n";
    let replies = [GOT, LOCKED, CANNOT_GET, RELEASED, GOT, RELEASED];
    let mut bystander = server.lockd();
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
fn connections_do_not_disturb_each_other() {
    let server = Server::start();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let mut client =
                LineClient::new(if number % 2 == 0 { server.tcp("lockd") } else { server.unix("lockd") });
            scope.spawn(move || {
                for round in 0..100 {
                    let name = format!("of {number} in {round}");
                    client.send(format!("g {name}\ni {name}\nr {name}\nsg all\nsr all\n"));
                    let replies = [client.line(), client.line(), client.line()];
                    assert_eq!(replies, [GOT, LOCKED, RELEASED]);
                    let (shared, count) = (client.line(), client.line());
                    assert!(shared.ends_with(" Got Lock\r\n") && !shared.starts_with('0'), "{shared:?}");
                    assert_eq!(count, RELEASED);
                }
            });
        }
    });
    assert_eq!(server.lockd().ask("si all"), NOT_LOCKED);
}
