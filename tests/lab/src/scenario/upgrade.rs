//! A setting of the ingress proxy is changed by another run of install, which replaces all its pods, while clients outside the cluster
//! send requests through every node: none is lost.

use super::{Checks, KUBECTL, Stage};
use crate::lab::{Lab, Machine};
use crate::operator::{BUNDLE, CLUSTER};
use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Pause between two requests of a client: ten clients then ask some 500 times a second, which the machines of a small host bear.
const PAUSE: Duration = Duration::from_millis(10);
/// Longest wait for anything of one request. A healthy one takes milliseconds, also beside an upgrade on two cores.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the old pod of the last node still drains after the new one is ready.
const DRAIN: Duration = Duration::from_secs(5);

/// Rolls all ingress pods while requests are sent.
pub fn show(stage: &Stage<'_>, checks: &mut Checks) {
    checks.check(
        "a changed setting replaces all ingress pods under load without a lost request",
        || roll(stage),
    );
}

/// What one client saw.
#[derive(Default)]
struct Seen {
    requests: usize,
    lost: Vec<String>,
}

/// Whether a client keeps its connection as long as it may.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Connections {
    Kept,
    OnePerRequest,
}

fn roll(stage: &Stage<'_>) -> Result<()> {
    let lab = stage.lab;
    stage
        .operator
        .write_cluster(|cluster| cluster["ingress"] = json!({ "accessLog": "json" }))?;
    let first = lab.machine("cp-1")?;
    let before = pods(lab, first)?;
    let stop = AtomicBool::new(false);
    let members = lab.members();
    let (rolled, seen) = std::thread::scope(|scope| {
        let stop = &stop;
        let kinds = [Connections::Kept, Connections::OnePerRequest];
        let clients: Vec<_> = members
            .iter()
            .flat_map(|machine| kinds.map(|kind| scope.spawn(move || client(machine, kind, stop))))
            .collect();
        let rolled = stage.operator.landfall(&["install", "-i", CLUSTER, BUNDLE]);
        std::thread::sleep(DRAIN);
        stop.store(true, Ordering::SeqCst);
        let seen: Vec<_> = clients.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        (rolled, seen)
    });
    let rolled = rolled?.expect(0)?;
    println!(
        "lab: install with a changed setting took {:.1} s",
        rolled.took.as_secs_f32()
    );
    let mut all = Seen::default();
    for client in seen {
        let Ok(client) = client else {
            bail!("a client broke off")
        };
        all.requests += client.requests;
        all.lost.extend(client.lost);
    }
    println!(
        "lab: {} requests during the rollout, {} lost",
        all.requests,
        all.lost.len()
    );
    let after = pods(lab, first)?;
    ensure!(
        after.len() == members.len(),
        "{} pods on {} nodes: {after:?}",
        after.len(),
        members.len()
    );
    let stayed: Vec<_> = after.iter().filter(|pod| before.contains(pod)).collect();
    ensure!(stayed.is_empty(), "not replaced: {stayed:?}");
    ensure!(all.requests > 1000, "only {} requests were sent", all.requests);
    let shown: Vec<_> = all.lost.iter().take(20).map(String::as_str).collect();
    ensure!(
        all.lost.is_empty(),
        "{} of {} requests lost:\n{}",
        all.lost.len(),
        all.requests,
        shown.join("\n")
    );
    let handed = lab.shell(
        first,
        &format!("{KUBECTL} -n kube-system logs -l app.kubernetes.io/name=landfall-ingress --tail=-1 --prefix | grep -c 'connections are taken here now'"),
    )?;
    ensure!(
        handed.trim() == members.len().to_string(),
        "{} of {} pods took over their listeners; the others listened by themselves",
        handed.trim(),
        members.len()
    );
    let lines = lab.shell(
        first,
        &format!("{KUBECTL} -n kube-system logs -l app.kubernetes.io/name=landfall-ingress --tail=-1 | grep -c '\"status\":200'"),
    );
    lines.context("the pods do not log as the changed setting says")?;
    Ok(())
}

/// Names of the proxies that are not on their way out.
fn pods(lab: &Lab, first: &Machine) -> Result<Vec<String>> {
    let template = "{{range .items}}{{if not .metadata.deletionTimestamp}}{{.metadata.name}}{{\"\\n\"}}{{end}}{{end}}";
    let line = format!(
        "{KUBECTL} -n kube-system get pods -l app.kubernetes.io/name=landfall-ingress -o go-template='{template}'; rm -rf /tmp/kube"
    );
    Ok(lab.shell(first, &line)?.lines().map(str::to_owned).collect())
}

fn client(machine: &Machine, kind: Connections, stop: &AtomicBool) -> Seen {
    let (mut seen, mut kept) = (Seen::default(), None);
    while !stop.load(Ordering::SeqCst) {
        seen.requests += 1;
        let reused = kept.is_some();
        match request(machine, kept.take(), kind) {
            Ok(connection) => kept = connection,
            Err(error) => seen.lost.push(format!("{} (kept: {reused}): {error:#}", machine.name)),
        }
        std::thread::sleep(PAUSE);
    }
    seen
}

/// One request without a second try; returns the connection if it may be used again.
fn request(machine: &Machine, kept: Option<TcpStream>, kind: Connections) -> Result<Option<TcpStream>> {
    let mut stream = match kept {
        Some(stream) => stream,
        None => {
            let address = format!("{}:80", machine.address).parse().context("no address")?;
            let stream = TcpStream::connect_timeout(&address, PATIENCE).context("connecting")?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            stream.set_nodelay(true)?;
            stream
        }
    };
    let close = match kind {
        Connections::Kept => "",
        Connections::OnePerRequest => "Connection: close\r\n",
    };
    let head = format!("GET / HTTP/1.1\r\nHost: test.nginx.com\r\n{close}\r\n");
    stream.write_all(head.as_bytes()).context("sending")?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    let (head, length, body) = loop {
        match stream.read(&mut buffer).context("receiving")? {
            0 => bail!("the connection ended after {} bytes", answer.len()),
            read => answer.extend(&buffer[..read]),
        }
        if let Some(split) = answer.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&answer[..split]).to_ascii_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
            let length = length.context("an answer without its length")?;
            if answer.len() >= split + 4 + length {
                break (head, length, answer.split_off(split + 4));
            }
        }
    };
    ensure!(
        head.starts_with("http/1.1 200"),
        "{}",
        head.lines().next().unwrap_or_default()
    );
    let page = String::from_utf8_lossy(&body);
    ensure!(
        body.len() == length && page.contains("Welcome to nginx!"),
        "another page: {page}"
    );
    let last = kind == Connections::OnePerRequest || head.lines().any(|line| line == "connection: close");
    Ok((!last).then_some(stream))
}
