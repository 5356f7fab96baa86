//! The addresses of one end point. Resolving a name blocks for as long as the system likes, so a
//! thread does it, one for each end point at most, and callers wait for it no longer than they may.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use super::url::EtcdEndPoint;
use crate::os::sync::{Arc, Condvar, Mutex};
use crate::os::thread::{SignalsBlocked, Thread};

/// What runs there is the resolver of the C library, with whatever modules it is told to load.
const STACK_BYTES: usize = 1 << 20;

/// The addresses of one end point.
#[derive(Debug)]
pub(super) struct EndPointAddresses {
    end_point: EtcdEndPoint,
    /// If the host is written as an address.
    literal: Option<SocketAddr>,
    look_up: Arc<LookUp>,
}

#[derive(Debug, Default)]
struct LookUp {
    state: Mutex<LookUpState>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct LookUpState {
    is_running: bool,
    /// Why the last one has failed.
    error: Option<String>,
    /// What the last one that succeeded has found.
    known: Vec<SocketAddr>,
}

impl EndPointAddresses {
    pub(super) fn new(end_point: &EtcdEndPoint) -> Self {
        let literal = end_point.host.parse::<IpAddr>().ok();
        Self {
            end_point: end_point.clone(),
            literal: literal.map(|address| SocketAddr::new(address, end_point.port)),
            look_up: Arc::default(),
        }
    }

    /// At least one address. If the name cannot be resolved in half of the time, those that it had
    /// before: the end point should not be lost together with the name server.
    pub(super) fn resolve(&self, deadline: Instant) -> Result<Vec<SocketAddr>, String> {
        if let Some(address) = self.literal {
            return Ok(vec![address]);
        }
        let mut state = self.look_up.state.lock();
        if !state.is_running {
            self.start().map_err(|error| format!("no thread to resolve its name: {error}"))?;
            state.is_running = true;
        }
        let rest = deadline.saturating_duration_since(Instant::now());
        let limit = if state.known.is_empty() { rest } else { rest / 2 };
        let (state, _) =
            self.look_up.ended.wait_timeout_while(state, limit, |state: &mut LookUpState| state.is_running);
        match &state.error {
            _ if !state.known.is_empty() => Ok(state.known.clone()),
            Some(error) if !state.is_running => Err(format!("its name cannot be resolved: {error}")),
            _ => Err(format!("its name was not resolved within {}", in_words(limit))),
        }
    }

    fn start(&self) -> std::io::Result<()> {
        let (EtcdEndPoint { host, port }, look_up) = (self.end_point.clone(), self.look_up.clone());
        let signals = SignalsBlocked::new()?;
        let started = Thread::start(c"etcd-name", STACK_BYTES, move || {
            let found = (host.as_str(), port).to_socket_addrs();
            let mut state = look_up.state.lock();
            state.is_running = false;
            match found.map(Iterator::collect::<Vec<_>>) {
                Ok(addresses) if !addresses.is_empty() => state.known = addresses,
                Ok(_) => state.error = Some("it has no address".to_owned()),
                Err(error) => state.error = Some(error.to_string()),
            }
            drop(state);
            look_up.ended.notify_all();
        });
        drop(signals);
        started.map(drop)
    }
}

/// A time limit for people.
pub(super) fn in_words(limit: Duration) -> String {
    format!("{} ms", limit.as_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(host: &str) -> EndPointAddresses {
        EndPointAddresses::new(&EtcdEndPoint { host: host.to_owned(), port: 7 })
    }

    #[test]
    fn addresses_need_no_time_and_names_no_more_than_they_may() {
        let now = Instant::now();
        for host in ["127.0.0.1", "::1"] {
            let expected = SocketAddr::new(host.parse().unwrap(), 7);
            assert_eq!(addresses(host).resolve(now).unwrap(), [expected]);
        }
        let found = addresses("localhost").resolve(now + Duration::from_secs(20)).unwrap();
        assert!(found.iter().all(|address| address.ip().is_loopback() && address.port() == 7), "{found:?}");
        let error = addresses("a..b").resolve(now + Duration::from_secs(20)).unwrap_err();
        assert!(error.contains("name"), "{error}");
    }

    #[test]
    fn known_addresses_outlive_the_name_server() {
        let addresses = addresses("a..b");
        let known = SocketAddr::from(([127, 0, 0, 1], 7));
        addresses.look_up.state.lock().known.push(known);
        let soon = Instant::now() + Duration::from_secs(20);
        assert_eq!(addresses.resolve(soon).unwrap(), [known]);
        assert_eq!(addresses.resolve(Instant::now()).unwrap(), [known], "no time");
    }
}
