//! Settings of the pod network: in force from the first install, kept, changed where they can be, refused where they cannot.

use crate::scene::Scene;
use landfall_core::explain::ExitCode;
use landfall_engine::run::UndoCommand;
use serde_json::Value;

/// flannel's backend in the cluster.
fn backend(scene: &Scene) -> Value {
    let founder = "cp-1".parse().unwrap();
    let world = scene.fleet.world();
    let map = world.object(&founder, "configmaps", "kube-flannel", "kube-flannel-cfg");
    let text = map.unwrap()["data"]["net-conf.json"].as_str().unwrap().to_owned();
    let config: Value = serde_json::from_str(&text).unwrap();
    config["Backend"].clone()
}

/// A file of a node.
fn file(scene: &Scene, node: &str, path: &str) -> String {
    std::fs::read_to_string(scene.fleet.machine(&node.parse().unwrap()).unwrap().at(path)).unwrap()
}

const CNI: &str = "/etc/landfall/cni/conf.template";
const UNIT: &str = "/etc/systemd/system/landfall-node-settings.service";

#[test]
fn offload_can_be_changed_and_port_and_mtu_are_kept_for_good() {
    let mut scene = Scene::new(1, 1);
    scene.set("podNetwork: {vxlanPort: 4789, mtu: 1400}\n");
    scene.must_work(&scene.install("100-a"), "install");
    let first = serde_json::json!({ "Type": "vxlan", "Port": 4789, "MTU": 1450 });
    assert_eq!(backend(&scene), first);
    assert!(file(&scene, "w-1", CNI).contains("\"mtu\": 1400"));
    assert_eq!(scene.install("110-b").changes, 0);

    // One that is not named any more is kept as it was recorded; the port of a spec that names none is 8472.
    scene.set("podNetwork: {vxlanPort: 4789}\n");
    assert_eq!(scene.install("120-c").changes, 0);
    for (settings, named) in [
        ("podNetwork: {vxlanPort: 4789, mtu: 1450}\n", "podNetwork.mtu"),
        ("podNetwork: {mtu: 1400}\n", "podNetwork.vxlanPort"),
        (
            "podNetwork: {backend: host-gw, vxlanPort: 4789}\n",
            "podNetwork.backend",
        ),
    ] {
        scene.set(settings);
        let refused = scene.install("130-d");
        assert_eq!(refused.exit_code(), ExitCode::PreflightRefused, "{settings}");
        let told = format!("{:?}", refused.errors);
        assert!(
            told.contains("fixed-setting") && told.contains(named),
            "{settings}: {told}"
        );
        assert_eq!(refused.changes, 0);
    }

    scene.set("podNetwork: {vxlanPort: 4789, checksumOffload: false}\n");
    let changed = scene.install("140-e");
    scene.must_work(&changed, "offload turned off");
    assert_eq!(
        changed.changes, 4,
        "a unit's file on two nodes, and the unit that runs with it"
    );
    assert!(file(&scene, "w-1", UNIT).contains("--no-checksum-offload flannel.1\n"));
    assert_eq!(scene.install("150-f").changes, 0);
    scene.set("podNetwork: {vxlanPort: 4789}\n");
    scene.must_work(&scene.install("160-g"), "offload left out");
    assert!(!file(&scene, "w-1", UNIT).contains("--no-checksum-offload"));
    assert_eq!(backend(&scene), first);
    scene.must_work(&scene.undo("170-h", UndoCommand::Uninstall), "uninstall");
    scene.must_be_as_before("uninstall");
}

#[test]
fn host_gw_is_installed_repeated_and_taken_away() {
    let mut scene = Scene::new(1, 1);
    scene.set("podNetwork: {backend: host-gw}\n");
    scene.must_work(&scene.install("100-a"), "install");
    assert_eq!(backend(&scene), serde_json::json!({ "Type": "host-gw" }));
    assert!(file(&scene, "cp-1", CNI).contains("\"mtu\": 1500"));
    assert_eq!(scene.install("110-b").changes, 0);
    scene.must_work(&scene.undo("120-c", UndoCommand::Uninstall), "uninstall");
    scene.must_be_as_before("uninstall");
}
