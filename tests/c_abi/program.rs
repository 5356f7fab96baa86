//! C programs of this directory: compiled against the header and the library under test, and run. A
//! program passes if it ends with status 0 and has printed nothing.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, OnceLock};

use lockd::broker::Broker;
use lockd::server::{Config, Server, Service};
use tempfile::TempDir;

use crate::running::eventually;

/// How long a program may take, in seconds, before it is killed and the test fails.
const LIMIT_SECONDS: &str = "120";

/// How a program is linked with the library.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Linkage {
    Shared,
    Static,
    /// Not linked, but the program finds the library when it loads it at run time.
    AtRunTime,
    /// The same, but it is not a program but a module that a program loads.
    Module,
}

/// The system libraries that `liblockd.a` needs, as `rustc --print native-static-libs` lists them.
pub(crate) const SYSTEM_LIBRARIES: [&str; 7] =
    ["-lgcc_s", "-lutil", "-lrt", "-lpthread", "-lm", "-ldl", "-lc"];

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The directory of the libraries: those that cargo has built for this test, or `LIBLOCKD_DIR` for
/// a library that was built in another way (for example with a sanitizer).
pub(crate) fn library_directory() -> PathBuf {
    std::env::var_os("LIBLOCKD_DIR")
        .map_or_else(|| std::env::current_exe().unwrap().parent().unwrap().to_owned(), PathBuf::from)
}

/// Additional options for the compiler or the linker, which the sanitizers need.
fn flags(variable: &str) -> Vec<String> {
    let flags = std::env::var(variable).unwrap_or_default();
    flags.split_whitespace().map(str::to_owned).collect()
}

/// Whether the library is built with a sanitizer: see `sanitize.sh`.
pub(crate) fn is_sanitized() -> bool {
    !flags("LIBLOCKD_CFLAGS").is_empty()
}

/// A build directory for this process. At first it contains only the library, also under its
/// soname.
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

/// Removes the directories of processes that have ended. A test process cannot do that itself: it
/// is not told that it is about to end.
fn remove_what_others_left(all: &Path) {
    for entry in std::fs::read_dir(all).into_iter().flatten().flatten() {
        if !Path::new("/proc").join(entry.file_name()).exists() {
            // Another process may be removing it at the same time.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// The paths of the programs that have been compiled, or are being compiled.
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

    /// Each program is compiled once, for all tests.
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
            // The sanitizers' runtime is in the program, so the library must be linked into it too.
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

    /// Runs the program under valgrind: there must be no leak and no invalid access, in the program
    /// and its children. Does nothing for a library with a sanitizer, which does not work together
    /// with valgrind and has already checked the same.
    pub(crate) fn run_under_valgrind(&self, arguments: &[&str]) {
        // Blocks that are "possibly lost" are not reported: a hash table is referenced through a
        // pointer into its middle.
        let no_leaks = [
            "--leak-check=full",
            "--show-leak-kinds=definite,indirect",
            "--errors-for-leak-kinds=definite,indirect",
        ];
        self.check_under_valgrind(&no_leaks, arguments);
    }

    /// The same, except for leaks: a child deliberately leaves alone what its inherited handles
    /// refer to.
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
        // Cargo's library path would be searched before the program's own, and may lead to other
        // libraries.
        command.env_remove("LD_LIBRARY_PATH");
        let output = command.stdin(Stdio::null()).output().expect("make test-setup installs the tools");
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

/// A broker that is served over TCP and over a Unix socket, for programs to connect to.
pub(crate) struct Served {
    server: Server,
    _directory: TempDir,
}

impl Served {
    pub(crate) fn start() -> Self {
        Self::with(&Broker::default(), Service::locks())
    }

    /// Serves this broker with the commands of `service`.
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

    /// Waits until the last connection has ended.
    pub(crate) fn await_no_connections(&self) {
        eventually("all connections have gone", || self.server.connections() == 0);
    }
}
