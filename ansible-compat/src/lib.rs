//! Reads Ansible inventories, INI or YAML, with `group_vars/` and `host_vars/` beside them, to what the installer wants.
//!
//! The entry point is [`read`]. All problems of all files are reported at once, and no secret is repeated in one.
//! Only [`tree::Disk`] touches files; everything else is pure over [`tree::FileTree`]. The README names the limits.

#![forbid(unsafe_code)]

mod connect;
mod convert;
mod faults;
mod groups;
mod ini;
mod literal;
mod range;
mod shlex;
mod source;
pub mod tree;
mod vars;
mod yaml;

use landfall_core::explain::Diagnosis;
use landfall_core::spec::Desired;
use std::path::Path;
use tree::{Disk, FileTree};

/// Reads the inventory `text`, which was found at `path`; variable files are looked up beside it.
///
/// Who logs in where no user is named is the local user, as with Ansible.
pub fn read(text: &str, path: &Path) -> Result<Desired, Vec<Diagnosis>> {
    let user = ["USER", "LOGNAME"].iter().find_map(|key| std::env::var(key).ok());
    read_from(&Disk, user.as_deref().unwrap_or("root"), text, path)
}

/// Reads an inventory as [`read`] does, with variable files from `tree` and `local_user` as the default login.
pub fn read_from(tree: &dyn FileTree, local_user: &str, text: &str, path: &Path) -> Result<Desired, Vec<Diagnosis>> {
    let mut faults = faults::Faults::default();
    let groups = source::parse(text, path, &mut faults);
    let desired = groups.map(|groups| {
        let dir = path.parent().unwrap_or(Path::new(""));
        let mut vars = vars::Resolver::new(&groups, tree, dir);
        convert::desired(&groups, &mut vars, local_user, &path.display().to_string(), &mut faults)
    });
    match (desired, faults.into_list()) {
        (Some(desired), list) if list.is_empty() => Ok(desired),
        (_, list) => Err(list),
    }
}

#[cfg(test)]
mod tests;
