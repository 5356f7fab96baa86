//! A server's options by their names, with values as text: for `lockd serve`, and for programs that
//! embed a server and have their options as text too. The one table of names, what each value must
//! be, and when it takes effect. Opens only the files that values name.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use super::access_list::parse_allow;
use super::auth_token::AuthToken;
use super::config::{Config, parse_origin};
use crate::broker::Limits;
use crate::os::Keepalive;
use crate::os::tls::ServerTls;

/// What is wrong with an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionError {
    /// Its name as it was given.
    pub option: String,
    /// What is wrong.
    pub problem: String,
}

impl fmt::Display for OptionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.option, self.problem)
    }
}

impl std::error::Error for OptionError {}

fn error(option: &str, problem: impl Into<String>) -> OptionError {
    OptionError { option: option.to_owned(), problem: problem.into() }
}

/// A server's options, set one after the other by the names that they have on the command line of
/// `lockd serve`, without the dashes. A Rust program that does not have them as text fills in a
/// [`Config`] instead.
///
/// ```
/// use lockd::server::Options;
///
/// let mut options = Options::default();
/// options.set("listen", "message://127.0.0.1:0,glockd://127.0.0.1:0")?;
/// options.set("dead-peer-timeout", "30")?;
/// assert_eq!(options.config()?.listen.len(), 2);
/// assert_eq!(options.set("line-max", "many").unwrap_err().option, "line-max");
/// # Ok::<(), lockd::server::OptionError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Options {
    given: Vec<&'static str>,
    config: Config,
    locks_max: Option<usize>,
    locks_per_session_max: Option<usize>,
    waits_per_session_max: Option<usize>,
    name_bytes_max: Option<usize>,
    state_dir: Option<PathBuf>,
    is_first_start: bool,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    tls_client_ca: Option<PathBuf>,
}

/// What becomes of an option's value.
#[derive(Clone, Copy)]
enum Effect {
    /// The option may be given several times, or with several values separated by commas. Each
    /// value is added.
    Add(fn(&mut Options, &str) -> Result<(), String>),
    /// The option is given once.
    Set(fn(&mut Options, &str) -> Result<(), String>),
    /// The option is given once, with a path, which need not be UTF-8.
    SetPath(fn(&mut Options, &Path) -> Result<(), String>),
    /// Only the program `lockd` has this option, for this reason.
    Refuse(&'static str),
}

use Effect::{Add, Refuse, Set, SetPath};

/// An option of `lockd serve`.
#[derive(Clone, Copy)]
struct OptionSpec {
    name: &'static str,
    /// What the help calls the value, which names its unit. Empty if the value is yes or no.
    value: &'static str,
    /// Whether a running server keeps the value that it was started with.
    needs_restart: bool,
    effect: Effect,
}

/// An option that a reload can change.
const fn live(name: &'static str, value: &'static str, effect: Effect) -> OptionSpec {
    OptionSpec { name, value, needs_restart: false, effect }
}

/// An option that needs a restart to change.
const fn fixed(name: &'static str, value: &'static str, effect: Effect) -> OptionSpec {
    OptionSpec { name, value, needs_restart: true, effect }
}

/// Every option of `lockd serve`: its name, its value in the help, and what becomes of the value.
#[rustfmt::skip]
const TABLE: [OptionSpec; 35] = [
    fixed("listen", "ADDRESS", Add(|to, text| push(&mut to.config.listen, text.parse()))),
    live("allow", "IP|CIDR", Add(|to, text| push(&mut to.config.allow, parse_allow(text)))),
    live("ws-origin", "ORIGIN", Add(|to, text| push(&mut to.config.ws_origins, parse_origin(text)))),
    fixed("unix-mode", "MODE", Set(|to, text| put(&mut to.config.unix_mode, file_mode(text)))),
    live("dead-peer-timeout", "SECONDS", Set(|to, text| put(&mut to.config.dead_peer_timeout, dead_peer_timeout(text)))),
    live("connections-max", "N", Set(|to, text| put(&mut to.config.connections_max, size(text)))),
    live("line-max", "BYTES", Set(|to, text| put(&mut to.config.line_bytes_max, size(text)))),
    live("message-max", "BYTES", Set(|to, text| put(&mut to.config.message_bytes_max, size(text)))),
    live("outbox-max", "BYTES", Set(|to, text| put(&mut to.config.outbox_bytes_max, size(text)))),
    live("locks-max", "N", Set(|to, text| put(&mut to.locks_max, size(text).map(Some)))),
    live("locks-per-connection-max", "N", Set(|to, text| put(&mut to.locks_per_session_max, size(text).map(Some)))),
    live("waits-per-connection-max", "N", Set(|to, text| put(&mut to.waits_per_session_max, number(text).map(Some)))),
    live("name-max", "BYTES", Set(|to, text| put(&mut to.name_bytes_max, number(text).map(Some)))),
    live("no-dump", "", Set(|to, text| put(&mut to.config.dump, yes_or_no(text).map(|no| !no)))),
    live("no-registry", "", Set(|to, text| put(&mut to.config.registry, yes_or_no(text).map(|no| !no)))),
    live("allow-kick", "", Set(|to, text| put(&mut to.config.kick, yes_or_no(text)))),
    fixed("shared-excludes", "", Set(|to, text| put(&mut to.config.shared_excludes, yes_or_no(text)))),
    live("scheduling", "POLICY", Set(|to, text| put(&mut to.config.scheduling, text.parse()))),
    fixed("state-dir", "DIRECTORY", SetPath(|to, path| put(&mut to.state_dir, Ok(Some(path.into()))))),
    fixed("first-start", "", Set(|to, text| put(&mut to.is_first_start, yes_or_no(text)))),
    live("tls-cert", "FILE", SetPath(|to, path| put(&mut to.tls_cert, Ok(Some(path.into()))))),
    live("tls-key", "FILE", SetPath(|to, path| put(&mut to.tls_key, Ok(Some(path.into()))))),
    live("tls-client-ca", "FILE", SetPath(|to, path| put(&mut to.tls_client_ca, Ok(Some(path.into()))))),
    live("auth-token-file", "FILE", SetPath(|to, path| put(&mut to.config.auth_token, AuthToken::load(path).map(Some)))),
    fixed("http", "ADDRESS", Refuse("only the program lockd serves HTTP")),
    live("http-host", "NAME", Refuse("only the program lockd serves HTTP")),
    live("config", "FILE", Refuse("only the program lockd reads a configuration file; give the options themselves")),
    live("check", "", Refuse("only the program lockd checks without a start")),
    fixed("cluster", "URL", Refuse("only the program lockd is a server of a cluster: the kernel ends its process in time")),
    fixed("leader-timeout", "SECONDS", Refuse("only the program lockd is a server of a cluster")),
    fixed("advertise", "HOST:PORT", Refuse("only the program lockd is a server of a cluster")),
    fixed("pidfile", "FILE", Refuse("the process is the embedding program's, which can write one itself")),
    fixed("control", "PATH", Refuse("only the program lockd takes orders")),
    fixed("user", "NAME", Refuse("the process is the embedding program's, which can change its user itself")),
    live("log-level", "LEVEL", Refuse("the log is the embedding program's")),
];

impl Options {
    /// The names of all options, including those that are refused here.
    pub fn names() -> impl Iterator<Item = &'static str> {
        TABLE.iter().map(|option| option.name)
    }

    /// Whether [`set`](Self::set) refuses this name: only the program `lockd` has the option, or it
    /// does not exist.
    #[must_use]
    pub fn is_refused(name: &str) -> bool {
        option(name).is_none_or(|option| matches!(option.effect, Refuse(_)))
    }

    /// Whether a running server keeps the value of this option that it was started with. A change
    /// of any other option takes effect with [`reconfigure`](super::Server::reconfigure), or
    /// [`set_limits`](crate::broker::Broker::set_limits).
    #[must_use]
    pub fn needs_restart(name: &str) -> bool {
        option(name).is_some_and(|option| option.needs_restart)
    }

    /// What the help of `lockd serve` calls the value of this option, such as `SECONDS` or `BYTES`.
    /// `None` if the value is yes or no.
    #[must_use]
    pub fn value_name(name: &str) -> Option<&'static str> {
        option(name).map(|option| option.value).filter(|value| !value.is_empty())
    }

    /// Sets an option. `text` is the option's value on the command line; for options that need none
    /// there, such as `no-dump`, it is `true` or `false`. Options that can be given several times
    /// (`listen`, `allow`, `ws-origin`) add to earlier values, and take several values separated by
    /// commas.
    ///
    /// # Errors
    /// If there is no such option, or only the program `lockd` has it. If the value is not valid,
    /// or names a file that cannot be read. If an option is given twice that can be given once.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), OptionError> {
        match option(name) {
            Some(OptionSpec { effect: Add(_), .. }) => self.set_each(name, text.split(',').map(str::trim)),
            _ => self.set_each(name, [text]),
        }
    }

    /// Sets an option to each of these values, which are not divided at commas. Without values the
    /// option stays as it is. Paths need not be UTF-8.
    ///
    /// # Errors
    /// As [`set`](Self::set); and if a value that is not a path is not UTF-8.
    pub fn set_each(
        &mut self,
        name: &str,
        values: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Result<(), OptionError> {
        let option = option(name).ok_or_else(|| error(name, unknown(name)))?;
        values.into_iter().try_for_each(|value| {
            self.apply(option, value.as_ref()).map_err(|problem| error(option.name, problem))
        })
    }

    fn apply(&mut self, option: &OptionSpec, value: &OsStr) -> Result<(), String> {
        let &OptionSpec { name, effect, .. } = option;
        let text = || value.to_str().ok_or_else(|| "it is not UTF-8".to_owned());
        match effect {
            Refuse(why) => return Err(why.to_owned()),
            Set(_) | SetPath(_) if self.is_given(name) => return Err("it is given twice".to_owned()),
            SetPath(_) if value.is_empty() => return Err("it is empty".to_owned()),
            Set(set) => set(self, text()?)?,
            SetPath(set) => set(self, Path::new(value))?,
            Add(add) => {
                if !self.is_given(name) {
                    self.forget_default(name);
                }
                add(self, text()?)?;
            }
        }
        self.given.push(name);
        Ok(())
    }

    /// Whether the option has been set.
    #[must_use]
    pub fn is_given(&self, name: &str) -> bool {
        self.given.contains(&name)
    }

    fn forget_default(&mut self, name: &str) {
        match name {
            "listen" => self.config.listen.clear(),
            "allow" => self.config.allow.clear(),
            _ => {}
        }
    }

    /// The configuration of the server, with the [defaults](Config::default) for options that were
    /// not set.
    ///
    /// # Errors
    /// If a certificate or key cannot be read, or one is given without the other; and as
    /// [`Config::check`].
    pub fn config(&self) -> Result<Config, OptionError> {
        let config = Config { tls: self.tls()?, ..self.config.clone() };
        config.check().map_err(|problem| error("listen", problem))?;
        Ok(config)
    }

    /// The limits of the broker: those that were set, and the others from `base`.
    #[must_use]
    pub fn limits(&self, base: Limits) -> Limits {
        Limits {
            name_bytes_max: self.name_bytes_max.unwrap_or(base.name_bytes_max),
            locks_max: self.locks_max.unwrap_or(base.locks_max),
            locks_per_session_max: self.locks_per_session_max.unwrap_or(base.locks_per_session_max),
            waits_per_session_max: self.waits_per_session_max.unwrap_or(base.waits_per_session_max),
        }
    }

    /// The state directory, for [`state_dir::resume`](crate::server::state_dir::resume).
    #[must_use]
    pub fn state_dir(&self) -> Option<&Path> {
        self.state_dir.as_deref()
    }

    /// Whether there is no earlier server whose clients could still believe in a lock, for
    /// [`state_dir::resume`](crate::server::state_dir::resume).
    #[must_use]
    pub fn is_first_start(&self) -> bool {
        self.is_first_start
    }

    fn tls(&self) -> Result<Option<ServerTls>, OptionError> {
        let Self { tls_cert, tls_key, tls_client_ca, .. } = self;
        let (cert, key) = match (tls_cert, tls_key) {
            (None, None) if tls_client_ca.is_none() => return Ok(None),
            (Some(cert), Some(key)) => (cert, key),
            (Some(_), None) => return Err(error("tls-cert", "it takes its key, too: tls-key")),
            (None, Some(_)) => return Err(error("tls-key", "it takes its certificate, too: tls-cert")),
            (None, None) => return Err(error("tls-client-ca", "it takes a certificate, too: tls-cert")),
        };
        ServerTls::load(cert, key, tls_client_ca.as_deref()).map(Some).map_err(|problem| {
            // The message begins with the name of the file that has the problem. The colon tells
            // `a` from `a.ca`.
            let is_about = |path: &Path| problem.starts_with(&format!("{}: ", path.display()));
            let option = match (is_about(cert), is_about(key), tls_client_ca.as_deref().is_some_and(is_about))
            {
                (false, false, true) => "tls-client-ca",
                (false, true, _) => "tls-key",
                _ => "tls-cert",
            };
            error(option, problem)
        })
    }
}

fn option(name: &str) -> Option<&'static OptionSpec> {
    TABLE.iter().find(|option| option.name == name)
}

/// The message for a name that no option has. If only the spelling is wrong, it says the right one.
fn unknown(name: &str) -> String {
    let plain = name.trim_start_matches('-').to_ascii_lowercase().replace('_', "-");
    match option(plain.strip_prefix("lockd-").unwrap_or(&plain)) {
        Some(option) => format!("there is no such option; write it as {:?}", option.name),
        None => "there is no such option".to_owned(),
    }
}

fn put<T>(to: &mut T, value: Result<T, String>) -> Result<(), String> {
    *to = value?;
    Ok(())
}

fn push<T>(list: &mut Vec<T>, value: Result<T, String>) -> Result<(), String> {
    list.push(value?);
    Ok(())
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse().map_err(|_| format!("{text:?} is no number from 0 up"))
}

fn size(text: &str) -> Result<usize, String> {
    match number(text)? {
        0 => Err("nothing could be served with 0".to_owned()),
        size => Ok(size),
    }
}

fn file_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777);
    mode.ok_or_else(|| format!("{text:?} is no file mode like 0660"))
}

fn dead_peer_timeout(text: &str) -> Result<Duration, String> {
    let (least, most) = (Keepalive::DEAD_PEER_TIMEOUT_MIN, Keepalive::DEAD_PEER_TIMEOUT_MAX);
    let seconds = number(text)?;
    let timeout = Some(Duration::from_secs(seconds)).filter(|timeout| (least..=most).contains(timeout));
    let (least, most) = (least.as_secs(), most.as_secs());
    timeout.ok_or_else(|| format!("{seconds} is not from {least} to {most} seconds"))
}

fn yes_or_no(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "on" | "1" => Ok(true),
        "false" | "f" | "no" | "n" | "off" | "0" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt;

    use super::super::config::Scheduling;
    use super::*;

    fn options(given: &[(&str, &str)]) -> Result<Options, OptionError> {
        let mut options = Options::default();
        given.iter().try_for_each(|(name, text)| options.set(name, text))?;
        Ok(options)
    }

    #[test]
    fn every_option_that_is_not_refused_takes_effect() {
        let given = [
            ("listen", "message://127.0.0.1:0, lockd://127.0.0.1:0"),
            ("listen", "glockd+unix:/x"),
            ("allow", "10.0.0.0/8"),
            ("ws-origin", "https://a,https://b"),
            ("unix-mode", "0660"),
            ("dead-peer-timeout", "30"),
            ("connections-max", "1"),
            ("line-max", "2"),
            ("message-max", "3"),
            ("outbox-max", "4"),
            ("locks-max", "5"),
            ("locks-per-connection-max", "6"),
            ("waits-per-connection-max", "7"),
            ("name-max", "8"),
            ("no-dump", "true"),
            ("no-registry", "1"),
            ("allow-kick", "Yes"),
            ("shared-excludes", "on"),
            ("scheduling", "batch"),
            ("state-dir", "/state"),
            ("first-start", "yes"),
        ];
        let options = options(&given).unwrap();
        let config = options.config().unwrap();
        assert_eq!((config.listen.len(), config.allow.len(), config.ws_origins.len()), (3, 1, 2));
        assert_eq!((config.unix_mode, config.dead_peer_timeout.as_secs()), (0o660, 30));
        assert_eq!((config.connections_max, config.line_bytes_max), (1, 2));
        assert_eq!((config.message_bytes_max, config.outbox_bytes_max), (3, 4));
        assert_eq!(
            [config.dump, config.registry, config.kick, config.shared_excludes],
            [false, false, true, true]
        );
        assert_eq!(config.scheduling, Scheduling::Batch);
        let limits = options.limits(Limits::default());
        assert_eq!((limits.locks_max, limits.locks_per_session_max), (5, 6));
        assert_eq!((limits.waits_per_session_max, limits.name_bytes_max), (7, 8));
        assert_eq!(options.state_dir(), Some(Path::new("/state")));
        assert!(options.is_first_start() && !Options::default().is_first_start());
        let with_files = ["tls-cert", "tls-key", "tls-client-ca", "auth-token-file"];
        let untested: Vec<&str> = Options::names()
            .filter(|name| {
                !Options::is_refused(name) && !with_files.contains(name) && !options.is_given(name)
            })
            .collect();
        assert_eq!(untested, [""; 0]);
    }

    #[test]
    fn an_option_that_is_not_set_has_its_default() {
        let (config, default) = (Options::default().config().unwrap(), Config::default());
        assert_eq!((config.listen, config.allow), (default.listen, default.allow));
        assert_eq!(Options::default().limits(Limits::default()), Limits::default());
        assert_eq!(Options::default().state_dir(), None);
    }

    #[test]
    fn a_mistake_is_reported_with_the_name_of_its_option() {
        for (name, text, problem) in [
            ("lisen", "message://127.0.0.1:0", "no such option"),
            ("", "", "no such option"),
            ("--listen", "message://127.0.0.1:0", "write it as \"listen\""),
            ("line_max", "9", "write it as \"line-max\""),
            ("LOCKD_LINE_MAX", "9", "write it as \"line-max\""),
            ("--", "9", "no such option"),
            ("listen", "x", "\"x\""),
            ("listen", "", "PROTOCOL://"),
            ("listen", "message+tls://127.0.0.1:0", "tls-cert"),
            ("allow", "nobody", "nobody"),
            ("ws-origin", "https://a,example.org", "\"example.org\""),
            ("unix-mode", "0999", "0999"),
            ("dead-peer-timeout", "4", "from 12 to"),
            ("dead-peer-timeout", "25 s", "25 s"),
            ("line-max", "0", "with 0"),
            ("line-max", "-1", "-1"),
            ("locks-max", "many", "many"),
            ("locks-max", "0", "with 0"),
            ("locks-per-connection-max", "0", "with 0"),
            ("no-dump", "", "neither true nor false"),
            ("scheduling", "idle", "idle"),
            ("state-dir", "", "empty"),
            ("tls-cert", "/x", "tls-key"),
            ("tls-key", "/x", "tls-cert"),
            ("tls-client-ca", "/x", "tls-cert"),
            ("auth-token-file", "/nonexistent/secret", "/nonexistent/secret"),
            ("user", "nobody", "embedding program"),
            ("http", "127.0.0.1:0", "only the program lockd"),
        ] {
            let refused = options(&[(name, text)]).and_then(|options| options.config());
            let refused = refused.unwrap_err();
            assert!(refused.option == name && refused.problem.contains(problem), "{refused}");
        }
        let twice = options(&[("line-max", "1"), ("line-max", "1")]).unwrap_err();
        assert_eq!(twice.to_string(), "line-max: it is given twice");
    }

    #[test]
    fn separate_values_are_not_divided_at_commas() {
        let mut options = Options::default();
        options.set_each("listen", ["message+unix:/a,b", "glockd+unix:/c"]).unwrap();
        options.set_each("allow", [""; 0]).unwrap();
        options.set_each("state-dir", [OsStr::from_bytes(b"/\xff")]).unwrap();
        let config = options.config().unwrap();
        let listen: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
        assert_eq!(listen, ["message+unix:/a,b", "glockd+unix:/c"]);
        assert_eq!(config.allow, Config::loopback());
        assert_eq!(options.state_dir().unwrap().as_os_str().as_bytes(), b"/\xff");
        let mistake = options.set_each("scheduling", [OsStr::from_bytes(b"\xff")]).unwrap_err();
        assert_eq!(mistake.to_string(), "scheduling: it is not UTF-8");
    }
}
