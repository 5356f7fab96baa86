//! Servers of lockd that are members of one cluster, on an etcd of their own. All of them are killed
//! when this is dropped.

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use lockd::etcd::Etcd;
use rustix::process::{Pid, Signal};
use serde_json::Value;
use tempfile::TempDir;

use crate::etcd::{EtcdCluster, pause};
use crate::support::environment::without_options;
use crate::support::eventually;
use crate::support::frame_client::FrameClient;
use crate::support::server::{Launch, Server, program};
use crate::support::socket::{Endpoint, try_connect};

/// The shortest allowed dead-peer timeout: nothing is granted for so long after a crash.
pub(crate) const DEAD_PEER_TIMEOUT: Duration = Duration::from_secs(12);
/// The longest leader timeout that goes with it, so that a busy machine ends no server that should
/// stay active.
const LEADER_TIMEOUT: &str = "2";
const NAME: &str = "main";
const PROTOCOLS: [&str; 4] = ["message", "lockd", "glockd", "http"];
/// How long a page is waited for. A server that is stopped never answers.
const PAGE_LIMIT: Duration = Duration::from_secs(5);

/// Each protocol, and where it is served.
type Addresses = [(&'static str, String); PROTOCOLS.len()];

/// A member of the cluster.
struct Member {
    addresses: Addresses,
    /// The options with which it is started again.
    options: Vec<String>,
    control: PathBuf,
    server: Server,
    is_stopped: bool,
    /// It was killed, or has been waited for.
    has_ended: bool,
}

pub(crate) struct Cluster {
    // In this order they are dropped: nothing is left that would still look for etcd.
    members: Vec<Member>,
    pub(crate) etcd: EtcdCluster,
    url: String,
    /// An address of this host that no other cluster has, so that no other listens at the port of a
    /// member that has ended.
    host: Ipv4Addr,
    directory: TempDir,
}

impl Cluster {
    /// Starts `count` servers, one of which is active when this returns.
    pub(crate) fn start(count: usize) -> Self {
        let mut cluster = Self::on(EtcdCluster::start(1));
        for _ in 0..count {
            cluster.add(&[]);
        }
        cluster.await_active();
        cluster
    }

    /// A cluster without a server yet.
    pub(crate) fn on(etcd: EtcdCluster) -> Self {
        let url = etcd.url(NAME);
        Self { members: Vec::new(), etcd, url, host: own_host(), directory: tempfile::tempdir().unwrap() }
    }

    /// The same for servers that are given this address of etcd.
    pub(crate) fn at(self, url: String) -> Self {
        Self { url, ..self }
    }

    /// The options of a server that need not wait for a first grace, and listens nowhere.
    pub(crate) fn options(&self) -> Vec<String> {
        let seconds = DEAD_PEER_TIMEOUT.as_secs().to_string();
        ["--cluster", &self.url, "--dead-peer-timeout", &seconds, "--leader-timeout", LEADER_TIMEOUT]
            .into_iter()
            .chain(["--first-start"])
            .map(str::to_owned)
            .collect()
    }

    /// Starts one more server, with these options in addition to the usual ones.
    pub(crate) fn add(&mut self, more: &[&str]) -> usize {
        let options = [self.options(), more.iter().map(|&option| option.to_owned()).collect()].concat();
        self.add_with(options)
    }

    /// Starts one more server, with these options, and addresses and a control socket in addition.
    pub(crate) fn add_with(&mut self, mut options: Vec<String>) -> usize {
        let index = self.members.len();
        let control = self.directory.path().join(format!("control {index}"));
        options.extend(["--control".to_owned(), text(&control).to_owned()]);
        let any = PROTOCOLS.map(|protocol| (protocol, format!("{}:0", self.host)));
        let server = launch(any, &options);
        let addresses = PROTOCOLS.map(|protocol| (protocol, address(&server, protocol)));
        self.members.push(Member {
            addresses,
            options,
            control,
            server,
            is_stopped: false,
            has_ended: false,
        });
        index
    }

    /// Starts a server that has ended once more, at the same addresses.
    pub(crate) fn start_again(&mut self, index: usize) {
        let member = &mut self.members[index];
        assert!(member.has_ended, "it runs");
        member.server = launch(member.addresses.clone(), &member.options);
        (member.has_ended, member.is_stopped) = (false, false);
    }

    pub(crate) fn server(&self, index: usize) -> &Server {
        &self.members[index].server
    }

    /// A client of the server that speaks `message`.
    pub(crate) fn message(&self, index: usize) -> FrameClient {
        self.server(index).message()
    }

    /// Where clients find the server, as others are told.
    pub(crate) fn place(&self, index: usize) -> String {
        address(self.server(index), "message")
    }

    /// All servers as one, for clients.
    pub(crate) fn group(&self) -> String {
        let places: Vec<String> = (0..self.members.len()).map(|index| self.place(index)).collect();
        format!("tcp://{}", places.join(","))
    }

    /// A client of the etcd that the servers use.
    pub(crate) fn keys(&self) -> Etcd {
        Etcd::new(&self.url.parse().unwrap()).unwrap()
    }

    /// The whole name of a key in etcd.
    pub(crate) fn key(name: &str) -> String {
        format!("/lockd/{NAME}/{name}")
    }

    /// The server that says that it is active, if one does.
    pub(crate) fn active(&self) -> Option<usize> {
        let runs = |member: &Member| !member.is_stopped && !member.has_ended;
        let is_active = |member: &Member| get(&member.server, "/healthz").is_some_and(|page| page.0 == 200);
        self.members.iter().position(|member| runs(member) && is_active(member))
    }

    pub(crate) fn await_active(&self) -> usize {
        let mut active = None;
        eventually("a server is active", || {
            active = self.active();
            active.is_some()
        });
        active.unwrap()
    }

    /// Waits until another server is active than this one, which was.
    pub(crate) fn await_next(&self, before: usize) -> usize {
        let mut active = None;
        eventually("another server is active", || {
            active = self.active();
            active.is_some_and(|active| active != before)
        });
        active.unwrap()
    }

    /// Waits until the server says that it is a standby, and that this one is active.
    pub(crate) fn await_standby(&self, index: usize, active: usize) {
        let words = format!("standby of the cluster {NAME}; the active server is {}\n", self.place(active));
        eventually(&words, || self.page(index, "/healthz") == Some((503, words.clone())));
    }

    /// A page of the server: its status and its text.
    pub(crate) fn page(&self, index: usize, path: &str) -> Option<(u16, String)> {
        get(self.server(index), path)
    }

    /// A figure of the server, if there is one.
    pub(crate) fn metric(&self, index: usize, name: &str) -> Option<f64> {
        let (_, page) = self.page(index, "/metrics").expect("a page");
        page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// Waits for a line of the server's log, and returns it.
    pub(crate) fn await_log(&self, index: usize, part: &str) -> String {
        let mut found = None;
        eventually(part, || {
            found = self.server(index).log().into_iter().find(|line| line.contains(part));
            found.is_some()
        });
        found.unwrap()
    }

    /// Kills the server.
    pub(crate) fn kill(&mut self, index: usize) {
        self.server(index).signal(Signal::KILL);
        assert_eq!(self.end(index), Ended::Killed);
    }

    /// Tells the server to stop, and returns how it has ended.
    pub(crate) fn terminate(&mut self, index: usize) -> Ended {
        self.server(index).signal(Signal::TERM);
        self.end(index)
    }

    /// Stops the process of the server, and waits until it has stopped. Its kernel goes on to answer for
    /// it.
    pub(crate) fn pause(&mut self, index: usize) {
        self.members[index].is_stopped = true;
        pause(Pid::from_raw(self.server(index).pid().try_into().unwrap()).unwrap());
    }

    /// Lets the process of the server go on.
    pub(crate) fn go_on(&mut self, index: usize) {
        self.server(index).signal(Signal::CONT);
        self.members[index].is_stopped = false;
    }

    /// Waits until the server has ended by itself.
    pub(crate) fn end(&mut self, index: usize) -> Ended {
        use std::os::unix::process::ExitStatusExt;
        let member = &mut self.members[index];
        let status = member.server.wait();
        member.has_ended = true;
        match (status.code(), status.signal()) {
            (Some(code), _) => Ended::With(code),
            (None, Some(9)) => Ended::Killed,
            other => panic!("ended by {other:?}"),
        }
    }

    /// Has the server stand down, which it must not refuse, and waits for its end.
    pub(crate) fn stand_down(&mut self, index: usize) -> Ended {
        let (code, said, errors) = self.ask(index, "stand-down");
        assert_eq!((code, errors.as_str()), (0, ""));
        assert!(said.contains("handed over"), "{said}");
        self.end(index)
    }

    /// Gives an order by the server's control socket: the exit status, standard output and error.
    pub(crate) fn ask(&self, index: usize, order: &str) -> (i32, String, String) {
        let mut command = Command::new(program());
        without_options(&mut command).arg(order).arg("--control").arg(&self.members[index].control);
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }
}

/// How a server has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    With(i32),
    Killed,
}

/// Starts a server that listens at these addresses, before those of its options.
fn launch(addresses: Addresses, options: &[String]) -> Server {
    let launch = addresses.into_iter().fold(Launch::new(), |launch, (protocol, address)| match protocol {
        "http" => launch.option("--http", &address).expecting(1),
        protocol => launch.listen(&format!("{protocol}://{address}")),
    });
    let more = options.iter().filter(|option| *option == "--listen").count();
    launch.args(options.iter().map(String::as_str)).expecting(more).start()
}

/// Where the server serves this protocol.
fn address(server: &Server, protocol: &str) -> String {
    match server.tcp_endpoint(protocol) {
        Endpoint::Tcp(address) => address.to_string(),
        Endpoint::Unix(_) => unreachable!("it was asked for TCP"),
    }
}

/// A page of the server; `None` if there is no answer.
fn get(server: &Server, path: &str) -> Option<(u16, String)> {
    let mut socket = try_connect(&server.tcp_endpoint("http")).ok()?;
    socket.set_read_timeout(Some(PAGE_LIMIT)).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).ok()?;
    let status = answer.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
}

/// The token of a grant.
pub(crate) fn token(granted: &Value) -> u64 {
    assert_eq!(granted["status"], "ok", "{granted}");
    granted["token"].as_u64().unwrap()
}

/// An address of this host that only one cluster of all test programs has, as a rule.
fn own_host() -> Ipv4Addr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let [high, low] = u16::try_from(std::process::id() & 0xffff)
        .unwrap()
        .wrapping_mul(97)
        .wrapping_add(number)
        .to_be_bytes();
    Ipv4Addr::new(127, 128 | high, low, 9)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
