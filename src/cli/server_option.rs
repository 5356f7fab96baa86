//! The option `--server`, which all commands share that are clients of a running server.

use clap::Args;
use lockd::client::ServerUrl;

/// `--server`, or `LOCKD_SERVER`.
#[derive(Args, Clone, Debug)]
pub(super) struct ServerOption {
    /// The server: tcp://HOST[:PORT], tls://HOST[:PORT] or unix:/PATH. The places of one server
    /// that may be at several: tcp://HOST[:PORT],HOST[:PORT]. Several servers: their addresses,
    /// separated by commas, each with its scheme
    #[arg(
        long = "server",
        value_name = "URL",
        env = "LOCKD_SERVER",
        default_value = "tcp://127.0.0.1:20934", value_parser = parse_urls
    )]
    pub(super) urls: String,
}

/// Checks the URLs and keeps their text: names are spread over several servers by the text of the
/// URLs, so every client must have exactly the same text.
fn parse_urls(text: &str) -> Result<String, String> {
    ServerUrl::parse_list(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}
