//! The story of an install, top to bottom.

use crate::cluster::Cluster;
use crate::distribute::blobs_of;
use crate::execute::Executor;
use crate::fleet::{self, Sessions, Voice};
use crate::run::{Back, OnFailure, Outcome, Surroundings, Until};
use crate::session::AgentPlace;
use crate::{inspect, render, undo};
use landfall_bundle::BundleFile;
use landfall_core::event::EventKind;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::facts::NodeFacts;
use landfall_core::inventory::Node;
use landfall_core::journal::Ownership;
use landfall_core::name::{Digest, NodeName, StepId};
use landfall_core::plan::install::plan_install;
use landfall_core::plan::objects::left_out;
use landfall_core::plan::{Plan, Step};
use landfall_core::preflight::{self, Severity};
use landfall_core::spec::Desired;
use landfall_core::verify::CellOutcome;
use landfall_core::wire::{NodeLogs, Request};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// How long a cluster that has just come up may take until every path works: flannel's and kube-proxy's slowest retries are 30 s.
const SETTLE: Duration = Duration::from_secs(60);
/// Pause between two looks.
const SETTLE_PAUSE: Duration = Duration::from_millis(500);

/// See [`crate::run::install`].
pub fn install(
    desired: &Desired,
    bundle: &BundleFile,
    until: Until,
    on_failure: OnFailure,
    around: &Surroundings,
) -> Outcome {
    let voice = Voice::new(around);
    let mut outcome = Outcome::default();
    let members: Vec<&Node> = desired.inventory.members().collect();
    // Machines outside are looked from at the very end; that they cannot be reached is better known now.
    let machines: Vec<&Node> = desired.inventory.outside().collect();
    let ((sessions, errors), (outside, outside_errors)) = voice.phase("connect", || {
        std::thread::scope(|scope| {
            let outside = scope.spawn(|| fleet::connect(&machines, AgentPlace::Visitor, around, &voice));
            let members = fleet::connect(&members, AgentPlace::Member, around, &voice);
            let outside = outside.join();
            (
                members,
                outside.unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            )
        })
    });
    outcome.errors = errors;
    outcome.errors.extend(outside_errors);
    if outcome.errors.is_empty() {
        on_sessions(
            desired,
            bundle,
            until,
            on_failure,
            around,
            &voice,
            &sessions,
            &outside,
            &mut outcome,
        );
    } else {
        fleet::leave_nothing(&sessions);
    }
    fleet::close(&outside);
    fleet::close(&sessions);
    outcome
}

#[expect(clippy::too_many_arguments, reason = "one call, in the one place that has all of it")]
fn on_sessions(
    desired: &Desired,
    bundle: &BundleFile,
    until: Until,
    on_failure: OnFailure,
    around: &Surroundings,
    voice: &Voice,
    sessions: &Sessions,
    outside: &Sessions,
    outcome: &mut Outcome,
) {
    match fleet::lease(sessions, "install", &desired.spec.name, Some(name_of(bundle)), around) {
        Ok(run) => outcome.run = Some(run),
        Err(errors) => {
            outcome.errors.extend(errors);
            return fleet::leave_nothing(sessions);
        }
    }
    let cluster = Cluster::default();
    let prepared = prepare(desired, bundle, voice, sessions, &cluster, outcome);
    let Prepared { plan, satisfied, owned } = match prepared {
        Ok(prepared) => prepared,
        Err(errors) => {
            outcome.errors.extend(errors);
            return fleet::leave_nothing(sessions);
        }
    };
    outcome.plan = Some(pending(&plan, &satisfied));
    if until == Until::Plan {
        match missing_bytes(bundle, sessions, &plan, &satisfied) {
            Ok(bytes) => outcome.bytes_to_send = bytes,
            Err(errors) => outcome.errors.extend(errors),
        }
        return fleet::leave_nothing(sessions);
    }
    if let Err(errors) = voice.phase("check-bundle", || check_blobs(bundle, &plan, &satisfied)) {
        outcome.errors.extend(errors);
        return fleet::leave_nothing(sessions);
    }
    let executor = Executor {
        sessions,
        owned: &owned,
        bundle,
        cluster: &cluster,
        cancel: &around.cancel,
        voice,
    };
    let executed = voice.phase("execute", || executor.run(&plan, &satisfied));
    outcome.changes = executed.changes;
    outcome.bytes_sent = executed.bytes_sent;
    outcome.interrupted = around.cancel.is_cancelled();
    outcome.errors.extend(executed.errors);
    if !outcome.errors.is_empty() || outcome.interrupted {
        return failed(on_failure, around, voice, sessions, outcome);
    }
    finish(sessions, "done", outcome);
    verify_settled(desired, sessions, outside, around, voice, outcome);
}

/// Verifies until all is as expected. A cluster that has just come up still spreads routes and endpoints: what is red is looked at again,
/// for [`SETTLE`] at most.
fn verify_settled(
    desired: &Desired,
    sessions: &Sessions,
    outside: &Sessions,
    around: &Surroundings,
    voice: &Voice,
    outcome: &mut Outcome,
) {
    let start = Instant::now();
    loop {
        inspect::verify_over(desired, sessions, outside, &[], around, voice, outcome);
        let red = outcome.verify.as_ref().map_or(0, |v| v.count(CellOutcome::Fail));
        if red == 0 || start.elapsed() >= SETTLE || around.cancel.is_cancelled() {
            return;
        }
        let text = format!("{red} paths are not as expected yet; looking again");
        voice.say(None, EventKind::Note { text });
        std::thread::sleep(SETTLE_PAUSE);
    }
}

struct Prepared {
    plan: Plan,
    satisfied: BTreeSet<StepId>,
    owned: BTreeMap<NodeName, Ownership>,
}

/// Everything before the first change: facts, preflight, plan, and which of its steps are satisfied.
fn prepare(
    desired: &Desired,
    bundle: &BundleFile,
    voice: &Voice,
    sessions: &Sessions,
    cluster: &Cluster,
    outcome: &mut Outcome,
) -> Result<Prepared, Vec<Diagnosis>> {
    let owned: BTreeMap<NodeName, Ownership> = fleet::ask_all(sessions, |_| Request::Ownership)?;
    let facts: BTreeMap<NodeName, NodeFacts> = voice.phase("facts", || {
        fleet::ask_all(sessions, |name| {
            let node = desired
                .inventory
                .node(name)
                .expect("sessions are made from the inventory's nodes");
            Request::Facts(preflight::query(desired, node))
        })
    })?;
    let findings = voice.phase("preflight", || preflight::check(desired, &facts, &owned));
    let (refused, warned): (Vec<_>, Vec<_>) = findings.into_iter().partition(|f| f.severity == Severity::Refuse);
    outcome.warnings.extend(warned.into_iter().map(|f| f.to_string()));
    if !refused.is_empty() {
        return Err(refused.into_iter().map(Diagnosis::from).collect());
    }
    voice.phase("plan", || {
        let mut input = render::render(desired, bundle.index(), &facts)?;
        input.left_out = left_out(owned.values(), &input.groups);
        let plan = plan_install(&input)
            .map_err(|error| vec![Diagnosis::new(Code::BundleMissing, "no plan can be made").because(&error)])?;
        let satisfied = satisfied(&plan, &owned, sessions, cluster)?;
        Ok(Prepared { plan, satisfied, owned })
    })
}

/// Asks every node, and the cluster, which steps are satisfied. Waits count as satisfied when all that they wait behind is.
fn satisfied(
    plan: &Plan,
    owned: &BTreeMap<NodeName, Ownership>,
    sessions: &Sessions,
    cluster: &Cluster,
) -> Result<BTreeSet<StepId>, Vec<Diagnosis>> {
    let node_steps = |name: &NodeName| -> Vec<Step> {
        plan.steps_on(name)
            .filter(|s| s.action.changes_something() && !s.action.runs_in_cluster())
            .cloned()
            .collect()
    };
    let answers: BTreeMap<NodeName, BTreeSet<StepId>> = fleet::ask_all(sessions, |name| Request::Check {
        steps: node_steps(name),
    })?;
    let mut satisfied: BTreeSet<StepId> = answers.into_values().flatten().collect();
    pass_waits(plan, &mut satisfied);
    let applies: Vec<&Step> = plan
        .steps
        .iter()
        .filter(|s| s.action.changes_something() && s.action.runs_in_cluster())
        .filter(|s| s.needs.iter().all(|need| satisfied.contains(need)))
        .collect();
    let same = fleet::each(&applies, |step| {
        let (Some(session), Some(own)) = (sessions.get(&step.node), owned.get(&step.node)) else {
            return false;
        };
        cluster.is_satisfied(session, step, own)
    });
    satisfied.extend(
        applies
            .iter()
            .zip(same)
            .filter(|(_, same)| *same)
            .map(|(step, _)| step.id.clone()),
    );
    pass_waits(plan, &mut satisfied);
    Ok(satisfied)
}

/// A wait behind nothing new has nothing to wait for; verify looks at the cluster's health anyway.
fn pass_waits(plan: &Plan, satisfied: &mut BTreeSet<StepId>) {
    let waits: Vec<_> = plan
        .steps
        .iter()
        .filter(|s| !s.action.changes_something() && s.needs.iter().all(|need| satisfied.contains(need)))
        .map(|s| s.id.clone())
        .collect();
    satisfied.extend(waits);
}

/// The bundle as the journal and `status` name it.
fn name_of(bundle: &BundleFile) -> String {
    format!(
        "Kubernetes {}, index {}",
        bundle.index().kubernetes_version,
        bundle.index_digest()
    )
}

/// Hashes every blob that a step will send, so that a damaged bundle is refused before a node is changed. (Nodes hash them again.)
fn check_blobs(bundle: &BundleFile, plan: &Plan, satisfied: &BTreeSet<StepId>) -> Result<(), Vec<Diagnosis>> {
    let steps = plan.steps.iter().filter(|s| !satisfied.contains(&s.id));
    let blobs: BTreeSet<_> = steps.flat_map(blobs_of).collect();
    bundle.verify_blobs(blobs.iter(), &mut |_, _| {})
}

/// How many bytes each node lacks of what its steps need.
fn missing_bytes(
    bundle: &BundleFile,
    sessions: &Sessions,
    plan: &Plan,
    satisfied: &BTreeSet<StepId>,
) -> Result<BTreeMap<NodeName, u64>, Vec<Diagnosis>> {
    let wanted = |name: &NodeName| -> BTreeSet<_> {
        let steps = plan.steps_on(name).filter(|s| !satisfied.contains(&s.id));
        steps.flat_map(blobs_of).collect()
    };
    let there: BTreeMap<NodeName, BTreeSet<_>> =
        fleet::ask_all(sessions, |name| Request::HaveBlobs { digests: wanted(name) })?;
    let size = |digest: &Digest| bundle.index().blob(digest).map_or(0, |blob| blob.size_bytes);
    let missing = |(name, there): (NodeName, BTreeSet<_>)| {
        let bytes = wanted(&name).difference(&there).map(size).sum();
        (name, bytes)
    };
    Ok(there.into_iter().map(missing).collect())
}

/// The part of the plan that changes something, for people.
fn pending(plan: &Plan, satisfied: &BTreeSet<StepId>) -> Plan {
    let steps = plan
        .steps
        .iter()
        .filter(|s| s.action.changes_something() && !satisfied.contains(&s.id));
    Plan {
        steps: steps.cloned().collect(),
        secrets: BTreeMap::new(),
    }
}

fn finish(sessions: &Sessions, how: &str, outcome: &mut Outcome) {
    let list: Vec<_> = sessions.values().collect();
    let results = fleet::each(&list, |session| {
        let () = session.ask(&Request::FinishRun {
            outcome: how.to_owned(),
        })?;
        session.ask::<()>(&Request::Tidy)
    });
    outcome.errors.extend(results.into_iter().filter_map(Result::err));
}

fn failed(on_failure: OnFailure, around: &Surroundings, voice: &Voice, sessions: &Sessions, outcome: &mut Outcome) {
    save_logs(around, voice, sessions, outcome);
    if on_failure == OnFailure::Keep {
        return;
    }
    let owned = match fleet::ask_all::<Ownership>(sessions, |_| Request::Ownership) {
        Ok(owned) => owned,
        Err(errors) => return outcome.errors.extend(errors),
    };
    let changes = outcome.changes;
    let errors_before = outcome.errors.len();
    undo::take_back(sessions, &owned, Back::LastRun, voice, outcome);
    outcome.changes = changes;
    outcome.rolled_back = outcome.residue.is_empty() && outcome.errors.len() == errors_before;
}

/// Saves the ends of kubeadm's, kubelet's and containerd's logs of the nodes that failed, beside the report.
fn save_logs(around: &Surroundings, voice: &Voice, sessions: &Sessions, outcome: &Outcome) {
    let Some(directory) = &around.report_dir else { return };
    let nodes: BTreeSet<&NodeName> = outcome.errors.iter().filter_map(|e| e.node.as_ref()).collect();
    for node in nodes {
        let Some(session) = sessions.get(node) else { continue };
        let saved = session.ask::<NodeLogs>(&Request::Logs).and_then(|logs| {
            let directory = directory.join("logs").join(node.as_str());
            let write = || -> std::io::Result<()> {
                std::fs::create_dir_all(&directory)?;
                logs.files
                    .iter()
                    .try_for_each(|(name, text)| std::fs::write(directory.join(name.replace('/', "_")), text))
            };
            write()
                .map_err(|e| Diagnosis::new(Code::FileUnreadable, "the node's logs could not be saved").because(&e))?;
            Ok(directory)
        });
        let text = match saved {
            Ok(directory) => format!("logs of {node} are in {}", directory.display()),
            Err(error) => format!("logs of {node} could not be saved: {error}"),
        };
        voice.say(Some(node), EventKind::Note { text });
    }
}
