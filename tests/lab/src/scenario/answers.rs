//! What the real cluster answers to the questions of `tests/answers`, which the simulation's model answers too.

use super::Stage;
use crate::lab::Lab;
use anyhow::{Context, Result, ensure};
use landfall_test_answers::{Cluster, Condition, Ended, Rights};
use serde_json::Value;

/// Asks the API server of this machine, as the administrator where the first word says so. The rest are curl's words.
const CURL: &str = r#"
umask 077; own=$(mktemp -d); trap 'rm -rf "$own"' EXIT
part() { sed -n "s/.*client-$1-data: //p" /etc/kubernetes/admin.conf | base64 --decode > "$own/$1"; }
case $1 in
    administrator) part certificate; part key; who="--cert $own/certificate --key $own/key";;
    *) who='--oauth2-bearer nobody';;
esac
shift
curl --silent --max-time 20 --cacert /etc/kubernetes/pki/ca.crt $who --write-out '\n%{http_code}' "$@""#;
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
            Rights::Administrator => "administrator",
            Rights::UnknownToken => "nobody",
        };
        let url = format!("https://127.0.0.1:6443{target}");
        let mut command = vec!["sh", "-c", CURL, "curl", who, "--request", method, &url];
        let kind = if method == "PATCH" {
            "Content-Type: application/apply-patch+yaml"
        } else {
            "Content-Type: application/json"
        };
        if body.is_some() {
            command.extend(["--header", kind, "--data-binary", "@-"]);
        }
        let input = body.map(Value::to_string).unwrap_or_default();
        let asked = self
            .lab
            .output(self.lab.machine(by)?, "root", &command, input.as_bytes())?;
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
