//! Plans an install: the plan, its satisfied steps, and the check of the bundle before the first change.

use super::InstallRun;
use crate::context::Until;
use crate::distribute::Needs;
use crate::plan_error::plan_error;
use crate::preflight::{self, Gathered};
use crate::present::Present;
use crate::{fleet, render};
use landfall_core::action::Action;
use landfall_core::cluster_record::ClusterRecord;
use landfall_core::event::Phase;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::journal::Ownership;
use landfall_core::membership::{MembershipInput, wanted_record};
use landfall_core::name::{Digest, NodeName, StepId};
use landfall_core::observe::{Observations, Verdict, judge};
use landfall_core::plan::file::{PLAN_FILE_VERSION, PlanFile};
use landfall_core::plan::key::is_bare;
use landfall_core::plan::objects::left_out;
use landfall_core::plan::pending::{pass_waits, settle};
use landfall_core::plan::{Goal, Plan, PlanError, Step, plan};
use landfall_core::preflight::Coming;
use landfall_core::wire::Request;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

/// The plan of a run and what it was made from.
pub(super) struct Prepared {
    pub(super) plan: Plan,
    pub(super) satisfied: BTreeSet<StepId>,
    pub(super) present: Present,
    pub(super) record: ClusterRecord,
    /// What the pending steps need of the bundle.
    pub(super) needs: Needs,
    /// How many bytes of that each node lacks, once the nodes were asked.
    lacking: OnceLock<BTreeMap<NodeName, u64>>,
}

impl Prepared {
    /// Returns the steps that are not satisfied, in the plan's order.
    pub(super) fn pending(&self) -> impl Iterator<Item = &Step> {
        self.plan.steps.iter().filter(|s| !self.satisfied.contains(&s.id))
    }

    /// Says whether any step that changes something is pending.
    pub(super) fn changes_something(&self) -> bool {
        self.pending().any(|s| s.action.changes_something())
    }

    /// Says whether a run must begin: for what it changes, to end one that was cut off after its last step, or because a record is to hold other
    /// keys from now on, also that of one member alone, which was away.
    pub(super) fn must_begin(&self) -> bool {
        let records = self.present.owned.values().filter_map(|own| own.record());
        let mut recorded = records.chain(&self.present.record).map(|record| &record.trust);
        let keys_change = recorded.any(|trust| *trust != self.record.trust);
        self.changes_something() || self.present.history.unfinished().is_some() || keys_change
    }
}

impl InstallRun<'_> {
    /// Makes the plan and finds its satisfied steps. Changes nothing. Blocks for requests to all nodes and to the API.
    pub(super) fn plan(&mut self, present: Present, gathered: &Gathered) -> Result<Prepared, Vec<Diagnosis>> {
        let facts = &gathered.facts;
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
                bundle_version: &self.bundle.index().bundle_version,
                trust: self.trust.as_ref(),
                upstream_dns: &upstream_dns,
                new_uid: &self.ctx.new_uid,
                run: present.history.next_number(),
            });
            let record = record.map_err(|findings| findings.into_iter().map(Diagnosis::from).collect::<Vec<_>>())?;
            let mut input = render::render(self.desired, self.bundle.index(), &record, &present.owned, facts)?;
            input.left_out = left_out(present.owned.values(), &input.groups);
            let mut plan = plan(&Goal::Installed(&input)).map_err(plan_error)?;
            let mut needs = Needs::default();
            let mut satisfied = self.satisfied(&plan, &present.owned, &mut needs)?;
            let left_out = self.ctx.limit.leave_out(&plan, &mut satisfied);
            left_out.map_err(|blocked| vec![blocked.diagnosis()])?;
            self.let_blobs_go(&mut plan, &present.owned);
            settle(&mut plan, &mut satisfied, &record, &present.owned).map_err(|error| self.cannot_settle(error))?;
            Ok::<_, Vec<Diagnosis>>(Prepared {
                plan,
                satisfied,
                present,
                record,
                needs,
                lacking: OnceLock::new(),
            })
        })?;
        self.room(&prepared, gathered)?;
        self.mesh(&prepared, gathered)?;
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
            self.outcome.bytes_to_send = self.missing_bytes(&prepared)?.clone();
        }
        Ok(prepared)
    }

    /// Returns the error of a plan that cannot be settled, with what was seen where a step was found pending.
    fn cannot_settle(&self, error: PlanError) -> Vec<Diagnosis> {
        let seen = match &error {
            PlanError::BootstrapAgain { step, .. } => self.outcome.reasons.get(step).cloned(),
            _ => None,
        };
        let diagnoses = plan_error(error).into_iter();
        diagnoses.map(|d| seen.iter().fold(d, |d, seen| d.saw(seen))).collect()
    }

    /// Refuses a plan file whose steps differ from those of the plan made now: a plan file is run exactly as it was made, or not at all.
    fn refuse_drift(&self, asked: &PlanFile, made: &PlanFile) -> Result<(), Vec<Diagnosis>> {
        let drift = asked.drift(made);
        if drift.is_empty() {
            return Ok(());
        }
        let diagnosis = Diagnosis::new(Code::PlanDrift, "the cluster has changed since the plan was made");
        let diagnosis = drift.into_iter().fold(diagnosis, Diagnosis::saw);
        Err(vec![diagnosis])
    }

    /// Returns the satisfied steps, and notes what the others need: agents check those on nodes, dry runs on the API server check objects. A wait counts
    /// as satisfied when all its needs are.
    fn satisfied(
        &mut self,
        plan: &Plan,
        owned: &BTreeMap<NodeName, Ownership>,
        needs: &mut Needs,
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
            if plan.undoes_before(step) {
                let why = "an earlier attempt was interrupted".to_owned();
                self.outcome.reasons.insert(step.id.clone(), why);
                continue;
            }
            let entry = owned.get(&step.node).and_then(|own| own.newest(&step.id));
            needs.note(step, entry, seen);
            match judge(&step.action, entry, seen) {
                Verdict::Satisfied(why) => {
                    satisfied.insert(step.id.clone());
                    self.outcome.satisfied.insert(step.id.clone(), why.to_owned());
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
        for (step, same) in applies.iter().zip(same) {
            let id = step.id.clone();
            if same {
                satisfied.insert(id.clone());
                self.outcome
                    .satisfied
                    .insert(id, "a dry run on the API server changes nothing".to_owned());
            } else {
                self.outcome.reasons.insert(
                    id,
                    "a dry run on the API server does not say that all is as wanted".to_owned(),
                );
            }
        }
        pass_waits(plan, &mut satisfied);
        Ok(satisfied)
    }

    /// Returns how many bytes of the blobs that its steps need each node lacks. Blocks for a request to all nodes the first time; the plan keeps the
    /// answer.
    pub(super) fn missing_bytes<'b>(
        &self,
        prepared: &'b Prepared,
    ) -> Result<&'b BTreeMap<NodeName, u64>, Vec<Diagnosis>> {
        if let Some(known) = prepared.lacking.get() {
            return Ok(known);
        }
        let wanted = |name: &NodeName| -> BTreeSet<_> {
            let steps = prepared.pending().filter(|s| s.node == *name);
            steps.flat_map(|s| prepared.needs.blobs_of(s)).collect()
        };
        let there: BTreeMap<NodeName, BTreeSet<_>> =
            fleet::ask_all(&self.sessions, |name| Request::HaveBlobs { digests: wanted(name) })?;
        let size = |digest: &Digest| self.bundle.index().blob(digest).map_or(0, |blob| blob.size_bytes);
        let missing = |(name, there): (NodeName, BTreeSet<_>)| {
            let bytes = wanted(&name).difference(&there).map(size).sum();
            (name, bytes)
        };
        let missing = there.into_iter().map(missing).collect();
        Ok(prepared.lacking.get_or_init(|| missing))
    }

    /// Checks whether what is about to come fits on the nodes on which something is installed: preflight has judged the others by the whole bundle. Blocks
    /// for a request to all nodes, when blobs are needed at all.
    fn room(&mut self, prepared: &Prepared, gathered: &Gathered) -> Result<(), Vec<Diagnosis>> {
        let mut coming: BTreeMap<NodeName, Coming> = BTreeMap::new();
        let is_installed = |name: &NodeName| prepared.present.owned.get(name).is_some_and(|own| !is_bare(own));
        for step in prepared.pending().filter(|step| is_installed(&step.node)) {
            match &step.action {
                Action::Binary { path, size_bytes, .. } => {
                    let coming = coming.entry(step.node.clone()).or_default();
                    coming.programs.insert(path.clone(), *size_bytes);
                }
                Action::Images { .. } => {
                    let coming = coming.entry(step.node.clone()).or_default();
                    coming.images.extend(prepared.needs.blobs_of(step));
                }
                _ => {}
            }
        }
        if coming.is_empty() {
            return Ok(());
        }
        let missing = self.missing_bytes(prepared)?;
        for (name, coming) in &mut coming {
            coming.blob_bytes = missing.get(name).copied().unwrap_or_default();
        }
        let found = preflight::check_room(&self.check_input(&prepared.present, gathered), &coming, &self.emitter)?;
        self.findings.extend(found);
        Ok(())
    }

    /// Hashes every blob that the pending steps need, so that a damaged bundle is refused before a node is changed. (Nodes hash them again.) Blocks on
    /// disk.
    pub(super) fn check_bundle(&self, prepared: &Prepared) -> Result<(), Vec<Diagnosis>> {
        self.emitter.phase(Phase::CheckBundle, || {
            let blobs: BTreeSet<_> = prepared.pending().flat_map(|s| prepared.needs.blobs_of(s)).collect();
            self.bundle.check_some_blobs(blobs.iter(), &mut |_, _| {})
        })
    }
}

/// Returns the part of the plan that changes something, for display.
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
