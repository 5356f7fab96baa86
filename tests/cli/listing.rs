//! `lockd list`, `inspect` and `watch` show what is held, whatever its name.

use serde_json::{Value, json};

use crate::support::frame_client::FrameClient;
use crate::tool::{Site, text};

/// Names in the order of their bytes, and their printed form.
const NAMES: [(&[u8], &str); 10] = [
    (b"", "\"\""),
    (b"\x1b[2J\x07", r"\u{1b}[2J\u{7}"),
    (b"a\nb", r"a\nb"),
    (b"a b", "a b"),
    (b"back\\slash", r"back\\slash"),
    (b"job/1", "job/1"),
    (b"job/2", "job/2"),
    (b"quote\"'", "quote\"'"),
    ("\u{202e}x".as_bytes(), r"\u{202e}x"),
    (b"\xff\x80", r"\xff\x80"),
];

fn hex(name: &[u8]) -> String {
    name.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A session named bob that holds all of them.
fn bob(site: &Site) -> FrameClient {
    let mut bob = site.server.message();
    bob.call("identify", json!({"name": "bob\u{9b}"}));
    for (name, _) in NAMES {
        assert_eq!(bob.call("lock", json!({"lockNameHex": hex(name)}))["status"], "ok");
    }
    bob
}

fn json_of(site: &Site, arguments: &[&str]) -> Value {
    let (code, out, errors) = site.said(&[arguments, &["--json"]].concat());
    assert_eq!(code, 0, "{errors}");
    assert!(!out.contains(|c: char| c.is_control() && c != '\n'), "{out:?}");
    serde_json::from_str(&out).unwrap()
}

fn names(page: &Value) -> Vec<String> {
    let locks = page["locks"].as_array().unwrap();
    locks.iter().map(|lock| lock["lockName"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_list_shows_every_lock_and_no_name_controls_the_terminal() {
    let site = Site::start();
    let bob = bob(&site);
    for command in ["list", "watch"] {
        let output = site.output(&[command]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let shown = text(&output.stdout);
        assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines.len(), NAMES.len() + 1);
        assert!(lines[0].starts_with("NAME") && lines[0].ends_with("WAITING"), "{shown}");
        for ((_, name), line) in NAMES.iter().zip(&lines[1..]) {
            let rest = line.strip_prefix(name).expect("the name first");
            let cells: Vec<&str> = rest.split_whitespace().collect();
            let [mode, address, owner, _, waiting] = cells.as_slice() else { panic!("{line}") };
            assert_eq!(
                (*mode, *address, *owner, *waiting),
                ("exclusive", &*bob.address(), r"bob\u{9b}", "0")
            );
        }
    }
}

#[test]
fn the_list_as_json_has_the_exact_names() {
    let site = Site::start();
    let mut bob = bob(&site);
    let page = json_of(&site, &["list"]);
    let mut told = bob.call("list", json!({}));
    assert_eq!(page["more"], json!(false));
    for (shown, told) in page["locks"].as_array().unwrap().iter().zip(told["locks"].as_array_mut().unwrap()) {
        told["holders"][0]["heldFor"] = shown["holders"][0]["heldFor"].clone();
        assert_eq!(shown, told);
    }
    assert_eq!(page["locks"].as_array().unwrap().len(), NAMES.len());
}

#[test]
fn a_list_can_be_narrowed() {
    let site = Site::start();
    let _bob = bob(&site);
    assert_eq!(names(&json_of(&site, &["list", "--prefix", "job/"])), ["job/1", "job/2"]);
    for (limit, more) in [("1", true), ("2", false), ("0", true)] {
        let page = json_of(&site, &["list", "--prefix", "job/", "--limit", limit]);
        assert_eq!((names(&page).len().to_string(), page["more"] == true), (limit.to_owned(), more));
    }
    let mut waiter = site.server.message();
    waiter.request_lock("job/2");
    site.server.await_waiters("job/2", 1);
    assert_eq!(names(&json_of(&site, &["list", "--waiting"])), ["job/2"]);
    assert_eq!(names(&json_of(&site, &["list", "--prefix", "x"])), [""; 0]);
}

#[test]
fn a_list_has_more_than_one_page() {
    let site = Site::start();
    let mut holder = site.server.message();
    let all: Vec<String> = (0..2500).map(|number| format!("{number:04}")).collect();
    for names in all.chunks(1000) {
        assert_eq!(holder.call("lock", json!({"lockNames": names}))["status"], "ok");
    }
    assert_eq!(names(&json_of(&site, &["list"])), all);
    let (_, table, _) = site.said(&["list"]);
    assert_eq!(table.lines().count(), all.len() + 1);
    let page = json_of(&site, &["list", "--limit", "1000"]);
    assert_eq!((names(&page).len(), &page["more"]), (1000, &json!(true)));
}

#[test]
fn a_lock_is_shown_with_its_queue_in_order() {
    let site = Site::start();
    let [mut holder, mut one, mut two] = [(); 3].map(|()| site.server.message());
    holder.lock("a");
    one.request("lock", json!({"lockNames": ["a", "b"]}));
    site.server.await_waiters("a", 1);
    two.request("lock", json!({"lockName": "a", "mode": "shared"}));
    site.server.await_waiters("a", 2);
    let (code, shown, _) = site.said(&["inspect", "a"]);
    assert_eq!(code, 0);
    let line = |client: &FrameClient| {
        let address = client.address();
        let line = shown.lines().find(|line| line.contains(&address)).expect("it is shown");
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    assert!(shown.starts_with("a: held exclusively\n"), "{shown}");
    assert!(line(&one).starts_with("1 ") && line(&one).ends_with("exclusive the holder"), "{shown}");
    assert!(line(&two).starts_with("2 ") && line(&two).ends_with("shared number 1 in the queue"), "{shown}");
    let (_, shown, _) = site.said(&["inspect", "b"]);
    assert!(shown.starts_with("b: held by nobody, and waited for\n"), "{shown}");
    assert!(shown.contains("another name, which it wants at the same time"), "{shown}");
    let lock = json_of(&site, &["inspect", "a"]);
    assert_eq!(lock["waiters"].as_array().unwrap().len(), 2);
}

#[test]
fn a_lock_without_a_holder_is_shown_too() {
    let site = Site::start();
    assert_eq!(site.said(&["inspect", "a\tb"]).1, "a\\tb: free\n");
    let mut holder = site.server.message();
    holder.lock("a");
    drop(holder);
    site.server.await_free("a");
    let (_, shown, _) = site.said(&["inspect", "a"]);
    assert!(shown.starts_with("a: free\norphaned: "), "{shown}");
    assert_eq!(json_of(&site, &["inspect", "a"])["orphaned"], true);
    // A longer name with the same beginning is another lock.
    let mut holder = site.server.message();
    holder.lock("bc");
    assert_eq!(site.said(&["inspect", "b"]).1, "b: free\n");
}

#[test]
fn a_list_that_cannot_be_shown_is_an_error() {
    let site = Site::with(&["--no-dump"]);
    for command in [&["list"][..], &["inspect", "a"], &["watch"]] {
        let (code, _, errors) = site.said(command);
        assert!(
            code == 1 && errors.contains("listing is disabled on this server (no-dump)"),
            "{code}: {errors}"
        );
    }
    let (code, _, errors) = site.said(&["list", "--server", "unix:/nonexistent/lockd.sock"]);
    assert!(code == 1 && errors.contains("cannot be reached"), "{errors}");
}

#[test]
fn a_server_that_is_gone_does_not_hide_the_locks_of_the_others() {
    let site = Site::with(&["--allow-kick"]);
    let mut holder = site.server.message();
    // Some of them belong to the server that runs.
    let all: Vec<String> = (0..20).map(|number| format!("n{number}")).collect();
    for name in &all {
        holder.lock(name);
    }
    let two = format!("unix:/nonexistent/lockd.sock,{}", site.url());
    for command in ["list", "watch"] {
        let (code, shown, errors) = site.said(&[command, "--server", &two]);
        assert!(code == 1 && errors.contains("/nonexistent/lockd.sock"), "{command}: {code}: {errors}");
        assert!(all.iter().all(|name| shown.contains(name.as_str())), "{command}: {shown}");
    }
    let inspected = all.iter().map(|name| site.said(&["inspect", name, "--server", &two]));
    let (shown, hidden): (Vec<_>, Vec<_>) = inspected.partition(|(_, shown, _)| !shown.is_empty());
    assert!(
        !shown.is_empty() && shown.iter().all(|(_, shown, _)| shown.contains("held exclusively")),
        "{shown:?}"
    );
    assert!(!hidden.is_empty(), "of what belongs to the other one nothing is known");
    for (code, _, errors) in shown.iter().chain(&hidden) {
        assert!(*code == 1 && errors.contains("/nonexistent/lockd.sock"), "{errors}");
    }
    let (code, _, errors) = site.said(&["kick", &holder.address(), "--server", &two]);
    assert!(code == 1 && errors.contains("/nonexistent/lockd.sock"), "{errors}");
    site.server.await_free("n0");
}
