//! A control plane that is gone for good takes no way back with it: steps that change the cluster are journalled on every control plane.

use crate::scene::Scene;
use landfall_core::explain::ExitCode;
use landfall_core::name::NodeName;
use landfall_engine::run::UndoCommand;

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

#[test]
fn a23_objects_are_restored_by_the_journal_of_any_control_plane() {
    let nodes = ["cp-1", "cp-2", "cp-3"].map(name);
    for lost in &nodes {
        let mut scene = Scene::new(3, 1);
        scene.must_work(&scene.install("100-a"), "install");
        let closed = scene.corefile("cp-2");
        scene.set("upstreamDns: [10.20.9.9]\nsample: false\n");
        scene.must_work(&scene.install("200-b"), "changed settings");
        assert!(scene.corefile("cp-2").contains("forward . 10.20.9.9"));
        for node in nodes.iter() {
            let own = scene.journal_as_found(node);
            for step in ["apply-dns", "remove-sample"] {
                let entry = own.newest(&step.parse().unwrap());
                assert!(
                    entry.is_some_and(|e| e.run.as_str() == "200-b"),
                    "{node} journals {step}: {entry:#?}"
                );
            }
        }
        scene.fleet.power_off(lost).unwrap();
        let undone = scene.undo("300-c", UndoCommand::Rollback);
        let case = format!("without {lost}: {:#?}", undone.errors);
        assert_eq!(undone.exit_code(), ExitCode::Unreachable, "{case}");
        assert_eq!(scene.corefile("cp-2"), closed, "{case}");
        let sample = scene
            .fleet
            .world()
            .object(&name("cp-2"), "apps/deployments", "landfall-sample", "nginx");
        assert!(sample.is_some(), "{case}");
        scene.must_be_lawful(&case);
    }
}
