//! Attacks with connections: more than the limit, more than there are descriptors or threads for,
//! and connections that leave at once or send nothing.

use std::io::{Read, Write};
use std::time::Duration;

use crate::siege::{Attack, no_options};
use crate::support::eventually;
use crate::support::line_client::LineClient;
use crate::support::server::Server;
use crate::support::socket::{connect, reset};
use socket2::Socket;

/// What a refused client reads before the end of the stream, if a reply comes in time.
fn turned_away(server: &Server, protocol: &str) -> Option<String> {
    LineClient::new(server.tcp(protocol)).read_line_or_end()
}

pub(crate) const OVER_THE_LIMIT: Attack = Attack {
    name: "connections up to the limit, and thousands beyond it",
    options: |size| vec![format!("--connections-max={}", size + 3)],
    newcomers: false,
    short: 300,
    full: 9000,
    growth_max_kib: |size| size as u64 * 16,
    run: |server, size| {
        // There are three calm clients.
        let before = server.descriptors();
        let crowd: Vec<Socket> = (0..size).map(|_| server.tcp("glockd")).collect();
        eventually("all are let in", || server.descriptors() >= before + size);
        for _ in 0..size {
            let told = turned_away(server, "lockd").expect("a reason");
            assert_eq!(told, "0 Refused: too many connections\r\n");
        }
        drop(crowd);
    },
};

pub(crate) const OUT_OF_DESCRIPTORS: Attack = Attack {
    name: "more connections than there are descriptors for",
    options: no_options,
    newcomers: false,
    short: 100,
    full: 5000,
    growth_max_kib: |size| size as u64 * 16,
    run: |server, size| {
        let limit = server.descriptors() + size;
        server.limit_descriptors(u64::try_from(limit).unwrap());
        let crowd: Vec<Socket> = (0..size).map(|_| server.tcp("glockd")).collect();
        eventually("nearly all are let in", || server.descriptors() >= limit - 1);
        for _ in 0..20 {
            // It is told why, or must wait if another listener has taken the descriptor that is
            // kept for that.
            let (mut socket, mut told) = (server.tcp("lockd"), [0; 100]);
            socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            let length = socket.read(&mut told).unwrap_or(0);
            assert!(
                [b"".as_slice(), b"0 Refused: out of descriptors or memory\r\n"].contains(&&told[..length])
            );
        }
        drop(crowd);
        eventually("others are served again", || {
            let mut client = LineClient::new(server.tcp("lockd"));
            let _ = client.socket().send(b"i nobody's\n");
            client.read_line_or_end().is_some_and(|line| line == "0 Not Locked\r\n")
        });
    },
};

pub(crate) const RESETS: Attack = Attack {
    name: "four clients connect and reset the connection, again and again, after nothing, a byte, or a request",
    options: no_options,
    newcomers: false,
    short: 1000,
    full: 40_000,
    // They may come faster than the server notices that earlier ones have gone: up to the limit on
    // connections.
    growth_max_kib: |size| size.min(10_000) as u64 * 16,
    run: |server, size| {
        let protocols = ["lockd", "glockd", "message", "glockd"];
        std::thread::scope(|scope| {
            for (number, protocol) in protocols.into_iter().enumerate() {
                let endpoint = server.tcp_endpoint(protocol);
                scope.spawn(move || {
                    for round in 0..size / protocols.len() {
                        let mut socket = connect(&endpoint);
                        let words: [&[u8]; 4] = [b"", b"g", b"g reset\n", b"gw - reset\n"];
                        // It may be closed already if the server still has too many threads.
                        let _ = socket.write_all(words[(round + number) % words.len()]);
                        reset(socket);
                    }
                });
            }
        });
        // Connections whose end the server has not noticed yet count as well.
        eventually("there is room again", || server.descriptors() < 1000);
        crate::hoards::await_end_of_hoard(server);
    },
};

pub(crate) const SILENT: Attack = Attack {
    name: "thousands connect and never say a word",
    options: no_options,
    newcomers: false,
    short: 500,
    full: 9000,
    growth_max_kib: |size| size as u64 * 16,
    run: |server, size| {
        let protocols = ["lockd", "glockd", "message"];
        let endpoints = protocols.map(|protocol| server.tcp_endpoint(protocol));
        let crowd: Vec<Socket> = (0..size).map(|number| connect(&endpoints[number % 3])).collect();
        eventually("all are let in", || server.descriptors() > size);
        drop(crowd);
    },
};
