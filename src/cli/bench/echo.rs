//! The echo server that `lockd bench` compares with: built like lockd's server, but it only sends
//! each line back. It has one thread with a small stack for each connection, and one write for all
//! that was read at once. What lockd costs beyond it is lockd's own work; what the echo server
//! costs is the kernel's. [`accept`] is also what the baton server is built on.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;

use memchr::memchr;
use socket2::{Domain, Socket, Type};

use crate::cli::privileges::raise_descriptor_limit;

const STACK_BYTES: usize = 128 << 10;
/// The size of the input buffer. Like lockd's, it grows once a client sends more than that at once.
const INPUT_BYTES: usize = 4096;
const LARGE_INPUT_BYTES: usize = 64 << 10;

/// Serves on a free port of this machine until the process is ended.
pub(crate) fn serve() -> ExitCode {
    exit_code(accept("echo", echo_lines))
}

pub(super) fn exit_code(served: io::Result<()>) -> ExitCode {
    let failed = |error: io::Error| {
        let _ = writeln!(io::stderr(), "lockd: {error}");
        ExitCode::FAILURE
    };
    served.map_or_else(failed, |()| ExitCode::SUCCESS)
}

/// Accepts connections on a free port, and runs `serve` for each of them in a thread of its own.
pub(super) fn accept(
    protocol: &str,
    serve: impl Fn(TcpStream) -> io::Result<()> + Clone + Send + 'static,
) -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(4096)?;
    let listener = TcpListener::from(socket);
    raise_descriptor_limit(100_000);
    writeln!(io::stderr(), "listening on {protocol}://{}", listener.local_addr()?)?;
    loop {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let serve = serve.clone();
        std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || serve(stream))?;
    }
}

/// Sends every complete line back, until the client closes the connection.
fn echo_lines(mut stream: TcpStream) -> io::Result<()> {
    let mut input = vec![0; INPUT_BYTES];
    let mut output = Vec::new();
    let mut end = 0;
    loop {
        let read = stream.read(&mut input[end..])?;
        if read == 0 {
            return Ok(());
        }
        end += read;
        let was_full = end == input.len();
        let mut start = 0;
        while let Some(len) = memchr(b'\n', &input[start..end]) {
            output.extend_from_slice(&input[start..=start + len]);
            start += len + 1;
        }
        stream.write_all(&output)?;
        output.clear();
        input.copy_within(start..end, 0);
        end -= start;
        if was_full {
            input.resize(LARGE_INPUT_BYTES.max(2 * end), 0);
        }
    }
}
