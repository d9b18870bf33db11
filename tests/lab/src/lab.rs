//! One lab: starts and removes its network and its machines.

use crate::host::{make_key, root, run, sudo};
use crate::image;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

/// What a machine is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A future control plane.
    ControlPlane,
    /// A future worker.
    Worker,
    /// Where landfall runs: no root, no kubectl.
    Operator,
    /// No member of the cluster, with static routes into it.
    Outside,
}

/// How many machines.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// Control planes.
    pub control_planes: u8,
    /// Workers.
    pub workers: u8,
}

/// One machine.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Host name.
    pub name: String,
    /// What it is for.
    pub purpose: Purpose,
    /// IPv4 address.
    pub address: String,
    /// Whether root may not log in, and sudo asks for a password; such a machine lacks network tools too.
    pub bare: bool,
    container: String,
}

/// Password of the user `ops` on every lab machine. No secret: the machines are reachable from this host alone.
pub const OPS_PASSWORD: &str = "correct horse battery";

/// Kernel settings that the kubelet writes and that all containers share with the host: set before, so that nodes differ in nothing.
const HOST_SETTINGS: [(&str, &str); 5] = [
    ("vm/overcommit_memory", "1"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// A lab.
#[derive(Debug, Clone)]
pub struct Lab {
    name: String,
    subnet: String,
    cache: PathBuf,
    machines: Vec<Machine>,
}

impl Lab {
    /// Describes a lab; nothing is started. `net` is the third number of its network 10.90.`net`.0/24.
    pub fn new(name: &str, net: u8, size: Size, cache: &Path) -> Self {
        let mut machines = Vec::new();
        let mut add = |name: String, purpose, host: u8, bare| {
            machines.push(Machine {
                container: String::new(),
                address: format!("10.90.{net}.{host}"),
                name,
                purpose,
                bare,
            });
        };
        for i in 1..=size.control_planes {
            add(format!("cp-{i}"), Purpose::ControlPlane, 10 + i, i == 3);
        }
        for i in 1..=size.workers {
            add(format!("w-{i}"), Purpose::Worker, 20 + i, false);
        }
        add("operator".to_owned(), Purpose::Operator, 2, false);
        add("outside".to_owned(), Purpose::Outside, 3, false);
        for machine in &mut machines {
            machine.container = format!("landfall-{name}-{}", machine.name);
        }
        Self {
            name: name.to_owned(),
            subnet: format!("10.90.{net}.0/24"),
            cache: cache.join("lab"),
            machines,
        }
    }

    /// Makes every machine an ordinary one, with root's login and network tools.
    #[must_use]
    pub fn without_bare(mut self) -> Self {
        for machine in &mut self.machines {
            machine.bare = false;
        }
        self
    }

    /// Every machine.
    pub fn machines(&self) -> &[Machine] {
        &self.machines
    }

    /// Machines that become members of the cluster, control planes first.
    pub fn members(&self) -> Vec<&Machine> {
        let member = |m: &&Machine| matches!(m.purpose, Purpose::ControlPlane | Purpose::Worker);
        self.machines.iter().filter(member).collect()
    }

    /// The machine of that name.
    pub fn machine(&self, name: &str) -> Result<&Machine> {
        let found = self.machines.iter().find(|m| m.name == name);
        found.with_context(|| format!("the lab has no machine {name}"))
    }

    /// Network of the lab.
    pub fn subnet(&self) -> &str {
        &self.subnet
    }

    /// This host's address on the network.
    pub fn gateway(&self) -> String {
        format!("{}.1", self.subnet.rsplit_once('.').map_or("", |(net, _)| net))
    }

    /// Folder on this host that the operator sees as `/srv`.
    pub fn share(&self) -> PathBuf {
        self.cache.join(format!("share-{}", self.name))
    }

    fn network(&self) -> String {
        format!("landfall-{}", self.name)
    }

    /// Name of the network's bridge on this host.
    pub fn bridge(&self) -> Result<String> {
        let network = self.network();
        let name = sudo(
            "podman",
            &["network", "inspect", "--format", "{{.NetworkInterface}}", &network],
        )?;
        Ok(name.trim().to_owned())
    }

    /// Builds the machines' images, unless they are there. Blocks for some minutes.
    pub fn build_images(&self) -> Result<()> {
        image::build(&self.cache)
    }

    /// Starts everything anew: images are built if they are not there, machines of an earlier lab of that name are removed.
    /// `program` and `bundle` are put where the operator finds them. Blocks until every sshd answers.
    pub fn up(&self, program: &Path, bundle: &Path) -> Result<()> {
        self.build_images()?;
        self.down()?;
        self.preset_kernel()?;
        self.note_cgroups()?;
        self.put(program, bundle)?;
        make_key(&self.key())?;
        let network = self.network();
        sudo(
            "podman",
            &["network", "create", "--internal", "--subnet", &self.subnet, &network],
        )?;
        std::thread::scope(|scope| {
            let started: Vec<_> = self.machines.iter().map(|m| scope.spawn(|| self.create(m))).collect();
            let results = started
                .into_iter()
                .map(|t| t.join().unwrap_or_else(|_| bail!("a starter broke off")));
            results.collect::<Result<Vec<()>>>()
        })?;
        for machine in &self.machines {
            self.await_ssh(machine)?;
        }
        self.lead_outside_in()
    }

    /// Puts program and bundle (again) where the operator finds them, for instance after a build.
    pub fn put(&self, program: &Path, bundle: &Path) -> Result<()> {
        let share = self.share();
        fs::create_dir_all(&share).with_context(|| format!("{} cannot be made", share.display()))?;
        for (from, to) in [(program, "landfall"), (bundle, "landfall.bundle")] {
            let to = share.join(to);
            let part = to.with_extension("part");
            let linked = fs::remove_file(&part)
                .or(Ok::<(), std::io::Error>(()))
                .and_then(|()| fs::hard_link(from, &part));
            if linked.is_err() {
                fs::copy(from, &part).with_context(|| format!("{} cannot be copied", from.display()))?;
            }
            fs::rename(&part, &to).with_context(|| format!("{} cannot be made", to.display()))?;
        }
        // The operator did not build the bundle: the builder's public key is brought to its folder of trusted keys.
        let trusted = share.join("trusted.d");
        fs::create_dir_all(&trusted).with_context(|| format!("{} cannot be made", trusted.display()))?;
        let public = bundle.with_extension("pub");
        // Bundles of old programs are not signed; their programs ask for no signature.
        if public.exists() {
            let to = trusted.join("builder.pub");
            fs::copy(&public, &to).with_context(|| format!("{} cannot be made", to.display()))?;
        }
        Ok(())
    }

    /// Removes machines, their disks and the network, and gives the host its own kernel settings back.
    pub fn down(&self) -> Result<()> {
        let list = [
            "ps",
            "--all",
            "--quiet",
            "--filter",
            &format!("name=^landfall-{}-", self.name),
        ];
        for container in sudo("podman", &list)?.lines() {
            sudo("podman", &["rm", "--force", "--time", "0", container])?;
        }
        let volumes = [
            "volume",
            "ls",
            "--quiet",
            "--filter",
            &format!("name=^landfall-{}-", self.name),
        ];
        for volume in sudo("podman", &volumes)?.lines() {
            sudo("podman", &["volume", "rm", "--force", volume])?;
        }
        if sudo("podman", &["network", "exists", &self.network()]).is_ok() {
            sudo("podman", &["network", "rm", "--force", &self.network()])?;
        }
        self.remove_cgroups()?;
        self.restore_kernel()
    }

    /// podman shows the host's own named hierarchy to every machine, and what systemd and the kubelet make there outlives them.
    fn note_cgroups(&self) -> Result<()> {
        fs::write(self.cgroup_note(), cgroups()?).context("the host's cgroups cannot be noted")
    }

    fn cgroup_note(&self) -> PathBuf {
        self.cache.join(format!("cgroups-{}", self.name))
    }

    /// Removes the cgroups that came with the lab. One that is in use belongs to another lab and stays.
    fn remove_cgroups(&self) -> Result<()> {
        let Ok(note) = fs::read_to_string(self.cgroup_note()) else {
            return Ok(());
        };
        let before: BTreeSet<&str> = note.lines().collect();
        let now = cgroups()?;
        // A lab that was cut off may have left pods' groups, which the next one's nodes would take for somebody else's.
        let stays = |path: &&str| before.contains(path) && !path.contains("/kubepods");
        let mut new: Vec<&str> = now.lines().filter(|path| !stays(path)).collect();
        new.sort_by_key(|path| std::cmp::Reverse(path.len()));
        if !new.is_empty() {
            let mut rmdir = root("xargs");
            rmdir.args(["--no-run-if-empty", "rmdir", "--"]);
            let mut child = rmdir.stdin(Stdio::piped()).stderr(Stdio::null()).spawn()?;
            let mut stdin = child.stdin.take().context("xargs takes no input")?;
            stdin.write_all(new.join("\n").as_bytes())?;
            drop(stdin);
            child.wait()?;
        }
        fs::remove_file(self.cgroup_note()).context("the note of cgroups cannot be removed")
    }

    fn kernel_note(&self) -> PathBuf {
        self.cache.join(format!("kernel-{}", self.name))
    }

    fn preset_kernel(&self) -> Result<()> {
        let mut note = String::new();
        for (name, value) in HOST_SETTINGS {
            let path = Path::new("/proc/sys").join(name);
            let prior = fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
            writeln!(note, "{name} {}", prior.trim())?;
            set_kernel(name, value)?;
        }
        fs::create_dir_all(&self.cache)?;
        fs::write(self.kernel_note(), note).context("the host's kernel settings cannot be noted")
    }

    fn restore_kernel(&self) -> Result<()> {
        let Ok(note) = fs::read_to_string(self.kernel_note()) else {
            return Ok(());
        };
        for (name, value) in note.lines().filter_map(|line| line.split_once(' ')) {
            set_kernel(name, value)?;
        }
        fs::remove_file(self.kernel_note()).context("the note of kernel settings cannot be removed")
    }

    /// Private key by which every machine is reached.
    pub(crate) fn key(&self) -> PathBuf {
        self.share().join("key")
    }

    fn create(&self, machine: &Machine) -> Result<()> {
        let image = if machine.bare { image::BARE } else { image::FULL };
        let volume = format!("{}-var:/var", machine.container);
        let share = format!("{}:/srv:ro", self.share().display());
        let mut podman = root("podman");
        podman.args([
            "--runtime",
            "runc",
            "run",
            "--detach",
            "--privileged",
            "--systemd=always",
            "--cgroupns=private",
        ]);
        podman.args(["--name", &machine.container, "--hostname", &machine.name]);
        // The machine's own limits may not be passed by root inside, so they are named lower.
        podman.args(["--ulimit", "nofile=20000:20000", "--ulimit", "nproc=30000:30000"]);
        podman.args(["--tmpfs", "/run", "--tmpfs", "/tmp:exec,mode=1777", "--volume", &volume]);
        if machine.purpose == Purpose::Operator {
            podman.args(["--volume", &share]);
        }
        // podman would write the hosts file again at every start, so the machine has a file of its own.
        podman.args([
            "--no-hosts",
            "--network",
            &self.network(),
            "--ip",
            &machine.address,
            image,
        ]);
        run(&mut podman)?;
        let hosts = format!("127.0.0.1 localhost\n{} {}\n", machine.address, machine.name);
        self.feed(machine, &["sh", "-c", "cat > /etc/hosts"], hosts.as_bytes())?;
        let public = fs::read_to_string(self.key().with_extension("pub")).context("the lab's public key")?;
        let users = ["root", "home/admin", "home/visitor", "home/ops"];
        for home in users {
            let script =
                format!("cat > /{home}/.ssh/authorized_keys && chown --reference=/{home} /{home}/.ssh/authorized_keys");
            self.feed(machine, &["sh", "-c", &script], public.as_bytes())?;
        }
        if machine.purpose == Purpose::Operator {
            self.shell(
                machine,
                "mkdir -p /etc/landfall && ln -s /srv/trusted.d /etc/landfall/trusted.d",
            )?;
            let script = "install -o admin -m 600 /dev/stdin /home/admin/.ssh/id_ed25519";
            self.feed(
                machine,
                &["sh", "-c", script],
                &fs::read(self.key()).context("the lab's key")?,
            )?;
        }
        Ok(())
    }

    fn await_ssh(&self, machine: &Machine) -> Result<()> {
        let at: SocketAddr = format!("{}:22", machine.address).parse()?;
        let end = Instant::now() + Duration::from_secs(60);
        while Instant::now() < end {
            if TcpStream::connect_timeout(&at, Duration::from_secs(1)).is_ok() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("{} does not answer on its SSH port after 60 s", machine.name)
    }

    /// The machine outside gets the static routes of the scenario, by the first control plane.
    fn lead_outside_in(&self) -> Result<()> {
        let outside = self.machine("outside")?;
        let gateway = self.machine("cp-1")?.address.clone();
        for network in ["10.244.0.0/16", "10.96.0.0/12"] {
            self.exec(outside, &["ip", "route", "replace", network, "via", &gateway])?;
        }
        Ok(())
    }

    /// Runs a command on a machine as root; returns what it wrote. Fails when it fails.
    pub fn exec(&self, machine: &Machine, command: &[&str]) -> Result<String> {
        self.feed(machine, command, &[])
    }

    /// Runs a shell line on a machine as root.
    pub fn shell(&self, machine: &Machine, line: &str) -> Result<String> {
        self.exec(machine, &["sh", "-c", line])
    }

    /// Runs a command on a machine as root with `input`.
    pub fn feed(&self, machine: &Machine, command: &[&str], input: &[u8]) -> Result<String> {
        let output = self.output(machine, "root", command, input)?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let words = tail(&format!("{text}\n{}", String::from_utf8_lossy(&output.stderr)));
        let name = &machine.name;
        ensure!(
            output.status.success(),
            "{name} {}: {}\n{words}",
            command.join(" "),
            output.status
        );
        Ok(text)
    }

    /// Runs a command on a machine as `user`; returns everything, whatever its status.
    pub fn output(&self, machine: &Machine, user: &str, command: &[&str], input: &[u8]) -> Result<Output> {
        let mut podman = self.podman_exec(machine, user, command);
        let mut child = podman
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A command that reads nothing closes its input.
            let _ = stdin.write_all(input);
        }
        Ok(child.wait_with_output()?)
    }

    /// A command on a machine, not yet started.
    pub fn podman_exec(&self, machine: &Machine, user: &str, command: &[&str]) -> std::process::Command {
        let home = if user == "root" {
            "/root".to_owned()
        } else {
            format!("/home/{user}")
        };
        let mut podman = root("podman");
        podman.args(["exec", "--interactive", "--user", user, "--workdir", &home]);
        podman.args(["--env", &format!("HOME={home}"), "--env", &format!("USER={user}")]);
        podman.arg(&machine.container).args(command);
        podman
    }

    /// Process id, on this host, of the machine's first process.
    pub fn pid(&self, machine: &Machine) -> Result<u32> {
        let pid = sudo("podman", &["inspect", "--format", "{{.State.Pid}}", &machine.container])?;
        let pid: u32 = pid.trim().parse()?;
        ensure!(pid != 0, "{} does not run", machine.name);
        Ok(pid)
    }

    /// Cuts the power: every process of the machine is gone at once.
    pub fn cut_power(&self, machine: &Machine) -> Result<()> {
        sudo("podman", &["kill", "--signal", "KILL", &machine.container])?;
        sudo("podman", &["wait", &machine.container]).map(drop)
    }

    /// The folder on this host that holds a machine's `/var`, also while it is off.
    pub fn var(&self, machine: &Machine) -> Result<PathBuf> {
        let volume = format!("{}-var", machine.container);
        let path = sudo("podman", &["volume", "inspect", "--format", "{{.Mountpoint}}", &volume])?;
        Ok(PathBuf::from(path.trim()))
    }

    /// Gives a machine its power back.
    pub fn power_on(&self, machine: &Machine) -> Result<()> {
        sudo("podman", &["start", &machine.container]).map(drop)
    }
}

/// The host's cgroups of systemd's named hierarchy (cgroup v1), a line each.
fn cgroups() -> Result<String> {
    let hierarchy = Path::new("/sys/fs/cgroup/systemd");
    if !hierarchy.exists() {
        return Ok(String::new());
    }
    sudo("find", &["/sys/fs/cgroup/systemd", "-mindepth", "1", "-type", "d"])
}

/// The last lines of what a command wrote.
fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

fn set_kernel(name: &str, value: &str) -> Result<()> {
    let path = format!("/proc/sys/{name}");
    if fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    sudo("sh", &["-c", &format!("echo {value} > {path}")]).map(drop)
}
