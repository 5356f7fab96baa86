//! The options in `docs/cron.md` are options of the commands.

use std::collections::BTreeSet;

use crate::tool::Site;

const CRON: &str = include_str!("../../docs/cron.md");

/// The options of other programs in the document.
const FOREIGN: [&str; 6] = ["--daemon", "--full", "--kill-after", "--no-daemon", "--now", "--wait"];

/// The commands that the document shows.
const COMMANDS: [&str; 6] = ["run", "serve", "list", "inspect", "kick", "stats"];

/// The options in a text: `--long` as it is, and `-nq` as `-n` and `-q`.
fn options(text: &str) -> BTreeSet<String> {
    let is_in_word = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let words = text.split(|c| !is_in_word(c)).filter(|word| word.starts_with('-'));
    words
        .flat_map(|word| match word.strip_prefix("--") {
            Some(long) if long.is_empty() || long.starts_with('-') => Vec::new(),
            Some(_) => vec![word.to_owned()],
            None => word[1..].chars().map(|letter| format!("-{letter}")).collect(),
        })
        .collect()
}

fn help(site: &Site, command: &str) -> BTreeSet<String> {
    let (code, help, errors) = site.said(&[command, "--help"]);
    assert_eq!((code, errors.as_str()), (0, ""));
    // The lines that begin with an option; other texts name options of other commands.
    let lines = help.lines().filter(|line| line.trim_start().starts_with('-'));
    lines.flat_map(|line| options(line.split("  ").find(|part| !part.is_empty()).unwrap_or(""))).collect()
}

#[test]
fn each_option_in_the_document_on_cron_is_an_option() {
    let site = Site::start();
    let all: BTreeSet<String> = COMMANDS.iter().flat_map(|command| help(&site, command)).collect();
    let long = options(CRON).into_iter().filter(|option| option.starts_with("--"));
    let unknown: Vec<String> =
        long.filter(|option| !all.contains(option) && !FOREIGN.contains(&option.as_str())).collect();
    assert_eq!(unknown, [""; 0], "no command has these");
}

#[test]
fn each_lockd_run_in_the_document_on_cron_has_options_of_run() {
    let (site, mut lines) = (Site::start(), 0);
    let known = help(&site, "run");
    for line in CRON.lines() {
        for shown in line.split("lockd run ").skip(1) {
            let end = [" -- ", " -c ", "`"].iter().filter_map(|end| shown.find(end)).min();
            let Some(end) = end else { continue };
            let unknown: Vec<String> = options(&shown[..end]).difference(&known).cloned().collect();
            assert_eq!(unknown, [""; 0], "in: lockd run {shown}");
            lines += 1;
        }
    }
    assert!(lines > 10, "only {lines} were found");
}
