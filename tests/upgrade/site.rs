//! A server whose program can be replaced, and the command that asks it to upgrade.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::support::environment::without_options;
use crate::support::server::{Launch, Server, program};

pub(crate) struct Site {
    pub(crate) server: Server,
    directory: TempDir,
}

impl Site {
    /// Starts a server with the three protocols, a control socket, and these options.
    pub(crate) fn start(options: &[&str]) -> Self {
        Self::start_with(|launch, _| {
            let listen = |launch: Launch, protocol| launch.listen(&format!("{protocol}://127.0.0.1:0"));
            ["lockd", "glockd", "message"].into_iter().fold(launch, listen).args(options.iter().copied())
        })
    }

    /// The same, and the protocols over Unix sockets in addition.
    pub(crate) fn everywhere(options: &[&str]) -> Self {
        Self::start_with(|launch, directory| {
            let listen = |launch: Launch, protocol| {
                let socket = directory.join(format!("{protocol}.sock"));
                launch
                    .listen(&format!("{protocol}+unix:{}", socket.display()))
                    .listen(&format!("{protocol}://127.0.0.1:0"))
            };
            ["lockd", "glockd", "message"].into_iter().fold(launch, listen).args(options.iter().copied())
        })
    }

    /// Starts a server with a control socket, and what `prepare` adds, in a directory of its own.
    pub(crate) fn start_with(prepare: impl FnOnce(Launch, &Path) -> Launch) -> Self {
        // Other users may run the program, in case the server becomes one of them.
        let directory = tempfile::Builder::new().permissions(PermissionsExt::from_mode(0o755)).tempdir();
        let directory = directory.unwrap();
        install(&directory.path().join("lockd"));
        Self::start_in(directory, prepare)
    }

    /// Starts another server in the directory of this one, which has ended.
    pub(crate) fn start_again(self, prepare: impl FnOnce(Launch, &Path) -> Launch) -> Self {
        let Self { server, directory } = self;
        drop(server);
        Self::start_in(directory, prepare)
    }

    fn start_in(directory: TempDir, prepare: impl FnOnce(Launch, &Path) -> Launch) -> Self {
        let control = directory.path().join("control");
        let launch = Launch::of(directory.path().join("lockd"));
        let launch = launch.option("--control", control.to_str().unwrap());
        let server = prepare(launch, directory.path()).start();
        Self { server, directory }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn control(&self) -> PathBuf {
        self.directory.path().join("control")
    }

    /// Where the next version of the program is looked for.
    pub(crate) fn program(&self) -> PathBuf {
        self.directory.path().join("lockd")
    }

    /// Installs the program once more, as a newer version that is the same.
    pub(crate) fn install_again(&self) {
        let new = self.directory.path().join("lockd.new");
        install(&new);
        fs::rename(new, self.program()).unwrap();
    }

    /// Installs a shell script in place of the program.
    pub(crate) fn install_script(&self, text: &str) {
        self.install_script_of("/bin/sh", text);
    }

    /// The same with this interpreter.
    pub(crate) fn install_script_of(&self, interpreter: &str, text: &str) {
        let new = self.directory.path().join("lockd.new");
        // Written by another process: a child that another test starts in this moment would keep
        // the file open for writing, and then it cannot be run.
        let mut write = Command::new("sh");
        write.args(["-c", "printf '%s\n' \"$1\" \"$2\" >\"$0\" && chmod 755 \"$0\""]);
        write.arg(&new).arg(format!("#!{interpreter}")).arg(text);
        assert!(write.status().unwrap().success());
        fs::rename(new, self.program()).unwrap();
    }

    /// Installs a script that is the program after it has done this.
    pub(crate) fn install_before_program(&self, text: &str) {
        self.install_script(&format!("{text}\nexec '{}' \"$@\"", Path::new(&program()).display()));
    }

    /// The text of a script that waits at this point until it is to go on, or the test is over.
    pub(crate) fn pause(&self, name: &str) -> (Pause, String) {
        let pause =
            Pause { reached: self.path(&format!("{name}.reached")), go: self.path(&format!("{name}.go")) };
        let [reached, go] = [&pause.reached, &pause.go].map(|path| path.display());
        let text =
            format!(": >'{reached}'; until [ -e '{go}' ] || [ ! -e '{reached}' ]; do sleep 0.01; done");
        (pause, text)
    }

    /// Installs a next version that can take over, and once it has replaced the one before it, waits
    /// before it reads anything.
    pub(crate) fn install_pausing_before_it_serves(&self) -> Pause {
        let (pause, wait) = self.pause("becomes");
        let program = program();
        // Unlike sh, bash leaves signals blocked that are blocked when it starts.
        self.install_script_of(
            "/bin/bash",
            &format!(
                "[ -z \"$LOCKD_UPGRADE_STATE\" ] || {{ {wait}; }}\nexec '{}' \"$@\"",
                Path::new(&program).display()
            ),
        );
        pause
    }

    pub(crate) fn remove_program(&self) {
        fs::remove_file(self.program()).unwrap();
    }

    /// `lockd upgrade` for this server.
    pub(crate) fn asking(&self) -> Command {
        asking_at(&self.control())
    }

    /// Its exit status, and what it prints: standard output and standard error.
    pub(crate) fn ask(&self) -> (i32, String, String) {
        said(&mut self.asking())
    }

    /// Waits for a line of the server's log.
    pub(crate) fn await_log(&self, text: &str) {
        crate::support::eventually(text, || self.server.log().iter().any(|line| line.contains(text)));
    }
}

/// A point that a script has reached, or not.
pub(crate) struct Pause {
    reached: PathBuf,
    go: PathBuf,
}

impl Pause {
    pub(crate) fn await_reached(&self) {
        crate::support::eventually("the script is there", || self.reached.exists());
    }

    pub(crate) fn go_on(&self) {
        fs::write(&self.go, "").unwrap();
    }
}

/// `lockd upgrade` for the server with this control socket.
pub(crate) fn asking_at(control: &Path) -> Command {
    let mut command = Command::new(program());
    without_options(&mut command).arg("upgrade").arg("--control").arg(control);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

pub(crate) fn said(command: &mut Command) -> (i32, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Puts the program at this path. A link is enough, unless it is on another file system.
fn install(path: &Path) {
    let program = PathBuf::from(program());
    if fs::hard_link(&program, path).is_err() {
        fs::copy(&program, path).unwrap();
    }
}
