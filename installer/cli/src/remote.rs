//! Makes the context of a run: the SSH connector, ^C, the run id and the user.

use crate::args::Common;
use crate::passwords;
use landfall_bundle::own_parts::AgentProgram;
use landfall_bundle::source::AGENT_PACKAGE;
use landfall_core::cluster_record::ClusterUid;
use landfall_core::event::{Event, EventKind, EventSink};
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::inventory::{Connect, Connection, Node, Proxy};
use landfall_core::name::{NodeName, RunId};
use landfall_core::spec::parse::expand_home;
use landfall_core::transport::Transport;
use landfall_engine::limit::Limit;
use landfall_engine::run::{CONTACT_LIMIT, CancelToken, Connector, RunContext, Way};
use landfall_ssh::{
    Local, LocalTransport, OpensshMaster, OpensshOptions, OpensshTransport, Passphrases, SshConfig, SshOptions,
    SshTransport,
};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Default time limit of one SSH connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// Default time limit for a login shell to start a command. It is less than [`CONTACT_LIMIT`], so that the error names the cause.
const SHELL_TIMEOUT: Duration = Duration::from_secs(90);
/// Time of each step of the first contact beyond `--connect-timeout`.
const CONTACT_BEYOND: Duration = Duration::from_secs(30);

/// The files of known host keys that OpenSSH reads by itself (ssh_config(5), UserKnownHostsFile and GlobalKnownHostsFile).
const USER_KNOWN_HOSTS: [&str; 2] = ["~/.ssh/known_hosts", "~/.ssh/known_hosts2"];
const GLOBAL_KNOWN_HOSTS: [&str; 2] = ["/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"];

struct SshConnector {
    options: SshOptions,
    config: SshConfig,
    local: Local,
    /// Whether `--known-hosts` is given, which overrides `ssh_config`.
    known_hosts_given: bool,
    contact_limit: Duration,
    sink: Arc<dyn EventSink>,
    began: Instant,
    openssh: OpensshOptions,
    /// Logins of the user's ssh in this run.
    masters: Mutex<BTreeMap<NodeName, Arc<OpensshMaster>>>,
    /// Settings of ssh that were reported already.
    reported: Mutex<BTreeSet<String>>,
}

impl Connector for SshConnector {
    fn connect(&self, node: &Node) -> Result<Box<dyn Transport>, Diagnosis> {
        let connection = node.connect.connection;
        if connection == Connection::Local {
            return Ok(Box::new(LocalTransport::new(&node.connect)));
        }
        let mut connect = node.connect.clone();
        let ignored = self
            .config
            .apply(&mut connect, &self.local)
            .map_err(|why| Diagnosis::new(Code::SpecValue, format!("ssh_config: {why}")).on(&node.name))?;
        if connection == Connection::Openssh {
            let accept_new = connect.ssh.accept_new;
            connect = node.connect.clone();
            connect.ssh.accept_new = accept_new;
            let master = self.openssh_master(node, &connect)?;
            return Ok(Box::new(OpensshTransport::new(master, &connect, &self.options)));
        }
        self.report_ignored(ignored);
        if self.known_hosts_given {
            connect.forget_known_hosts();
        }
        Ok(Box::new(SshTransport::connect(&connect, &self.options)?))
    }

    fn way_to(&self, node: &Node) -> Way {
        let mut connect = node.connect.clone();
        if connect.connection == Connection::Local {
            return Way::to_host(&connect.host, |_| vec![]);
        }
        // A value that is not valid is an error of the login.
        let applied = self.config.apply(&mut connect, &self.local);
        if matches!(connect.ssh.proxy, Some(Proxy::Jump(_) | Proxy::Command(_))) || applied.is_err() {
            return Way::Proxy;
        }
        match landfall_ssh::resolve(&connect.host) {
            // ssh itself may know a way that its settings hide from others, for instance by Match exec.
            Err(_) if connect.connection == Connection::Openssh => Way::Proxy,
            found => Way::to_host(&connect.host, |_| found.unwrap_or_default()),
        }
    }

    fn contact_limit(&self) -> Duration {
        self.contact_limit
    }
}

impl SshConnector {
    /// Reports settings that would change the connection and are not supported, each once in a run.
    fn report_ignored(&self, ignored: BTreeSet<String>) {
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        let new: Vec<String> = ignored
            .into_iter()
            .filter(|keyword| !reported.contains(keyword))
            .collect();
        if new.is_empty() {
            return;
        }
        let text = format!("ssh_config: landfall does not support {}", new.join(", "));
        reported.extend(new);
        self.note(text);
    }

    /// Returns the login of the user's ssh on a machine: that of an earlier connection of this run while it stands. Blocks for a login.
    fn openssh_master(&self, node: &Node, connect: &Connect) -> Result<Arc<OpensshMaster>, Diagnosis> {
        let masters = || self.masters.lock().unwrap_or_else(PoisonError::into_inner);
        let known = masters().get(&node.name).cloned();
        if let Some(master) = known.filter(|master| master.is_alive()) {
            return Ok(master);
        }
        // ssh says nothing about it when its standard error is no terminal.
        self.note(format!(
            "{}: ssh logs in; a security token may wait for a touch",
            node.name
        ));
        let master = Arc::new(OpensshMaster::log_in(
            &connect.host,
            connect,
            &self.options,
            &self.openssh,
        )?);
        masters().insert(node.name.clone(), Arc::clone(&master));
        Ok(master)
    }

    fn note(&self, text: String) {
        self.sink.emit(Event {
            at_ms: u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX),
            node: None,
            kind: EventKind::Note { text },
        });
    }
}

/// Reads the settings of ssh: the file that `--ssh-config` names, or the user's and the system's.
fn ssh_config(given: Option<&str>) -> Result<SshConfig, Diagnosis> {
    let own = expand_home("~/.ssh");
    match given {
        Some("none") => Ok(SshConfig::default()),
        Some(file) => SshConfig::read(&[(expand_home(file), own)], true),
        None => {
            let system = PathBuf::from("/etc/ssh");
            SshConfig::read(&[(own.join("config"), own), (system.join("ssh_config"), system)], false)
        }
    }
}

/// Makes the context of a run, and lets ^C cancel it.
pub fn run_context(
    common: &Common,
    sink: Arc<dyn EventSink>,
    report: Option<PathBuf>,
    limit: Option<BTreeSet<NodeName>>,
) -> Result<RunContext, Diagnosis> {
    let internal =
        |what: &'static str| move |error: std::io::Error| Diagnosis::new(Code::Internal, what).because(&error);
    let known_hosts: Vec<PathBuf> = match &common.known_hosts {
        Some(file) => vec![expand_home(file)],
        None => USER_KNOWN_HOSTS.map(expand_home).into(),
    };
    let keys = ["id_ed25519", "id_ecdsa", "id_rsa", "id_ed25519_sk", "id_ecdsa_sk"]
        .map(|name| expand_home(&format!("~/.ssh/{name}")));
    let timeout = common.connect_timeout.map(Duration::from_secs);
    let options = SshOptions {
        accept_new: common.accept_new_host_keys,
        new_keys: known_hosts[0].clone(),
        known_hosts,
        global_known_hosts: GLOBAL_KNOWN_HOSTS.map(PathBuf::from).into(),
        agent_socket: std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from),
        // Passphrases can only be asked for on a terminal.
        passphrases: Some(Passphrases::new(|what| passwords::ask(what).ok())),
        default_keys: keys.into_iter().filter(|k| k.is_file()).collect(),
        timeout: timeout.unwrap_or(CONNECT_TIMEOUT),
        shell_timeout: timeout.unwrap_or(SHELL_TIMEOUT),
    };
    let cancel = CancelToken::default();
    on_interrupt(cancel.clone(), Arc::clone(&sink)).map_err(internal("signals cannot be caught"))?;
    Ok(RunContext {
        connector: Arc::new(SshConnector {
            options,
            config: ssh_config(common.ssh_config.as_deref())?,
            openssh: OpensshOptions {
                // ssh itself knows the file `none`.
                config: common.ssh_config.as_deref().map(expand_home),
                known_hosts: common.known_hosts.as_deref().map(expand_home),
            },
            local: Local {
                user: local_user(),
                home: expand_home("~/").components().collect(),
            },
            known_hosts_given: common.known_hosts.is_some(),
            sink: Arc::clone(&sink),
            began: Instant::now(),
            masters: Mutex::default(),
            reported: Mutex::default(),
            contact_limit: timeout.map_or(CONTACT_LIMIT, |timeout| timeout + CONTACT_BEYOND),
        }),
        sink,
        cancel,
        agent_program: Arc::new(agent_program(
            &std::env::current_exe().map_err(internal("the running program cannot be found"))?,
        )?),
        local_prober: landfall_agent::probe::run,
        owner: owner(),
        run: new_run_id().map_err(internal("no run id can be made"))?,
        new_uid: ClusterUid::from_random(random().map_err(internal("no random bytes can be had"))?),
        at_ms: now_ms().map_err(internal("the clock cannot be read"))?,
        clock: landfall_agent::host::now_ms,
        report_dir: report,
        limit: limit.map_or_else(Limit::default, Limit::to),
    })
}

/// Reads the agent of nodes: what the running program carries, when it is a released one, else the program that cargo built beside it.
fn agent_program(running: &Path) -> Result<AgentProgram, Diagnosis> {
    if let Some(carried) = AgentProgram::carried(running)? {
        return Ok(carried);
    }
    let beside = running.with_file_name(AGENT_PACKAGE);
    if beside.is_file() {
        return AgentProgram::open(&beside);
    }
    let missing = Diagnosis::new(Code::FileUnreadable, "there is no agent for nodes")
        .saw(format!("{} carries none, as released programs do", running.display()))
        .saw(format!("{} is not there", beside.display()));
    Err(missing.next("take a released landfall; in a checkout `cargo xtask release -o FILE` makes one"))
}

/// The first ^C asks the run to stop after the steps in flight; the second ends the process at once.
fn on_interrupt(cancel: CancelToken, sink: Arc<dyn EventSink>) -> std::io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let began = Instant::now();
    std::thread::spawn(move || {
        let mut signals = signals.forever();
        if signals.next().is_some() {
            cancel.cancel();
            let text = "stopping after the steps in flight; nothing is lost, running again continues; once more ends landfall at once";
            sink.emit(Event {
                at_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
                node: None,
                kind: EventKind::Note { text: text.to_owned() },
            });
        }
        if signals.next().is_some() {
            // Agents notice the closed connection and stop; their journals record how far they came.
            let _ = signal_hook::low_level::emulate_default_handler(SIGINT);
        }
    });
    Ok(())
}

fn local_user() -> String {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
    user.unwrap_or_else(|_| "unknown-user".to_owned())
}

fn owner() -> String {
    let host = Command::new("uname").arg("-n").output().ok();
    let host = host.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
    format!(
        "{}@{}",
        local_user(),
        host.filter(|h| !h.is_empty())
            .unwrap_or_else(|| "unknown-host".to_owned())
    )
}

/// A run id that does not collide: seconds since 1970, for people, and four random bytes.
fn new_run_id() -> std::io::Result<RunId> {
    let random: String = random::<4>()?.iter().map(|b| format!("{b:02x}")).collect();
    let seconds = now_ms()? / 1000;
    format!("{seconds}-{random}").parse().map_err(std::io::Error::other)
}

fn random<const N: usize>() -> std::io::Result<[u8; N]> {
    let mut random = [0; N];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, &mut random)?;
    Ok(random)
}

fn now_ms() -> std::io::Result<u64> {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_err(std::io::Error::other)?;
    u64::try_from(since.as_millis()).map_err(std::io::Error::other)
}
