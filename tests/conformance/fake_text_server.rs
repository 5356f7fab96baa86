//! A server that lies to clients of the text protocols. It answers every line rightly, as if all
//! names were free, except those with a name that begins with `lie`.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::SockRef;

use crate::transcript::Transcript;

/// What the server sends instead of a right answer, and whether it ends the stream then.
#[derive(Clone, Debug)]
pub(crate) struct TextLie {
    pub(crate) bytes: &'static [u8],
    pub(crate) ends: bool,
}

pub(crate) struct FakeTextServer {
    address: String,
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

struct Shared {
    lie: TextLie,
    is_over: AtomicBool,
    /// Ended with the server, so that no thread waits for a line any more.
    streams: Mutex<Vec<TcpStream>>,
    transcript: Transcript,
}

impl FakeTextServer {
    pub(crate) fn start(host: &str, lie: TextLie, transcript: &Transcript) -> Self {
        let listener = TcpListener::bind((host, 0)).expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        transcript.add(format!("a server that lies runs at {address}: {lie:?}"));
        let (is_over, streams) = (AtomicBool::new(false), Mutex::default());
        let shared = Arc::new(Shared { lie, is_over, streams, transcript: transcript.clone() });
        let of_listener = shared.clone();
        let thread = thread::spawn(move || accept(&listener, &of_listener));
        Self { address, shared, listener: Some(thread) }
    }

    /// `HOST:PORT`.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for FakeTextServer {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
        for stream in self.shared.streams.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    listener.set_nonblocking(true).expect("a socket");
    while !shared.is_over.load(Ordering::Relaxed) {
        let Ok((stream, _)) = listener.accept() else {
            thread::sleep(Duration::from_millis(2));
            continue;
        };
        stream.set_nonblocking(false).expect("a socket");
        let copy = stream.try_clone().expect("descriptors");
        shared.streams.lock().unwrap_or_else(PoisonError::into_inner).push(copy);
        let of_connection = shared.clone();
        // It ends when the client or the server ends the connection.
        thread::spawn(move || serve(stream, &of_connection));
    }
}

fn serve(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let lines = BufReader::new(stream.try_clone()?).split(b'\n');
    for line in lines {
        let line = String::from_utf8_lossy(&line?).trim().to_owned();
        shared.transcript.add(format!("        fake server < {line}"));
        let (command, name) = line.split_once(' ').unwrap_or((&line, ""));
        if name.rsplit(' ').next().is_some_and(|name| name.starts_with("lie")) {
            // So that an end of the stream comes together with what was sent before.
            SockRef::from(&stream).set_tcp_cork(shared.lie.ends)?;
            stream.write_all(shared.lie.bytes)?;
            if shared.lie.ends {
                return stream.shutdown(Shutdown::Write);
            }
            continue;
        }
        let answer = match command {
            "r" | "sr" => format!("1 Lock Release Success: {name}\r\n"),
            "i" | "si" => format!("0 Lock Not Locked: {name}\r\n"),
            _ => format!("1 Lock Get Success: {name}\r\n"),
        };
        stream.write_all(answer.as_bytes())?;
    }
    Ok(())
}
