//! What tests of several rooms need: the built programs, conditions that are awaited, a look at processes.
pub mod haystack;
pub mod hold;
pub mod process;
pub mod tmpfs;

use mainstay::clock;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest that any condition is waited for. Reached only when it will never hold: a loaded machine is slow.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The product.
pub fn mainstay() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_mainstay"))
}

/// The fake engine, an example of this package: `cargo test` builds it, `cargo test --test it` alone does not.
pub fn fake_engine() -> PathBuf {
    let profile = mainstay().parent().expect("a program lies in a directory");
    let path = profile.join("examples/fake_engine");
    assert!(path.exists(), "build it first: cargo build --example fake_engine");
    path
}

/// The fake driver library, an example of this package like the fake engine.
pub fn fake_nvml() -> PathBuf {
    let profile = mainstay().parent().expect("a program lies in a directory");
    let path = profile.join("examples/libfake_nvml.so");
    assert!(path.exists(), "build it first: cargo build --example fake_nvml");
    path
}

/// Waits until `condition` gives something. The pause between two looks is no part of what is tested.
#[track_caller]
pub fn until<T>(what: &str, condition: impl FnMut() -> Option<T>) -> T {
    until_some(PATIENCE, condition).unwrap_or_else(|| panic!("waited too long: {what}"))
}

/// The same for `patience`, for a caller that has more to say when it never comes.
pub fn until_some<T>(patience: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = clock::now();
    loop {
        if let Some(it) = condition() {
            return Some(it);
        } else if clock::now().since(begun) >= patience {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
