//! The program: reads the command line, calls one function, prints the error.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    consign::cli::main()
}
