//! The state of the members: whether anything is installed, whether their services run, and whether the API reports them as Ready.

use super::targets::Targets;
use crate::cluster::evidence;
use crate::fleet::{self, Sessions};
use landfall_core::cluster_record::ClusterRecord;
use landfall_core::explain::Diagnosis;
use landfall_core::health::NodeHealth;
use landfall_core::journal::Ownership;
use landfall_core::name::NodeName;
use landfall_core::plan::key;
use landfall_core::spec::Desired;
use landfall_core::verify::{Cell, CellOutcome};
use landfall_core::wire::Request;
use std::collections::BTreeMap;

/// The state of each member, or why it could not be asked.
pub(super) struct Members(BTreeMap<NodeName, Result<Member, Diagnosis>>);

struct Member {
    own: Ownership,
    health: NodeHealth,
}

impl Members {
    /// Asks all connected members. Blocks for the slowest answer.
    pub(super) fn ask(sessions: &Sessions) -> Self {
        let list: Vec<_> = sessions.iter().collect();
        let asked = fleet::each(&list, |(_, session)| {
            Ok(Member {
                own: session.ask(&Request::Ownership)?,
                health: session.ask(&Request::NodeHealth)?,
            })
        });
        let names = list.iter().map(|(name, _)| (*name).clone());
        Self(names.zip(asked).collect())
    }

    /// Returns the newest record of the cluster.
    pub(super) fn record(&self) -> Option<&ClusterRecord> {
        let records = self.0.values().flatten().filter_map(|member| member.own.record());
        records.max_by_key(|record| record.sequence)
    }

    /// Says which members' packet filters close NodePorts to other machines, and where.
    pub(super) fn closed_node_ports(&self) -> BTreeMap<NodeName, String> {
        let why = |(name, member): (&NodeName, &Result<Member, Diagnosis>)| {
            let closed = member.as_ref().ok()?.health.closed_node_ports.join("; ");
            let text = format!(
                "the packet filter of {name} drops what others send to NodePorts, and landfall opens none: {closed}"
            );
            (!closed.is_empty()).then(|| (name.clone(), text))
        };
        self.0.iter().filter_map(why).collect()
    }

    /// Says whether every member could be asked and landfall owns nothing on any.
    fn is_bare(&self) -> bool {
        !self.0.is_empty() && self.0.values().all(|m| m.as_ref().is_ok_and(|m| key::is_bare(&m.own)))
    }

    /// Makes the cell of the API itself.
    pub(super) fn api(&self, asked: &Result<Targets, Diagnosis>, desired: &Desired) -> Cell {
        let cell = |outcome, saw: String, why: Option<(String, &str)>| Cell {
            vantage: "cluster".to_owned(),
            target: "api".to_owned(),
            expected: "the API answers".to_owned(),
            outcome,
            saw,
            cause: why.as_ref().map(|(cause, _)| cause.clone()),
            next: why.map(|(_, next)| next.to_owned()),
        };
        let error = match asked {
            Ok(found) => {
                let nodes = found.ready.as_ref().map_or(0, BTreeMap::len);
                return cell(CellOutcome::Pass, format!("it knows {nodes} Nodes"), None);
            }
            Err(error) => error,
        };
        if self.is_bare() {
            let names: Vec<&str> = self.0.keys().map(NodeName::as_str).collect();
            let saw = format!("nothing is installed on {}", names.join(", "));
            let cause = "landfall was not installed there, or it was uninstalled".to_owned();
            return cell(CellOutcome::Fail, saw, Some((cause, "landfall install")));
        }
        let is_here = desired.inventory.control_planes().any(|n| self.0.contains_key(&n.name));
        let control_planes = desired.inventory.control_planes().filter_map(|n| self.faults(&n.name));
        let faults: Vec<String> = control_planes.collect();
        let cause = match (is_here, faults.is_empty()) {
            (false, _) => "landfall asks the API through a control plane, and could log in to none".to_owned(),
            (true, true) => "no control plane runs an API server that is ready".to_owned(),
            (true, false) => faults.join("; "),
        };
        let next = "landfall status; after a boot: landfall verify --wait 5m";
        cell(CellOutcome::Fail, in_a_line(error), Some((cause, next)))
    }

    /// Makes the cells of each member: its services, and whether the API knows it as Ready.
    pub(super) fn cells(&self, found: &Targets) -> Vec<Cell> {
        self.0
            .iter()
            .flat_map(|(name, member)| [services(name, member), self.ready(name, found)])
            .collect()
    }

    fn ready(&self, name: &NodeName, found: &Targets) -> Cell {
        let ready = found.ready.as_ref();
        let (passes, saw) = match ready.map(|ready| ready.get(name)) {
            Some(Some(true)) => (true, "it is"),
            Some(Some(false)) => (false, "it is not"),
            Some(None) => (false, "the API does not know this Node"),
            None => (false, "the API does not answer"),
        };
        Cell {
            vantage: format!("node/{name}"),
            target: "ready".to_owned(),
            expected: "its Node is Ready".to_owned(),
            outcome: if passes { CellOutcome::Pass } else { CellOutcome::Fail },
            saw: saw.to_owned(),
            cause: (!passes).then(|| self.faults(name)).flatten(),
            next: (!passes).then(|| "landfall status".to_owned()),
        }
    }

    /// Returns the faults of a member in one line.
    fn faults(&self, name: &NodeName) -> Option<String> {
        let member = self.0.get(name)?.as_ref().ok()?;
        let faults = evidence::faults(&member.health);
        (!faults.is_empty()).then(|| format!("{name}: {}", faults.join("; ")))
    }
}

fn services(name: &NodeName, member: &Result<Member, Diagnosis>) -> Cell {
    let cell = |outcome, saw: String, next: Option<&str>| Cell {
        vantage: format!("node/{name}"),
        target: "services".to_owned(),
        expected: "landfall's services run, and kernel settings are as they need them".to_owned(),
        outcome,
        saw,
        cause: None,
        next: next.map(str::to_owned),
    };
    let member = match member {
        Ok(member) => member,
        Err(error) => return cell(CellOutcome::Fail, in_a_line(error), Some("landfall status")),
    };
    if key::is_bare(&member.own) {
        return cell(
            CellOutcome::Fail,
            "nothing is installed".to_owned(),
            Some("landfall install"),
        );
    }
    let faults = evidence::faults(&member.health);
    if !faults.is_empty() {
        let health = &member.health;
        let next = match (health.settings.is_empty(), health.filters.is_empty()) {
            (true, true) if !health.missing_modules.is_empty() => {
                "journalctl --unit landfall-node-settings, on the node, says why it is not loaded"
            }
            (true, true) => "systemctl status and journalctl --unit, on the node, tell more",
            (true, false) => {
                "do what the line says, or stop what loads the rules without landfall's; then: landfall install"
            }
            (false, _) => "change the file that is named, or whatever else sets the value, then: landfall install",
        };
        let drop_ins: Vec<String> = evidence::drop_ins(health).collect();
        return Cell {
            cause: (!drop_ins.is_empty()).then(|| drop_ins.join("; ")),
            ..cell(CellOutcome::Fail, faults.join("; "), Some(next))
        };
    }
    let units = &member.health.units;
    let names: Vec<&str> = units.iter().map(|unit| unit.name.as_str()).collect();
    // A journal of version 1 does not say which units it wants.
    let saw = if names.is_empty() {
        "the journal names none".to_owned()
    } else {
        format!("{} run", names.join(", "))
    };
    cell(CellOutcome::Pass, saw, None)
}

/// Returns an error in one line, as a cell shows it.
pub(super) fn in_a_line(error: &Diagnosis) -> String {
    let more = error.saw.iter().chain(&error.causes).map(String::as_str);
    std::iter::once(error.what.as_str())
        .chain(more)
        .collect::<Vec<_>>()
        .join(": ")
}
