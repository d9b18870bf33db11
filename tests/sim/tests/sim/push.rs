//! `landfall push`: blobs are sent ahead, an install uses them, and rollback, uninstall and `push --remove` remove them.

use crate::scene::{Listener, Scene, null_sink};
use landfall_core::action::Undo;
use landfall_core::event::{Event, EventKind};
use landfall_core::explain::Code;
use landfall_core::journal::{EntryState, Record, parse_journal, render_line};
use landfall_core::layout;
use landfall_core::name::{Digest, NodeName};
use landfall_core::plan::key::{is_bare, keeps_blobs};
use landfall_engine::run::{CancelToken, InstallOptions, OnFailure, Outcome, UndoCommand, Until};
use landfall_test_support::cluster::When;
use std::ops::Range;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::Duration;

fn sent(outcome: &Outcome) -> u64 {
    outcome.bytes_sent.values().sum()
}

/// Fails unless the machines differ from before by landfall's state alone.
fn must_be_kept(scene: &Scene) {
    let differences = scene.fleet.differences(&scene.before, &["var/lib/landfall"]).unwrap();
    assert!(differences.is_empty(), "{differences:#?}");
    for node in scene.desired.inventory.members() {
        let (_, own) = scene.journal(&node.name);
        assert!(
            keeps_blobs(&own) && is_bare(&own) && own.open_run().is_none(),
            "{own:?}"
        );
    }
}

#[test]
fn what_was_pushed_is_used_by_the_install_and_not_sent_again() {
    let scene = Scene::new(3, 1);
    let pushed = scene.push("100-a");
    scene.must_work(&pushed, "push");
    assert!(sent(&pushed) > 0 && pushed.bytes_sent.len() == 4);
    must_be_kept(&scene);
    let again = scene.push("200-b");
    scene.must_work(&again, "push again");
    assert_eq!((sent(&again), again.changes), (0, 0));
    assert_eq!(
        scene.journal(&"cp-1".parse().unwrap()).1.runs.len(),
        1,
        "a run without changes leaves no record"
    );

    let installed = scene.install("300-c");
    scene.must_work(&installed, "install");
    assert_eq!(sent(&installed), 0);
    for node in scene.desired.inventory.members() {
        assert!(!keeps_blobs(&scene.journal(&node.name).1), "they were used");
    }
    let once_more = scene.install("400-d");
    scene.must_work(&once_more, "install again");
    assert_eq!(once_more.changes, 0);
    scene.must_work(&scene.undo("500-e", UndoCommand::Uninstall), "uninstall");
    scene.must_be_as_before("uninstall");
}

#[test]
fn every_undo_removes_what_was_pushed() {
    type Back = fn(&Scene) -> Outcome;
    let ways: [(&str, Back); 3] = [
        ("push --remove", |scene| scene.push_remove("200-b")),
        ("uninstall", |scene| scene.undo("200-b", UndoCommand::Uninstall)),
        ("rollback", |scene| scene.undo("200-b", UndoCommand::Rollback)),
    ];
    for (name, back) in ways {
        let scene = Scene::new(1, 1);
        scene.must_work(&scene.push("100-a"), "push");
        must_be_kept(&scene);
        scene.must_work(&back(&scene), name);
        scene.must_be_as_before(name);
    }
}

#[test]
fn nothing_to_take_away_is_no_error_and_an_install_keeps_what_it_needs() {
    let scene = Scene::new(1, 0);
    let nothing = scene.push_remove("100-a");
    scene.must_work(&nothing, "remove nothing");
    assert_eq!(nothing.changes, 0);
    scene.must_be_as_before("remove nothing");
    scene.must_work(&scene.install("200-b"), "install");
    let pushed = scene.push("300-c");
    scene.must_work(&pushed, "push to a cluster that has all");
    assert_eq!((sent(&pushed), pushed.changes), (0, 0));
    let node: NodeName = "cp-1".parse().unwrap();
    assert!(!keeps_blobs(&scene.journal(&node).1));
}

#[test]
fn a_push_that_was_cut_off_is_gone_on_with_or_taken_back() {
    type Next = fn(&Scene);
    let ways: [(&str, Next); 4] = [
        ("uninstall", |_| ()),
        ("install", |scene| scene.must_work(&scene.install("200-b"), "install")),
        ("push", |scene| {
            scene.must_work(&scene.push("200-b"), "push");
            must_be_kept(scene);
        }),
        ("push --remove", |scene| {
            scene.must_work(&scene.push_remove("200-b"), "push --remove");
            scene.must_be_as_before("push --remove");
        }),
    ];
    for (name, next) in ways {
        let scene = Scene::new(1, 1);
        // ^C as soon as the first node knows what it lacks.
        let cancel = Arc::new(OnceLock::<CancelToken>::new());
        let on_plan = Arc::clone(&cancel);
        let sink = Listener(move |event: &Event| {
            if matches!(event.kind, EventKind::PushPlanned { .. })
                && let Some(cancel) = on_plan.get()
            {
                cancel.cancel();
            }
        });
        let context = scene.fleet.run_context("100-a", "ann@desk", Arc::new(sink)).unwrap();
        cancel.get_or_init(|| context.cancel.clone());
        let cut = scene.push_in(&context);
        assert!(cut.interrupted, "{name}");
        let (_, own) = scene.journal(&"cp-1".parse().unwrap());
        assert!(keeps_blobs(&own) && own.open_run().is_some(), "{name}: {own:?}");
        next(&scene);
        scene.must_work(&scene.undo("900-z", UndoCommand::Uninstall), name);
        scene.must_be_as_before(name);
    }
}

/// Bytes that were sent to a machine's agents before a push sent blobs, and at its end.
fn transfer(scene: &Scene, node: &NodeName) -> Range<u64> {
    let fleet = scene.fleet.clone();
    let begin = Arc::new(OnceLock::new());
    let (at, to) = (Arc::clone(&begin), node.clone());
    let sink = Listener(move |event: &Event| {
        if matches!(event.kind, EventKind::PushPlanned { .. }) {
            at.get_or_init(|| fleet.bytes_sent(&to));
        }
    });
    let context = scene.fleet.run_context("100-a", "ann@desk", Arc::new(sink)).unwrap();
    scene.must_work(&scene.push_in(&context), "push");
    *begin.get().unwrap()..scene.fleet.bytes_sent(node)
}

/// Fails unless each blob that a machine keeps has the content of its name; returns how many it keeps.
fn blobs_must_be_right(scene: &Scene, node: &NodeName, case: &str) -> usize {
    let folder = scene.fleet.machine(node).unwrap().at(layout::BLOBS_DIR);
    let mut count = 0;
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.extension().is_none() {
            assert_eq!(Digest::of(&std::fs::read(&path).unwrap()).hex(), name, "{case}");
            count += 1;
        }
    }
    count
}

/// SSH notices damage on the wire; what is damaged behind it, in memory, is noticed by the blobs' own digests.
#[test]
fn a_byte_that_changes_behind_ssh_is_named_or_sent_again() {
    const PLACES: u64 = 24;
    let scene = Scene::new(1, 0);
    let node: NodeName = "cp-1".parse().unwrap();
    let whole = transfer(&scene, &node);
    let all = blobs_must_be_right(&scene, &node, "a push without damage");
    assert!(all > 0);
    scene.must_work(&scene.push_remove("100-b"), "remove");
    let mut named = 0;
    for number in 0..PLACES {
        let case = format!("place {number} of {PLACES}");
        let before = scene.fleet.bytes_sent(&node);
        // What a run sends at its end differs by some bytes from run to run.
        let place = before + whole.start + (whole.end - whole.start) * number / (PLACES + 2);
        scene.fleet.flip_at(&node, place);
        let pushed = scene.push(&format!("{}-a", 200 + number));
        assert!(!scene.fleet.is_to_be_flipped(&node), "{case}");
        for error in &pushed.errors {
            assert!(
                error.code != Code::Internal && error.node.is_some(),
                "{case}: {error:?}"
            );
        }
        named += usize::from(!pushed.errors.is_empty());
        blobs_must_be_right(&scene, &node, &case);
        scene.must_work(&scene.push(&format!("{}-b", 200 + number)), &case);
        assert_eq!(blobs_must_be_right(&scene, &node, &case), all, "{case}");
        scene.must_work(&scene.push_remove(&format!("{}-c", 200 + number)), &case);
        scene.must_be_as_before(&case);
    }
    assert!(named > 0, "no push noticed anything");
}

/// For the check of free space on nodes where something is installed, and for the bytes that the plan shows or a push is about.
#[test]
fn a_node_is_asked_once_which_blobs_it_has() {
    let scene = Scene::new(1, 0);
    let node: NodeName = "cp-1".parse().unwrap();
    scene.must_work(&scene.install("100-a"), "install");
    let images = scene.fleet.machine(&node).unwrap().at("/var/lib/containerd/images");
    std::fs::write(&images, "").unwrap();
    let asked = |outcome: &dyn Fn() -> Outcome, case: &str| {
        let before = scene.fleet.requests(&node, "have-blobs");
        scene.must_work(&outcome(), case);
        scene.fleet.requests(&node, "have-blobs") - before
    };
    let options = InstallOptions::new(Until::Plan, OnFailure::Keep);
    let context = scene.fleet.run_context("200-b", "ann@desk", null_sink()).unwrap();
    let plan = || {
        let planned = scene.install_of(&scene.bundle, &context, &options);
        assert!(planned.bytes_to_send[&node] > 0);
        planned
    };
    assert_eq!(asked(&plan, "plan"), 1);
    // The transfer itself asks what to begin with.
    assert_eq!(asked(&|| scene.push("300-c"), "push"), 2);
}

/// In the middle of the last blob nothing more is sent until an image was imported.
#[test]
fn images_are_imported_while_later_blobs_still_come() {
    const HALF: u64 = 5 * 1024 * 1024;
    let scene = Scene::new(1, 0);
    let bundle = scene.late_bundle();
    let imported = Arc::new((Mutex::new(false), Condvar::new()));
    let (seen, late) = (Arc::clone(&imported), Arc::new(AtomicBool::new(false)));
    scene
        .fleet
        .world()
        .at_point(&"cp-1".parse().unwrap(), "import", When::After, move || {
            *seen.0.lock().unwrap() = true;
            seen.1.notify_all();
        });
    let waited = Arc::clone(&late);
    let listener = Listener(move |event: &Event| {
        if matches!(event.kind, EventKind::PushProgress { bytes, .. } if bytes > HALF) {
            let none = imported.0.lock().unwrap();
            let limit = Duration::from_secs(30);
            let waiting = imported.1.wait_timeout_while(none, limit, |seen| !*seen).unwrap();
            waited.fetch_or(waiting.1.timed_out(), Ordering::SeqCst);
        }
    });
    let context = scene
        .fleet
        .run_context("100-a", "ann@desk", Arc::new(listener))
        .unwrap();
    let options = InstallOptions::new(Until::Done, OnFailure::Keep);
    scene.must_work(&scene.install_of(&bundle, &context, &options), "install");
    assert!(
        !late.load(Ordering::SeqCst),
        "no image was imported before the last blob was there"
    );
    let again = scene.fleet.run_context("200-b", "ann@desk", null_sink()).unwrap();
    let again = scene.install_of(&bundle, &again, &options);
    assert_eq!((again.changes, sent(&again)), (0, 0));
    scene.must_work(&scene.undo("300-c", UndoCommand::Uninstall), "uninstall");
    scene.must_be_as_before("uninstall");
}

/// Earlier versions had one step for all images. One was cut off in it when some images were there already.
#[test]
fn an_import_of_an_earlier_version_that_was_cut_off_is_undone_before_any_image_is_imported() {
    let scene = Scene::new(1, 0);
    let node: NodeName = "cp-1".parse().unwrap();
    let (fleet, killed) = (scene.fleet.clone(), node.clone());
    scene
        .fleet
        .world()
        .at_point(&node, "import", When::After, move || fleet.kill(&killed));
    let cut_off = scene.install("100-a");
    assert!(!cut_off.errors.is_empty(), "the agent was killed");
    let machine = scene.fleet.machine(&node).unwrap();
    let mut records = parse_journal(&std::fs::read(machine.journal()).unwrap()).unwrap();
    let named = |record: &mut Record| match record {
        Record::Intent {
            step,
            undo: Undo::RemoveImages { references },
            ..
        } => {
            let of_all = "images/cp-1".parse().unwrap();
            Some((std::mem::replace(step, of_all), references[0].clone()))
        }
        _ => None,
    };
    let imports: Vec<_> = records.iter_mut().filter_map(named).collect();
    let [(import, reference)] = &imports[..] else {
        panic!("one import was begun: {imports:?}")
    };
    let text: String = records.iter().map(render_line).collect();
    std::fs::write(machine.journal(), text).unwrap();
    let images = machine.at("/var/lib/containerd/images");
    std::fs::write(&images, format!("{reference}\n")).unwrap();
    // A containerd that answers: only then are images removed one by one.
    let socket = machine.at("/run/containerd/containerd.sock");
    std::fs::remove_file(&socket).unwrap();
    let _listens = UnixListener::bind(&socket).unwrap();

    scene.must_work(&scene.install("200-b"), "install again");
    let there = std::fs::read_to_string(&images).unwrap();
    for image in scene.bundle.index().images() {
        assert!(there.lines().any(|line| line == image.reference.as_str()), "{there}");
    }
    let (_, own) = scene.journal(&node);
    assert_eq!(own.newest(&"images/cp-1".parse().unwrap()), None, "it was undone");
    let again = own.newest(import).expect("what was undone was imported again");
    assert_eq!(again.state, EntryState::Owned);
    assert_eq!(scene.install("300-c").changes, 0);
    scene.must_work(&scene.undo("400-d", UndoCommand::Uninstall), "uninstall");
    scene.must_be_as_before("uninstall");
}

#[test]
fn of_images_one_that_is_gone_is_sent_again_alone() {
    let scene = Scene::new(1, 0);
    scene.must_work(&scene.install("100-a"), "install");
    let images = scene
        .fleet
        .machine(&"cp-1".parse().unwrap())
        .unwrap()
        .at("/var/lib/containerd/images");
    let before = std::fs::read_to_string(&images).unwrap();
    let left: String = before
        .lines()
        .filter(|line| !line.contains("/etcd:"))
        .map(|line| format!("{line}\n"))
        .collect();
    assert!(left.len() < before.len() && left.lines().count() > 5, "{before}");
    std::fs::write(&images, left).unwrap();
    let again = scene.install("200-b");
    scene.must_work(&again, "install again");
    assert_eq!(std::fs::read_to_string(&images).unwrap(), before);
    let variant = &scene.bundle.index().variants[0];
    let etcd = variant
        .images
        .iter()
        .find(|image| image.reference.as_str().contains("/etcd:"))
        .unwrap();
    let size = |digest: &Digest| scene.bundle.index().blob(digest).unwrap().size_bytes;
    assert_eq!(sent(&again), etcd.blobs.iter().map(size).sum::<u64>());
}
