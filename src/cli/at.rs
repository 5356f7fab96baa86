//! Which server a command goes to: the option that all commands share which go to one that runs.

use clap::Args;

/// `--server`, or `LOCKD_SERVER`.
#[derive(Args, Clone, Debug)]
pub(super) struct At {
    /// The server: tcp://HOST, tcp://HOST:PORT or unix:/PATH; or several of them, separated by commas
    #[arg(
        long = "server",
        value_name = "URL",
        env = "LOCKD_SERVER",
        default_value = "tcp://127.0.0.1:20934"
    )]
    pub(super) urls: String,
}
