//! What a program under test must not inherit from the environment of the tests.

use std::process::Command;

/// Variables, besides lockd's own, that change its behaviour: the log's level and format, and a
/// service manager that expects notifications.
const OTHERS: [&str; 3] = ["RUST_LOG", "JOURNAL_STREAM", "NOTIFY_SOCKET"];

/// Removes from the program's environment what would change its behaviour.
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
