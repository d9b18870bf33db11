//! Tests of a founding by several control planes: it is whole, or it is taken back on all of them and begun anew, until the cluster is formed.

use crate::scene::Scene;
use landfall_core::explain::Code;
use landfall_core::name::NodeName;
use landfall_engine::run::{Outcome, UndoCommand};
use landfall_test_support::cluster::{Law, When};
use std::process::Command;
use std::time::{Duration, Instant};

const FOUNDERS: [&str; 3] = ["cp-1", "cp-2", "cp-3"];
const MANIFEST: &str = "etc/kubernetes/manifests/etcd.yaml";

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

fn read(scene: &Scene, node: &str, path: &str) -> String {
    std::fs::read_to_string(scene.fleet.machine(&name(node)).unwrap().at(path)).unwrap_or_default()
}

/// Returns the flags of etcd that say with whom it is bootstrapped.
fn bootstrap(scene: &Scene, node: &str) -> Vec<String> {
    let manifest = read(scene, node, MANIFEST);
    let flags = manifest.lines().filter(|line| line.starts_with("--initial-cluster"));
    flags.map(str::to_owned).collect()
}

fn planned(outcome: &Outcome) -> Vec<&str> {
    let steps = outcome.plan.iter().flat_map(|plan| &plan.steps);
    steps.map(|step| step.id.as_str()).collect()
}

/// Installs again after a founding that was cut off, and fails unless all founders found anew, with the number of this run.
fn must_found_anew(scene: &Scene, run: &str, number: u64, case: &str) {
    let again = scene.install(run);
    scene.must_work(&again, case);
    let plan = planned(&again);
    for node in FOUNDERS {
        let (_, own) = scene.journal(&name(node));
        let founded = own.newest(&format!("init/{node}").parse().unwrap()).unwrap();
        assert_eq!(founded.run.as_str(), run, "{case}: {node} founds with the others");
        assert!(plan.contains(&format!("init/{node}").as_str()), "{case}: {plan:?}");
        let token = format!("-{number}");
        let flags = bootstrap(scene, node);
        assert!(
            flags.len() == 2 && flags[1].ends_with(&token),
            "{case}: {node} {flags:?}"
        );
        assert_eq!(flags, bootstrap(scene, "cp-1"), "{case}");
        assert!(
            !scene
                .fleet
                .machine(&name(node))
                .unwrap()
                .at("etc/landfall/kubeadm-patches/etcd+json.json")
                .exists()
        );
    }
    let seen = scene.seen();
    assert_eq!((seen.members.len(), seen.nodes.len()), (3, 3), "{case}");
    assert_eq!(scene.install("900-z").changes, 0, "{case}");
}

#[test]
fn a_new_cluster_is_founded_by_all_its_control_planes_at_once() {
    let scene = Scene::new(3, 1);
    let first = scene.install("100-a");
    scene.must_work(&first, "install");
    let plan = planned(&first);
    assert!(
        FOUNDERS
            .iter()
            .all(|node| plan.contains(&format!("init/{node}").as_str())),
        "{plan:?}"
    );
    let joins: Vec<_> = plan
        .iter()
        .filter(|id| id.starts_with("join-") && !id.contains("-credential") && !id.contains("-kubeconfig"))
        .collect();
    assert_eq!(joins, [&"join-worker/w-1"]);
    let record = first
        .record
        .unwrap_or_else(|| scene.journal(&name("cp-2")).1.record().unwrap().clone());
    assert_eq!(record.founders().count(), 3);
    let whole = scene.journal(&name("cp-2")).1.record().unwrap().clone();
    assert!(
        whole.formed && whole.members.values().filter(|m| m.etcd_id.is_some()).count() == 3,
        "{whole:#?}"
    );
    let list = &bootstrap(&scene, "cp-2")[0];
    assert_eq!(list.matches("https://").count(), 3, "{list}");
    assert!(!read(&scene, "cp-1", "etc/landfall/kubeadm.yaml").contains("initial-cluster"));
    assert_eq!(scene.install("200-b").changes, 0);
    scene.must_work(&scene.undo("300-c", UndoCommand::Uninstall), "uninstall");
    scene.must_be_as_before("uninstalled");
}

#[test]
fn a_founding_that_is_cut_off_on_one_founder_is_begun_anew_on_all() {
    let places = [
        ("cp-1", "found", When::Before),
        ("cp-1", "found", When::After),
        ("cp-1", "upload-config", When::Before),
        ("cp-1", "mark-control-plane", When::After),
        ("cp-2", "found", When::Before),
        ("cp-2", "found", When::After),
        ("cp-2", "wait-control-plane", When::After),
        ("cp-3", "register", When::After),
        ("cp-3", "mark-control-plane", When::Before),
    ];
    let scene = Scene::new(3, 0);
    for (node, word, when) in places {
        let case = format!("{node} at {word} {when:?}");
        let (fleet, killed) = (scene.fleet.clone(), name(node));
        scene
            .fleet
            .world()
            .at_point(&name(node), word, when, move || fleet.kill(&killed));
        let first = scene.install("100-a");
        assert!(!first.errors.is_empty(), "{case}");
        scene.must_be_lawful(&case);
        let formed = |node: &str| scene.journal(&name(node)).1.record().is_some_and(|r| r.formed);
        assert!(
            !FOUNDERS.iter().any(|node| formed(node)),
            "{case}: no journal says formed"
        );
        must_found_anew(&scene, "200-b", 2, &case);
        scene.must_work(&scene.undo("300-c", UndoCommand::Uninstall), &case);
        scene.must_be_as_before(&case);
    }
}

#[test]
fn a_founding_that_is_cut_off_everywhere_is_rolled_back_or_uninstalled() {
    let scene = Scene::new(3, 0);
    for command in [UndoCommand::Rollback, UndoCommand::Uninstall] {
        for (word, when) in [
            ("found", When::After),
            ("wait-control-plane", When::After),
            ("mark-control-plane", When::Before),
        ] {
            let case = format!("{command:?} after {word} {when:?}");
            let (fleet, names) = (scene.fleet.clone(), scene.fleet.names());
            scene.fleet.world().at_point(&name("cp-2"), word, when, move || {
                names.iter().for_each(|n| fleet.kill(n))
            });
            assert!(!scene.install("100-a").errors.is_empty(), "{case}");
            scene.must_work(&scene.undo("200-b", command), &case);
            scene.must_be_as_before(&case);
        }
    }
}

#[test]
fn a_founder_whose_kubeadm_fails_is_taken_back_with_the_others_by_the_next_run() {
    let scene = Scene::new(3, 0);
    let authority = scene
        .fleet
        .machine(&name("cp-3"))
        .unwrap()
        .at("etc/kubernetes/pki/ca.crt");
    scene
        .fleet
        .world()
        .at_point(&name("cp-3"), "register", When::Before, move || {
            std::fs::remove_file(&authority).unwrap();
        });
    let first = scene.install("100-a");
    let failed: Vec<_> = first
        .errors
        .iter()
        .filter_map(|e| e.step.as_ref())
        .map(|s| s.as_str())
        .collect();
    assert_eq!(failed, ["init/cp-3"], "{:#?}", first.errors);
    scene.must_be_lawful("one founder fails");
    must_found_anew(&scene, "200-b", 2, "one founder fails");
    scene.must_work(&scene.undo("300-c", UndoCommand::Uninstall), "uninstall");
    scene.must_be_as_before("uninstalled");
}

#[test]
fn a_founder_that_was_emptied_founds_no_more() {
    let scene = Scene::new(3, 0);
    scene.must_work(&scene.install("100-a"), "install");
    let machine = scene.fleet.machine(&name("cp-2")).unwrap();
    for path in ["var/lib/etcd", "etc/kubernetes/manifests"] {
        std::fs::remove_dir_all(machine.at(path)).unwrap();
    }
    let refused = scene.install("200-b");
    let text = format!("{:?}", refused.errors);
    assert_eq!(refused.errors[0].code, Code::Preflight, "{text}");
    assert!(text.contains("init/cp-2") && refused.changes == 0, "{text}");
    scene.must_be_lawful("refused");
    // It boots by itself, with the manifest it was founded with: its peers know it as bootstrapped.
    machine.write(MANIFEST, &read(&scene, "cp-1", MANIFEST), 0o600).unwrap();
    let found = Command::new(machine.at("sim/ask")).arg("found").output().unwrap();
    let said = String::from_utf8(found.stderr).unwrap();
    assert!(
        !found.status.success() && said.contains("has already been bootstrapped"),
        "{said}"
    );
}

/// A join is done once. What it made and is gone since is named; the member that lives is not taken for a join that was interrupted.
#[test]
fn a_member_that_lost_a_file_of_its_join_does_not_join_again() {
    let scene = Scene::grown();
    for (node, path) in [
        ("cp-2", "etc/kubernetes/manifests/kube-apiserver.yaml"),
        ("cp-3", "etc/kubernetes/kubelet.conf"),
    ] {
        let file = scene.fleet.machine(&name(node)).unwrap().at(path);
        let text = std::fs::read(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        for run in ["300-a", "300-b"] {
            let refused = scene.install(&format!("{run}-{node}"));
            let said = format!("{:?}", refused.errors);
            assert_eq!(refused.errors[0].code, Code::Preflight, "{said}");
            assert!(
                said.contains(&format!("is gone: /{path}")) && refused.changes == 0,
                "{said}"
            );
            scene.must_be_lawful("refused");
        }
        std::fs::write(&file, text).unwrap();
        let whole = scene.install(&format!("400-{node}"));
        scene.must_work(&whole, "with its file");
        assert_eq!(whole.changes, 0, "{:#?}", whole.plan);
    }
}

/// A control plane that joined was emptied, its journal too: etcd still counts it.
#[test]
fn a_control_plane_without_its_journal_does_not_join_a_second_time() {
    let scene = Scene::grown();
    let machine = scene.fleet.machine(&name("cp-2")).unwrap();
    for path in ["var/lib/landfall", "var/lib/etcd", "etc/kubernetes"] {
        std::fs::remove_dir_all(machine.at(path)).unwrap();
    }
    let refused = scene.install("300-a");
    let said = format!("{:?}", refused.errors);
    assert!(
        said.contains("has an etcd member of this name") && refused.changes == 0,
        "{said}"
    );
    scene.must_be_lawful("refused");
}

/// The founders have different lists when one of them founds by the file of another run.
#[test]
fn a_founding_beside_another_one_is_seen() {
    let scene = Scene::new(3, 0);
    let machine = |node: &str| scene.fleet.machine(&name(node)).unwrap();
    let data = ["cp-1", "cp-3"].map(|node| machine(node).at("var/lib/etcd/member/id"));
    let manifest = machine("cp-2").at(MANIFEST);
    scene
        .fleet
        .world()
        .at_point(&name("cp-2"), "found", When::Before, move || {
            let limit = Instant::now() + Duration::from_secs(10);
            while !data.iter().all(|path| path.exists()) && Instant::now() < limit {
                std::thread::sleep(Duration::from_millis(10));
            }
            let text = std::fs::read_to_string(&manifest).unwrap();
            std::fs::write(&manifest, text.replace("-1\n", "-0\n")).unwrap();
        });
    scene.install("100-a");
    let seen = scene.fleet.world().violations();
    let what = "cp-2 founds one while cp-1, cp-3 have one";
    assert!(
        seen.iter().any(|v| v.law == Law::Founding && v.what.starts_with(what)),
        "{seen:#?}"
    );
}

#[test]
fn control_planes_that_come_later_join_and_a_single_founder_needs_no_list() {
    let mut scene = Scene::new(3, 0);
    let all = scene.desired.clone();
    scene.desired.inventory.nodes.retain(|node| node.name == name("cp-1"));
    let first = scene.install("100-a");
    scene.must_work(&first, "one control plane");
    assert!(
        !planned(&first).iter().any(|id| id.contains("patch")),
        "{:?}",
        planned(&first)
    );
    assert_eq!(bootstrap(&scene, "cp-1"), [""; 0]);
    scene.desired = all;
    let second = scene.install("200-b");
    scene.must_work(&second, "two more");
    let plan = planned(&second);
    assert!(
        !plan.iter().any(|id| id.starts_with("init/") || id.contains("patch")),
        "{plan:?}"
    );
    for join in ["join-control-plane/cp-2", "join-control-plane/cp-3"] {
        assert!(plan.contains(&join), "{plan:?}");
    }
    assert!(!read(&scene, "cp-1", "etc/landfall/kubeadm.yaml").contains("patches"));
    assert_eq!(scene.seen().members.len(), 3);
    assert_eq!(scene.install("300-c").changes, 0);
    scene.must_be_lawful("joined");
}
