//! Reads the server's options from the command line, the environment and a file, in this order of
//! precedence. Knows the syntax of each place, and names the place of a mistake; what the options
//! mean is in `options`.
//!
//! The environment is read here, and not by clap, since only the server's own commands may fail
//! because of it: with a wrong value in a variable, `lockd run` still runs its command.

use std::error::Error;
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;

use clap::builder::{OsStr as ClapStr, Resettable};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Command, CommandFactory, FromArgMatches};
use lockd::server::{OptionError, Options};
use toml::Spanned;
use toml::de::DeTable;

use super::arguments::{Cli, SERVER_EXIT_STATUS};
use super::command_place::checked;
use super::messages::write_within_limit;
use super::options::{OptionValues, ServeOptions, Settings};
use super::show::{is_for_nagios, unknown};
use super::text::harmless;
use super::upgrade;

/// The commands that take the server's options.
const SERVING: [&str; 2] = ["serve", "bench-serve"];

/// The parsed command line. Ends the process if there is a mistake in it, or if it asks for help.
pub(super) fn command_line() -> Cli {
    let strict = without_environment(Cli::command());
    let strict = SERVING.iter().fold(strict, |all, name| all.mut_subcommand(name, without_environment));
    let arguments = upgrade::arguments();
    let parsed = strict.try_get_matches_from(&arguments).and_then(|matches| Cli::from_arg_matches(&matches));
    checked(parsed, &arguments).unwrap_or_else(|error| {
        if error.kind() == ErrorKind::DisplayHelp {
            // The help also shows the variables.
            let status = format!(
                "Exit status of the server: {SERVER_EXIT_STATUS}\n\nA variable that is set but empty is a mistake."
            );
            let with_status = |command: Command| command.after_help(status.clone());
            with_status(Cli::command()).mut_subcommand(SERVING[0], with_status).get_matches();
        }
        let in_variable = mistake_in_variable(&error, &arguments);
        if error.use_stderr() && is_for_nagios(&arguments) {
            let words = in_variable.unwrap_or_else(|| first_line(&error.to_string()));
            let (code, line) = unknown(&words);
            // If standard output cannot be written to, the exit status must be enough.
            let _ = writeln!(io::stdout(), "{line}");
            std::process::exit(code.into());
        }
        let code = error.exit_code();
        write_within_limit(move || {
            // If standard error cannot be written to, the exit status must be enough.
            let _ = match in_variable {
                Some(words) => writeln!(io::stderr(), "lockd: {}", harmless(&words)),
                None => error.print(),
            };
        });
        std::process::exit(code)
    })
}

/// The message for clap's error about a variable: the error names an option that is not on the
/// command line.
fn mistake_in_variable(error: &clap::Error, arguments: &[OsString]) -> Option<String> {
    let Some(ContextValue::String(option)) = error.get(ContextKind::InvalidArg) else { return None };
    let option = option.split_whitespace().next()?.strip_prefix("--")?;
    let is_it = |argument: &OsString| {
        let given = argument.to_str().and_then(|text| text.strip_prefix("--")).unwrap_or_default();
        given.split('=').next() == Some(option)
    };
    let variable = variable(option);
    let is_given = arguments.iter().take_while(|argument| *argument != "--").any(is_it);
    (!is_given && std::env::var_os(&variable).is_some()).then(|| format!("{variable}: {}", reason(error)))
}

/// What is wrong with a value.
fn reason(error: &clap::Error) -> String {
    error.source().map_or_else(|| first_line(&error.to_string()), <dyn Error>::to_string)
}

/// The command without the variables of its options.
fn without_environment(command: Command) -> Command {
    command.mut_args(|argument| argument.env(Resettable::<ClapStr>::Reset))
}

/// The settings that result from the options of all places, where `command_line` are those of the
/// command line. Each place is also checked by itself: a mistake is reported even if another place
/// overrides it with a correct value.
///
/// # Errors
/// The first mistake, with its place: the option on the command line, the variable, or the file and
/// the line.
pub(super) fn settings(command_line: &ServeOptions) -> Result<Settings, String> {
    let in_command_line = |mistake: OptionError| format!("--{mistake}");
    Settings::new(&command_line.values(), false).map_err(in_command_line)?;
    let environment = environment(|name| std::env::var_os(name))?;
    let path = command_line.config.as_ref().or(environment.config.as_ref());
    let (file, text) = match path {
        Some(path) => {
            let place = if command_line.config.is_some() { "--config" } else { "LOCKD_CONFIG" };
            let in_context = |error| format!("{place}: {}: {error}", path.display());
            let text = std::fs::read_to_string(path).map_err(in_context)?;
            (file_options(path, &text)?.values(), text)
        }
        None => (OptionValues::new(), String::new()),
    };
    let mut all = file.clone();
    all.extend(environment.values());
    all.extend(command_line.values());
    Settings::new(&all, true).map_err(|mistake| match path {
        _ if command_line.values().contains_key(&mistake.option) => in_command_line(mistake),
        _ if environment.values().contains_key(&mistake.option) => {
            format!("{}: {}", variable(&mistake.option), mistake.problem)
        }
        Some(path) if file.contains_key(&mistake.option) => in_file(path, &text, &mistake),
        _ => mistake.to_string(),
    })
}

fn variable(option: &str) -> String {
    format!("LOCKD_{}", option.to_uppercase().replace('-', "_"))
}

/// The options in the environment: the value of each variable is read as if it were on the command
/// line.
///
/// # Errors
/// The first mistake, with the name of its variable. A variable that is set but empty is a mistake,
/// since it may mean that the default is wanted, or that the value was forgotten, such as the file
/// of a secret.
fn environment(value_of: impl Fn(&str) -> Option<OsString>) -> Result<ServeOptions, String> {
    let command = ServeOptions::augment_args(Command::new("lockd"));
    let mut all = vec![OsString::from("lockd")];
    for option in command.get_arguments().filter(|option| option.get_env().is_some()) {
        let Some(name) = option.get_long() else { continue };
        let variable = variable(name);
        let Some(value) = value_of(&variable) else { continue };
        if value.is_empty() {
            return Err(format!("{variable} is set but empty: give it a value, or unset it"));
        }
        let mut argument = OsString::from(format!("--{name}="));
        argument.push(&value);
        let alone = parse([OsStr::new("lockd"), &argument])
            .map_err(|error| format!("{variable}: {:?}: {}", value.display().to_string(), reason(&error)))?;
        Settings::new(&alone.values(), false)
            .map_err(|mistake| format!("{variable}: {}", mistake.problem))?;
        all.push(argument);
    }
    parse(all).map_err(|error| first_line(&error.to_string()))
}

/// The server's options in these arguments, the first of which is the program.
fn parse(
    arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>,
) -> Result<ServeOptions, clap::Error> {
    let command = without_environment(ServeOptions::augment_args(Command::new("lockd")));
    ServeOptions::from_arg_matches(&command.try_get_matches_from(arguments)?)
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned()
}

/// The options in `text`, the text of the file `path`.
fn file_options(path: &Path, text: &str) -> Result<ServeOptions, String> {
    let options: ServeOptions = toml::from_str(text).map_err(|error| {
        let span = error.span().unwrap_or_default();
        let message = in_plain_words(error.message());
        let place = format!("{}:{}", path.display(), line_of(text, span.start));
        // If the text is not TOML, no option can be found for the place; then its line is shown.
        let begin = text.get(span.start..).map_or_else(String::new, first_line);
        if message.starts_with("unexpected leading zero") {
            return format!(
                "{place}: a number must not begin with 0: {begin}; write a file mode in quotes: \"{begin}\""
            );
        }
        match option_at(text, &span) {
            Some(option) => format!("{place}: {option}: {message}"),
            None if message.contains('"') || begin.is_empty() => format!("{place}: {message}"),
            None => format!("{place}: {message}: {begin}"),
        }
    })?;
    Settings::new(&options.values(), false).map_err(|mistake| in_file(path, text, &mistake))?;
    Ok(options)
}

/// The TOML parser's message, without the names of types in this program.
fn in_plain_words(message: &str) -> String {
    // The list of all valid options is longer than a line.
    let message = message.split(", expected one of").next().unwrap_or_default();
    if let Some(name) = message.strip_prefix("unknown field `").and_then(|rest| rest.strip_suffix('`')) {
        let hint =
            similar_option(name).map_or_else(String::new, |meant| format!("; did you mean {meant:?}?"));
        return format!("there is no option {name:?}{hint}");
    }
    let number = "expected a whole number from 0 up";
    let message = message.replace("expected usize", number).replace("expected u64", number);
    message.replace("expected a sequence", "expected a list in [ ]").replace('`', "\"")
}

/// The option that was probably meant by an unknown name.
fn similar_option(name: &str) -> Option<String> {
    let plain = name.to_lowercase().replace('_', "-");
    if Options::names().any(|known| known == plain) {
        return Some(plain);
    }
    let error = parse(["lockd", &format!("--{plain}")]).err()?;
    let similar = match error.get(ContextKind::SuggestedArg)? {
        ContextValue::String(similar) => similar,
        _ => return None,
    };
    // Clap also suggests options that begin with another letter; these are hardly what was meant.
    let similar = similar.strip_prefix("--").filter(|known| known.get(..1) == plain.get(..1));
    similar.map(str::to_owned)
}

/// The message for a mistake in the file, with the line of the option if it is found.
fn in_file(path: &Path, text: &str, mistake: &OptionError) -> String {
    let table = DeTable::parse(text).ok();
    let key = table.as_ref().and_then(|table| table.get_ref().get_key_value(mistake.option.as_str()));
    let line = key.map_or_else(String::new, |(key, _)| format!(":{}", line_of(text, key.span().start)));
    format!("{}{line}: {mistake}", path.display())
}

/// The option whose value includes the beginning of this place.
fn option_at(text: &str, place: &Range<usize>) -> Option<String> {
    let table = DeTable::parse(text).ok()?;
    let has_it = |value: &Spanned<_>| value.span().contains(&place.start);
    table.get_ref().iter().find(|(_, value)| has_it(value)).map(|(key, _)| key.get_ref().to_string())
}

/// The number of the line with this byte, counted from 1.
fn line_of(text: &str, byte: usize) -> usize {
    1 + text.bytes().take(byte).filter(|byte| *byte == b'\n').count()
}
