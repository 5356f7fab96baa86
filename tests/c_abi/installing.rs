//! `make install`: which files it installs where, and that programs find the library with
//! pkg-config alone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::program::{SYSTEM_LIBRARIES, build_directory, checked, library_directory, root};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A `make` command without the variables of a `make` that may have started this test.
pub(crate) fn make(directory: &Path) -> Command {
    let mut command = Command::new("make");
    let of_make = ["MAKEFLAGS", "MAKELEVEL", "MFLAGS", "CFLAGS", "LDFLAGS"];
    let places = ["BINDIR", "LIBDIR", "INCLUDEDIR", "MANDIR", "SYSCONFDIR", "SYSTEMDDIR"];
    for variable in of_make.iter().chain(&places) {
        command.env_remove(variable);
    }
    command.arg("--silent").arg("-C").arg(directory);
    command
}

/// Runs a target of the main Makefile with the library and program that cargo has built for this
/// test.
fn run_make(target: &str, variables: &[&str]) {
    let mut command = make(root());
    command.arg(target).arg(format!("BUILT={}", library_directory().display()));
    command.arg(concat!("PROGRAM=", env!("CARGO_BIN_EXE_lockd"))).args(variables);
    checked(command.output().expect("make test-setup installs make"), target);
}

/// An installation that all tests can use and must not change.
pub(crate) fn installed() -> &'static Path {
    static PREFIX: OnceLock<PathBuf> = OnceLock::new();
    PREFIX.get_or_init(|| {
        let prefix = build_directory().join("installed");
        run_make("install", &[&format!("PREFIX={}", prefix.display()), "DESTDIR="]);
        prefix
    })
}

fn pkg_config(directory: &Path, arguments: &[&str]) -> Vec<String> {
    let mut command = Command::new("pkg-config");
    command.env("PKG_CONFIG_PATH", directory).args(arguments).arg("lockd");
    let output = checked(command.output().expect("make test-setup installs pkg-config"), "pkg-config");
    String::from_utf8(output.stdout).unwrap().split_whitespace().map(str::to_owned).collect()
}

/// Every file below a directory, and where symbolic links lead.
fn listing(directory: &Path) -> Vec<String> {
    fn walk(below: &Path, top: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(below).unwrap().map(Result::unwrap) {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            let name = path.strip_prefix(top).unwrap().display().to_string();
            if kind.is_dir() {
                walk(&path, top, found);
            } else if kind.is_symlink() {
                found.push(format!("{name} -> {}", std::fs::read_link(&path).unwrap().display()));
            } else {
                found.push(name);
            }
        }
    }
    let mut found = Vec::new();
    walk(directory, directory, &mut found);
    found.sort();
    found
}

#[test]
fn files_are_installed_where_debian_expects_them_and_uninstalled_again() {
    let directory = TempDir::new().unwrap();
    let destination = format!("DESTDIR={}", directory.path().display());
    let variables = [&destination, "PREFIX=/usr", "LIBDIR=/usr/lib/x86_64-linux-gnu"];
    run_make("install", &variables);
    let library = format!("liblockd.so.1.{VERSION}");
    let expected = [
        "bin/lockd".to_owned(),
        "include/lockd.h".to_owned(),
        "lib/x86_64-linux-gnu/liblockd.a".to_owned(),
        "lib/x86_64-linux-gnu/liblockd.so -> liblockd.so.1".to_owned(),
        format!("lib/x86_64-linux-gnu/liblockd.so.1 -> {library}"),
        format!("lib/x86_64-linux-gnu/{library}"),
        "lib/x86_64-linux-gnu/pkgconfig/lockd.pc".to_owned(),
        "lib/systemd/system/lockd-glockd.socket".to_owned(),
        "lib/systemd/system/lockd-lockd.socket".to_owned(),
        "lib/systemd/system/lockd-message.socket".to_owned(),
        "lib/systemd/system/lockd.service".to_owned(),
        "share/bash-completion/completions/lockd".to_owned(),
        "share/fish/vendor_completions.d/lockd.fish".to_owned(),
        "share/man/man1/lockd-serve.1".to_owned(),
        "share/man/man1/lockd.1".to_owned(),
        "share/zsh/site-functions/_lockd".to_owned(),
    ];
    let expected = BTreeSet::from(expected);
    // Every command has a manual page; one of them is enough here.
    let is_page_of_another = |name: &String| name.contains("/man1/lockd-") && !name.contains("serve");
    let found = || -> BTreeSet<String> {
        let all = listing(&directory.path().join("usr"));
        all.into_iter().filter(|name| !is_page_of_another(name)).collect()
    };
    assert_eq!(found(), expected);
    assert_eq!(listing(&directory.path().join("etc")), ["lockd/lockd.toml"]);

    let config = directory.path().join("usr/lib/x86_64-linux-gnu/pkgconfig");
    let text = std::fs::read_to_string(config.join("lockd.pc")).unwrap();
    assert!(text.starts_with("prefix=/usr\nlibdir=${prefix}/lib/x86_64-linux-gnu\n"), "{text}");
    assert!(!text.contains('@') && !text.contains(directory.path().to_str().unwrap()), "{text}");

    // Installed again over the existing files, the configuration must keep what the administrator
    // wrote.
    let configuration = directory.path().join("etc/lockd/lockd.toml");
    std::fs::write(&configuration, "locks-max = 1").unwrap();
    run_make("install", &variables);
    assert_eq!(found(), expected);
    run_make("uninstall", &variables);
    assert_eq!(listing(directory.path()), ["etc/lockd/lockd.toml"]);
    assert_eq!(std::fs::read_to_string(&configuration).unwrap(), "locks-max = 1");
    std::fs::remove_file(&configuration).unwrap();
    run_make("install", &variables);
    run_make("uninstall", &variables);
    assert_eq!(listing(directory.path()), [""; 0]);
}

#[test]
fn units_and_manual_pages_contain_the_installed_paths() {
    let prefix = installed().display().to_string();
    let unit = std::fs::read_to_string(installed().join("lib/systemd/system/lockd.service")).unwrap();
    let start = format!("ExecStart={prefix}/bin/lockd serve --config {prefix}/etc/lockd/lockd.toml ");
    assert!(unit.contains(&start), "{unit}");
    let page = std::fs::read_to_string(installed().join("share/man/man1/lockd.1")).unwrap();
    assert!(page.contains(&format!("{prefix}/etc/lockd/lockd.toml")), "{page}");
}

#[test]
fn pkg_config_gives_the_flags_to_compile_and_link() {
    let prefix = installed();
    let config = prefix.join("lib/pkgconfig");
    let search = format!("-L{}", prefix.join("lib").display());
    assert_eq!(pkg_config(&config, &["--modversion"]), [VERSION]);
    assert_eq!(pkg_config(&config, &["--cflags"]), [format!("-I{}", prefix.join("include").display())]);
    assert_eq!(pkg_config(&config, &["--libs"]), [&search, "-llockd"]);
    let with_system = [&[search.as_str(), "-llockd"], &SYSTEM_LIBRARIES[..]].concat();
    assert_eq!(pkg_config(&config, &["--libs", "--static"]), with_system);
}

#[test]
fn the_header_compiles_as_c_and_as_cpp_by_itself() {
    let include = installed().join("include");
    for (compiler, language, standard) in
        [("cc", "c", "c99"), ("cc", "c", "c11"), ("c++", "c++", "c++11"), ("c++", "c++", "c++20")]
    {
        let mut command = Command::new(compiler);
        command.args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", "-x", language]);
        command.arg(format!("-std={standard}")).arg(include.join("lockd.h"));
        checked(command.output().expect("make test-setup installs compilers"), standard);
    }
}

#[test]
fn the_installed_program_runs() {
    let output = Command::new(installed().join("bin/lockd")).arg("--version").output().unwrap();
    assert_eq!(checked(output, "lockd").stdout, format!("lockd {VERSION}\n").as_bytes());
}

#[test]
fn the_program_in_the_readme_is_built_by_pkg_config_and_gets_its_lock() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let (_, rest) = readme.split_once("```c\n").unwrap();
    let (source, _) = rest.split_once("```").unwrap();
    let directory = TempDir::new().unwrap();
    let (source_path, executable) = (directory.path().join("invoices.c"), directory.path().join("invoices"));
    std::fs::write(&source_path, source).unwrap();

    let mut command = Command::new("cc");
    command.args(["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-std=c11"]).arg(source_path);
    command.args(pkg_config(&installed().join("lib/pkgconfig"), &["--cflags", "--libs"]));
    checked(command.arg("-o").arg(&executable).output().unwrap(), "the README's program");
    let mut command = Command::new(&executable);
    let output = command.env("LD_LIBRARY_PATH", installed().join("lib")).output().unwrap();
    let said = String::from_utf8(checked(output, "the README's program").stdout).unwrap();
    assert!(said.starts_with("it is ours, with token "), "{said}");
}
