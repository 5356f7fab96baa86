//! The error messages of `lockd run` for a command that is not where it belongs on the line: after
//! a `--`, or as the one argument of `-c`. They show the corrected line. Pure, except that it knows
//! the definition of the program's arguments.

use std::ffi::OsString;

use clap::error::{Error, ErrorKind};
use clap::{Arg, Command, CommandFactory};

use super::arguments::{Cli, CliCommand};
use super::text::printable_argument;

/// The parsed command line `arguments`, with the program first, or the error, which may be another
/// one than clap's.
///
/// # Errors
/// If clap has found a mistake, or if the argument of `-c` is not the last one.
pub(super) fn checked(parsed: Result<Cli, Error>, arguments: &[OsString]) -> Result<Cli, Error> {
    let is_settled = match &parsed {
        Ok(cli) => !matches!(&cli.command, Some(CliCommand::Run(options)) if options.is_for_shell()),
        Err(error) => matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion),
    };
    if is_settled {
        return parsed;
    }
    let mut all = Cli::command();
    all.build();
    match (all.find_subcommand_mut("run"), arguments) {
        (Some(run), [_, first, rest @ ..]) if first == "run" && !rest.iter().any(|word| word == "--") => {
            if let Some(words) = unquoted(run, rest) {
                return Err(run.error(ErrorKind::TooManyValues, words));
            }
            parsed.map_err(|error| match missing_separator(&error, run, rest) {
                Some(words) => run.error(ErrorKind::MissingRequiredArgument, words),
                None => error,
            })
        }
        _ => parsed,
    }
}

/// The indices of `-c` and of its argument, if it is there.
fn shell_option(run: &Command, arguments: &[OsString]) -> Option<(usize, usize)> {
    let mut at = 0;
    loop {
        match part(run, arguments.get(at)?)? {
            Part::Valued { option, is_value_next } if option.get_long() == Some("command") => {
                return Some((at, at + usize::from(is_value_next)));
            }
            Part::Valued { is_value_next, .. } => at += 1 + usize::from(is_value_next),
            Part::Word | Part::Flag => at += 1,
        }
    }
}

/// The message if something follows the argument of `-c`. Clap would take it for a name, or for an
/// option of `run`.
fn unquoted(run: &Command, arguments: &[OsString]) -> Option<String> {
    let (option, value) = shell_option(run, arguments)?;
    arguments.get(value + 1)?;
    let has_name = second_word(run, &arguments[..option]).is_some();
    let line = if has_name && option != value {
        let command: Vec<String> =
            arguments[value..].iter().map(|argument| printable_argument(argument)).collect();
        format!("{} {}", joined(&arguments[..value]), in_quotes(&command.join(" ")))
    } else {
        "NAME -c 'COMMAND'".to_owned()
    };
    Some(format!("-c takes one argument, and nothing follows it, as in:\n\n    lockd run {line}"))
}

/// The message if the command is not separated from the names. Clap would take all words for names,
/// and the command's options for options of `run`.
fn missing_separator(error: &Error, run: &Command, arguments: &[OsString]) -> Option<String> {
    if shell_option(run, arguments).is_some() {
        return None;
    }
    match second_word(run, arguments)? {
        at if at < arguments.len() => {
            let (names, command) = arguments.split_at(at);
            let line = format!("lockd run {} -- {}", joined(names), joined(command));
            Some(format!("between NAME and COMMAND there must be `--`, as in:\n\n    {line}"))
        }
        // Only if nothing else is wrong.
        _ if error.kind() == ErrorKind::MissingRequiredArgument => {
            let line = format!("lockd run {} -- COMMAND", joined(arguments));
            Some(format!("no COMMAND is given; it follows `--`, as in:\n\n    {line}"))
        }
        _ => None,
    }
}

/// The index of the second argument that is neither an option nor an option's value: if the first
/// one is a name, the command begins there. The number of arguments if there is only one such
/// argument; `None` if there is none, or if an unknown option comes before the second one.
fn second_word(run: &Command, arguments: &[OsString]) -> Option<usize> {
    let (mut words, mut at) = (0, 0);
    while let Some(argument) = arguments.get(at) {
        match part(run, argument)? {
            Part::Word if words == 1 => return Some(at),
            Part::Word => words += 1,
            Part::Flag => {}
            Part::Valued { is_value_next, .. } => at += usize::from(is_value_next),
        }
        at += 1;
    }
    (words == 1).then_some(arguments.len())
}

/// What an argument is, if it is not the value of an option.
enum Part<'a> {
    Word,
    /// Options without values.
    Flag,
    /// An option with a value, which is in the same argument or the next one.
    Valued {
        option: &'a Arg,
        is_value_next: bool,
    },
}

/// `None` if the option is unknown.
fn part<'a>(run: &'a Command, argument: &OsString) -> Option<Part<'a>> {
    let option = |is_it: &dyn Fn(&Arg) -> bool| run.get_arguments().find(|argument| is_it(argument));
    let text = argument.to_string_lossy();
    if let Some(long) = text.strip_prefix("--") {
        let (name, value) = long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
        let option = option(&|option| option.get_long() == Some(name))?;
        let takes_value = option.get_action().takes_values();
        return Some(if takes_value {
            Part::Valued { option, is_value_next: value.is_none() }
        } else {
            Part::Flag
        });
    }
    let Some(shorts) = text.strip_prefix('-').filter(|shorts| !shorts.is_empty()) else {
        return Some(Part::Word);
    };
    for (index, short) in shorts.char_indices() {
        let option = option(&|option| option.get_short() == Some(short))?;
        if option.get_action().takes_values() {
            let is_value_next = index + short.len_utf8() == shorts.len();
            return Some(Part::Valued { option, is_value_next });
        }
    }
    Some(Part::Flag)
}

/// The arguments as they can be typed into a shell.
fn joined(arguments: &[OsString]) -> String {
    arguments.iter().map(quoted).collect::<Vec<_>>().join(" ")
}

fn quoted(argument: &OsString) -> String {
    let text = printable_argument(argument);
    let is_plain = |c: char| c.is_alphanumeric() || "-_./:=,+@%".contains(c);
    if !argument.is_empty() && text.chars().all(is_plain) {
        text
    } else if argument.is_empty() {
        "''".to_owned()
    } else {
        in_quotes(&text)
    }
}

fn in_quotes(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}
