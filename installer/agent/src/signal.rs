//! The end of a long-running service: SIGTERM or SIGINT, and telling systemd that a service is up.

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Sleeps until the process is asked to end.
pub fn wait_for_end() -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    signals.forever().next();
    Ok(())
}

/// Tells systemd that the service is up, when it is a `Type=notify` unit.
pub fn notify_ready() {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let Ok(socket) = UnixDatagram::unbound() else { return };
    let text = path.to_string_lossy().into_owned();
    let address = match text.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&text),
    };
    // systemd notices by its own time-out when this does not arrive.
    if let Ok(address) = address {
        let _ = socket.send_to_addr(b"READY=1", &address);
    }
}
