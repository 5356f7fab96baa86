//! A server started as root uses directories where another user may write: through links planted
//! there it neither truncates a file nor changes its owner.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};

use nix::unistd::User;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::server::Launch;

/// A directory owned by `nobody`, and a file owned by root elsewhere.
struct Trap {
    planted: TempDir,
    elsewhere: TempDir,
    nobody: u32,
}

impl Trap {
    /// `None` if this process may not change owners.
    #[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
    fn set() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root can be led astray by another user");
            return None;
        }
        let nobody = User::from_name("nobody").unwrap().unwrap().uid.as_raw();
        let (planted, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        chown(planted.path(), Some(nobody), None).unwrap();
        fs::write(elsewhere.path().join("precious"), "data").unwrap();
        Some(Self { planted, elsewhere, nobody })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.planted.path().join(name)
    }

    fn precious(&self) -> PathBuf {
        self.elsewhere.path().join("precious")
    }

    /// A link owned by `nobody` to a file owned by root.
    fn plant(&self, name: &str, target: &Path) {
        symlink(target, self.path(name)).unwrap();
        lchown(self.path(name), Some(self.nobody), None).unwrap();
    }

    #[track_caller]
    fn assert_is_whole(&self) {
        assert_eq!(fs::read_to_string(self.precious()).unwrap(), "data");
        for path in [self.elsewhere.path(), &self.precious()] {
            assert_eq!(fs::metadata(path).unwrap().uid(), 0, "{}", path.display());
        }
        assert_eq!(fs::read_dir(self.elsewhere.path()).unwrap().count(), 1);
    }
}

fn launch(option: &str, path: &Path) -> Launch {
    Launch::new()
        .listen("glockd://127.0.0.1:0")
        .option(option, path.to_str().unwrap())
        .option("--user", "nobody")
}

#[track_caller]
fn assert_refused(launch: Launch, what: &str) {
    let (status, log) = launch.run();
    assert!(!status.success() && log.contains(what), "{status}: {log}");
}

#[test]
fn a_link_in_place_of_the_pidfile_is_not_followed() {
    let Some(trap) = Trap::set() else { return };
    trap.plant("pid", &trap.precious());
    assert_refused(launch("--pidfile", &trap.path("pid")), "symbolic link");
    // A second name (hard link) of another file is not accepted as a pidfile either.
    fs::hard_link(trap.precious(), trap.path("pid2")).unwrap();
    assert_refused(launch("--pidfile", &trap.path("pid2")), "pid2");
    trap.assert_is_whole();
}

#[test]
fn a_link_of_another_user_to_a_state_directory_is_refused() {
    let Some(trap) = Trap::set() else { return };
    trap.plant("state", trap.elsewhere.path());
    for path in [trap.path("state"), trap.path("state/"), trap.path("state/.")] {
        assert_refused(launch("--state-dir", &path), "link of another user");
    }
    trap.assert_is_whole();
    // A link that root has made is intended.
    let own = tempfile::tempdir().unwrap();
    symlink(own.path(), trap.path("own")).unwrap();
    let mut server = launch("--state-dir", &trap.path("own")).start();
    assert_eq!(fs::metadata(own.path()).unwrap().uid(), trap.nobody);
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_link_in_the_state_directory_is_not_written_through() {
    let Some(trap) = Trap::set() else { return };
    trap.plant("state.new", &trap.precious());
    let state = trap.planted.path().to_str().unwrap();
    // Without `--user` the server stays root, which may write everywhere.
    let launch = || Launch::new().listen("glockd://127.0.0.1:0").option("--state-dir", state);
    let mut server = launch().start();
    server.signal(Signal::TERM);
    assert_eq!(server.wait().code(), Some(0));
    assert!(fs::symlink_metadata(trap.path("state")).unwrap().is_file());
    trap.assert_is_whole();
    fs::remove_file(trap.path("state")).unwrap();
    trap.plant("state", &trap.precious());
    assert_refused(launch(), "state directory");
    trap.assert_is_whole();
}

#[test]
fn another_file_keeps_its_owner_in_place_of_a_sockets_lock() {
    let Some(trap) = Trap::set() else { return };
    fs::hard_link(trap.precious(), trap.path("s.lock")).unwrap();
    let socket = format!("glockd+unix:{}", trap.path("s").display());
    assert_refused(Launch::new().listen(&socket).option("--user", "nobody"), "s.lock");
    trap.assert_is_whole();
}
