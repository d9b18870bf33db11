//! The connection is closed at random places of a push: the same run goes on, little is sent twice, and what arrived is right.

use super::{Play, RealBundle, kept, needed, node, processors};
use crate::scene::{Listener, Scene, null_sink};
use crate::sweep::Failure;
use landfall_core::event::{Event, EventKind};
use landfall_core::name::Digest;
use landfall_test_support::seed::Choices;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Cuts in one push. Each further push of the whole bundle takes as long as several cuts.
pub const CUTS: u64 = 10;
/// Most bytes that a node gets twice after a cut.
const SENT_TWICE: u64 = 4 * 1024 * 1024;
/// How long a run tries to connect again. Longer than the program's own limit: a busy machine is no fault.
const RECONNECT: Duration = Duration::from_mins(5);

/// The result of the pushes.
#[derive(Debug)]
pub struct CutReport {
    /// Cuts that were made in pushes that passed.
    pub cuts: usize,
    /// Those of them that interrupted a transfer of blobs; the others came while a connection was made again.
    pub within_blobs: usize,
    /// Most bytes that were sent twice after one cut.
    pub most_sent_twice: u64,
    /// Bytes of blobs that a push without a cut sends.
    pub blob_bytes: u64,
    /// Pushes that did not end as they must.
    pub failed: Vec<Failure>,
    /// How long it took.
    pub seconds: f64,
}

/// Plays `cases` pushes from a seed on, each with [`CUTS`] cuts, and calls `say` for each failure at once. Blocks until all have ended.
pub fn cuts(real: &RealBundle, seed: u64, cases: u64, say: &(dyn Fn(&Failure) + Sync)) -> CutReport {
    let began = Instant::now();
    let whole = push(real, &BTreeSet::new());
    let must_be_there: BTreeSet<Digest> = whole.kept.keys().copied().collect();
    assert_eq!(must_be_there, needed(real.open().index()));
    let play = Play {
        seeds: seed..seed + cases,
        at_once: processors(),
        describe: &|seed| format!("cuts at {:?}", places(seed, &whole.transfer)),
        say,
    };
    let (passed, failed) = play.run(
        || (),
        |(), seed| {
            let places = places(seed, &whole.transfer);
            let pushed = push(real, &places);
            assert!(pushed.kept == whole.kept, "other blobs arrived");
            let twice = pushed.sent_twice(&places);
            for (place, bytes) in &twice {
                assert!(
                    bytes.is_none_or(|bytes| bytes <= SENT_TWICE),
                    "cut at {place}: {bytes:?} bytes were sent twice"
                );
            }
            twice
        },
    );
    let cuts: Vec<Option<u64>> = passed.into_iter().flat_map(BTreeMap::into_values).collect();
    CutReport {
        cuts: cuts.len(),
        within_blobs: cuts.iter().flatten().count(),
        most_sent_twice: cuts.iter().flatten().copied().max().unwrap_or_default(),
        blob_bytes: whole.kept.values().sum(),
        failed,
        seconds: began.elapsed().as_secs_f64(),
    }
}

/// The places that a seed chooses, in bytes sent to the machine's agents.
fn places(seed: u64, transfer: &Range<u64>) -> BTreeSet<u64> {
    let mut choices = Choices::new(seed, "cuts");
    let mut places = BTreeSet::new();
    while places.len() < CUTS as usize {
        places.insert(transfer.start + 1 + choices.below(transfer.end - transfer.start - 1));
    }
    places
}

/// The moment at which a connection begins to send blobs.
#[derive(Debug, Clone, Copy)]
struct Begin {
    /// Bytes that were sent to the machine's agents before, over all connections.
    sent: u64,
    /// Bytes of blobs that the machine lacks.
    lacks: u64,
}

/// One push.
struct Pushed {
    /// What the machine keeps at the end.
    kept: BTreeMap<Digest, u64>,
    /// The transfers, one for each connection that got so far.
    begins: Vec<Begin>,
    /// The bytes between which blobs were sent.
    transfer: Range<u64>,
}

impl Pushed {
    /// Returns for each cut how many bytes were sent twice because of it: those that went over the connection, less those that the machine
    /// did not lack any more afterwards. Nothing for a cut of a connection that was not yet sending blobs.
    fn sent_twice(&self, places: &BTreeSet<u64>) -> BTreeMap<u64, Option<u64>> {
        let mut last = 0;
        let mut twice = BTreeMap::new();
        for place in places {
            let before = self.begins.iter().find(|b| (last..*place).contains(&b.sent));
            let after = self.begins.iter().find(|b| b.sent > *place);
            let after = after.expect("the push was completed, and not by a connection that was cut");
            let bytes = before.map(|before| (place - before.sent).saturating_sub(before.lacks - after.lacks));
            twice.insert(*place, bytes);
            last = *place;
        }
        twice
    }
}

/// Pushes to one machine, whose connection ends at each of the places.
fn push(real: &RealBundle, places: &BTreeSet<u64>) -> Pushed {
    let scene = Scene::new(1, 0);
    let bundle = real.open();
    for place in places {
        scene.fleet.cut_after(&node(), *place);
    }
    let begins = Arc::new(Mutex::new(Vec::new()));
    let end = Arc::new(Mutex::new(0));
    let (fleet, begun, ended) = (scene.fleet.clone(), Arc::clone(&begins), Arc::clone(&end));
    let listener = Listener(move |event: &Event| {
        let sent = fleet.bytes_sent(&node());
        match event.kind {
            EventKind::PushPlanned { bytes } => begun.lock().unwrap().push(Begin { sent, lacks: bytes }),
            EventKind::PushProgress { .. } => *ended.lock().unwrap() = sent,
            _ => {}
        }
    });
    let context = scene
        .fleet
        .run_context("100-a", "ann@desk", Arc::new(listener))
        .unwrap();
    let pushed = scene.push_reconnecting(&bundle, &context, RECONNECT);
    scene.must_work(&pushed, "push");
    assert!(!scene.fleet.is_to_be_cut(&node()), "not every cut was made");
    let begins = begins.lock().unwrap().clone();
    let (kept, parts) = kept(&scene.fleet);
    assert!(parts.is_empty(), "{parts:?}");
    assert_eq!(kept.values().sum::<u64>(), begins[0].lacks);
    let again = scene.fleet.run_context("200-b", "ann@desk", null_sink()).unwrap();
    let again = scene.push_reconnecting(&bundle, &again, Duration::ZERO);
    scene.must_work(&again, "push again");
    assert_eq!((again.bytes_sent.values().sum::<u64>(), again.changes), (0, 0));
    let end = *end.lock().unwrap();
    Pushed {
        kept,
        transfer: begins[0].sent..end,
        begins,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_twice_is_counted_for_each_cut() {
        let begin = |sent, lacks| Begin { sent, lacks };
        let pushed = Pushed {
            kept: BTreeMap::new(),
            // The second connection was cut before it sent blobs.
            begins: vec![begin(100, 5000), begin(2200, 3500)],
            transfer: 100..5100,
        };
        let places = [2000, 2100].into();
        assert_eq!(pushed.sent_twice(&places), [(2000, Some(400)), (2100, None)].into());
    }

    #[test]
    fn a_seed_chooses_places_within_the_transfer() {
        let transfer = 1000..9000;
        let chosen = places(7, &transfer);
        assert_eq!(chosen, places(7, &transfer));
        assert_ne!(chosen, places(8, &transfer));
        assert!(chosen.len() == CUTS as usize && chosen.iter().all(|place| (1001..9000).contains(place)));
    }
}
