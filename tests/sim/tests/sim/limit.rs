//! Tests of `--limit`, which chooses machines to act on and does not change membership.

use landfall_core::explain::Code;
use landfall_core::name::NodeName;
use landfall_engine::limit::Limit;
use landfall_engine::run::{OnFailure, Outcome};
use landfall_test_sim::scene::{Scene, null_sink};

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

fn install(scene: &Scene, run: &str, only: &str) -> Outcome {
    let mut context = scene.fleet.run_context(run, "ann@desk", null_sink()).unwrap();
    context.limit = Limit::to([name(only)].into());
    scene.install_in(&context, OnFailure::Keep)
}

/// Removes a file of landfall's from a machine.
fn damage(scene: &Scene, node: &str) {
    let machine = scene.fleet.machine(&name(node)).unwrap();
    std::fs::remove_file(machine.root().join("etc/landfall/containerd.toml")).unwrap();
}

fn is_whole(scene: &Scene, node: &str) -> bool {
    let machine = scene.fleet.machine(&name(node)).unwrap();
    machine.root().join("etc/landfall/containerd.toml").exists()
}

#[test]
fn only_the_chosen_machine_is_repaired_and_others_may_be_absent() {
    let scene = Scene::new(3, 2);
    scene.must_work(&scene.install("100-a"), "install");
    for node in ["cp-1", "w-1", "w-2"] {
        damage(&scene, node);
    }
    scene.fleet.set_unreachable(&name("w-2"), true);
    let limited = install(&scene, "200-b", "w-1");
    scene.must_work(&limited, "install on w-1 alone");
    assert!(limited.changes > 0);
    let whole = ["cp-1", "w-1"].map(|node| is_whole(&scene, node));
    assert_eq!(whole, [false, true]);
    scene.fleet.set_unreachable(&name("w-2"), false);
    scene.must_work(&scene.install("300-c"), "install everywhere");
    assert!(["cp-1", "w-1", "w-2"].iter().all(|node| is_whole(&scene, node)));
    assert_eq!(scene.install("400-d").changes, 0);
    scene.must_be_lawful("limit");
}

#[test]
fn a_new_worker_joins_and_nothing_else_happens() {
    let mut scene = Scene::new(1, 2);
    let all = scene.desired.clone();
    scene.desired.inventory.nodes.retain(|node| node.name != name("w-2"));
    scene.must_work(&scene.install("100-a"), "install without w-2");
    scene.desired = all;
    damage(&scene, "cp-1");
    let limited = install(&scene, "200-b", "w-2");
    scene.must_work(&limited, "w-2 joins");
    assert!(is_whole(&scene, "w-2") && !is_whole(&scene, "cp-1"));
    let touched = limited.plan.unwrap().steps;
    assert!(
        touched
            .iter()
            .all(|s| s.node == name("w-2") || s.ephemeral || s.id.as_str().contains("join-credential"))
    );
    scene.must_work(&scene.install("300-c"), "install everywhere");
    scene.must_be_lawful("limit");
}

/// Installs all machines but one, then that one by `--limit`, then everything.
fn joins_later(control_planes: u8, workers: u8, later: &str) {
    let mut scene = Scene::new(control_planes, workers);
    let all = scene.desired.clone();
    scene.desired.inventory.nodes.retain(|node| node.name != name(later));
    if workers == 1 {
        // What cluster.yaml means without a worker (spec/parse.rs).
        scene
            .desired
            .inventory
            .nodes
            .iter_mut()
            .for_each(|node| node.schedulable = true);
    }
    scene.must_work(&scene.install("100-a"), "install of the others");
    scene.desired = all;
    let limited = install(&scene, "200-b", later);
    scene.must_work(&limited, "the new machine joins");
    assert!(limited.changes > 0);
    scene.must_work(&scene.install("300-c"), "install everywhere");
    assert_eq!(scene.install("400-d").changes, 0);
    scene.must_be_lawful("limit");
}

#[test]
fn the_first_worker_joins_control_planes_that_take_pods() {
    joins_later(3, 1, "w-1");
}

#[test]
fn a_control_plane_joins_by_a_limit() {
    joins_later(3, 2, "cp-3");
}

#[test]
fn a_cluster_is_not_founded_by_some_of_its_members() {
    let scene = Scene::new(1, 1);
    let limited = install(&scene, "100-a", "cp-1");
    let codes: Vec<Code> = limited.errors.iter().map(|e| e.code).collect();
    assert_eq!(codes, [Code::Usage], "{:#?}", limited.errors);
    scene.must_be_as_before("refused");
}
