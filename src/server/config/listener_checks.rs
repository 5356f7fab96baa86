//! Whether listeners can be served as they are configured, and what the log says about listeners
//! that other machines can reach. Knows the configuration alone.

use super::Config;
use super::listen::{Listen, Protocol};
use super::parse_origin;
use crate::os::tls::ServerTls;
use crate::wire::websocket;

impl Config {
    /// Whether all listeners can be served as they are configured.
    ///
    /// # Errors
    /// If a listener needs TLS and there is no certificate, or needs WebSocket and this build has
    /// none. If there is a secret, and another machine could get around it by a text protocol, in
    /// which a secret cannot be sent. If one of the WebSocket origins is not an origin.
    pub fn check(&self) -> Result<(), String> {
        self.listen.iter().try_for_each(|listen| self.check_listener(listen))?;
        let mut origins = self.ws_origins.iter();
        origins.try_for_each(|origin| {
            parse_origin(origin).map(drop).map_err(|error| format!("ws-origin: {error}"))
        })
    }

    /// Whether this listener can be served as it is configured.
    ///
    /// # Errors
    /// The reason why not.
    pub(in crate::server) fn check_listener(&self, listen: &Listen) -> Result<(), String> {
        if listen.tls && self.tls.is_none() {
            return Err(format!("{listen}: TLS takes a certificate and its key (tls-cert, tls-key)"));
        }
        if listen.websocket && !websocket::IS_PRESENT {
            return Err(format!("{listen}: this lockd was built without WebSocket"));
        }
        let certified = self.tls.as_ref().is_some_and(ServerTls::asks_for_certificates);
        let shows_no_secret = listen.protocol != Protocol::Message && !(listen.tls && certified);
        if self.auth_token.is_some() && shows_no_secret && listen.is_beyond_loopback() {
            return Err(format!(
                "{listen}: there is a secret (auth-token-file), and a text protocol cannot show that it knows it: \
                 listen on the loopback interface or a Unix socket, or in TLS with client certificates \
                 (tls-client-ca)"
            ));
        }
        Ok(())
    }

    /// The warnings that a start with this configuration would log, for a check without a start.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let exposures = self.listen.iter().filter_map(|listen| self.exposure(listen));
        let warnings = exposures.filter(|(level, _)| *level == log::Level::Warn).map(|(_, words)| words);
        warnings.chain(self.objection(&self.listen)).collect()
    }

    /// Logs what it means that other machines can reach this listener.
    pub(in crate::server) fn log_exposure(&self, listen: &Listen) {
        if let Some((level, words)) = self.exposure(listen) {
            log::log!(level, "{words}");
        }
    }

    fn exposure(&self, listen: &Listen) -> Option<(log::Level, String)> {
        if !listen.is_beyond_loopback() {
            return None;
        }
        let own = Self::loopback();
        if self.allow.iter().all(|net| own.iter().any(|own| own.contains(net))) {
            let words = format!("{listen}: only this machine may connect, until --allow lets others in");
            return Some((log::Level::Info, words));
        }
        let certified = listen.tls && self.tls.as_ref().is_some_and(ServerTls::asks_for_certificates);
        let known = certified || listen.protocol == Protocol::Message && self.auth_token.is_some();
        let may = "every client on the access list";
        let words = match (listen.tls, known) {
            (true, true) => return None,
            (true, false) => format!(
                "{listen}: {may} may take any lock: there are neither a secret nor client certificates"
            ),
            (false, true) => format!("{listen}: the secret crosses the network unencrypted: there is no TLS"),
            (false, false) => format!(
                "{listen}: {may} may take any lock, and others on the network can read everything: there is neither TLS nor a secret"
            ),
        };
        Some((log::Level::Warn, words))
    }

    /// Warns of a certificate that clients will refuse, if any of these listeners uses it.
    pub(in crate::server) fn log_objection(&self, listeners: &[Listen]) {
        if let Some(words) = self.objection(listeners) {
            log::warn!("{words}");
        }
    }

    fn objection(&self, listeners: &[Listen]) -> Option<String> {
        let objection = self.tls.as_ref()?.objection()?;
        let is_shown = listeners.iter().any(|listen| listen.tls);
        is_shown.then(|| format!("clients will refuse this server's certificate: {objection}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::AuthToken;

    #[test]
    fn a_listener_that_cannot_be_served_as_configured_is_refused() {
        let secret = || Some(AuthToken::new("0123456789abcdef").unwrap());
        let check = |listen: &str, auth_token| {
            let listen = vec![listen.parse().unwrap()];
            Config { listen, auth_token, ..Config::default() }.check()
        };
        assert!(check("message+tls://127.0.0.1:0", None).unwrap_err().contains("tls-cert"));
        for listen in ["glockd://0.0.0.0:0", "lockd://[::]:0", "glockd://example.org:1"] {
            assert!(check(listen, secret()).unwrap_err().contains("auth-token-file"), "{listen}");
            assert_eq!(check(listen, None), Ok(()));
        }
        for listen in [
            "message://0.0.0.0:0",
            "glockd://127.0.0.9:0",
            "lockd://[::1]:0",
            "lockd://localhost:0",
            "glockd+unix:/x",
        ] {
            assert_eq!(check(listen, secret()), Ok(()), "{listen}");
        }
        for (origin, is_origin) in
            [("https://a.b:1", true), ("a.b", false), ("http://", false), ("http://a/", false)]
        {
            let config = Config { ws_origins: vec![origin.to_owned()], ..Config::default() };
            assert_eq!(config.check().is_ok(), is_origin, "{origin}");
        }
    }
}
