//! An install without faults: its result, and the places for faults in another one.

use crate::scene::{Listener, Scene};
use landfall_core::event::{Event, EventKind};
use landfall_core::inventory::Role;
use landfall_core::name::NodeName;
use landfall_core::spec::Desired;
use landfall_engine::run::UndoCommand;
use landfall_test_support::cluster::When;
use landfall_test_support::tree::Tree;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Of the moments at which a step begins or ends, every so many-th is a place: each record is one anyway, and a step has two of them.
const EVERY_STEP_EVENT: u64 = 8;

/// A place for a fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A record of a node's journal, from one byte of it to another.
    Record {
        /// The node.
        node: NodeName,
        /// Where the record begins.
        start: u64,
        /// Where it ends.
        end: u64,
    },
    /// A named point within a long action.
    Point {
        /// The node.
        node: NodeName,
        /// What the node's program asks the model for there.
        word: String,
        /// Before or after the model has changed.
        when: When,
    },
    /// When so many steps of the fleet have begun or ended.
    StepEvent(u64),
}

/// The result of an install without faults, and the places for faults.
pub struct Reference {
    /// Whether it is the second install: the cluster has one control plane by then, and the others join it.
    pub grows: bool,
    /// Every machine afterwards.
    pub installed: BTreeMap<NodeName, Tree>,
    /// The places for faults in another install.
    pub places: Vec<Place>,
    /// How many steps begin or end in an install.
    pub step_events: u64,
    /// Length of each journal in bytes.
    pub lengths: BTreeMap<NodeName, u64>,
}

impl Reference {
    /// Installs and uninstalls once, on machines of its own.
    pub fn of(grows: bool) -> Self {
        let mut scene = Scene::new(3, 2);
        if grows {
            let one = with_one_control_plane(&scene.desired);
            let all = std::mem::replace(&mut scene.desired, one);
            scene.must_work(&scene.install("0-reference"), "reference of one control plane");
            scene.desired = all;
        }
        let points_before = scene.fleet.world().points_passed();
        let length_before = |node: &NodeName| scene.journal(node).0.len() as u64;
        let before: BTreeMap<NodeName, u64> = scene
            .fleet
            .names()
            .into_iter()
            .map(|n| (n.clone(), length_before(&n)))
            .collect();
        let count = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&count);
        let listener = Listener(move |event: &Event| {
            counted.fetch_add(u64::from(is_step(event)), Ordering::SeqCst);
        });
        scene.must_work(&scene.install_heard("1-reference", Arc::new(listener)), "reference");
        let installed = scene.fleet.trees().unwrap();
        let step_events = count.load(Ordering::SeqCst);
        let (mut places, mut lengths) = (Vec::new(), BTreeMap::new());
        for node in scene.fleet.names() {
            let (text, _) = scene.journal(&node);
            let mut start = 0;
            for line in text.split_inclusive(|b| *b == b'\n') {
                let end = start + line.len() as u64;
                if start >= before[&node] {
                    let node = node.clone();
                    places.push(Place::Record { node, start, end });
                }
                start = end;
            }
            lengths.insert(node, start);
        }
        let points = scene.fleet.world().points_passed();
        for (node, word) in points.into_iter().filter(|point| !points_before.contains(point)) {
            places.extend([When::Before, When::After].map(|when| Place::Point {
                node: node.clone(),
                word: word.clone(),
                when,
            }));
        }
        let moments = (0..step_events).step_by(EVERY_STEP_EVENT as usize);
        places.extend(moments.map(Place::StepEvent));
        let undone = scene.undo("2-reference", UndoCommand::Uninstall);
        scene.must_work(&undone, "reference's uninstall");
        scene.must_be_as_before("reference's uninstall");
        Self {
            grows,
            installed,
            places,
            step_events,
            lengths,
        }
    }

    /// Returns how many places are records.
    pub fn records(&self) -> usize {
        self.places.iter().filter(|p| matches!(p, Place::Record { .. })).count()
    }
}

/// Returns a cluster without its further control planes.
pub fn with_one_control_plane(desired: &Desired) -> Desired {
    let mut one = desired.clone();
    let mut control_planes = 0;
    one.inventory.nodes.retain(|node| {
        control_planes += usize::from(node.role == Role::ControlPlane);
        node.role != Role::ControlPlane || control_planes == 1
    });
    one
}

/// Says whether a step begins or ends.
pub fn is_step(event: &Event) -> bool {
    matches!(
        event.kind,
        EventKind::StepStarted { .. } | EventKind::StepFinished { .. } | EventKind::StepFailed { .. }
    )
}
