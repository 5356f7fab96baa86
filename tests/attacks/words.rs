//! Attacks by content: endless lines, messages that are announced and never sent or arrive byte by
//! byte, and JSON that is hard to parse.

use std::io::Write;
use std::time::Duration;

use crate::siege::{Attack, no_options};
use crate::support::frame_client::frame;
use crate::support::line_client::LineClient;
use crate::support::socket::connect;
use socket2::Socket;

const MIB: usize = 1 << 20;

/// Runs `work` in `count` threads at the same time.
fn at_once(count: usize, work: impl Fn(usize) + Sync) {
    std::thread::scope(|scope| {
        for number in 0..count {
            let work = &work;
            scope.spawn(move || work(number));
        }
    });
}

pub(crate) const ENDLESS_LINES: Attack = Attack {
    name: "six clients send lines without end, gigabytes in all",
    options: no_options,
    newcomers: false,
    short: 8,
    full: 512,
    growth_max_kib: |_| 8 << 10,
    run: |server, size| {
        at_once(6, |number| {
            let protocol = ["lockd", "glockd"][number % 2];
            let mut client = LineClient::new(server.tcp(protocol));
            let piece = vec![b'x'; MIB];
            (0..size).for_each(|_| client.send(&piece));
            client.send("\ni nobody's\n");
            // One reply for the line, however long it is.
            assert_eq!(client.line(), "0 Line Too Long\r\n");
            assert!(client.line().contains("Not Locked"));
        });
    },
};

pub(crate) const ANNOUNCED: Attack = Attack {
    name: "thousands announce a message of a MiB and never send it",
    options: no_options,
    newcomers: false,
    short: 300,
    full: 9000,
    growth_max_kib: |size| size as u64 * 16,
    run: |server, size| {
        let endpoint = server.tcp_endpoint("message");
        let crowd: Vec<Socket> = (0..size)
            .map(|_| {
                let socket = connect(&endpoint);
                socket.send(b"\x00\x10\x00\x00{").unwrap();
                socket
            })
            .collect();
        crate::support::eventually("all are let in", || server.descriptors() > size);
        drop(crowd);
    },
};

pub(crate) const HALF_SENT: Attack = Attack {
    name: "hundreds send all but the last byte of a message of a MiB",
    options: no_options,
    newcomers: false,
    short: 20,
    full: 500,
    // A message, and the spare room of a buffer that doubles.
    growth_max_kib: |size| size as u64 * 2048,
    run: |server, size| {
        let endpoint = server.tcp_endpoint("message");
        let body = [b"{\"a\":\"".as_slice(), &vec![b'x'; MIB - 8], b"\"}"].concat();
        let framed = frame(body);
        let crowd: Vec<Socket> = (0..size)
            .map(|_| {
                let mut socket = connect(&endpoint);
                socket.write_all(&framed[..framed.len() - 1]).unwrap();
                socket
            })
            .collect();
        drop(crowd);
    },
};

pub(crate) const DRIPPED: Attack = Attack {
    name: "a hundred clients send requests byte by byte",
    options: no_options,
    newcomers: false,
    short: 10,
    full: 100,
    growth_max_kib: |_| 8 << 10,
    run: |server, size| {
        let request = frame(r#"{"command":"inspect","parameters":{"lockName":"dripped"},"id":1}"#);
        let line = format!("i {}\n", "y".repeat(1000)).into_bytes();
        at_once(4, |number| {
            let (protocol, bytes) = [("message", &request), ("glockd", &line)][number % 2];
            let endpoint = server.tcp_endpoint(protocol);
            let mut crowd: Vec<Socket> = (0..size / 4).map(|_| connect(&endpoint)).collect();
            for byte in bytes {
                crowd.iter_mut().for_each(|socket| socket.write_all(&[*byte]).unwrap());
            }
            for socket in &mut crowd {
                assert!(std::io::Read::read(socket, &mut [0; 100]).unwrap() > 0, "a reply");
            }
        });
    },
};

/// Messages of nearly 1 MiB each that are expensive to parse or to keep.
fn bombs() -> Vec<Vec<u8>> {
    let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
    let names = |count: usize| (0..count).map(|n| format!("\"{n}\"")).collect::<Vec<_>>().join(",");
    let many = |text: &str, count: usize| vec![text; count].join(",");
    let lock = |parameters: &str| format!(r#"{{"command":"lock","parameters":{{{parameters}}},"id":1}}"#);
    vec![
        lock(&format!(r#""lockName":{}"#, deep("[", "]"))),
        lock(&format!(r#""x":{},"lockName":"bomb""#, deep("{\"a\":", "}"))),
        deep("[", "]"),
        lock(&format!(r#""lockName":"bomb","timeLimit":1{}"#, "0".repeat(900_000))),
        lock(&format!(r#""lockName":"bomb","timeLimit":1e{}"#, "9".repeat(900_000))),
        format!(r#"{{"command":"ping","parameters":{{}},"id":{}}}"#, "9".repeat(500_000)),
        lock(&format!(r#""{}":1"#, "k".repeat(1_000_000))),
        lock(&many(r#""lockName":"bomb""#, 50_000)),
        lock(&format!(r#""lockNames":[{}],"timeLimit":0"#, names(120_000))),
        lock(&format!(r#""lockNames":[{}],"timeLimit":0"#, names(1000))),
        format!(r#"{{"command":"unlock","parameters":{{"lockNames":[{}]}},"id":1}}"#, names(120_000)),
        lock(&format!(r#""lockNames":[{}]"#, many("[]", 300_000))),
        lock(&format!(r#""lockName":"{}""#, r"\u0000".repeat(150_000))),
        lock(&format!(r#""lockNameHex":"{}""#, "00".repeat(450_000))),
        format!("{}{}", " ".repeat(1_000_000), "{}"),
        format!(r#"{{"command":"{}","parameters":{{}},"id":1}}"#, "c".repeat(900_000)),
    ]
    .into_iter()
    .map(String::into_bytes)
    .collect()
}

pub(crate) const BOMBS: Attack = Attack {
    name: "four clients send messages of a MiB that are hard to read, again and again",
    options: no_options,
    newcomers: false,
    short: 1,
    full: 30,
    // For each of the four: a message, its parsed form, and the reply.
    growth_max_kib: |_| 128 << 10,
    run: |server, size| {
        let bombs = bombs();
        at_once(4, |number| {
            let mut client = server.message();
            client.socket().set_read_timeout(Some(Duration::from_secs(120))).unwrap();
            for round in 0..size {
                for at in 0..bombs.len() {
                    client.send_text(&bombs[(at + number) % bombs.len()]);
                }
                // When this one has been answered, all the others have been, too, or need no
                // answer.
                client.send_text(format!(r#"{{"command":"ping","parameters":{{}},"id":"end {round}"}}"#));
                while !client.receive_text().contains(&format!("\"end {round}\"")) {}
            }
        });
        let mut observer = server.message();
        assert!(observer.is_served());
        crate::hoards::await_end_of_hoard(server);
    },
};
