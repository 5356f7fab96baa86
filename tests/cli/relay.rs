//! A network between `lockd run` and its server, which can be cut: it resets all connections, and
//! ends none in the name of the other side.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// Passes bytes on between its own address and the server's.
pub(crate) struct Relay {
    pub(crate) url: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    streams: Vec<TcpStream>,
    is_cut: bool,
}

impl Relay {
    /// To the server that listens at `listen`, an address of `lockd serve`.
    pub(crate) fn to(listen: &str) -> Self {
        let server: SocketAddr = listen.strip_prefix("message://").unwrap().parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("tcp://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let own = state.clone();
        thread::spawn(move || {
            for client in listener.incoming() {
                own.lock().unwrap().join(client.unwrap(), server);
            }
        });
        Self { url, state }
    }

    /// Resets all connections.
    pub(crate) fn reset(&self) {
        self.state.lock().unwrap().streams.drain(..).for_each(|stream| reset(&stream));
    }

    /// The same, and lets no new ones pass.
    pub(crate) fn cut(&self) {
        self.state.lock().unwrap().is_cut = true;
        self.reset();
    }
}

impl State {
    fn join(&mut self, client: TcpStream, server: SocketAddr) {
        let server = if self.is_cut { None } else { TcpStream::connect(server).ok() };
        let Some(server) = server else { return reset(&client) };
        for (from, to) in [(&client, &server), (&server, &client)] {
            let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
            thread::spawn(move || pass(from, to));
        }
        self.streams.extend([client, server]);
    }
}

/// Ends the connection without a word of either side: connect(2) to nowhere resets it.
fn reset(stream: &TcpStream) {
    // It fails if the connection has been reset already.
    let _ = rustix::net::connect_unspec(stream);
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    let mut bytes = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        if to.write_all(&bytes[..read]).is_err() {
            return;
        }
    }
}
