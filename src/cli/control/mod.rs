//! Orders of the administrator, over a Unix socket: one line asks, and the answer is lines that tell
//! how far it is, and a last one that says how it ended (`asker`). `ask` has the commands that give
//! orders. Knows the lines, and nothing of how an order is carried out.

mod ask;
mod asker;

use std::io::{self, Read};
use std::os::fd::RawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use lockd::server::ControlSocket;

pub(super) use ask::{StandDownOptions, UpgradeOptions, stand_down, upgrade};
pub(super) use asker::{Asker, Order, Reply};

/// The longest line that is read.
const LINE_MAX: usize = 64;
/// How long a client may take for its line. The next client waits meanwhile.
const LINE_LIMIT: Duration = Duration::from_secs(2);
/// How long to wait after nothing could be accepted, for lack of descriptors.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// Binds the socket. To be called before privileges are given up.
///
/// # Errors
/// If it cannot be bound; the message names it.
pub(super) fn bind(path: &Path) -> io::Result<ControlSocket> {
    ControlSocket::bind(path).map_err(|error| named(path, &error))
}

/// Takes the socket over from an earlier image of this process, by its descriptors.
///
/// # Errors
/// If they are not those of the socket; the message names it.
pub(super) fn go_on(path: &Path, descriptors: [RawFd; 3]) -> io::Result<ControlSocket> {
    ControlSocket::go_on(path, descriptors).map_err(|error| named(path, &error))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("control socket {}: {error}", path.display()))
}

/// Takes orders, in a thread that ends with the process. `obey` is called in it with each of them, and
/// with the client that has given it.
///
/// # Errors
/// If the thread cannot be started.
pub(super) fn serve(
    socket: Arc<ControlSocket>,
    obey: impl Fn(Order, Asker) + Send + 'static,
) -> io::Result<()> {
    let work = move || {
        loop {
            match socket.accept() {
                Ok(stream) => take_order(stream, &obey),
                Err(error) => {
                    log::debug!("control: {error}");
                    std::thread::sleep(RETRY_AFTER);
                }
            }
        }
    };
    std::thread::Builder::new().name("lockd-control".to_owned()).spawn(work).map(drop)
}

fn take_order(mut stream: UnixStream, obey: &impl Fn(Order, Asker)) {
    let line = read_line(&mut stream);
    let asker = Asker::new(stream);
    match line {
        Ok(line) => match Order::parse(&line) {
            Some(order) => obey(order, asker),
            None => asker.tell(&Reply::Refused("there is no such order".to_owned())),
        },
        Err(error) => log::debug!("control: {error}"),
    }
}

/// The first line, without its end.
fn read_line(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + LINE_LIMIT;
    let mut line = Vec::new();
    while line.len() < LINE_MAX {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) if byte == *b"\n" => return Ok(line),
            Ok(_) => line.extend_from_slice(&byte),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    // Longer than any order.
    Ok(line)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// What a client gets that sends this, and which order it has given.
    fn answer(sent: &[u8]) -> (String, Option<Order>) {
        let (mut client, stream) = UnixStream::pair().unwrap();
        client.write_all(sent).unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let asked = std::cell::Cell::new(None);
        take_order(stream, &|order: Order, asker: Asker| {
            asked.set(Some(order));
            asker.tell(&Reply::Done("as told".to_owned()));
        });
        let mut answer = String::new();
        // What it sent and nobody has read may reset the connection after the answer.
        let _ = client.read_to_string(&mut answer);
        (answer, asked.get())
    }

    #[test]
    fn only_the_whole_order_is_one() {
        assert_eq!(answer(b"upgrade\n"), ("ok as told\n".to_owned(), Some(Order::Upgrade)));
        assert_eq!(answer(b"stand-down\n"), ("ok as told\n".to_owned(), Some(Order::StandDown)));
        let refused = "error there is no such order\n".to_owned();
        for other in [&b"\n"[..], b"upgrades\n", b"UPGRADE\n", b"upgrade \n", b"\xff\xfe\n", &[b'x'; 5000]] {
            assert_eq!(answer(other), (refused.clone(), None), "{other:?}");
        }
        for unfinished in [&b""[..], b"upgrade"] {
            assert_eq!(answer(unfinished), (String::new(), None), "{unfinished:?}");
        }
    }

    #[test]
    fn a_reply_is_read_as_it_was_told() {
        let replies = [
            Reply::Progress("half way".to_owned()),
            Reply::Done("all of it".to_owned()),
            Reply::Refused("a\nb\u{1b}".to_owned()),
        ];
        let lines = replies.map(|reply| reply.line());
        assert!(lines.iter().all(|line| line.ends_with('\n') && line.matches('\n').count() == 1));
        let read = lines.map(|line| Reply::parse(line.trim_end()));
        let expected = [
            Reply::Progress("half way".to_owned()),
            Reply::Done("all of it".to_owned()),
            Reply::Refused(r"a\nb\u001b".to_owned()),
        ];
        assert_eq!(read, expected.map(Some));
        assert_eq!(Reply::parse("something else"), None);
    }

    #[test]
    fn an_asker_that_does_not_read_delays_nothing() {
        let (_client, stream) = UnixStream::pair().unwrap();
        let asker = Asker::new(stream);
        // More than any socket's buffer takes.
        (0..100).for_each(|_| asker.tell(&Reply::Progress("x".repeat(100_000))));
    }
}
