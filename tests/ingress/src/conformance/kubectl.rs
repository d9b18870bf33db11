//! A real cluster, by a kubectl with an administrator's rights.

use super::cluster::{Cluster, ENDING, NAMESPACE, Proxy};
use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};

/// See the module's text.
#[derive(Debug)]
pub struct Kubectl {
    command: Vec<String>,
    nodes: Vec<IpAddr>,
    endpoints: IpAddr,
    login: String,
}

impl Kubectl {
    /// A cluster whose proxies run on these nodes, with the ports of a plain installation, and reach this process at `endpoints`.
    /// `command` is kubectl with what it needs to reach the API. Makes the namespace of the scenarios.
    pub fn new(command: Vec<String>, mut nodes: Vec<IpAddr>, endpoints: IpAddr) -> Result<Self> {
        // As the writer of statuses orders them.
        nodes.sort_by_key(ToString::to_string);
        let mut cluster = Self {
            command,
            nodes,
            endpoints,
            login: String::new(),
        };
        cluster.login = cluster.read_login()?;
        cluster.apply(&[cluster.namespace()])?;
        Ok(cluster)
    }

    /// Removes the namespace with everything in it.
    pub fn leave(&self) -> Result<()> {
        self.remove(&[self.namespace()])
    }

    /// The dashboards' login as a field of a request; empty when there is none.
    fn read_login(&self) -> Result<String> {
        let get = ["get", "secret", "landfall-dashboard", "--namespace=kube-system"];
        let text = self.run(&[&get[..], &["--ignore-not-found", "--output=json"]].concat(), "")?;
        if text.trim().is_empty() {
            return Ok(String::new());
        }
        let secret: Value = serde_json::from_str(&text).context("kubectl's answer is no JSON")?;
        let value = |name: &str| STANDARD.decode(secret["data"][name].as_str().unwrap_or_default());
        let both = [value("username")?, b":".to_vec(), value("password")?].concat();
        Ok(format!("Authorization: Basic {}\r\n", STANDARD.encode(both)))
    }

    fn namespace(&self) -> Value {
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } })
    }

    fn run(&self, arguments: &[&str], input: &str) -> Result<String> {
        let (program, before) = self.command.split_first().context("no command for kubectl is given")?;
        let mut child = Command::new(program)
            .args(before)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{program} cannot be started"))?;
        let mut stdin = child.stdin.take().context("kubectl takes no input")?;
        // One that reads nothing ends by itself and says why.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "kubectl {}: {}\n{}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Cluster for Kubectl {
    fn proxies(&self) -> Vec<Proxy> {
        let at = |node: &IpAddr, port| SocketAddr::new(*node, port);
        let proxy = |node| Proxy {
            http: at(node, 80),
            https: at(node, 443),
            admin: at(node, 8080),
        };
        self.nodes.iter().map(proxy).collect()
    }

    fn login(&self) -> String {
        self.login.clone()
    }

    fn published(&self) -> Vec<IpAddr> {
        self.nodes.clone()
    }

    fn endpoints(&self) -> IpAddr {
        self.endpoints
    }

    fn apply(&self, objects: &[Value]) -> Result<()> {
        let arguments = ["apply", "--server-side", "--field-manager=conformance", "--filename=-"];
        self.run(&arguments, &list(objects)).map(drop)
    }

    /// As `landfall ingress allow` does.
    fn allow_secrets(&self, _: &Value) -> Result<()> {
        let role = "landfall-ingress-secrets";
        let binding = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": { "name": role, "namespace": NAMESPACE },
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role },
            "subjects": [{ "kind": "ServiceAccount", "name": "landfall-ingress", "namespace": "kube-system" }] });
        self.apply(&[binding])
    }

    fn read(&self, kind: &str, namespace: &str, name: &str) -> Result<Value> {
        let text = self.run(&["get", kind, name, "--namespace", namespace, "--output=json"], "")?;
        serde_json::from_str(&text).context("kubectl's answer is no JSON")
    }

    fn begin_to_end(&self) -> Result<()> {
        self.run(&["delete", "namespace", ENDING, "--wait=false"], "").map(drop)
    }

    fn end(&self, objects: &[Value]) -> Result<()> {
        let patch = r#"{"metadata":{"finalizers":null}}"#;
        for held in objects
            .iter()
            .filter(|object| object["metadata"]["finalizers"].is_array())
        {
            let name = held["metadata"]["name"].as_str().unwrap_or_default();
            let place = ["ingress", name, "--namespace", ENDING];
            self.run(
                &[&["patch"][..], &place, &["--type=merge", "--patch", patch]].concat(),
                "",
            )?;
        }
        self.run(&["wait", "--for=delete", "namespace", ENDING, "--timeout=60s"], "")
            .map(drop)
    }

    fn remove(&self, objects: &[Value]) -> Result<()> {
        self.run(
            &["delete", "--ignore-not-found", "--wait=false", "--filename=-"],
            &list(objects),
        )
        .map(drop)
    }
}

fn list(objects: &[Value]) -> String {
    json!({ "apiVersion": "v1", "kind": "List", "items": objects }).to_string()
}
