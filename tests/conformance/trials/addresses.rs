//! A host with several addresses, of which the first swallows all packets: the next one is tried
//! within the time limit. The host's name is in a file of hosts that only the driver sees, in a
//! mount namespace of its own.

use std::io;
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use super::Trial;
use crate::calls::EXCLUSIVE;
use crate::driver::Driver;
use crate::outcome::Word;
use crate::server::scheme;
use crate::stage::Stage;
use crate::verdict::{Failure, Verdict, ensure};

pub(super) const TRIALS: &[Trial] = &[Trial::new(
    "address-swallows",
    "If the first address of a host swallows all packets, the next one is tried in time.",
    &[],
    first_swallows,
)
.unless_impossible(refusal)];

const HOST: &str = "several.test";
const LIMIT: Duration = Duration::from_secs(5);

/// Puts the file of hosts in its place, and becomes the driver.
const WITH_HOSTS: &str = r#"mount --bind "$0" /etc/hosts && exec "$@""#;

/// `unshare`, for a program with a mount namespace of its own.
fn unshare() -> Command {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.arg("--mount");
    command
}

/// Why no file can be put in the place of another one here, if it cannot.
fn refusal() -> Option<String> {
    static REFUSAL: OnceLock<Option<String>> = OnceLock::new();
    let asked = || {
        let tried = unshare().args(["sh", "-c", WITH_HOSTS, "/etc/hosts", "true"]).output();
        let refused = match tried {
            Ok(output) if output.status.success() => return None,
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        Some(format!("no mount namespaces here: unshare --mount: {refused}"))
    };
    REFUSAL.get_or_init(asked).clone()
}

/// A port whose queue of connections is full: the system drops all further attempts, and answers
/// nothing.
struct Swallower(#[expect(dead_code, reason = "they are to stay open")] Vec<Socket>);

impl Swallower {
    fn at(address: &str) -> io::Result<Self> {
        let address: std::net::SocketAddr = address.parse().map_err(io::Error::other)?;
        let address = SockAddr::from(address);
        let socket = || Socket::new(Domain::IPV4, Type::STREAM, None);
        let listener = socket()?;
        listener.bind(&address)?;
        listener.listen(0)?;
        let mut sockets = vec![listener];
        // Linux queues one connection more than the backlog.
        for _ in 0..4 {
            let client = socket()?;
            client.set_nonblocking(true)?;
            // It is still on its way when this returns.
            let _ = client.connect(&address);
            sockets.push(client);
        }
        Ok(Self(sockets))
    }
}

fn first_swallows(stage: &Stage) -> Verdict {
    let server = stage.server();
    let good = server.address(stage.protocol());
    let (good, port) = good.rsplit_once(':').expect("an address with a port");
    // Resolvers put the address first that has more bits in common with 127.0.0.1, that of this
    // host.
    let [_, run, _, low] = good.parse::<Ipv4Addr>().expect("an address").octets();
    let bad = format!("127.0.{run}.{low}");
    let _swallower = Swallower::at(&format!("{bad}:{port}")).map_err(|error| Failure(error.to_string()))?;
    let hosts = stage.directory.path().join("hosts");
    std::fs::write(&hosts, format!("{bad} {HOST}\n{good} {HOST}\n")).expect("a file");
    let driver = stage.driver_by(|name, command, transcript| {
        let mut program = command.get_program().to_owned();
        if program == "/proc/self/exe" {
            // In the shell this would be the shell.
            program = std::env::current_exe().expect("a program has a path").into();
        }
        let mut within = unshare();
        within.args(["sh", "-c", WITH_HOSTS]).arg(&hosts).arg(program).args(command.get_args());
        for (variable, value) in command.get_envs() {
            match value {
                Some(value) => within.env(variable, value),
                None => within.env_remove(variable),
            };
        }
        Driver::start(name, within, transcript)
    })?;
    let url = format!("{}://{HOST}:{port}", scheme(stage.protocol()));
    let answer = driver.ask(&format!("connect driver {} {url}", LIMIT.as_millis()), Some(LIMIT))?;
    let answer = answer.must_be(Word::Ok)?;
    // When the first address has had all of the time, the next one may still answer in the last
    // millisecond.
    ensure(answer.took < LIMIT, || answer.failure("too late").0)?;
    driver.hold("a", EXCLUSIVE)?;
    driver.release("a")?.must_be(Word::Ok)?;
    driver.end()
}
