//! Checks for programs that a test needs and that may not be installed.

use std::io::Write;
use std::path::Path;

/// Set by `cargo xtask test`, which installs what proofs need: there nothing may be skipped.
const NO_SKIPS: &str = "LANDFALL_NO_SKIPS";

/// Whether the programs of these Debian packages are there. If not, the proof is to be skipped: a line says so, past the test runner, which
/// would keep it to itself. Panics where nothing may be skipped.
pub fn installed<P: AsRef<Path>>(proof: &str, programs: &[P]) -> bool {
    let missing = programs.iter().map(AsRef::as_ref).find(|program| !program.exists());
    let Some(missing) = missing else { return true };
    let text = format!(
        "{proof} needs {}; cargo xtask test installs its package",
        missing.display()
    );
    assert!(std::env::var_os(NO_SKIPS).is_none(), "{text}");
    // A failure only loses the message, so it is ignored.
    let _ = std::io::stdout().write_all(format!("\nskipped: {text}\n").as_bytes());
    false
}
