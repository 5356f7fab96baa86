//! Where a server is started again and again, at the same address, for `lockd run`s that wait for
//! it.

use std::fs::File;
use std::net::TcpListener;

use rustix::process::Signal;

use crate::support::eventually;
use crate::support::frame_client::FrameClient;
use crate::support::server::{Launch, Server};
use crate::tool::{Running, Site, argument};

/// Where a server is started again and again.
pub(crate) struct Place {
    /// For its directory; its own server is not used.
    pub(crate) site: Site,
    pub(crate) listen: String,
    options: Vec<String>,
}

impl Place {
    pub(crate) fn tcp() -> Self {
        // On an address of their own, so that no other test gets a port while it is free.
        let port = TcpListener::bind("127.0.7.1:0").unwrap().local_addr().unwrap();
        Self { site: Site::start(), listen: format!("message://{port}"), options: Vec::new() }
    }

    pub(crate) fn unix() -> Self {
        let site = Site::start();
        let listen = format!("message+unix:{}", argument(&site.path("sock")));
        Self { site, listen, options: Vec::new() }
    }

    pub(crate) fn with(mut self, options: &[&str]) -> Self {
        self.options = options.iter().map(|&option| option.to_owned()).collect();
        self
    }

    pub(crate) fn with_state(self) -> Self {
        self.with_state_and(&[])
    }

    /// With a state directory, so that sessions can resume, with the shortest dead-peer timeout, and
    /// with these options.
    pub(crate) fn with_state_and(self, options: &[&str]) -> Self {
        let state = argument(&self.site.path("state")).to_owned();
        std::fs::create_dir(&state).unwrap();
        let all = ["--state-dir", &state, "--first-start", "--dead-peer-timeout", "12"];
        self.with(&[&all[..], options].concat())
    }

    pub(crate) fn serve(&self) -> Server {
        let options = self.options.iter().map(String::as_str);
        Launch::new().listen(&self.listen).args(options).start()
    }

    /// `lockd run` at this place, with the least grace, since who has lost the server asks again
    /// only after it. What it says is written to the file `errors`.
    pub(crate) fn run(&self, errors: &str, arguments: &[&str], script: &str) -> Running {
        self.run_with_grace("0", errors, arguments, script)
    }

    pub(crate) fn run_with_grace(
        &self,
        grace: &str,
        errors: &str,
        arguments: &[&str],
        script: &str,
    ) -> Running {
        self.run_at(&self.listen, grace, errors, arguments, script)
    }

    /// The same, where the server has another address.
    pub(crate) fn run_at(
        &self,
        url: &str,
        grace: &str,
        errors: &str,
        arguments: &[&str],
        script: &str,
    ) -> Running {
        let run = ["run", "--server", url, "--grace", grace];
        let all = [&run[..], arguments, &["--", "sh", "-c", script]].concat();
        let errors = File::create(self.site.path(errors)).unwrap();
        Running(self.site.tool(&all).stderr(errors).spawn().unwrap())
    }

    pub(crate) fn said(&self, arguments: &[&str]) -> (i32, String, String) {
        self.site.said(&[&["run", "--server", &self.listen], arguments, &["--", "echo", "run"]].concat())
    }

    /// A client of the server of this place.
    pub(crate) fn client(&self, server: &Server) -> FrameClient {
        let is_unix = self.listen.contains("unix");
        FrameClient::new(if is_unix { server.unix("message") } else { server.tcp("message") })
    }

    pub(crate) fn errors(&self, file: &str) -> String {
        std::fs::read_to_string(self.site.path(file)).unwrap()
    }

    pub(crate) fn await_said(&self, file: &str, words: &str) {
        eventually(&format!("{words:?} is said"), || self.errors(file).contains(words));
    }
}

/// Ends the server, with SIGTERM or SIGKILL.
pub(crate) fn stop(mut server: Server, signal: Signal) {
    server.signal(signal);
    server.wait();
}

/// A server, and a session that holds `a`.
pub(crate) fn held(place: &Place) -> (Server, FrameClient) {
    let server = place.serve();
    let mut holder = server.message();
    holder.lock("a");
    (server, holder)
}
