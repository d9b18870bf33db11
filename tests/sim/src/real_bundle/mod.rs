//! Two sweeps over a bundle of the size that people install: pushes whose connection is cut, and bytes of the file that are flipped. A seed
//! chooses all of a case, which can be played again by that seed alone.

mod cuts;
mod flips;
mod layout;

pub use cuts::{CUTS, CutReport, cuts};
pub use flips::{FlipReport, flips};

use crate::sweep::{Failure, text_of};
use anyhow::{Context, Result};
use landfall_bundle::hashed::Hashed;
use landfall_bundle::{Bundle, Verified};
use landfall_core::bundle_index::{BundleIndex, BundleRole};
use landfall_core::explain::Diagnosis;
use landfall_core::layout::BLOBS_DIR;
use landfall_core::name::{Digest, NodeName};
use landfall_core::trust::{OfferedKey, TrustOffer};
use landfall_test_support::fleet::Fleet;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// A bundle, and the key that its operator trusts.
#[derive(Debug)]
pub struct RealBundle {
    path: PathBuf,
    trusted: TrustOffer,
}

impl RealBundle {
    /// Takes the bundle of that path; its public key is beside it, as `cargo xtask build` leaves it.
    pub fn at(path: &Path) -> Result<Self> {
        let public = path.with_extension("pub");
        let key = fs::read_to_string(&public).with_context(|| format!("{} cannot be read", public.display()))?;
        let offered = OfferedKey { key, endorsement: None };
        Ok(Self {
            path: path.to_owned(),
            trusted: TrustOffer {
                keys: vec![offered],
                ..TrustOffer::default()
            },
        })
    }

    /// Opens a copy of the bundle as the operator does, up to the content of blobs.
    fn open_copy(&self, path: &Path) -> Result<Bundle<Verified>, Diagnosis> {
        Bundle::open(path)?.verify(&self.trusted)
    }

    /// Opens the bundle, which nothing damaged.
    fn open(&self) -> Bundle<Verified> {
        self.open_copy(&self.path).unwrap()
    }
}

/// The machine that bundles are pushed to.
fn node() -> NodeName {
    "cp-1".parse().unwrap()
}

/// Returns the blobs that a control plane needs, by the index alone.
fn needed(index: &BundleIndex) -> BTreeSet<Digest> {
    let is_needed = |roles: &BTreeSet<BundleRole>| roles.contains(&BundleRole::ControlPlane);
    let variants = || index.variants.iter();
    let programs = variants().flat_map(|v| &v.binaries).filter(|b| is_needed(&b.roles));
    let images = variants().flat_map(|v| &v.images).filter(|i| is_needed(&i.roles));
    let of_images = images.flat_map(|i| i.blobs.iter().copied());
    programs.map(|b| b.blob).chain(of_images).collect()
}

/// Returns the blobs that the machine keeps, with their sizes. Fails when one does not have the digest that it is named by. What came of a
/// blob before a connection ended is no blob, and is returned as the second.
fn kept(fleet: &Fleet) -> (BTreeMap<Digest, u64>, Vec<PathBuf>) {
    let (mut blobs, mut parts) = (BTreeMap::new(), Vec::new());
    let Ok(entries) = fs::read_dir(fleet.machine(&node()).unwrap().at(BLOBS_DIR)) else {
        return (blobs, parts);
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.extension().is_some() {
            parts.push(path);
            continue;
        }
        let mut hashed = Hashed::new(File::open(&path).unwrap());
        let size = std::io::copy(&mut hashed, &mut std::io::sink()).unwrap();
        let digest = hashed.digest();
        assert_eq!(path.file_name().unwrap().to_str(), Some(digest.hex().as_str()));
        blobs.insert(digest, size);
    }
    (blobs, parts)
}

/// How cases are played.
struct Play<'a> {
    /// A case for each seed.
    seeds: Range<u64>,
    /// How many at once.
    at_once: usize,
    /// Says what a seed chooses.
    describe: &'a (dyn Fn(u64) -> String + Sync),
    /// Is told each failure at once.
    say: &'a (dyn Fn(&Failure) + Sync),
}

impl Play<'_> {
    /// Plays the cases, several at once; `make` makes what those after each other share. Returns what the passed ones found out, and the
    /// others. Blocks until all have ended.
    fn run<W, T: Send>(
        &self,
        make: impl Fn() -> W + Sync,
        case: impl Fn(&W, u64) -> T + Sync,
    ) -> (Vec<T>, Vec<Failure>) {
        let next = AtomicU64::new(self.seeds.start);
        let (passed, failed) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
        let work = || {
            let shared = make();
            loop {
                let seed = next.fetch_add(1, Ordering::SeqCst);
                if !self.seeds.contains(&seed) {
                    return;
                }
                // What a failed case leaves damaged is put right by what it holds.
                match catch_unwind(AssertUnwindSafe(|| case(&shared, seed))) {
                    Ok(found) => passed.lock().unwrap().push(found),
                    Err(panic) => {
                        let failure = Failure {
                            seed,
                            schedule: (self.describe)(seed),
                            why: text_of(panic.as_ref()),
                        };
                        (self.say)(&failure);
                        failed.lock().unwrap().push(failure);
                    }
                }
            }
        };
        thread::scope(|scope| (0..self.at_once).for_each(|_| drop(scope.spawn(work))));
        (passed.into_inner().unwrap(), failed.into_inner().unwrap())
    }
}

/// As many at once as there are processors.
fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}
