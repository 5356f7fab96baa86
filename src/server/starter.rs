//! The thread that starts the threads of connections from an earlier image of the program. Most
//! clients send nothing for now, and to start thousands of threads at once would keep the others
//! waiting. So a connection gets its thread when its client sends something or ends it, when another
//! thread closes it, or at once if there is something to do that does not wait for the client.
//!
//! Until then a connection is parked all the time: its [state](ParkedState) is as it was restored.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::Ordering::Acquire;
use std::time::Duration;

use super::message::Service;
use super::parking::ParkedState;
use super::serve::{RestoredConnection, RestoredSession, serve_restored, start_thread};
use super::server_state::ServerState;
use crate::os::socket::Readiness;
use crate::os::sync::{Arc, Mutex};

/// How long to pause when no thread can be started.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(50);
/// What the waker of a stop is known by. No connection has this number.
const STOP: u64 = u64::MAX;

pub(super) struct Starter {
    server: Arc<ServerState>,
    service: Arc<Service>,
    readiness: Readiness,
    /// The connections whose threads have something to do from the start.
    due_at_once: Vec<u64>,
    /// The connections without a thread, by their numbers.
    dormant: Mutex<BTreeMap<u64, RestoredConnection>>,
}

impl Starter {
    /// # Errors
    /// If there are no descriptors or memory left.
    pub(super) fn new(
        server: Arc<ServerState>,
        service: Arc<Service>,
        connections: Vec<RestoredConnection>,
    ) -> io::Result<Self> {
        let readiness = Readiness::new()?;
        readiness.add(&server.stop, STOP)?;
        for connection in &connections {
            readiness.add(&connection.accepted.send_queue.stream, connection.accepted.id)?;
        }
        let due = connections.iter().filter(|connection| is_due(connection));
        let due_at_once = due.map(|connection| connection.accepted.id).collect();
        let by_number = |connection: RestoredConnection| (connection.accepted.id, connection);
        let dormant = Mutex::new(connections.into_iter().map(by_number).collect());
        Ok(Self { server, service, readiness, due_at_once, dormant })
    }

    /// The states of the connections that have no thread. To be called while the threads are
    /// parked.
    pub(super) fn parked_states(&self) -> BTreeMap<u64, ParkedState> {
        self.dormant.lock().iter().map(|(&id, connection)| (id, connection.state.clone())).collect()
    }

    /// Starts threads until every connection has one. If the server stops, all of them get theirs
    /// at once, in which they end.
    pub(super) fn run(&self) {
        let mut due = self.due_at_once.clone();
        while !self.dormant.lock().is_empty() {
            self.server.parking.park_if_requested(|| None);
            let is_stopping = self.server.stopping.load(Acquire) || self.server.broker.has_failed();
            if is_stopping {
                due = self.dormant.lock().keys().copied().collect();
            }
            due.retain(|&id| !self.start(id, is_stopping));
            let pause = (!due.is_empty()).then_some(EXHAUSTED_PAUSE);
            match self.readiness.wait(pause) {
                Ok(ready) => due.extend(ready.into_iter().filter(|&id| id != STOP)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // It cannot tell which of them are ready, so all of them may be.
                Err(_) => due = self.dormant.lock().keys().copied().collect(),
            }
        }
    }

    /// Starts the thread of a connection. False if that must be tried again. If the server is
    /// stopping, and no thread can be started, the connection ends in this one.
    fn start(&self, id: u64, is_stopping: bool) -> bool {
        let Some(restored) = self.dormant.lock().remove(&id) else { return true };
        let send_queue = restored.accepted.send_queue.clone();
        self.readiness.remove(&send_queue.stream);
        // The work is dropped if no thread can be started, but the connection must not be.
        let handed = Arc::new(Mutex::new(Some(restored)));
        let (taken, service) = (handed.clone(), self.service.clone());
        let work = move || {
            let restored = taken.lock().take();
            if let Some(restored) = restored {
                serve_restored(restored, service);
            }
        };
        let started = start_thread(&self.server, id, work);
        let Err(error) = started else { return true };
        log::debug!("no thread for connection {id}: {error}");
        let Some(restored) = handed.lock().take() else { return true };
        if is_stopping {
            send_queue.close();
            serve_restored(restored, self.service.clone());
            return true;
        }
        self.dormant.lock().insert(id, restored);
        false
    }
}

/// Whether the thread of this connection has something to do already.
fn is_due(connection: &RestoredConnection) -> bool {
    let (ParkedState::Conversation { input, .. }, Some(RestoredSession { session, .. })) =
        (&connection.state, &connection.session)
    else {
        return true;
    };
    // A wait with a time limit is ended by the connection's own thread.
    !input.is_empty() || connection.accepted.send_queue.is_closing() || session.expire().is_some()
}
