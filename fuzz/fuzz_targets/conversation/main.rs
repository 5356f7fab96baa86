//! Whole conversations: up to four connections with the server's real protocol handlers and a real
//! broker, without threads. After every step, the locks that the clients believe to hold, judging
//! by the replies alone, are compared with the locks that the broker lists.
#![no_main]

mod client;
mod message;
mod phrases;
mod script;
mod text;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::PathBuf;
use std::sync::OnceLock;

use client::Client;
use libfuzzer_sys::fuzz_target;
use lockd::broker::{Broker, LockName, Mode, PageQuery, Space};
use lockd::server::fuzz_driver::FuzzServer;
use lockd::server::{Config, Protocol};
use script::{Script, Step};

/// The longest line and the longest message. They are short enough for inputs to exceed them.
const LINE_MAX: usize = 200;
const MESSAGE_MAX: usize = 700;

fuzz_target!(|data: &[u8]| {
    let Some(mut script) = Script::new(data) else { return };
    let broker = Broker::default();
    let [shared_excludes, no_dump, no_registry] = script.options();
    let config = Config {
        shared_excludes,
        dump: !no_dump,
        registry: !no_registry,
        line_bytes_max: LINE_MAX,
        message_bytes_max: MESSAGE_MAX,
        ..Config::default()
    };
    let room = FuzzServer::new(&broker, config).expect("there are descriptors");
    let mut number = 0;
    let mut enter = |protocol: Protocol| {
        number += 1;
        let (listener, path) = clients_end();
        let address = format!("unix:{number}");
        let server = room.connect(protocol, &address, path).expect("the listener is open");
        let (stream, _) = listener.accept().expect("the server's end has connected");
        Client::new(protocol, address, server, stream, shared_excludes)
    };
    let mut clients: Vec<Client> = script.protocols().into_iter().map(&mut enter).collect();
    while let Some(step) = script.next(&clients) {
        match step {
            Step::Send { client, bytes } => with_client(&mut clients, client, |sender| sender.send(&bytes)),
            Step::Expire { client } => with_client(&mut clients, client, Client::proceed),
            Step::Disconnect { client, next } => {
                with_client(&mut clients, client, Client::disconnect);
                settle(&mut clients);
                check(&broker, &clients);
                clients[client] = enter(next);
            }
        }
        settle(&mut clients);
        check(&broker, &clients);
    }
    for client in 0..clients.len() {
        with_client(&mut clients, client, Client::disconnect);
        settle(&mut clients);
        check(&broker, &clients);
    }
    let stats = broker.stats();
    assert_eq!((stats.locks, stats.shared_locks, stats.waiting, stats.sessions), (0, 0, 0, 0));
});

/// The listener that accepts the clients' ends of all connections, and its path.
fn clients_end() -> &'static (UnixListener, PathBuf) {
    static END: OnceLock<(UnixListener, PathBuf)> = OnceLock::new();
    END.get_or_init(|| {
        let name = format!("lockd-fuzz-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let listener = UnixListener::bind_addr(&address).expect("a socket of our own");
        (listener, PathBuf::from(format!("\0{name}")))
    })
}

/// Lets one client do something, and then all clients read their replies. This client reads first,
/// because it may have released a lock that another one has been granted.
fn with_client(clients: &mut [Client], client: usize, action: impl FnOnce(&mut Client)) {
    action(&mut clients[client]);
    clients[client].receive();
    if clients[client].is_disconnected() {
        clients[client].disconnect();
    }
    clients.iter_mut().for_each(Client::receive);
}

/// Does what the connections' threads would do now: handles the requests after a wait that has
/// ended.
fn settle(clients: &mut [Client]) {
    while let Some(client) = (0..clients.len()).find(|&client| clients[client].can_go_on()) {
        with_client(clients, client, Client::proceed);
    }
}

/// A holder of a lock: the space, the name, the address of the client, the mode.
type Holder = (Space, LockName, String, Mode);

/// Asserts that the clients believe to hold what the broker lists, and that no holder has more
/// company than its mode allows.
fn check(broker: &Broker, clients: &[Client]) {
    let (mut listed, mut names) = (BTreeSet::new(), BTreeSet::new());
    let _ = broker.for_each_lock(|lock| {
        assert!(!lock.holders.is_empty() || !lock.waiters.is_empty(), "{lock:?} has no holders or waiters");
        assert!(lock.mode.is_some() || lock.holders.is_empty(), "{lock:?} is held without a mode");
        assert_eq!(lock.mode, lock.holders.iter().map(|holder| holder.mode).min(), "{lock:?}");
        for holder in &lock.holders {
            let most = holder.mode.holders_max().unwrap_or(u32::MAX);
            assert!(lock.holders.len() <= most as usize, "more holders than one was promised: {lock:?}");
            let address = holder.session.address().to_owned();
            listed.insert((lock.key.space, lock.key.name.clone(), address, holder.mode));
        }
        if lock.key.space == Space::Main {
            names.insert(lock.key.name.clone());
        }
        ControlFlow::<()>::Continue(())
    });
    let query = PageQuery { space: Space::Main, prefix: LockName::new(b""), after: None, limit: 1000 };
    let page = broker.page(&query);
    let on_page: Vec<_> = page.locks.iter().map(|lock| lock.key.name.clone()).collect();
    assert!(!page.more && on_page == names.into_iter().collect::<Vec<_>>(), "{on_page:?}");
    let mut believed: BTreeSet<Holder> = BTreeSet::new();
    for client in clients {
        if client.is_certain() {
            believed.extend(client.holds());
        } else {
            listed.retain(|(_, _, address, _)| address != client.address());
        }
    }
    assert_eq!(
        believed, listed,
        "the locks that the clients believe to hold, and those that the broker lists"
    );
}
