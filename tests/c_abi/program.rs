//! C programs of this directory: compiled against the header and the library under test, and run. A
//! program passes if it ends with status 0 and has said nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, OnceLock};

use lockd::broker::Broker;
use lockd::server::{Config, Server, Service};
use tempfile::TempDir;

use crate::running::eventually;

/// How long a program may take before it is ended, and the test fails.
const LIMIT_SECONDS: &str = "120";

/// How a program gets hold of the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Linkage {
    Shared,
    Static,
    /// Not at all, but it finds the library when it asks for it at run time.
    AtRunTime,
    /// The same, and it is no program but a part that one loads.
    Module,
}

/// The system libraries that `liblockd.a` needs: what rustc says with `--print native-static-libs`.
pub(crate) const SYSTEM_LIBRARIES: [&str; 7] =
    ["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl", "-lc"];

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where the libraries are: those cargo has built for this test, or `LIBLOCKD_DIR`, for a library
/// that was built otherwise (with a sanitizer, say).
pub(crate) fn library_directory() -> PathBuf {
    std::env::var_os("LIBLOCKD_DIR")
        .map_or_else(|| std::env::current_exe().unwrap().parent().unwrap().to_owned(), PathBuf::from)
}

/// More options for the compiler or the linker, as the sanitizers need them.
fn flags(variable: &str) -> Vec<String> {
    let flags = std::env::var(variable).unwrap_or_default();
    flags.split_whitespace().map(str::to_owned).collect()
}

/// Whether the library has a sanitizer in it: see `sanitize.sh`.
pub(crate) fn is_sanitized() -> bool {
    !flags("LIBLOCKD_CFLAGS").is_empty()
}

/// A directory of this process for what is built, empty at first but for the library, under its
/// soname too.
pub(crate) fn build_directory() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("c_abi");
        remove_what_others_left(&all);
        let directory = all.join(std::process::id().to_string());
        std::fs::create_dir_all(&directory).unwrap();
        let library = library_directory().join("liblockd.so");
        for name in ["liblockd.so", "liblockd.so.1"] {
            std::os::unix::fs::symlink(&library, directory.join(name)).unwrap();
        }
        directory
    })
}

/// Removes the directories of processes that have ended: nothing tells a process of tests that it
/// is about to.
fn remove_what_others_left(all: &Path) {
    for entry in std::fs::read_dir(all).into_iter().flatten().flatten() {
        if !Path::new("/proc").join(entry.file_name()).exists() {
            // Another process may be removing it, too.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Where the programs are that have been compiled, or are being so.
type Compiled = BTreeMap<(String, Linkage), Arc<OnceLock<PathBuf>>>;

/// A compiled program.
pub(crate) struct Program {
    executable: PathBuf,
}

impl Program {
    /// Compiles `programs/NAME.c`, with every warning an error.
    pub(crate) fn compile(name: &str, linkage: Linkage) -> Self {
        Self::compile_with(&["cc", "-std=c11"], &format!("{name}.c"), linkage)
    }

    /// The same for `programs/NAME.cpp`.
    pub(crate) fn compile_cplusplus(name: &str, linkage: Linkage) -> Self {
        Self::compile_with(&["c++", "-std=c++17"], &format!("{name}.cpp"), linkage)
    }

    /// Each is compiled once, for all tests.
    fn compile_with(compiler: &[&str], source: &str, linkage: Linkage) -> Self {
        static COMPILED: Mutex<Compiled> = Mutex::new(BTreeMap::new());
        let program = COMPILED.lock().unwrap().entry((source.to_owned(), linkage)).or_default().clone();
        let executable = program.get_or_init(|| Self::build(compiler, source, linkage)).clone();
        Self { executable }
    }

    fn build(compiler: &[&str], source: &str, linkage: Linkage) -> PathBuf {
        let executable = build_directory().join(format!("{source}-{linkage:?}"));
        let object = build_directory().join(format!("{source}-{linkage:?}.o"));
        let mut command = Command::new(compiler[0]);
        command.args(&compiler[1..]).args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-g", "-O1"]);
        command.arg("-D_GNU_SOURCE").arg("-pthread").arg("-I").arg(root().join("include"));
        command.args(flags("LIBLOCKD_CFLAGS")).args(["-fPIC", "-c"]);
        command.arg(root().join("tests/c_abi/programs").join(source)).arg("-o").arg(&object);
        checked(command.output().expect("a C compiler: make test-setup installs one"), source);

        let mut command = Command::new(compiler[0]);
        command.arg("-pthread").arg(&object).arg("-o").arg(&executable).args(flags("LIBLOCKD_LDFLAGS"));
        let finds_it = format!("-Wl,-rpath,{}", build_directory().display());
        match linkage {
            Linkage::AtRunTime => command.arg(finds_it),
            Linkage::Module => command.arg("-shared").arg(finds_it),
            // The sanitizers' runtime is in the program, and the library must be with it.
            Linkage::Shared if !is_sanitized() => {
                command.arg("-L").arg(build_directory()).arg("-llockd").arg(finds_it)
            }
            _ => command.arg(library_directory().join("liblockd.a")).args(SYSTEM_LIBRARIES),
        };
        checked(command.output().unwrap(), source);
        executable
    }

    pub(crate) fn path(&self) -> &str {
        self.executable.to_str().unwrap()
    }

    pub(crate) fn run(&self, arguments: &[&str]) {
        let mut command = Command::new("timeout");
        command.args(["--signal=KILL", LIMIT_SECONDS]).arg(&self.executable).args(arguments);
        self.check(&mut command);
    }

    /// Runs it under valgrind: no leak, no invalid access, in the program and its children. Not for
    /// a library with a sanitizer, which does not get along with valgrind, and has looked after
    /// that itself.
    pub(crate) fn run_under_valgrind(&self, arguments: &[&str]) {
        // Nor are blocks told of that are "possibly lost": hash tables are known by their middle.
        let no_leaks = [
            "--leak-check=full",
            "--show-leak-kinds=definite,indirect",
            "--errors-for-leak-kinds=definite,indirect",
        ];
        self.check_under_valgrind(&no_leaks, arguments);
    }

    /// The same but for leaks: what was behind the handles that a child has inherited is left alone
    /// there.
    pub(crate) fn run_forking_under_valgrind(&self, arguments: &[&str]) {
        self.check_under_valgrind(&["--leak-check=no"], arguments);
    }

    fn check_under_valgrind(&self, options: &[&str], arguments: &[&str]) {
        if is_sanitized() {
            return;
        }
        let mut command = Command::new("timeout");
        command.args(["--signal=KILL", LIMIT_SECONDS, "valgrind", "--quiet", "--error-exitcode=99"]);
        command.arg("--fair-sched=yes").args(options).arg(&self.executable).args(arguments);
        self.check(&mut command);
    }

    fn check(&self, command: &mut Command) {
        // Cargo's way to the libraries it has built goes before the program's own, and may lead to
        // others.
        command.env_remove("LD_LIBRARY_PATH");
        let output =
            command.stdin(Stdio::null()).output().expect("make test-setup installs what is run here");
        let output = checked(output, &self.executable.display().to_string());
        assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

/// The output of a command that must have succeeded.
pub(crate) fn checked(output: Output, what: &str) -> Output {
    assert!(
        output.status.success(),
        "{what}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// A broker served over TCP and over a Unix socket, for programs to connect to.
pub(crate) struct Served {
    server: Server,
    _directory: TempDir,
}

impl Served {
    pub(crate) fn start() -> Self {
        Self::with(&Broker::default(), Service::locks())
    }

    /// Serves this broker, and answers what `service` says.
    pub(crate) fn with(broker: &Broker, service: Service) -> Self {
        let directory = TempDir::new().unwrap();
        let unix = format!("message+unix:{}", directory.path().join("lockd.sock").display());
        let listen = ["message://127.0.0.1:0", &unix].map(|address| address.parse().unwrap());
        let config = Config { listen: listen.into(), ..Config::default() };
        let server = Server::start(broker, config, service).unwrap();
        Self { server, _directory: directory }
    }

    pub(crate) fn tcp(&self) -> String {
        self.server.addresses()[0].to_string()
    }

    pub(crate) fn unix(&self) -> String {
        self.server.addresses()[1].to_string()
    }

    /// Waits until the last connection has gone.
    pub(crate) fn await_no_connections(&self) {
        eventually("all connections have gone", || self.server.connections() == 0);
    }
}
