//! Preflight, as a command of its own or as a phase of an install: gathers facts of the nodes, checks them and emits the findings.

use crate::context::RunContext;
use crate::emitter::EventEmitter;
use crate::fleet::{self, Sessions};
use crate::mesh;
use crate::outcome::Outcome;
use crate::present::{Present, founder_unknown};
use crate::session::AgentPlace;
use landfall_bundle::{Bundle, Verified};
use landfall_core::event::{EventKind, Phase};
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::facts::NodeFacts;
use landfall_core::finding::{Finding, Strictness, settle};
use landfall_core::inventory::Node;
use landfall_core::journal::{INSTALL, KeptFinding, PUSH};
use landfall_core::name::NodeName;
use landfall_core::preflight::mesh::MeshInput;
use landfall_core::preflight::{self, BundleFacts, Coming, Input};
use landfall_core::spec::Desired;
use landfall_core::wire::Request;
use landfall_manifests::kernel_settings;
use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;

/// What was gathered from the nodes.
#[derive(Debug, Default)]
pub struct Gathered {
    /// Facts by node.
    pub facts: BTreeMap<NodeName, NodeFacts>,
    /// This machine's clock when each node's facts came in, milliseconds since the epoch.
    clocks: BTreeMap<NodeName, u64>,
}

/// Gathers the facts of all nodes. Blocks for about 2 s when a node's DNS servers do not answer.
pub fn gather(
    desired: &Desired,
    sessions: &Sessions,
    ctx: &RunContext,
    emitter: &EventEmitter,
) -> Result<Gathered, Vec<Diagnosis>> {
    emitter.phase(Phase::Facts, || {
        let list: Vec<_> = sessions.values().collect();
        let results = fleet::each(&list, |session| {
            let node = desired.inventory.node(session.name());
            let node = node.expect("sessions are made from the inventory's nodes");
            let facts = session.ask::<NodeFacts>(&Request::Facts(preflight::query(desired, node)))?;
            Ok::<_, Diagnosis>((facts, (ctx.clock)()))
        });
        let (mut gathered, mut errors) = (Gathered::default(), Vec::new());
        for (session, result) in list.iter().zip(results) {
            match result {
                Ok((facts, clock)) => {
                    gathered.facts.insert(session.name().clone(), facts);
                    gathered.clocks.insert(session.name().clone(), clock);
                }
                Err(diagnosis) => errors.push(diagnosis),
            }
        }
        if errors.is_empty() { Ok(gathered) } else { Err(errors) }
    })
}

/// What the checks judge.
pub struct CheckInput<'a> {
    pub desired: &'a Desired,
    pub gathered: &'a Gathered,
    pub present: &'a Present,
    pub bundle: Option<&'a Bundle<Verified>>,
    pub sessions: &'a Sessions,
    pub strictness: Strictness,
}

/// Runs the checks, emits every finding, and returns what is kept of those that do not refuse; those that do are errors.
pub fn run_checks(input: &CheckInput, emitter: &EventEmitter) -> Result<Vec<KeptFinding>, Vec<Diagnosis>> {
    emit_findings(emitter, Phase::Preflight, input, || findings(input))
}

/// Has the nodes try each other; else like [`run_checks`]. Blocks about 10 s at most for 128 attempts of a node.
pub fn try_mesh(input: &CheckInput, emitter: &EventEmitter) -> Result<Vec<KeptFinding>, Vec<Diagnosis>> {
    let asked = MeshInput {
        desired: input.desired,
        facts: &input.gathered.facts,
        owned: &input.present.owned,
        record: input.present.record.as_ref(),
    };
    emit_findings(emitter, Phase::Mesh, input, || mesh::look(&asked, input.sessions))
}

/// Checks whether what a run is about to bring fits where something is installed already; else like [`run_checks`]. Does not block.
pub fn check_room(
    input: &CheckInput,
    coming: &BTreeMap<NodeName, Coming>,
    emitter: &EventEmitter,
) -> Result<Vec<KeptFinding>, Vec<Diagnosis>> {
    let find = |(name, coming): (&NodeName, &Coming)| -> Vec<Finding> {
        let known = input.gathered.facts.get(name).zip(input.bundle);
        known.map_or_else(Vec::new, |(facts, bundle)| {
            preflight::no_room(name, facts, bundle.index(), coming)
        })
    };
    emit_findings(emitter, Phase::Preflight, input, || {
        coming.iter().flat_map(find).collect()
    })
}

fn emit_findings(
    emitter: &EventEmitter,
    phase: Phase,
    input: &CheckInput,
    find: impl FnOnce() -> Vec<Finding>,
) -> Result<Vec<KeptFinding>, Vec<Diagnosis>> {
    let findings = emitter.phase(phase, || {
        let findings = settle(find(), &input.desired.spec.accept, input.strictness);
        for finding in &findings {
            let node = match finding.nodes.as_slice() {
                [only] => Some(only),
                _ => None,
            };
            let finding = finding.clone();
            emitter.emit(node, EventKind::Found { finding });
        }
        findings
    });
    let kept = KeptFinding::of(&findings, &input.desired.spec.accept);
    let refusals = findings.into_iter().filter(Finding::refuses);
    let refusals: Vec<Diagnosis> = refusals.flat_map(Finding::into_diagnoses).collect();
    if refusals.is_empty() { Ok(kept) } else { Err(refusals) }
}

fn findings(input: &CheckInput) -> Vec<Finding> {
    let CheckInput {
        desired,
        gathered,
        present,
        ..
    } = *input;
    let facts = &gathered.facts;
    let mut findings = preflight::check(&Input {
        desired,
        facts,
        owned: &present.owned,
        settings: &kernel_settings(),
        clocks: &gathered.clocks,
        bundle: input.bundle.map(|bundle| BundleFacts {
            index: bundle.index(),
            written_ms: written_ms(bundle),
        }),
    });
    if let Some(record) = &present.record {
        let index = input.bundle.map(Bundle::index);
        findings.extend(preflight::check_record(desired, index, record, facts, &present.owned));
        let here: Vec<&NodeName> = input.sessions.keys().collect();
        findings.extend(preflight::too_few_control_planes(record, &here).filter(|_| record.formed));
    }
    findings
}

/// Returns when the bundle's file was written, in milliseconds since the epoch, if the file system knows.
fn written_ms(bundle: &Bundle<Verified>) -> Option<u64> {
    let written = std::fs::metadata(bundle.path()).and_then(|meta| meta.modified()).ok()?;
    u64::try_from(written.duration_since(UNIX_EPOCH).ok()?.as_millis()).ok()
}

/// Returns the error that names the command to finish first, when a run of another command than install is unfinished.
pub fn unfinished_command(present: &Present) -> Option<Diagnosis> {
    let run = present
        .history
        .unfinished()
        .filter(|run| ![INSTALL, PUSH].contains(&run.start.command.as_str()))?;
    let command = &run.start.command;
    let diagnosis = Diagnosis::new(Code::Preflight, format!("a run of {command} has not finished"))
        .saw(format!("run {} by {}", run.number, run.start.owner));
    Some(diagnosis.next(format!("landfall {command}: it finishes what was begun; then install")))
}

/// See [`crate::run::preflight`].
pub fn preflight(
    desired: &Desired,
    bundle: Option<&Bundle<Verified>>,
    strictness: Strictness,
    ctx: &RunContext,
    emitter: &EventEmitter,
) -> Outcome {
    let mut outcome = Outcome::default();
    let members: Vec<&Node> = desired
        .inventory
        .members()
        .filter(|n| ctx.limit.includes(&n.name))
        .collect();
    let (sessions, absent) = emitter.phase(Phase::Connect, || {
        fleet::connect(&members, AgentPlace::Member, ctx, emitter)
    });
    // The connected machines are checked even when others are absent, so that the user sees all findings at once.
    outcome.absent = absent;
    let errors = check(desired, bundle, strictness, &sessions, ctx, emitter);
    outcome.errors.extend(errors.err().unwrap_or_default());
    fleet::remove_unused_state(&sessions);
    fleet::close(&sessions);
    outcome
}

fn check(
    desired: &Desired,
    bundle: Option<&Bundle<Verified>>,
    strictness: Strictness,
    sessions: &Sessions,
    ctx: &RunContext,
    emitter: &EventEmitter,
) -> Result<(), Vec<Diagnosis>> {
    let present = Present::read(sessions)?;
    let gathered = gather(desired, sessions, ctx, emitter)?;
    let input = CheckInput {
        desired,
        gathered: &gathered,
        present: &present,
        bundle,
        sessions,
        strictness,
    };
    let refused = run_checks(&input, emitter).err().unwrap_or_default();
    let unreachable = try_mesh(&input, emitter).err().unwrap_or_default();
    let unfinished = unfinished_command(&present)
        .into_iter()
        .chain(founder_unknown(&present));
    let errors: Vec<Diagnosis> = unfinished.chain(refused).chain(unreachable).collect();
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}
