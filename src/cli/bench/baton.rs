//! The baton server that `lockd bench --contended` compares with: built like the echo server, but
//! its connections pass one baton on. What a hand-over costs here is the kernel's and the load's: a
//! message from one connection, one to the next, and the wake-ups of both threads. It knows one
//! baton, which has no name, no limits and no rules; a connection that ends passes nothing on.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::ExitCode;
use std::sync::Arc;

use parking_lot::Mutex;

use super::echo::{accept, exit_code};

/// Who has the baton is known by who gives it back.
#[derive(Default)]
struct Baton {
    is_held: bool,
    /// The connections that wait for it, in order, each with the reply that it is to get.
    waiting: VecDeque<(Arc<TcpStream>, Vec<u8>)>,
}

/// Serves on a free port of this machine until the process is ended.
pub(crate) fn serve() -> ExitCode {
    let baton = Arc::<Mutex<Baton>>::default();
    exit_code(accept("baton", move |stream| pass_on(&stream.into(), &baton)))
}

/// A line that begins with `g` asks for the baton, any other gives it back. Each is its own reply,
/// sent once the connection has the baton or has given it back.
fn pass_on(stream: &Arc<TcpStream>, baton: &Mutex<Baton>) -> io::Result<()> {
    let mut input = BufReader::new(&**stream);
    let mut line = Vec::new();
    while input.read_until(b'\n', &mut line)? > 0 {
        let mut state = baton.lock();
        if !line.starts_with(b"g") {
            let next = state.waiting.pop_front();
            state.is_held = next.is_some();
            drop(state);
            if let Some((next, reply)) = next {
                (&*next).write_all(&reply)?;
            }
        } else if std::mem::replace(&mut state.is_held, true) {
            state.waiting.push_back((stream.clone(), std::mem::take(&mut line)));
            continue;
        } else {
            drop(state);
        }
        (&**stream).write_all(&line)?;
        line.clear();
    }
    Ok(())
}
