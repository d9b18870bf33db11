//! What the real cluster answers to the questions of `tests/answers`, which the simulation's model answers too.

use super::Stage;
use crate::lab::Lab;
use anyhow::{Context, Result, ensure};
use landfall_test_answers::{Cluster, Condition, Ended, Rights};
use serde_json::Value;

/// curl as the administrator: kubeadm makes this certificate for API servers that ask kubelets, in the group `kubeadm:cluster-admins`.
const CURL: &str = "curl --silent --max-time 20 --cacert /etc/kubernetes/pki/ca.crt --write-out '\n%{http_code}'";
const CERTIFICATE: &str =
    "--cert /etc/kubernetes/pki/apiserver-kubelet-client.crt --key /etc/kubernetes/pki/apiserver-kubelet-client.key";
/// Runs `etcdctl` in the container that runs of the machine's etcd, as the agent does.
const ETCDCTL: &str = r#"
containers=$(ctr -n k8s.io containers list --quiet 'labels."io.kubernetes.pod.namespace"==kube-system,labels."io.kubernetes.container.name"==etcd')
tasks=$(ctr -n k8s.io tasks list | awk '$3 == "RUNNING" { print $1 }')
for container in $containers; do
    for task in $tasks; do
        [ "$container" = "$task" ] && exec ctr -n k8s.io tasks exec --exec-id answers-$$ "$container" etcdctl \
            --endpoints=https://127.0.0.1:2379 --cacert=/etc/kubernetes/pki/etcd/ca.crt \
            --cert=/etc/kubernetes/pki/etcd/healthcheck-client.crt --key=/etc/kubernetes/pki/etcd/healthcheck-client.key "$@"
    done
done
echo 'no etcd runs here' >&2
exit 9"#;

/// Fails unless the cluster answers as recorded. With `LANDFALL_BLESS` set its answers are recorded.
pub(super) fn expect_recorded(stage: &Stage<'_>, condition: Condition) -> Result<()> {
    let answers = landfall_test_answers::ask(&Real { lab: stage.lab }, condition)?;
    if std::env::var_os("LANDFALL_BLESS").is_some() {
        return landfall_test_answers::record(condition, &answers);
    }
    let lines = landfall_test_answers::differences(condition, &answers)?;
    ensure!(
        lines.is_empty(),
        "{} answers differ:\n{}",
        lines.len(),
        lines.join("\n")
    );
    Ok(())
}

struct Real<'a> {
    lab: &'a Lab,
}

impl Cluster for Real<'_> {
    fn api(&self, by: &str, rights: Rights, method: &str, target: &str, body: Option<&Value>) -> Result<(u16, Value)> {
        let who = match rights {
            Rights::Administrator => CERTIFICATE,
            Rights::UnknownToken => "--header 'Authorization: Bearer nobody'",
        };
        let kind = if method == "PATCH" {
            "application/apply-patch+yaml"
        } else {
            "application/json"
        };
        let data = body.map_or_else(String::new, |_| {
            format!("--header 'Content-Type: {kind}' --data-binary @-")
        });
        let line = format!("{CURL} {who} --request {method} {data} 'https://127.0.0.1:6443{target}'");
        let input = body.map(Value::to_string).unwrap_or_default();
        let machine = self.lab.machine(by)?;
        let asked = self
            .lab
            .output(machine, "root", &["sh", "-c", &line], input.as_bytes())?;
        let said = String::from_utf8_lossy(&asked.stdout);
        let (text, status) = said
            .rsplit_once('\n')
            .with_context(|| format!("curl on {by}: {}", String::from_utf8_lossy(&asked.stderr)))?;
        Ok((status.parse()?, serde_json::from_str(text).unwrap_or(Value::Null)))
    }

    fn etcdctl(&self, on: &str, args: &[&str]) -> Result<Ended> {
        let command = [&["sh", "-c", ETCDCTL, "etcdctl"], args].concat();
        let output = self.lab.output(self.lab.machine(on)?, "root", &command, &[])?;
        Ok(Ended {
            ok: output.status.success(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}
