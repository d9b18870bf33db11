//! With the real firewalld of Debian (1.3.3, and 2.3.1 of trixie): the directory that LANDFALL_FIREWALLD names holds a root filesystem of each suite
//! (`cargo xtask test` makes it). The daemon and its D-Bus run in a mount namespace of their own, in the network namespace of the test's thread.

use super::*;
use std::path::PathBuf;
use std::time::Instant;

const SUITES: [&str; 1] = ["bookworm"];
/// The suite with a firewalld that landfall does not write into.
const TOO_NEW: &str = "trixie";

/// What its administrator has decided: 10.0.0.7 is shut out by a zone, 10.0.0.8 by a rule.
const DECIDED: &str = "firewall-cmd --permanent --zone=drop --add-source=10.0.0.7
firewall-cmd --permanent --zone=public --add-rich-rule='rule family=ipv4 source address=10.0.0.8 drop'
firewall-cmd --permanent --zone=work --add-source=10.0.0.6
firewall-cmd --permanent --zone=trusted --add-source=192.0.2.0/24
firewall-cmd --reload";

/// A machine with firewalld.
struct Firewalld {
    machine: Machine,
    system: PathBuf,
    daemon: Child,
}

impl Firewalld {
    fn new(suite: &str, decided: &str) -> Self {
        let roots =
            std::env::var_os("LANDFALL_FIREWALLD").expect("LANDFALL_FIREWALLD names the directory of root filesystems");
        let system = Path::new(&roots).join(suite);
        let machine = Machine::new(Kind {
            make: "true",
            list: "true",
            saved: "",
        });
        let etc = machine.agent.host.at("/etc");
        fs::create_dir_all(&etc).unwrap();
        sh(&format!("cp -a {}/etc/firewalld {}/", system.display(), etc.display()));
        let daemon = Self::start(&system, &etc);
        let firewalld = Self {
            machine,
            system,
            daemon,
        };
        firewalld.wait();
        firewalld.run(decided);
        firewalld
    }

    fn start(system: &Path, etc: &Path) -> Child {
        let script = format!(
            "R={}
             mount --bind {}/firewalld $R/etc/firewalld
             for d in run tmp var/log; do mount -t tmpfs none $R/$d; done
             mount -t proc proc $R/proc; mount --rbind /dev $R/dev
             mkdir -p $R/run/dbus $R/run/firewalld
             chroot $R dbus-daemon --system --fork --nopidfile
             exec chroot $R firewalld --nofork --nopid",
            system.display(),
            etc.display()
        );
        let mut daemon = Command::new("unshare");
        daemon.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", &script]);
        daemon
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    }

    /// Writes programs that run in its root filesystem, and waits until it answers.
    fn wait(&self) {
        for program in ["firewall-cmd", "nft"] {
            let path = self.machine.agent.host.at("/usr/sbin").join(program);
            let _ = fs::remove_file(&path);
            let text = format!(
                "#!/bin/sh\nexport PATH=/usr/sbin:/usr/bin:/sbin:/bin\nexec nsenter --target {} --mount chroot {} {program} \"$@\"\n",
                self.daemon.id(),
                self.system.display()
            );
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        }
        let programs = self.machine.agent.host.at("/usr/sbin");
        let deadline = Instant::now() + Duration::from_secs(60);
        while !Command::new(programs.join("firewall-cmd"))
            .arg("--state")
            .output()
            .unwrap()
            .status
            .success()
        {
            assert!(Instant::now() < deadline, "firewalld does not answer");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Stops it, and starts that of another suite with the same configuration.
    fn upgrade(&mut self, suite: &str) {
        let roots = self.system.parent().unwrap();
        self.system = roots.join(suite);
        self.stop();
        // As it does by itself when it is stopped, not killed.
        sh("nft delete table inet firewalld");
        self.restart();
    }

    fn restart(&mut self) {
        self.stop();
        self.daemon = Self::start(&self.system, &self.machine.agent.host.at("/etc"));
        self.wait();
    }

    fn stop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }

    fn run(&self, script: &str) -> String {
        let programs = self.machine.agent.host.at("/usr/sbin");
        sh(&format!("export PATH={}:$PATH\n{script}", programs.display()))
    }

    /// All that is loaded and saved, in an order of its own.
    fn all(&self) -> Vec<String> {
        let all = self.run(
            "firewall-cmd --list-all-zones; firewall-cmd --list-all-policies; firewall-cmd --permanent --list-all-zones
             firewall-cmd --permanent --list-all-policies; nft list ruleset",
        );
        let mut lines: Vec<String> = all.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    }

    fn files(&self) -> Vec<String> {
        let names = fs::read_dir(self.machine.agent.host.at("/etc/firewalld/policies")).unwrap();
        let mut names: Vec<String> = names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn set(&self, wanted: &Openings) {
        set(&self.machine.agent, wanted).unwrap();
        assert_eq!(self.machine.faults(wanted), [""; 0]);
        assert!(
            !self.run("nft list ruleset").contains(UID),
            "firewalld alone writes into its table"
        );
    }

    fn remove(&self) -> Left {
        let left = remove(&self.machine.agent, &none()).unwrap();
        assert_eq!(self.machine.faults(&none()), [""; 0]);
        left
    }
}

impl Drop for Firewalld {
    fn drop(&mut self) {
        self.stop();
    }
}

fn none() -> Openings {
    Openings {
        accept: vec![],
        ..openings(&[])
    }
}

/// A pod behind `cni0`: a process that holds a network namespace.
fn pod() -> Child {
    let child = Command::new("unshare")
        .args(["-n", "sleep", "300"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let pid = child.id();
    let own = fs::read_link("/proc/thread-self/ns/net").unwrap();
    while fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|theirs| theirs == own) {
        std::thread::sleep(Duration::from_millis(5));
    }
    sh(&format!(
        "ip link add cni0 type bridge; ip addr add 10.244.0.1/24 dev cni0; ip link set cni0 up
         ip link add vethx type veth peer name inside netns {pid}; ip link set vethx master cni0 up
         echo 1 > /proc/sys/net/ipv4/ip_forward
         nsenter -t {pid} -n sh -ec 'ip link set lo up; ip link set inside up; ip addr add 10.244.0.5/24 dev inside; ip route add default via 10.244.0.1'"
    ));
    child
}

/// Says whether a connection from one namespace to an address is taken.
fn connects(pid: u32, to: &str, port: u16) -> bool {
    let script = format!("import socket; s = socket.socket(); s.settimeout(1); s.connect(('{to}', {port}))");
    let mut command = Command::new("nsenter");
    command.args(["-t", &pid.to_string(), "-n", "python3", "-c", &script]);
    command.stderr(Stdio::null()).status().unwrap().success()
}

fn listen(pid: u32, address: &str, port: u16) -> Child {
    let script = format!(
        "import socket, time; s = socket.create_server(('{address}', {port})); print('up', flush=True); time.sleep(300)"
    );
    let mut command = Command::new("nsenter");
    command
        .args(["-t", &pid.to_string(), "-n", "python3", "-c", &script])
        .stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    assert_eq!(line, "up\n");
    child
}

#[test]
#[ignore = "needs a root filesystem with firewalld; cargo xtask test makes it"]
fn members_pods_and_clients_get_through_and_what_was_decided_stays() {
    for suite in SUITES {
        let mut firewalld = Firewalld::new(suite, DECIDED);
        let neighbour = Neighbour::new();
        sh(&format!(
            "nsenter -t {} -n sh -ec 'for n in 6 7 8; do ip addr add 10.0.0.$n/24 dev far; done; ip route add 10.244.0.0/24 via 10.0.0.1'",
            neighbour.0.id()
        ));
        let mut pod = pod();
        let mut served = [
            listen(neighbour.0.id(), "10.0.0.9", 5432),
            listen(pod.id(), "10.244.0.5", 8080),
        ];
        let ports = [2379, 443, 5000];
        let _listeners = ports.map(|port| std::net::TcpListener::bind(("0.0.0.0", port)).unwrap());
        let reached = |last: u8| ports.map(|port| neighbour.reaches(&format!("10.0.0.{last}"), port));
        let before = firewalld.all();
        assert_eq!(
            (reached(2), connects(pod.id(), "10.0.0.9", 5432)),
            ([false; 3], false),
            "{suite}"
        );

        let wanted = openings(&[2, 3]);
        firewalld.set(&wanted);
        for _ in 0..2 {
            assert_eq!(reached(2), [true, true, false], "{suite}: a member");
            assert_eq!(reached(9), [false, true, false], "{suite}: a client");
            assert_eq!(
                reached(6),
                [false, true, false],
                "{suite}: a client in a zone by its address"
            );
            assert_eq!((reached(7), reached(8)), ([false; 3], [false; 3]), "{suite}: shut out");
            assert!(connects(pod.id(), "10.0.0.9", 5432), "{suite}: a pod to the outside");
            assert!(
                !connects(neighbour.0.id(), "10.244.0.5", 8080),
                "{suite}: the outside to a pod"
            );
            assert!(!connects(pod.id(), "10.244.0.1", 5000), "{suite}: a pod to the node");
            firewalld.restart();
            assert_eq!(firewalld.machine.faults(&wanted), [""; 0], "{suite}: after a restart");
        }
        assert_eq!(firewalld.files(), ["landfall-0f1e2d-f.xml", "landfall-0f1e2d-i.xml"]);
        assert!(!firewalld.machine.faults(&none()).is_empty());
        assert_eq!(firewalld.remove(), Left::default());
        assert_eq!((firewalld.all(), firewalld.files()), (before, vec![]), "{suite}");
        assert_eq!(reached(2), [false; 3]);
        for child in served.iter_mut().chain([&mut pod]) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
#[ignore = "needs a root filesystem with firewalld; cargo xtask test makes it"]
fn changes_need_no_reload_and_nothing_that_is_loaded_alone_is_lost() {
    for suite in SUITES {
        let firewalld = Firewalld::new(suite, "true");
        let before = firewalld.all();
        let loaded_alone = "firewall-cmd --add-port=9999/tcp";
        firewalld.run(loaded_alone);
        let has_port = || firewalld.run("firewall-cmd --list-ports").contains("9999/tcp");
        let error = set(&firewalld.machine.agent, &openings(&[2])).unwrap_err().line();
        assert!(
            error.contains("9999/tcp") && error.contains("--runtime-to-permanent"),
            "{error}"
        );
        assert!(firewalld.files().is_empty() && has_port(), "{suite}");
        firewalld.run("firewall-cmd --remove-port=9999/tcp");

        firewalld.set(&openings(&[2]));
        firewalld.run(loaded_alone);
        for wanted in [openings(&[2, 3]), openings(&[3])] {
            assert!(!firewalld.machine.faults(&wanted).is_empty(), "{suite}");
            firewalld.set(&wanted);
        }
        // Somebody takes one of ours away, and shuts an address out by a zone.
        for change in [
            "firewall-cmd --policy=landfall-0f1e2d-i --remove-rich-rule='rule family=ipv4 port port=443 protocol=tcp accept'",
            "firewall-cmd --permanent --policy=landfall-0f1e2d-f --remove-rich-rule='rule family=ipv4 source address=10.244.0.0/16 accept'",
            "firewall-cmd --zone=drop --add-source=10.0.0.7; firewall-cmd --permanent --zone=drop --add-source=10.0.0.7",
        ] {
            firewalld.run(change);
            assert!(
                !firewalld.machine.faults(&openings(&[3])).is_empty(),
                "{suite}: {change}"
            );
            firewalld.set(&openings(&[3]));
        }
        assert!(has_port(), "{suite}: nothing was loaded anew");

        let left = firewalld.remove();
        assert_eq!((left.residue.len(), left.notes.len()), (0, 2), "{left:?}");
        assert!(has_port() && firewalld.files().is_empty(), "{suite}");
        firewalld.run("firewall-cmd --permanent --zone=drop --remove-source=10.0.0.7; firewall-cmd --reload");
        assert_eq!(firewalld.all(), before, "{suite}");
    }
}

#[test]
#[ignore = "needs a root filesystem with firewalld; cargo xtask test makes it"]
fn what_firewalld_does_not_take_and_what_is_of_others_stays_as_it_was() {
    let firewalld = Firewalld::new("bookworm", "true");
    let agent = &firewalld.machine.agent;
    let own = openings(&[2]);

    // A reload would fail by what others have saved.
    let zones = agent.host.at("/etc/firewalld/zones/mine.xml");
    fs::write(&zones, "<zone><port port=\"no\" protocol=\"tcp\"/></zone>").unwrap();
    assert!(set(agent, &own).is_err() && firewalld.files().is_empty());
    fs::remove_file(&zones).unwrap();

    let theirs = agent.host.at("/etc/firewalld/policies/landfall-0f1e2d-i.xml");
    let text = "<policy target=\"CONTINUE\"><description>mine</description><ingress-zone name=\"ANY\"/><egress-zone name=\"HOST\"/></policy>\n";
    fs::write(&theirs, text).unwrap();
    assert!(matches!(set(agent, &own), Err(AgentError::Foreign { .. })));
    assert_eq!(remove(agent, &none()).unwrap(), Left::default());
    assert_eq!(fs::read_to_string(&theirs).unwrap(), text);
    fs::remove_file(&theirs).unwrap();

    // It is stopped, and its package is gone: the files go all the same.
    let mut firewalld = firewalld;
    firewalld.set(&own);
    firewalld.stop();
    sh("nft flush ruleset");
    assert_eq!(
        firewalld.machine.faults(&own),
        [""; 0],
        "nothing drops, and the policies stay for its next start"
    );
    assert_eq!(firewalld.files().len(), 2);
    fs::remove_file(firewalld.machine.agent.host.at("/usr/sbin/firewall-cmd")).unwrap();
    assert_eq!(remove(&firewalld.machine.agent, &none()).unwrap(), Left::default());
    assert!(firewalld.files().is_empty());
}

#[test]
#[ignore = "needs a root filesystem with firewalld; cargo xtask test makes it"]
fn what_is_loaded_and_not_saved_is_found_wherever_it_is() {
    for suite in SUITES {
        let firewalld = Firewalld::new(
            suite,
            "firewall-cmd --permanent --new-ipset=banned --type=hash:ip; firewall-cmd --permanent --new-policy=mine; firewall-cmd --reload",
        );
        let differences = || crate::facts::firewalld_differences(&firewalld.machine.agent).unwrap();
        assert_eq!(differences(), [""; 0], "{suite}");
        for (make, undo) in [
            (
                "--zone=internal --add-service=http",
                "--zone=internal --remove-service=http",
            ),
            (
                "--ipset=banned --add-entry=10.0.0.9",
                "--ipset=banned --remove-entry=10.0.0.9",
            ),
            ("--policy=mine --add-port=7/tcp", "--policy=mine --remove-port=7/tcp"),
            (
                "--zone=internal --add-interface=eth5",
                "--zone=internal --remove-interface=eth5",
            ),
            ("--permanent --add-port=7/tcp", "--permanent --remove-port=7/tcp"),
            (
                "--permanent --direct --add-rule ipv4 filter INPUT 0 -s 10.0.0.9 -j DROP",
                "--permanent --direct --remove-rule ipv4 filter INPUT 0 -s 10.0.0.9 -j DROP",
            ),
        ] {
            firewalld.run(&format!("firewall-cmd {make}"));
            assert!(!differences().is_empty(), "{suite}: {make}");
            firewalld.run(&format!("firewall-cmd {undo}"));
            assert_eq!(differences(), [""; 0], "{suite}: {undo}");
        }
        firewalld.run("firewall-cmd --zone=public --add-interface=eth6");
        assert_eq!(
            differences(),
            [""; 0],
            "{suite}: it is in the default zone after a reload too"
        );
    }
}

#[test]
#[ignore = "needs root filesystems with firewalld; cargo xtask test makes them"]
fn an_upgrade_that_cuts_pods_off_is_named_with_the_command_that_helps() {
    let mut firewalld = Firewalld::new(SUITES[0], "true");
    let neighbour = Neighbour::new();
    let mut pod = pod();
    let mut served = listen(neighbour.0.id(), "10.0.0.9", 5432);
    sh(&format!(
        "nsenter -t {} -n ip route add 10.244.0.0/24 via 10.0.0.1",
        neighbour.0.id()
    ));
    let wanted = openings(&[2, 3]);
    firewalld.set(&wanted);
    assert!(connects(pod.id(), "10.0.0.9", 5432));

    firewalld.upgrade(TOO_NEW);
    let _listener = std::net::TcpListener::bind(("0.0.0.0", 2379)).unwrap();
    assert!(!connects(pod.id(), "10.0.0.9", 5432), "2.x asks policies about all");
    let faults = firewalld.machine.faults(&wanted);
    let [fault] = faults.as_slice() else {
        panic!("{faults:#?}")
    };
    assert!(fault.starts_with("firewalld 2.x drops"), "{fault}");
    assert!(set(&firewalld.machine.agent, &wanted).is_err());
    assert_eq!(firewalld.files().len(), 2, "the policy for members is asked still");
    assert!(neighbour.reaches("10.0.0.2", 2379));

    let [_, command, ..] = fault.split('`').collect::<Vec<_>>()[..] else {
        panic!("{fault}")
    };
    assert_eq!(command, "firewall-cmd --zone=trusted --add-source=10.244.0.0/16");
    firewalld.run(&format!("{command}; {command} --permanent"));
    assert_eq!(firewalld.machine.faults(&wanted), [""; 0]);
    assert!(connects(pod.id(), "10.0.0.9", 5432) && neighbour.reaches("10.0.0.2", 2379));
    set(&firewalld.machine.agent, &wanted).unwrap();
    assert_eq!(firewalld.files().len(), 2);
    firewalld.restart();
    assert!(connects(pod.id(), "10.0.0.9", 5432));

    assert_eq!(firewalld.remove(), Left::default());
    assert!(firewalld.files().is_empty());
    assert!(!firewalld.run("nft list ruleset").contains("landfall"));
    assert!(!neighbour.reaches("10.0.0.2", 2379));
    for child in [&mut served, &mut pod] {
        let _ = child.kill();
        let _ = child.wait();
    }
}
