//! The baseline of the install benchmark: what a careful administrator's shell script does with the same programs and images.
//!
//! Like such a script it runs `ssh` and `scp` of the machine it is started on, here the host of the lab: [`Materials`] are what
//! lies ready before the clock starts, [`install`] is what the clock sees. It pushes and imports on all nodes at once, runs kubeadm
//! on one control plane after the other and on all workers at once, and ends when every node answers for the sample.

mod config;
mod materials;
mod node_files;
mod remote;

pub use materials::Materials;

use crate::host::run;
use crate::lab::{Lab, Machine, Purpose};
use anyhow::{Context, Result, bail, ensure};
use remote::Remote;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

/// kubectl with the administrator's rights, on the first control plane.
const KUBECTL: &str = "kubectl --kubeconfig /etc/kubernetes/admin.conf";
/// How long every node may take to answer for the sample. The slowest seen took 22 s; a node that needs longer never will.
const ANSWER_WITHIN: Duration = Duration::from_secs(180);

/// One part of the installation.
#[derive(Debug, Clone)]
pub struct Lap {
    /// What was done.
    pub name: String,
    /// How long it took.
    pub took: Duration,
}

struct Clock {
    last: Instant,
    laps: Vec<Lap>,
}

impl Clock {
    fn lap(&mut self, name: impl Into<String>) {
        let now = Instant::now();
        let (name, took) = (name.into(), now - self.last);
        println!("hand: {name} {:.1} s", took.as_secs_f32());
        self.laps.push(Lap { name, took });
        self.last = now;
    }
}

/// Installs on the members of a lab whose machines all let root log in; returns how long each part took.
pub fn install(lab: &Lab, materials: &Materials) -> Result<Vec<Lap>> {
    let members = lab.members();
    let is_control_plane = |m: &&&Machine| m.purpose == Purpose::ControlPlane;
    let control_planes: Vec<_> = members.iter().filter(is_control_plane).copied().collect();
    let workers: Vec<_> = members.iter().filter(|m| !is_control_plane(m)).copied().collect();
    let (first, further) = control_planes.split_first().context("the lab has no control plane")?;
    let remote = Remote::new(lab.key());
    let mut clock = Clock {
        last: Instant::now(),
        laps: Vec::new(),
    };
    pack(materials)?;
    clock.lap("staged");
    at_once(&members, |machine| push(&remote, machine, materials))?;
    clock.lap("pushed-and-imported");
    remote.feed(first, "cat > /root/init.yaml", &config::init(first, materials))?;
    remote.on(first, "kubeadm init --config /root/init.yaml --upload-certs")?;
    clock.lap("first-control-plane");
    let apply = format!("{KUBECTL} apply -f -");
    remote.feed(first, &apply, &config::flannel(materials))?;
    for (machine, number) in further.iter().zip(2..) {
        join(&remote, machine, first)?;
        clock.lap(format!("control-plane-{number}"));
    }
    at_once(&workers, |machine| join(&remote, machine, first))?;
    clock.lap("workers");
    for machine in &members {
        let cidr = format!("{KUBECTL} get node {} -o jsonpath={{.spec.podCIDR}}", machine.name);
        let cidr = remote.on(first, &cidr)?;
        ensure!(!cidr.trim().is_empty(), "{} has no podCIDR", machine.name);
        let write = "mkdir -p /etc/cni/net.d && cat > /etc/cni/net.d/10-lab.conflist";
        remote.feed(machine, write, &config::cni(cidr.trim()))?;
    }
    remote.feed(first, &apply, &config::sample(materials))?;
    remote.on(
        first,
        &format!(
            "{KUBECTL} wait --for=condition=Ready node --all --timeout=180s && \
             {KUBECTL} rollout status deployment/nginx --timeout=180s && \
             {KUBECTL} -n kube-system rollout status deployment/coredns --timeout=180s"
        ),
    )?;
    clock.lap("sample-and-dns-ready");
    let end = Instant::now() + ANSWER_WITHIN;
    for machine in &members {
        await_sample(machine, end)?;
    }
    clock.lap("node-port-on-all");
    Ok(clock.laps)
}

/// Packs everything but the images into one archive.
fn pack(materials: &Materials) -> Result<()> {
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(&materials.root).arg("-cf").arg(&materials.archive);
    run(tar.args(["etc", "opt", "usr"])).map(drop)
}

fn push(remote: &Remote, machine: &Machine, materials: &Materials) -> Result<()> {
    remote.copy(machine, &[&materials.archive, &materials.images], "/var/")?;
    let archive = "/var/stage.tar";
    remote.on(
        machine,
        &format!(
            "set -e; tar -C / --no-same-owner --no-overwrite-dir -xf {archive}; systemctl daemon-reload; systemctl enable -q --now containerd; \
             systemctl enable -q kubelet; ip route add {services} dev eth0; ctr -n k8s.io images import /var/images.tar; \
             rm {archive} /var/images.tar",
            services = config::SERVICES
        ),
    )?;
    Ok(())
}

fn join(remote: &Remote, machine: &Machine, first: &Machine) -> Result<()> {
    remote.feed(machine, "cat > /root/join.yaml", &config::join(machine, first))?;
    remote.on(machine, "kubeadm join --config /root/join.yaml").map(drop)
}

/// Does the same on several machines side by side; fails with the first failure in their order.
fn at_once(machines: &[&Machine], work: impl Fn(&Machine) -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let works: Vec<_> = machines.iter().map(|m| scope.spawn(|| work(m))).collect();
        let results = works
            .into_iter()
            .map(|w| w.join().unwrap_or_else(|_| bail!("work on a machine broke off")));
        results.collect()
    })
}

/// Asks a node's NodePort until nginx's page comes.
fn await_sample(machine: &Machine, end: Instant) -> Result<()> {
    let at: SocketAddr = format!("{}:{}", machine.address, config::NODE_PORT).parse()?;
    while Instant::now() < end {
        if ask(at).is_ok_and(|page| page.contains("Welcome to nginx")) {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(200));
    }
    bail!("{} does not answer for the sample", machine.name)
}

fn ask(at: SocketAddr) -> std::io::Result<String> {
    let limit = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&at, limit)?;
    stream.set_read_timeout(Some(limit))?;
    stream.write_all(b"GET / HTTP/1.0\r\nHost: sample\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page)
}
