//! The connection ends at any byte of a transfer: the same run goes on, and little is sent twice.

use crate::scene::{Listener, Scene, null_sink};
use landfall_core::event::{Event, EventKind};
use landfall_core::name::NodeName;
use landfall_core::wire::mux::WINDOW;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How many places are tried. `LANDFALL_SIM_CASES` sets another number.
const PLACES: usize = 96;
/// Most cases at once. A case waits for a second until it connects again.
const AT_ONCE: usize = 12;
/// Most bytes that a node gets twice after a cut. It keeps all that came: what is under way, on two streams beside each other, is sent again.
const SENT_TWICE: u64 = 3 * WINDOW as u64;
/// How long a run tries to connect again.
const RECONNECT: Duration = Duration::from_mins(1);

fn node() -> NodeName {
    "cp-1".parse().unwrap()
}

/// One push.
struct Pushed {
    /// Bytes of blobs that were sent.
    blobs: u64,
    /// How many bytes had been sent at the end of each write.
    ends: Vec<u64>,
    /// The bytes between which blobs were sent.
    transfer: Range<u64>,
}

/// Pushes to one machine, whose connection ends at a place.
fn push(cut_at: Option<u64>) -> Pushed {
    let scene = Scene::new(1, 0);
    let bundle = scene.bulky_bundle();
    if let Some(place) = cut_at {
        scene.fleet.cut_after(&node(), place);
    }
    let (first, last) = (Arc::new(AtomicU64::new(u64::MAX)), Arc::new(AtomicU64::new(0)));
    let (fleet, start, end) = (scene.fleet.clone(), Arc::clone(&first), Arc::clone(&last));
    let listener = Listener(move |event: &Event| {
        let sent = || fleet.ends_of_writes(&node()).last().copied().unwrap_or_default();
        match event.kind {
            EventKind::PushPlanned { .. } => drop(start.fetch_min(sent(), Ordering::SeqCst)),
            EventKind::PushProgress { .. } => drop(end.fetch_max(sent(), Ordering::SeqCst)),
            _ => {}
        }
    });
    let context = scene
        .fleet
        .run_context("100-a", "ann@desk", Arc::new(listener))
        .unwrap();
    let pushed = scene.push_reconnecting(&bundle, &context, RECONNECT);
    scene.must_work(&pushed, &format!("push with a cut at {cut_at:?}"));
    assert!(!scene.fleet.is_to_be_cut(&node()), "nothing was cut at {cut_at:?}");
    let ends = scene.fleet.ends_of_writes(&node());
    let context = scene.fleet.run_context("200-b", "ann@desk", null_sink()).unwrap();
    let again = scene.push_reconnecting(&bundle, &context, RECONNECT);
    scene.must_work(&again, &format!("push again after a cut at {cut_at:?}"));
    assert_eq!(
        again.bytes_sent.values().sum::<u64>(),
        0,
        "all is there after {cut_at:?}"
    );
    Pushed {
        blobs: pushed.bytes_sent.values().sum(),
        ends,
        transfer: first.load(Ordering::SeqCst)..last.load(Ordering::SeqCst),
    }
}

/// Frames end where writes end, and with them requests, chunks and blobs: the cuts are there, one byte before and one behind.
#[test]
fn a_transfer_goes_on_after_a_cut_at_any_place() {
    let whole = push(None);
    assert!(
        whole.blobs > SENT_TWICE * 3 / 2,
        "a transfer from the start would be seen"
    );
    println!("transfer {:?} of {} ends", whole.transfer, whole.ends.len());
    // The texts of two runs differ by some bytes: the last places of one are not reached by another.
    let reached = whole.transfer.start..whole.transfer.end - 4096;
    let around = whole.ends.iter().flat_map(|end| [end - 1, *end, end + 1]);
    let places: Vec<u64> = around.filter(|place| reached.contains(place)).collect();
    let given = std::env::var("LANDFALL_SIM_CASES").ok();
    let wanted = given.map_or(PLACES, |text| text.parse().unwrap()).min(places.len());
    let chosen: Vec<u64> = (0..wanted).map(|n| places[n * places.len() / wanted]).collect();
    assert!(wanted > 10, "{} places", places.len());
    let next = Mutex::new(chosen.into_iter());
    let most = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(place) = next.lock().unwrap().next() else {
                        return;
                    };
                    let twice = push(Some(place)).blobs.saturating_sub(whole.blobs);
                    assert!(twice <= SENT_TWICE, "cut at {place}: {twice} bytes were sent twice");
                    most.fetch_max(twice, Ordering::SeqCst);
                }
            });
        }
    });
    println!(
        "{wanted} of {} places; at most {} bytes were sent twice",
        places.len(),
        most.into_inner()
    );
}

/// Before anything was changed: in the lease, the journals, the facts, the check of the bundle's signature, the plan.
#[test]
fn a_run_goes_on_after_a_cut_in_the_first_contact() {
    const FIRST_PLACES: usize = 12;
    let whole = push(None);
    let ends: Vec<u64> = whole
        .ends
        .iter()
        .copied()
        .filter(|end| *end < whole.transfer.start)
        .collect();
    assert!(ends.len() > FIRST_PLACES, "{ends:?}");
    // At the end of a frame, and within the next.
    let places = (0..FIRST_PLACES).map(|n| ends[n * ends.len() / FIRST_PLACES] + n as u64 % 2);
    std::thread::scope(|scope| {
        for place in places {
            scope.spawn(move || push(Some(place)));
        }
    });
}
