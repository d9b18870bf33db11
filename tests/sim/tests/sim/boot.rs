//! Tests after a boot, while the cluster starts or fails to start: installs that repair, verify, status.

use crate::scene::{Listener, Scene};
use landfall_core::event::{Event, EventKind};
use landfall_core::explain::ExitCode;
use landfall_core::name::NodeName;
use landfall_core::verify::{Cell, CellOutcome};
use landfall_engine::run::Outcome;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const SETTING: &str = "proc/sys/vm/overcommit_memory";

fn name(text: &str) -> NodeName {
    text.parse().unwrap()
}

/// Stops the kubelet of a machine, as after a boot with a kernel setting that it refuses; its static pods stop with it.
struct Kubelet {
    mark: PathBuf,
    version: Vec<u8>,
}

impl Kubelet {
    fn stop(scene: &Scene, node: &str) -> Self {
        let machine = scene.fleet.machine(&name(node)).unwrap();
        let mark = machine.at("run/systemd/active/kubelet.service");
        let version = fs::read(&mark).unwrap();
        fs::remove_file(&mark).unwrap();
        Self { mark, version }
    }

    fn start_after(self, time: Duration) -> std::thread::JoinHandle<()> {
        std::thread::spawn(move || {
            std::thread::sleep(time);
            fs::write(self.mark, self.version).unwrap();
        })
    }
}

fn installed() -> Scene {
    let scene = Scene::new(1, 1);
    scene.must_work(&scene.install("100-a"), "install");
    scene
}

fn cells(outcome: &Outcome) -> &[Cell] {
    assert!(outcome.errors.is_empty(), "{:#?}", outcome.errors);
    &outcome.verify.as_ref().unwrap().cells
}

fn cell<'a>(outcome: &'a Outcome, vantage: &str, target: &str) -> &'a Cell {
    let mut cells = cells(outcome).iter();
    cells.find(|c| c.vantage == vantage && c.target == target).unwrap()
}

#[test]
fn an_install_that_repairs_a_setting_waits_for_the_api_and_the_next_has_nothing_to_do() {
    let scene = installed();
    let machine = scene.fleet.machine(&name("cp-1")).unwrap();
    machine.write(SETTING, "0", 0o644).unwrap();
    let kubelet = Mutex::new(Some(Kubelet::stop(&scene, "cp-1")));
    let said = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&said);
    let listener = Listener(move |event: &Event| match &event.kind {
        // systemd restarts the kubelet every two seconds, and now the setting is right.
        EventKind::StepFinished { step, .. } if step.as_str() == "sysctls/cp-1" => {
            let kubelet = kubelet.lock().unwrap().take();
            kubelet.unwrap().start_after(Duration::from_secs(2));
        }
        EventKind::StepWaiting { step, text } => heard.lock().unwrap().push(format!("{step}: {text}")),
        _ => {}
    });
    let second = scene.install_heard("200-b", Arc::new(listener));
    scene.must_work(&second, "repair");
    let said = said.lock().unwrap().join("\n");
    assert!(
        said.contains("the cluster does not answer yet: the API at 127.0.0.1:7443"),
        "{said}"
    );
    assert!(said.lines().any(|line| line.starts_with("apply-")), "{said}");
    let third = scene.install("300-c");
    scene.must_work(&third, "after the repair");
    assert_eq!(third.changes, 0, "{:#?}", third.plan);
}

#[test]
fn an_install_without_changes_waits_for_starting_members() {
    let scene = installed();
    // The API answers, and a worker's kubelet is not up yet.
    let coming = Kubelet::stop(&scene, "w-1").start_after(Duration::from_secs(3));
    let began = Instant::now();
    let second = scene.install("200-b");
    coming.join().unwrap();
    scene.must_work(&second, "install while a worker comes up");
    assert_eq!(second.changes, 0);
    assert!(began.elapsed() >= Duration::from_secs(2));
}

#[test]
fn verify_without_an_api_probes_what_it_can_and_the_rest_fails() {
    let scene = installed();
    let green = scene.verify("200-b");
    let kubelet = Kubelet::stop(&scene, "cp-1");
    let outcome = scene.verify("300-c");
    assert_eq!(outcome.exit_code(), ExitCode::VerifyFaults);
    let api = cell(&outcome, "cluster", "api");
    assert!(
        api.saw.contains("the API at 127.0.0.1:7443") && !api.saw.contains("ServiceError"),
        "{}",
        api.saw
    );
    assert!(
        api.cause.as_ref().unwrap().contains("kubelet.service is inactive"),
        "{api:#?}"
    );
    assert!(cell(&outcome, "node/cp-1", "services").saw.contains("kubelet.service"));
    assert_eq!(cell(&outcome, "node/w-1", "services").outcome, CellOutcome::Pass);
    let asked = |outcome: &Outcome, vantage: &str| -> Vec<String> {
        let cells = cells(outcome).iter();
        let cells = cells.filter(|c| c.vantage == vantage && c.outcome != CellOutcome::Skip);
        cells
            .map(|c| c.target.clone())
            .filter(|t| !t.starts_with("pod-ip"))
            .collect()
    };
    for vantage in ["node/cp-1", "node/w-1"] {
        let mut before = asked(&green, vantage);
        let mut now = asked(&outcome, vantage);
        before.sort();
        now.sort();
        assert_eq!(
            now, before,
            "{vantage}: what is asked when all is well is asked, or red"
        );
    }
    assert_eq!(cell(&outcome, "node/w-1", "pod-ip").outcome, CellOutcome::Fail);
    assert!(
        cell(&outcome, "pod/w-1", "everything")
            .saw
            .contains("only the API knows")
    );

    kubelet.start_after(Duration::from_secs(3));
    let waited = scene.verify_waiting("400-d", Duration::from_secs(120));
    scene.must_work(&waited, "verify --wait");
}

#[test]
fn verify_that_waits_ends_with_the_last_state() {
    let scene = installed();
    let _kubelet = Kubelet::stop(&scene, "w-1");
    let began = Instant::now();
    let outcome = scene.verify_waiting("200-b", Duration::from_secs(4));
    assert!(began.elapsed() >= Duration::from_secs(4));
    assert_eq!(outcome.exit_code(), ExitCode::VerifyFaults);
    let ready = cell(&outcome, "node/w-1", "ready");
    assert_eq!((ready.outcome, ready.saw.as_str()), (CellOutcome::Fail, "it is not"));
    assert!(
        ready.cause.as_ref().unwrap().contains("kubelet.service is inactive"),
        "{ready:#?}"
    );
}

#[test]
fn verify_that_reaches_no_machine_makes_red_cells() {
    let scene = installed();
    for node in ["cp-1", "w-1"] {
        scene.fleet.set_unreachable(&name(node), true);
    }
    let outcome = scene.verify("200-b");
    assert_eq!(outcome.exit_code(), ExitCode::VerifyFaults, "{:#?}", outcome.errors);
    let api = cell(&outcome, "cluster", "api");
    assert!(api.cause.as_ref().unwrap().contains("could log in to none"), "{api:#?}");
    for vantage in ["node/cp-1", "node/w-1", "pod/cp-1", "pod/w-1"] {
        assert_eq!(cell(&outcome, vantage, "everything").outcome, CellOutcome::Fail);
    }
    for node in ["cp-1", "w-1"] {
        scene.fleet.set_unreachable(&name(node), false);
    }
    scene.must_work(&scene.verify("300-c"), "verify of machines that are back");
}

#[test]
fn verify_of_bare_machines_says_that_nothing_is_installed_and_leaves_nothing() {
    let scene = Scene::new(1, 1);
    let outcome = scene.verify("100-a");
    assert_eq!(outcome.exit_code(), ExitCode::VerifyFaults);
    let api = cell(&outcome, "cluster", "api");
    assert_eq!(api.saw, "nothing is installed on cp-1, w-1");
    assert_eq!(api.next.as_deref(), Some("landfall install"));
    assert!(
        cells(&outcome)
            .iter()
            .any(|c| c.target.starts_with("node-port/") && c.outcome == CellOutcome::Fail)
    );
    scene.must_be_as_before("verify");
}

#[test]
fn status_names_what_does_not_run_and_which_setting_is_wrong() {
    let scene = installed();
    let machine = scene.fleet.machine(&name("w-1")).unwrap();
    machine.write(SETTING, "0", 0o644).unwrap();
    machine
        .write("etc/sysctl.d/99-x.conf", "vm.overcommit_memory = 0\n", 0o644)
        .unwrap();
    let _kubelet = Kubelet::stop(&scene, "w-1");
    let status = scene.status("200-b");
    let health = status.nodes[&name("w-1")].health.clone().unwrap();
    let failing: Vec<_> = health
        .units
        .iter()
        .filter(|u| u.is_failing)
        .map(|u| u.name.as_str())
        .collect();
    assert_eq!(failing, ["kubelet.service"]);
    assert_eq!(health.settings.len(), 1);
    let text = health.settings[0].text();
    assert!(
        text.contains("/etc/sysctl.d/99-x.conf, line 1") && text.contains("kubelet does not start"),
        "{text}"
    );
    let founder = status.nodes[&name("cp-1")].health.clone().unwrap();
    assert!(
        founder.settings.is_empty() && founder.units.iter().all(|u| !u.is_failing),
        "{founder:#?}"
    );
}
