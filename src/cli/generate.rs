//! Manual pages and shell completions, generated from the definitions of the arguments, so that no
//! command or option can be missing in them. Only the server's page has further text, which is
//! here.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::arguments::{Cli, SERVER_EXIT_STATUS};

/// What the server's pages say in addition to its options.
const SERVER_SECTIONS: &str = r#".SH FILES
.TP
\fI/etc/lockd/lockd.toml\fR
The configuration that the systemd unit reads with \fB\-\-config\fR. Options on the command line override those in the environment, and these override those in the file. A variable that is set but empty is a mistake.
.TP
\fI/var/lib/lockd\fR
The state directory of the systemd unit.
.SH SIGNALS
.TP
\fBSIGTERM\fR, \fBSIGINT\fR
Stop: grant nothing any more, tell clients that they have lost their locks, and end. A second signal ends the process at once.
.TP
\fBSIGHUP\fR
Read the configuration again, with the certificates and the secret. New limits on locks, waits and names and a new log level take effect at once; other options take effect for new connections. \fBcontrol\fR, \fBhttp\fR, \fBlisten\fR, \fBpidfile\fR, \fBshared\-excludes\fR, \fBstate\-dir\fR, \fBunix\-mode\fR and \fBuser\fR take effect only at a restart. The log says what has changed, and what needs a restart. \fBlockd serve \-\-check\fR finds mistakes beforehand.
.TP
\fBSIGUSR2\fR
Become the program that is now at the path of this one, as \fBlockd upgrade\fR asks for, and keep connections, locks and waits. The log says how that has ended.
"#;

pub(super) fn completions(shell: Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut public_command(), "lockd", &mut script);
    exit_status(io::stdout().write_all(&script))
}

/// Writes a manual page for each command into `directory`.
pub(super) fn man(directory: &Path, date: &str) -> ExitCode {
    exit_status(fs::create_dir_all(directory).and_then(|()| write_pages(directory, date)))
}

/// The program's arguments, without its hidden commands.
fn public_command() -> Command {
    let all = Cli::command();
    let shown = all.get_subcommands().filter(|command| !command.is_hide_set()).cloned();
    let mut public = Command::new("lockd").version(env!("CARGO_PKG_VERSION")).disable_help_subcommand(true);
    if let Some(about) = all.get_about() {
        public = public.about(about.clone());
    }
    public.args(all.get_arguments().cloned()).subcommands(shown)
}

fn exit_status(result: io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If standard error cannot be written to, the exit status must be enough.
            let _ = writeln!(io::stderr(), "lockd: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write_pages(directory: &Path, date: &str) -> io::Result<()> {
    let mut program = public_command();
    program.build();
    write_page(directory, date, &program)?;
    program.get_subcommands().try_for_each(|command| {
        write_page(directory, date, command)?;
        command.get_subcommands().try_for_each(|command| write_page(directory, date, command))
    })
}

fn write_page(directory: &Path, date: &str, command: &Command) -> io::Result<()> {
    let man = Man::new(command.clone())
        .date(date)
        .source(concat!("lockd ", env!("CARGO_PKG_VERSION")))
        .manual("lockd");
    let mut page = Vec::new();
    man.render(&mut page)?;
    // clap_mangen separates the paragraphs of an option's text by empty lines, about which
    // formatters warn.
    let mut page = String::from_utf8_lossy(&page).replace("\n.br\n\n.br\n", "\n.sp\n");
    let name = |command: &Command| command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let others: Vec<String> = command.get_subcommands().map(name).collect();
    if ["lockd", "serve"].contains(&command.get_name()) {
        page += &format!("{SERVER_SECTIONS}.SH \"EXIT STATUS\"\n{SERVER_EXIT_STATUS}\n");
    }
    page += ".SH \"SEE ALSO\"\n";
    if others.is_empty() {
        page += ".BR lockd (1)\n";
    } else {
        let others: Vec<String> =
            others.iter().map(|name| format!(".BR {} (1)", name.replace('-', "\\-"))).collect();
        page += &format!("{}\n", others.join(" ,\n"));
    }
    fs::write(directory.join(man.get_filename()), page)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use clap::{Args, Parser};

    use super::*;
    use crate::cli::configuration::settings;
    use crate::cli::options::ServeOptions;

    const EXAMPLE: &str = include_str!("../../packaging/lockd.toml");
    /// The options for which it shows an example, and not the default.
    const SHOWN_AS_EXAMPLE: [&str; 6] =
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
                option.filter(|(_, name)| !SHOWN_AS_EXAMPLE.contains(name)).map_or(line, |(line, _)| line)
            })
            .fold(String::new(), |text, line| text + line + "\n");
        let (shown, default) = (settings_in(&uncommented), settings_in(""));
        assert_eq!(format!("{:?}", shown.config), format!("{:?}", default.config));
        assert_eq!(format!("{:?}", shown.limits), format!("{:?}", default.limits));
        assert_eq!(shown.log_level, default.log_level);
        assert!(!shown.listens_by_default && default.listens_by_default);
        // With all lines commented out, everything has its default.
        assert!(settings_in(EXAMPLE).listens_by_default);
    }

    #[test]
    fn hidden_commands_are_neither_in_the_manual_nor_in_the_completions() {
        let commands: Vec<String> =
            public_command().get_subcommands().map(|command| command.get_name().to_owned()).collect();
        assert!(commands.contains(&"serve".to_owned()) && commands.contains(&"completions".to_owned()));
        assert!(!commands.iter().any(|name| name == "man" || name.starts_with("bench-")), "{commands:?}");
    }
}
