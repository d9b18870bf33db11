//! The audit log of the API servers goes with the cluster, and landfall says so beforehand.

use crate::scene::Scene;
use landfall_core::action::Action;
use landfall_core::layout;
use landfall_engine::run::UndoCommand;

const FOLDER: &str = "var/log/kubernetes";
const README: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md"));

#[test]
fn a36_an_uninstall_takes_the_audit_log_as_plan_and_readme_say() {
    let scene = Scene::new(3, 0);
    let installed = scene.install("100-a");
    scene.must_work(&installed, "install");
    let logs = |scene: &Scene| {
        let nodes = scene.fleet.names().into_iter();
        let log = |node| scene.fleet.machine(&node).unwrap().at(FOLDER);
        nodes.map(log).filter(|folder| folder.exists()).count()
    };
    assert_eq!(logs(&scene), 3, "every API server writes one");
    // What is planned to be made, with how it goes again, is what `landfall plan` prints.
    let steps = &installed.plan.as_ref().unwrap().steps;
    let said = steps.iter().filter(|step| match &step.action {
        Action::Claim { claims } => claims.paths.iter().any(|path| path.ends_with(FOLDER)),
        _ => false,
    });
    let said: Vec<&str> = said.map(|step| step.action.undo_text()).collect();
    assert_eq!(said.len(), 3, "{steps:#?}");
    let says = |text: &str| text.contains("including the audit log in /var/log/kubernetes");
    assert!(said.iter().all(|text| says(text)), "{said:?}");
    // The file that the README says to copy is the one that the API server is told to write.
    let config = scene.fleet.machine(&"cp-1".parse().unwrap()).unwrap();
    let config = std::fs::read_to_string(config.at(layout::KUBEADM_CONFIG)).unwrap();
    assert!(config.contains("/var/log/kubernetes/audit.log"), "{config}");
    assert!(
        README
            .contains("`uninstall` takes the audit log with the cluster; copy `/var/log/kubernetes/audit*.log` before"),
        "the README says how to keep it"
    );
    scene.must_work(&scene.undo("200-b", UndoCommand::Uninstall), "uninstall");
    assert_eq!(logs(&scene), 0);
    scene.must_be_as_before("uninstall");
}
