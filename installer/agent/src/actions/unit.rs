//! systemd units.

use super::Work;
use crate::agent::Agent;
use crate::child::{Children, Job};
use crate::error::{AgentError, Result};
use crate::host::Host;
use landfall_core::action::Undo;
use landfall_core::observe::Observation;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Seconds in which a unit must stop by itself before it is killed.
const STOP_S: u64 = 3;

/// What systemd says about a unit.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct UnitState {
    /// `loaded`, `not-found`, …
    pub load: String,
    /// `active`, `inactive`, `failed`, …
    pub active: String,
    /// `enabled`, `disabled`, …
    pub file: String,
    /// Whether its file changed since systemd read it.
    pub needs_reload: bool,
    /// How often systemd has started it again by itself.
    pub restarts: u32,
    /// When it became active, since the boot.
    pub active_since: Duration,
}

impl UnitState {
    /// Says whether the unit runs or is about to.
    pub fn is_active(&self) -> bool {
        matches!(self.active.as_str(), "active" | "activating" | "reloading")
    }
    /// Says whether it starts at a boot.
    pub fn is_enabled(&self) -> bool {
        self.file == "enabled"
    }
}

/// Asks systemd about units, in one call.
pub fn states(children: &Children, host: &Host, names: &[&str]) -> Result<BTreeMap<String, UnitState>> {
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let mut argv = vec![
        "systemctl",
        "show",
        "--property=Id,LoadState,ActiveState,UnitFileState,NeedDaemonReload,NRestarts,ActiveEnterTimestampMonotonic",
        "--",
    ];
    argv.extend(names);
    let text = children.run(host, Job::quick(&argv, 30))?.text();
    // systemd answers one block per name asked, in order; an alias answers with another Id.
    let blocks = text.split("\n\n").map(|block| {
        let mut state = UnitState::default();
        for (key, value) in block.lines().filter_map(|l| l.split_once('=')) {
            match key {
                "LoadState" => state.load = value.to_owned(),
                "ActiveState" => state.active = value.to_owned(),
                "UnitFileState" => state.file = value.to_owned(),
                "NeedDaemonReload" => state.needs_reload = value == "yes",
                "NRestarts" => state.restarts = value.parse().unwrap_or(0),
                "ActiveEnterTimestampMonotonic" => {
                    state.active_since = Duration::from_micros(value.parse().unwrap_or(0));
                }
                _ => {}
            }
        }
        state
    });
    Ok(names.iter().map(|n| (*n).to_owned()).zip(blocks).collect())
}

fn state(agent: &Agent, name: &str) -> Result<UnitState> {
    Ok(states(&agent.children, &agent.host, &[name])?
        .remove(name)
        .unwrap_or_default())
}

/// Says whether a unit is enabled and, if wanted, active.
pub fn is_up(agent: &Agent, name: &str, start: bool) -> Result<bool> {
    let state = state(agent, name)?;
    Ok(state.is_enabled() && (!start || state.active == "active"))
}

/// Looks at a unit.
pub fn observe(agent: &Agent, name: &str) -> Result<Observation> {
    let state = state(agent, name)?;
    Ok(Observation::Unit {
        enabled: state.is_enabled(),
        active: state.active == "active",
    })
}

/// Returns how a unit is put back.
pub fn undo_for(agent: &Agent, name: &str) -> Result<Undo> {
    let state = state(agent, name)?;
    Ok(Undo::RestoreUnit {
        name: name.to_owned(),
        was_enabled: state.is_enabled(),
        was_active: state.is_active(),
    })
}

/// Enables a unit and, if wanted, starts it; one that runs already is restarted in any case, because something it reads has changed.
/// Blocks until systemd says that it is up.
pub fn bring_up(work: &Work, name: &str, start: bool) -> Result<()> {
    let run = |argv: &[&str]| {
        let job = Job {
            deadline: work.deadline,
            ..Job::quick(argv, 0)
        };
        work.agent.children.run(&work.agent.host, job)
    };
    let before = state(work.agent, name)?;
    if before.load == "not-found" || before.needs_reload {
        run(&["systemctl", "daemon-reload"])?;
    }
    if !before.is_enabled() {
        run(&["systemctl", "--quiet", "enable", "--", name])?;
    }
    if start || before.is_active() {
        let started = run(&["systemctl", "restart", "--", name]);
        return started
            .map(|_| ())
            .map_err(|error| explain_failed_start(work.agent, name, error));
    }
    Ok(())
}

fn explain_failed_start(agent: &Agent, name: &str, error: AgentError) -> AgentError {
    let journal = ["journalctl", "--no-pager", "--output=cat", "--lines=15", "--unit", name];
    let lines = agent
        .children
        .run(&agent.host, Job::quick(&journal, 10))
        .map(|o| o.tail)
        .unwrap_or_default();
    match error {
        AgentError::Program {
            program,
            status,
            mut tail,
        } => {
            tail.extend(lines);
            AgentError::Program { program, status, tail }
        }
        other => other,
    }
}

/// How units are stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopHow {
    /// They may end by themselves, [`STOP_S`] seconds long, because they clean up after themselves.
    Gently,
    /// They are killed at once: what they leave is removed afterwards.
    AtOnce,
}

/// Stops units and waits until nothing of them is left. Ones that do not exist are fine. Blocks some seconds at most.
pub fn stop(agent: &Agent, names: &[&str], how: StopHow) -> Result<()> {
    let states = states(&agent.children, &agent.host, names)?;
    let there: Vec<&str> = names
        .iter()
        .copied()
        .filter(|n| states.get(*n).is_some_and(|s| s.load != "not-found"))
        .collect();
    let running: Vec<&str> = there
        .iter()
        .copied()
        .filter(|n| states.get(*n).is_some_and(|s| s.active != "inactive"))
        .collect();
    let systemctl = |verb: &[&str], units: &[&str], seconds: u64| {
        let argv: Vec<&str> = ["systemctl"]
            .iter()
            .chain(verb)
            .chain(&["--"])
            .chain(units)
            .copied()
            .collect();
        agent
            .children
            .run_any(&agent.host, Job::quick(&argv, seconds))
            .map(|_| ())
    };
    if !running.is_empty() {
        // The stop job comes first: a unit that is merely killed would be restarted.
        systemctl(&["stop", "--no-block"], &running, 10)?;
        let deadline = Instant::now() + Duration::from_secs(if how == StopHow::AtOnce { 0 } else { STOP_S });
        while Instant::now() < deadline && any_active(agent, &running)? {
            agent.children.sleep(Duration::from_millis(50))?;
        }
        if any_active(agent, &running)? {
            systemctl(&["kill", "--signal=SIGKILL"], &running, 10)?;
            systemctl(&["stop"], &running, 20)?;
        }
    }
    if there.is_empty() {
        Ok(())
    } else {
        systemctl(&["reset-failed"], &there, 10)
    }
}

fn any_active(agent: &Agent, names: &[&str]) -> Result<bool> {
    let states = states(&agent.children, &agent.host, names)?;
    Ok(states
        .values()
        .any(|s| !matches!(s.active.as_str(), "inactive" | "failed")))
}

/// Puts a unit back that was not active: stops it, and disables it when it was not enabled. A unit whose file is gone has nothing to put
/// back but its links.
pub fn restore_stopped(agent: &Agent, name: &str, was_enabled: bool) -> Result<()> {
    stop(agent, &[name], StopHow::Gently)?;
    disable(agent, name, was_enabled, &state(agent, name)?)
}

/// Puts a unit back that was active, after the files that it reads: systemd reads its file again, and it is enabled as it was and starts
/// anew, so that it runs with what was restored. A unit whose file is gone is left alone.
pub fn restore_running(agent: &Agent, name: &str, was_enabled: bool) -> Result<()> {
    agent
        .children
        .run(&agent.host, Job::quick(&["systemctl", "daemon-reload"], 60))?;
    let now = state(agent, name)?;
    disable(agent, name, was_enabled, &now)?;
    if now.load == "loaded" {
        if was_enabled && now.file == "disabled" {
            let argv = ["systemctl", "--quiet", "enable", "--", name];
            agent.children.run(&agent.host, Job::quick(&argv, 30))?;
        }
        agent
            .children
            .run(&agent.host, Job::quick(&["systemctl", "restart", "--", name], 60))
            .map_err(|error| explain_failed_start(agent, name, error))?;
    }
    Ok(())
}

fn disable(agent: &Agent, name: &str, was_enabled: bool, now: &UnitState) -> Result<()> {
    if was_enabled || now.file == "disabled" || now.load == "not-found" {
        return Ok(());
    }
    let argv = ["systemctl", "--quiet", "disable", "--", name];
    agent.children.run(&agent.host, Job::quick(&argv, 30)).map(|_| ())
}
