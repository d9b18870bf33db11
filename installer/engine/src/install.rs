//! An install, phase by phase: [`InstallRun::phases`] is the list.

mod logs;
mod planning;
mod record_writer;

use crate::cluster::Cluster;
use crate::context::{InstallOptions, OnFailure, RunContext, Until};
use crate::emitter::EventEmitter;
use crate::execute::{Executed, Executor};
use crate::fleet::{self, Sessions};
use crate::outcome::Outcome;
use crate::present::Present;
use crate::session::{AgentPlace, NodeSession};
use crate::{adopt, inspect, undo};
use landfall_bundle::BundleFile;
use landfall_core::cluster_record::ClusterRecord;
use landfall_core::event::{EventKind, Phase};
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::facts::NodeFacts;
use landfall_core::inventory::Node;
use landfall_core::journal::{DONE, INSTALL, RunStart, UNINSTALL};
use landfall_core::membership::is_formed;
use landfall_core::name::NodeName;
use landfall_core::plan::PlanError;
use landfall_core::preflight;
use landfall_core::spec::Desired;
use landfall_core::verify::CellOutcome;
use landfall_core::wire::Request;
use planning::{Prepared, no_plan};
use record_writer::RecordWriter;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a cluster that has just come up may take until every path works: flannel's and kube-proxy's slowest retries are 30 s.
const SETTLE: Duration = Duration::from_secs(60);
/// Pause between two looks.
const SETTLE_PAUSE: Duration = Duration::from_millis(500);

/// See [`crate::run::install`].
pub fn install(
    desired: &Desired,
    bundle: &BundleFile,
    options: &InstallOptions,
    ctx: &RunContext,
    emitter: &EventEmitter,
) -> Outcome {
    let mut run = InstallRun {
        desired,
        bundle,
        options,
        ctx,
        emitter: emitter.clone(),
        sessions: Sessions::new(),
        outside: Sessions::new(),
        cluster: Cluster::default(),
        outcome: Outcome::default(),
    };
    if let Err(errors) = run.phases() {
        run.outcome.errors.extend(errors);
    }
    fleet::leave_nothing(&run.sessions);
    fleet::close(&run.outside);
    fleet::close(&run.sessions);
    run.outcome
}

/// One install, and all that its phases share.
struct InstallRun<'a> {
    desired: &'a Desired,
    bundle: &'a BundleFile,
    options: &'a InstallOptions,
    ctx: &'a RunContext,
    emitter: EventEmitter,
    sessions: Sessions,
    outside: Sessions,
    cluster: Cluster,
    outcome: Outcome,
}

impl InstallRun<'_> {
    /// The story of an install. An error before `begin` leaves every node as it was.
    fn phases(&mut self) -> Result<(), Vec<Diagnosis>> {
        self.connect()?;
        fleet::lease(&self.sessions, INSTALL, &self.desired.spec.name, self.ctx)?;
        self.outcome.run = Some(self.ctx.run.clone());
        let mut present = self.look()?;
        let facts = self.gather_facts()?;
        self.adopt(&mut present, &facts)?;
        self.preflight(&present, &facts)?;
        let prepared = self.plan(present, &facts)?;
        if self.options.until == Until::Plan {
            return Ok(());
        }
        self.check_bundle(&prepared)?;
        if prepared.changes_something() {
            self.begin(&prepared)?;
            let record = RecordWriter::new(&self.sessions, &prepared.record);
            let executed = self.execute(&prepared, &record);
            if !self.succeeded(executed) {
                self.fail(&prepared);
                return Ok(());
            }
            self.finish(&record)?;
        }
        self.verify();
        Ok(())
    }

    /// Machines outside are needed at the very end, but an unreachable one is reported now. Members that are absent are
    /// listed: whether the run can do without them is known when the cluster is.
    fn connect(&mut self) -> Result<(), Vec<Diagnosis>> {
        let limit = &self.ctx.limit;
        let members: Vec<&Node> = self.desired.inventory.members().filter(|n| limit.contacts(n)).collect();
        let machines = self.desired.inventory.outside();
        let machines: Vec<&Node> = machines.filter(|n| limit.includes(&n.name)).collect();
        let (ctx, emitter) = (self.ctx, &self.emitter);
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

    /// Reads what is there. A way back that was begun is finished before anything else: by its own command when everything goes.
    fn look(&mut self) -> Result<Present, Vec<Diagnosis>> {
        let present = Present::read(&self.sessions)?;
        if let Some(run) = present.history.unfinished().filter(|run| run.start.command != INSTALL) {
            let command = &run.start.command;
            let diagnosis = Diagnosis::new(Code::Preflight, format!("a run of {command} has not finished"))
                .saw(format!("run {} by {}", run.number, run.start.owner));
            let next = if command == UNINSTALL {
                "landfall uninstall: it finishes what was begun; then install".to_owned()
            } else {
                format!("landfall {command}: it finishes what was begun; then install")
            };
            return Err(vec![diagnosis.next(next)]);
        }
        let formed = present.record.as_ref().is_some_and(|r| r.formed) || is_formed(&present.owned);
        if !formed && self.ctx.limit.is_set() {
            let what = "the cluster does not stand yet, and its founding needs every member";
            return Err(vec![
                Diagnosis::new(Code::Usage, what).next("install once without --limit"),
            ]);
        }
        self.leave_out_others(&present);
        if !formed && !self.outcome.absent.is_empty() {
            // The founding needs every member.
            return Err(std::mem::take(&mut self.outcome.absent));
        }
        if let Some(record) = &present.record {
            let unlisted = preflight::unlisted_members(record, &self.desired.inventory);
            self.outcome.absent.extend(unlisted.into_iter().map(|(name, address)| {
                Diagnosis::new(Code::MemberAbsent, "a member of the cluster is not in the inventory")
                    .on(&name)
                    .saw(format!("{name} at {address}; it stays a member"))
                    .next("put it into the inventory again")
            }));
        }
        self.outcome.record.clone_from(&present.record);
        Ok(present)
    }

    /// With a limit: takes leave of control planes that are to be no members yet, and does not miss members that are not acted on.
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
        fleet::leave_nothing(&go);
        fleet::close(&go);
        let (absent, others): (Vec<_>, Vec<_>) = std::mem::take(&mut self.outcome.absent)
            .into_iter()
            .partition(|d| d.node.as_ref().is_none_or(|name| limit.includes(name)));
        self.outcome.absent = absent;
        self.outcome.warnings.extend(others.iter().map(ToString::to_string));
    }

    fn gather_facts(&self) -> Result<BTreeMap<NodeName, NodeFacts>, Vec<Diagnosis>> {
        self.emitter.phase(Phase::Facts, || {
            fleet::ask_all(&self.sessions, |name| {
                let node = self.desired.inventory.node(name);
                let node = node.expect("sessions are made from the inventory's nodes");
                Request::Facts(preflight::query(self.desired, node))
            })
        })
    }

    /// A cluster of an older landfall has no record: it is read from the cluster itself.
    fn adopt(&mut self, present: &mut Present, facts: &BTreeMap<NodeName, NodeFacts>) -> Result<(), Vec<Diagnosis>> {
        if present.record.is_some() || !is_formed(&present.owned) {
            return Ok(());
        }
        let control_planes = self.desired.inventory.control_planes();
        let session = control_planes.filter_map(|node| self.sessions.get(&node.name)).next();
        let session = session.ok_or_else(|| no_plan(PlanError::NoControlPlane))?;
        let (uid, cluster) = (&self.ctx.new_uid, &self.cluster);
        let record = adopt::adopt(self.desired, present, facts, uid, cluster, session)?;
        present.record = Some(record);
        self.outcome.record.clone_from(&present.record);
        Ok(())
    }

    fn preflight(&self, present: &Present, facts: &BTreeMap<NodeName, NodeFacts>) -> Result<(), Vec<Diagnosis>> {
        let findings = self.emitter.phase(Phase::Preflight, || {
            let mut findings = preflight::check(self.desired, facts, &present.owned);
            if let Some(record) = &present.record {
                let version = &self.bundle.index().kubernetes_version;
                findings.extend(preflight::check_record(
                    self.desired,
                    version,
                    record,
                    facts,
                    &present.owned,
                ));
                let here: Vec<&NodeName> = self.sessions.keys().collect();
                findings.extend(preflight::too_few_control_planes(record, &here).filter(|_| record.formed));
            }
            findings
        });
        if findings.is_empty() {
            return Ok(());
        }
        Err(findings.into_iter().map(Diagnosis::from).collect())
    }

    /// Journals the run's number and the cluster on every member that is here, control planes first. Preflight has checked that they are a
    /// majority, so that two runs with one number cannot both act.
    fn begin(&self, prepared: &Prepared) -> Result<(), Vec<Diagnosis>> {
        let Prepared { present, record, .. } = prepared;
        let start = RunStart {
            run: self.ctx.run.clone(),
            number: Some(record.sequence.run),
            command: INSTALL.to_owned(),
            owner: self.ctx.owner.clone(),
            at_ms: self.ctx.at_ms,
            cluster: self.desired.spec.name.clone(),
            continues: present.history.unfinished().map(|run| run.number),
            takes_back: vec![],
            bundle: Some(name_of(self.bundle)),
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
            bundle: Some(self.bundle),
            journals: &self.control_planes(&prepared.record),
            on_done: &|step| record.note(step),
            cluster: &self.cluster,
            cancel: &self.ctx.cancel,
            emitter: &self.emitter,
        };
        self.emitter
            .phase(Phase::Execute, || executor.run(&prepared.plan, &prepared.satisfied))
    }

    fn succeeded(&mut self, executed: Executed) -> bool {
        self.outcome.changes = executed.changes;
        self.outcome.bytes_sent = executed.bytes_sent;
        self.outcome.interrupted = self.ctx.cancel.is_cancelled();
        self.outcome.errors.extend(executed.errors);
        if !executed.residue.is_empty() {
            let what = "what an earlier run left could not be taken back";
            let diagnosis = Diagnosis::new(Code::Residue, what);
            let diagnosis = executed.residue.iter().cloned().fold(diagnosis, Diagnosis::saw);
            self.outcome
                .errors
                .push(diagnosis.next("remove what is listed by hand, then run the same command again"));
            self.outcome.residue.extend(executed.residue);
        }
        self.outcome.errors.is_empty() && !self.outcome.interrupted
    }

    /// Steps that serve this run alone are withdrawn also when it fails. Everything else is kept or rolled back, as the user asked.
    fn fail(&mut self, prepared: &Prepared) {
        logs::save(self.ctx, &self.emitter, &self.sessions, &self.outcome);
        if self.options.on_failure == OnFailure::Rollback {
            undo::take_back_own(&self.sessions, self.ctx, &self.emitter, &mut self.outcome);
            return;
        }
        for step in prepared.plan.steps.iter().filter(|s| s.ephemeral) {
            let Some(session) = self.sessions.get(&step.node) else {
                continue;
            };
            // Best effort: the next run takes back what stays.
            let request = Request::UndoStep { step: step.id.clone() };
            let _: Result<landfall_core::wire::UndoOutcome, Diagnosis> = session.ask(&request);
        }
    }

    fn finish(&self, record: &RecordWriter) -> Result<(), Vec<Diagnosis>> {
        record.complete()?;
        let finish = Request::FinishRun {
            outcome: DONE.to_owned(),
        };
        fleet::ask_all::<()>(&self.sessions, |_| finish.clone())?;
        fleet::ask_all::<()>(&self.sessions, |_| Request::Tidy).map(drop)
    }

    /// Verifies until all is as expected. A cluster that has just come up still spreads routes and endpoints: what is red is looked at
    /// again, for [`SETTLE`] at most.
    fn verify(&mut self) {
        let start = Instant::now();
        let vantage = |d: &Diagnosis| {
            let node = d.node.as_ref().map_or("unknown", NodeName::as_str);
            (format!("node/{node}"), d.clone())
        };
        let absent: Vec<_> = self.outcome.absent.iter().map(vantage).collect();
        loop {
            inspect::verify_over(
                self.desired,
                &self.sessions,
                &self.outside,
                &absent,
                self.ctx,
                &self.emitter,
                &mut self.outcome,
            );
            let verify = self.outcome.verify.as_ref();
            let red = verify.map_or(0, |v| v.count(CellOutcome::Fail));
            if red <= absent.len() || start.elapsed() >= SETTLE || self.ctx.cancel.is_cancelled() {
                return;
            }
            let text = format!("{red} paths are not as expected yet; looking again");
            self.emitter.emit(None, EventKind::Note { text });
            std::thread::sleep(SETTLE_PAUSE);
        }
    }
}

/// The bundle as the journal and `status` name it.
fn name_of(bundle: &BundleFile) -> String {
    format!(
        "Kubernetes {}, index {}",
        bundle.index().kubernetes_version,
        bundle.index_digest()
    )
}
