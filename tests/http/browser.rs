//! The page in a browser: it shows what is held.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::chromium::{chromium, look, say_skipped};
use crate::client::{get, start};
use crate::support::eventually;
use crate::support::frame_client::FrameClient;
use crate::support::server::Server;
use crate::support::socket::Endpoint;

#[test]
fn the_locks_that_are_held_are_shown() {
    let Some(chromium) = chromium() else { return say_skipped("the page in a browser") };
    let server = start();
    let (mut holder, mut waiter, mut text) = (server.message(), server.message(), server.glockd());
    holder.call("identify", json!({"name": "<img src=x onerror=alert(1)>"}));
    holder.try_lock("report/1");
    holder.try_lock("<script>document.title='got you'</script>");
    holder.try_lock("gone");
    holder.unlock("gone");
    text.ask("sg counted");
    waiter.request_lock("report/1");
    server.await_waiters("report/1", 1);
    // The page's own time runs faster than the server's.
    eventually("this has become history", || {
        let history = get(&server, "/history").json();
        let newest = history["samples"].as_array().and_then(|samples| samples.last());
        newest.is_some_and(|newest| newest["locks"] == 3 && newest["waiting"] == 1)
    });
    let seen = look(chromium, &server, &["--dump-dom", "--enable-logging=stderr"], 3000);
    let seen = seen.split("<script").next().unwrap();
    let rows: Vec<&str> = seen.split("<tr>").filter(|row| row.contains("data-title=\"Held by\"")).collect();
    assert_eq!(rows.len(), 3, "{seen}");
    let row = |text: &str| {
        *rows.iter().find(|row| row.contains(text)).unwrap_or_else(|| panic!("{text} in {seen}"))
    };
    let lock = row(">report/1<");
    let (held, waited) = lock.split_once("Waiting, in order").expect("a waiter");
    assert!(held.contains(&holder.address()) && waited.contains(&waiter.address()), "{lock}");
    assert!(held.contains("&lt;img src=x onerror=alert(1)&gt;"), "{lock}");
    assert!(row("&lt;script&gt;document.title='got you'&lt;/script&gt;").contains(&holder.address()));
    assert!(row(">counted<").contains(&text.address()));
    assert!(!seen.contains("<img") && !seen.contains("<title>got you") && seen.contains(">live<"), "{seen}");
    assert!(seen.contains("<div class=\"figure\" id=\"locks-now\">3</div>"), "{seen}");
    assert!(seen.contains("<div class=\"figure\" id=\"waiting-now\">1</div>"), "{seen}");
}

/// A script that holds a lock, or waits for it, until this is dropped.
struct Script(Child);

impl Drop for Script {
    fn drop(&mut self) {
        // Both fail only if the process has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn script(server: &Server, name: &str) -> Script {
    let Endpoint::Tcp(address) = server.tcp_endpoint("message") else { panic!("a TCP address") };
    let code = "require $argv[1];
        $lock = Lockd\\Client::connect($argv[2], $argv[3])->acquire('php/report', null);
        fgets(STDIN);";
    let mut php = Command::new("php");
    php.args(["-r", code, "--", concat!(env!("CARGO_MANIFEST_DIR"), "/bindings/php/autoload.php")]);
    php.arg(format!("tcp://{address}")).arg(name).stdin(Stdio::piped());
    Script(php.spawn().expect("php: install it with `make test-setup`"))
}

#[test]
fn the_locks_of_scripts_are_shown() {
    let Some(chromium) = chromium() else { return say_skipped("the locks of PHP in a browser") };
    let server = start();
    let lock = || get(&server, "/locks").json()["locks"][0].clone();
    let _holder = script(&server, "nightly report");
    eventually("the first has the lock", || lock()["holders"][0]["name"] == "nightly report");
    let _waiter = script(&server, "another one");
    eventually("the second waits for it", || lock()["waiters"][0]["name"] == "another one");
    let seen = look(chromium, &server, &["--dump-dom", "--enable-logging=stderr"], 3000);
    let row = seen.split("<tr>").find(|row| row.contains(">php/report<")).unwrap_or_else(|| panic!("{seen}"));
    let (held, waited) = row.split_once("Waiting, in order").expect("a waiter");
    assert!(held.contains("<b>nightly report</b>") && waited.contains("<b>another one</b>"), "{row}");
}

/// A client with that registered name.
fn client(server: &Server, name: &str) -> FrameClient {
    let mut client = server.message();
    client.call("identify", json!({"name": name}));
    client
}

/// Produces a realistic load for a while: locks come and go, some have waiters, and now and then a
/// client vanishes.
fn pass_time(server: &Server, time: Duration) {
    let (mut one, mut two) = (server.message(), server.message());
    let start = Instant::now();
    for round in 0_u32.. {
        let passed = start.elapsed();
        if passed >= time {
            return;
        }
        // Waves of several lengths, so that the curves are not flat.
        let wave = |seconds: f64| (passed.as_secs_f64() / seconds).sin();
        let pause = 40.0 + 18.0 * wave(14.0) + 9.0 * wave(3.1);
        one.try_lock("order");
        let waits = (round % 9 == 0 || wave(23.0) > 0.9).then(|| two.request_lock("order"));
        std::thread::sleep(Duration::from_secs_f64(pause / 1000.0));
        one.unlock("order");
        if let Some(waits) = waits {
            two.result(waits);
            two.unlock("order");
        }
        if round % 331 == 77 {
            two.try_lock("order");
            two = server.message();
            server.await_free("order");
        }
    }
}

#[test]
#[ignore = "takes five minutes; makes docs/page.png anew"]
fn picture_for_the_documentation() {
    let chromium = chromium().expect("chromium");
    let server = start();
    let mut clients = vec![];
    for (seconds, holder, lock, waiters) in [
        (130, "nightly-backup", "backup/db1", &[][..]),
        (90, "import", "stock/prices", &["export"]),
        (45, "web3:4117", "invoices/2026-11", &["web1:3820", "web2:971"]),
        (20, "worker-4", "queue/mails", &["worker-2", "worker-7", "worker-1"]),
    ] {
        let mut holder = client(&server, holder);
        holder.try_lock(lock);
        clients.push(holder);
        for (ahead, waiter) in waiters.iter().enumerate() {
            let mut waiter = client(&server, waiter);
            waiter.request_lock(lock);
            clients.push(waiter);
            server.await_waiters(lock, ahead + 1);
            pass_time(&server, Duration::from_secs(3));
        }
        pass_time(&server, Duration::from_secs(seconds));
    }
    for reader in ["report-1", "report-2"] {
        let mut reader = client(&server, reader);
        reader.call("lock", json!({"lockName": "reports", "mode": "shared"}));
        clients.push(reader);
    }
    pass_time(&server, Duration::from_secs(5));
    let picture = concat!("--screenshot=", env!("CARGO_MANIFEST_DIR"), "/docs/page.png");
    look(chromium, &server, &[picture, "--window-size=1100,800"], 3000);
}
