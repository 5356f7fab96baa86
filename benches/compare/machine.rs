//! The machine on which the figures were measured, and the date.

use std::fs;
use std::process::Command;

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// The machine, the date, and the versions of what was measured.
pub(crate) fn describe() -> String {
    let cpu_info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu_info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = output("uname", &["-sr"]).unwrap_or_default();
    let virtual_machine = if cpu_info.contains(" hypervisor ") { ", a virtual machine" } else { "" };
    let date = output("date", &["-u", "+%Y-%m-%d"]).unwrap_or_default();
    let commit = output("git", &["describe", "--always", "--tags"]).unwrap_or_default();
    let others = [("redis-server", "--version"), ("memcached", "--version"), ("psql", "--version")];
    let mut versions = vec![format!("lockd {} ({commit})", env!("CARGO_PKG_VERSION"))];
    for (program, argument) in others {
        versions.extend(output(program, &[argument]).and_then(|text| Some(text.lines().next()?.to_owned())));
    }
    format!(
        "Measured on {date}: {cores} cores of an {model}{virtual_machine}, {kernel}.\n\n- {}",
        versions.join("\n- ")
    )
}
