//! Manual pages and completions contain every command and option of the program, and the links of
//! the documents lead somewhere.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

use lockd::server::Options;
use tempfile::TempDir;

use crate::support::environment::without_options;

fn run(program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    // The help of an option shows the value of its variable.
    let output = without_options(&mut command).args(arguments).env("MANROFFSEQ", "").output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    output
}

fn lockd(arguments: &[&str]) -> String {
    String::from_utf8(run(env!("CARGO_BIN_EXE_lockd"), arguments).stdout).unwrap()
}

fn is_installed(program: &str) -> bool {
    Command::new("sh").args(["-c", &format!("command -v {program}")]).output().unwrap().status.success()
}

/// The commands that the help names.
fn commands() -> BTreeSet<String> {
    let help = lockd(&["--help"]);
    let (_, rest) = help.split_once("Commands:\n").unwrap();
    let lines = rest.lines().take_while(|line| line.starts_with("  "));
    let names =
        lines.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    let commands: BTreeSet<String> = names.filter(|name| *name != "help").map(str::to_owned).collect();
    assert!(commands.contains("serve") && commands.contains("bench"), "{commands:?}");
    commands
}

/// The long options that the help of a command names.
fn options(arguments: &[&str]) -> BTreeSet<String> {
    let help = lockd(&[arguments, &["--help"]].concat());
    // Options are indented; a line of the text below them may begin with the name of one, too.
    let is_option = |line: &&str| line.starts_with(' ') && line.trim_start().starts_with('-');
    let words = help.lines().filter(is_option).flat_map(str::split_whitespace);
    let long = words.filter_map(|word| word.strip_prefix("--"));
    long.map(|option| option.trim_end_matches(|c: char| c != '-' && !c.is_alphanumeric()))
        .map(|option| option.split(['[', '=']).next().unwrap_or(option).to_owned())
        .collect()
}

#[test]
fn every_option_of_the_server_is_known_to_programs_that_embed_one() {
    let given = options(&["serve"]);
    let known: BTreeSet<&str> = Options::names().collect();
    let unknown: Vec<_> = given.iter().filter(|name| *name != "help" && !known.contains(&***name)).collect();
    assert!(unknown.is_empty(), "neither taken nor refused by lockd::server::Options: {unknown:?}");
    let taken = known.into_iter().filter(|name| !Options::is_refused(name));
    let not_given: Vec<_> = taken.filter(|name| !given.contains(*name)).collect();
    assert!(not_given.is_empty(), "no options of lockd serve: {not_given:?}");
}

#[test]
fn the_help_names_the_unit_of_every_value() {
    let help = lockd(&["serve", "--help"]);
    let mut words = help.split_whitespace().peekable();
    while let Some(word) = words.next() {
        let Some(name) = word.strip_prefix("--") else { continue };
        let value = words.peek().and_then(|value| value.strip_prefix('<')?.strip_suffix('>'));
        let Some(value) = value else { continue };
        assert_eq!(Options::value_name(name), Some(value), "{name}");
    }
    let named =
        Options::names().filter_map(|name| Some(format!("--{name} <{}>", Options::value_name(name)?)));
    let missing: Vec<String> = named.filter(|option| !help.contains(option)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn the_documents_say_which_options_need_a_restart() {
    let fixed: BTreeSet<&str> = Options::names().filter(|name| Options::needs_restart(name)).collect();
    let manual = include_str!("../../docs/operations.md");
    let row = manual.lines().find(|line| line.starts_with("| `listen`, ")).unwrap();
    let options = row.split('|').nth(1).unwrap();
    assert_eq!(options.split('`').skip(1).step_by(2).collect::<BTreeSet<_>>(), fixed, "docs/operations.md");
    let file = include_str!("../../packaging/lockd.toml");
    let marked = file.split("\n\n").filter(|part| part.contains("(start)"));
    let first_option = |part: &'static str| {
        let line = part.lines().find_map(|line| line.strip_prefix('#')?.split_once(" = "));
        line.map(|(name, _)| name)
    };
    assert_eq!(marked.filter_map(first_option).collect::<BTreeSet<_>>(), fixed, "packaging/lockd.toml");
}

/// The documents for users, by their paths.
const DOCUMENTS: [&str; 16] = [
    "README.md",
    "ARCHITECTURE.md",
    "DESIGN.md",
    "docs/availability.md",
    "docs/c-api.md",
    "docs/cron.md",
    "docs/guarantees.md",
    "docs/operations.md",
    "docs/performance.md",
    "docs/protocol.md",
    "bindings/php/README.md",
    "bindings/php/docs/laravel.md",
    "bindings/php/docs/moving.md",
    "bindings/php/docs/symfony.md",
    "bindings/php/docs/wordpress.md",
    "examples/cluster/README.md",
];

/// What a heading is called in a link: `## The page's 2 rows` is `the-pages-2-rows`.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The targets of the links in a document, without those to other sites.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target).filter(|target| !target.contains("://") && !target.contains(' '))
}

#[test]
fn every_link_in_the_documents_leads_to_a_file_and_a_heading_of_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    let mut count = 0;
    for document in DOCUMENTS.map(|document| root.join(document)) {
        let text = read(&document);
        for link in links(&text) {
            let (path, heading) = link.split_once('#').map_or((link, None), |(path, of)| (path, Some(of)));
            let target = if path.is_empty() { document.clone() } else { document.with_file_name(path) };
            assert!(target.exists(), "{}: {link}", document.display());
            let Some(heading) = heading else { continue };
            let text = read(&target);
            let mut headings = text.lines().filter(|line| line.starts_with('#'));
            assert!(headings.any(|line| anchor(line) == heading), "{}: {link}", document.display());
            count += 1;
        }
    }
    assert!(count > 10, "{count}");
    let cron = read(&root.join("docs/cron.md"));
    assert!(links(&cron).any(|link| link == "#what-each-status-means"));
}

fn assert_page(path: &Path, options: &BTreeSet<String>) {
    let page = std::fs::read_to_string(path).unwrap();
    for option in options {
        let written = format!("\\-\\-{}\\fR", option.replace('-', "\\-"));
        assert!(page.contains(&written), "{} has no {written}", path.display());
    }
    if is_installed("man") {
        let output = run("man", &["--warnings", "-l", "-Tutf8", "-Z", path.to_str().unwrap()]);
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "{}", path.display());
    }
    if is_installed("mandoc") {
        let output = run("mandoc", &["-Tlint", "-Wwarning", path.to_str().unwrap()]);
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "", "{}", path.display());
    }
}

#[test]
fn each_command_has_a_page_with_all_its_options() {
    let directory = TempDir::new().unwrap();
    let pages = directory.path().join("man1");
    lockd(&["man", pages.to_str().unwrap(), "--date", "2026-01-31"]);
    let found: BTreeSet<String> = std::fs::read_dir(&pages)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let expected = commands().into_iter().map(|command| format!("lockd-{command}.1"));
    let others = ["lockd.1", "lockd-cluster-status.1"].map(str::to_owned);
    assert_eq!(found, expected.chain(others).collect());
    assert_page(&pages.join("lockd-cluster-status.1"), &options(&["cluster", "status"]));
    assert_page(&pages.join("lockd.1"), &options(&[]));
    let first = std::fs::read_to_string(pages.join("lockd.1")).unwrap();
    for command in commands() {
        assert_page(&pages.join(format!("lockd-{command}.1")), &options(&[&command]));
        let name = format!("lockd\\-{}", command.replace('-', "\\-"));
        assert!(first.contains(&name), "lockd.1 does not lead to {command}");
    }
}

#[test]
fn pages_that_cannot_be_written_are_an_error() {
    let output = Command::new(env!("CARGO_BIN_EXE_lockd")).args(["man", "/dev/null/pages"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("lockd: "));
}

#[test]
fn completions_have_every_command_and_every_option() {
    for shell in ["bash", "zsh", "fish"] {
        let script = lockd(&["completions", shell]);
        for command in commands() {
            assert!(script.contains(&command), "{shell}: {command}");
            for option in options(&[&command]) {
                assert!(script.contains(&option), "{shell}: {command} --{option}");
            }
        }
        assert!(!script.contains("bench-echo"), "{shell}");
        if is_installed(shell) {
            let directory = TempDir::new().unwrap();
            let path = directory.path().join("script");
            std::fs::write(&path, script).unwrap();
            run(shell, &["-n", path.to_str().unwrap()]);
        }
    }
}

#[test]
fn bash_completes_commands_and_options() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("lockd.bash");
    std::fs::write(&path, lockd(&["completions", "bash"])).unwrap();
    let complete = |words: &[&str]| -> BTreeSet<String> {
        let script = r#"source "$0"; complete -p lockd >/dev/null || exit 1
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1))
            _lockd lockd "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
            printf '%s\n' "${COMPREPLY[@]}""#;
        let arguments = [&["-c", script, path.to_str().unwrap(), "lockd"], words].concat();
        let replies = String::from_utf8(run("bash", &arguments).stdout).unwrap();
        replies.lines().map(str::to_owned).collect()
    };
    assert_eq!(complete(&["ser"]), BTreeSet::from(["serve".to_owned()]));
    assert_eq!(complete(&["serve", "--dead"]), BTreeSet::from(["--dead-peer-timeout".to_owned()]));
    assert!(complete(&[""]).is_superset(&commands()));
}
