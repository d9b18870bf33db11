//! `status`.

use super::CommandResult;
use crate::args::{Common, Output};
use crate::output::write_stdout;
use crate::start::{Started, start};
use crate::{load, render};
use landfall_core::health::{NodeHealth, SettingFault, UnitHealth};
use landfall_engine::cluster::evidence::{drop_ins, faults};
use landfall_engine::run::{self, NodeStatus};
use serde_json::{Value, json};

/// Shows the cluster's record, and for each node what landfall owns, whether it is Ready, etcd and certificates.
pub fn status(common: &Common) -> CommandResult {
    let understood = load::read(&common.inventory, common.limit.as_deref())?;
    let Started { desired, reporter, ctx } = start(common, understood, None)?;
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
        "health": status.health.as_ref().map(health_of),
        "error": status.error,
    })
}

fn health_of(health: &NodeHealth) -> Value {
    let unit = |unit: &UnitHealth| {
        json!({
            "name": unit.name,
            "state": unit.state,
            "restarts": unit.restarts,
            "failing": unit.is_failing,
            "lastError": unit.last_error,
        })
    };
    let setting = |setting: &SettingFault| {
        json!({
            "name": setting.name,
            "wanted": setting.wanted,
            "present": setting.present,
            "askedBy": setting.asked_by,
        })
    };
    json!({
        "units": health.units.iter().map(unit).collect::<Vec<_>>(),
        "settings": health.settings.iter().map(setting).collect::<Vec<_>>(),
        "packetFilters": health.filters,
        "missingModules": health.missing_modules,
        "dropIns": health.drop_ins.iter().map(|d| json!({ "unit": d.unit, "file": d.file })).collect::<Vec<_>>(),
    })
}

fn human(status: &NodeStatus) -> String {
    if let Some(error) = &status.error {
        return format!("  cannot be inspected: {error}\n");
    }
    let mut lines = vec![match (&status.ready, status.owned) {
        (Some((true, version)), _) => format!("Ready, kubelet {version}"),
        (Some((false, version)), _) => format!("NOT READY, kubelet {version}"),
        (None, 0) => "nothing is installed".to_owned(),
        (None, _) => "the Kubernetes API does not know it, or does not answer".to_owned(),
    }];
    let health = status.health.iter();
    lines.extend(health.clone().flat_map(faults).map(|fault| format!("WRONG: {fault}")));
    lines.extend(health.flat_map(drop_ins).map(|drop_in| format!("note: {drop_in}")));
    lines.push(format!("landfall owns {} journal entries here", status.owned));
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
