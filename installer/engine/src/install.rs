//! An install, phase by phase: [`InstallRun::phases`] is the list.

use crate::cluster::Cluster;
use crate::distribute::blobs_of;
use crate::execute::{Executed, Executor};
use crate::fleet::{self, EventEmitter, Sessions};
use crate::present::Present;
use crate::run::{InstallOptions, OnFailure, Outcome, RunContext, Until};
use crate::session::{AgentPlace, NodeSession};
use crate::{adopt, inspect, render, undo};
use landfall_bundle::BundleFile;
use landfall_core::action::{Action, BootstrapGoal};
use landfall_core::cluster_record::ClusterRecord;
use landfall_core::event::{EventKind, Phase};
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::facts::NodeFacts;
use landfall_core::inventory::Node;
use landfall_core::journal::{Ownership, RunStart};
use landfall_core::membership::{MembershipInput, is_formed, wanted_record};
use landfall_core::name::{Digest, NodeName, StepId};
use landfall_core::observe::{Observations, Verdict, judge};
use landfall_core::plan::file::{PLAN_FILE_VERSION, PlanFile};
use landfall_core::plan::install::plan_install;
use landfall_core::plan::objects::left_out;
use landfall_core::plan::pending::{pass_waits, settle};
use landfall_core::plan::{Plan, PlanError, Step};
use landfall_core::preflight::{self, Severity};
use landfall_core::run_history::{DONE, INSTALL, UNINSTALL};
use landfall_core::spec::Desired;
use landfall_core::verify::CellOutcome;
use landfall_core::wire::{NodeLogs, Request};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::sync::{Arc, Mutex, PoisonError};
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

/// What the run is to do, before its first change.
struct Prepared {
    plan: Plan,
    satisfied: BTreeSet<StepId>,
    present: Present,
    record: ClusterRecord,
}

impl Prepared {
    fn changes_something(&self) -> bool {
        let pending = |s: &&Step| s.action.changes_something() && !self.satisfied.contains(&s.id);
        self.plan.steps.iter().any(|s| pending(&s))
    }
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

    /// Machines outside are looked from at the very end; that they cannot be reached is better known now. Members that are absent are
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
        let formed =
            present.record.as_ref().is_some_and(|r| r.formed) || landfall_core::membership::is_formed(&present.owned);
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

    fn preflight(&mut self, present: &Present, facts: &BTreeMap<NodeName, NodeFacts>) -> Result<(), Vec<Diagnosis>> {
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
        let (refused, warned): (Vec<_>, Vec<_>) = findings.into_iter().partition(|f| f.severity == Severity::Refuse);
        self.outcome.warnings.extend(warned.into_iter().map(|f| f.to_string()));
        if refused.is_empty() {
            return Ok(());
        }
        Err(refused.into_iter().map(Diagnosis::from).collect())
    }

    /// Plans, and finds out which steps are satisfied.
    fn plan(&mut self, present: Present, facts: &BTreeMap<NodeName, NodeFacts>) -> Result<Prepared, Vec<Diagnosis>> {
        let emitter = self.emitter.clone();
        let prepared = emitter.phase(Phase::Plan, || {
            let upstream_dns = render::upstream_dns(self.desired, present.record.as_ref(), facts);
            let record = wanted_record(&MembershipInput {
                desired: self.desired,
                recorded: present.record.as_ref(),
                owned: &present.owned,
                facts,
                kubernetes_version: &self.bundle.index().kubernetes_version,
                bundle: self.bundle.index_digest(),
                upstream_dns: &upstream_dns,
                new_uid: &self.ctx.new_uid,
                run: present.history.next_number(),
            });
            let record = record.map_err(|findings| findings.into_iter().map(Diagnosis::from).collect::<Vec<_>>())?;
            let mut input = render::render(self.desired, self.bundle.index(), &record, &present.owned, facts)?;
            input.left_out = left_out(present.owned.values(), &input.groups);
            let mut plan = plan_install(&input).map_err(no_plan)?;
            let mut satisfied = self.satisfied(&plan, &present.owned)?;
            let left_out = self.ctx.limit.leave_out(&plan, &mut satisfied);
            left_out.map_err(|blocked| vec![blocked.diagnosis()])?;
            settle(&mut plan, &mut satisfied, &record, &present.owned).map_err(no_plan)?;
            Ok::<_, Vec<Diagnosis>>(Prepared {
                plan,
                satisfied,
                present,
                record,
            })
        })?;
        let pending = pending(&prepared.plan, &prepared.satisfied);
        self.emitter.planned(self.outcome.run.as_ref(), pending.steps.len());
        self.outcome.plan = Some(pending);
        let made = PlanFile {
            version: PLAN_FILE_VERSION,
            cluster: self.desired.spec.name.clone(),
            uid: prepared.present.record.as_ref().map(|r| r.uid.clone()),
            bundle: self.bundle.index_digest(),
            plan: prepared.plan.clone(),
            satisfied: prepared.satisfied.clone(),
        };
        if let Some(asked) = &self.options.plan_file {
            self.refuse_drift(asked, &made)?;
        }
        self.outcome.plan_file = Some(made);
        if self.options.until == Until::Plan {
            self.outcome.bytes_to_send = self.missing_bytes(&prepared)?;
        }
        Ok(prepared)
    }

    /// A plan that was made earlier is run as it was made, or not at all. Without drift the plan made now has the very same steps.
    fn refuse_drift(&self, asked: &PlanFile, made: &PlanFile) -> Result<(), Vec<Diagnosis>> {
        let drift = asked.drift(made);
        if drift.is_empty() {
            return Ok(());
        }
        let diagnosis = Diagnosis::new(Code::PlanDrift, "what the plan was made for is not there any more");
        let diagnosis = drift.into_iter().fold(diagnosis, Diagnosis::saw);
        Err(vec![diagnosis])
    }

    /// Judges every step by what is there: nodes are looked at by their agents, objects by the server's own dry run. Waits count as
    /// satisfied when all that they wait behind is.
    fn satisfied(
        &mut self,
        plan: &Plan,
        owned: &BTreeMap<NodeName, Ownership>,
    ) -> Result<BTreeSet<StepId>, Vec<Diagnosis>> {
        let looked_at = |s: &&Step| s.action.changes_something() && !s.action.runs_in_cluster() && !s.ephemeral;
        let seen: BTreeMap<NodeName, Observations> = fleet::ask_all(&self.sessions, |name| Request::Observe {
            steps: plan.steps_on(name).filter(looked_at).cloned().collect(),
        })?;
        let mut satisfied = BTreeSet::new();
        for step in plan.steps.iter().filter(looked_at) {
            let Some(seen) = seen.get(&step.node).and_then(|seen| seen.get(&step.id)) else {
                continue;
            };
            let entry = owned.get(&step.node).and_then(|own| own.newest(&step.id));
            match judge(&step.action, entry, seen) {
                Verdict::Satisfied(_) => {
                    satisfied.insert(step.id.clone());
                }
                Verdict::Pending(why) => {
                    self.outcome.reasons.insert(step.id.clone(), why);
                }
            }
        }
        pass_waits(plan, &mut satisfied);
        let applies: Vec<&Step> = plan
            .steps
            .iter()
            .filter(|s| s.action.changes_something() && s.action.runs_in_cluster())
            .filter(|s| s.needs.iter().all(|need| satisfied.contains(need)))
            .collect();
        let same = fleet::each(&applies, |step| {
            let session = self.sessions.get(&step.node);
            session.is_some_and(|session| self.cluster.is_satisfied(session, step, owned))
        });
        let unchanged = applies.iter().zip(same).filter(|(_, same)| *same);
        satisfied.extend(unchanged.map(|(step, _)| step.id.clone()));
        pass_waits(plan, &mut satisfied);
        Ok(satisfied)
    }

    /// How many bytes each node lacks of what its steps need.
    fn missing_bytes(&self, prepared: &Prepared) -> Result<BTreeMap<NodeName, u64>, Vec<Diagnosis>> {
        let wanted = |name: &NodeName| -> BTreeSet<_> {
            let steps = prepared
                .plan
                .steps_on(name)
                .filter(|s| !prepared.satisfied.contains(&s.id));
            steps.flat_map(blobs_of).collect()
        };
        let there: BTreeMap<NodeName, BTreeSet<_>> =
            fleet::ask_all(&self.sessions, |name| Request::HaveBlobs { digests: wanted(name) })?;
        let size = |digest: &Digest| self.bundle.index().blob(digest).map_or(0, |blob| blob.size_bytes);
        let missing = |(name, there): (NodeName, BTreeSet<_>)| {
            let bytes = wanted(&name).difference(&there).map(size).sum();
            (name, bytes)
        };
        Ok(there.into_iter().map(missing).collect())
    }

    /// Hashes every blob that a step will send, so that a damaged bundle is refused before a node is changed. (Nodes hash them again.)
    fn check_bundle(&self, prepared: &Prepared) -> Result<(), Vec<Diagnosis>> {
        self.emitter.phase(Phase::CheckBundle, || {
            let steps = prepared
                .plan
                .steps
                .iter()
                .filter(|s| !prepared.satisfied.contains(&s.id));
            let blobs: BTreeSet<_> = steps.flat_map(blobs_of).collect();
            self.bundle.verify_blobs(blobs.iter(), &mut |_, _| {})
        })
    }

    /// Journals the run's number and the cluster on every member that is here, control planes first. Preflight saw to it that they are a
    /// majority: so no two runs can have one number and both act.
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

    /// What serves the run alone goes also when it fails; everything else stays, or goes as the user asked.
    fn fail(&mut self, prepared: &Prepared) {
        save_logs(self.ctx, &self.emitter, &self.sessions, &self.outcome);
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

/// Keeps the record in the nodes' journals up to date while a run goes on.
struct RecordWriter {
    sessions: Sessions,
    record: Mutex<ClusterRecord>,
}

impl RecordWriter {
    fn new(sessions: &Sessions, record: &ClusterRecord) -> Self {
        Self {
            sessions: sessions.clone(),
            record: Mutex::new(record.clone()),
        }
    }

    /// Notes what a step that is done made of the cluster. From the founding on no node may found: this is written before anything that
    /// needs the founding.
    fn note(&self, step: &Step) -> Result<(), Diagnosis> {
        let Action::Bootstrap { goal, .. } = &step.action else {
            return Ok(());
        };
        if *goal != BootstrapGoal::Founder {
            return Ok(());
        }
        self.write(|record, ca| {
            record.formed = true;
            record.ca = ca;
        })
        .map_err(|mut errors| {
            errors
                .pop()
                .unwrap_or_else(|| Diagnosis::new(Code::Internal, "no error"))
        })
    }

    /// Completes the record at the end of a run.
    fn complete(&self) -> Result<(), Vec<Diagnosis>> {
        self.write(|record, ca| {
            record.formed = true;
            record.ca = record.ca.or(ca);
        })
    }

    fn write(&self, change: impl FnOnce(&mut ClusterRecord, Option<Digest>)) -> Result<(), Vec<Diagnosis>> {
        let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        let founder = record.founder().and_then(|name| self.sessions.get(name));
        let facts = founder.map(|session| {
            let query = landfall_core::facts::FactsQuery::default();
            session.ask::<NodeFacts>(&Request::Facts(query))
        });
        let ca = facts.transpose().map_err(|d| vec![d])?.and_then(|f| f.cluster_ca);
        change(&mut record, ca);
        // The revisions of `begin` (0), the founding and the end of the run are different; each is written once.
        record.sequence.revision += 1;
        let request = Request::WriteRecord {
            record: Box::new(record.clone()),
        };
        fleet::ask_all::<()>(&self.sessions, |_| request.clone()).map(drop)
    }
}

/// Makes an error of a plan that cannot be made.
fn no_plan(error: PlanError) -> Vec<Diagnosis> {
    let code = match &error {
        PlanError::FoundedAgain { .. } | PlanError::FounderAbsent(_) | PlanError::NoControlPlane => Code::Preflight,
        PlanError::MissingFromBundle(_) => Code::BundleMissing,
        _ => Code::Internal,
    };
    let next = match &error {
        PlanError::FoundedAgain { .. } => {
            "nothing was changed; look what happened to the node, and uninstall it alone if it is lost"
        }
        PlanError::FounderAbsent(_) | PlanError::NoControlPlane => {
            "bring the node back, then run the same command again"
        }
        _ => "build the bundle again with this version of landfall",
    };
    vec![Diagnosis::new(code, "no plan can be made").because(&error).next(next)]
}

/// The bundle as the journal and `status` name it.
fn name_of(bundle: &BundleFile) -> String {
    format!(
        "Kubernetes {}, index {}",
        bundle.index().kubernetes_version,
        bundle.index_digest()
    )
}

/// The part of the plan that changes something, for people.
fn pending(plan: &Plan, satisfied: &BTreeSet<StepId>) -> Plan {
    let steps = plan
        .steps
        .iter()
        .filter(|s| s.action.changes_something() && !satisfied.contains(&s.id));
    Plan {
        steps: steps.cloned().collect(),
        ..Plan::default()
    }
}

/// Saves the ends of kubeadm's, kubelet's and containerd's logs of the nodes that failed, beside the report.
fn save_logs(ctx: &RunContext, emitter: &EventEmitter, sessions: &Sessions, outcome: &Outcome) {
    let Some(directory) = &ctx.report_dir else { return };
    let nodes: BTreeSet<&NodeName> = outcome.errors.iter().filter_map(|e| e.node.as_ref()).collect();
    for node in nodes {
        let Some(session) = sessions.get(node) else { continue };
        let saved = session.ask::<NodeLogs>(&Request::Logs).and_then(|logs| {
            let directory = directory.join("logs").join(node.as_str());
            let write = || -> std::io::Result<()> {
                std::fs::DirBuilder::new()
                    .recursive(true)
                    .mode(0o700)
                    .create(&directory)?;
                logs.files.iter().try_for_each(|(name, text)| {
                    let mut options = std::fs::OpenOptions::new();
                    let options = options.write(true).create(true).truncate(true).mode(0o600);
                    let mut file = options.open(directory.join(name.replace('/', "_")))?;
                    file.write_all(text.as_bytes())
                })
            };
            write()
                .map_err(|e| Diagnosis::new(Code::FileUnreadable, "the node's logs could not be saved").because(&e))?;
            Ok(directory)
        });
        let text = match saved {
            Ok(directory) => format!("logs of {node} are in {}", directory.display()),
            Err(error) => format!("logs of {node} could not be saved: {error}"),
        };
        emitter.emit(Some(node), EventKind::Note { text });
    }
}
