//! A process that outlives the command which started it, with those that it made: known by its number and birth, so that a later one of the same number is not taken
//! for it.

use crate::host::{run, sudo};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Starts `script` as the leader of a process group by `setsid`, a command that is not started yet, and writes its number and birth to `note`. Output goes to
/// `log`.
pub(super) fn start(mut setsid: Command, script: &str, note: &Path, log: &Path) -> Result<()> {
    let began = note.with_extension("began");
    let line = format!(
        "exec < /dev/null >> '{}' 2>&1; echo $$ > '{}'; exec {script}",
        log.display(),
        began.display()
    );
    run(setsid.args(["--fork", "sh", "-c", &line]))?;
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        let number: Option<u32> = fs::read_to_string(&began)
            .ok()
            .and_then(|text| text.trim().parse().ok());
        if let Some(number) = number {
            let birth = birth(number).context("the process ended at once")?;
            fs::remove_file(&began).with_context(|| format!("{} cannot be removed", began.display()))?;
            return fs::write(note, format!("{number} {birth}"))
                .with_context(|| format!("{} cannot be written", note.display()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("the process has not started within 10 s")
}

/// Returns the number of the process that a note names, if it runs.
pub(super) fn running(note: &Path) -> Option<u32> {
    let text = fs::read_to_string(note).ok()?;
    let (number, born) = text.trim().split_once(' ')?;
    let number: u32 = number.parse().ok()?;
    (birth(number)? == born).then_some(number)
}

/// Ends the process that a note names at once, with its whole process group. Blocks until it is gone.
pub(super) fn kill(note: &Path) -> Result<()> {
    let Some(number) = running(note) else {
        return Ok(());
    };
    sudo("kill", &["-KILL", "--", &format!("-{number}")])?;
    let end = Instant::now() + Duration::from_secs(30);
    // Each process of the group may hold the disk's lock.
    while group_lives(number)? {
        if Instant::now() > end {
            bail!("the process group {number} is still there 30 s after SIGKILL");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Says whether a process group still has a process that has not ended.
fn group_lives(group: u32) -> Result<bool> {
    for entry in fs::read_dir("/proc").context("/proc cannot be read")? {
        let name = entry?.file_name();
        let stat = name.to_str().filter(|name| name.bytes().all(|b| b.is_ascii_digit()));
        let stat = stat.and_then(|number| fs::read_to_string(format!("/proc/{number}/stat")).ok());
        // State, parent and process group follow the name (proc(5)).
        let fields = stat
            .as_deref()
            .and_then(|stat| stat.rsplit_once(") "))
            .map(|(_, rest)| rest);
        let mut fields = fields.unwrap_or_default().split(' ');
        let (state, of) = (fields.next(), fields.nth(1));
        if of.is_some_and(|of| of == group.to_string()) && state != Some("Z") {
            return Ok(true);
        }
    }
    Ok(false)
}

/// When a process began, in ticks since the host's boot (proc(5), field 22 of stat). A zombie has ended.
fn birth(number: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{number}/stat")).ok()?;
    // The name, in brackets, may hold anything.
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    let ended = fields.next()? == "Z";
    (!ended).then(|| fields.nth(18).map(str::to_owned))?
}
