//! Three network namespaces: the server's, the clients', and between them a switch that forwards or
//! drops packets in either direction. Knows nothing of lockd. The namespaces have no names:
//! descriptors of this process hold them, so nothing remains of them however it ends.
//!
//! Packets are dropped at a bridge, which sends no ICMP; the links at both ends stay up.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// The server's address; the clients have the next one.
pub(crate) const SERVER: &str = "10.77.0.1";
const CLIENTS: &str = "10.77.0.2";
const CLIENTS_MAC: &str = "02:00:00:00:00:02";
/// The addresses that may connect.
pub(crate) const EVERYBODY: &str = "10.77.0.0/24";

/// A network namespace. It lives as long as this value, or a socket or process in it.
pub(crate) struct Namespace(File);

impl Namespace {
    pub(crate) fn new() -> Result<Self, String> {
        let own = std::fs::read_link("/proc/self/ns/net").map_err(|error| error.to_string())?;
        // It ends with this process, however that ends, because its input is then at its end.
        let mut holder = Command::new("unshare")
            .args(["--net", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("unshare --net: {error}"))?;
        let path = format!("/proc/{}/ns/net", holder.id());
        let end = Instant::now() + Duration::from_secs(10);
        let opened = loop {
            match std::fs::read_link(&path) {
                Ok(other) if other != own => break File::open(&path).map_err(|error| error.to_string()),
                _ if holder.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                _ => break Err(String::new()),
            }
        };
        drop(holder.stdin.take());
        let output = holder.wait_with_output().map_err(|error| error.to_string())?;
        let refusal = || format!("unshare --net: {}", String::from_utf8_lossy(&output.stderr).trim());
        opened.map(Self).map_err(|error| if error.is_empty() { refusal() } else { error })
    }

    /// Runs `work` in a thread inside this namespace. Sockets made and processes started there stay
    /// inside, whichever thread uses them.
    pub(crate) fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let inside = || {
            move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            work()
        };
        let done = std::thread::scope(|scope| scope.spawn(inside).join());
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    pub(crate) fn run(&self, command: &str) -> Result<(), String> {
        let mut words = command.split(' ');
        let mut process = Command::new(words.next().unwrap());
        process.args(words).stdin(Stdio::null());
        let output = self.within(|| process.output()).map_err(|error| format!("{command}: {error}"))?;
        if output.status.success() {
            return Ok(());
        }
        Err(format!("{command}: {}", String::from_utf8_lossy(&output.stderr).trim()))
    }

    /// The name of this namespace for `ip`.
    pub(crate) fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd())
    }
}

/// Which packets get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Passing {
    pub(crate) to_server: bool,
    pub(crate) to_clients: bool,
}

impl Passing {
    pub(crate) const ALL: Self = Self { to_server: true, to_clients: true };
    pub(crate) const NONE: Self = Self { to_server: false, to_clients: false };
    pub(crate) const TO_SERVER: Self = Self { to_server: true, to_clients: false };
    pub(crate) const TO_CLIENTS: Self = Self { to_server: false, to_clients: true };
}

/// The server's and the clients' namespaces, and the switch.
pub(crate) struct Network {
    pub(crate) server: Namespace,
    pub(crate) clients: Namespace,
    switch: Namespace,
}

impl Network {
    /// A network that drops nothing; or an error that says what the system refused.
    pub(crate) fn new() -> Result<Self, String> {
        let (server, clients, switch) = (Namespace::new()?, Namespace::new()?, Namespace::new()?);
        switch.run("ip link add switch type bridge")?;
        switch.run("ip link set switch up")?;
        for (port, end, address) in [("server", &server, SERVER), ("clients", &clients, CLIENTS)] {
            let peer = format!("type veth peer name eth0 netns {}", end.path());
            switch.run(&format!("ip link add {port} {peer}"))?;
            switch.run(&format!("ip link set {port} master switch up"))?;
            // A bridge that learns no addresses sends every packet to every port that allows
            // flooding.
            switch.run(&format!("bridge link set dev {port} learning off"))?;
            end.run("ip link set lo up")?;
            end.run(&format!("ip addr add {address}/24 dev eth0"))?;
            end.run("ip link set eth0 up")?;
        }
        clients.run(&format!("ip link set eth0 address {CLIENTS_MAC}"))?;
        Ok(Self { server, clients, switch })
    }

    /// Makes the clients' own host drop what they send. Returns false if it cannot.
    pub(crate) fn drop_what_clients_send(&self) -> bool {
        // No packet fits the rate, and the queue drops packets instead of keeping them.
        let refused =
            self.clients.run("tc qdisc replace dev eth0 root tbf rate 8bit burst 20 latency 1ms").err();
        if let Some(refused) = &refused {
            say_skipped("what the clients' own host drops", refused);
        }
        refused.is_none()
    }

    /// From now on another machine, the switch, has the clients' address. What is sent to the
    /// clients reaches it, and not them.
    pub(crate) fn answer_for_clients(&self) {
        self.pass(Passing::TO_SERVER);
        self.switch.run(&format!("ip link set switch address {CLIENTS_MAC}")).unwrap();
        self.switch.run(&format!("ip addr add {CLIENTS}/24 dev switch")).unwrap();
    }

    /// From now on only these packets get through, unicast or broadcast.
    pub(crate) fn pass(&self, passing: Passing) {
        for (port, passes) in [("server", passing.to_server), ("clients", passing.to_clients)] {
            let flood = if passes { "on" } else { "off" };
            let all = format!("flood {flood} bcast_flood {flood} mcast_flood {flood}");
            self.switch.run(&format!("bridge link set dev {port} {all}")).unwrap();
        }
    }
}

/// A test that runs in a network of its own.
pub(crate) type Scenario = Box<dyn FnOnce(Network) + Send>;

/// Runs the scenarios of the test called `name` in parallel, each in a network of its own; in a
/// user namespace if this process does not run as root. Skips them, and says why, if the system
/// refuses.
pub(crate) fn in_networks(name: &str, scenarios: Vec<Scenario>) {
    in_networks_made_by(Network::new, name, scenarios);
}

/// The same with networks of another shape.
pub(crate) fn in_networks_made_by<N: Send>(
    make: impl Fn() -> Result<N, String>,
    name: &str,
    scenarios: Vec<Box<dyn FnOnce(N) + Send>>,
) {
    if !rustix::process::geteuid().is_root() {
        return as_root_of_a_user_namespace(name);
    }
    std::thread::scope(|scope| {
        for scenario in scenarios {
            match make() {
                Ok(network) => drop(scope.spawn(|| scenario(network))),
                Err(refused) => return say_skipped(name, &format!("no network namespaces here: {refused}")),
            }
        }
    });
}

/// Reports a skipped test past the capture of output, so that it does not look like one that
/// passed.
fn say_skipped(what: &str, refused: &str) {
    std::io::stderr().write_all(format!("SKIPPED {what}: {refused}\n").as_bytes()).unwrap();
}

/// Runs the test `name` again as root of a user namespace, which has the rights that it needs.
#[expect(clippy::print_stderr, reason = "what the test has to say")]
fn as_root_of_a_user_namespace(name: &str) {
    let user = ["--user", "--map-root-user", "--net"];
    match Command::new("unshare").args(user).arg("true").output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let refused = String::from_utf8_lossy(&output.stderr);
            return say_skipped(name, &format!("not root, and no user namespaces: {}", refused.trim()));
        }
        Err(error) => return say_skipped(name, &format!("not root, and no unshare: {error}")),
    }
    let again = Command::new("unshare")
        .args(user)
        .arg(std::env::current_exe().unwrap())
        .args([name, "--exact", "--include-ignored", "--nocapture"])
        .output()
        .unwrap();
    eprint!("{}", String::from_utf8_lossy(&again.stderr));
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stdout));
}
