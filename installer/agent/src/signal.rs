//! The end of a long-running service: SIGTERM or SIGINT, and telling systemd that a service is up.

use sd_notify::NotifyState;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io;

/// Sleeps until the process is asked to end.
pub fn wait_for_end() -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    signals.forever().next();
    Ok(())
}

/// Tells systemd that the service is up, when it is a `Type=notify` unit.
pub fn notify_ready() {
    // systemd notices by its own time-out when this does not arrive.
    let _ = sd_notify::notify(&[NotifyState::Ready]);
}
