//! The ingress conformance suite in the real cluster: its proof runs on this host, its endpoints listen on the lab's bridge.

use super::{Checks, Stage};
use crate::lab::Lab;
use anyhow::{Result, ensure};
use std::ffi::OsStr;
use std::path::Path;
use std::process::{Command, Stdio};

/// Plays it. `proof` is the program `landfall-ingress-proof`.
pub fn show(stage: &Stage<'_>, proof: &Path, checks: &mut Checks) {
    checks.check("the ingress conformance suite holds at every node", || {
        play(stage.lab, proof)
    });
}

fn play(lab: &Lab, proof: &Path) -> Result<()> {
    let nodes: Vec<_> = lab.members().iter().map(|machine| machine.address.as_str()).collect();
    let kubectl = [
        "kubectl",
        "--kubeconfig=/etc/kubernetes/admin.conf",
        "--cache-dir=/run/landfall-kube",
    ];
    let first = lab.machine("cp-1")?;
    let kubectl = lab.podman_exec(first, "root", &kubectl);
    let words: Vec<&OsStr> = std::iter::once(kubectl.get_program())
        .chain(kubectl.get_args())
        .collect();
    let output = Command::new(proof)
        .args([
            "conformance",
            "--nodes",
            &nodes.join(","),
            "--endpoints",
            &lab.gateway(),
            "--",
        ])
        .args(words)
        .stdin(Stdio::null())
        .output()?;
    lab.exec(first, &["rm", "-rf", "/run/landfall-kube"])?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "{text}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    println!("lab: {}", text.lines().next_back().unwrap_or_default());
    Ok(())
}
