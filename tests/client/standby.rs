//! A place of a group that is not the active server: one that answers as the standby of a cluster
//! does, and an address on which nothing listens until a test starts a server there.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::thread;

use lockd::wire::frame::{self, Frame};
use lockd::wire::message::{LockResult, encode_result, parse};

/// `HOST:PORT` of a server that answers every client as a standby does, until the tests end.
pub(crate) fn standby() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for client in listener.incoming() {
            // A client may hang up at any time.
            thread::spawn(move || client.and_then(refuse));
        }
    });
    place
}

/// Reads one request, answers it, and ends the connection.
fn refuse(mut client: TcpStream) -> std::io::Result<()> {
    let mut input = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let read = client.read(&mut chunk)?;
        if read == 0 {
            return Ok(());
        }
        input.extend_from_slice(&chunk[..read]);
        let (_, Frame::Body(body)) = frame::decode(&input, 1 << 20) else { continue };
        let id = parse(body).unwrap().id.unwrap();
        let mut reply = Vec::new();
        let result = LockResult::standby("jobs", None);
        frame::encode(&mut reply, |out| encode_result(out, id, &result));
        client.write_all(&reply)?;
        client.shutdown(Shutdown::Write)?;
        while client.read(&mut chunk)? > 0 {}
        return Ok(());
    }
}

/// `HOST:PORT` on which nothing listens, on an address of its own, so that no other test gets the
/// port.
pub(crate) fn vacant() -> String {
    TcpListener::bind("127.0.7.5:0").unwrap().local_addr().unwrap().to_string()
}
