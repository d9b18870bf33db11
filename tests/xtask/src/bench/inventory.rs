//! `cargo xtask bench inventory`: how long `landfall inventory --list` takes for 2,000 hosts, next to `ansible-inventory --list`.
//!
//! Both read the same files and print the same; each round runs one after the other, and the medians are compared.

use crate::{artifacts, oracle};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// Machines of the inventory.
const HOSTS: usize = 2000;
/// Longest that landfall may take.
const LIMIT: Duration = Duration::from_millis(500);

/// Measures, prints one JSON object, and fails when landfall takes too long or says something else than Ansible.
pub fn run(rounds: u8) -> Result<ExitCode> {
    let program = artifacts::release("landfall")?;
    let python = oracle::python(&artifacts::cache()?)?;
    let home = tempfile::tempdir()?;
    write(home.path())?;
    let inventory = home.path().join("hosts.ini");
    let mut landfall = vec![];
    let mut ansible = vec![];
    for _ in 0..rounds {
        let ours = timed(
            Command::new(&program)
                .args(["inventory", "--list", "-i"])
                .arg(&inventory),
        )?;
        let peer = python.with_file_name("ansible-inventory");
        let theirs = timed(Command::new(peer).args(["--list", "-i"]).arg(&inventory))?;
        ensure!(
            ours.1 == theirs.1,
            "landfall and ansible-inventory do not print the same"
        );
        landfall.push(ours.0);
        ansible.push(theirs.0);
    }
    let (ours, theirs) = (median(&mut landfall), median(&mut ansible));
    let seconds = |time: Duration| (time.as_secs_f64() * 1000.0).round() / 1000.0;
    let figures = json!({
        "hosts": HOSTS,
        "rounds": rounds,
        "landfall_s": seconds(ours),
        "ansible_inventory_s": seconds(theirs),
        "ratio": (theirs.as_secs_f64() / ours.as_secs_f64() * 10.0).round() / 10.0,
    });
    println!("{figures}");
    Ok(if ours <= LIMIT {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// 2,000 hosts in twenty racks and three roles, with variables of every kind of place.
fn write(dir: &Path) -> Result<()> {
    let mut hosts = String::from("[kube_control_plane]\nh[0001:0003]\n\n[kube_node]\nh[0004:2000]\n\n");
    for rack in 0..20 {
        let _ = writeln!(hosts, "[rack{rack:02}]");
        for host in (1..=HOSTS).filter(|host| host % 20 == rack) {
            let _ = writeln!(
                hosts,
                "h{host:04} ansible_host=10.1.{}.{} rack={rack}",
                host / 250,
                host % 250 + 1
            );
        }
        let _ = writeln!(hosts, "\n[rack{rack:02}:vars]\nswitch=sw-{rack}\n");
    }
    hosts.push_str("[all:vars]\nansible_user=admin\n");
    fs::write(dir.join("hosts.ini"), hosts)?;
    fs::create_dir(dir.join("group_vars"))?;
    fs::create_dir(dir.join("host_vars"))?;
    fs::write(
        dir.join("group_vars/all.yml"),
        "ntp: [10.0.0.1, 10.0.0.2]\nlabels: {site: a}\n",
    )?;
    fs::write(dir.join("group_vars/kube_node.yml"), "kubelet: {max_pods: 110}\n")?;
    for host in (1..=HOSTS).step_by(10) {
        fs::write(
            dir.join(format!("host_vars/h{host:04}.yml")),
            format!("number: {host}\n"),
        )?;
    }
    Ok(())
}

fn timed(command: &mut Command) -> Result<(Duration, Value)> {
    let start = Instant::now();
    let output = command.stdin(Stdio::null()).output()?;
    let took = start.elapsed();
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    let printed = serde_json::from_slice(&output.stdout).with_context(|| format!("{command:?} prints no JSON"))?;
    Ok((took, printed))
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}
