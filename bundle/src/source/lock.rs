//! The lock file: versions and module sums in one place.

use super::{failed, io};
use landfall_core::explain::Diagnosis;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::Path;

/// Content of `bundle/source/lock.yaml`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Lock {
    pub debian_suite: String,
    pub pause_version: String,
    pub components: BTreeMap<String, Locked>,
    pub module_sums: Vec<String>,
}

/// One component that is built from Go modules.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Locked {
    pub version: String,
    pub module: String,
    pub packages: Vec<String>,
}

impl Lock {
    pub fn read(path: &Path) -> Result<Self, Diagnosis> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| io("read", path)(error).next("run `landfall bundle build` in a checkout of landfall"))?;
        serde_yaml::from_str(&text)
            .map_err(|error| failed(format!("{} is no valid lock file", path.display())).because(&error))
    }

    pub fn version(&self, component: &str) -> Result<&str, Diagnosis> {
        let found = self.components.get(component);
        found
            .map(|c| c.version.as_str())
            .ok_or_else(|| failed(format!("the lock file has no component {component}")))
    }
}
