//! The options of the server, with their types and help, and what they amount to. The same names everywhere:
//! `--locks-max`, `LOCKD_LOCKS_MAX`, `locks-max = …`; `sources` reads them from there. What their values mean is in
//! the library's table of options; only those that the program alone has are read here.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;
use clap::builder::BoolishValueParser;
use lockd::broker::Limits;
use lockd::server::{Config, OptionError, Options};
use lockd::wire::parse_port;
use log::LevelFilter;
use serde::{Deserialize, Serialize};

use super::privileges::Account;

/// Each option as it was given in one place; the command line goes before the environment, and that
/// before the file. The variables are named here for the help, and read by `sources`.
#[derive(Args, Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub(super) struct ServeOptions {
    /// Check the configuration and exit: read all options, files, certificates, keys and the secret as a start would,
    /// bind nothing and change nothing. Prints `ok` and exits with 0, after warnings that a start would log, or prints
    /// the mistake with its place and exits with 2
    #[arg(long)]
    #[serde(skip)]
    pub(super) check: bool,

    /// Read further options from this TOML file, by their long names
    #[arg(long, value_name = "FILE", env = "LOCKD_CONFIG")]
    #[serde(skip)]
    pub(super) config: Option<PathBuf>,

    /// Listen there: PROTOCOL://HOST:PORT or PROTOCOL+unix:PATH, with lockd, glockd or message as the
    /// protocol; PROTOCOL+tls://HOST:PORT in TLS, glockd+ws://HOST:PORT (or glockd+ws+tls) in WebSocket;
    /// may be given several times [default: lockd://127.0.0.1:2626, glockd://127.0.0.1:9999,
    /// message://127.0.0.1:20934]
    #[arg(long, value_name = "ADDRESS", env = "LOCKD_LISTEN", value_delimiter = ',')]
    listen: Vec<String>,

    /// Serve a page that shows the locks, figures for Prometheus and more over HTTP there: HOST:PORT, like
    /// 127.0.0.1:2627; may be given several times [default: nowhere]
    #[arg(long, value_name = "ADDRESS", env = "LOCKD_HTTP", value_delimiter = ',')]
    http: Vec<String>,

    /// Answer HTTP requests for this host name, too, beside the address itself and localhost; may be given
    /// several times
    #[arg(long, value_name = "NAME", env = "LOCKD_HTTP_HOST", value_delimiter = ',')]
    http_host: Vec<String>,

    /// Let these connect over TCP: an address or a network like 10.0.0.0/8; may be given several times
    /// [default: 127.0.0.0/8, ::1]
    #[arg(long, value_name = "IP|CIDR", env = "LOCKD_ALLOW", value_delimiter = ',')]
    allow: Vec<String>,

    /// File mode of Unix sockets, in octal [default: 0600]
    #[arg(long, value_name = "MODE", env = "LOCKD_UNIX_MODE")]
    unix_mode: Option<String>,

    /// After how many seconds without a sign of life a peer's host counts as gone, 12 to 32767 [default: 25]
    #[arg(long, value_name = "SECONDS", env = "LOCKD_DEAD_PEER_TIMEOUT")]
    dead_peer_timeout: Option<u64>,

    /// Connections open at once [default: 10000]
    #[arg(long, value_name = "N", env = "LOCKD_CONNECTIONS_MAX")]
    connections_max: Option<usize>,

    /// Locks held in all [default: 10000000]
    #[arg(long, value_name = "N", env = "LOCKD_LOCKS_MAX")]
    locks_max: Option<usize>,

    /// Locks held by one connection [default: 1000000]
    #[arg(long, value_name = "N", env = "LOCKD_LOCKS_PER_CONNECTION_MAX")]
    locks_per_connection_max: Option<usize>,

    /// Names that one connection waits for at the same time [default: 10000]
    #[arg(long, value_name = "N", env = "LOCKD_WAITS_PER_CONNECTION_MAX")]
    waits_per_connection_max: Option<usize>,

    /// Longest name of a lock [default: 1024]
    #[arg(long, value_name = "BYTES", env = "LOCKD_NAME_MAX")]
    name_max: Option<usize>,

    /// Longest line of the text protocols [default: 4096]
    #[arg(long, value_name = "BYTES", env = "LOCKD_LINE_MAX")]
    line_max: Option<usize>,

    /// Longest message [default: 1048576]
    #[arg(long, value_name = "BYTES", env = "LOCKD_MESSAGE_MAX")]
    message_max: Option<usize>,

    /// What may be due to a client that does not read before it is cut off [default: 1048576]
    #[arg(long, value_name = "BYTES", env = "LOCKD_OUTBOX_MAX")]
    outbox_max: Option<usize>,

    /// Let nobody list who holds what (d, sd, dump, q full, who, list)
    #[arg(long, env = "LOCKD_NO_DUMP", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    no_dump: Option<bool>,

    /// Let nobody register a name (iam, who, identify)
    #[arg(long, env = "LOCKD_NO_REGISTRY", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    no_registry: Option<bool>,

    /// Let everybody who may connect end the connections of others (kick)
    #[arg(long, env = "LOCKD_ALLOW_KICK", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    allow_kick: Option<bool>,

    /// Let shared and exclusive locks of the text protocols exclude each other
    #[arg(long, env = "LOCKD_SHARED_EXCLUDES", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new())]
    shared_excludes: Option<bool>,

    /// How the threads of connections are scheduled: normal, or batch, which makes many busy connections
    /// cheaper and quicker on the whole, but some replies late by milliseconds while all processors are
    /// busy [default: normal]
    #[arg(long, value_name = "POLICY", env = "LOCKD_SCHEDULING")]
    scheduling: Option<String>,

    /// Keep in this directory what the next run must know: then fencing tokens rise from one run to the next
    /// whatever the clock says, and after a run that did not stop cleanly nothing is granted before its
    /// dead-peer timeout has passed
    #[arg(long, value_name = "DIRECTORY", env = "LOCKD_STATE_DIR")]
    state_dir: Option<PathBuf>,

    /// Write the process id to this file, and refuse to start while another process holds it
    #[arg(long, value_name = "FILE", env = "LOCKD_PIDFILE")]
    pidfile: Option<PathBuf>,

    /// Become this user once all addresses are bound
    #[arg(long, value_name = "NAME", env = "LOCKD_USER")]
    user: Option<String>,

    /// The server's certificate, in PEM, with those between it and the root behind it: for listeners in TLS,
    /// PROTOCOL+tls://HOST:PORT. Read again at SIGHUP, for new connections
    #[arg(long, value_name = "FILE", env = "LOCKD_TLS_CERT")]
    tls_cert: Option<PathBuf>,

    /// The key to it, in PEM
    #[arg(long, value_name = "FILE", env = "LOCKD_TLS_KEY")]
    tls_key: Option<PathBuf>,

    /// Let only those connect by TLS who show a certificate signed by one of these, in PEM
    #[arg(long, value_name = "FILE", env = "LOCKD_TLS_CLIENT_CA")]
    tls_client_ca: Option<PathBuf>,

    /// Ask clients that speak message over TCP for the secret in this file, of 16 bytes or more. Text protocols
    /// have no place for it: with a secret, their listeners must be out of reach for other machines, or ask
    /// for client certificates
    #[arg(long, value_name = "FILE", env = "LOCKD_AUTH_TOKEN_FILE")]
    auth_token_file: Option<PathBuf>,

    /// Let pages of this origin, like https://example.org, connect to WebSockets, beside those of this host;
    /// may be given several times. The names of these hosts are also names of this server
    #[arg(long, value_name = "ORIGIN", env = "LOCKD_WS_ORIGIN", value_delimiter = ',')]
    ws_origin: Vec<String>,

    /// How much to log: off, error, warn, info, debug or trace [default: info]
    #[arg(long, value_name = "LEVEL", env = "LOCKD_LOG_LEVEL")]
    log_level: Option<String>,
}

/// What all the options amount to.
#[derive(Debug)]
pub(super) struct Settings {
    /// The options that were given anywhere, as JSON, by their names.
    pub(super) given: BTreeMap<String, String>,
    pub(super) config: Config,
    /// Whether nobody has said where to listen.
    pub(super) listens_by_default: bool,
    pub(super) limits: Limits,
    pub(super) http: Vec<String>,
    pub(super) http_hosts: Vec<String>,
    pub(super) state_dir: Option<PathBuf>,
    pub(super) pidfile: Option<PathBuf>,
    /// Of the user to become. Found for the whole of the options only.
    pub(super) account: Option<Account>,
    pub(super) log_level: LevelFilter,
}

impl ServeOptions {
    /// The options that are given here, as JSON, by their names.
    pub(super) fn given(&self) -> BTreeMap<String, String> {
        // All of them are texts, numbers, and lists of texts, which can be written as JSON.
        let all = serde_json::to_value(self).unwrap_or_default();
        let is_given = |value: &serde_json::Value| {
            !value.is_null() && !value.as_array().is_some_and(|list| list.is_empty())
        };
        let all = all.as_object().into_iter().flatten();
        all.filter(|(_, value)| is_given(value))
            .map(|(name, value)| (name.clone(), value.to_string()))
            .collect()
    }

    /// These options, and those of `file` that are not given here.
    pub(super) fn over(self, file: Self) -> Self {
        let either = |own: Vec<String>, other| if own.is_empty() { other } else { own };
        Self {
            check: self.check,
            config: self.config.or(file.config),
            listen: either(self.listen, file.listen),
            http: either(self.http, file.http),
            http_host: either(self.http_host, file.http_host),
            allow: either(self.allow, file.allow),
            unix_mode: self.unix_mode.or(file.unix_mode),
            dead_peer_timeout: self.dead_peer_timeout.or(file.dead_peer_timeout),
            connections_max: self.connections_max.or(file.connections_max),
            locks_max: self.locks_max.or(file.locks_max),
            locks_per_connection_max: self.locks_per_connection_max.or(file.locks_per_connection_max),
            waits_per_connection_max: self.waits_per_connection_max.or(file.waits_per_connection_max),
            name_max: self.name_max.or(file.name_max),
            line_max: self.line_max.or(file.line_max),
            message_max: self.message_max.or(file.message_max),
            outbox_max: self.outbox_max.or(file.outbox_max),
            no_dump: self.no_dump.or(file.no_dump),
            no_registry: self.no_registry.or(file.no_registry),
            allow_kick: self.allow_kick.or(file.allow_kick),
            shared_excludes: self.shared_excludes.or(file.shared_excludes),
            scheduling: self.scheduling.or(file.scheduling),
            state_dir: self.state_dir.or(file.state_dir),
            pidfile: self.pidfile.or(file.pidfile),
            user: self.user.or(file.user),
            tls_cert: self.tls_cert.or(file.tls_cert),
            tls_key: self.tls_key.or(file.tls_key),
            tls_client_ca: self.tls_client_ca.or(file.tls_client_ca),
            auth_token_file: self.auth_token_file.or(file.auth_token_file),
            ws_origin: either(self.ws_origin, file.ws_origin),
            log_level: self.log_level.or(file.log_level),
        }
    }

    /// What the options amount to. Unless they are the `whole`, each is only checked by itself.
    ///
    /// # Errors
    /// The first mistake that is found.
    pub(super) fn settings(self, whole: bool) -> Result<Settings, OptionError> {
        let given = self.given();
        let options = self.for_library()?;
        let config = if whole { options.config()? } else { Config::default() };
        let http = each("http", &self.http, host_and_port)?;
        let http_hosts = each("http-host", &self.http_host, host_name)?;
        let log_level = each("log-level", self.log_level.as_slice(), log_level)?;
        if self.pidfile.as_ref().is_some_and(|path| path.as_os_str().is_empty()) {
            return Err(mistake("pidfile", "it is empty".to_owned()));
        }
        if self.user.as_ref().is_some_and(String::is_empty) {
            return Err(mistake("user", "it is empty".to_owned()));
        }
        let find = |name: &String| Account::find(name).map_err(|error| mistake("user", error.to_string()));
        let account = self.user.as_ref().filter(|_| whole).map(find).transpose()?;
        let base = Limits { locks_max: 10_000_000, locks_per_session_max: 1_000_000, ..Limits::default() };
        Ok(Settings {
            given,
            config,
            listens_by_default: !options.is_given("listen"),
            limits: options.limits(base),
            http,
            http_hosts,
            state_dir: self.state_dir,
            pidfile: self.pidfile,
            account,
            log_level: log_level.first().copied().unwrap_or(LevelFilter::Info),
        })
    }

    /// All of these options that servers in other programs have too.
    fn for_library(&self) -> Result<Options, OptionError> {
        fn text(value: Option<impl ToString>) -> Option<String> {
            value.map(|value| value.to_string())
        }
        let mut options = Options::default();
        options.set_each("listen", &self.listen)?;
        options.set_each("allow", &self.allow)?;
        options.set_each("ws-origin", &self.ws_origin)?;
        options.set_each("unix-mode", &self.unix_mode)?;
        options.set_each("dead-peer-timeout", text(self.dead_peer_timeout))?;
        options.set_each("connections-max", text(self.connections_max))?;
        options.set_each("locks-max", text(self.locks_max))?;
        options.set_each("locks-per-connection-max", text(self.locks_per_connection_max))?;
        options.set_each("waits-per-connection-max", text(self.waits_per_connection_max))?;
        options.set_each("name-max", text(self.name_max))?;
        options.set_each("line-max", text(self.line_max))?;
        options.set_each("message-max", text(self.message_max))?;
        options.set_each("outbox-max", text(self.outbox_max))?;
        options.set_each("no-dump", text(self.no_dump))?;
        options.set_each("no-registry", text(self.no_registry))?;
        options.set_each("allow-kick", text(self.allow_kick))?;
        options.set_each("shared-excludes", text(self.shared_excludes))?;
        options.set_each("scheduling", &self.scheduling)?;
        options.set_each("state-dir", &self.state_dir)?;
        options.set_each("tls-cert", &self.tls_cert)?;
        options.set_each("tls-key", &self.tls_key)?;
        options.set_each("tls-client-ca", &self.tls_client_ca)?;
        options.set_each("auth-token-file", &self.auth_token_file)?;
        Ok(options)
    }
}

fn mistake(option: &str, problem: String) -> OptionError {
    OptionError { option: option.to_owned(), problem }
}

fn each<T>(
    option: &str,
    texts: &[String],
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, OptionError> {
    texts.iter().map(|text| parse(text).map_err(|problem| mistake(option, problem))).collect()
}

fn log_level(text: &str) -> Result<LevelFilter, String> {
    let level = text.parse();
    level.map_err(|_| format!("{text:?} is no level: there are off, error, warn, info, debug and trace"))
}

/// As it stands in a request, but for the port, which does not matter.
fn host_name(text: &str) -> Result<String, String> {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let is_name = !text.is_empty() && text.bytes().all(is_part) || text.parse::<IpAddr>().is_ok();
    is_name.then(|| text.to_owned()).ok_or_else(|| format!("{text:?} is no host name without a port"))
}

fn host_and_port(text: &str) -> Result<String, String> {
    let is_one = |(host, port): (&str, &str)| !host.is_empty() && parse_port(port).is_some();
    match text.rsplit_once(':') {
        // An IPv6 address is in brackets, as it is wherever a port follows it.
        Some(parts) if is_one(parts) && (!parts.0.contains(':') || parts.0.starts_with('[')) => {
            Ok(text.to_owned())
        }
        _ => Err(format!("{text:?} is not HOST:PORT")),
    }
}

#[cfg(test)]
mod tests {
    use clap::{Command, FromArgMatches};
    use lockd::server::{Scheduling, parse_allow};

    use super::*;

    fn file(text: &str) -> ServeOptions {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn what_is_given_goes_before_the_file_and_the_file_before_the_defaults() {
        let given =
            ServeOptions { name_max: Some(7), allow: vec!["10.0.0.0/8".into()], ..ServeOptions::default() };
        let file = file(
            "name-max = 8\nline-max = 9\nallow = ['1.2.3.4']\nlisten = ['lockd://[::1]:1']\nno-dump = true\nscheduling = 'batch'",
        );
        let settings = given.over(file).settings(true).unwrap();
        assert_eq!(settings.limits.name_bytes_max, 7);
        assert_eq!(settings.config.line_bytes_max, 9);
        assert_eq!(settings.config.message_bytes_max, 1 << 20);
        assert_eq!(settings.config.allow, [parse_allow("10.0.0.0/8").unwrap()]);
        assert_eq!(settings.config.listen.len(), 1);
        assert_eq!(settings.config.scheduling, Scheduling::Batch);
        assert!(!settings.config.dump && settings.config.registry);
    }

    #[test]
    fn values_that_make_no_sense_are_named() {
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
            ("state-dir = ''", "state-dir", "empty"),
            ("user = ''", "user", "empty"),
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
            let mistake = file(text).settings(true).unwrap_err();
            assert!(mistake.option == option && mistake.problem.contains(problem), "{text}: {mistake:?}");
        }
    }

    #[test]
    fn no_option_is_left_out_on_its_way_to_the_server() {
        let command = ServeOptions::augment_args(Command::new("lockd"));
        for name in Options::names().filter(|name| !Options::is_refused(name)) {
            let takes_files = ["auth-token-file", "tls-cert", "tls-key", "tls-client-ca"].contains(&name);
            let value = match name {
                "listen" => "lockd://[::1]:1",
                "allow" => "::1",
                "ws-origin" => "https://a",
                "scheduling" => "batch",
                name if name.starts_with("no-") || ["allow-kick", "shared-excludes"].contains(&name) => {
                    "true"
                }
                _ if takes_files => "/nonexistent",
                _ => "33",
            };
            let matches = command.clone().try_get_matches_from(["lockd", &format!("--{name}={value}")]);
            let options = ServeOptions::from_arg_matches(&matches.unwrap()).unwrap();
            match options.for_library() {
                Ok(options) => assert!(options.is_given(name), "{name}"),
                Err(mistake) => assert!(takes_files && mistake.option == name, "{mistake}"),
            }
        }
    }

    #[test]
    fn what_is_given_is_known_by_the_names_of_the_options() {
        let given = file("locks-max = 7\nlisten = ['lockd://[::1]:1']\nhttp = []\nno-dump = false").given();
        let expected = [("listen", "[\"lockd://[::1]:1\"]"), ("locks-max", "7"), ("no-dump", "false")];
        assert!(given.iter().map(|(name, value)| (&**name, &**value)).eq(expected), "{given:?}");
    }
}
