//! The server's options, with their types and help, and the settings that result from them. An
//! option has the same name everywhere: `--locks-max`, `LOCKD_LOCKS_MAX`, `locks-max = …`. Where
//! they are read from is in `configuration`. What the values of most options mean is in the
//! library's table of options; only options that the program alone has are interpreted here.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::IpAddr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use clap::builder::BoolishValueParser;
use lockd::broker::Limits;
use lockd::etcd::{Etcd, EtcdUrl};
use lockd::server::cluster::{ClusterConfig, ClusterTimes};
use lockd::server::{Config, OptionError, Options};
use lockd::wire::parse_port;
use log::LevelFilter;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use super::cluster_member::is_every_address;
use super::privileges::UserAccount;

/// The options as they are given in one place: on the command line, in the environment, or in a
/// file. Their variables are named here for the help, and read by `configuration`.
#[derive(Args, Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct ServeOptions {
    /// Check the configuration and exit, without starting a server. Reads all options, files,
    /// certificates, keys and the secret, and changes nothing. Does not ask etcd. Prints warnings
    /// and `ok` and exits with 0, or prints the mistake with its place and exits with 2
    #[arg(long)]
    #[serde(skip)]
    pub(super) check: bool,

    /// Read further options from this TOML file, by their long names
    #[arg(long, value_name = "FILE", env = "LOCKD_CONFIG")]
    #[serde(skip)]
    pub(super) config: Option<PathBuf>,

    /// Listen on this address: PROTOCOL://HOST:PORT or PROTOCOL+unix:PATH, where PROTOCOL is lockd,
    /// glockd or message; with TLS PROTOCOL+tls://HOST:PORT, with WebSocket glockd+ws://HOST:PORT
    /// or glockd+ws+tls://HOST:PORT; may be given several times [default: lockd://127.0.0.1:2626,
    /// glockd://127.0.0.1:9999, message://127.0.0.1:20934]
    #[arg(long, value_name = "ADDRESS", env = "LOCKD_LISTEN", value_delimiter = ',')]
    listen: Vec<String>,

    /// Serve a page of the locks, and statistics for Prometheus, over HTTP on this address:
    /// HOST:PORT, like 127.0.0.1:2627; may be given several times [default: none]
    #[arg(long, value_name = "ADDRESS", env = "LOCKD_HTTP", value_delimiter = ',')]
    http: Vec<String>,

    /// With --http: also answer requests that name the server by this host name (an address and
    /// localhost are always answered);
    /// may be given several times
    #[arg(long, value_name = "NAME", env = "LOCKD_HTTP_HOST", value_delimiter = ',')]
    http_host: Vec<String>,

    /// Let only clients with this address, or in a network like 10.0.0.0/8, connect over TCP; may
    /// be given several times, and replaces the default [default: 127.0.0.0/8, ::1]
    #[arg(long, value_name = "IP|CIDR", env = "LOCKD_ALLOW", value_delimiter = ',')]
    allow: Vec<String>,

    /// File mode of Unix sockets, in octal [default: 0600]
    #[arg(long, value_name = "MODE", env = "LOCKD_UNIX_MODE")]
    unix_mode: Option<String>,

    /// Free the locks of a client whose host has given no sign of life for this many seconds, 12 to
    /// 32767
    /// [default: 25]
    #[arg(long, value_name = "SECONDS", env = "LOCKD_DEAD_PEER_TIMEOUT")]
    dead_peer_timeout: Option<u64>,

    /// Maximum number of connections [default: 10000]
    #[arg(long, value_name = "N", env = "LOCKD_CONNECTIONS_MAX")]
    connections_max: Option<usize>,

    /// Maximum number of locks held [default: 10000000]
    #[arg(long, value_name = "N", env = "LOCKD_LOCKS_MAX")]
    locks_max: Option<usize>,

    /// Maximum number of locks held by one connection [default: 1000000]
    #[arg(long, value_name = "N", env = "LOCKD_LOCKS_PER_CONNECTION_MAX")]
    locks_per_connection_max: Option<usize>,

    /// Maximum number of names that one connection waits for at the same time [default: 10000]
    #[arg(long, value_name = "N", env = "LOCKD_WAITS_PER_CONNECTION_MAX")]
    waits_per_connection_max: Option<usize>,

    /// Maximum length of a lock's name [default: 1024]
    #[arg(long, value_name = "BYTES", env = "LOCKD_NAME_MAX")]
    name_max: Option<usize>,

    /// Maximum length of a line in the text protocols [default: 4096]
    #[arg(long, value_name = "BYTES", env = "LOCKD_LINE_MAX")]
    line_max: Option<usize>,

    /// Maximum length of a request in the protocol `message` [default: 1048576]
    #[arg(long, value_name = "BYTES", env = "LOCKD_MESSAGE_MAX")]
    message_max: Option<usize>,

    /// Maximum output that waits for a client that does not read; a client with more is
    /// disconnected [default: 1048576]
    #[arg(long, value_name = "BYTES", env = "LOCKD_OUTBOX_MAX")]
    outbox_max: Option<usize>,

    /// Do not let clients list locks and their holders (d, sd, dump, q full, who, list, /locks)
    #[arg(long, env = "LOCKD_NO_DUMP", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    no_dump: Option<bool>,

    /// Do not let clients register a name (iam, who, identify)
    #[arg(long, env = "LOCKD_NO_REGISTRY", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    no_registry: Option<bool>,

    /// Let every client end the connections of other clients, whose locks are then lost (lockd
    /// kick)
    #[arg(long, env = "LOCKD_ALLOW_KICK", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    allow_kick: Option<bool>,

    /// Let shared and exclusive locks of the text protocols (sg and g) exclude each other; by
    /// default they do not
    #[arg(long, env = "LOCKD_SHARED_EXCLUDES", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    shared_excludes: Option<bool>,

    /// Scheduling policy of the connections' threads: normal or batch. With batch, many busy
    /// connections use less CPU time and get more done, but some replies are milliseconds late
    /// while all processors are busy [default: normal]
    #[arg(long, value_name = "POLICY", env = "LOCKD_SCHEDULING")]
    scheduling: Option<String>,

    /// Keep state for the next start in this directory. The fencing tokens of each name then rise
    /// from one start to the next even if the clock goes back, sessions can resume at the next start,
    /// and after an unclean stop nothing is granted until the dead-peer timeout has passed
    #[arg(long, value_name = "DIRECTORY", env = "LOCKD_STATE_DIR")]
    #[serde(serialize_with = "serialize_path")]
    state_dir: Option<PathBuf>,

    /// With a new state directory, or as the first server of a new cluster, grant locks at once: no
    /// client of an earlier server can still believe that it holds one. Without it, nothing is
    /// granted until the dead-peer timeout has passed, since the directory, or what was in etcd, may
    /// replace what is lost
    #[arg(long, env = "LOCKD_FIRST_START", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    first_start: Option<bool>,

    /// Be one of several servers of which one is active, chosen through etcd:
    /// etcd://HOST[:PORT],HOST[:PORT]/NAME, or etcd+tls://, where NAME is that of the cluster. After
    /// it ? and, separated by &, ca=FILE, cert=FILE, key=FILE, user=NAME, password-file=FILE. What
    /// --state-dir is for is then kept in etcd
    #[arg(long, value_name = "URL", env = "LOCKD_CLUSTER")]
    cluster: Option<String>,

    /// With --cluster: let another server take over once the active one has not been heard of for
    /// this many seconds, 1 to 60; the same on all servers [default: 5]
    #[arg(long, value_name = "SECONDS", env = "LOCKD_LEADER_TIMEOUT")]
    leader_timeout: Option<u64>,

    /// With --cluster: where clients find this server, as others are told [default: the first
    /// address of --listen for message, with this machine's host name if it is 0.0.0.0 or [::]]
    #[arg(long, value_name = "HOST:PORT", env = "LOCKD_ADVERTISE")]
    advertise: Option<String>,

    /// Write the process id to this file, and refuse to start if a running server uses the same
    /// file
    #[arg(long, value_name = "FILE", env = "LOCKD_PIDFILE")]
    #[serde(serialize_with = "serialize_path")]
    pidfile: Option<PathBuf>,

    /// Take orders of root and of the server's user over a Unix socket at this path, which only
    /// they can use: lockd upgrade, lockd stand-down [default: none]
    #[arg(long, value_name = "PATH", env = "LOCKD_CONTROL")]
    #[serde(serialize_with = "serialize_path")]
    control: Option<PathBuf>,

    /// Become this user once all addresses are bound
    #[arg(long, value_name = "NAME", env = "LOCKD_USER")]
    user: Option<String>,

    /// The server's certificate for TLS, followed by the intermediate certificates, in PEM. It is
    /// read again at SIGHUP, for new connections
    #[arg(long, value_name = "FILE", env = "LOCKD_TLS_CERT")]
    #[serde(serialize_with = "serialize_path")]
    tls_cert: Option<PathBuf>,

    /// The certificate's private key, in PEM
    #[arg(long, value_name = "FILE", env = "LOCKD_TLS_KEY")]
    #[serde(serialize_with = "serialize_path")]
    tls_key: Option<PathBuf>,

    /// Accept only TLS clients with a certificate signed by one of these authorities, in PEM
    #[arg(long, value_name = "FILE", env = "LOCKD_TLS_CLIENT_CA")]
    #[serde(serialize_with = "serialize_path")]
    tls_client_ca: Option<PathBuf>,

    /// Ask clients that speak message over TCP for the secret in this file, of 16 bytes or more.
    /// Text protocols cannot send a secret. So if there is one, they may listen only out of reach
    /// of other machines, or with client certificates (--tls-client-ca)
    #[arg(long, value_name = "FILE", env = "LOCKD_AUTH_TOKEN_FILE")]
    #[serde(serialize_with = "serialize_path")]
    auth_token_file: Option<PathBuf>,

    /// Let pages of this origin, like https://example.org, connect to WebSockets, in addition to
    /// those of this host; may be given several times. The hosts of these origins also count as
    /// names of this server
    #[arg(long, value_name = "ORIGIN", env = "LOCKD_WS_ORIGIN", value_delimiter = ',')]
    ws_origin: Vec<String>,

    /// What to log: off, error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL", env = "LOCKD_LOG_LEVEL")]
    log_level: Option<String>,
}

/// A path as a string, or as a list of bytes if it is not UTF-8.
fn serialize_path<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    let path = path.as_ref().map(|path| path.as_os_str());
    match path.map(|path| (path.to_str(), path.as_bytes())) {
        None => serializer.serialize_none(),
        Some((Some(text), _)) => serializer.serialize_str(text),
        Some((None, bytes)) => serializer.collect_seq(bytes),
    }
}

/// The values of all options that are given, by the names of the options, as JSON.
pub(super) type OptionValues = BTreeMap<String, Value>;

impl ServeOptions {
    /// The options that are given here, but for `check` and `config`.
    pub(super) fn values(&self) -> OptionValues {
        let is_given =
            |value: &Value| !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty());
        match serde_json::to_value(self) {
            Ok(Value::Object(all)) => all.into_iter().filter(|(_, value)| is_given(value)).collect(),
            // Texts, numbers, and lists of these are always an object in JSON.
            _ => OptionValues::new(),
        }
    }
}

/// What the server is started or reloaded with.
#[derive(Debug)]
pub(super) struct Settings {
    /// The options that are given in any place, each value as JSON.
    pub(super) given: BTreeMap<String, String>,
    pub(super) config: Config,
    /// Whether no address to listen on is given.
    pub(super) listens_by_default: bool,
    pub(super) limits: Limits,
    pub(super) http: Vec<String>,
    pub(super) http_hosts: Vec<String>,
    pub(super) state_dir: Option<PathBuf>,
    pub(super) is_first_start: bool,
    pub(super) cluster: Option<ClusterConfig>,
    pub(super) pidfile: Option<PathBuf>,
    pub(super) control: Option<PathBuf>,
    /// The user to become.
    pub(super) account: Option<UserAccount>,
    pub(super) log_level: LevelFilter,
}

impl Settings {
    /// The directory in which state is kept, if it is not kept in etcd.
    pub(super) fn state_dir(&self) -> Option<&Path> {
        self.state_dir.as_deref().filter(|_| self.cluster.is_none())
    }

    /// The settings that result from options of which each is given as JSON, as in
    /// [`given`](Self::given).
    ///
    /// # Errors
    /// The first mistake that is found.
    pub(super) fn of_given(given: &BTreeMap<String, String>) -> Result<Self, OptionError> {
        let read = |(name, value): (&String, &String)| match serde_json::from_str(value) {
            Ok(value) => Ok((name.clone(), value)),
            Err(error) => Err(mistake(name, error.to_string())),
        };
        Self::new(&given.iter().map(read).collect::<Result<_, _>>()?, true)
    }

    /// The settings that result from `values`. With `check_together` these must be the options of
    /// all places. Without it each value is only checked by itself, and neither the user nor
    /// certificates are looked up.
    ///
    /// # Errors
    /// The first mistake that is found.
    pub(super) fn new(values: &OptionValues, check_together: bool) -> Result<Self, OptionError> {
        let texts_of = |name: &str| values.get(name).map(texts).unwrap_or_default();
        let path_of = |name: &str| texts_of(name).pop().map(PathBuf::from);
        let mut options = Options::default();
        for name in Options::names().filter(|name| !Options::is_refused(name)) {
            options.set_each(name, texts_of(name))?;
        }
        let config = if check_together { options.config()? } else { Config::default() };
        let http = parse_each("http", texts_of("http"), host_and_port)?;
        let http_hosts = parse_each("http-host", texts_of("http-host"), host_name)?;
        let log_level = parse_each("log-level", texts_of("log-level"), log_level)?.pop();
        let cluster = cluster(&texts_of, &config, options.is_first_start(), check_together)?;
        for name in ["control", "pidfile", "user"] {
            if texts_of(name).iter().any(|text| text.is_empty()) {
                return Err(mistake(name, "it is empty".to_owned()));
            }
        }
        let find = |name: &str| UserAccount::find(name).map_err(|error| error.to_string());
        let user = if check_together { texts_of("user") } else { Vec::new() };
        let account = parse_each("user", user, find)?.pop();
        let base = Limits { locks_max: 10_000_000, locks_per_session_max: 1_000_000, ..Limits::default() };
        Ok(Self {
            given: values.iter().map(|(name, value)| (name.clone(), value.to_string())).collect(),
            config,
            listens_by_default: !options.is_given("listen"),
            limits: options.limits(base),
            http,
            http_hosts,
            state_dir: path_of("state-dir"),
            is_first_start: options.is_first_start(),
            cluster,
            pidfile: path_of("pidfile"),
            control: path_of("control"),
            account,
            log_level: log_level.unwrap_or(LevelFilter::Info),
        })
    }
}

/// The cluster that the server is a member of, if it is.
fn cluster(
    texts_of: &impl Fn(&str) -> Vec<OsString>,
    config: &Config,
    is_first_start: bool,
    check_together: bool,
) -> Result<Option<ClusterConfig>, OptionError> {
    let etcd_url = |text: &str| text.parse::<EtcdUrl>().map_err(|error| error.to_string());
    let etcd = parse_each("cluster", texts_of("cluster"), etcd_url)?.pop();
    let leader_timeout = parse_each("leader-timeout", texts_of("leader-timeout"), leader_timeout)?.pop();
    let address = parse_each("advertise", texts_of("advertise"), clients_address)?.pop();
    if !check_together {
        return Ok(None);
    }
    let Some(etcd) = etcd else {
        let given = [("leader-timeout", leader_timeout.is_some()), ("advertise", address.is_some())];
        return match given.iter().find(|(_, is_given)| *is_given) {
            Some((name, _)) => Err(mistake(name, "it is for servers with cluster".to_owned())),
            None => Ok(None),
        };
    };
    let leader_timeout = leader_timeout.unwrap_or(ClusterTimes::LEADER_TIMEOUT);
    let times = ClusterTimes::new(config.dead_peer_timeout, leader_timeout);
    let times = times.map_err(|problem| mistake("leader-timeout", problem))?;
    // Now, so that a file that is missing is a mistake of the configuration.
    Etcd::new(&etcd).map_err(|error| mistake("cluster", error.to_string()))?;
    Ok(Some(ClusterConfig { etcd, times, address, is_first_start }))
}

/// Where clients can connect to.
fn clients_address(text: &str) -> Result<String, String> {
    match host_and_port(text)?.rsplit_once(':') {
        Some((host, "0")) => Err(format!("{host} is given without a port")),
        Some((host, _)) if is_every_address(host) || host.contains(char::is_whitespace) => {
            Err(format!("no client can connect to {text:?}"))
        }
        _ => Ok(text.to_owned()),
    }
}

fn leader_timeout(text: &str) -> Result<Duration, String> {
    let (min, max) = (ClusterTimes::LEADER_TIMEOUT_MIN, ClusterTimes::LEADER_TIMEOUT_MAX);
    let time = text.parse().ok().map(Duration::from_secs).filter(|time| (min..=max).contains(time));
    time.ok_or_else(|| format!("{text} is not from {} to {}", min.as_secs(), max.as_secs()))
}

/// A value, or each value of a list, as text. A list of numbers is one path that is not UTF-8.
fn texts(value: &Value) -> Vec<OsString> {
    let text =
        |value: &Value| OsString::from(value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    let Some(list) = value.as_array() else { return vec![text(value)] };
    let bytes = list.iter().map(|byte| u8::try_from(byte.as_u64()?).ok()).collect::<Option<Vec<u8>>>();
    match bytes {
        Some(path) if !path.is_empty() => vec![OsString::from_vec(path)],
        _ => list.iter().map(text).collect(),
    }
}

fn mistake(option: &str, problem: String) -> OptionError {
    OptionError { option: option.to_owned(), problem }
}

fn parse_each<T>(
    option: &str,
    texts: Vec<OsString>,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, OptionError> {
    let parse = |text: &OsString| parse(&text.to_string_lossy()).map_err(|problem| mistake(option, problem));
    texts.iter().map(parse).collect()
}

fn log_level(text: &str) -> Result<LevelFilter, String> {
    let level = text.parse();
    level.map_err(|_| format!("{text:?} is not a level: there are off, error, warn, info, debug and trace"))
}

/// A host name as it appears in a request, without a port: requests for any port are answered.
fn host_name(text: &str) -> Result<String, String> {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let is_name = !text.is_empty() && text.bytes().all(is_part) || text.parse::<IpAddr>().is_ok();
    is_name.then(|| text.to_owned()).ok_or_else(|| format!("{text:?} is not a host name without a port"))
}

fn host_and_port(text: &str) -> Result<String, String> {
    let is_one = |(host, port): (&str, &str)| !host.is_empty() && parse_port(port).is_some();
    match text.rsplit_once(':') {
        // An IPv6 address must be in brackets if a port follows it.
        Some(parts) if is_one(parts) && (!parts.0.contains(':') || parts.0.starts_with('[')) => {
            Ok(text.to_owned())
        }
        _ => Err(format!("{text:?} is not HOST:PORT")),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use clap::{Command, FromArgMatches};
    use lockd::server::{Scheduling, parse_allow};

    use super::*;

    fn file(text: &str) -> OptionValues {
        toml::from_str::<ServeOptions>(text).unwrap().values()
    }

    #[test]
    fn values_of_another_place_replace_those_of_the_file_and_these_replace_the_defaults() {
        let given =
            ServeOptions { name_max: Some(7), allow: vec!["10.0.0.0/8".into()], ..ServeOptions::default() };
        let mut values = file(
            "name-max = 8\nline-max = 9\nallow = ['1.2.3.4']\nlisten = ['lockd://[::1]:1']\nno-dump = true\nscheduling = 'batch'",
        );
        values.extend(given.values());
        let settings = Settings::new(&values, true).unwrap();
        assert_eq!(settings.limits.name_bytes_max, 7);
        assert_eq!(settings.config.line_bytes_max, 9);
        assert_eq!(settings.config.message_bytes_max, 1 << 20);
        assert_eq!(settings.config.allow, [parse_allow("10.0.0.0/8").unwrap()]);
        assert_eq!(settings.config.listen.len(), 1);
        assert_eq!(settings.config.scheduling, Scheduling::Batch);
        assert!(!settings.config.dump && settings.config.registry);
    }

    #[test]
    fn a_mistake_names_its_option() {
        for (text, option, problem) in [
            ("listen = ['x']", "listen", "\"x\""),
            ("listen = ['lockd://h:+80']", "listen", "h:+80"),
            ("http-host = ['locks.example:80']", "http-host", "locks.example:80"),
            ("http-host = ['http://locks.example']", "http-host", "http://"),
            ("http = ['127.0.0.1']", "http", "127.0.0.1"),
            ("http = ['http://127.0.0.1:80']", "http", "http://"),
            ("http = ['::1:80']", "http", "::1:80"),
            ("allow = ['nobody']", "allow", "nobody"),
            ("unix-mode = '0999'", "unix-mode", "0999"),
            ("dead-peer-timeout = 4", "dead-peer-timeout", "4 is not from 12"),
            ("log-level = 'loud'", "log-level", "loud"),
            ("line-max = 0", "line-max", "0"),
            ("scheduling = 'idle'", "scheduling", "idle"),
            ("cluster = 'etcd://h'", "cluster", "NAME"),
            ("leader-timeout = 0", "leader-timeout", "0 is not from 1 to 60"),
            ("leader-timeout = 5", "leader-timeout", "cluster"),
            ("advertise = 'here'", "advertise", "HOST:PORT"),
            ("advertise = 'a:0'", "advertise", "without a port"),
            ("advertise = '0.0.0.0:1'", "advertise", "no client can connect"),
            ("advertise = 'a b:1'", "advertise", "no client can connect"),
            ("cluster = 'etcd://h/a'\nleader-timeout = 9", "leader-timeout", "0.99·T"),
            ("state-dir = ''", "state-dir", "empty"),
            ("user = ''", "user", "empty"),
            ("control = ''", "control", "empty"),
            ("tls-key = '/x'", "tls-key", "tls-cert"),
            ("tls-client-ca = '/x'", "tls-client-ca", "tls-cert"),
            ("tls-cert = '/x'", "tls-cert", "tls-key"),
            ("tls-cert = '/nonexistent/c'\ntls-key = '/nonexistent/k'", "tls-cert", "/nonexistent/c"),
            (
                "tls-cert = '/nonexistent/c'\ntls-key = '/nonexistent/k'\ntls-client-ca = '/nonexistent/ca'",
                "tls-client-ca",
                "/nonexistent/ca",
            ),
            ("auth-token-file = '/nonexistent/s'", "auth-token-file", "/nonexistent/s"),
            ("ws-origin = ['example.org']", "ws-origin", "example.org"),
            ("listen = ['message+tls://127.0.0.1:1']", "listen", "TLS takes a certificate"),
        ] {
            let mistake = Settings::new(&file(text), true).unwrap_err();
            assert!(mistake.option == option && mistake.problem.contains(problem), "{text}: {mistake:?}");
        }
    }

    #[test]
    fn every_option_can_be_given_and_reaches_the_library() {
        let command = ServeOptions::augment_args(Command::new("lockd"));
        for name in Options::names().filter(|name| !Options::is_refused(name)) {
            let takes_files = ["auth-token-file", "tls-cert", "tls-key", "tls-client-ca"].contains(&name);
            let value = match name {
                "listen" => "lockd://[::1]:1",
                "allow" => "::1",
                "ws-origin" => "https://a",
                "scheduling" => "batch",
                name if name.starts_with("no-")
                    || ["allow-kick", "first-start", "shared-excludes"].contains(&name) =>
                {
                    "true"
                }
                _ if takes_files => "/nonexistent",
                _ => "33",
            };
            let matches = command.clone().try_get_matches_from(["lockd", &format!("--{name}={value}")]);
            let options = ServeOptions::from_arg_matches(&matches.unwrap()).unwrap();
            let values = options.values();
            assert!(values.len() == 1 && values.contains_key(name), "{name}: {values:?}");
            // The library reads some of the files at once: then its error shows that it was given
            // the option.
            match Settings::new(&values, false) {
                Ok(settings) => assert_eq!(settings.given.len(), 1),
                Err(mistake) => assert!(takes_files && mistake.option == name, "{mistake}"),
            }
        }
    }

    #[test]
    fn only_options_that_are_given_have_values() {
        let values = file("locks-max = 7\nlisten = ['lockd://[::1]:1']\nhttp = []\nno-dump = false");
        let given = Settings::new(&values, false).unwrap().given;
        let expected = [("listen", "[\"lockd://[::1]:1\"]"), ("locks-max", "7"), ("no-dump", "false")];
        assert!(given.iter().map(|(name, value)| (&**name, &**value)).eq(expected), "{given:?}");
    }

    #[test]
    fn a_path_need_not_be_utf8() {
        let path = PathBuf::from(OsStr::from_bytes(b"/tmp/\xff"));
        let options = ServeOptions { state_dir: Some(path.clone()), ..ServeOptions::default() };
        assert_eq!(Settings::new(&options.values(), false).unwrap().state_dir, Some(path));
    }
}
