//! `ansible export`.

use super::CommandResult;
use crate::args::Ansible;
use crate::output::{write_stdout, write_whole};
use landfall_ansible::collection;
use landfall_core::explain::{Code, Diagnosis, ExitCode};
use std::path::PathBuf;

/// Writes the collection that this program carries.
pub fn run(args: Ansible) -> CommandResult {
    let Ansible::Export { output } = args;
    let name = || PathBuf::from(format!("landfall-cluster-{}.tar.gz", collection::VERSION));
    let path = output.unwrap_or_else(name);
    let bytes = collection::archive()
        .map_err(|error| vec![Diagnosis::new(Code::Internal, "the collection cannot be packed").because(&error)])?;
    // Others install it too: nothing in it is secret.
    write_whole(&path, &bytes, 0o644).map_err(|diagnosis| vec![diagnosis])?;
    let shown = path.display();
    write_stdout(&format!(
        "written to {shown}; try: ansible-galaxy collection install {shown}\n"
    ));
    Ok(ExitCode::Done)
}
