//! Whole conversations: up to four connections of different protocols against the server's speakers and a real
//! broker, without threads. What clients believe to hold, going by the replies alone, is compared with what
//! the broker says, after every step.
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

/// The longest line and the longest message: so short that inputs reach them.
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
        let server = room.connect(protocol, &address, path).expect("somebody listens");
        let (stream, _) = listener.accept().expect("somebody connects");
        Client::new(protocol, address, server, stream, shared_excludes)
    };
    let mut clients: Vec<Client> = script.protocols().into_iter().map(&mut enter).collect();
    while let Some(step) = script.next(&clients) {
        match step {
            Step::Say { who, bytes } => act(&mut clients, who, |client| client.say(&bytes)),
            Step::Expire { who } => act(&mut clients, who, Client::proceed),
            Step::HangUp { who, then } => {
                act(&mut clients, who, Client::hang_up);
                settle(&mut clients);
                check(&broker, &clients);
                clients[who] = enter(then);
            }
        }
        settle(&mut clients);
        check(&broker, &clients);
    }
    for who in 0..clients.len() {
        act(&mut clients, who, Client::hang_up);
        settle(&mut clients);
        check(&broker, &clients);
    }
    let stats = broker.stats();
    assert_eq!((stats.locks, stats.shared_locks, stats.waiting, stats.sessions), (0, 0, 0, 0));
});

/// Where the clients' ends of all connections are accepted.
fn clients_end() -> &'static (UnixListener, PathBuf) {
    static END: OnceLock<(UnixListener, PathBuf)> = OnceLock::new();
    END.get_or_init(|| {
        let name = format!("lockd-fuzz-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).expect("a name");
        let listener = UnixListener::bind_addr(&address).expect("a socket of our own");
        (listener, PathBuf::from(format!("\0{name}")))
    })
}

/// Lets one client do something. What it hears comes first: it has released before others have got.
fn act(clients: &mut [Client], who: usize, action: impl FnOnce(&mut Client)) {
    action(&mut clients[who]);
    clients[who].listen();
    if clients[who].is_cut_off() {
        clients[who].hang_up();
    }
    clients.iter_mut().for_each(Client::listen);
}

/// Lets the threads of the connections do what they would do now: go on with what stood behind a wait.
fn settle(clients: &mut [Client]) {
    while let Some(who) = (0..clients.len()).find(|&who| clients[who].can_go_on()) {
        act(clients, who, Client::proceed);
    }
}

/// A holder of a lock: space, name, whose, mode.
type Holder = (Space, LockName, String, Mode);

/// What clients believe is what there is, and no two of them exclude each other.
fn check(broker: &Broker, clients: &[Client]) {
    let (mut there_is, mut names) = (BTreeSet::new(), BTreeSet::new());
    let _ = broker.for_each_lock(|lock| {
        assert!(!lock.holders.is_empty() || !lock.waiters.is_empty(), "{lock:?} is nobody's");
        assert!(lock.mode.is_some() || lock.holders.is_empty(), "{lock:?} is held in no mode");
        assert!(lock.mode != Some(Mode::Exclusive) || lock.holders.len() == 1, "two holders: {lock:?}");
        for holder in &lock.holders {
            let mode = lock.mode.expect("just looked at");
            let address = holder.session.address().to_owned();
            there_is.insert((lock.key.space, lock.key.name.clone(), address, mode));
        }
        if lock.key.space == Space::Main {
            names.insert(lock.key.name.clone());
        }
        ControlFlow::<()>::Continue(())
    });
    let query = PageQuery { space: Space::Main, prefix: LockName::new(b""), after: None, limit: 1000 };
    let page = broker.page(&query);
    let listed: Vec<_> = page.locks.iter().map(|lock| lock.key.name.clone()).collect();
    assert!(!page.more && listed == names.into_iter().collect::<Vec<_>>(), "{listed:?}");
    let mut believed: BTreeSet<Holder> = BTreeSet::new();
    for client in clients {
        if client.is_certain() {
            believed.extend(client.holds());
        } else {
            there_is.retain(|(_, _, address, _)| address != client.address());
        }
    }
    assert_eq!(believed, there_is, "what clients believe to hold, and what they hold");
}
