//! What locks, waiters, sessions and connections cost in memory: tables of what the benchmark
//! `broker` has measured within one process, and of the resident size of a server.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::ops::Range;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::document::Document;
use crate::figures::table;
use crate::in_process::BrokerFigures;
use crate::servers::Server;

const CONNECTIONS: usize = 10_000;
const NAMES: usize = 1_000_000;

/// How many requests are sent before their replies are read: few enough for both socket buffers.
const BATCH: usize = 500;

const MIB: f64 = 1_048_576.0;

/// The rows of the first table: the label, and the subject and parameter of the series `memory`.
const EACH: [(&str, [&str; 2]); 6] = [
    ("a held lock, with a name of up to 22 bytes", ["each", "lock-of-22"]),
    ("a held lock, with a name of 64 bytes", ["each", "lock-of-64"]),
    ("a lock that one session holds and another one waits for", ["each", "contended"]),
    ("each further waiter", ["each", "waiters"]),
    ("a session", ["each", "sessions"]),
    ("the first lock of a session, in addition", ["with-lock", "sessions"]),
];

pub(crate) fn measure(_: &Document) -> String {
    let Some(figures) = BrokerFigures::read() else {
        return "(`make bench` measures this)".to_owned();
    };
    allow_connections();
    let head = |cells: &[&str]| cells.iter().map(|&cell| cell.to_owned()).collect::<Vec<_>>();
    [
        table(&head(&["within one process", "bytes resident"]), &each(&figures)),
        table(&head(&["10,000 connections, KiB resident for each", "`glockd`", "`message`"]), &connections()),
        table(
            &head(&["a million names, MiB resident in all", "before", "held", "all released"]),
            &million(&figures),
        ),
    ]
    .join("\n")
}

/// This process has one end of each connection.
fn allow_connections() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

fn each(figures: &BrokerFigures) -> Vec<Vec<String>> {
    let row = |&(label, [subject, parameter]): &(&str, [&str; 2])| {
        vec![label.to_owned(), format!("{:.0}", figures.memory(subject, parameter))]
    };
    EACH.iter().map(row).collect()
}

fn connections() -> Vec<Vec<String>> {
    let measured = ["glockd", "message"].map(|protocol| {
        let server = Server::lockd(&[]);
        // The first one of its kind brings what all of them share.
        let _first = Connection::open(&server, protocol);
        let before = resident(&server);
        let mut open: Vec<Connection> =
            (0..CONNECTIONS).map(|_| Connection::open(&server, protocol)).collect();
        let idle = resident(&server);
        for (number, connection) in open.iter_mut().enumerate() {
            connection.lock(number);
        }
        [idle, resident(&server)].map(|size| (size - before) / CONNECTIONS as f64 / 1024.0)
    });
    let row = |label: &str, at: usize| {
        let cells = measured.iter().map(|sizes| format!("{:.1}", sizes[at]));
        [label.to_owned()].into_iter().chain(cells).collect()
    };
    vec![row("idle", 0), row("that holds one lock", 1)]
}

fn million(figures: &BrokerFigures) -> Vec<Vec<String>> {
    let row = |label: &str, sizes: [f64; 3]| {
        let cells = sizes.map(|size| format!("{:.0}", size / MIB));
        [label.to_owned()].into_iter().chain(cells).collect::<Vec<_>>()
    };
    let in_process = |sessions| ["before", "held", "released"].map(|moment| figures.memory(moment, sessions));
    vec![
        row("within one process, one session", in_process("one-session")),
        row("within one process, 1,000 sessions", in_process("thousand-sessions")),
        row("a server, one connection", held_on_server(1)),
        row("a server, 1,000 connections", held_on_server(1_000)),
    ]
}

/// The resident size of a server before its connections hold a million names, while they do, and
/// when all are released.
fn held_on_server(connections: usize) -> [f64; 3] {
    let server = Server::lockd(&[]);
    let mut open: Vec<Connection> = (0..connections).map(|_| Connection::open(&server, "glockd")).collect();
    let before = resident(&server);
    let each = NAMES / connections;
    let [held, released] = ["g", "r"].map(|command| {
        for (number, connection) in open.iter_mut().enumerate() {
            connection.commands(command, number * each..(number + 1) * each);
        }
        resident(&server)
    });
    [before, held, released]
}

/// The resident size of a server, in bytes.
fn resident(server: &Server) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB"));
    kib.unwrap().trim().parse::<f64>().unwrap() * 1024.0
}

/// A connection that has made a request, so that the server has all that it needs for it.
struct Connection {
    stream: BufReader<TcpStream>,
    is_message: bool,
}

impl Connection {
    fn open(server: &Server, protocol: &str) -> Self {
        let address = server.address_for(protocol).rsplit_once('/').unwrap().1;
        let stream = BufReader::with_capacity(4096, TcpStream::connect(address).unwrap());
        let mut connection = Self { stream, is_message: protocol == "message" };
        if connection.is_message {
            assert!(connection.call(r#"{"id":1,"command":"hello"}"#).contains("\"ok\""));
        } else {
            connection.commands("i", 0..1);
        }
        connection
    }

    fn lock(&mut self, number: usize) {
        if self.is_message {
            let lock = format!(r#"{{"id":2,"command":"lock","parameters":{{"lockName":"idle{number}"}}}}"#);
            assert!(self.call(&lock).contains("\"ok\""));
        } else {
            self.commands("g", number..number + 1);
        }
    }

    /// A request of the `message` protocol, and its reply.
    fn call(&mut self, request: &str) -> String {
        let length = u32::try_from(request.len()).unwrap().to_be_bytes();
        self.stream.get_mut().write_all(&[&length[..], request.as_bytes()].concat()).unwrap();
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).unwrap();
        let mut reply = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut reply).unwrap();
        String::from_utf8(reply).unwrap()
    }

    /// The same text command for each of these names.
    fn commands(&mut self, command: &str, mut names: Range<usize>) {
        while !names.is_empty() {
            let batch = names.by_ref().take(BATCH);
            let lines: Vec<String> = batch.map(|name| format!("{command} {name:016}\r\n")).collect();
            self.stream.get_mut().write_all(lines.concat().as_bytes()).unwrap();
            for line in lines {
                let mut reply = String::new();
                self.stream.read_line(&mut reply).unwrap();
                assert!(reply.starts_with('1') || command == "i", "{line} {reply}");
            }
        }
    }
}
