//! Where options come from, which source wins, and what a SIGHUP reads again.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::eventually;
use crate::support::frame_client::FrameClient;
use crate::support::line_client::LineClient;
use crate::support::server::{Launch, Server};
use rustix::fs::OFlags;
use rustix::process::Signal;
use serde_json::json;

/// Writes a configuration file for this launch, from the caller's TOML.
fn configured(launch: Launch, configuration: &str) -> (Launch, PathBuf) {
    let path = launch.path("lockd.toml");
    std::fs::write(&path, configuration).unwrap();
    (launch.option("--config", path.to_str().unwrap()), path)
}

fn protocols(server: &Server) -> Vec<&str> {
    server.endpoints().iter().map(|(protocol, _)| protocol.as_str()).collect()
}

fn served_client(server: &Server) -> Option<LineClient> {
    let mut client = LineClient::new(server.tcp("glockd"));
    // The server may refuse the client before or after it has written.
    let _ = client.socket().send(b"i foo\n");
    (client.read_line_or_end()? == "0 Lock Not Locked: foo\r\n").then_some(client)
}

/// The number of connections that are served at the same time.
fn connections_served(server: &Server) -> usize {
    let clients: Vec<LineClient> = std::iter::from_fn(|| served_client(server)).take(20).collect();
    clients.len()
}

#[test]
fn all_options_can_be_in_the_file() {
    let launch = Launch::new();
    let (pidfile, socket) = (launch.path("pid"), launch.path("s.sock"));
    let configuration = format!(
        r#"
        listen = ["glockd://127.0.0.1:0", "lockd+unix:{}"]
        allow = ["127.0.0.1", "10.0.0.0/8"]
        unix-mode = "0660"
        dead-peer-timeout = 30
        connections-max = 100
        locks-max = 1000
        locks-per-connection-max = 2
        waits-per-connection-max = 10
        name-max = 50
        line-max = 200
        message-max = 10000
        outbox-max = 100000
        no-dump = true
        no-registry = true
        shared-excludes = true
        scheduling = "batch"
        pidfile = "{}"
        log-level = "info"
        "#,
        socket.display(),
        pidfile.display()
    );
    let server = configured(launch.expecting(2), &configuration).0.start();
    let mut client = server.glockd();
    assert_eq!(client.ask("dump"), "0 disabled\r\n");
    assert_eq!(client.ask("iam me"), "0 disabled\r\n");
    assert_eq!(client.ask(&format!("g {}", "n".repeat(300))), "0 Line Too Long\r\n");
    assert!(client.ask(&format!("g {}", "n".repeat(60))).starts_with("0 "));
    assert!(client.ask("g a").starts_with('1'));
    assert!(server.glockd().ask("sg a").starts_with("0 "));
    assert!(client.ask("g b").starts_with('1'));
    assert!(client.ask("g c").starts_with("0 "));
    assert_eq!(LineClient::new(server.unix("lockd")).ask("i a"), "1 Locked\r\n");
    assert_eq!(std::fs::read_to_string(pidfile).unwrap().trim(), server.pid().to_string());
}

#[test]
fn the_command_line_wins_over_the_environment_and_that_over_the_file() {
    let file = "connections-max = 2";
    let launch = || Launch::new().listen("glockd://127.0.0.1:0");
    let of_file = configured(launch(), file).0.start();
    assert_eq!(connections_served(&of_file), 2);
    let of_environment = configured(launch(), file).0.env("LOCKD_CONNECTIONS_MAX", "3").start();
    assert_eq!(connections_served(&of_environment), 3);
    let of_command_line = configured(launch(), file)
        .0
        .env("LOCKD_CONNECTIONS_MAX", "3")
        .option("--connections-max", "4")
        .start();
    assert_eq!(connections_served(&of_command_line), 4);
}

#[test]
fn the_listeners_of_one_source_replace_those_of_another() {
    let file = r#"listen = ["message://127.0.0.1:0"]"#;
    let of_file = configured(Launch::new().expecting(1), file).0.start();
    assert_eq!(protocols(&of_file), ["message"]);
    let environment = ("LOCKD_LISTEN", "lockd://127.0.0.1:0");
    let of_environment =
        configured(Launch::new().expecting(1), file).0.env(environment.0, environment.1).start();
    assert_eq!(protocols(&of_environment), ["lockd"]);
    let of_command_line = configured(Launch::new(), file).0.env(environment.0, environment.1);
    let of_command_line = of_command_line.listen("glockd://127.0.0.1:0").start();
    assert_eq!(protocols(&of_command_line), ["glockd"]);
}

#[test]
fn a_file_with_errors_is_refused_by_what_is_wrong() {
    let wrong = [
        ("conections-max = 2", "conections-max"),
        ("connections-max = \"many\"", "connections-max"),
        ("allow = [\"300.0.0.1\"]", "300.0.0.1"),
        ("unix-mode = \"rw\"", "rw"),
        ("scheduling = \"idle\"", "scheduling: \"idle\""),
        ("[table", "lockd.toml"),
        ("connections-max = -1", "connections-max"),
        ("listen = [\"lockd://127.0.0.1:0\"]", "listen"),
    ];
    for (more, what) in wrong {
        let configuration = format!("listen = [\"glockd://127.0.0.1:0\"]\n{more}\n");
        let (status, log) = configured(Launch::new(), &configuration).0.run();
        assert!(status.code().is_some_and(|code| code != 0), "{status}: {log}");
        assert!(log.contains(what), "{what:?} is not in: {log}");
    }
}

#[test]
fn an_invalid_listener_in_the_file_is_refused_by_name() {
    let wrong =
        [("ftp://127.0.0.1:0", "ftp"), ("glockd://127.0.0.1:port", "127.0.0.1:port"), ("glockd", "glockd")];
    for (address, what) in wrong {
        let configuration = format!("listen = [\"glockd://127.0.0.1:0\", \"{address}\"]");
        let (status, log) = configured(Launch::new(), &configuration).0.run();
        assert!(status.code().is_some_and(|code| code != 0), "{status}: {log}");
        assert!(log.contains(what), "{what:?} is not in: {log}");
    }
}

#[test]
fn a_bad_value_in_the_environment_is_refused() {
    let launch = Launch::new().listen("glockd://127.0.0.1:0").env("LOCKD_CONNECTIONS_MAX", "many");
    let (status, log) = launch.run();
    assert!(status.code().is_some_and(|code| code != 0), "{status}: {log}");
    assert!(log.contains("many"), "{log}");
}

#[test]
fn several_values_in_a_variable_are_separated_by_commas() {
    let launch = Launch::new().expecting(2).env("LOCKD_LISTEN", "glockd://127.0.0.1:0,lockd://127.0.0.1:0");
    let server = launch.env("LOCKD_ALLOW", "10.0.0.0/8,127.0.0.1").start();
    assert_eq!(protocols(&server), ["glockd", "lockd"]);
    assert!(served_client(&server).is_some());
}

#[test]
fn a_sighup_without_a_file_changes_nothing() {
    let server = Launch::new().listen("glockd://127.0.0.1:0").option("--connections-max", "2").start();
    let mut client = served_client(&server).unwrap();
    assert!(client.ask("g foo").starts_with('1'));
    let said = server.log().len();
    server.signal(Signal::HUP);
    eventually("it says something to it", || server.log().len() > said);
    assert!(client.ask("r foo").starts_with('1'));
    drop(client);
    eventually("the connection has ended", || connections_served(&server) == 2);
}

fn reread(server: &Server, path: &Path, configuration: &str) {
    std::fs::write(path, configuration).unwrap();
    server.signal(Signal::HUP);
}

#[test]
fn names_that_are_disabled_on_sighup_are_forgotten() {
    let (launch, path) = configured(Launch::new().listen("glockd://127.0.0.1:0"), "");
    let server = launch.listen("message://127.0.0.1:0").start();
    let (mut text, mut messages) = (served_client(&server).unwrap(), server.message());
    assert!(text.ask("iam somebody").starts_with('1'));
    assert_eq!(messages.call("identify", json!({"name": "another"}))["status"], "ok");
    assert!(text.ask("g held").starts_with('1'));
    let holder = |client: &mut FrameClient| {
        let page = client.call("list", json!({}));
        page["locks"][0]["holders"][0]["name"].clone()
    };
    assert_eq!(holder(&mut messages), "somebody");
    reread(&server, &path, "no-registry = true");
    eventually("the name is forgotten", || holder(&mut messages).is_null());
    // Connections that were open before keep their policy.
    assert_eq!(text.ask("iam somebody"), "0 disabled\r\n");
    assert_eq!(messages.call("identify", json!({"name": "another"}))["status"], "refused");
    assert!(!text.ask("me").contains("somebody"));
    assert!(text.ask("r held").starts_with('1'), "locks stay");
    assert!(holder(&mut messages).is_null());
}

#[test]
fn the_allow_list_is_read_again_on_sighup() {
    let (launch, path) =
        configured(Launch::new().listen("glockd://127.0.0.1:0"), r#"allow = ["10.0.0.0/8"]"#);
    let server = launch.start();
    assert!(served_client(&server).is_none());
    reread(&server, &path, r#"allow = ["127.0.0.1"]"#);
    eventually("loopback is allowed", || served_client(&server).is_some());
    let mut connected = served_client(&server).unwrap();
    reread(&server, &path, r#"allow = ["10.0.0.0/8"]"#);
    eventually("loopback is refused again", || served_client(&server).is_none());
    assert!(connected.ask("g foo").starts_with('1'), "who is connected stays so");
}

#[test]
fn limits_are_read_again_on_sighup() {
    let first = "connections-max = 2\nlocks-per-connection-max = 1\n";
    let (launch, path) = configured(Launch::new().listen("glockd://127.0.0.1:0"), first);
    let server = launch.start();
    let (mut a, mut b) = (served_client(&server).unwrap(), served_client(&server).unwrap());
    assert!(a.ask("g a").starts_with('1'));
    assert!(a.ask("g b").starts_with("0 "));
    assert!(served_client(&server).is_none());
    reread(&server, &path, "connections-max = 3\nlocks-per-connection-max = 2\n");
    eventually("a third is served", || served_client(&server).is_some());
    eventually("a second lock is granted", || a.ask("g b").starts_with('1'));
    reread(&server, &path, "connections-max = 1\nlocks-per-connection-max = 1\n");
    eventually("no third is served", || served_client(&server).is_none());
    assert!(b.ask("i a").starts_with('1'), "those over a lowered limit stay, and so do their locks");
    assert!(a.ask("r b").starts_with('1'));
}

#[test]
fn a_file_with_errors_changes_nothing_on_sighup() {
    let (launch, path) = configured(Launch::new().listen("glockd://127.0.0.1:0"), "connections-max = 2");
    let server = launch.start();
    let mut client = served_client(&server).unwrap();
    assert!(client.ask("g foo").starts_with('1'));
    let said = server.log().len();
    reread(&server, &path, "connections-max = 5\nno-such-key = 1\n");
    eventually("the error is logged", || {
        server.log()[said..].iter().any(|line| line.contains("no-such-key"))
    });
    assert!(client.ask("i foo").starts_with('1'));
    drop(client);
    eventually("the connection has ended", || connections_served(&server) == 2);
}

#[test]
fn options_on_the_command_line_survive_a_sighup() {
    let launch = Launch::new().listen("glockd://127.0.0.1:0").option("--connections-max", "2");
    let (launch, path) = configured(launch, "locks-max = 1");
    let server = launch.start();
    reread(&server, &path, "connections-max = 9\nlocks-max = 100");
    eventually("the file has been read again", || {
        served_client(&server).is_some_and(|mut client| {
            client.send("g a\ng b\n");
            client.line();
            client.line().starts_with('1')
        })
    });
    eventually("the connections have ended", || connections_served(&server) == 2);
}

#[test]
fn a_sighup_never_leaves_two_rules_for_shared_locks_in_force() {
    let launch = Launch::new().listen("glockd://127.0.0.1:0");
    let (launch, path) = configured(launch, "connections-max = 10");
    let server = launch.start();
    let mut reader = served_client(&server).unwrap();
    assert_eq!(reader.ask("sg pool"), "1 Shared Lock Get Success: pool\r\n");
    reread(&server, &path, "shared-excludes = true\nconnections-max = 2");
    eventually("the file has been read again", || connections_served(&server) == 1);
    let mut seen = String::new();
    eventually("another one is served", || {
        served_client(&server).is_some_and(|mut other| {
            seen = other.ask("si pool");
            true
        })
    });
    assert_eq!(seen, "1 Shared Lock Is Locked: pool\r\n", "one connection sees what another one holds");
}

/// The scheduling policies of sched(7), by the kernel's numbers.
const NORMAL: u32 = 0;
const BATCH: u32 = 3;

#[track_caller]
fn assert_scheduled(server: &Server, connections: u32) {
    let mut served = server.glockd();
    assert!(served.ask("i foo").starts_with('0'));
    assert_eq!(server.policies("lockd-conn"), [connections]);
    for others in ["lockd", "lockd-listen", "lockd-maint", "lockd-signals"] {
        let mut policies = Vec::new();
        // A thread sets its name when it first runs, which may be later than what the server does
        // next.
        eventually(&format!("there is a thread {others}"), || {
            policies = server.policies(others);
            !policies.is_empty()
        });
        assert!(policies.iter().all(|policy| *policy == NORMAL), "{others}: {policies:?}");
    }
}

#[test]
fn only_the_threads_of_connections_are_scheduled_as_batch_if_configured() {
    let launch = || Launch::new().listen("glockd://127.0.0.1:0");
    assert_scheduled(&launch().start(), NORMAL);
    assert_scheduled(&launch().option("--scheduling", "normal").start(), NORMAL);
    assert_scheduled(&launch().option("--scheduling", "batch").start(), BATCH);
    assert_scheduled(&launch().env("LOCKD_SCHEDULING", "batch").start(), BATCH);
    assert_scheduled(&configured(launch(), "scheduling = 'batch'").0.start(), BATCH);
}

#[test]
fn connections_that_come_after_a_sighup_are_scheduled_anew() {
    let launch = Launch::new().listen("glockd://127.0.0.1:0");
    let (launch, path) = configured(launch, "scheduling = 'normal'");
    let server = launch.start();
    let first = served_client(&server).unwrap();
    reread(&server, &path, "scheduling = 'batch'");
    eventually("the file has been read again", || {
        let next = served_client(&server);
        let mut policies = server.policies("lockd-conn");
        policies.sort_unstable();
        next.is_some() && policies.contains(&NORMAL) && policies.contains(&BATCH)
    });
    drop(first);
}

/// Asserts that a start and a check are both refused with exactly this message.
#[track_caller]
fn assert_mistake(launch: impl Fn() -> Launch, said: &str) {
    for check in [&[][..], &["--check"]] {
        let (status, log) = launch().args(check.iter().copied()).run();
        assert_eq!(status.code(), Some(2), "{log}");
        assert!(log.contains(said), "{said:?} is not in: {log}");
    }
}

#[test]
fn a_mistake_is_reported_with_its_place() {
    for (variable, value, said) in [
        ("LOCKD_LOCKS_MAX", "many", "lockd: LOCKD_LOCKS_MAX: \"many\": invalid digit"),
        ("LOCKD_LOCKS_MAX", "99999999999999999999999", "lockd: LOCKD_LOCKS_MAX: "),
        ("LOCKD_UNIX_MODE", "rw", "lockd: LOCKD_UNIX_MODE: \"rw\" is no file mode"),
        ("LOCKD_LISTEN", "ftp://h:1", "lockd: LOCKD_LISTEN: \"ftp\" is no protocol"),
        ("LOCKD_NO_DUMP", "perhaps", "lockd: LOCKD_NO_DUMP: \"perhaps\": "),
        ("LOCKD_DEAD_PEER_TIMEOUT", "4", "lockd: LOCKD_DEAD_PEER_TIMEOUT: 4 is not from 12"),
        ("LOCKD_AUTH_TOKEN_FILE", "/nonexistent/s", "lockd: LOCKD_AUTH_TOKEN_FILE: /nonexistent/s: "),
        ("LOCKD_CONFIG", "/nonexistent/c", "lockd: LOCKD_CONFIG: /nonexistent/c: "),
        ("LOCKD_USER", "no-such-user", "lockd: LOCKD_USER: user no-such-user: there is no such user"),
        ("LOCKD_TLS_KEY", "/nonexistent/k", "lockd: LOCKD_TLS_KEY: it takes its certificate"),
    ] {
        assert_mistake(|| Launch::new().listen("glockd://127.0.0.1:0").env(variable, value), said);
    }
    for (more, said) in [
        ("locks-max = \"many\"", "lockd.toml:2: locks-max: invalid type"),
        ("\n\nunix-mode = \"rw\"", "lockd.toml:4: unix-mode: \"rw\" is no file mode"),
        ("allow = [\n\"300.0.0.1\"]", "lockd.toml:2: allow: \"300.0.0.1\" is neither"),
        ("loks-max = 1", "lockd.toml:2: there is no option \"loks-max\"; did you mean \"locks-max\"?"),
        ("locks_max = 1", "lockd.toml:2: there is no option \"locks_max\"; did you mean \"locks-max\"?"),
        ("lock-max = 1", "lockd.toml:2: there is no option \"lock-max\"; did you mean \"locks-max\"?"),
        ("no-dumps = true", "lockd.toml:2: there is no option \"no-dumps\"; did you mean \"no-dump\"?"),
        ("cores = 1", "lockd.toml:2: there is no option \"cores\""),
        ("locks-max = \"5\"", "locks-max: invalid type: string \"5\", expected a whole number from 0 up"),
        ("locks-max = -5", "locks-max: invalid value: integer \"-5\", expected a whole number from 0 up"),
        ("dead-peer-timeout = \"x\"", "expected a whole number from 0 up"),
        ("http = \"x\"", "lockd.toml:2: http: invalid type: string \"x\", expected a list in [ ]"),
        (
            "unix-mode = 0660",
            "lockd.toml:2: a number must not begin with 0: 0660; write a file mode in quotes: \"0660\"",
        ),
        ("locks-max = 0", "lockd.toml:2: locks-max: nothing could be served with 0"),
        ("locks-per-connection-max = 0", "lockd.toml:2: locks-per-connection-max: nothing could be"),
        ("user = \"no-such-user\"", "lockd.toml:2: user: user no-such-user: there is no such user"),
        ("tls-client-ca = \"/x\"", "lockd.toml:2: tls-client-ca: it takes a certificate"),
        ("http = [\"h\"", "lockd.toml:2: "),
    ] {
        let text = format!("name-max = 7\n{more}\n");
        assert_mistake(|| configured(Launch::new().listen("glockd://127.0.0.1:0"), &text).0, said);
    }
    for (option, value, said) in [
        ("--unix-mode", "rw", "lockd: --unix-mode: \"rw\" is no file mode"),
        ("--config", "/nonexistent/c", "lockd: --config: /nonexistent/c: "),
        ("--listen", "message+tls://127.0.0.1:0", "lockd: --listen: message+tls://127.0.0.1:0: TLS takes"),
        ("--user", "no-such-user", "lockd: --user: user no-such-user: there is no such user"),
    ] {
        let launch = || Launch::new().listen("glockd://127.0.0.1:0").option(option, value);
        let (status, log) = launch().args(["--check"]).run();
        assert!(status.code() == Some(2) && log.contains(said), "{status}: {log}");
        let (status, log) = launch().run();
        assert!(!status.success() && log.contains(said), "{status}: {log}");
    }
}

#[test]
fn a_variable_that_is_set_but_empty_is_a_mistake() {
    for variable in
        ["LOCKD_STATE_DIR", "LOCKD_ALLOW", "LOCKD_NO_DUMP", "LOCKD_AUTH_TOKEN_FILE", "LOCKD_CONFIG"]
    {
        let launch = || Launch::new().listen("glockd://127.0.0.1:0").env(variable, "");
        assert_mistake(launch, &format!("lockd: {variable} is set but empty"));
    }
}

#[test]
fn a_check_neither_binds_nor_changes_anything() {
    let directory = tempfile::tempdir().unwrap();
    let (pidfile, socket) = (directory.path().join("pid"), directory.path().join("s"));
    let state = directory.path().join("state");
    let launch = || {
        let socket = format!("glockd+unix:{}", socket.display());
        Launch::new().listen(&socket).option("--pidfile", pidfile.to_str().unwrap())
    };
    let server = launch().start();
    let (status, log) = launch().args(["--check", "--state-dir", state.to_str().unwrap()]).run();
    assert!(status.success(), "{log}");
    assert_eq!(std::fs::read_to_string(&pidfile).unwrap().trim(), server.pid().to_string());
    assert!(!state.exists());
    assert_eq!(LineClient::new(server.unix("glockd")).ask("i a"), "0 Lock Not Locked: a\r\n");
}

#[test]
fn a_reload_that_waits_for_its_file_does_not_keep_the_server_from_stopping() {
    let (launch, path) = configured(Launch::new().listen("glockd://127.0.0.1:0"), "locks-max = 5\n");
    let mut server = launch.start();
    std::fs::remove_file(&path).unwrap();
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    server.signal(Signal::HUP);
    // Opening the FIFO for writing succeeds once the server has begun to read it. It is kept open,
    // so there is no end of the file.
    let mut writer = None;
    let mut options = OpenOptions::new();
    options.write(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    eventually("it reads the file", || {
        writer = options.open(&path).ok();
        writer.is_some()
    });
    assert!(server.glockd().ask("g foo").starts_with('1'), "meanwhile it serves");
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_reload_reports_what_has_changed_and_what_needs_a_restart() {
    let (launch, path) = configured(Launch::new().listen("glockd://127.0.0.1:0"), "locks-max = 5\n");
    let server = launch.start();
    let is_logged =
        |parts: &[&str]| server.log().iter().any(|line| parts.iter().all(|part| line.contains(part)));
    let state = path.with_file_name("state");
    let http = "http = [\"127.0.0.1:1\"]";
    reread(
        &server,
        &path,
        &format!("locks-max = 6\n{http}\nstate-dir = \"{}\"\nuser = \"nobody\"", state.display()),
    );
    eventually("it is logged", || is_logged(&["the configuration has been read again"]));
    assert!(is_logged(&["INFO", "locks-max: from 5 to 6"]), "{:?}", server.log());
    for option in ["http", "state-dir", "user"] {
        let said = format!("{option}: stays the default until a restart");
        assert!(is_logged(&["WARN", &said]), "{said}: {:?}", server.log());
    }
    assert!(!state.exists());
}
