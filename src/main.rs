//! The `lockd` binary: parse, set up, run.

mod cli;
mod http;

fn main() -> std::process::ExitCode {
    cli::main()
}
