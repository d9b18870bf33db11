//! Tests of runs without faults.

use crate::scene::{Listener, Scene, VARIES};
use landfall_core::action::Action;
use landfall_core::event::{Event, EventKind, EventSink};
use landfall_core::journal::INSTALL;
use landfall_core::journal::{EntryState, RunStart};
use landfall_core::layout;
use landfall_core::plan::key::StepKind;
use landfall_core::plan::{Plan, Stage, Step};
use landfall_core::verify::CellOutcome;
use landfall_core::wire::Request;
use landfall_engine::cluster::Cluster;
use landfall_engine::emitter::EventEmitter;
use landfall_engine::execute::Executor;
use landfall_engine::fleet;
use landfall_engine::run::UndoCommand;
use landfall_engine::session::AgentPlace;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// Says whether a step changes something that outlasts its run.
fn serves_the_cluster(step: &Step) -> bool {
    step.action.changes_something() && !step.ephemeral && !step.action.is_undo()
}

#[test]
fn an_install_is_complete_repeats_without_changes_and_uninstalls_without_a_trace() {
    let scene = Scene::new(3, 2);
    let finished = Arc::new(Mutex::new(BTreeMap::new()));
    let take = Arc::clone(&finished);
    let sink = Listener(move |event: &Event| {
        if let EventKind::StepFinished { step, changed, .. } = &event.kind {
            take.lock().unwrap().insert(step.clone(), *changed);
        }
    });
    let first = scene.install_heard("100-a", Arc::new(sink));
    scene.must_work(&first, "install");
    let planned = &first.plan.as_ref().unwrap().steps;
    // What serves this run alone is made, and withdrawn at its end.
    let withdrawn = planned.iter().filter(|s| s.ephemeral).count();
    // Of two directories that are made side by side the inner one may bring the outer one along, waiting changes nothing, and kubeadm
    // of this version writes the balancer into kubeconfigs by itself.
    let finished = finished.lock().unwrap();
    for step in planned {
        let changes = !matches!(
            step.action,
            Action::Directory { .. } | Action::Await { .. } | Action::KubeconfigServer { .. }
        );
        let changed = finished[&step.id];
        assert!(changed || !changes, "{step:#?}");
    }
    drop(finished);
    let cells = &first.verify.as_ref().unwrap().cells;
    let passed = cells.iter().filter(|c| c.outcome == CellOutcome::Pass).count();
    assert!(
        passed == cells.len() && passed > 200,
        "{passed} of {} cells",
        cells.len()
    );
    let seen = scene.seen();
    assert_eq!((seen.members.len(), seen.nodes.len()), (3, 5));
    assert!(seen.members.values().all(|healthy| *healthy) && seen.nodes.values().all(|(_, ready)| *ready));
    let installed = scene.fleet.trees().unwrap();
    for node in scene.desired.inventory.members() {
        let tree = &installed[&node.name];
        assert!(tree.has("etc/kubernetes/kubelet.conf") && tree.has("run/systemd/active/kubelet.service"));
        assert_eq!(tree.file("proc/sys/net/ipv4/ip_forward"), Some(&b"1"[..]));
        let credential = layout::JOIN_KUBECONFIG.trim_start_matches('/');
        assert!(!tree.has(credential), "the credential of the joins goes with its run");
        assert!(
            !tree.has("var/lib/landfall/blobs"),
            "blobs that served their purpose go"
        );
        let (text, own) = scene.journal(&node.name);
        assert!(own.open_run().is_none() && own.entries.iter().all(|e| e.state == EntryState::Owned));
        let text = String::from_utf8(text).unwrap();
        assert!(!text.contains("key of ca"), "no secret in a journal");
    }
    let second = scene.install("200-b");
    scene.must_work(&second, "second install");
    // Why nothing is done, of each step: what was seen of it.
    for step in planned.iter().filter(|s| serves_the_cluster(s)) {
        let why = second.satisfied.get(&step.id);
        assert!(
            why.is_some_and(|why| !why.is_empty()),
            "{}: {:?}",
            step.id,
            second.satisfied
        );
    }
    let dns = StepKind::Apply.part_of_cluster("dns");
    assert_eq!(second.satisfied[&dns], "a dry run on the API server changes nothing");
    assert_eq!((second.changes, second.bytes_sent.values().sum::<u64>()), (0, 0));
    let differences = scene.fleet.differences(&installed, &[]).unwrap();
    assert!(
        differences.is_empty(),
        "a second run adds nothing, no journal record either: {differences:#?}"
    );
    let undone = scene.undo("300-c", UndoCommand::Uninstall);
    scene.must_work(&undone, "uninstall");
    // Made and withdrawn are two changes of the install, of which nothing is left.
    assert!(undone.changes + 2 * withdrawn >= first.changes);
    scene.must_be_as_before("uninstall");
    let again = scene.undo("400-d", UndoCommand::Uninstall);
    scene.must_work(&again, "second uninstall");
    assert_eq!(again.changes, 0);
    scene.must_be_as_before("second uninstall");
}

#[test]
fn rollback_of_a_second_run_keeps_the_first() {
    let mut scene = Scene::new(1, 1);
    scene.must_work(&scene.install("100-a"), "install");
    let installed = scene.fleet.trees().unwrap();
    let corefile = |scene: &Scene| {
        let founder = "cp-1".parse().unwrap();
        let map = scene
            .fleet
            .world()
            .object(&founder, "configmaps", "kube-system", "coredns");
        map.unwrap()["data"]["Corefile"].as_str().unwrap().to_owned()
    };
    let closed = corefile(&scene);
    scene.set("upstreamDns: [10.20.9.9]\n");
    let second = scene.install("200-b");
    scene.must_work(&second, "changed install");
    assert_eq!(second.changes, 3, "a file on two nodes, and CoreDNS's configuration");
    assert!(corefile(&scene).contains("forward . 10.20.9.9"));
    assert!(!scene.fleet.differences(&installed, &VARIES).unwrap().is_empty());
    scene.must_work(&scene.undo("300-c", UndoCommand::Rollback), "rollback");
    scene.must_be_installed_as(&installed, "rollback");
    assert_eq!(corefile(&scene), closed);
    let repeated = scene.undo("400-d", UndoCommand::Rollback);
    scene.must_work(&repeated, "second rollback");
    assert_eq!(repeated.changes, 0, "a rollback that is repeated goes no further back");
    scene.must_be_installed_as(&installed, "second rollback");
    scene.must_work(&scene.undo("500-e", UndoCommand::Uninstall), "uninstall");
    scene.must_be_as_before("uninstall");
}

/// These machines have no packet filters: what is wanted of them is recorded, kept and taken back all the same.
#[test]
fn packet_filters_are_opened_as_long_as_the_spec_asks_for_it() {
    let mut scene = Scene::new(1, 1);
    scene.must_work(&scene.install("100-a"), "install");
    let installed = scene.fleet.trees().unwrap();
    scene.set("firewall: open\n");
    let opened = scene.install("200-b");
    scene.must_work(&opened, "install that opens");
    let steps = |plan: &Option<Plan>| {
        let steps = &plan.as_ref().unwrap().steps;
        let mut ids: Vec<String> = steps.iter().map(|step| step.id.to_string()).collect();
        ids.sort();
        ids
    };
    let changed = [
        "firewall/cp-1",
        "firewall/w-1",
        "unit-file/landfall-node-settings/cp-1",
        "unit-file/landfall-node-settings/w-1",
        "unit/landfall-node-settings/cp-1",
        "unit/landfall-node-settings/w-1",
    ];
    assert_eq!(steps(&opened.plan), changed);
    let held = |scene: &Scene, name: &str| {
        let (_, own) = scene.journal(&name.parse().unwrap());
        landfall_core::health::Held::of(&own).openings
    };
    let accepted = held(&scene, "w-1").unwrap();
    assert!(
        format!("{accepted:?}").contains("10250"),
        "its kubelet is called: {accepted:?}"
    );
    assert_eq!(scene.install("300-c").changes, 0);

    scene.set("firewall: keep\n");
    let closed = scene.install("400-d");
    scene.must_work(&closed, "install without the setting");
    assert_eq!(steps(&closed.plan), changed);
    assert_eq!(held(&scene, "w-1"), None);
    assert_eq!(scene.install("500-e").changes, 0);
    scene.must_be_installed_as(&installed, "the setting left out");

    scene.must_work(&scene.undo("600-f", UndoCommand::Rollback), "rollback");
    assert_eq!(held(&scene, "w-1"), Some(accepted), "the rollback opens again");
    scene.must_work(&scene.undo("700-g", UndoCommand::Uninstall), "uninstall");
    scene.must_be_as_before("uninstall");
}

/// Seen with seed 2: the kernel features were there, so the kernel settings were written while the interrupted claim, which comes before
/// both, was undone; and with the claim the settings went back to what they had been.
#[test]
fn a_step_waits_for_what_comes_before_a_satisfied_one() {
    let scene = Scene::new(1, 0);
    let step = |id: &str, needs: &[&str], action| {
        Step::new(id.parse().unwrap(), Stage::Prepare, "cp-1".parse().unwrap(), 30, action)
            .after(needs.iter().map(|n| n.parse().unwrap()).collect())
    };
    let lines = vec!["10.9.9.9 a.name".to_owned()];
    let directory = |path: &str| Action::Directory {
        path: path.into(),
        mode: 0o755,
    };
    let steps = vec![
        step("first", &[], Action::HostsLines { lines }),
        step("there", &["first"], directory("/etc")),
        step("there-too", &["there"], directory("/opt")),
        step("last", &["there-too"], directory("/opt/new")),
    ];
    let order = Arc::new(Mutex::new(Vec::new()));
    let said = Arc::clone(&order);
    let listener = Listener(move |event: &Event| match &event.kind {
        EventKind::StepStarted { step, .. } => said.lock().unwrap().push(format!("{step} begins")),
        EventKind::StepFinished { step, .. } => said.lock().unwrap().push(format!("{step} ends")),
        _ => {}
    });
    run_steps(&scene, steps, &["there", "there-too"], Arc::new(listener));
    let order = order.lock().unwrap().clone();
    assert_eq!(order, ["first begins", "first ends", "last begins", "last ends"]);
}

/// Runs steps of a plan that no planner makes; some are there already.
fn run_steps(scene: &Scene, steps: Vec<Step>, there: &[&str], sink: Arc<dyn EventSink>) {
    let context = scene.fleet.run_context("100-a", "ann@desk", sink).unwrap();
    let emitter = EventEmitter::new(&context);
    let members: Vec<_> = scene.desired.inventory.members().collect();
    let (sessions, errors) = fleet::connect(&members, AgentPlace::Member, &context, &emitter);
    assert!(errors.is_empty(), "{errors:?}");
    fleet::lease(&sessions, INSTALL, "ship", &context, &emitter).unwrap();
    let start = RunStart::new(context.run.clone(), 1, INSTALL, "ship");
    let request = Request::StartRun { start, record: None };
    fleet::ask_all::<()>(&sessions, |_| request.clone()).unwrap();
    let executor = Executor {
        sessions: &sessions,
        owned: &BTreeMap::new(),
        supply: None,
        relay: &BTreeMap::new(),
        journals: &[],
        on_done: &|_| Ok(()),
        cluster: &Cluster::default(),
        cancel: &context.cancel,
        emitter: &emitter,
    };
    let plan = Plan {
        steps,
        ..Plan::default()
    };
    let executed = executor.run(&plan, &there.iter().map(|id| id.parse().unwrap()).collect());
    assert!(executed.errors.is_empty(), "{:?}", executed.errors);
    fleet::close(&sessions);
    scene.fleet.settle().unwrap();
}
