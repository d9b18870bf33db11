//! A real cluster, by a kubectl with an administrator's rights.

use super::cluster::{Cluster, NAMESPACE, Proxy};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::process::{Command, Stdio};

/// The proxy's own program, in any of its pods.
const PROGRAM: [&str; 6] = [
    "exec",
    "--stdin",
    "--namespace=kube-system",
    "daemonset/landfall-ingress",
    "--",
    "/landfall-ingress",
];

/// See the module's text.
#[derive(Debug)]
pub struct Kubectl {
    command: Vec<String>,
    nodes: Vec<IpAddr>,
    endpoints: IpAddr,
}

impl Kubectl {
    /// A cluster whose proxies run on these nodes, with the ports of a plain installation, and reach this process at `endpoints`.
    /// `command` is kubectl with what it needs to reach the API. Makes the namespace of the scenarios.
    pub fn new(command: Vec<String>, mut nodes: Vec<IpAddr>, endpoints: IpAddr) -> Result<Self> {
        // As the writer of statuses orders them.
        nodes.sort_by_key(ToString::to_string);
        let cluster = Self {
            command,
            nodes,
            endpoints,
        };
        cluster.apply(&[cluster.namespace()])?;
        Ok(cluster)
    }

    /// Removes the namespace with everything in it.
    pub fn leave(&self) -> Result<()> {
        self.remove(&[self.namespace()])
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

    /// By the Roles that `landfall-ingress rbac` prints.
    fn allow_secrets(&self, ingress: &Value) -> Result<()> {
        let roles = self.run(&[&PROGRAM[..], &["rbac", "-"]].concat(), &ingress.to_string())?;
        ensure!(
            roles.contains("resourceNames"),
            "landfall-ingress rbac names no Secret:\n{roles}"
        );
        self.run(&["apply", "--server-side", "--filename=-"], &roles).map(drop)
    }

    fn read(&self, kind: &str, namespace: &str, name: &str) -> Result<Value> {
        let text = self.run(&["get", kind, name, "--namespace", namespace, "--output=json"], "")?;
        serde_json::from_str(&text).context("kubectl's answer is no JSON")
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
