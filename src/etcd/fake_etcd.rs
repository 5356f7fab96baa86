//! A server for tests that gets the requests of the client of etcd, and answers as a test tells it
//! to: for what a real etcd does too rarely or never. Listens on a free port of this host.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The longest that anything may take.
pub(super) const SOON: Duration = Duration::from_secs(20);

/// What is done with one request; false: the connection is closed.
pub(super) type Script = dyn Fn(&Asked, &mut TcpStream) -> bool + Send + Sync;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) path: String,
    pub(super) token: Option<String>,
    pub(super) body: String,
}

pub(super) struct FakeEtcd {
    address: SocketAddr,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    requests: Mutex<Vec<Asked>>,
}

impl FakeEtcd {
    pub(super) fn start(script: impl Fn(&Asked, &mut TcpStream) -> bool + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let (seen_there, script): (_, Arc<Script>) = (seen.clone(), Arc::new(script));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, seen, script) = (stream.unwrap(), seen_there.clone(), script.clone());
                seen.connections.fetch_add(1, SeqCst);
                std::thread::spawn(move || serve(stream, &seen, &*script));
            }
        });
        Self { address, seen }
    }

    /// One that is of etcd cluster `cluster_id` and answers every request with `members` added.
    pub(super) fn answering(cluster_id: u64, members: &'static str) -> Self {
        Self::start(move |_, stream| {
            answer(stream, 200, &success(cluster_id, members));
            true
        })
    }

    /// HOST:PORT.
    pub(super) fn place(&self) -> String {
        self.address.to_string()
    }

    pub(super) fn connections(&self) -> usize {
        self.seen.connections.load(SeqCst)
    }

    pub(super) fn requests(&self) -> Vec<Asked> {
        self.seen.requests.lock().unwrap().clone()
    }

    pub(super) fn paths(&self) -> Vec<String> {
        self.requests().into_iter().map(|asked| asked.path).collect()
    }
}

/// The JSON of an answer from this etcd cluster.
pub(super) fn success(cluster_id: u64, members: &str) -> String {
    format!("{{\"header\":{{\"cluster_id\":\"{cluster_id}\",\"revision\":\"5\"}}{members}}}")
}

/// The JSON of a refusal.
pub(super) fn refusal(message: &str, code: u64) -> String {
    format!("{{\"error\":{message:?},\"message\":{message:?},\"code\":{code}}}")
}

pub(super) fn answer(stream: &mut TcpStream, status: u16, body: &str) {
    let length = body.len();
    // The client may have given up.
    let _ = write!(
        stream,
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
}

fn serve(mut stream: TcpStream, seen: &Seen, script: &Script) {
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.set_write_timeout(Some(SOON)).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(asked) = read_request(&mut reader) {
        seen.requests.lock().unwrap().push(asked.clone());
        if !script(&asked, &mut stream) {
            return;
        }
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|&count| count > 0)?;
        Some(line.trim_end().to_owned())
    };
    let path = line()?.split(' ').nth(1)?.to_owned();
    let (mut length, mut token) = (0, None);
    loop {
        let header = line()?;
        let Some((name, value)) = header.split_once(": ") else { break };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().ok()?,
            "authorization" => token = Some(value.to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Asked { path, token, body: String::from_utf8(body).ok()? })
}
