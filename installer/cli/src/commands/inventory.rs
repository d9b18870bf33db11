//! `inventory`.

use super::CommandResult;
use crate::args::Inventory;
use crate::load;
use crate::output::write_stdout;
use landfall_core::explain::{Code, Diagnosis, ExitCode};
use landfall_core::inventory::Node;
use serde_json::{Map, Value, json};

/// Shows what was understood, in cluster.yaml's own form; secrets are left out and named.
pub fn inventory(args: &Inventory) -> CommandResult {
    let desired = load::desired(&args.inventory)?;
    let mut whole = match serde_json::to_value(&desired.spec) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let nodes: Vec<Value> = desired.inventory.nodes.iter().map(node).collect();
    whole.insert("nodes".to_owned(), Value::Array(nodes));
    let text = serde_yaml::to_string(&whole)
        .map_err(|error| vec![Diagnosis::new(Code::Internal, "the inventory cannot be shown").because(&error)])?;
    write_stdout(&text);
    Ok(ExitCode::Done)
}

fn node(node: &Node) -> Value {
    let connect = &node.connect;
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| {
        map.insert(key.to_owned(), value);
    };
    put("name", json!(node.name));
    put("role", json!(node.role));
    put("host", json!(connect.host));
    put("port", json!(connect.port));
    put("user", json!(connect.user));
    if let Some(key) = &connect.private_key {
        put("privateKey", json!(key));
    }
    put("become", json!(connect.become_root));
    if let Some(ip) = node.ip {
        put("ip", json!(ip));
    }
    if let Some(ip) = node.access_ip {
        put("accessIp", json!(ip));
    }
    put("schedulable", json!(node.schedulable));
    for (key, secret) in [
        ("passwordFile", &connect.password),
        ("becomePasswordFile", &connect.become_password),
    ] {
        if secret.is_some() {
            put(key, json!("<a file that holds it>"));
        }
    }
    Value::Object(map)
}
