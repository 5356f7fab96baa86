//! The `lockd` binary: parse, set up, run.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
