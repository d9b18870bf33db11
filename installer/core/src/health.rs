//! The health of a node after its install: the kernel settings, modules and units that its journal requires at every boot, and the faults that
//! the agent finds. The node's settings service, `status` and `verify` read the same journal; there is no second list.

use crate::action::{Undo, Wanted};
use crate::journal::{EntryState, Ownership, RunStart};
use crate::packet_filter::openings::Openings;
use crate::plan::claims::KUBELET_SETTINGS;
use crate::plan::key::{StepKind, has_joined};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The state that a node's journal requires.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// Kernel settings: name in dotted form and value.
    pub settings: BTreeMap<String, String>,
    /// Kernel modules.
    pub modules: BTreeSet<String>,
    /// Units that run.
    pub units: BTreeSet<String>,
    /// What packet filters let through, when something.
    pub openings: Option<Openings>,
}

impl Held {
    /// Reads the required state from the entries that are done; the newest of several entries about the same thing counts. Journals of version 1
    /// do not record it.
    pub fn of(own: &Ownership) -> Self {
        let mut held = Self::default();
        let owned = own.entries.iter().filter(|entry| entry.state == EntryState::Owned);
        for entry in owned {
            match &entry.wanted {
                Some(Wanted::Sysctls(settings)) => held.settings.extend(settings.iter().cloned()),
                Some(Wanted::Modules(modules)) => held.modules.extend(modules.iter().cloned()),
                Some(Wanted::Firewall(openings)) => {
                    held.openings = Some(openings.clone()).filter(|openings| !openings.accept.is_empty());
                }
                // The kubelet is started by kubeadm, when the node joins; from then on it runs.
                Some(Wanted::Unit { name, running }) if *running || has_joined(own) => {
                    held.units.insert(name.clone());
                }
                _ => {}
            }
            if let (true, Undo::RestoreUnit { name, .. }) = (StepKind::StopUnit.is_kind_of(&entry.step), &entry.undo) {
                held.units.remove(name);
            }
        }
        held
    }
}

/// Says whether an undo is under way on the node or has left residue. Nothing may be corrected then.
pub fn undo_is_open(own: &Ownership) -> bool {
    let going = |state| matches!(state, EntryState::Undoing | EntryState::Residue);
    own.open_run().is_some_and(RunStart::is_undo) || own.entries.iter().any(|entry| going(entry.state))
}

/// Returns what does not work while a kernel setting has another value than landfall wants.
pub fn broken_without(setting: &str) -> &'static str {
    match setting {
        _ if KUBELET_SETTINGS.contains(&setting) => {
            "the kubelet does not start with another value (protectKernelDefaults: \"invalid kernel flag\")"
        }
        "net.ipv4.ip_forward" => "pods reach neither other nodes nor Services without it",
        "net.bridge.bridge-nf-call-iptables" => "pods do not reach Services whose pods are on the same node without it",
        _ => "landfall's daemons need it",
    }
}

/// The health of a node, as its agent reports it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeHealth {
    /// Units that the journal wants to run.
    pub units: Vec<UnitHealth>,
    /// Kernel settings that are not as the journal wants them.
    pub settings: Vec<SettingFault>,
    /// What packet filters do not let through although the journal wants it, or other faults of the accept rules, a line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<String>,
    /// Where packet filters drop what others send to NodePorts, a line each. Landfall opens no NodePorts, so it is no fault. Looked at with
    /// `firewall: open` alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub closed_node_ports: Vec<String>,
    /// Kernel modules that the journal wants and that are not loaded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing_modules: Vec<String>,
    /// Drop-ins of others that change units which the journal wants to run. They are no faults, but may be the reason for one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drop_ins: Vec<UnitDropIn>,
}

/// A drop-in that landfall did not make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitDropIn {
    /// The unit that it changes.
    pub unit: String,
    /// Its file.
    pub file: String,
}

impl UnitDropIn {
    /// Says it in one line, for people.
    pub fn text(&self) -> String {
        format!("{} is changed by {}, which is not landfall's", self.unit, self.file)
    }
}

/// A unit that the journal wants to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitHealth {
    /// Unit name with suffix.
    pub name: String,
    /// systemd's word for its state: `active`, `activating`, `failed`, …
    pub state: String,
    /// How often systemd has started it again by itself.
    pub restarts: u32,
    /// Whether it does not run, or was started again by systemd some seconds ago.
    pub is_failing: bool,
    /// The last error in its log, without secrets; of a unit that runs nothing is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

impl UnitHealth {
    /// Says in one line how it is, for people.
    pub fn text(&self) -> String {
        let restarts = match self.restarts {
            0 => String::new(),
            n => format!(", started again {n} times"),
        };
        let error = self.last_error.as_ref();
        let error = error.map_or_else(String::new, |error| format!(": {error}"));
        format!("{} is {}{restarts}{error}", self.name, self.state)
    }
}

/// A kernel setting that is not as the journal wants it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingFault {
    /// Name in dotted form.
    pub name: String,
    /// What the journal wants.
    pub wanted: String,
    /// What it is; `None` when the kernel has no such setting.
    pub present: Option<String>,
    /// The file that asks for another value, and its line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_by: Option<String>,
}

impl SettingFault {
    /// Says in one line what is, who asks for it and what breaks, for people.
    pub fn text(&self) -> String {
        let present = self.present.as_deref().unwrap_or("not there");
        let asked = self.asked_by.as_ref();
        let asked = asked.map_or_else(String::new, |file| format!(", as {file} asks"));
        format!(
            "{} is {present}{asked}; landfall wants {}: {}",
            self.name,
            self.wanted,
            broken_without(&self.name)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Entry, INGRESS_ALLOW, INSTALL, JournalRun, ROLLBACK};
    use crate::name::Digest;

    fn entry(step: &str, state: EntryState, wanted: Option<Wanted>, undo: Undo) -> Entry {
        Entry {
            run: "r1".parse().unwrap(),
            step: step.parse().unwrap(),
            action: Digest::of(b"x"),
            undo,
            state,
            stamp: None,
            wanted,
        }
    }

    fn settings(step: &str, state: EntryState, value: &str) -> Entry {
        let wanted = Wanted::Sysctls(vec![("kernel.panic".to_owned(), value.to_owned())]);
        entry(step, state, Some(wanted), Undo::Nothing)
    }

    fn unit(step: &str, name: &str, running: bool) -> Entry {
        let name = name.to_owned();
        entry(
            step,
            EntryState::Owned,
            Some(Wanted::Unit { name, running }),
            Undo::Nothing,
        )
    }

    #[test]
    fn only_entries_that_are_done_count_and_the_newest_wins() {
        let mut own = Ownership {
            entries: vec![
                settings("sysctls/a", EntryState::Owned, "5"),
                settings("sysctls/a", EntryState::Owned, "10"),
                settings("sysctls/a", EntryState::Intended, "20"),
                unit("unit/kubelet/a", "kubelet.service", false),
                unit("unit/old/a", "old.service", true),
            ],
            ..Ownership::default()
        };
        let held = Held::of(&own);
        assert_eq!(held.settings.get("kernel.panic").map(String::as_str), Some("10"));
        assert_eq!(held.units.iter().collect::<Vec<_>>(), ["old.service"]);
        own.entries
            .push(entry("join-worker/a", EntryState::Owned, None, Undo::Nothing));
        let stopped = Undo::RestoreUnit {
            name: "old.service".to_owned(),
            was_enabled: true,
            was_active: true,
        };
        own.entries
            .push(entry("stop-unit/old/a", EntryState::Owned, None, stopped));
        assert_eq!(Held::of(&own).units.iter().collect::<Vec<_>>(), ["kubelet.service"]);
    }

    #[test]
    fn an_undo_is_open_from_its_first_record_until_nothing_of_it_is_left() {
        let mut own = Ownership {
            entries: vec![settings("sysctls/a", EntryState::Owned, "5")],
            ..Ownership::default()
        };
        assert!(!undo_is_open(&own));
        let run = |number, command| JournalRun {
            start: RunStart::new("r1".parse().unwrap(), number, command, "ship"),
            outcome: None,
        };
        own.runs.push(run(1, INSTALL));
        assert!(
            !undo_is_open(&own),
            "an install that was interrupted takes nothing back"
        );
        own.runs.push(run(2, INGRESS_ALLOW));
        assert!(!undo_is_open(&own), "nor does one that only adds to the cluster");
        own.runs.push(run(3, ROLLBACK));
        assert!(undo_is_open(&own));
        own.runs.clear();
        for state in [EntryState::Undoing, EntryState::Residue] {
            own.entries[0].state = state;
            assert!(undo_is_open(&own));
        }
    }

    #[test]
    fn a_fault_names_value_file_and_what_breaks() {
        let fault = SettingFault {
            name: "vm.overcommit_memory".to_owned(),
            wanted: "1".to_owned(),
            present: Some("0".to_owned()),
            asked_by: Some("/etc/sysctl.d/99-x.conf, line 1,".to_owned()),
        };
        let text = fault.text();
        assert!(
            text.starts_with("vm.overcommit_memory is 0, as /etc/sysctl.d/99-x.conf, line 1, asks; landfall wants 1")
        );
        assert!(text.contains("the kubelet does not start"), "{text}");
    }
}
