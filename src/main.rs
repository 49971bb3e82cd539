//! The `tidegate` program. Everything is in the library.

use std::process::ExitCode;

/// Of the allocators that were measured the one that gives back what ended streams have held: half
/// of it within seconds, where the others keep all. Without huge pages, which round every thread's
/// memory up.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tidegate::cli::main()
}
