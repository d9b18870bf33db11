//! `cargo xtask demo`: installs a cluster from a checkout, for users to inspect.

use crate::artifacts;
use anyhow::{Context, Result, ensure};
use landfall_lab::operator::{BUNDLE, CLUSTER, Operator};
use landfall_lab::{Lab, Size};
use std::path::{Path, PathBuf};

const SIZE: Size = Size {
    control_planes: 3,
    workers: 2,
};
/// The demo's network is 10.90.0.0/24.
const NET: u8 = 0;

fn lab() -> Result<Lab> {
    Ok(Lab::new("demo", NET, SIZE, &artifacts::cache()?))
}

/// Removes everything that the demo made.
pub fn down() -> Result<()> {
    lab()?.down()?;
    println!("the demo's machines, their disks and their network are gone");
    Ok(())
}

/// Builds what is missing, starts the machines, installs, verifies, and says what to try.
pub fn up(report: Option<&Path>) -> Result<()> {
    let built = artifacts::build()?;
    let lab = lab()?;
    println!(
        "starting {} machines on a network without a way out",
        lab.machines().len()
    );
    lab.up(&built.program, &built.bundle)?;
    let operator = Operator::of(&lab)?;
    operator.write_cluster(|_| {})?;
    let install = [
        "landfall",
        "install",
        "-i",
        CLUSTER,
        "--accept-new-host-keys",
        "--report",
        "report",
        BUNDLE,
    ];
    println!("operator$ {}", install.join(" "));
    let status = operator.show(&install)?;
    let report: PathBuf = report.map_or_else(|| artifacts::cache().map(|c| c.join("demo-report")), |p| Ok(p.into()))?;
    save(&operator, "install.json", &report)?;
    ensure!(
        status == 0,
        "install ended with {status}; the machines are left as they are: cargo xtask demo --down removes them"
    );
    let verify = ["landfall", "verify", "-i", CLUSTER, "--report", "report"];
    println!("operator$ {}", verify.join(" "));
    let status = operator.show(&verify)?;
    save(&operator, "verify.json", &report)?;
    ensure!(status == 0, "verify ended with {status}");
    let config = operator
        .landfall(&["kubeconfig", "-i", CLUSTER, "-w", "kubeconfig"])?
        .expect(0);
    config.context("no kubeconfig could be fetched")?;
    advise(&lab, &report)
}

fn save(operator: &Operator<'_>, name: &str, folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    let to = folder.join(name);
    std::fs::write(&to, operator.read(&format!("report/{name}"))?)
        .with_context(|| format!("{} cannot be written", to.display()))
}

fn advise(lab: &Lab, report: &Path) -> Result<()> {
    let node = &lab.machine("cp-1")?.address;
    let worker = &lab.machine("w-1")?.address;
    println!(
        "\nThe cluster is up. Reports are in {}.\n\n\
         From this machine, through the ingress proxy of any node:\n  \
         curl -H 'Host: test.nginx.com' http://{worker}/\n\
         The dashboard, with the proxy's routes and endpoints:\n  \
         landfall dashboard -i {CLUSTER}      as the operator: user and password; then in a browser: http://{worker}:8080/\n\
         Inside a node:\n  \
         podman exec -it landfall-demo-cp-1 sh -c 'KUBECONFIG=/etc/kubernetes/admin.conf kubectl get pods -A -o wide'\n\
         As the operator, who has neither kubectl nor root:\n  \
         podman exec -it --user admin --workdir /home/admin landfall-demo-operator bash\n  \
         landfall status -i {CLUSTER}\n  landfall verify -i {CLUSTER}\n  landfall uninstall -i {CLUSTER}\n\
         The operator's kubeconfig (server https://{node}:6443) is /home/admin/kubeconfig there.\n\n\
         cargo xtask demo --down    removes the machines, their disks and the network",
        report.display()
    );
    Ok(())
}
