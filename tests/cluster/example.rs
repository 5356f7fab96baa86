//! The example of a cluster, as a user runs it, with shorter times.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::etcd::data_directory;
use crate::support::environment::without_options;

/// The script. When this is dropped it is told to end, and ends what it has started.
struct Example(Child);

impl Drop for Example {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
            let _ = self.0.wait();
        }
    }
}

#[test]
fn the_example_shows_that_a_job_keeps_its_lock() {
    let directory = data_directory();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/cluster/run.sh");
    let said = directory.path().join("said");
    let output = std::fs::File::create(&said).unwrap();
    let mut command = Command::new(script);
    without_options(&mut command);
    command.env("LOCKD", env!("CARGO_BIN_EXE_lockd")).env("TMPDIR", directory.path());
    command.env("DEAD_PEER_TIMEOUT", "12").env("LEADER_TIMEOUT", "2");
    command.stdin(Stdio::null()).stdout(output.try_clone().unwrap()).stderr(output).process_group(0);
    let mut example = Example(command.spawn().unwrap());
    // It has a limit for each of its steps, and says which of them has failed.
    let status = example.0.wait().unwrap();
    let said = std::fs::read_to_string(said).unwrap();
    assert!(status.success(), "{status}: {said}");
    assert!(said.contains("has resumed") && said.ends_with("done\n"), "{said}");
}
