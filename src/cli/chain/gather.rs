//! Asks the servers for some locks and for all that are waited for. Talks to the servers; draws no
//! conclusions.

use std::time::{Duration, Instant};

use lockd::broker::LockName;
use lockd::client::{MessageClient, ServerUrl};
use lockd::wire::message::{
    InspectRequest, InspectResult, ListRequest, ListResult, ListedLock, LockResult, Status,
};
use serde::de::DeserializeOwned;

/// What one server has told.
#[derive(Debug, Default)]
pub(in crate::cli) struct ServerListing {
    pub(super) url: String,
    /// The locks that were asked for, if they are in use, and all that have waiters.
    pub(super) locks: Vec<ListedLock>,
    /// Of the locks that were asked for, what a server tells that lists nothing.
    pub(super) counts: Vec<(LockName, InspectResult)>,
    /// Whether it has told anything about the locks that were asked for.
    pub(super) has_told: bool,
    /// Why not everything is known of this server.
    pub(super) gap: Option<String>,
}

/// What all servers have told.
#[derive(Debug)]
pub(in crate::cli) struct Listings {
    servers: Vec<ServerUrl>,
    pub(super) listed: Vec<ServerListing>,
}

impl Listings {
    /// Asks all servers at once, within `limit`, for these locks and for those that have waiters.
    pub(in crate::cli) fn gather(servers: &[ServerUrl], names: &[LockName], limit: Duration) -> Self {
        let deadline = Instant::now() + limit;
        let ask = |(index, server): (usize, &ServerUrl)| {
            let own = |name: &&LockName| ServerUrl::index_for(servers, name.as_bytes()) == index;
            let names: Vec<&LockName> = names.iter().filter(own).collect();
            let mut listing = ServerListing { url: server.as_str().to_owned(), ..ServerListing::default() };
            listing.gap = listing.fill(&names, deadline).err().map(|why| {
                let named = why.contains(server.as_str());
                if named { why } else { format!("{server}: {why}") }
            });
            listing
        };
        let ask = &ask;
        let listed = std::thread::scope(|scope| {
            let asked: Vec<_> =
                servers.iter().enumerate().map(|server| scope.spawn(move || ask(server))).collect();
            let failed = |server: &ServerUrl| ServerListing {
                url: server.as_str().to_owned(),
                gap: Some(format!("{server}: the thread that asked it has failed")),
                ..ServerListing::default()
            };
            let answers = asked.into_iter().zip(servers);
            answers.map(|(thread, server)| thread.join().unwrap_or_else(|_| failed(server))).collect()
        });
        Self { servers: servers.to_vec(), listed }
    }

    /// The index of the server that the name belongs to.
    pub(super) fn server_of(&self, name: &LockName) -> usize {
        ServerUrl::index_for(&self.servers, name.as_bytes())
    }

    /// Why not everything is known, one text for each server of which that is so.
    pub(in crate::cli) fn gaps(&self) -> Vec<String> {
        self.listed.iter().filter_map(|server| server.gap.clone()).collect()
    }

    #[cfg(test)]
    pub(super) fn of(urls: &str, locks: Vec<Vec<ListedLock>>) -> Self {
        let servers = ServerUrl::parse_list(urls).expect("they are right");
        let listing = |(server, locks): (&ServerUrl, Vec<ListedLock>)| ServerListing {
            url: server.as_str().to_owned(),
            locks,
            has_told: true,
            ..ServerListing::default()
        };
        let listed = servers.iter().zip(locks).map(listing).collect();
        Self { servers, listed }
    }
}

impl ServerListing {
    /// Asks the server. What it has told before an error is kept.
    fn fill(&mut self, names: &[&LockName], deadline: Instant) -> Result<(), String> {
        let client = MessageClient::connect(&self.url, left(deadline)).map_err(|error| error.to_string())?;
        for &name in names {
            // Among all names that begin with a name, the name itself is the first.
            let request = ListRequest { prefix: name.clone(), limit: 1, after: None, waiting: false };
            match list(&client, &request, deadline) {
                Ok(page) => {
                    self.has_told = true;
                    self.locks
                        .extend(page.locks.into_iter().filter(|lock| lock.name().as_ref() == Some(name)));
                }
                Err(why) => {
                    self.count(&client, names, deadline);
                    return Err(why);
                }
            }
        }
        let mut after = None;
        loop {
            let prefix = LockName::new(b"");
            let request = ListRequest { prefix, limit: ListRequest::LIMIT_MAX, after, waiting: true };
            let ListResult { locks, more, .. } = list(&client, &request, deadline)?;
            after = locks.last().and_then(ListedLock::name);
            // An older server lists the others, too.
            self.locks.extend(locks.into_iter().filter(|lock| !lock.waiters.is_empty()));
            if !more || after.is_none() {
                return Ok(());
            }
        }
    }

    /// Asks for the numbers of holders and waiters: a server that lists nothing tells these.
    fn count(&mut self, client: &MessageClient, names: &[&LockName], deadline: Instant) {
        for &name in names {
            let request = InspectRequest { name: name.clone() };
            if let Ok(seen) = result(client, "inspect", &request, deadline) {
                self.has_told = true;
                self.counts.push((name.clone(), seen));
            }
        }
    }
}

fn left(deadline: Instant) -> Duration {
    deadline.saturating_duration_since(Instant::now())
}

fn list(client: &MessageClient, request: &ListRequest, deadline: Instant) -> Result<ListResult, String> {
    result(client, "list", request, deadline)
}

/// The result of a command; the error says why the server has given no result.
fn result<T: DeserializeOwned>(
    client: &MessageClient,
    command: &str,
    parameters: &impl serde::Serialize,
    deadline: Instant,
) -> Result<T, String> {
    let told = client.rpc(command, parameters, Some(left(deadline))).map_err(|error| error.to_string())?;
    // Every result can be read as this, too.
    match serde_json::from_str(told.get()) {
        Ok(LockResult { status: Status::Ok, .. }) => {}
        Ok(LockResult { reason, .. }) => {
            return Err(reason.unwrap_or_else(|| format!("the server refuses {command}")));
        }
        Err(error) => return Err(error.to_string()),
    }
    serde_json::from_str(told.get()).map_err(|error| error.to_string())
}
