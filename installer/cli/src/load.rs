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

/// `cluster.yaml` has a list `nodes` at its top; an inventory has groups there, which are mappings or sections. A file whose YAML is
/// broken is told by the line.
fn is_cluster_yaml(text: &str) -> bool {
    let mut lines = text
        .lines()
        .map(str::trim_end)
        .skip_while(|line| !line.starts_with("nodes:"));
    let Some(first) = lines.next() else { return false };
    let inline = first.trim_start_matches("nodes:").trim();
    if !inline.is_empty() && !inline.starts_with('#') {
        return inline.starts_with('[');
    }
    let next = lines.find(|line| !line.is_empty() && !line.trim_start().starts_with('#'));
    next.is_none_or(|line| line.trim_start().starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_of_that_name_is_an_inventory() {
        for yes in [
            "name: x\nnodes:\n  - name: a\n",
            "nodes: [{name: a}]\n",
            "nodes:\n# why\n- a\n",
            "nodes:\n",
        ] {
            assert!(is_cluster_yaml(yes), "{yes}");
        }
        for no in [
            "all:\n  hosts: {}\n",
            "nodes:\n  hosts:\n    a: {}\n",
            "[nodes]\na\n",
            "nodes: {hosts: {}}\n",
        ] {
            assert!(!is_cluster_yaml(no), "{no}");
        }
    }
}
