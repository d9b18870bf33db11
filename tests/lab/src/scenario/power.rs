//! Point 3: the power of each control plane is cut in turn, then that of two, then that of all but one.

use super::{Checks, Stage, answers};
use crate::host::{root, run};
use crate::lab::{Lab, Machine};
use crate::operator::CLUSTER;
use anyhow::{Context, Result, ensure};
use landfall_test_answers::Condition;
use std::time::{Duration, Instant};

/// Without these etcd has no quorum.
const MAJORITY: [&str; 2] = ["cp-2", "cp-3"];
/// All others but w-1, which is not started again, so that everything on it can be compared after the uninstall.
const OTHERS: [&str; 2] = ["cp-1", "w-2"];
/// How long after the cut the paths are watched.
const WATCH: Duration = Duration::from_secs(15);
/// A new API request must succeed within this time.
const API_LIMIT: Duration = Duration::from_secs(5);
/// NodePort must answer again within this time.
const NODE_PORT_LIMIT: Duration = Duration::from_secs(60);
/// The machines must be back within this time, also when all of them lost their power.
const BACK_LIMIT: Duration = Duration::from_secs(180);

/// The control plane whose hosts file somebody rewrites before its power is cut, as cloud-init does.
const REWRITTEN_HOSTS: &str = "cp-3";

/// Cuts each of the three.
pub fn show(stage: &Stage<'_>, checks: &mut Checks) {
    for name in ["cp-1", "cp-2", "cp-3"] {
        checks.check(
            &format!("the power of {name} is cut: API, ingress and NodePort go on"),
            || {
                if name == REWRITTEN_HOSTS {
                    let rewrite = "cp /etc/hosts /root/hosts && echo '127.0.0.1 localhost' > /etc/hosts";
                    stage.lab.shell(stage.lab.machine(name)?, rewrite)?;
                }
                cut(stage, name)
            },
        );
        checks.check(&format!("{name} comes back by itself"), || back(stage, &[name]));
    }
    checks.check("its hosts file was rewritten before that boot", || {
        let machine = stage.lab.machine(REWRITTEN_HOSTS)?;
        let hosts = stage.lab.shell(machine, "cat /etc/hosts")?;
        ensure!(hosts.trim() == "127.0.0.1 localhost", "it is another: {hosts}");
        let give_back = "cat /root/hosts > /etc/hosts && rm /root/hosts";
        stage.lab.shell(machine, give_back).map(drop)
    });
    checks.check(
        "two are off: the cluster answers as the simulation's model does",
        || {
            for name in MAJORITY {
                stage.lab.cut_power(stage.lab.machine(name)?)?;
            }
            answers::expect_recorded(stage, Condition::NoQuorum)
        },
    );
    checks.check("all but w-1 lose their power: all come back by themselves", || {
        for name in OTHERS {
            stage.lab.cut_power(stage.lab.machine(name)?)?;
        }
        back(stage, &[&MAJORITY[..], &OTHERS].concat())
    });
}

fn cut(stage: &Stage<'_>, name: &str) -> Result<()> {
    let lab = stage.lab;
    let others: Vec<&Machine> = lab.members().into_iter().filter(|m| m.name != name).collect();
    lab.cut_power(lab.machine(name)?)?;
    std::thread::scope(|scope| {
        let watches = others.iter().flat_map(|machine| {
            [
                scope.spawn(|| api(lab, machine).with_context(|| format!("the API by {}", machine.name))),
                scope.spawn(|| ingress(machine).with_context(|| format!("the ingress by {}", machine.name))),
                scope.spawn(|| node_port(machine).with_context(|| format!("NodePort of {}", machine.name))),
            ]
        });
        let watches: Vec<_> = watches.collect();
        let results = watches
            .into_iter()
            .map(|watch| watch.join().unwrap_or_else(|_| anyhow::bail!("a watch broke off")));
        let problems: Vec<_> = results.filter_map(|r| r.err().map(|e| format!("{e:#}"))).collect();
        ensure!(problems.is_empty(), "{}", problems.join("\n"));
        Ok(())
    })
}

/// A new connection through the node's own balancer: first success within the limit, then no failure.
fn api(lab: &Lab, machine: &Machine) -> Result<()> {
    let pid = lab.pid(machine)?.to_string();
    let ask = || {
        let url = "https://127.0.0.1:7443/readyz";
        let curl = [
            "-t",
            &pid,
            "-n",
            "curl",
            "--silent",
            "--insecure",
            "--fail",
            "--max-time",
            "2",
            url,
        ];
        run(root("nsenter").args(curl)).is_ok_and(|text| text == "ok")
    };
    let start = Instant::now();
    while !ask() {
        ensure!(
            start.elapsed() < API_LIMIT,
            "no answer within {} s",
            API_LIMIT.as_secs()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    while start.elapsed() < WATCH {
        ensure!(
            ask(),
            "an answer failed {:.1} s after the cut",
            start.elapsed().as_secs_f32()
        );
        std::thread::sleep(Duration::from_millis(250));
    }
    Ok(())
}

fn page(url: &str, host: &str) -> Result<String> {
    run(std::process::Command::new("curl").args([
        "--silent",
        "--fail",
        "--max-time",
        "2",
        "--header",
        &format!("Host: {host}"),
        url,
    ]))
}

/// Every request answers, from the moment of the cut.
fn ingress(machine: &Machine) -> Result<()> {
    let start = Instant::now();
    while start.elapsed() < WATCH {
        let text = page(&format!("http://{}/", machine.address), "test.nginx.com");
        let text = text.with_context(|| format!("{:.1} s after the cut", start.elapsed().as_secs_f32()))?;
        ensure!(text.contains("Welcome to nginx!"), "another page: {text}");
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn node_port(machine: &Machine) -> Result<()> {
    let start = Instant::now();
    loop {
        let answered = page(&format!("http://{}:30080/", machine.address), "node");
        if answered.is_ok_and(|text| text.contains("Welcome to nginx!")) {
            return Ok(());
        }
        ensure!(
            start.elapsed() < NODE_PORT_LIMIT,
            "no answer within {} s",
            NODE_PORT_LIMIT.as_secs()
        );
        std::thread::sleep(Duration::from_millis(250));
    }
}

fn back(stage: &Stage<'_>, names: &[&str]) -> Result<()> {
    for name in names {
        stage.lab.power_on(stage.lab.machine(name)?)?;
    }
    let start = Instant::now();
    loop {
        let ended = stage.operator.landfall(&["verify", "-i", CLUSTER])?;
        let status = stage.operator.landfall(&["status", "-i", CLUSTER])?;
        let healthy = status.status == Some(0)
            && !status.stdout.contains("NOT READY")
            && status.stdout.matches("etcd: healthy").count() == 3;
        if ended.status == Some(0) && healthy {
            let names = names.join(" and ");
            println!("lab: {names} back after {:.1} s", start.elapsed().as_secs_f32());
            return Ok(());
        }
        let text = format!("{}\n{}\n{}", ended.stdout, ended.stderr, status.stdout);
        ensure!(
            start.elapsed() < BACK_LIMIT,
            "not back after {} s:\n{text}",
            BACK_LIMIT.as_secs()
        );
        std::thread::sleep(Duration::from_secs(2));
    }
}
