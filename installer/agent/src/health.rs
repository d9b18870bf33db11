//! How a node is: units that the journal wants to run, with the last error of those that do not and what others have added to them, and modules, kernel
//! settings and accept rules that are not as wanted.

use crate::actions::system::{missing_modules, read_sysctl};
use crate::actions::unit_health;
use crate::agent::Agent;
use crate::error::Result;
use crate::{firewall, node_settings};
use landfall_core::health::{Held, NodeHealth, SettingFault};

/// Looks at all that the journal wants to hold. Blocks half a minute at most for each unit that fails.
pub fn look(agent: &Agent) -> Result<NodeHealth> {
    let held = Held::of(&agent.ownership()?);
    let names: Vec<&str> = held.units.iter().map(String::as_str).collect();
    let units = unit_health::of_units(agent, &names)?;
    let fault = |(name, wanted): (&String, &String)| -> Option<SettingFault> {
        let present = read_sysctl(&agent.host, name);
        (present.as_ref() != Some(wanted)).then(|| node_settings::fault(&agent.host, name, wanted, present))
    };
    let settings = held.settings.iter().filter_map(fault).collect();
    let (filters, closed_node_ports) = match &held.openings {
        Some(openings) => firewall::faults_and_closed_node_ports(agent, openings)?,
        None => (vec![], vec![]),
    };
    Ok(NodeHealth {
        units,
        settings,
        filters,
        closed_node_ports,
        missing_modules: missing_modules(&agent.host, &held.modules),
        drop_ins: unit_health::drop_ins(agent, &names)?,
    })
}
