//! The command line.

use clap::Parser as _;

fn main() -> std::process::ExitCode {
    match tidegate::cli::Command::parse().run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("tidegate: {message}");
            std::process::ExitCode::FAILURE
        }
    }
}
