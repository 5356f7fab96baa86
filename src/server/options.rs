//! A server's options by their names, with values as text: for `lockd serve`, and for programs that embed a server
//! and have their options as text too. Knows the names, what each value must be, and which options are for the
//! program `lockd` alone; opens only the files that values name.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use super::auth_token::AuthToken;
use super::config::{Config, parse_allow, parse_origin};
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

/// A server's options, given one after the other by the names that they have on the command line of `lockd serve`,
/// without the dashes. A Rust program that does not have them as text fills in a [`Config`] itself.
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
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    tls_client_ca: Option<PathBuf>,
}

/// What an option's value does.
#[derive(Clone, Copy)]
enum Effect {
    /// It is one of possibly many, separated by commas, or given several times.
    Add(fn(&mut Options, &str) -> Result<(), String>),
    /// It is set once.
    Set(fn(&mut Options, &str) -> Result<(), String>),
    /// It is set once, to a path, which need not be UTF-8.
    SetPath(fn(&mut Options, &Path) -> Result<(), String>),
    /// There is no such thing without the program `lockd`, and why.
    Refuse(&'static str),
}

use Effect::{Add, Refuse, Set, SetPath};

/// Every option of `lockd serve`.
const TABLE: [(&str, Effect); 30] = [
    ("listen", Add(|to, text| push(&mut to.config.listen, text.parse()))),
    ("allow", Add(|to, text| push(&mut to.config.allow, parse_allow(text)))),
    ("ws-origin", Add(|to, text| push(&mut to.config.ws_origins, parse_origin(text)))),
    ("unix-mode", Set(|to, text| put(&mut to.config.unix_mode, file_mode(text)))),
    ("dead-peer-timeout", Set(|to, text| put(&mut to.config.dead_peer_timeout, dead_peer_timeout(text)))),
    ("connections-max", Set(|to, text| put(&mut to.config.connections_max, size(text)))),
    ("line-max", Set(|to, text| put(&mut to.config.line_bytes_max, size(text)))),
    ("message-max", Set(|to, text| put(&mut to.config.message_bytes_max, size(text)))),
    ("outbox-max", Set(|to, text| put(&mut to.config.outbox_bytes_max, size(text)))),
    ("locks-max", Set(|to, text| put(&mut to.locks_max, size(text).map(Some)))),
    ("locks-per-connection-max", Set(|to, text| put(&mut to.locks_per_session_max, size(text).map(Some)))),
    ("waits-per-connection-max", Set(|to, text| put(&mut to.waits_per_session_max, number(text).map(Some)))),
    ("name-max", Set(|to, text| put(&mut to.name_bytes_max, number(text).map(Some)))),
    ("no-dump", Set(|to, text| put(&mut to.config.dump, yes_or_no(text).map(|no| !no)))),
    ("no-registry", Set(|to, text| put(&mut to.config.registry, yes_or_no(text).map(|no| !no)))),
    ("allow-kick", Set(|to, text| put(&mut to.config.kick, yes_or_no(text)))),
    ("shared-excludes", Set(|to, text| put(&mut to.config.shared_excludes, yes_or_no(text)))),
    ("scheduling", Set(|to, text| put(&mut to.config.scheduling, text.parse()))),
    ("state-dir", SetPath(|to, path| put(&mut to.state_dir, Ok(Some(path.into()))))),
    ("tls-cert", SetPath(|to, path| put(&mut to.tls_cert, Ok(Some(path.into()))))),
    ("tls-key", SetPath(|to, path| put(&mut to.tls_key, Ok(Some(path.into()))))),
    ("tls-client-ca", SetPath(|to, path| put(&mut to.tls_client_ca, Ok(Some(path.into()))))),
    ("auth-token-file", SetPath(|to, path| put(&mut to.config.auth_token, AuthToken::load(path).map(Some)))),
    ("http", Refuse("only the program lockd serves HTTP")),
    ("http-host", Refuse("only the program lockd serves HTTP")),
    ("config", Refuse("only the program lockd reads a configuration file; give the options themselves")),
    ("check", Refuse("only the program lockd checks without a start")),
    ("pidfile", Refuse("the process is the embedding program's, which can write one itself")),
    ("user", Refuse("the process is the embedding program's, which can change its user itself")),
    ("log-level", Refuse("the log is the embedding program's")),
];

impl Options {
    /// The names of all options, those that are refused here too.
    pub fn names() -> impl Iterator<Item = &'static str> {
        TABLE.iter().map(|(name, _)| *name)
    }

    /// Whether an option of this name is for the program `lockd` alone, or is none.
    #[must_use]
    pub fn is_refused(name: &str) -> bool {
        matches!(effect(name), None | Some((_, Refuse(_))))
    }

    /// Sets an option. `text` is what stands behind it on the command line; for those that take nothing there
    /// (`no-dump`, say) it is `true` or `false`. Those that can be given several times (`listen`, `allow`,
    /// `ws-origin`) add to what was given before, and take several values separated by commas.
    ///
    /// # Errors
    /// If there is no such option, or none without the program `lockd`; if the value makes no sense, or a file that
    /// it names cannot be read; if an option is given twice that can be given once.
    pub fn set(&mut self, name: &str, text: &str) -> Result<(), OptionError> {
        match effect(name) {
            Some((_, Add(_))) => self.set_each(name, text.split(',').map(str::trim)),
            _ => self.set_each(name, [text]),
        }
    }

    /// Sets an option to these values, none of which is divided at commas; without any it stays as it is. Paths
    /// need not be UTF-8.
    ///
    /// # Errors
    /// As of [`set`](Self::set); for what is no path also if a value is not UTF-8.
    pub fn set_each(
        &mut self,
        name: &str,
        values: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Result<(), OptionError> {
        let (known, effect) = effect(name).ok_or_else(|| error(name, unknown(name)))?;
        values.into_iter().try_for_each(|value| {
            self.apply(known, effect, value.as_ref()).map_err(|problem| error(known, problem))
        })
    }

    fn apply(&mut self, name: &'static str, effect: Effect, value: &OsStr) -> Result<(), String> {
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

    /// What the server is to be told, with the [defaults](Config::default) of what was not set.
    ///
    /// # Errors
    /// If a certificate or key cannot be read, or one is there without the other; and as of [`Config::check`].
    pub fn config(&self) -> Result<Config, OptionError> {
        let config = Config { tls: self.tls()?, ..self.config.clone() };
        config.check().map_err(|problem| error("listen", problem))?;
        Ok(config)
    }

    /// The limits of the broker: `base` with those that were set.
    #[must_use]
    pub fn limits(&self, base: Limits) -> Limits {
        Limits {
            name_bytes_max: self.name_bytes_max.unwrap_or(base.name_bytes_max),
            locks_max: self.locks_max.unwrap_or(base.locks_max),
            locks_per_session_max: self.locks_per_session_max.unwrap_or(base.locks_per_session_max),
            waits_per_session_max: self.waits_per_session_max.unwrap_or(base.waits_per_session_max),
        }
    }

    /// The state directory, for [`state::resume`](crate::server::state_dir::resume).
    #[must_use]
    pub fn state_dir(&self) -> Option<&Path> {
        self.state_dir.as_deref()
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
            // The problem begins with the file that has it. The colon tells `a` from `a.ca`.
            let has_it = |path: &Path| problem.starts_with(&format!("{}: ", path.display()));
            let option = match (has_it(cert), has_it(key), tls_client_ca.as_deref().is_some_and(has_it)) {
                (false, false, true) => "tls-client-ca",
                (false, true, _) => "tls-key",
                _ => "tls-cert",
            };
            error(option, problem)
        })
    }
}

fn effect(name: &str) -> Option<(&'static str, Effect)> {
    TABLE.iter().find(|(known, _)| *known == name).copied()
}

/// What is said of a name that no option has: how the name is written, where only its spelling differs.
fn unknown(name: &str) -> String {
    let plain = name.trim_start_matches('-').to_ascii_lowercase().replace('_', "-");
    let meant = effect(plain.strip_prefix("lockd-").unwrap_or(&plain));
    meant.map_or_else(
        || "there is no such option".to_owned(),
        |(meant, _)| format!("there is no such option; write it as {meant:?}"),
    )
}

fn put<T>(place: &mut T, value: Result<T, String>) -> Result<(), String> {
    *place = value?;
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
    fn every_option_that_is_taken_changes_something() {
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
        let with_files = ["tls-cert", "tls-key", "tls-client-ca", "auth-token-file"];
        let untested: Vec<&str> = Options::names()
            .filter(|name| {
                !Options::is_refused(name) && !with_files.contains(name) && !options.is_given(name)
            })
            .collect();
        assert_eq!(untested, [""; 0]);
    }

    #[test]
    fn what_is_not_set_is_as_it_always_is() {
        let (config, default) = (Options::default().config().unwrap(), Config::default());
        assert_eq!((config.listen, config.allow), (default.listen, default.allow));
        assert_eq!(Options::default().limits(Limits::default()), Limits::default());
        assert_eq!(Options::default().state_dir(), None);
    }

    #[test]
    fn what_makes_no_sense_is_said_with_the_name() {
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
    fn values_that_are_apart_are_taken_whole() {
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
