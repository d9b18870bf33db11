//! Writes an inventory as `cluster.yaml` or as an Ansible inventory. Secrets are left out and named.

use landfall_core::explain::{Code, Diagnosis};
use landfall_core::inventory::{Connection, Node, Proxy, Role};
use landfall_core::spec::{ClusterSpec, Desired};
use serde_json::{Map, Value, json};

/// Writes landfall's own form.
pub fn cluster_yaml(desired: &Desired) -> Result<String, Diagnosis> {
    let mut whole = spec(&desired.spec);
    let nodes: Vec<Value> = desired.inventory.nodes.iter().map(node).collect();
    whole.insert("nodes".to_owned(), Value::Array(nodes));
    yaml(&Value::Object(whole))
}

/// Writes an Ansible inventory in YAML form.
pub fn ansible_yaml(desired: &Desired) -> Result<String, Diagnosis> {
    let mut children = Map::new();
    for (group, nodes) in groups(desired) {
        let mut hosts = Map::new();
        for node in nodes {
            // Ansible reads variables where a host is named first.
            let vars = if group == "kube_node" && node.role == Role::ControlPlane {
                Map::new()
            } else {
                vars(node)
            };
            hosts.insert(node.name.to_string(), Value::Object(vars));
        }
        children.insert(group.to_owned(), json!({ "hosts": hosts }));
    }
    let text = yaml(&json!({ "all": { "vars": { "landfall": changed(&desired.spec) }, "children": children } }))?;
    Ok(left_out(desired) + &text)
}

/// Writes an Ansible inventory in INI form.
pub fn ansible_ini(desired: &Desired) -> String {
    let mut text = left_out(desired);
    for (group, nodes) in groups(desired) {
        text.push_str(&format!("[{group}]\n"));
        for node in nodes {
            text.push_str(node.name.as_str());
            if group != "kube_node" || node.role != Role::ControlPlane {
                for (key, value) in vars(node) {
                    // A host line is split into words first, then each value is read as Python reads it.
                    let value = quoted(&python(&value));
                    text.push_str(&format!(" {key}={value}"));
                }
            }
            text.push('\n');
        }
        text.push('\n');
    }
    text.push_str(&format!(
        "[all:vars]\nlandfall={}\n",
        python(&Value::Object(changed(&desired.spec)))
    ));
    text
}

/// Returns the groups with their machines; a control plane that takes workloads is in two.
fn groups(desired: &Desired) -> Vec<(&'static str, Vec<&Node>)> {
    let nodes = &desired.inventory;
    let any_worker = nodes.workers().next().is_some();
    let all = nodes.control_planes().all(|n| n.schedulable);
    // Without a worker, all control planes take workloads anyway.
    let doubled = nodes.control_planes().filter(|n| n.schedulable && (any_worker || !all));
    let groups = [
        ("kube_control_plane", nodes.control_planes().collect::<Vec<_>>()),
        ("kube_node", doubled.chain(nodes.workers()).collect()),
        ("outside", nodes.outside().collect()),
    ];
    groups.into_iter().filter(|(_, nodes)| !nodes.is_empty()).collect()
}

fn vars(node: &Node) -> Map<String, Value> {
    let connect = &node.connect;
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| drop(map.insert(key.to_owned(), value));
    put("ansible_host", json!(connect.host));
    put("ansible_port", json!(connect.port));
    put("ansible_user", json!(connect.user));
    put("ansible_become", json!(connect.become_root));
    if connect.connection == Connection::Local {
        put("ansible_connection", json!("local"));
    }
    if let Some(key) = &connect.private_key {
        put("ansible_ssh_private_key_file", json!(key));
    }
    if let Some(jump) = connect.render_jump() {
        put("ansible_ssh_common_args", json!(format!("-o ProxyJump={jump}")));
    } else if let Some(Proxy::Command(command)) = &connect.ssh.proxy {
        let quoted = command.replace('\\', "\\\\").replace('"', "\\\"");
        put(
            "ansible_ssh_common_args",
            json!(format!("-o \"ProxyCommand={quoted}\"")),
        );
    }
    if let Some(ip) = node.ip {
        put("ip", json!(ip));
    }
    if let Some(ip) = node.access_ip {
        put("access_ip", json!(ip));
    }
    map
}

/// Names the secrets that are not written.
fn left_out(desired: &Desired) -> String {
    let mut text = String::new();
    for node in &desired.inventory.nodes {
        let connect = &node.connect;
        let secrets = [
            ("ansible_password", &connect.password),
            ("ansible_become_password", &connect.become_password),
        ];
        if connect.connection == Connection::Openssh {
            text.push_str(&format!(
                "# left out: connection openssh of {}; only cluster.yaml has it\n",
                node.name
            ));
        }
        for (name, _) in secrets.iter().filter(|(_, secret)| secret.is_some()) {
            text.push_str(&format!(
                "# left out: {name} of {}; keep it in a file that ansible-vault encrypts\n",
                node.name
            ));
        }
    }
    text
}

fn spec(spec: &ClusterSpec) -> Map<String, Value> {
    match serde_json::to_value(spec) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    }
}

/// Returns the fields that differ from the defaults.
fn changed(wanted: &ClusterSpec) -> Map<String, Value> {
    let defaults = spec(&ClusterSpec::default());
    let mut fields = spec(wanted);
    fields.retain(|key, value| key == "name" || defaults.get(key) != Some(value));
    fields
}

/// Writes a value as a Python literal.
fn python(value: &Value) -> String {
    match value {
        Value::Null => "None".to_owned(),
        Value::Bool(flag) => if *flag { "True" } else { "False" }.to_owned(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!(
            "'{}'",
            text.replace('\\', "\\\\").replace('\'', "\\'").replace('\n', "\\n")
        ),
        Value::Array(items) => format!("[{}]", items.iter().map(python).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => {
            let pairs = map
                .iter()
                .map(|(key, value)| format!("{}: {}", python(&json!(key)), python(value)));
            format!("{{{}}}", pairs.collect::<Vec<_>>().join(", "))
        }
    }
}

/// Quotes a word for a host line, unless it is plain.
fn quoted(word: &str) -> String {
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
}

fn yaml(value: &Value) -> Result<String, Diagnosis> {
    serde_yaml::to_string(value)
        .map_err(|error| Diagnosis::new(Code::Internal, "the inventory cannot be shown").because(&error))
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
    if let Some(jump) = connect.render_jump() {
        put("jump", json!(jump));
    } else if let Some(Proxy::Command(command)) = &connect.ssh.proxy {
        put("proxyCommand", json!(command));
    }
    put("become", json!(connect.become_root));
    if connect.connection != Connection::default() {
        put("connection", json!(connect.connection.name()));
    }
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
