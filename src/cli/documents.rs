//! What is made of the definitions of the arguments: manual pages and shell completions. So they have every
//! command and option by themselves. Knows no command in particular, but for what only a server's page has to
//! say.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::Cli;

#[derive(Args)]
pub(super) struct CompletionsOptions {
    /// The shell; its completions are written to the standard output
    shell: Shell,
}

#[derive(Args)]
pub(super) struct ManOptions {
    /// Where to put the pages: lockd.1, lockd-serve.1 and so on
    directory: PathBuf,
    /// What they are dated, as 2026-01-31
    #[arg(long, value_name = "DATE", default_value = "undated")]
    date: String,
}

/// What the pages of the server say beyond its options.
const OF_A_SERVER: &str = r#".SH FILES
.TP
\fI/etc/lockd/lockd.toml\fR
The configuration that the systemd unit reads, by \fB\-\-config\fR. Options of the command line go before those of the environment, and these before those of the file. A variable that is set but empty is a mistake.
.TP
\fI/var/lib/lockd\fR
The state directory of the systemd unit.
.SH SIGNALS
.TP
\fBSIGTERM\fR, \fBSIGINT\fR
Stop: nothing is granted any more, clients that hold locks are told. The second one ends the process at once.
.TP
\fBSIGHUP\fR
Read the configuration again, with the certificates and the secret. The limits on locks, waits and names and the log level hold at once for everybody, all else for connections that come from then on; \fBhttp\fR, \fBlisten\fR, \fBpidfile\fR, \fBshared\-excludes\fR, \fBstate\-dir\fR, \fBunix\-mode\fR and \fBuser\fR stay as they were until a restart. The log says what has changed, and what takes a restart. \fBlockd serve \-\-check\fR says beforehand whether there is a mistake.
.SH "EXIT STATUS"
0 after a clean stop, 1 if the server cannot be started or has failed, 2 for arguments or a configuration that make no sense, 3 after a clean stop that could not be noted in the state directory (the disk is full): the next run waits as after a crash.
"#;

/// Writes the completions for a shell.
pub(super) fn completions(options: &CompletionsOptions) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut for_people(), "lockd", &mut script);
    told(io::stdout().write_all(&script))
}

/// Writes a manual page for each command.
pub(super) fn man(options: &ManOptions) -> ExitCode {
    told(fs::create_dir_all(&options.directory).and_then(|()| write_pages(options)))
}

/// The program's arguments without the commands that it has for itself.
fn for_people() -> Command {
    let all = Cli::command();
    let shown = all.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let mut people = Command::new("lockd").version(env!("CARGO_PKG_VERSION")).disable_help_subcommand(true);
    if let Some(about) = all.get_about() {
        people = people.about(about.clone());
    }
    people.args(all.get_arguments().cloned()).subcommands(shown)
}

fn told(result: io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // There is nobody to tell but the one who reads this.
            let _ = writeln!(io::stderr(), "lockd: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write_pages(options: &ManOptions) -> io::Result<()> {
    let mut first = for_people();
    first.build();
    write_page(options, &first)?;
    first.get_subcommands().try_for_each(|command| write_page(options, command))
}

fn write_page(options: &ManOptions, command: &Command) -> io::Result<()> {
    let man = Man::new(command.clone())
        .date(options.date.clone())
        .source(concat!("lockd ", env!("CARGO_PKG_VERSION")))
        .manual("lockd");
    let mut page = Vec::new();
    man.render(&mut page)?;
    // Paragraphs within an option's text come with empty lines and breaks, of which formatters complain.
    let mut page = String::from_utf8_lossy(&page).replace("\n.br\n\n.br\n", "\n.sp\n");
    let others: Vec<&str> = command.get_subcommands().map(Command::get_name).collect();
    if !others.is_empty() || command.get_name() == "serve" {
        page += OF_A_SERVER;
    }
    page += ".SH \"SEE ALSO\"\n";
    if others.is_empty() {
        page += ".BR lockd (1)\n";
    } else {
        let others: Vec<String> = others.iter().map(|name| format!(".BR lockd\\-{name} (1)")).collect();
        page += &format!("{}\n", others.join(" ,\n"));
    }
    fs::write(options.directory.join(man.get_filename()), page)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::Parser;

    use super::super::sources::settings;
    use super::*;
    use crate::cli::options::ServeOptions;

    const EXAMPLE: &str = include_str!("../../packaging/lockd.toml");
    /// Of these it shows examples that differ from the default, or name files or users that are not there.
    const WITHOUT_DEFAULT: [&str; 6] =
        ["tls-cert", "tls-key", "tls-client-ca", "auth-token-file", "user", "ws-origin"];

    fn options_in_the_example() -> BTreeSet<&'static str> {
        EXAMPLE
            .lines()
            .filter_map(|line| line.strip_prefix('#')?.split_once(" = "))
            .map(|(name, _)| name)
            .collect()
    }

    #[test]
    fn the_example_configuration_has_every_option_and_no_other() {
        let command = ServeOptions::augment_args(Command::new("serve"));
        let all: BTreeSet<&str> = command.get_arguments().filter_map(clap::Arg::get_long).collect();
        let expected =
            all.into_iter().filter(|name| !["check", "config"].contains(name)).collect::<BTreeSet<_>>();
        assert_eq!(options_in_the_example(), expected);
    }

    #[test]
    fn the_example_configuration_shows_the_defaults() {
        let settings_in = |text: &str| {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("lockd.toml");
            fs::write(&path, text).unwrap();
            let path = path.to_str().unwrap();
            let options = Cli::try_parse_from(["lockd", "--config", path]).unwrap();
            settings(&options.serve).unwrap()
        };
        let uncommented: String = EXAMPLE
            .lines()
            .map(|line| {
                let option = line.strip_prefix('#').and_then(|line| Some((line, line.split_once(" = ")?.0)));
                option.filter(|(_, name)| !WITHOUT_DEFAULT.contains(name)).map_or(line, |(line, _)| line)
            })
            .fold(String::new(), |text, line| text + line + "\n");
        let (shown, default) = (settings_in(&uncommented), settings_in(""));
        assert_eq!(format!("{:?}", shown.config), format!("{:?}", default.config));
        assert_eq!(format!("{:?}", shown.limits), format!("{:?}", default.limits));
        assert_eq!(shown.log_level, default.log_level);
        assert!(!shown.listens_by_default && default.listens_by_default);
        // As it stands, everything is left to the defaults.
        assert!(settings_in(EXAMPLE).listens_by_default);
    }

    #[test]
    fn commands_that_the_program_has_for_itself_are_shown_to_nobody() {
        let commands: Vec<String> =
            for_people().get_subcommands().map(|command| command.get_name().to_owned()).collect();
        assert!(commands.contains(&"serve".to_owned()) && commands.contains(&"completions".to_owned()));
        assert!(!commands.iter().any(|name| name == "man" || name.starts_with("bench-")), "{commands:?}");
    }
}
