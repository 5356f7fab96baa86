//! Servers in this process, and what tests ask of sessions again and again.

use std::time::{Duration, Instant};

use lockd::broker::{AcquireError, Broker, Inspection, Limits, LockName, Mode};
use lockd::client;
use lockd::server::{Config, Server, Service};

pub(crate) const SOON: Duration = Duration::from_secs(20);
pub(crate) const NOW: Option<Duration> = Some(Duration::ZERO);

pub(crate) fn serve_with(service: Service) -> (Server, String) {
    let listen = vec!["message://127.0.0.1:0".parse().unwrap()];
    let config = Config { listen, ..Config::default() };
    let server = Server::start(&Broker::new(Limits::default()), config, service).unwrap();
    let url = server.addresses()[0].to_string();
    (server, url)
}

pub(crate) fn serve() -> (Server, String) {
    serve_with(Service::locks())
}

pub(crate) fn connect(url: &str) -> client::Session {
    client::Session::connect(url, None, SOON).unwrap()
}

/// Waits until the name is as `is` wants it.
pub(crate) fn until(session: &client::Session, name: &[u8], is: impl Fn(Inspection) -> bool) {
    let deadline = Instant::now() + SOON;
    while !is(session.inspect(name).unwrap()) {
        assert!(Instant::now() < deadline, "never as expected: {:?}", session.inspect(name));
    }
}

pub(crate) fn names(names: &[&str]) -> Vec<LockName> {
    names.iter().map(|&name| name.into()).collect()
}

pub(crate) fn exclusive(wanted: &[&str]) -> Vec<(LockName, Mode)> {
    names(wanted).into_iter().map(|name| (name, Mode::Exclusive)).collect()
}

pub(crate) fn is_lost<T>(result: &Result<T, AcquireError>) -> bool {
    matches!(result, Err(AcquireError::Lost(_)))
}
