//! The `mainstay` program: everything it does is in the library, and `cli` picks which part runs.
fn main() -> std::process::ExitCode {
    mainstay::cli::main()
}
