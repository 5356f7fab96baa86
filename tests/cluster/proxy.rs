//! A way between a server and etcd that can be slow, or lose what etcd answers, or everything.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What becomes of the bytes on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Open,
    /// Each answer comes this much later.
    Slow(Duration),
    /// Requests arrive, answers do not.
    LosesAnswers,
    /// Nothing arrives, and nobody is told.
    Cut,
}

/// Passes bytes on between its own address and that of etcd.
pub(crate) struct Proxy {
    address: SocketAddr,
    way: Arc<Mutex<Way>>,
}

impl Proxy {
    /// To the member of etcd at HOST:PORT.
    pub(crate) fn to(place: &str) -> Self {
        let etcd: SocketAddr = place.parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let way = Arc::new(Mutex::new(Way::Open));
        let own = way.clone();
        // It ends with the process.
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                // If etcd is away, the connection ends as without a proxy.
                let Ok(server) = TcpStream::connect(etcd) else { continue };
                for (from, to, is_answer) in [(&client, &server, false), (&server, &client, true)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let way = own.clone();
                    thread::spawn(move || pass(from, to, is_answer, &way));
                }
            }
        });
        Self { address, way }
    }

    /// The address for lockd's option.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("etcd://{}/{name}", self.address)
    }

    /// From now on, for all connections.
    pub(crate) fn set(&self, way: Way) {
        *self.way.lock().unwrap() = way;
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, is_answer: bool, way: &Mutex<Way>) {
    let mut bytes = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut bytes) {
        let current = *way.lock().unwrap();
        match current {
            Way::Open => {}
            Way::Slow(delay) if is_answer => thread::sleep(delay),
            Way::Slow(_) => {}
            Way::LosesAnswers if is_answer => continue,
            Way::LosesAnswers => {}
            Way::Cut => continue,
        }
        if to.write_all(&bytes[..read]).is_err() {
            break;
        }
    }
    // Both fail only if it has ended already.
    let _ = to.shutdown(Shutdown::Write);
    let _ = from.shutdown(Shutdown::Read);
}
