//! The machines of a cluster, as network namespaces: two servers, etcd, and three machines of clients.
//! There are two networks, one of the clients and one of etcd, and the servers are in both. Knows
//! nothing of lockd.
//!
//! A server is cut off at the switch: its link stays up, and nothing tells it, or anybody else, of
//! the cut.

use std::net::Ipv4Addr;

use crate::network::Namespace;

/// The addresses of the servers in the clients' network.
pub(crate) const SERVERS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 77, 0, 2)];
/// The address of etcd in its own network.
pub(crate) const ETCD: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 9);

/// A network that a server can be cut off from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Net {
    Clients,
    Etcd,
}

impl Net {
    const ALL: [Self; 2] = [Self::Clients, Self::Etcd];

    fn switch(self) -> &'static str {
        match self {
            Self::Clients => "clients",
            Self::Etcd => "etcd",
        }
    }

    /// The address of the machine that has this number.
    fn address(self, number: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, if self == Self::Clients { 77 } else { 78 }, 0, number)
    }
}

pub(crate) struct Machines {
    pub(crate) servers: [Namespace; 2],
    pub(crate) etcd: Namespace,
    pub(crate) holder: Namespace,
    pub(crate) command: Namespace,
    pub(crate) waiters: Namespace,
    switches: Namespace,
}

impl Machines {
    /// Machines that all reach each other; or an error that says what the system refused.
    pub(crate) fn new() -> Result<Self, String> {
        let switches = Namespace::new()?;
        for net in Net::ALL {
            switches.run(&format!("ip link add {} type bridge", net.switch()))?;
            switches.run(&format!("ip link set {} up", net.switch()))?;
        }
        let machine = |number, nets: &[Net]| {
            let machine = Namespace::new()?;
            machine.run("ip link set lo up")?;
            for &net in nets {
                plug_in(&switches, &machine, number, net)?;
            }
            Ok::<_, String>(machine)
        };
        Ok(Self {
            servers: [machine(1, &Net::ALL)?, machine(2, &Net::ALL)?],
            etcd: machine(9, &[Net::Etcd])?,
            holder: machine(3, &[Net::Clients])?,
            command: machine(4, &[Net::Clients])?,
            waiters: machine(5, &[Net::Clients])?,
            switches,
        })
    }

    /// From now on nothing gets through between the first server and these networks.
    pub(crate) fn cut_off_first_server(&self, from: &[Net]) {
        from.iter().for_each(|&net| self.set_port(net, "disabled"));
    }

    /// All gets through again.
    pub(crate) fn mend(&self) {
        Net::ALL.iter().for_each(|&net| self.set_port(net, "forwarding"));
    }

    fn set_port(&self, net: Net, state: &str) {
        self.switches.run(&format!("bridge link set dev {} state {state}", port(1, net))).unwrap();
    }
}

/// The switch's end of a link.
fn port(number: u8, net: Net) -> String {
    format!("{}{number}", net.switch())
}

fn plug_in(switches: &Namespace, machine: &Namespace, number: u8, net: Net) -> Result<(), String> {
    let (end, port, switch) = (format!("to-{}", net.switch()), port(number, net), net.switch());
    let peer = format!("type veth peer name {end} netns {}", machine.path());
    switches.run(&format!("ip link add {port} {peer}"))?;
    switches.run(&format!("ip link set {port} master {switch} up"))?;
    machine.run(&format!("ip addr add {}/24 dev {end}", net.address(number)))?;
    machine.run(&format!("ip link set {end} up"))
}
