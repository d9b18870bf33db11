//! The dashboard's password: made once, kept in a Secret, and nowhere else.

use crate::scene::{Listener, Scene};
use landfall_core::event::Event;
use landfall_core::verify::{CellOutcome, VerifyReport};
use landfall_engine::run::{Outcome, UndoCommand};
use std::sync::{Arc, Mutex};

/// The password as the Secret holds it, in base64.
fn encoded(scene: &Scene) -> Option<String> {
    let founder = "cp-1".parse().unwrap();
    let secret = scene
        .fleet
        .world()
        .object(&founder, "secrets", "kube-system", "landfall-dashboard")?;
    Some(secret["data"]["password"].as_str().unwrap().to_owned())
}

fn decoded(encoded: &str) -> String {
    use base64::Engine;
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded).unwrap();
    String::from_utf8(bytes).unwrap()
}

fn looks(report: &VerifyReport) -> Vec<(&str, CellOutcome)> {
    let cells = report.cells.iter().filter(|c| c.target.starts_with("dashboard/"));
    cells.map(|c| (c.vantage.as_str(), c.outcome)).collect()
}

/// No file of a machine, no event and no report says it.
fn must_be_nowhere(scene: &Scene, password: &str, told: &[String]) {
    let forms = [password.to_owned(), decoded(password)];
    for (node, tree) in scene.fleet.trees().unwrap() {
        for form in &forms {
            let found = tree.holding(form.as_bytes());
            assert!(found.is_empty(), "{node}: {found:?}");
        }
    }
    for text in told {
        assert!(!forms.iter().any(|form| text.contains(form)), "{text}");
    }
}

fn told(outcome: &Outcome) -> String {
    format!("{outcome:?}") + &serde_json::to_string(&(&outcome.plan, &outcome.verify)).unwrap()
}

#[test]
fn the_password_is_made_once_and_is_in_its_secret_alone() {
    let mut scene = Scene::new(1, 1);
    let events = Arc::new(Mutex::new(Vec::new()));
    let take = Arc::clone(&events);
    let sink = Listener(move |event: &Event| take.lock().unwrap().push(serde_json::to_string(event).unwrap()));
    let first = scene.install_heard("100-a", Arc::new(sink));
    scene.must_work(&first, "install");
    let password = encoded(&scene).unwrap();
    assert_eq!(decoded(&password).len(), 32);
    let report = first.verify.as_ref().unwrap();
    let pass = CellOutcome::Pass;
    assert_eq!(looks(report), [("node/cp-1", pass), ("node/w-1", pass)]);
    let locked = report
        .cells
        .iter()
        .find(|c| c.target == "ingress/cp-1/ui.landfall.local");
    assert!(locked.unwrap().expected.starts_with("401"));

    let second = scene.install("200-b");
    scene.must_work(&second, "second install");
    assert_eq!((second.changes, encoded(&scene).as_ref()), (0, Some(&password)));
    let mut all = events.lock().unwrap().clone();
    all.extend([told(&first), told(&second)]);
    must_be_nowhere(&scene, &password, &all);

    // The owner's word takes the password away. Taking that back makes another one: no journal has kept the first.
    scene.set("ingress: {dashboardAuth: none}\n");
    let open = scene.install("300-c");
    scene.must_work(&open, "install without a password");
    assert_eq!(encoded(&scene), None);
    assert!(
        looks(open.verify.as_ref().unwrap())
            .iter()
            .all(|(_, outcome)| *outcome == pass)
    );
    must_be_nowhere(&scene, &password, &[told(&open)]);
    scene.must_work(&scene.undo("400-d", UndoCommand::Rollback), "rollback");
    let another = encoded(&scene).unwrap();
    assert_ne!(another, password);
    scene.set("");
    let again = scene.install("500-e");
    scene.must_work(&again, "install after the rollback");
    assert_eq!(encoded(&scene), Some(another));
}

#[test]
fn a_secret_that_was_deleted_is_made_again_by_the_next_install() {
    let scene = Scene::new(1, 0);
    scene.must_work(&scene.install("100-a"), "install");
    let password = encoded(&scene).unwrap();
    let founder = "cp-1".parse().unwrap();
    let world = scene.fleet.world();
    world
        .delete_object(&founder, "secrets", "kube-system", "landfall-dashboard")
        .unwrap();
    let second = scene.install("200-b");
    scene.must_work(&second, "second install");
    assert_eq!(second.changes, 1);
    assert_ne!(encoded(&scene).unwrap(), password);
}

#[test]
fn an_install_without_a_dashboard_gets_one_with_a_password_later() {
    let mut scene = Scene::new(1, 0);
    scene.set("ingress: {dashboard: false}\n");
    scene.must_work(&scene.install("100-a"), "install");
    assert_eq!(encoded(&scene), None);
    scene.set("");
    let second = scene.install("200-b");
    scene.must_work(&second, "second install");
    assert_eq!(
        looks(second.verify.as_ref().unwrap()),
        [("node/cp-1", CellOutcome::Pass)]
    );
}
