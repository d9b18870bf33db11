//! An install, phase by phase: [`InstallRun::phases`] is the list.

mod logs;
mod planning;
mod push_ahead;
mod reconnect;
mod record_writer;

use crate::cluster::Cluster;
use crate::context::{InstallOptions, OnFailure, RunContext, Until};
use crate::distribute::Supply;
use crate::emitter::EventEmitter;
use crate::execute::{Executed, Executor};
use crate::fleet::{self, Sessions};
use crate::outcome::Outcome;
use crate::preflight::{self, Gathered};
use crate::present::{self, Present};
use crate::session::{AgentPlace, NodeSession};
use crate::{adopt, inspect, undo};
use landfall_bundle::trust::judge;
use landfall_bundle::{Bundle, Verified};
use landfall_core::cluster_record::ClusterRecord;
use landfall_core::event::{EventKind, Phase};
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::facts::NodeFacts;
use landfall_core::inventory::Node;
use landfall_core::journal::{DONE, INSTALL, KeptFinding, RunStart};
use landfall_core::membership::is_formed;
use landfall_core::name::{NodeName, RunId};
use landfall_core::spec::Desired;
use landfall_core::trust::{ClusterTrust, KeyId};
use landfall_core::verify::{Cell, CellOutcome, VerifyReport};
use landfall_core::wire::Request;
use planning::Prepared;
use reconnect::Reconnect;
use record_writer::RecordWriter;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long verify is repeated while paths fail in a cluster whose members are up: flannel's and kube-proxy's slowest retries are 30 s.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);
/// How long the API and the members may take to start: after a boot, or after a corrected setting, the kubelet and the static pods start again.
/// kubeadm itself waits 4 minutes for them (`waitForControlPlane`).
const STARTUP_LIMIT: Duration = Duration::from_secs(300);
/// Pause between two rounds of verify.
const SETTLE_PAUSE: Duration = Duration::from_millis(500);

/// See [`crate::run::install`].
pub fn install(
    desired: &Desired,
    bundle: &Bundle<Verified>,
    options: &InstallOptions,
    ctx: &RunContext,
    emitter: &EventEmitter,
) -> Outcome {
    let mut run = InstallRun {
        desired,
        bundle,
        options,
        ctx: ctx.clone(),
        runs: vec![ctx.run.clone()],
        emitter: emitter.clone(),
        sessions: Sessions::new(),
        outside: Sessions::new(),
        cluster: Cluster::default(),
        trust: None,
        findings: vec![],
        outcome: Outcome::default(),
        begun: false,
        failed: None,
        reconnect: Reconnect::new(options),
    };
    loop {
        if let Err(errors) = run.phases() {
            run.outcome.errors.extend(errors);
        }
        if !run.should_retry() {
            break;
        }
    }
    run.keep_or_roll_back();
    fleet::remove_unused_state(&run.sessions);
    fleet::close(&run.outside);
    fleet::close(&run.sessions);
    run.outcome
}

/// One install: what its phases share.
struct InstallRun<'a> {
    desired: &'a Desired,
    bundle: &'a Bundle<Verified>,
    options: &'a InstallOptions,
    /// The context, with the run id of the current attempt.
    ctx: RunContext,
    /// Run ids of all attempts, the oldest first.
    runs: Vec<RunId>,
    emitter: EventEmitter,
    sessions: Sessions,
    outside: Sessions,
    cluster: Cluster,
    /// The keys that the cluster trusts from this run on.
    trust: Option<ClusterTrust>,
    /// What preflight found in the current attempt and did not refuse.
    findings: Vec<KeptFinding>,
    /// Outcome of the current attempt.
    outcome: Outcome,
    /// Whether an attempt has begun to change nodes.
    begun: bool,
    /// The plan of the attempt, when its execution failed.
    failed: Option<Prepared>,
    reconnect: Reconnect,
}

impl InstallRun<'_> {
    /// Runs the phases of one attempt. An error before `begin` leaves every node as it was.
    fn phases(&mut self) -> Result<(), Vec<Diagnosis>> {
        self.connect()?;
        self.check_known_nodes()?;
        fleet::lease_present(
            &mut self.sessions,
            &mut self.outcome.absent,
            INSTALL,
            &self.desired.spec.name,
            &self.ctx,
            &self.emitter,
        )?;
        self.outcome.run = Some(self.ctx.run.clone());
        let mut present = self.read_present()?;
        self.trust_bundle(&present)?;
        let gathered = preflight::gather(self.desired, &self.sessions, &self.ctx, &self.emitter)?;
        let facts = &gathered.facts;
        let adopted = self.adopt(&mut present, facts)?;
        self.preflight(&present, &gathered)?;
        let prepared = self.plan(present, &gathered)?;
        if self.options.until == Until::Plan {
            return Ok(());
        }
        self.check_bundle(&prepared)?;
        if self.options.until == Until::Pushed {
            return self.push_ahead(&prepared);
        }
        if adopted || prepared.must_begin() {
            self.begun = true;
            self.begin(&prepared)?;
            let record = RecordWriter::new(&self.sessions, &prepared.record, prepared.pending());
            let executed = self.execute(&prepared, &record);
            if !self.succeeded(executed) {
                self.failed = Some(prepared);
                return Ok(());
            }
            self.finish(&record)?;
        }
        self.verify();
        Ok(())
    }

    /// Connects to the members, and to the machines outside unless the run only sends ahead. An unreachable machine outside is an error now, although it
    /// is only needed by verify.
    /// Unreachable members are only listed: the cluster's record decides whether the run can do without them.
    fn connect(&mut self) -> Result<(), Vec<Diagnosis>> {
        let limit = &self.ctx.limit;
        let members: Vec<&Node> = self.desired.inventory.members().filter(|n| limit.contacts(n)).collect();
        let machines = self.desired.inventory.outside();
        let contacts_outside = self.options.until != Until::Pushed;
        let machines: Vec<&Node> = machines
            .filter(|n| contacts_outside && limit.includes(&n.name))
            .collect();
        let (ctx, emitter) = (&self.ctx, &self.emitter);
        let ((sessions, absent), (outside, errors)) = emitter.phase(Phase::Connect, || {
            std::thread::scope(|scope| {
                let outside = scope.spawn(|| fleet::connect(&machines, AgentPlace::External, ctx, emitter));
                let members = fleet::connect(&members, AgentPlace::Member, ctx, emitter);
                let outside = outside.join();
                (
                    members,
                    outside.unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                )
            })
        });
        (self.sessions, self.outside, self.outcome.absent) = (sessions, outside, absent);
        if !errors.is_empty() || self.sessions.is_empty() {
            self.outcome.errors.append(&mut self.outcome.absent);
            return Err(errors);
        }
        Ok(())
    }

    /// Reads the journals. An unfinished run of another command is an error: that command finishes it.
    fn read_present(&mut self) -> Result<Present, Vec<Diagnosis>> {
        let present = Present::of(fleet::journals_present(&mut self.sessions, &mut self.outcome.absent)?)?;
        if let Some(diagnosis) = preflight::unfinished_command(&present) {
            return Err(vec![diagnosis]);
        }
        let formed = is_formed(&present.owned);
        if !formed && self.ctx.limit.is_set() {
            let what = "the cluster is not founded yet, and the first install needs every member";
            return Err(vec![
                Diagnosis::new(Code::Usage, what).next("install once without --limit"),
            ]);
        }
        self.leave_out_others(&present);
        if !formed && !self.outcome.absent.is_empty() {
            // The first install needs every member.
            return Err(std::mem::take(&mut self.outcome.absent));
        }
        if let Some(diagnosis) = present::founder_unknown(&present) {
            return Err(vec![diagnosis]);
        }
        if let Some(record) = &present.record {
            let unlisted = present::unlisted(record, &self.desired.inventory);
            let founds = |d: &Diagnosis| record.founders().any(|founder| d.node.as_ref() == Some(founder));
            if !formed && unlisted.iter().any(founds) {
                // It may have begun the founding, which needs every founder.
                let way_out = "landfall uninstall, when it is gone for good: it takes the founding back on the others";
                return Err(unlisted.into_iter().map(|d| d.next(way_out)).collect());
            }
            self.outcome.absent.extend(unlisted);
        }
        self.outcome.record.clone_from(&present.record);
        Ok(present)
    }

    /// Checks the bundle's signature. Once the cluster is founded, the keys in its record decide. Each node checks the signature again, by the keys
    /// in its own journal, before it stores a blob or begins the run. A node that was away while keys changed gets the signatures that lead to the new
    /// ones.
    fn trust_bundle(&mut self, present: &Present) -> Result<(), Vec<Diagnosis>> {
        let (text, signature, offer) = (self.bundle.index_text(), self.bundle.signature(), self.bundle.offer());
        let recorded = present.record.as_ref().and_then(|record| record.trust.as_ref());
        let judged = judge(offer, recorded, text, signature).map_err(|error| vec![error.into()])?;
        self.trust = judged.trust;
        let request = Request::TrustBundle {
            size_bytes: text.len() as u64,
            signature: signature.map(str::to_owned),
            trust: offer.with_chain_of(self.trust.as_ref()),
        };
        let sessions: Vec<_> = self.sessions.values().collect();
        let told = fleet::each(&sessions, |session| {
            session.ask_with::<Option<KeyId>>(&request, Some(&mut &*text), &mut |_| {})
        });
        let errors: Vec<Diagnosis> = told.into_iter().filter_map(Result::err).collect();
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// With `--limit`: closes the sessions of control planes that are not members and not chosen, and turns the errors of unreachable members
    /// that are not chosen into warnings.
    fn leave_out_others(&mut self, present: &Present) {
        let limit = &self.ctx.limit;
        let Some(record) = present.record.as_ref().filter(|_| limit.is_set()) else {
            return;
        };
        let stays = |name: &NodeName| limit.includes(name) || record.members.contains_key(name);
        let (stay, go): (Sessions, Sessions) = std::mem::take(&mut self.sessions)
            .into_iter()
            .partition(|(name, _)| stays(name));
        self.sessions = stay;
        fleet::remove_unused_state(&go);
        fleet::close(&go);
        let (absent, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.outcome.absent)
            .into_iter()
            .partition(|d| d.node.as_ref().is_none_or(|name| limit.includes(name)));
        self.outcome.absent = absent;
        self.outcome.warnings.extend(others.iter().map(ToString::to_string));
    }

    /// Makes the record of a cluster that an older landfall installed without one; says whether it did.
    fn adopt(&mut self, present: &mut Present, facts: &BTreeMap<NodeName, NodeFacts>) -> Result<bool, Vec<Diagnosis>> {
        if present.record.is_some() || !is_formed(&present.owned) {
            return Ok(false);
        }
        let control_planes = self.desired.inventory.control_planes();
        let control_planes = control_planes.filter_map(|node| self.sessions.get(&node.name));
        let control_planes: Vec<_> = control_planes.cloned().collect();
        let (uid, cluster) = (&self.ctx.new_uid, &self.cluster);
        let record = adopt::adopt(self.desired, present, facts, uid, cluster, &control_planes)?;
        present.record = Some(record);
        self.outcome.record.clone_from(&present.record);
        Ok(true)
    }

    fn check_input<'a>(&'a self, present: &'a Present, gathered: &'a Gathered) -> preflight::CheckInput<'a> {
        preflight::CheckInput {
            desired: self.desired,
            gathered,
            present,
            bundle: Some(self.bundle),
            sessions: &self.sessions,
            strictness: self.options.strictness,
        }
    }

    fn preflight(&mut self, present: &Present, gathered: &Gathered) -> Result<(), Vec<Diagnosis>> {
        self.findings = preflight::run_checks(&self.check_input(present, gathered), &self.emitter)?;
        Ok(())
    }

    /// The nodes try each other before the first change. A run without changes asks nobody.
    fn mesh(&mut self, prepared: &Prepared, gathered: &Gathered) -> Result<(), Vec<Diagnosis>> {
        if !prepared.changes_something() {
            return Ok(());
        }
        let found = preflight::try_mesh(&self.check_input(&prepared.present, gathered), &self.emitter)?;
        self.findings.extend(found);
        Ok(())
    }

    /// Journals the run's number and the cluster's record on every connected member, control planes first. Preflight has checked that the
    /// connected control planes are a majority, so that two runs with the same number cannot both act.
    fn begin(&self, prepared: &Prepared) -> Result<(), Vec<Diagnosis>> {
        let Prepared { present, record, .. } = prepared;
        let start = RunStart {
            continues: present.history.unfinished().map(|run| run.number),
            bundle: Some(name_of(self.bundle)),
            findings: self.findings.clone(),
            ..self.ctx.start(record.sequence.run, INSTALL, &self.desired.spec.name)
        };
        let request = Request::StartRun {
            start,
            record: Some(Box::new(record.clone())),
        };
        let control_planes = self.control_planes(record);
        let told = fleet::each(&control_planes, |session| session.ask::<()>(&request));
        let errors: Vec<Diagnosis> = told.into_iter().filter_map(Result::err).collect();
        if !errors.is_empty() {
            return Err(errors);
        }
        let is_control_plane = |name: &NodeName| control_planes.iter().any(|s| s.name() == name);
        let others: Vec<_> = self.sessions.values().filter(|s| !is_control_plane(s.name())).collect();
        let told = fleet::each(&others, |session| session.ask::<()>(&request));
        let errors: Vec<Diagnosis> = told.into_iter().filter_map(Result::err).collect();
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    fn control_planes(&self, record: &ClusterRecord) -> Vec<Arc<NodeSession>> {
        let here = record.control_planes().filter_map(|name| self.sessions.get(name));
        here.cloned().collect()
    }

    fn execute(&self, prepared: &Prepared, record: &RecordWriter) -> Executed {
        let executor = Executor {
            sessions: &self.sessions,
            owned: &prepared.present.owned,
            supply: Some(self.supply(prepared)),
            relay: &self.relay_addresses(prepared),
            journals: &self.control_planes(&prepared.record),
            on_done: &|step| record.note(step),
            cluster: &self.cluster,
            cancel: &self.ctx.cancel,
            emitter: &self.emitter,
        };
        self.emitter
            .phase(Phase::Execute, || executor.run(&prepared.plan, &prepared.satisfied))
    }

    fn supply<'b>(&'b self, prepared: &'b Prepared) -> Supply<'b> {
        Supply {
            bundle: self.bundle,
            needs: &prepared.needs,
        }
    }

    /// Addresses at which nodes take blobs of each other: those that peers use.
    fn relay_addresses(&self, prepared: &Prepared) -> BTreeMap<NodeName, IpAddr> {
        if !self.options.relay {
            return BTreeMap::new();
        }
        let members = prepared.record.members.iter();
        members.map(|(name, member)| (name.clone(), member.address)).collect()
    }

    fn succeeded(&mut self, executed: Executed) -> bool {
        self.outcome.changes += executed.changes;
        for (node, bytes) in executed.bytes_sent {
            *self.outcome.bytes_sent.entry(node).or_default() += bytes;
        }
        self.outcome.interrupted = self.ctx.cancel.is_cancelled();
        self.outcome.errors.extend(executed.errors);
        if !executed.residue.is_empty() {
            let what = "changes of an earlier run could not be undone";
            let diagnosis = Diagnosis::new(Code::Residue, what);
            let diagnosis = executed.residue.iter().cloned().fold(diagnosis, Diagnosis::saw);
            self.outcome
                .errors
                .push(diagnosis.next("remove what is listed by hand, then run the same command again"));
            self.outcome.residue.extend(executed.residue);
        }
        self.outcome.errors.is_empty() && !self.outcome.interrupted
    }

    /// Ends a failed execution: keeps everything or rolls back, as the user asked.
    fn keep_or_roll_back(&mut self) {
        if self.failed.is_none() {
            return;
        }
        logs::save(&self.ctx, &self.emitter, &self.sessions, &self.outcome);
        if self.options.on_failure == OnFailure::Rollback {
            undo::roll_back_failed(&self.sessions, &self.runs, &self.emitter, &mut self.outcome);
        } else {
            self.undo_ephemeral();
        }
    }

    /// Undoes the steps that serve the run alone, such as join credentials.
    fn undo_ephemeral(&self) {
        let steps = self.failed.iter().flat_map(|prepared| &prepared.plan.steps);
        for step in steps.filter(|s| s.ephemeral) {
            let Some(session) = self.sessions.get(&step.node) else {
                continue;
            };
            // Errors are ignored: the next run undoes what stays.
            let request = Request::UndoStep { step: step.id.clone() };
            let _: Result<landfall_core::wire::UndoOutcome, Diagnosis> = session.ask(&request);
        }
    }

    fn finish(&self, record: &RecordWriter) -> Result<(), Vec<Diagnosis>> {
        record.complete()?;
        fleet::end_run(&self.sessions, DONE)
    }

    /// Repeats verify until all is as expected that does not concern absent nodes. A cluster that has just started still distributes routes and
    /// endpoints, so failed cells are probed again for [`SETTLE_LIMIT`] at most once the API answers and the members are up, for which they have
    /// [`STARTUP_LIMIT`].
    fn verify(&mut self) {
        let start = Instant::now();
        let mut up_since = start;
        let mut reported = String::new();
        let name = |d: &Diagnosis| d.node.as_ref().map_or("unknown", NodeName::as_str).to_owned();
        let (names, vantages): (Vec<_>, Vec<_>) = self
            .outcome
            .absent
            .iter()
            .map(|d| (name(d), (format!("node/{}", name(d)), d.clone())))
            .unzip();
        let can_pass = |cell: &Cell| cell.outcome == CellOutcome::Fail && !names.iter().any(|name| cell.is_about(name));
        loop {
            inspect::verify_sessions(
                self.desired,
                &self.sessions,
                &self.outside,
                &vantages,
                &self.ctx,
                &self.emitter,
                &mut self.outcome,
            );
            let verify = self.outcome.verify.as_ref();
            let is_settled = verify.is_none_or(|v| !v.cells.iter().any(can_pass));
            // Waiting cannot help a lost connection: `should_retry` decides whether it is made again.
            let lost = self.sessions.values().any(|session| session.is_lost());
            let is_up = verify.is_none_or(VerifyReport::is_up);
            let is_over = if is_up {
                up_since.elapsed() >= SETTLE_LIMIT
            } else {
                start.elapsed() >= STARTUP_LIMIT
            };
            if is_settled || lost || is_over || self.ctx.cancel.is_cancelled() {
                return;
            }
            if !is_up {
                up_since = Instant::now();
            }
            let missing = verify.and_then(VerifyReport::missing).unwrap_or_default();
            if missing != reported {
                let text = format!("{missing}; verifying again");
                self.emitter.emit(None, EventKind::Note { text });
                reported = missing;
            }
            self.ctx.cancel.sleep(SETTLE_PAUSE);
        }
    }
}

/// Returns the bundle's name in the journal and in `status`.
fn name_of(bundle: &Bundle<Verified>) -> String {
    format!(
        "Kubernetes {}, index {}",
        bundle.index().kubernetes_version,
        bundle.index_digest()
    )
}
