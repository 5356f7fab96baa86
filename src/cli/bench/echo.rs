//! The yardstick: a server of the same shape as lockd's that does nothing but repeat lines. A thread for
//! each connection, small stacks, one write for all that was read. What lockd does beyond it is lockd's
//! cost; what it costs itself is the kernel's.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;

use memchr::memchr;
use socket2::{Domain, Socket, Type};

const STACK_BYTES: usize = 128 << 10;
/// Like lockd's, it grows for those who send much at once.
const INPUT_BYTES: usize = 4096;
const INPUT_BYTES_MUCH: usize = 64 << 10;

/// Serves on a free port of this machine until the process is ended.
pub(in super::super) fn serve() -> ExitCode {
    let failed = |error: io::Error| {
        let _ = writeln!(io::stderr(), "lockd: {error}");
        ExitCode::FAILURE
    };
    accept().map_or_else(failed, |()| ExitCode::SUCCESS)
}

fn accept() -> io::Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(4096)?;
    let listener = TcpListener::from(socket);
    super::super::privileges::raise_descriptor_limit(100_000);
    writeln!(io::stderr(), "listening on echo://{}", listener.local_addr()?)?;
    loop {
        let (stream, _) = listener.accept()?;
        std::thread::Builder::new().stack_size(STACK_BYTES).spawn(|| repeat(stream))?;
    }
}

/// Repeats what a peer says until it says no more.
fn repeat(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
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
            input.resize(INPUT_BYTES_MUCH.max(2 * end), 0);
        }
    }
}
