//! Nodes take blobs from each other, and the operator sends one copy.

use crate::scene::{Listener, Scene, null_sink};
use landfall_core::event::{Event, EventKind};
use landfall_core::name::NodeName;
use landfall_engine::run::{InstallOptions, OnFailure, Outcome, Until};
use landfall_test_support::fleet::Fleet;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const RECONNECT: Duration = Duration::from_mins(1);

fn sent(outcome: &Outcome) -> u64 {
    outcome.bytes_sent.values().sum()
}

fn push(scene: &Scene, run: &str, relay: bool, listener: impl Fn(&Event) + Send + Sync + 'static) -> Outcome {
    let context = scene
        .fleet
        .run_context(run, "ann@desk", Arc::new(Listener(listener)))
        .unwrap();
    let options = InstallOptions {
        relay,
        reconnect: RECONNECT,
        ..InstallOptions::new(Until::Pushed, OnFailure::Keep)
    };
    let pushed = scene.install_of(&scene.bulky_bundle(), &context, &options);
    scene.must_work(&pushed, "push");
    pushed
}

/// Fails unless every node has everything.
fn must_be_there(scene: &Scene, run: &str) {
    let context = scene.fleet.run_context(run, "ann@desk", null_sink()).unwrap();
    let again = scene.push_reconnecting(&scene.bulky_bundle(), &context, Duration::ZERO);
    scene.must_work(&again, "push again");
    assert_eq!((sent(&again), again.changes), (0, 0));
}

/// Bytes of one copy, and of all, as a push to the same machines without relay sends them.
fn copies() -> (u64, u64) {
    let scene = Scene::new(3, 1);
    let pushed = push(&scene, "100-a", false, |_| {});
    let most = pushed.bytes_sent.values().max().copied().unwrap_or_default();
    (most, sent(&pushed))
}

/// Keeps all machines from reaching each other, or lets them again.
fn set_cut(fleet: &Fleet, cut: bool) {
    let names = fleet.names();
    for (from, to) in names.iter().flat_map(|from| names.iter().map(move |to| (from, to))) {
        fleet.world().set_cut(from, to, cut);
    }
}

#[test]
fn one_copy_leaves_the_operator_unless_nodes_cannot_reach_each_other() {
    let (one, all) = copies();
    assert!(one * 3 < all, "control planes need the same");
    let scene = Scene::new(3, 1);
    let pushed = push(&scene, "100-a", true, |_| {});
    assert_eq!(sent(&pushed), one);
    must_be_there(&scene, "200-b");

    let scene = Scene::new(3, 1);
    let during = scene.fleet.clone();
    let notes = Arc::new(Mutex::new(BTreeSet::<NodeName>::new()));
    let heard = Arc::clone(&notes);
    let pushed = push(&scene, "100-a", true, move |event| match &event.kind {
        // From now on; preflight has tried the way between the nodes before.
        EventKind::PushPlanned { .. } => set_cut(&during, true),
        EventKind::Note { text } if text.contains("another node or this machine sends it") => {
            heard.lock().unwrap().extend(event.node.clone());
        }
        _ => {}
    });
    assert_eq!(sent(&pushed), all);
    assert!(!notes.lock().unwrap().is_empty(), "the reason is said");
    set_cut(&scene.fleet, false);
    must_be_there(&scene, "200-b");
}

#[test]
fn a_node_that_ends_while_it_feeds_others_ends_no_push() {
    let scene = Scene::new(3, 1);
    let (fleet, is_killed) = (scene.fleet.clone(), AtomicBool::new(false));
    let first: NodeName = "cp-1".parse().unwrap();
    let pushed = push(&scene, "100-a", true, move |event| {
        let is_other = event.node.as_ref().is_some_and(|node| *node != first);
        if is_other && matches!(event.kind, EventKind::PushProgress { .. }) && !is_killed.swap(true, Ordering::SeqCst) {
            fleet.kill(&first);
        }
    });
    let (one, all) = copies();
    assert!(
        sent(&pushed) >= one && sent(&pushed) < all,
        "{} of {one} to {all}",
        sent(&pushed)
    );
    must_be_there(&scene, "200-b");
}
