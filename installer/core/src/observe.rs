//! The observed state of what a step changes, and the decision whether the step is satisfied or pending, with the reason. The agent observes;
//! only this module decides, for the plan and again before and after each step.

use crate::action::{Action, Content};
use crate::journal::{Entry, EntryState};
use crate::name::{Digest, StepId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The observed state of what one step changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Observation {
    /// Nothing can be observed; only the journal tells whether the step is done.
    Nothing,
    /// Whether a directory exists.
    Directory {
        /// Whether it exists.
        exists: bool,
    },
    /// A file or program.
    File {
        /// Permission bits; `None` when there is no file.
        mode: Option<u32>,
        /// Whether inode, size and change time are those that the step's record holds: then the content is that of the record.
        same_as_recorded: bool,
        /// SHA-256 of the content, where it had to be read.
        digest: Option<Digest>,
        /// Whether it holds the secret that was brought; `None` when none was.
        holds_secret: Option<bool>,
    },
    /// Whether a kubeconfig names the server that is to be replaced.
    Kubeconfig {
        /// Whether it does.
        names_server: bool,
    },
    /// Lines that /etc/hosts lacks.
    HostsLines {
        /// The lines.
        missing: Vec<String>,
    },
    /// Kernel settings that differ, with their value.
    Sysctls {
        /// Name and value; a setting that the kernel does not have has none.
        differing: Vec<(String, Option<String>)>,
    },
    /// Kernel features that are absent, by module.
    Features {
        /// Module names.
        absent: Vec<String>,
    },
    /// What of packet filters is not as wanted.
    Firewall {
        /// One line each.
        faults: Vec<String>,
    },
    /// A unit.
    Unit {
        /// Whether it starts at boot.
        enabled: bool,
        /// Whether it runs.
        active: bool,
    },
    /// Images that are absent, have another manifest, or are not pinned.
    Images {
        /// References.
        missing: Vec<String>,
    },
    /// Paths of the step's `creates` that are absent.
    Paths {
        /// The paths.
        missing: Vec<PathBuf>,
    },
}

/// Observations by step.
pub type Observations = BTreeMap<StepId, Observation>;

/// Whether a step is satisfied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is satisfied, for this reason.
    Satisfied(&'static str),
    /// It is pending, for this reason.
    Pending(String),
}

impl Verdict {
    /// Says whether the step is satisfied.
    pub fn is_satisfied(&self) -> bool {
        matches!(self, Self::Satisfied(_))
    }
}

/// Decides whether a step is satisfied: `entry` is its newest record, `seen` the agent's observation. An interrupted step is always pending: what
/// it left is undone first.
pub fn judge(action: &Action, entry: Option<&Entry>, seen: &Observation) -> Verdict {
    match entry {
        Some(entry) if entry.state != EntryState::Owned => {
            Verdict::Pending("an earlier attempt was interrupted".to_owned())
        }
        entry => judge_state(action, entry, seen),
    }
}

/// Says whether the journal records the same action. For a one-shot phase only the goal is compared.
fn recorded(action: &Action, entry: Option<&Entry>) -> bool {
    let once = matches!(action, Action::Bootstrap { .. });
    entry.is_some_and(|entry| once || entry.action == action.identity())
}

fn judge_state(action: &Action, entry: Option<&Entry>, seen: &Observation) -> Verdict {
    let pending = |why: String| Verdict::Pending(why);
    let by_record = |what: &str| {
        let why = if entry.is_some() {
            "was done otherwise"
        } else {
            "was not done"
        };
        pending(format!("{what} {why}"))
    };
    match (action, seen) {
        (Action::Claim { .. }, _) => match recorded(action, entry) {
            true => Verdict::Satisfied("recorded"),
            false => by_record("the claim"),
        },
        (Action::Directory { .. }, Observation::Directory { exists: true }) => Verdict::Satisfied("it is there"),
        (Action::Directory { .. }, _) => pending("it is not there".to_owned()),
        (Action::File { mode, content, .. }, _) => judge_file(*mode, Wanted::of(content), action, entry, seen),
        (Action::Binary { digest, .. }, _) => judge_file(
            crate::action::PROGRAM_MODE,
            Wanted::Digest(*digest),
            action,
            entry,
            seen,
        ),
        (Action::KubeconfigServer { .. }, Observation::Kubeconfig { names_server: false }) => {
            Verdict::Satisfied("it names the node's own balancer")
        }
        (Action::KubeconfigServer { from, .. }, _) => pending(format!("it names {from}")),
        (Action::HostsLines { .. }, Observation::HostsLines { missing }) => list("lacks", missing),
        (Action::Sysctls { .. }, Observation::Sysctls { differing }) => {
            if differing.is_empty() {
                return held(action, entry);
            }
            let text = |(name, value): &(String, Option<String>)| {
                format!("{name} is {}", value.as_deref().unwrap_or("not there"))
            };
            list("differs:", &differing.iter().map(text).collect::<Vec<_>>())
        }
        (Action::KernelFeatures { .. }, Observation::Features { absent }) if absent.is_empty() => held(action, entry),
        (Action::KernelFeatures { .. }, Observation::Features { absent }) => list("absent:", absent),
        (Action::Firewall { .. }, Observation::Firewall { faults }) if faults.is_empty() => held(action, entry),
        (Action::Firewall { .. }, Observation::Firewall { faults }) => list("not as wanted:", faults),
        (Action::StopUnit { .. }, Observation::Unit { enabled, active }) => match enabled | active {
            true => pending("it is enabled or runs".to_owned()),
            false => Verdict::Satisfied("it is stopped and disabled"),
        },
        (Action::Images { .. }, Observation::Images { missing }) => list("missing:", missing),
        (Action::Unit { start, .. }, Observation::Unit { enabled, active }) => {
            match (recorded(action, entry), *enabled, *active || !start) {
                (true, true, true) => Verdict::Satisfied("it is up, and nothing that it reads has changed"),
                (false, ..) => by_record("what the unit reads"),
                (_, false, _) => pending("it is not enabled".to_owned()),
                (_, _, false) => pending("it does not run".to_owned()),
            }
        }
        (Action::Run { .. } | Action::Bootstrap { .. }, Observation::Paths { missing }) => {
            if !recorded(action, entry) {
                return by_record("it");
            }
            let missing: Vec<String> = missing.iter().map(|p| p.display().to_string()).collect();
            list("it was done, and what it made is gone:", &missing)
        }
        _ => pending("it was not looked at".to_owned()),
    }
}

/// Decides about a state that is as wanted and must stay so. The node's settings service reads the wanted values from the journal, so a step is
/// pending until the journal holds them, even when nothing has to be changed. The undo of such an entry is empty.
fn held(action: &Action, entry: Option<&Entry>) -> Verdict {
    if entry.is_some_and(|entry| entry.wanted == action.wanted()) {
        Verdict::Satisfied("as wanted")
    } else {
        Verdict::Pending("as wanted, but not in the journal".to_owned())
    }
}

fn list(what: &str, missing: &[String]) -> Verdict {
    if missing.is_empty() {
        Verdict::Satisfied("as wanted")
    } else {
        Verdict::Pending(format!("{what} {}", missing.join(", ")))
    }
}

/// The content that a file should have.
enum Wanted {
    Digest(Digest),
    Generated,
    Secret,
}

impl Wanted {
    fn of(content: &Content) -> Self {
        match content {
            Content::Text(text) => Self::Digest(Digest::of(text.as_bytes())),
            Content::Generated(_) => Self::Generated,
            Content::Secret(_) => Self::Secret,
        }
    }
}

fn judge_file(wanted_mode: u32, wanted: Wanted, action: &Action, entry: Option<&Entry>, seen: &Observation) -> Verdict {
    let Observation::File {
        mode,
        same_as_recorded,
        digest,
        holds_secret,
    } = seen
    else {
        return Verdict::Pending("it was not looked at".to_owned());
    };
    match mode {
        None => return Verdict::Pending("it is not there".to_owned()),
        Some(mode) if *mode != wanted_mode => return Verdict::Pending(format!("its mode is {mode:04o}")),
        Some(_) => {}
    }
    let unchanged = *same_as_recorded && recorded(action, entry);
    let holds = match wanted {
        // Generated content is kept, because another run cannot generate the same.
        Wanted::Generated => entry.is_some(),
        Wanted::Secret => holds_secret.unwrap_or(unchanged),
        Wanted::Digest(wanted) => unchanged || *digest == Some(wanted),
    };
    if holds {
        Verdict::Satisfied("it has the wanted content")
    } else {
        Verdict::Pending("its content is another".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::{BootstrapGoal, Claims, Undo};

    fn entry(action: &Action, state: EntryState) -> Entry {
        Entry {
            run: "r1".parse().unwrap(),
            step: "x".parse().unwrap(),
            action: action.identity(),
            undo: Undo::Nothing,
            state,
            stamp: None,
            wanted: None,
        }
    }

    fn file(text: &str) -> Action {
        Action::File {
            path: "/etc/x".into(),
            mode: 0o644,
            content: Content::Text(text.to_owned()),
        }
    }

    fn seen(mode: Option<u32>, digest: Option<&str>) -> Observation {
        Observation::File {
            mode,
            same_as_recorded: false,
            digest: digest.map(|text| Digest::of(text.as_bytes())),
            holds_secret: None,
        }
    }

    #[test]
    fn a_file_is_judged_by_its_content_whoever_wrote_it() {
        let action = file("a");
        assert!(judge(&action, None, &seen(Some(0o644), Some("a"))).is_satisfied());
        let pending = [
            (seen(None, None), "it is not there"),
            (seen(Some(0o600), Some("a")), "its mode is 0600"),
            (seen(Some(0o644), Some("b")), "its content is another"),
        ];
        for (seen, why) in pending {
            assert_eq!(judge(&action, None, &seen), Verdict::Pending(why.to_owned()));
        }
        let interrupted = entry(&action, EntryState::Intended);
        assert!(!judge(&action, Some(&interrupted), &seen(Some(0o644), Some("a"))).is_satisfied());
    }

    #[test]
    fn a_one_shot_phase_stays_done_with_another_recipe_and_is_pending_when_its_files_are_gone() {
        let phase = |argument: &str, claims: Claims| Action::Bootstrap {
            goal: BootstrapGoal::Node,
            argv: vec!["kubeadm".to_owned(), argument.to_owned()],
            creates: vec!["/etc/kubernetes/kubelet.conf".into()],
            claims,
            effects: vec![],
        };
        let old = phase("join", Claims::default());
        let new = phase(
            "join-otherwise",
            Claims {
                links: vec!["cni1".to_owned()],
                ..Claims::default()
            },
        );
        let done = entry(&old, EntryState::Owned);
        let there = Observation::Paths { missing: vec![] };
        assert_eq!(old.identity(), new.identity());
        assert!(judge(&new, Some(&done), &there).is_satisfied());
        let gone = Observation::Paths {
            missing: vec!["/etc/kubernetes/kubelet.conf".into()],
        };
        assert!(!judge(&new, Some(&done), &gone).is_satisfied());
        assert!(!judge(&new, None, &there).is_satisfied(), "what others did is not ours");
    }

    #[test]
    fn a_state_that_was_right_before_is_recorded_once() {
        let action = Action::Sysctls {
            settings: vec![("kernel.panic".to_owned(), "10".to_owned())],
        };
        let right = Observation::Sysctls { differing: vec![] };
        let why = "as wanted, but not in the journal";
        assert_eq!(judge(&action, None, &right), Verdict::Pending(why.to_owned()));
        let mut recorded = entry(&action, EntryState::Owned);
        assert!(
            !judge(&action, Some(&recorded), &right).is_satisfied(),
            "journals of version 1 do not hold the values"
        );
        recorded.wanted = action.wanted();
        assert!(judge(&action, Some(&recorded), &right).is_satisfied());
        let features = Action::KernelFeatures { features: vec![] };
        let there = Observation::Features { absent: vec![] };
        assert!(!judge(&features, None, &there).is_satisfied());
        recorded.wanted = features.wanted();
        assert!(judge(&features, Some(&recorded), &there).is_satisfied());
    }

    #[test]
    fn a_setting_is_named_with_its_value() {
        let action = Action::Sysctls {
            settings: vec![("net.ipv4.ip_forward".to_owned(), "1".to_owned())],
        };
        let differing = vec![("net.ipv4.ip_forward".to_owned(), Some("0".to_owned()))];
        let verdict = judge(&action, None, &Observation::Sysctls { differing });
        assert_eq!(
            verdict,
            Verdict::Pending("differs: net.ipv4.ip_forward is 0".to_owned())
        );
    }
}
