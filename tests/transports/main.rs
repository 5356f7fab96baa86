//! The layers between a client and the server's protocols: TLS, WebSocket, a secret. The real
//! binary, over real sockets, with certificates made for each test.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a panic is how a test fails")]

mod authority;
mod c_api;
mod certificates;
mod clients;
mod exposure;
mod secret;
#[path = "../blackbox/support/mod.rs"]
#[expect(dead_code, reason = "made for other tests, too")]
mod support;
mod tls;
mod tls_refusals;
mod together;
mod websocket;
mod wrong_ports;
