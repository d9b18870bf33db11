//! Inventory and bundle files to what the engine takes.

use landfall_core::explain::{Code, Diagnosis};
use landfall_core::spec::{Desired, parse};
use std::path::Path;

/// Reads a `cluster.yaml` or an Ansible inventory; which one, its content says.
pub fn desired(path: &Path) -> Result<Desired, Vec<Diagnosis>> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        vec![
            Diagnosis::new(Code::FileUnreadable, format!("{} cannot be read", path.display()))
                .because(&error)
                .next("name a cluster.yaml or an Ansible inventory with -i"),
        ]
    })?;
    if is_cluster_yaml(&text) {
        parse::cluster_yaml(&text, &path.display().to_string())
    } else {
        landfall_ansible::read(&text, path)
    }
}

/// `cluster.yaml` has `nodes` at its top; an inventory has groups there.
fn is_cluster_yaml(text: &str) -> bool {
    text.lines().any(|line| {
        let line = line.trim_end();
        line.starts_with("nodes:") || line.starts_with("\"nodes\":")
    })
}
