//! Runs landfall on the operator's machine, as a user without root.

use crate::lab::{Lab, Machine, OPS_PASSWORD, Purpose};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// The bundle as the operator sees it.
pub const BUNDLE: &str = "/srv/landfall.bundle";
/// The inventory that [`Operator::write_cluster`] writes.
pub const CLUSTER: &str = "cluster.yaml";

/// The result of one command.
#[derive(Debug, Clone)]
pub struct Ended {
    /// The command line, for messages.
    pub command: String,
    /// Exit status; `None` when a signal ended it.
    pub status: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

impl Ended {
    /// Fails, with what was written, unless the exit status is `wanted`.
    pub fn expect(self, wanted: i32) -> Result<Self> {
        let Self {
            command,
            status,
            stdout,
            stderr,
            ..
        } = &self;
        ensure!(
            *status == Some(wanted),
            "{command}: exit status {status:?}, not {wanted}\n{stdout}\n{stderr}"
        );
        Ok(self)
    }

    /// The last line of standard output as JSON: the closing line of `--output json`.
    pub fn result(&self) -> Result<Value> {
        let last = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(last).with_context(|| format!("{}: the last line is no JSON: {last:?}", self.command))
    }
}

/// The operator's machine.
pub struct Operator<'a> {
    lab: &'a Lab,
    machine: &'a Machine,
}

impl<'a> Operator<'a> {
    /// Finds the operator's machine of a lab.
    pub fn of(lab: &'a Lab) -> Result<Self> {
        Ok(Self {
            machine: lab.machine("operator")?,
            lab,
        })
    }

    /// Writes a file into the operator's home folder, readable by its owner alone.
    pub fn write(&self, path: &str, text: &str) -> Result<()> {
        let script = "mkdir -p \"$(dirname \"$1\")\" && umask 077 && cat > \"$1\"";
        let output = self.lab.output(
            self.machine,
            "admin",
            &["sh", "-c", script, "sh", path],
            text.as_bytes(),
        )?;
        ensure!(
            output.status.success(),
            "{path} cannot be written: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    /// Reads a file of the operator's.
    pub fn read(&self, path: &str) -> Result<String> {
        let output = self.lab.output(self.machine, "admin", &["cat", path], &[])?;
        ensure!(
            output.status.success(),
            "{path} cannot be read: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Reads a JSON file of the operator's.
    pub fn read_json(&self, path: &str) -> Result<Value> {
        serde_json::from_str(&self.read(path)?).with_context(|| format!("{path} is no JSON"))
    }

    /// Returns the bytes that have left the operator's machine so far.
    pub fn sent_bytes(&self) -> Result<u64> {
        let counter = "/sys/class/net/eth0/statistics/tx_bytes";
        let text = self.lab.exec(self.machine, &["cat", counter])?;
        text.trim().parse().with_context(|| format!("{counter} holds {text:?}"))
    }

    /// Returns the size of [`BUNDLE`] in bytes.
    pub fn bundle_bytes(&self) -> Result<u64> {
        let text = self
            .lab
            .exec(self.machine, &["stat", "--format=%s", "--dereference", BUNDLE])?;
        text.trim()
            .parse()
            .with_context(|| format!("{BUNDLE} has {text:?} bytes"))
    }

    /// Writes [`CLUSTER`] for the whole lab; `change` may make it invalid.
    pub fn write_cluster(&self, change: impl FnOnce(&mut Value)) -> Result<()> {
        let mut cluster = cluster(self.lab);
        change(&mut cluster);
        // JSON is YAML too.
        self.write(CLUSTER, &format!("nodes: {:#}\n{}", cluster["nodes"], top(&cluster)?))
    }

    /// Writes an Ansible inventory of the same machines.
    pub fn write_ansible(&self, path: &str) -> Result<()> {
        self.write(path, &ansible(self.lab)?)
    }

    /// Runs landfall to its end.
    pub fn landfall(&self, args: &[&str]) -> Result<Ended> {
        self.run(&[&["landfall"], args].concat())
    }

    /// Runs any command to its end, as the operator's user.
    pub fn run(&self, command: &[&str]) -> Result<Ended> {
        let start = Instant::now();
        let output = self.lab.output(self.machine, "admin", command, &[])?;
        Ok(Ended {
            command: command.join(" "),
            status: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            took: start.elapsed(),
        })
    }

    /// Prints the ends of the logs that a command saved of nodes that failed: what a run elsewhere leaves of its cause.
    pub fn show_logs(&self, report: &str) -> Result<()> {
        let script = "cd \"$1/logs\" 2>/dev/null || exit 0; \
                      for log in */kubelet.log */containerd.log */etcd-*; do echo \"== $log\"; tail -n 20 \"$log\" | cut -c -300; done";
        self.show(&["sh", "-c", script, "sh", report]).map(drop)
    }

    /// Runs any command to its end with its output on this terminal.
    pub fn show(&self, command: &[&str]) -> Result<i32> {
        let mut podman = self.lab.podman_exec(self.machine, "admin", command);
        let status = podman.stdin(Stdio::null()).status()?;
        Ok(status.code().unwrap_or(-1))
    }

    /// Starts landfall with `--output json` and returns its events as they come.
    pub fn start(&self, args: &[&str]) -> Result<Running> {
        let command = [&["landfall"], args, &["--output", "json"]].concat();
        let mut podman = self.lab.podman_exec(self.machine, "admin", &command);
        let mut child = podman
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdout = child.stdout.take().context("the command's output is not connected")?;
        let (send, events) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Ok(event) = serde_json::from_str(&line)
                    && send.send(event).is_err()
                {
                    return;
                }
            }
        });
        Ok(Running { child, events })
    }

    /// Kills every landfall process on the operator's machine: no destructor runs, no signal handler sees it.
    pub fn kill(&self, running: Running) -> Result<()> {
        self.lab.exec(self.machine, &["pkill", "-KILL", "-x", "landfall"])?;
        let mut child = running.child;
        child.wait()?;
        Ok(())
    }
}

/// A command that runs.
pub struct Running {
    child: Child,
    events: Receiver<Value>,
}

impl Running {
    /// Waits for an event that `wanted` accepts. Fails when the command ends first, or after `limit`.
    pub fn until(&self, limit: Duration, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let event = self.events.recv_timeout(left);
            let event = event.context("the awaited event did not come")?;
            if wanted(&event) {
                return Ok(event);
            }
        }
    }
}

/// `cluster.yaml`'s content for a lab.
fn cluster(lab: &Lab) -> Value {
    let mut nodes = Vec::new();
    for machine in lab.machines() {
        let role = match machine.purpose {
            Purpose::ControlPlane => "control-plane",
            Purpose::Worker => "worker",
            Purpose::Outside => "outside",
            Purpose::Operator => continue,
        };
        let mut node = json!({ "name": machine.name, "role": role, "host": machine.address });
        if machine.bare {
            node["user"] = json!("ops");
            node["becomePassword"] = json!(OPS_PASSWORD);
        }
        if machine.purpose == Purpose::Outside {
            node["user"] = json!("visitor");
            node["become"] = json!(false);
        }
        nodes.push(node);
    }
    json!({ "name": "lab", "profile": "lab", "nodes": nodes })
}

fn top(cluster: &Value) -> Result<String> {
    let fields = cluster.as_object().context("the cluster is a mapping")?;
    let mut text = String::new();
    for (key, value) in fields.iter().filter(|(key, _)| *key != "nodes") {
        writeln!(text, "{key}: {value}")?;
    }
    Ok(text)
}

/// The same machines as an Ansible inventory in INI form.
pub(crate) fn ansible(lab: &Lab) -> Result<String> {
    let group = |purpose: Purpose, name: &str| -> Result<String> {
        let mut text = format!("[{name}]\n");
        for machine in lab.machines().iter().filter(|m| m.purpose == purpose) {
            write!(text, "{} ansible_host={}", machine.name, machine.address)?;
            if !machine.bare && purpose != Purpose::Outside {
                text.push_str(" ansible_user=root");
            }
            if machine.bare {
                write!(
                    text,
                    " ansible_user=ops ansible_become=true ansible_become_password=\"{OPS_PASSWORD}\""
                )?;
            }
            if purpose == Purpose::Outside {
                write!(text, " ansible_user=visitor ansible_become=false")?;
            }
            text.push('\n');
        }
        Ok(text)
    };
    Ok(format!(
        "{}\n{}\n{}\n[all:vars]\nlandfall={{'name': 'lab', 'profile': 'lab'}}\n",
        group(Purpose::ControlPlane, "kube_control_plane")?,
        group(Purpose::Worker, "kube_node")?,
        group(Purpose::Outside, "outside")?,
    ))
}
