//! The command line.

use clap::Parser as _;

// hyper allocates and frees a few buffers for every request; docs/performance.md has the figures.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    match tidegate::cli::Command::parse().run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("tidegate: {message}");
            std::process::ExitCode::FAILURE
        }
    }
}
