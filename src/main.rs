//! The `tidegate` program. Everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    tidegate::cli::main()
}
