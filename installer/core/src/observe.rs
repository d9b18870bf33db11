//! What was seen of what a step is about, and the judgement whether the step has anything to do, with the reason. The agent looks; this
//! module alone judges, for the plan and again before and after each act.

use crate::action::{Action, Content};
use crate::journal::{Entry, EntryState};
use crate::name::{Digest, StepId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What was seen of one step's subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Observation {
    /// There is nothing to look at: the journal alone tells.
    Nothing,
    /// Whether a directory is there.
    Directory {
        /// Is it?
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
        /// Does it?
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
    /// A unit.
    Unit {
        /// Does it start at boot?
        enabled: bool,
        /// Does it run?
        active: bool,
    },
    /// Images that are not there with their manifest, or not pinned.
    Images {
        /// References.
        missing: Vec<String>,
    },
    /// Paths that are absent of those that the step makes.
    Paths {
        /// The paths.
        missing: Vec<PathBuf>,
    },
}

/// What was seen of several steps.
pub type Observations = BTreeMap<StepId, Observation>;

/// Whether a step has anything to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing to do, and why.
    Satisfied(&'static str),
    /// Something to do, and what is not as wanted.
    Pending(String),
}

impl Verdict {
    /// Says whether there is nothing to do.
    pub fn is_satisfied(&self) -> bool {
        matches!(self, Self::Satisfied(_))
    }
}

/// Judges a step: `entry` is its newest record, `seen` what the agent saw. An interrupted step is always to be done: what it left is
/// taken back first.
pub fn judge(action: &Action, entry: Option<&Entry>, seen: &Observation) -> Verdict {
    match entry {
        Some(entry) if entry.state != EntryState::Owned => {
            Verdict::Pending("an earlier attempt was interrupted".to_owned())
        }
        entry => judge_state(action, entry, seen),
    }
}

/// Says whether the journal records this very action. Of a one-shot phase the goal alone counts.
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
            let text = |(name, value): &(String, Option<String>)| {
                format!("{name} is {}", value.as_deref().unwrap_or("not there"))
            };
            list("differs:", &differing.iter().map(text).collect::<Vec<_>>())
        }
        (Action::KernelFeatures { .. }, Observation::Features { absent }) => list("absent:", absent),
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

fn list(what: &str, missing: &[String]) -> Verdict {
    if missing.is_empty() {
        Verdict::Satisfied("as wanted")
    } else {
        Verdict::Pending(format!("{what} {}", missing.join(", ")))
    }
}

/// Content that a file is to have.
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
        // What was generated once is kept: another run cannot know it.
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
    fn a_file_is_judged_by_what_is_there_whoever_wrote_it() {
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
    fn a_one_shot_phase_is_done_whatever_its_recipe_is_today_and_pending_when_its_work_is_gone() {
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
