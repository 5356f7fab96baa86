//! A browser without a window, Debian's `chromium` or the one named by `CHROMIUM`: what a page looks
//! like in it.

use std::io::Write;
use std::process::Command;

use tempfile::TempDir;

use crate::support::DEADLINE;
use crate::support::server::Server;
use crate::support::socket::Endpoint;

/// The browser, if there is one.
pub(crate) fn chromium() -> Option<Command> {
    let program = std::env::var_os("CHROMIUM").unwrap_or_else(|| "chromium".into());
    let mut command = Command::new(program);
    if !command.arg("--version").output().is_ok_and(|output| output.status.success()) {
        return None;
    }
    let mut command = Command::new(command.get_program());
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--hide-scrollbars",
    ]);
    Some(command)
}

/// The content of the page at `/` after a number of milliseconds of its own time, or a picture of
/// it in `into`.
pub(crate) fn look(mut chromium: Command, server: &Server, what: &[&str], budget_ms: u32) -> String {
    let Endpoint::Tcp(address) = server.tcp_endpoint("http") else { panic!("a TCP address") };
    let directory = TempDir::new().unwrap();
    // A time limit for a browser that hangs. The page's own time passes only while nothing is being
    // loaded.
    let mut timeout = Command::new("timeout");
    timeout.arg((3 * DEADLINE).as_secs().to_string()).arg(chromium.get_program()).args(chromium.get_args());
    chromium = timeout;
    chromium.arg(format!("--user-data-dir={}", directory.path().display()));
    chromium.arg(format!("--virtual-time-budget={budget_ms}")).args(what).arg(format!("http://{address}/"));
    let output = chromium.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    // The browser reports there what the page's policy forbids and errors of its script.
    assert!(!said.contains("CONSOLE") && !said.contains("Refused to"), "{said}");
    String::from_utf8(output.stdout).unwrap()
}

/// Reports a skipped test past the capture of output, so that it does not look like one that
/// passed.
pub(crate) fn say_skipped(what: &str) {
    let text = format!("SKIPPED {what}: no chromium, and CHROMIUM names none\n");
    std::io::stderr().write_all(text.as_bytes()).unwrap();
}
