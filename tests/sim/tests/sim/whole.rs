//! Runs that nothing disturbs.

use crate::scene::{Listener, Scene, VARIES};
use landfall_core::action::{Action, Content};
use landfall_core::event::{Event, EventKind};
use landfall_core::journal::EntryState;
use landfall_core::plan::{Stage, Step};
use landfall_engine::run::UndoCommand;
use std::sync::{Arc, Mutex};

#[test]
fn an_install_is_complete_repeats_without_a_record_and_goes_without_a_trace() {
    let scene = Scene::new(3, 2);
    let first = scene.install("100-a");
    scene.must_work(&first, "install");
    // What serves this run alone is made, and withdrawn at its end.
    let withdrawn = scene.plan.steps.iter().filter(|s| s.ephemeral).count();
    let expected = scene.plan.steps.len() + withdrawn - satisfied_before(&scene);
    // Of two directories that are made side by side the inner one may bring the outer one along.
    let members = scene.desired.inventory.members().count();
    assert!(
        (expected - members..=expected).contains(&first.changes),
        "{} of {expected}",
        first.changes
    );
    let installed = scene.fleet.trees().unwrap();
    for node in scene.desired.inventory.members() {
        let tree = &installed[&node.name];
        assert!(tree.has("etc/kubernetes/kubelet.conf") && tree.has("run/systemd/active/kubelet.service"));
        assert_eq!(tree.file("proc/sys/net/ipv4/ip_forward"), Some(&b"1"[..]));
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
    assert_eq!((second.changes, second.bytes_sent.values().sum::<u64>()), (0, 0));
    let differences = scene.fleet.differences(&installed, &[]).unwrap();
    assert!(
        differences.is_empty(),
        "a second run adds nothing, no journal record either: {differences:#?}"
    );
    let undone = scene.undo("300-c", UndoCommand::Uninstall);
    scene.must_work(&undone, "uninstall");
    assert!(undone.changes >= first.changes);
    scene.must_be_as_before("uninstall");
    let again = scene.undo("400-d", UndoCommand::Uninstall);
    scene.must_work(&again, "second uninstall");
    assert_eq!(again.changes, 0);
    scene.must_be_as_before("second uninstall");
}

/// Steps whose wanted state is there on a bare machine: the kernel has its features.
fn satisfied_before(scene: &Scene) -> usize {
    let features = |action: &Action| matches!(action, Action::KernelFeatures { .. });
    scene.plan.steps.iter().filter(|s| features(&s.action)).count()
}

#[test]
fn rollback_of_a_second_run_keeps_the_first() {
    let mut scene = Scene::new(1, 1);
    scene.must_work(&scene.install("100-a"), "install");
    let installed = scene.fleet.trees().unwrap();
    for step in &mut scene.plan.steps {
        match &mut step.action {
            Action::HostsLines { lines } => lines.push("10.9.9.9 another.name".to_owned()),
            Action::File {
                path,
                content: Content::Text(text),
                ..
            } if path.ends_with("containerd.toml") => {
                text.push_str("# changed\n");
            }
            _ => {}
        }
    }
    let second = scene.install("200-b");
    scene.must_work(&second, "changed install");
    assert_eq!(second.changes, 4, "two steps on two nodes");
    assert!(!scene.fleet.differences(&installed, &VARIES).unwrap().is_empty());
    scene.must_work(&scene.undo("300-c", UndoCommand::Rollback), "rollback");
    scene.must_be_installed_as(&installed, "rollback");
    let repeated = scene.undo("400-d", UndoCommand::Rollback);
    scene.must_work(&repeated, "second rollback");
    assert_eq!(repeated.changes, 0, "a rollback that is repeated goes no further back");
    scene.must_be_installed_as(&installed, "second rollback");
    scene.must_work(&scene.undo("500-e", UndoCommand::Uninstall), "uninstall");
    scene.must_be_as_before("uninstall");
}

/// Seen with seed 2: the kernel features were there, so the kernel settings were written while the interrupted claim, which comes before
/// both, was taken back; and with the claim the settings went back to what they had been.
#[test]
fn a_step_waits_for_what_comes_before_a_satisfied_one() {
    let mut scene = Scene::new(1, 0);
    let step = |id: &str, needs: &[&str], action| Step {
        id: id.parse().unwrap(),
        stage: Stage::Prepare,
        node: "cp-1".parse().unwrap(),
        needs: needs.iter().map(|n| n.parse().unwrap()).collect(),
        deadline_s: 30,
        action,
        redo: vec![],
        ephemeral: false,
    };
    let lines = vec!["10.9.9.9 a.name".to_owned()];
    let directory = |path: &str| Action::Directory {
        path: path.into(),
        mode: 0o755,
    };
    scene.plan.steps = vec![
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
    scene.must_work(&scene.install_heard("100-a", Arc::new(listener)), "install");
    let order = order.lock().unwrap().clone();
    assert_eq!(order, ["first begins", "first ends", "last begins", "last ends"]);
}
