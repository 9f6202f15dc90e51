//! The program: parse the command line, call the library, set the exit code.

use std::process::ExitCode;

use clap::Parser;
use pawl::cli::Cli;
use pawl::commands;

/// A third faster than glibc's on the record path, and it gives memory back.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match commands::execute(&Cli::parse().command) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("pawl: {failure}");
            failure.exit.into()
        }
    }
}
