//! The error message of `lockd run` for a missing `--` between the names and the command. It shows
//! the corrected line. Pure, except that it knows the definition of the program's arguments.

use std::ffi::OsString;

use clap::error::{Error, ErrorKind};
use clap::{Command, CommandFactory};

use super::arguments::Cli;
use super::text::printable_argument;

/// Replaces clap's `error` if `arguments`, with the program first, are those of `run` without `--`.
/// Otherwise clap would take all words for names, and the command's options for options of `run`.
pub(super) fn explain_missing(error: Error, arguments: &[OsString]) -> Error {
    let is_question = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    let mut all = Cli::command();
    all.build();
    let (Some(run), [_, first, rest @ ..]) = (all.find_subcommand_mut("run"), arguments) else {
        return error;
    };
    if is_question || first != "run" || rest.iter().any(|argument| argument == "--") {
        return error;
    }
    let line = |names: &[OsString], command: &[OsString]| {
        let names: Vec<String> = names.iter().map(quoted).collect();
        let command: Vec<String> = command.iter().map(quoted).collect();
        let command = if command.is_empty() { "COMMAND".to_owned() } else { command.join(" ") };
        format!("lockd run {} -- {command}", names.join(" "))
    };
    let words = match second_word(run, rest) {
        Some(at) if at < rest.len() => {
            let (names, command) = rest.split_at(at);
            format!("between NAME and COMMAND there must be `--`, as in:\n\n    {}", line(names, command))
        }
        // Only if nothing else is wrong.
        Some(_) if error.kind() == ErrorKind::MissingRequiredArgument => {
            format!("no COMMAND is given; it follows `--`, as in:\n\n    {}", line(rest, &[]))
        }
        _ => return error,
    };
    run.error(ErrorKind::MissingRequiredArgument, words)
}

/// The index of the second argument that is neither an option nor an option's value: if the first
/// one is a name, the command begins there. The number of arguments if there is only one such
/// argument; `None` if there is none, or if an unknown option comes before the second one.
fn second_word(run: &Command, arguments: &[OsString]) -> Option<usize> {
    let takes_value = |is_it: &dyn Fn(&clap::Arg) -> bool| {
        let option = run.get_arguments().find(|argument| is_it(argument))?;
        Some(option.get_action().takes_values())
    };
    let (mut words, mut at) = (0, 0);
    while let Some(argument) = arguments.get(at) {
        let text = argument.to_string_lossy();
        let mut is_value_next = false;
        if let Some(long) = text.strip_prefix("--") {
            let (name, value) =
                long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
            is_value_next = takes_value(&|option| option.get_long() == Some(name))? && value.is_none();
        } else if let Some(shorts) = text.strip_prefix('-').filter(|shorts| !shorts.is_empty()) {
            for (index, short) in shorts.char_indices() {
                if takes_value(&|option| option.get_short() == Some(short))? {
                    is_value_next = index + short.len_utf8() == shorts.len();
                    break;
                }
            }
        } else {
            words += 1;
            if words == 2 {
                return Some(at);
            }
        }
        at += 1 + usize::from(is_value_next);
    }
    (words == 1).then_some(arguments.len())
}

/// The argument as it can be typed into a shell.
fn quoted(argument: &OsString) -> String {
    let text = printable_argument(argument);
    let is_plain = |c: char| c.is_alphanumeric() || "-_./:=,+@%".contains(c);
    if !argument.is_empty() && text.chars().all(is_plain) {
        text
    } else if argument.is_empty() {
        "''".to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}
