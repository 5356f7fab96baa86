//! Clients of all protocols, each amid something, which look whether anything has changed for them.

use std::fs;

use serde_json::json;

use crate::support::eventually;
use crate::support::frame_client::FrameClient;
use crate::support::line_client::LineClient;
use crate::support::server::Server;

/// Marks a descriptor that is closed by execve(2), in the flags that the kernel shows.
const CLOSED_AT_EXEC: u32 = 0o2_000_000;

pub(crate) struct BusyClients {
    /// Holds `one`.
    holder: LineClient,
    /// Waits for `one`.
    waiter: LineClient,
    /// Has sent half of a request.
    half: LineClient,
    /// Holds `two` and waits for `one` by the request with this number.
    both: FrameClient,
    asked: u64,
    pid: u32,
    descriptors: usize,
    outliving_exec: Vec<u32>,
}

/// The descriptors of a process that would stay open in a program that it becomes.
fn outliving_exec(pid: u32) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap() {
        let path = entry.unwrap().path();
        // It may have been closed meanwhile.
        let Ok(info) = fs::read_to_string(&path) else { continue };
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        if u32::from_str_radix(flags.trim(), 8).unwrap() & CLOSED_AT_EXEC == 0 {
            found.push(path.file_name().unwrap().to_str().unwrap().parse().unwrap());
        }
    }
    found.sort_unstable();
    found
}

impl BusyClients {
    pub(crate) fn join(server: &Server) -> Self {
        let (mut holder, mut waiter, mut half) = (server.glockd(), server.glockd(), server.lockd());
        let mut both = server.message();
        assert!(holder.ask("g one").starts_with('1'));
        waiter.send("gw 600 one\n");
        eventually("the first waits", || both.call("stats", json!({}))["waiting"] == 1);
        assert_eq!(both.lock("two")["status"], "ok");
        let asked = both.request_lock("one");
        assert!(half.ask("i two").starts_with('1'));
        half.send("i o");
        let (pid, outliving_exec) = (server.pid(), outliving_exec(server.pid()));
        let mut clients = Self { holder, waiter, half, both, asked, pid, descriptors: 0, outliving_exec };
        clients.assert_all_here();
        clients.descriptors = server.descriptors();
        clients
    }

    fn assert_all_here(&mut self) {
        let stats = self.both.call("stats", json!({}));
        assert_eq!([&stats["locks"], &stats["waiting"]], [2, 2], "{stats}");
        assert!(self.holder.ask("i one").starts_with('1'));
    }

    /// Everything is as it was: the clients, their locks and waits, and what the server has open.
    #[track_caller]
    pub(crate) fn assert_unchanged(&mut self, server: &Server) {
        assert_eq!(server.pid(), self.pid);
        self.assert_all_here();
        assert!(server.lockd().ask("g one").starts_with('0'), "new clients are served");
        // A connection that has just been closed may still be open on its side.
        eventually("nothing more is open", || server.descriptors() <= self.descriptors);
        assert_eq!(outliving_exec(self.pid), self.outliving_exec);
    }

    /// The server has been upgraded. The next version has one more descriptor than one that was
    /// started: it looks by that for connections that something comes from, which have no thread.
    pub(crate) fn note_upgrade(&mut self) {
        self.descriptors += 1;
    }

    /// Lets all of them finish what they have begun.
    pub(crate) fn finish(mut self) {
        self.half.send("ne\n");
        assert!(self.half.line().starts_with('1'));
        assert!(self.holder.ask("r one").starts_with('1'));
        assert!(self.waiter.line().starts_with('1'));
        self.both.hears_nothing();
        assert!(self.waiter.ask("r one").starts_with('1'));
        assert_eq!(self.both.result(self.asked)["status"], "ok");
        assert_eq!(self.both.unlock("two")["result"], "ok");
    }
}
