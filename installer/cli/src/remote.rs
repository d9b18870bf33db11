//! SSH for the engine, and what else a run needs from this machine.

use crate::args::Common;
use landfall_core::cluster_record::ClusterUid;
use landfall_core::event::{Event, EventKind, EventSink};
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::inventory::Node;
use landfall_core::name::{NodeName, RunId};
use landfall_core::spec::parse::expand_home;
use landfall_core::transport::Transport;
use landfall_engine::limit::Limit;
use landfall_engine::run::{CONTACT_LIMIT, CancelToken, Connector, RunContext};
use landfall_ssh::{SshOptions, SshTransport};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Time for one SSH connection when `--connect-timeout` is not given.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// What the first contact may take beyond `--connect-timeout`: login, the agent's upload and start.
const CONTACT_BEYOND: Duration = Duration::from_secs(30);

struct SshConnector {
    options: SshOptions,
    contact_limit: Duration,
}

impl Connector for SshConnector {
    fn connect(&self, node: &Node) -> Result<Box<dyn Transport>, Diagnosis> {
        Ok(Box::new(SshTransport::connect(&node.connect, &self.options)?))
    }

    fn contact_limit(&self) -> Duration {
        self.contact_limit
    }
}

/// Collects everything a run needs, and lets ^C end it.
pub fn run_context(
    common: &Common,
    sink: Arc<dyn EventSink>,
    report: Option<PathBuf>,
    limit: Option<BTreeSet<NodeName>>,
) -> Result<RunContext, Diagnosis> {
    let internal =
        |what: &'static str| move |error: std::io::Error| Diagnosis::new(Code::Internal, what).because(&error);
    let known_hosts = expand_home(&common.known_hosts);
    let keys = ["id_ed25519", "id_ecdsa", "id_rsa"].map(|name| expand_home(&format!("~/.ssh/{name}")));
    let timeout = common.connect_timeout.map(Duration::from_secs);
    let options = SshOptions {
        accept_new: common.accept_new_host_keys.then(|| known_hosts.clone()),
        known_hosts: vec![known_hosts, PathBuf::from("/etc/ssh/ssh_known_hosts")],
        use_agent: std::env::var_os("SSH_AUTH_SOCK").is_some(),
        default_keys: keys.into_iter().filter(|k| k.is_file()).collect(),
        timeout: timeout.unwrap_or(CONNECT_TIMEOUT),
    };
    let cancel = CancelToken::default();
    on_interrupt(cancel.clone(), Arc::clone(&sink)).map_err(internal("signals cannot be caught"))?;
    Ok(RunContext {
        connector: Arc::new(SshConnector {
            options,
            contact_limit: timeout.map_or(CONTACT_LIMIT, |timeout| timeout + CONTACT_BEYOND),
        }),
        sink,
        cancel,
        agent_program: std::env::current_exe().map_err(internal("the running program cannot be found"))?,
        local_prober: landfall_agent::probe::run,
        owner: owner(),
        run: new_run_id().map_err(internal("no run id can be made"))?,
        new_uid: ClusterUid::from_random(random().map_err(internal("no random bytes can be had"))?),
        at_ms: now_ms().map_err(internal("the clock cannot be read"))?,
        report_dir: report,
        limit: limit.map_or_else(Limit::default, Limit::to),
    })
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
            // Nodes notice the closed connection and stop by themselves; the journal knows how far they came.
            let _ = signal_hook::low_level::emulate_default_handler(SIGINT);
        }
    });
    Ok(())
}

fn owner() -> String {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
    let host = Command::new("uname").arg("-n").output().ok();
    let host = host.map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned());
    format!(
        "{}@{}",
        user.unwrap_or_else(|_| "unknown-user".to_owned()),
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
