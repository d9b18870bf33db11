//! `status`.

use super::CommandResult;
use crate::args::{Common, Output};
use crate::output::write_stdout;
use crate::reporter::Reporter;
use crate::{load, remote, render};
use landfall_ansible::Understood;
use landfall_engine::run::{self, NodeStatus};
use serde_json::{Value, json};

/// Shows the cluster as it is recorded, and each node: what is ours, whether it is Ready, etcd, certificates.
pub fn status(common: &Common) -> CommandResult {
    let Understood {
        desired,
        notices,
        limit,
    } = load::read(&common.inventory, common.limit.as_deref())?;
    let reporter = Reporter::new(common.output, None)?;
    reporter.warn(&notices);
    let ctx = remote::run_context(common, reporter.clone(), None, limit).map_err(|d| vec![d])?;
    let outcome = run::status(&desired, &ctx);
    let last_run = outcome.runs.last().map(|run| run.number);
    if common.output == Output::Json {
        let nodes: serde_json::Map<String, Value> = outcome
            .nodes
            .iter()
            .map(|(name, status)| (name.to_string(), machine(status)))
            .collect();
        let cluster = outcome
            .record
            .as_ref()
            .map(|record| render::cluster_json(record, last_run));
        let line = json!({ "event": "status", "cluster": cluster, "nodes": nodes });
        write_stdout(&format!("{line}\n"));
    } else {
        match &outcome.record {
            Some(record) => write_stdout(&render::cluster(record, last_run)),
            None if outcome.nodes.values().any(|node| node.owned > 0) => {
                write_stdout("the journals hold no record of the cluster; the next install writes it\n");
            }
            None => {}
        }
        for (name, status) in &outcome.nodes {
            write_stdout(&format!("{name}\n{}", human(status)));
        }
    }
    Ok(reporter.close(vec![]))
}

fn machine(status: &NodeStatus) -> Value {
    json!({
        "owned": status.owned,
        "bundle": status.bundle,
        "openRun": status.open_run.as_ref().map(|run| &run.run),
        "ready": status.ready.as_ref().map(|(ready, _)| ready),
        "kubelet": status.ready.as_ref().map(|(_, version)| version),
        "etcd": status.etcd,
        "certificates": status.certificates.iter().map(|c| json!({ "name": c.name, "daysLeft": c.days_left })).collect::<Vec<_>>(),
        "error": status.error,
    })
}

fn human(status: &NodeStatus) -> String {
    if let Some(error) = &status.error {
        return format!("  cannot be looked at: {error}\n");
    }
    let mut lines = vec![match (&status.ready, status.owned) {
        (Some((true, version)), _) => format!("Ready, kubelet {version}"),
        (Some((false, version)), _) => format!("NOT READY, kubelet {version}"),
        (None, 0) => "nothing is installed".to_owned(),
        (None, _) => "the Kubernetes API does not know it, or does not answer".to_owned(),
    }];
    lines.push(format!("{} things here are landfall's", status.owned));
    lines.extend(status.bundle.iter().map(|bundle| format!("bundle: {bundle}")));
    lines.extend(
        status
            .open_run
            .as_ref()
            .map(|run| format!("a run of {} has not finished: run it again, or roll back", run.command)),
    );
    lines.extend(status.etcd.as_ref().map(|etcd| format!("etcd: {etcd}")));
    if let Some(first) = status.certificates.iter().min_by_key(|c| c.days_left) {
        lines.push(format!(
            "first certificate to expire: {}, in {} days",
            first.name, first.days_left
        ));
    }
    lines.iter().map(|line| format!("  {line}\n")).collect()
}
