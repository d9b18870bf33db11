//! Questions to etcd by its own `etcdctl`.

use crate::script::Script;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const LIST: [&str; 4] = ["member", "list", "-w", "json"];
const HEALTH: [&str; 5] = ["endpoint", "health", "--cluster", "-w", "json"];

fn list(script: &Script<'_>) -> Result<Vec<Value>> {
    let listed = script.etcdctl(&LIST)?;
    let list: Value = serde_json::from_str(&listed.stdout).with_context(|| listed.stderr.clone())?;
    Ok(list["members"].as_array().cloned().unwrap_or_default())
}

/// The host of `https://HOST:PORT`.
fn host(url: &Value) -> String {
    let url = url.as_str().unwrap_or_default();
    let host = url.trim_start_matches("https://").rsplit_once(':');
    host.map(|(host, _)| host.to_owned()).unwrap_or_default()
}

fn port(url: &Value) -> Option<&str> {
    url.as_str()?.rsplit_once(':').map(|(_, port)| port)
}

/// The members, and which of them are healthy.
pub(crate) fn members(script: &mut Script<'_>) -> Result<()> {
    let members = list(script)?;
    let shown = members.iter().map(|member| {
        let name = member["name"].as_str().unwrap_or_default().to_owned();
        let (peer, client) = (&member["peerURLs"][0], &member["clientURLs"][0]);
        let shown = json!({ "id": member["ID"].is_u64(), "peer port": port(peer), "client port": port(client),
            "one address": host(peer) == host(client), "learner": member["isLearner"] == true });
        (name, shown)
    });
    let shown: BTreeMap<String, Value> = shown.collect();
    script.keep("etcd 01: its members", json!(shown))?;
    let asked = script.etcdctl(&HEALTH)?;
    let health: Value = serde_json::from_str(&asked.stdout).with_context(|| asked.stderr.clone())?;
    let named = |endpoint: &Value| {
        let is_at = |member: &&Value| member["clientURLs"][0] == *endpoint;
        let found = members.iter().find(is_at).and_then(|member| member["name"].as_str());
        found.unwrap_or("nobody").to_owned()
    };
    let healthy = health.as_array().into_iter().flatten();
    let healthy: BTreeMap<String, bool> = healthy
        .map(|line| (named(&line["endpoint"]), line["health"] == true))
        .collect();
    script.keep(
        "etcd 02: their health",
        json!({ "succeeded": asked.ok, "healthy": healthy }),
    )
}

/// A member that etcd does not have.
pub(crate) fn unknown_member(script: &mut Script<'_>) -> Result<()> {
    let removed = script.etcdctl(&["member", "remove", "1"])?;
    let says_so = removed.stderr.contains("member not found");
    script.keep(
        "etcd 03: removal of an unknown member",
        json!({ "succeeded": removed.ok, "member not found": says_so }),
    )
}

/// The removal that would lose the quorum, which etcd refuses itself.
pub(crate) fn removal_of_a_healthy_member(script: &mut Script<'_>) -> Result<()> {
    let members = list(script)?;
    let member = members.iter().find(|member| member["name"] == "cp-3");
    let id = member
        .and_then(|member| member["ID"].as_u64())
        .context("etcd has no member cp-3")?;
    let removed = script.etcdctl(&["member", "remove", &format!("{id:x}")])?;
    let says_so = removed.stderr.contains("unhealthy cluster");
    script.keep(
        "etcd 03: removal of a healthy member beside one that is off",
        json!({ "succeeded": removed.ok, "unhealthy cluster": says_so }),
    )?;
    script.keep("etcd 04: members after that", json!(list(script)?.len()))
}

/// Without its quorum etcd lists nothing.
pub(crate) fn silent(script: &mut Script<'_>) -> Result<()> {
    let listed = script.etcdctl(&LIST)?;
    let late = listed.stderr.contains("context deadline exceeded");
    script.keep(
        "etcd 01: its members",
        json!({ "succeeded": listed.ok, "too late": late }),
    )?;
    let asked = script.etcdctl(&["endpoint", "health"])?;
    script.keep("etcd 02: its own health", json!({ "succeeded": asked.ok }))
}
