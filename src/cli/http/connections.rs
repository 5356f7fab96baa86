//! The connections that are open. Their number is limited, and a new one gets in nevertheless: in
//! place of the one that has waited longest for its client, either for a request or for a response
//! to be read. So clients that send nothing, or read nothing, do not keep others out, above all not
//! a probe that asks whether the server is healthy.

use std::collections::HashMap;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

/// All connections to these pages.
pub(super) struct HttpConnections {
    open: Mutex<OpenConnections>,
    connections_max: usize,
}

#[derive(Default)]
struct OpenConnections {
    by_id: HashMap<u64, OpenConnection>,
    /// The highest number given so far: for connections, and for the moments at which they begin to
    /// wait.
    last: u64,
    displaced: u64,
}

struct OpenConnection {
    stream: Arc<TcpStream>,
    /// When it began to wait for its client, if it waits: a lower number is longer ago.
    waits_since: Option<u64>,
}

impl OpenConnections {
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Closes the connection that has waited longest for its client. False if none waits.
    fn displace(&mut self) -> bool {
        let waiting = self.by_id.iter().filter_map(|(&id, open)| Some((open.waits_since?, id)));
        let Some(displaced) = waiting.min().and_then(|(_, id)| self.by_id.remove(&id)) else { return false };
        self.displaced += 1;
        // Its thread notices that, and ends. An error says that the client has closed the
        // connection already.
        let _ = displaced.stream.shutdown(Shutdown::Both);
        true
    }
}

impl HttpConnections {
    pub(super) fn with_limit(connections_max: usize) -> Arc<Self> {
        Arc::new(Self { open: Mutex::default(), connections_max })
    }

    /// How many are open.
    pub(super) fn open(&self) -> usize {
        self.lock().by_id.len()
    }

    /// How many have been closed to make room for others.
    pub(super) fn displaced(&self) -> u64 {
        self.lock().displaced
    }

    /// Admits a connection, which then waits for its client's first request. Gives the stream back
    /// if the limit is reached and every connection has a request being answered.
    pub(super) fn admit(self: &Arc<Self>, stream: TcpStream) -> Result<HttpConnection, TcpStream> {
        let mut open = self.lock();
        if open.by_id.len() >= self.connections_max && !open.displace() {
            return Err(stream);
        }
        let stream = Arc::new(stream);
        let id = open.next();
        open.by_id.insert(id, OpenConnection { stream: stream.clone(), waits_since: Some(id) });
        Ok(HttpConnection { all: self.clone(), id, stream })
    }

    fn lock(&self) -> MutexGuard<'_, OpenConnections> {
        self.open.lock()
    }
}

/// A connection that has been admitted, until this is dropped.
pub(super) struct HttpConnection {
    all: Arc<HttpConnections>,
    id: u64,
    pub(super) stream: Arc<TcpStream>,
}

impl HttpConnection {
    /// From now on it waits for its client, and may be displaced.
    pub(super) fn begin_wait(&self) {
        let mut open = self.all.lock();
        let now = open.next();
        if let Some(connection) = open.by_id.get_mut(&self.id) {
            connection.waits_since = Some(now);
        }
    }

    /// From now on its client waits for an answer, so it is not displaced.
    pub(super) fn end_wait(&self) {
        if let Some(connection) = self.all.lock().by_id.get_mut(&self.id) {
            connection.waits_since = None;
        }
    }
}

impl Drop for HttpConnection {
    fn drop(&mut self) {
        self.all.lock().by_id.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;

    /// Both ends of a connection, the server's first.
    fn pair(listener: &TcpListener) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener.accept().unwrap().0, client)
    }

    #[test]
    fn the_connection_that_has_waited_longest_makes_room() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connections = HttpConnections::with_limit(3);
        let (mut admitted, mut clients) = (Vec::new(), Vec::new());
        let mut come = |clients: &mut Vec<TcpStream>| {
            let (stream, client) = pair(&listener);
            clients.push(client);
            connections.admit(stream).map(|connection| admitted.push(connection)).is_ok()
        };
        (0..3).for_each(|_| assert!(come(&mut clients)));
        assert!(come(&mut clients) && come(&mut clients));
        assert_eq!((connections.open(), connections.displaced()), (3, 2));
        for (number, mut client) in clients.drain(..).enumerate() {
            client.set_nonblocking(true).unwrap();
            assert_eq!(client.read(&mut [0]).is_ok_and(|read| read == 0), number < 2, "{number}");
        }
        admitted.drain(..2);
        assert_eq!(connections.open(), 3, "those that were displaced are not counted any more");
        admitted[0].begin_wait();
        admitted[1].end_wait();
        let (stream, _client) = pair(&listener);
        let newcomer = connections.admit(stream).ok().unwrap();
        newcomer.end_wait();
        let is_open = |connection: &HttpConnection| connections.lock().by_id.contains_key(&connection.id);
        assert_eq!([0, 1, 2].map(|number| is_open(&admitted[number])), [true, true, false]);
        admitted[0].end_wait();
        let (stream, _client) = pair(&listener);
        assert!(connections.admit(stream).is_err(), "every connection has a request being answered");
        drop((admitted, newcomer));
        assert_eq!(connections.open(), 0);
    }
}
