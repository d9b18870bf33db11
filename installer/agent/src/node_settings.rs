//! The settings service of a node: puts right what must hold from boot to boot, whatever else on the machine sets it otherwise.
//!
//! ```text
//! every 2 s   the Service network's route · checksum offload of the VXLAN link · nftables tables of kube-proxy and flannel
//!             · accept rules in nftables that were flushed away
//! every 60 s  modules, kernel settings, then all accept rules in packet filters, as the node's journal wants them
//! ```
//! It is up for systemd after its first pass, and the kubelet starts after it: a kernel setting that a later file of the machine has changed at
//! the boot is right by then, and the node has its address. What it keeps is read from the journal ([`Held`]); the route and the link's offload
//! alone are named by its unit, and stay as they should be as long as the service runs.
//!
//! INVARIANT: nothing but the route and the offload is touched while a run holds the node's lease, while an undo is open, or when the journal wants nothing.
//! It holds no lock and writes no file: killing it at any time leaves nothing behind but these two, which `--remove` takes back.

mod accepts;
mod offload;
mod rivalry;
mod settings;
mod tables;

use crate::agent::Agent;
use crate::child::Job;
use crate::host::Host;
use crate::journal_store;
use crate::netlink::route;
use crate::{actions::system, files, lease, signal};
use accepts::Accepts;
use landfall_core::facts::Route;
use landfall_core::health::{Held, undo_is_open};
use landfall_core::journal::{FileStamp, Ownership};
use landfall_core::spec::{Cidr, ProxyMode};
use offload::Offload;
use settings::Settings;
pub(crate) use settings::fault;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tables::{Tables, Writer};

/// How often route and tables are looked at: links that go down and up lose routes, and a dump costs microseconds.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often while the node is not ready for the kubelet yet.
const LOOK_FIRST: Duration = Duration::from_millis(200);
/// How often modules and settings are looked at.
const SETTINGS_EVERY: Duration = Duration::from_secs(60);
/// How long the node's address and the route are waited for before the service counts as up all the same. systemd's own patience with a unit
/// that starts is 90 s (`DefaultTimeoutStartSec`), that of the step that starts it 60 s, and a kubelet without an address tries again by itself.
const WAIT_FOR_ADDRESS: Duration = Duration::from_secs(45);

/// What the unit names.
#[derive(Debug, Clone)]
pub struct Options {
    /// The node's own address, which is waited for at the boot.
    pub address: Option<IpAddr>,
    /// How the Service network is reached while no other route leads there.
    pub route: Option<ServiceRoute>,
    /// The VXLAN link whose checksums the kernel is to make.
    pub no_checksum_offload: Option<String>,
}

/// The route that makes ClusterIPs reachable while the node has no default route: the kernel looks for a route before kube-proxy's rules see the
/// packet. The route only has to exist; nothing is ever sent along it. A machine may lose its default route after the install, or get it late at a
/// boot: the service makes the route when no other leads there, and removes it when one does.
#[derive(Debug, Clone)]
pub struct ServiceRoute {
    /// The Service network.
    pub network: Cidr,
    /// The interface out of which it leads.
    pub interface: String,
}

impl ServiceRoute {
    /// Says whether the Service network is reached, after making the route where it is not. An interface that is absent or down is waited for.
    fn keep(&self) -> io::Result<bool> {
        let routes = route::routes()?;
        let stands = routes.iter().any(|route| self.is(route));
        if routes.iter().any(|other| self.is_covered_by(other)) {
            return if stands { self.remove().map(|()| true) } else { Ok(true) };
        }
        if stands {
            return Ok(true);
        }
        match route::add_link_route(&self.network, &self.interface) {
            Ok(()) => Ok(true),
            Err(error) if is_passing(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Says whether a route is this one, whoever made it.
    fn is(&self, other: &Route) -> bool {
        other.destination == self.network && other.interface == self.interface && other.gateway.is_none()
    }

    /// Says whether another route of the main table leads to the whole network.
    fn is_covered_by(&self, other: &Route) -> bool {
        let to = other.destination;
        !self.is(other) && to.prefix <= self.network.prefix && to.contains(self.network.address)
    }

    /// Removes the route that the service made, and no other.
    fn remove(&self) -> io::Result<()> {
        match route::remove_link_route(&self.network, &self.interface) {
            Err(error) if is_passing(&error) => Ok(()),
            other => other,
        }
    }
}

/// An interface that is absent or down.
fn is_passing(error: &io::Error) -> bool {
    /// `ENODEV`.
    const NO_DEVICE: i32 = 19;
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NetworkDown)
        || error.raw_os_error() == Some(NO_DEVICE)
}

/// Keeps the node's settings until SIGTERM, then removes the route. `say` takes each line for the system's journal.
pub fn run(options: &Options, say: &mut dyn FnMut(&str)) -> io::Result<()> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let ending = Arc::new(AtomicBool::new(false));
    let (flag, waiter) = (Arc::clone(&ending), thread::current());
    thread::spawn(move || {
        signals.forever().next();
        flag.store(true, Ordering::SeqCst);
        waiter.unpark();
    });
    let mut keeper = Keeper::new(Agent::new(Host::real()));
    let began = Instant::now();
    let mut ready = false;
    while !ending.load(Ordering::SeqCst) {
        let stands = keeper.keep_route(options.route.as_ref(), say);
        let now = Instant::now();
        keeper.keep_offload_off(options.no_checksum_offload.as_deref(), now, say);
        keeper.pass(now, say);
        if !ready {
            let has_address = options.address.is_none_or(|address| has(&keeper.agent.host, address));
            ready = has_address && stands;
            if !ready && began.elapsed() >= WAIT_FOR_ADDRESS {
                ready = true;
                say(
                    "the node's address, or the interface of the Service network's route, is not there; the kubelet starts all the same",
                );
            }
            if ready {
                signal::notify_ready();
            }
        }
        thread::park_timeout(if ready { LOOK_EVERY } else { LOOK_FIRST });
    }
    remove(options)
}

/// Takes back what the unit names: the route, and that the link's checksums are not left to the card. For a service that was killed, too.
pub fn remove(options: &Options) -> io::Result<()> {
    let restored = options.no_checksum_offload.as_deref().map_or(Ok(()), offload::restore);
    let removed = options.route.as_ref().map_or(Ok(()), ServiceRoute::remove);
    restored.and(removed)
}

fn has(host: &Host, address: IpAddr) -> bool {
    let addresses = host.network().addresses().unwrap_or_default();
    addresses.iter().any(|found| IpAddr::V4(found.address) == address)
}

/// What the service knows between two passes. Its size is that of the journal's wanted values.
struct Keeper {
    agent: Agent,
    /// What the journal wanted when it was last read, and the file's stamp then.
    held: Option<(FileStamp, Kept)>,
    settings: Settings,
    tables: Tables,
    accepts: Accepts,
    offload: Offload,
    /// Modules that could not be loaded: they are not tried again.
    refused_modules: BTreeSet<String>,
    next_settings: Option<Instant>,
    /// The last line about each thing, so that what lasts is said once.
    said: BTreeMap<&'static str, String>,
}

/// What a journal says about keeping.
#[derive(Default)]
struct Kept {
    held: Held,
    /// Whether something is being taken back, or nothing is landfall's.
    is_closed: bool,
    /// Whether the cluster's daemons keep their rules in nftables tables of their own. The record of the cluster tells, and is written before the
    /// daemons change; a journal without one is of a cluster that has nftables unless a spec says otherwise.
    has_tables: bool,
}

impl Kept {
    fn of(own: &Ownership) -> Self {
        let is_closed = own.is_empty() || undo_is_open(own);
        let mode = own.record().map(|record| record.kept.proxy_mode);
        Self {
            held: Held::of(own),
            is_closed,
            has_tables: !is_closed && mode.is_none_or(|mode| mode == ProxyMode::Nftables),
        }
    }
}

impl Keeper {
    fn new(agent: Agent) -> Self {
        Self {
            agent,
            held: None,
            settings: Settings::default(),
            tables: Tables::default(),
            accepts: Accepts::default(),
            offload: Offload::default(),
            refused_modules: BTreeSet::new(),
            next_settings: None,
            said: BTreeMap::new(),
        }
    }

    /// Says whether the route stands, or none is wanted. Another route to the same network is left as it is.
    fn keep_route(&mut self, route: Option<&ServiceRoute>, say: &mut dyn FnMut(&str)) -> bool {
        let Some(route) = route else { return true };
        let (stands, remark) = match route.keep() {
            Ok(stands) => (stands, String::new()),
            Err(error) => {
                let ServiceRoute { network, interface } = route;
                let remark = format!("the route to {network} out of {interface} cannot be made: {error}");
                (false, remark)
            }
        };
        self.say_once("route", remark, say);
        stands
    }

    fn keep_offload_off(&mut self, link: Option<&str>, now: Instant, say: &mut dyn FnMut(&str)) {
        if let Some(line) = link.and_then(|link| self.offload.keep_off(link, now)) {
            self.say_once("offload", line, say);
        }
    }

    /// Looks at everything that is due, and puts it right.
    fn pass(&mut self, now: Instant, say: &mut dyn FnMut(&str)) {
        let is_due = self.next_settings.is_none_or(|next| now >= next);
        let have_gone = self.accepts.have_gone();
        if is_due {
            self.next_settings = Some(now + SETTINGS_EVERY);
        }
        self.read_journal(say);
        let tables = self.missing_tables(say);
        if (tables.is_empty() && !is_due && !have_gone) || !self.may_act() {
            return;
        }
        self.tables.restart_writers(&self.agent, &tables, say);
        if is_due {
            self.load_modules(say);
            let held = self.held.as_ref().map(|(_, kept)| kept.held.settings.clone());
            for (name, wanted) in held.unwrap_or_default() {
                // A run may have begun since the last one.
                if !self.may_act() {
                    return;
                }
                self.settings.keep(&self.agent.host, &name, &wanted, now, say);
            }
        }
        if (is_due || have_gone) && self.may_act() {
            let openings = self.held.as_ref().and_then(|(_, kept)| kept.held.openings.clone());
            self.accepts.keep(&self.agent, openings.as_ref(), now, say);
        }
    }

    /// Returns the writers of tables that were flushed away. None is missed of a cluster whose daemons keep no tables.
    fn missing_tables(&mut self, say: &mut dyn FnMut(&str)) -> Vec<&'static Writer> {
        if !self.held.as_ref().is_some_and(|(_, kept)| kept.has_tables) {
            self.tables.forget();
        } else if self.may_act() {
            return self.tables.look(say);
        } else {
            self.tables.pause();
        }
        vec![]
    }

    fn may_act(&self) -> bool {
        self.held.as_ref().is_some_and(|(_, kept)| !kept.is_closed) && !lease::is_held(&self.agent.host)
    }

    /// Reads the journal again when it has changed. Of a damaged one the whole lines count; one that cannot be read at all stops nothing.
    fn read_journal(&mut self, say: &mut dyn FnMut(&str)) {
        let path = self.agent.host.state("journal.jsonl");
        let Some(stamp) = files::stamp(&path) else {
            self.held = None;
            return;
        };
        if self.held.as_ref().is_some_and(|(before, _)| *before == stamp) {
            return;
        }
        match journal_store::read_as_found(&path) {
            Ok((own, damage)) => {
                let remark = damage.map_or_else(String::new, |damage| {
                    format!("{damage}; what its whole lines want is kept")
                });
                self.held = Some((stamp, Kept::of(&own)));
                self.say_once("journal", remark, say);
            }
            Err(error) => {
                let remark = format!("the journal cannot be read, so nothing is put right: {}", error.line());
                self.say_once("journal", remark, say);
            }
        }
    }

    fn load_modules(&mut self, say: &mut dyn FnMut(&str)) {
        let held = self.held.iter().flat_map(|(_, kept)| &kept.held.modules);
        let mut missing = system::missing_modules(&self.agent.host, held);
        missing.retain(|module| !self.refused_modules.contains(module));
        for module in missing {
            let job = Job::quick(&["modprobe", "--", &module], 30);
            match self.agent.children.run(&self.agent.host, job) {
                Ok(_) => say(&format!("the module {module} was not loaded; loaded it")),
                Err(error) => {
                    say(&format!(
                        "the module {module} cannot be loaded, and is not tried again: {}",
                        error.line()
                    ));
                    self.refused_modules.insert(module);
                }
            }
        }
    }

    /// Says what differs from what was said last; an empty line says that it is over.
    fn say_once(&mut self, about: &'static str, line: String, say: &mut dyn FnMut(&str)) {
        if self.said.get(about) != Some(&line) {
            if !line.is_empty() {
                say(&line);
            }
            self.said.insert(about, line);
        }
    }
}

#[cfg(test)]
mod tests;
