//! Peak memory of landfall on the operator's machine.
//!
//! The kernel keeps the peak itself (`VmHWM` of `/proc/PID/status`); it is read five times a second from the host, until the process
//! is gone. What it grows in its last fifth of a second is missed.

use anyhow::{Context, Result, ensure};
use landfall_lab::Lab;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// Does `work`, and returns with its result the peak of resident memory in KiB of the landfall that ran meanwhile.
pub fn peak_during<T>(lab: &Lab, work: impl FnOnce() -> Result<T>) -> Result<(T, u64)> {
    let container = container_of(lab)?;
    let ended = AtomicBool::new(false);
    let (worked, peak) = thread::scope(|scope| {
        let watch = scope.spawn(|| watch(&container, &ended));
        let worked = work();
        ended.store(true, Ordering::Relaxed);
        (worked, watch.join())
    });
    let peak = peak.map_err(|_| anyhow::anyhow!("the look at landfall's memory broke off"))?;
    let worked = worked?;
    ensure!(peak > 0, "landfall's memory was never seen");
    Ok((worked, peak))
}

/// The operator's container as the control groups of its processes name it.
fn container_of(lab: &Lab) -> Result<String> {
    let groups = PathBuf::from(format!("/proc/{}/cgroup", lab.pid(lab.machine("operator")?)?));
    let text = fs::read_to_string(&groups).with_context(|| format!("{} cannot be read", groups.display()))?;
    let mut names = text.split(['/', '\n']);
    let found = names.find(|name| name.starts_with("libpod-"));
    Ok(found
        .context("the operator's machine is in no control group")?
        .to_owned())
}

fn watch(container: &str, ended: &AtomicBool) -> u64 {
    let (mut peak, mut process) = (0, None);
    while !ended.load(Ordering::Relaxed) {
        process = process.or_else(|| find(container));
        match process.as_deref().and_then(high_water) {
            Some(kib) => peak = peak.max(kib),
            None => process = None,
        }
        thread::sleep(Duration::from_millis(200));
    }
    peak
}

/// Finds landfall's folder below `/proc`; nodes run landfall too, so the container counts.
fn find(container: &str) -> Option<PathBuf> {
    let folders = fs::read_dir("/proc").ok()?.filter_map(Result::ok).map(|e| e.path());
    let text = |folder: &Path, file: &str| fs::read_to_string(folder.join(file)).unwrap_or_default();
    folders
        .filter(|folder| text(folder, "comm").trim_end() == "landfall")
        .find(|folder| text(folder, "cgroup").contains(container))
}

/// Reads the peak in KiB; none when the process is gone.
fn high_water(folder: &Path) -> Option<u64> {
    let status = fs::read_to_string(folder.join("status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim_end().parse().ok()
}
