//! A real etcd cluster of one or three members on this host, for one test. It is killed when it is
//! dropped. Its data are in memory, where the system has a directory for that.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tempfile::TempDir;

use crate::support::{DEADLINE, eventually};

const MISSING: &str = "the tests of clusters need etcd: `make test-tools` installs it (Debian: etcd-server)";
/// Clusters that are tried until all ports of one are free.
const ATTEMPTS: usize = 10;
/// Room for the files that a few members allocate in advance.
const ROOM_BYTES: u64 = 4 << 30;

/// The files of etcd's side for TLS with clients, who must show a certificate, too.
#[derive(Clone, Debug)]
pub(crate) struct EtcdTls {
    /// The authority that has signed the certificates of both sides.
    pub(crate) ca: PathBuf,
    /// A certificate for 127.0.0.1, and its key.
    pub(crate) cert_and_key: PathBuf,
}

/// One member.
struct Member {
    name: String,
    client_port: u16,
    peer_port: u16,
    /// Where it says how it is, without TLS and without users.
    health_port: u16,
    process: Option<Child>,
    is_stopped: bool,
}

pub(crate) struct EtcdCluster {
    /// Where clients reach it.
    host: Ipv4Addr,
    members: Vec<Member>,
    tls: Option<EtcdTls>,
    directory: TempDir,
}

impl EtcdCluster {
    /// Starts `count` members, and waits until they serve.
    pub(crate) fn start(count: usize) -> Self {
        Self::start_with(count, None)
    }

    pub(crate) fn start_with(count: usize, tls: Option<EtcdTls>) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST, count, tls)
    }

    /// The same, with another address for clients. It must be one of the calling thread's network.
    pub(crate) fn start_at(host: Ipv4Addr, count: usize, tls: Option<EtcdTls>) -> Self {
        run_first();
        // Another program may take a port between the moment at which it is found to be free and
        // the moment at which etcd listens.
        for _ in 0..ATTEMPTS {
            let mut cluster = Self::new(host, count, tls.clone());
            for index in 0..count {
                cluster.spawn(index);
            }
            if (0..count).all(|index| cluster.serves_soon(index)) {
                return cluster;
            }
            if !cluster.log().contains("address already in use") {
                panic!("etcd does not serve: {}", cluster.log());
            }
        }
        panic!("no free ports for etcd");
    }

    fn new(host: Ipv4Addr, count: usize, tls: Option<EtcdTls>) -> Self {
        let member = |index| Member {
            name: format!("m{index}"),
            client_port: free_port(),
            peer_port: free_port(),
            health_port: free_port(),
            process: None,
            is_stopped: false,
        };
        Self { host, members: (0..count).map(member).collect(), tls, directory: data_directory() }
    }

    /// The address for lockd's option, with all members.
    pub(crate) fn url(&self, name: &str) -> String {
        let places: Vec<String> = (0..self.members.len()).map(|index| self.place(index)).collect();
        format!("{}://{}/{name}", self.scheme(), places.join(","))
    }

    pub(crate) fn scheme(&self) -> &str {
        if self.tls.is_some() { "etcd+tls" } else { "etcd" }
    }

    /// HOST:PORT of one member.
    pub(crate) fn place(&self, index: usize) -> String {
        format!("{}:{}", self.host, self.members[index].client_port)
    }

    /// Stops the member's process. Its kernel goes on to answer for it.
    pub(crate) fn stop(&mut self, index: usize) {
        self.members[index].is_stopped = true;
        pause(Pid::from_child(self.members[index].process.as_ref().expect("it was not killed")));
    }

    pub(crate) fn go_on(&mut self, index: usize) {
        self.signal(index, Signal::CONT);
        self.members[index].is_stopped = false;
    }

    pub(crate) fn kill(&mut self, index: usize) {
        self.members[index].kill();
    }

    /// Starts a member that was killed, with the data that it had, and waits until it serves.
    pub(crate) fn restart(&mut self, index: usize) {
        self.kill(index);
        self.spawn(index);
        assert!(self.serves_soon(index), "etcd does not serve again: {}", self.log());
    }

    /// The member that leads the others, of those that run.
    pub(crate) fn leader(&self) -> usize {
        let mut leader = None;
        let leads = |member: &Member| {
            member.get("/metrics").is_some_and(|page| page.contains("\netcd_server_is_leader 1\n"))
        };
        eventually("etcd has a leader", || {
            leader = self.members.iter().position(|member| member.runs() && leads(member));
            leader.is_some()
        });
        leader.unwrap()
    }

    fn signal(&self, index: usize, signal: Signal) {
        let process = self.members[index].process.as_ref().expect("it was not killed");
        kill_process(Pid::from_child(process), signal).unwrap();
    }

    fn spawn(&mut self, index: usize) {
        let mut etcd = Command::new("etcd");
        etcd.args(self.arguments(index)).stdin(Stdio::null()).stdout(Stdio::null());
        etcd.stderr(File::options().create(true).append(true).open(self.log_path()).unwrap());
        // It refuses to run on anything else than x86_64 unless it is told to.
        if cfg!(target_arch = "aarch64") {
            etcd.env("ETCD_UNSUPPORTED_ARCH", "arm64");
        }
        let spawned = etcd.spawn().unwrap_or_else(|error| panic!("{MISSING}: {error}"));
        let member = &mut self.members[index];
        member.process = Some(spawned);
        member.is_stopped = false;
    }

    fn arguments(&self, index: usize) -> Vec<String> {
        let member = &self.members[index];
        let peer = |member: &Member| format!("http://127.0.0.1:{}", member.peer_port);
        let all: Vec<String> =
            self.members.iter().map(|member| format!("{}={}", member.name, peer(member))).collect();
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let client = format!("{scheme}://{}", self.place(index));
        let directory = self.directory.path();
        let mut arguments: Vec<String> = [
            ("--name", member.name.clone()),
            ("--data-dir", directory.join(&member.name).display().to_string()),
            ("--listen-client-urls", client.clone()),
            ("--advertise-client-urls", client),
            ("--listen-peer-urls", peer(member)),
            ("--initial-advertise-peer-urls", peer(member)),
            ("--initial-cluster", all.join(",")),
            // Clusters of two tests must not take each other for their own.
            ("--initial-cluster-token", directory.display().to_string()),
            ("--listen-metrics-urls", format!("http://127.0.0.1:{}", member.health_port)),
            // Machines with tests are slow.
            ("--heartbeat-interval", "100".to_owned()),
            ("--election-timeout", "1000".to_owned()),
            ("--logger", "zap".to_owned()),
            ("--log-level", "warn".to_owned()),
        ]
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect();
        if let Some(EtcdTls { ca, cert_and_key }) = &self.tls {
            let path = |path: &Path| path.display().to_string();
            arguments.push("--client-cert-auth".to_owned());
            arguments.extend(["--trusted-ca-file".to_owned(), path(ca)]);
            arguments.extend(["--cert-file".to_owned(), path(cert_and_key)]);
            arguments.extend(["--key-file".to_owned(), path(cert_and_key)]);
        }
        arguments
    }

    /// Waits until the member serves; false if it ends instead.
    fn serves_soon(&mut self, index: usize) -> bool {
        let member = &mut self.members[index];
        let (mut serves, mut has_ended) = (false, false);
        eventually("etcd serves", || {
            has_ended = member.process.as_mut().is_none_or(|process| process.try_wait().unwrap().is_some());
            serves = member.get("/health").is_some_and(|page| page.contains("\"true\""));
            serves || has_ended
        });
        serves && !has_ended
    }

    fn log_path(&self) -> PathBuf {
        self.directory.path().join("log")
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }
}

impl Drop for EtcdCluster {
    fn drop(&mut self) {
        self.members.iter_mut().for_each(Member::kill);
    }
}

impl Member {
    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    fn runs(&self) -> bool {
        self.process.is_some() && !self.is_stopped
    }

    /// A page of its own HTTP server; `None` if there is no answer.
    fn get(&self, path: &str) -> Option<String> {
        let fetch = || -> io::Result<String> {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, self.health_port));
            let mut stream = TcpStream::connect_timeout(&address, DEADLINE)?;
            // A member without a leader takes its time; it is asked again.
            stream.set_read_timeout(Some(Duration::from_secs(2)))?;
            write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
            let mut page = String::new();
            stream.read_to_string(&mut page)?;
            Ok(page)
        };
        fetch().ok()
    }
}

/// Stops a child of this process, and waits until every thread of it has stopped.
pub(crate) fn pause(child: Pid) {
    kill_process(child, Signal::STOP).unwrap();
    let is_stopped = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    eventually("it is stopped", || waitid(WaitId::Pid(child), is_stopped).unwrap().is_some());
}

/// Lets the calling thread, and what it starts from now on, run before others, if that is allowed:
/// to root. A server that a busy machine keeps from running for too long does not stay active.
pub(crate) fn run_first() {
    const NICE: i32 = -10;
    let _ = rustix::process::setpriority_process(None, NICE);
}

/// A port on which nothing listens. The kernel gives no such port to a connection by itself, so
/// that it stays free while a member is dead.
fn free_port() -> u16 {
    const FIRST: u16 = 12_000;
    const COUNT: u16 = 20_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test programs that run at once begin at different ports.
    let offset = u16::try_from(std::process::id() * 97 % u32::from(COUNT)).unwrap();
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(offset) % COUNT;
        let port = FIRST + number;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

pub(crate) fn data_directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    let has_room =
        rustix::fs::statvfs(memory).is_ok_and(|of| of.f_bavail.saturating_mul(of.f_frsize) > ROOM_BYTES);
    if has_room { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}
