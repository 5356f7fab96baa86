//! What a server uses of the machine: memory, descriptors and threads, as the kernel counts them.
//! Only measures; knows nothing of attacks.

use crate::support::server::Server;

/// What a server uses at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Vitals {
    pub(crate) resident_kib: u64,
    pub(crate) descriptors: usize,
    pub(crate) threads: usize,
}

impl Vitals {
    pub(crate) fn of(server: &Server) -> Self {
        let threads = usize::try_from(status(server, "Threads:")).unwrap();
        Self { resident_kib: status(server, "VmRSS:"), descriptors: server.descriptors(), threads }
    }
}

/// The largest resident memory since the peak was last reset.
pub(crate) fn peak_kib(server: &Server) -> u64 {
    status(server, "VmHWM:")
}

/// Resets the peak to the memory that is resident now.
pub(crate) fn forget_peak(server: &Server) {
    std::fs::write(format!("/proc/{}/clear_refs", server.pid()), "5").unwrap();
}

/// A number of the server's `/proc/PID/status`.
fn status(server: &Server, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let value = status.lines().find_map(|line| line.strip_prefix(field)).expect("a field of the status");
    value.trim().trim_end_matches(" kB").parse().unwrap()
}
