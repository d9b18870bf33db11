//! `landfall ingress allow`: lets the ingress proxy read Secrets. It is a run of its own, which the journals record like any other. A later
//! install keeps the rights; a rollback of the run, or an uninstall, removes them.

use crate::cluster::Cluster;
use crate::context::{AllowOptions, RunContext};
use crate::dashboard;
use crate::emitter::EventEmitter;
use crate::execute::Executor;
use crate::fleet::{self, Sessions};
use crate::outcome::Outcome;
use crate::present::Present;
use crate::session::{AgentPlace, NodeSession};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::Api;
use landfall_core::action::Action;
use landfall_core::event::Phase;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::inventory::Node;
use landfall_core::journal::{DONE, INGRESS_ALLOW, RunStart};
use landfall_core::name::NodeName;
use landfall_core::plan::key::StepKind;
use landfall_core::plan::objects::{ALLOWED, ALLOWED_NAMED};
use landfall_core::plan::{Plan, Stage, Step};
use landfall_core::preflight;
use landfall_core::spec::Desired;
use landfall_core::wire::Request;
use landfall_manifests::{Allowed, ingress_allow_objects};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Deadline of the step in seconds. It applies two small objects, so nearly all of it is reserve for an API server that restarts.
const DEADLINE_S: u64 = 120;

/// See [`crate::run::allow_secrets`].
pub fn allow(desired: &Desired, options: &AllowOptions, ctx: &RunContext, emitter: &EventEmitter) -> Outcome {
    let mut outcome = Outcome::default();
    if !desired.spec.ingress.enabled {
        let what = "cluster.yaml leaves the ingress proxy out, so no rights can be given to it";
        outcome.errors.push(Diagnosis::new(Code::Usage, what));
        return outcome;
    }
    let members: Vec<&Node> = desired.inventory.members().collect();
    let (sessions, absent) = emitter.phase(Phase::Connect, || {
        fleet::connect(&members, AgentPlace::Member, ctx, emitter)
    });
    outcome.absent = absent;
    let run = AllowRun {
        desired,
        options,
        ctx,
        emitter,
        sessions: &sessions,
        cluster: Cluster::default(),
    };
    if !sessions.is_empty()
        && let Err(errors) = run.phases(&mut outcome)
    {
        outcome.errors.extend(errors);
    }
    fleet::remove_unused_state(&sessions);
    fleet::close(&sessions);
    outcome
}

struct AllowRun<'a> {
    desired: &'a Desired,
    options: &'a AllowOptions,
    ctx: &'a RunContext,
    emitter: &'a EventEmitter,
    sessions: &'a Sessions,
    cluster: Cluster,
}

impl AllowRun<'_> {
    /// lease · read the journals · plan · begin the run · apply · end the run
    fn phases(&self, outcome: &mut Outcome) -> Result<(), Vec<Diagnosis>> {
        fleet::lease(
            self.sessions,
            INGRESS_ALLOW,
            &self.desired.spec.name,
            self.ctx,
            self.emitter,
        )?;
        outcome.run = Some(self.ctx.run.clone());
        let present = Present::read(self.sessions)?;
        outcome.record.clone_from(&present.record);
        let control_planes = self.control_planes(&present)?;
        let lead = &control_planes[0];
        self.check_namespace(lead).map_err(|d| vec![d])?;
        let plan = self.plan(lead).map_err(|d| vec![d])?;
        let done = |step: &&Step| self.cluster.is_satisfied(lead, step, &present.owned);
        let satisfied: BTreeSet<_> = plan.steps.iter().filter(done).map(|step| step.id.clone()).collect();
        let mut pending = plan.clone();
        pending.steps.retain(|step| !satisfied.contains(&step.id));
        self.emitter.planned(outcome.run.as_ref(), pending.steps.len());
        outcome.plan = Some(pending.clone());
        if pending.steps.is_empty() {
            return Ok(());
        }
        self.begin(&present)?;
        let executor = Executor {
            sessions: self.sessions,
            owned: &present.owned,
            supply: None,
            relay: &BTreeMap::new(),
            journals: &control_planes,
            on_done: &|_| Ok(()),
            cluster: &self.cluster,
            cancel: &self.ctx.cancel,
            emitter: self.emitter,
        };
        let executed = self
            .emitter
            .phase(Phase::Execute, || executor.run(&pending, &BTreeSet::new()));
        outcome.changes = executed.changes;
        outcome.interrupted = self.ctx.cancel.is_cancelled();
        outcome.errors.extend(executed.errors);
        if outcome.errors.is_empty() && !outcome.interrupted {
            fleet::end_run(self.sessions, DONE)?;
        }
        Ok(())
    }

    /// Returns the connected control planes. Too few of them are an error, because two runs with the same number could both act then, and so is
    /// an unfinished run of another command.
    fn control_planes(&self, present: &Present) -> Result<Vec<Arc<NodeSession>>, Vec<Diagnosis>> {
        let refuse = |what: String, next: String| vec![Diagnosis::new(Code::Preflight, what).next(next)];
        let Some(record) = present.record.as_ref().filter(|record| record.formed) else {
            return Err(refuse(
                "landfall has installed no cluster on these machines".to_owned(),
                "landfall install".to_owned(),
            ));
        };
        if let Some(run) = present
            .history
            .unfinished()
            .filter(|run| run.start.command != INGRESS_ALLOW)
        {
            let command = &run.start.command;
            return Err(refuse(
                format!("a run of {command} has not finished"),
                format!("landfall {command}: it finishes what was begun; then landfall ingress allow"),
            ));
        }
        let here: Vec<&NodeName> = self.sessions.keys().collect();
        if let Some(finding) = preflight::too_few_control_planes(record, &here) {
            return Err(vec![finding.into()]);
        }
        let sessions = record.control_planes().filter_map(|name| self.sessions.get(name));
        Ok(sessions.cloned().collect())
    }

    /// Refuses a namespace that does not exist: its name is probably misspelt, and the rights would have no effect.
    fn check_namespace(&self, lead: &Arc<NodeSession>) -> Result<(), Diagnosis> {
        let Some(namespace) = &self.options.namespace else {
            return Ok(());
        };
        let found = self.cluster.with_client(lead, |client| async move {
            let found = Api::<Namespace>::all(client).get_opt(namespace).await;
            let what = "the cluster cannot be asked for its namespaces";
            found.map_err(|error| Diagnosis::new(Code::ClusterApi, what).because(&error))
        })?;
        if found.is_some() {
            return Ok(());
        }
        Err(Diagnosis::new(Code::Usage, format!("there is no namespace {namespace}")).next("kubectl get namespaces"))
    }

    fn plan(&self, lead: &Arc<NodeSession>) -> Result<Plan, Diagnosis> {
        let allowed = match (&self.options.namespace, self.options.named) {
            (_, true) => self.named(lead)?,
            (Some(namespace), false) => vec![Allowed::Namespace(namespace.clone())],
            (None, false) => vec![Allowed::Everywhere],
        };
        let step = |allowed: &Allowed| {
            let group = match allowed {
                Allowed::Everywhere => ALLOWED.to_owned(),
                Allowed::Namespace(namespace) => format!("{ALLOWED}-{namespace}"),
                Allowed::Named { namespace, .. } => format!("{ALLOWED_NAMED}-{namespace}"),
            };
            let action = Action::Apply {
                objects: ingress_allow_objects(allowed),
            };
            let id = StepKind::Apply.part_of_cluster(&group);
            Step::new(id, Stage::Ingress, lead.name().clone(), DEADLINE_S, action)
        };
        Ok(Plan {
            steps: allowed.iter().map(step).collect(),
            ..Plan::default()
        })
    }

    /// Returns the Secrets and ConfigMaps that Ingresses name at present. A proxy is asked, because only the proxy knows which annotations name one.
    fn named(&self, lead: &Arc<NodeSession>) -> Result<Vec<Allowed>, Diagnosis> {
        if !self.desired.spec.ingress.dashboard {
            let what = "--named asks the dashboard what Ingresses name, and cluster.yaml leaves it out";
            let next = "leave --named out, or set ingress.dashboard to true and install";
            return Err(Diagnosis::new(Code::Usage, what).next(next));
        }
        let login = dashboard::login(self.desired, &self.cluster, self.sessions)?;
        let port = self.desired.spec.ingress.dashboard_port;
        let uses = dashboard::secrets(lead, port, login.as_ref())?.uses;
        let mut by_namespace: BTreeMap<String, (BTreeSet<String>, BTreeSet<String>)> = BTreeMap::new();
        let wanted = self.options.namespace.as_deref();
        for used in uses
            .into_iter()
            .filter(|used| wanted.is_none_or(|wanted| used.namespace == wanted))
        {
            let (secrets, config_maps) = by_namespace.entry(used.namespace).or_default();
            let names = if used.kind == "Secret" { secrets } else { config_maps };
            names.insert(used.name);
        }
        if by_namespace.is_empty() {
            let place = wanted.map_or(String::new(), |wanted| format!(" of namespace {wanted}"));
            let what = format!("no Ingress{place} names a Secret or ConfigMap, so there is nothing to allow by name");
            return Err(Diagnosis::new(Code::Usage, what).next("leave --named out: the next Ingress works then too"));
        }
        let allowed = by_namespace
            .into_iter()
            .map(|(namespace, (secrets, config_maps))| Allowed::Named {
                namespace,
                secrets: secrets.into_iter().collect(),
                config_maps: config_maps.into_iter().collect(),
            });
        Ok(allowed.collect())
    }

    fn begin(&self, present: &Present) -> Result<(), Vec<Diagnosis>> {
        let number = present.history.next_number();
        let start = RunStart {
            continues: present.history.unfinished().map(|run| run.number),
            ..self.ctx.start(number, INGRESS_ALLOW, &self.desired.spec.name)
        };
        let request = Request::StartRun { start, record: None };
        fleet::ask_all::<()>(self.sessions, |_| request.clone()).map(drop)
    }
}
