//! The sweep: a whole install of three control planes and two workers with a fault at every record of every journal, at named points within
//! long actions and between steps; then an install, rollback or uninstall, sometimes with a second fault. In each second case a cluster
//! of one control plane stands by then, and the others join it.

mod case;
mod play;
mod reference;

use crate::scene::Scene;
use reference::Reference;
use std::any::Any;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

/// The cases to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// All that there are.
    Every,
    /// So many, spread over all places.
    Part(u64),
}

/// A case that failed.
#[derive(Debug)]
pub struct Failure {
    /// What chose it: played again by this seed alone.
    pub seed: u64,
    /// What was done.
    pub schedule: String,
    /// The failed assertion.
    pub why: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, schedule, why } = self;
        write!(f, "failed with seed {seed}: {schedule}\n{why}")
    }
}

/// The result of a sweep.
#[derive(Debug)]
pub struct Report {
    /// The first case's seed; each further one has the next number.
    pub seed: u64,
    /// Records of all journals after undisturbed installs of a new cluster, and of one that grows.
    pub records: usize,
    /// Places where an install can be disturbed: records, named points, moments between steps.
    pub places: usize,
    /// Cases that were played.
    pub cases: u64,
    /// Cases whose first install was disturbed; the others came to an end before their place.
    pub disturbed: u64,
    /// Cases that did not end as they must.
    pub failed: Vec<Failure>,
    /// How long it took.
    pub seconds: f64,
}

/// Cases between two lines that say how far the sweep is; some two minutes on two cores.
const CASES_PER_LINE: u64 = 100;

/// Runs cases from a seed on, several in parallel, and calls `say` for each failure at once, and now and then with how far it is. Blocks until all
/// have ended.
pub fn sweep(seed: u64, amount: Amount, say: &(dyn Fn(&str) + Sync)) -> Report {
    let began = Instant::now();
    let references = [false, true].map(Reference::of);
    let cases = match amount {
        Amount::Every => references.iter().map(Reference::cases).max().unwrap_or(0) * 2,
        Amount::Part(cases) => cases,
    };
    let [next, ended, disturbed] = [0; 3].map(AtomicU64::new);
    let failed = Mutex::new(Vec::new());
    // Agents and programs of a case often wait for each other, so that one case keeps no processor busy.
    let workers = 2 * thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let mut scene = None;
        loop {
            let number = next.fetch_add(1, Ordering::SeqCst);
            if number >= cases {
                return;
            }
            let reference = &references[(seed + number) as usize % 2];
            let case = reference.case(seed + number);
            let mut own = scene.take().unwrap_or_else(|| Scene::new(3, 2));
            // Machines that a failed case left go with it.
            let played = thread::scope(|scope| {
                let played = scope.spawn(|| play::play(&mut own, reference, &case));
                played.join()
            });
            match played {
                Ok(was_disturbed) => {
                    disturbed.fetch_add(u64::from(was_disturbed), Ordering::SeqCst);
                    scene = Some(own);
                }
                Err(panic) => {
                    let failure = Failure {
                        seed: case.seed,
                        schedule: format!("{case:?}"),
                        why: text_of(panic.as_ref()),
                    };
                    say(&failure.to_string());
                    failed.lock().unwrap().push(failure);
                }
            }
            let ended = ended.fetch_add(1, Ordering::SeqCst) + 1;
            if ended.is_multiple_of(CASES_PER_LINE) {
                let (failed, seconds) = (failed.lock().unwrap().len(), began.elapsed().as_secs());
                say(&format!(
                    "{ended} of {cases} cases have ended, {failed} failed, after {seconds} s"
                ));
            }
        }
    };
    thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(work))));
    Report {
        seed,
        records: references.iter().map(Reference::records).sum(),
        places: references.iter().map(|reference| reference.places.len()).sum(),
        cases,
        disturbed: disturbed.into_inner(),
        failed: failed.into_inner().unwrap(),
        seconds: began.elapsed().as_secs_f64(),
    }
}

/// Returns what a panic says.
pub(crate) fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|t| (*t).to_owned()))
        .unwrap_or_else(|| "a panic without a text".to_owned())
}
