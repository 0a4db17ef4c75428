//! The command line.

use clap::Parser as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    tidegate::cli::Command::parse().run().unwrap_or_else(|message| {
        eprintln!("tidegate: {message}");
        ExitCode::FAILURE
    })
}
