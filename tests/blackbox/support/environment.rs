//! What a program under test must not inherit from whoever runs the tests.

use std::process::Command;

/// Variables besides those of lockd that change what it does: the log's level and format, and a service manager
/// that wants to be told.
const OTHERS: [&str; 3] = ["RUST_LOG", "JOURNAL_STREAM", "NOTIFY_SOCKET"];

/// Keeps from the program what the environment of the tests would have it do.
pub(crate) fn without_options(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("LOCKD_") {
            command.env_remove(name);
        }
    }
    for name in OTHERS {
        command.env_remove(name);
    }
    command
}
