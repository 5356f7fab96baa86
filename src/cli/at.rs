//! Which server a command goes to: the option that all commands share which go to one that runs.

use clap::Args;
use lockd::client::ServerUrl;

/// `--server`, or `LOCKD_SERVER`.
#[derive(Args, Clone, Debug)]
pub(super) struct At {
    /// The server: tcp://HOST[:PORT], tls://HOST[:PORT] or unix:/PATH; or several of them, separated by commas
    #[arg(
        long = "server",
        value_name = "URL",
        env = "LOCKD_SERVER",
        default_value = "tcp://127.0.0.1:20934", value_parser = urls
    )]
    pub(super) urls: String,
}

/// As they are: they must be written alike for every client.
fn urls(text: &str) -> Result<String, String> {
    ServerUrl::parse_list(text).map_err(|error| error.to_string())?;
    Ok(text.to_owned())
}
