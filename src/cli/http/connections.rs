//! The connections that are open. There is a limit, and a newcomer gets in nevertheless: in place of the one that has
//! waited for its client longest, be it for a request or for a response to be read. So clients that say nothing, or
//! read nothing, keep nobody out, and above all not the one who asks whether the server is well.

use std::collections::HashMap;
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

/// All of them.
pub(super) struct Connections {
    open: Mutex<Open>,
    most: usize,
}

#[derive(Default)]
struct Open {
    entries: HashMap<u64, Entry>,
    /// The highest number given so far: for connections, and for the moments at which they begin to wait.
    last: u64,
    displaced: u64,
}

struct Entry {
    stream: Arc<TcpStream>,
    /// When it began to wait for its client, if it does: the lower the longer ago.
    waits_since: Option<u64>,
}

impl Open {
    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Ends the connection that has waited for its client longest. False if none waits.
    fn displace(&mut self) -> bool {
        let waiting = self.entries.iter().filter_map(|(&id, entry)| Some((entry.waits_since?, id)));
        let Some(entry) = waiting.min().and_then(|(_, id)| self.entries.remove(&id)) else { return false };
        self.displaced += 1;
        // Its thread finds out, and ends. It fails if the client has ended the connection already.
        let _ = entry.stream.shutdown(Shutdown::Both);
        true
    }
}

impl Connections {
    pub(super) fn for_at_most(most: usize) -> Arc<Self> {
        Arc::new(Self { open: Mutex::default(), most })
    }

    /// How many are open.
    pub(super) fn open(&self) -> usize {
        self.lock().entries.len()
    }

    /// How many have been ended to make room for others.
    pub(super) fn displaced(&self) -> u64 {
        self.lock().displaced
    }

    /// Lets a connection in, which waits for its client's first request; gives it back if every other one is being
    /// worked for.
    pub(super) fn let_in(self: &Arc<Self>, stream: TcpStream) -> Result<Connection, TcpStream> {
        let mut open = self.lock();
        if open.entries.len() >= self.most && !open.displace() {
            return Err(stream);
        }
        let stream = Arc::new(stream);
        let id = open.next();
        open.entries.insert(id, Entry { stream: stream.clone(), waits_since: Some(id) });
        Ok(Connection { all: self.clone(), id, stream })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock()
    }
}

/// A connection that has been let in, until this is dropped.
pub(super) struct Connection {
    all: Arc<Connections>,
    id: u64,
    pub(super) stream: Arc<TcpStream>,
}

impl Connection {
    /// From now on it waits for its client.
    pub(super) fn begin_wait(&self) {
        let mut open = self.all.lock();
        let now = open.next();
        if let Some(entry) = open.entries.get_mut(&self.id) {
            entry.waits_since = Some(now);
        }
    }

    /// From now on its client waits, so it makes room for nobody.
    pub(super) fn end_wait(&self) {
        if let Some(entry) = self.all.lock().entries.get_mut(&self.id) {
            entry.waits_since = None;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.all.lock().entries.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;

    /// Both ends of a connection.
    fn pair(listener: &TcpListener) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (listener.accept().unwrap().0, client)
    }

    #[test]
    fn the_one_that_has_waited_longest_makes_room() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connections = Connections::for_at_most(3);
        let (mut inside, mut clients) = (Vec::new(), Vec::new());
        let mut come = |clients: &mut Vec<TcpStream>| {
            let (stream, client) = pair(&listener);
            clients.push(client);
            connections.let_in(stream).map(|connection| inside.push(connection)).is_ok()
        };
        (0..3).for_each(|_| assert!(come(&mut clients)));
        assert!(come(&mut clients) && come(&mut clients));
        assert_eq!((connections.open(), connections.displaced()), (3, 2));
        for (number, mut client) in clients.drain(..).enumerate() {
            client.set_nonblocking(true).unwrap();
            assert_eq!(client.read(&mut [0]).is_ok_and(|read| read == 0), number < 2, "{number}");
        }
        inside.drain(..2);
        assert_eq!(connections.open(), 3, "those that made room have left already");
        inside[0].begin_wait();
        inside[1].end_wait();
        let (stream, _client) = pair(&listener);
        let newcomer = connections.let_in(stream).ok().unwrap();
        newcomer.end_wait();
        let is_open = |connection: &Connection| connections.lock().entries.contains_key(&connection.id);
        assert_eq!([0, 1, 2].map(|number| is_open(&inside[number])), [true, true, false]);
        inside[0].end_wait();
        let (stream, _client) = pair(&listener);
        assert!(connections.let_in(stream).is_err(), "all are worked for");
        drop((inside, newcomer));
        assert_eq!(connections.open(), 0);
    }
}
