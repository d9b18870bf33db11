//! One byte of the bundle's file is flipped: what it belongs to is named by a stable code, and nothing of it is sent or run.

use super::layout::{Flip, Layout, Part};
use super::{Play, RealBundle, kept, needed, processors};
use crate::scene::{Listener, Scene};
use crate::sweep::Failure;
use landfall_bundle::{Bundle, Verified};
use landfall_core::event::{Event, EventKind};
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::name::Digest;
use landfall_engine::run::Outcome;
use landfall_test_support::machine::memory_dir;
use landfall_test_support::seed::Choices;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Of so many flips in blobs that are pushed, one is pushed.
const PUSHED_OF: u64 = 16;

/// The result of the flips.
#[derive(Debug)]
pub struct FlipReport {
    /// Flips of each part of the file.
    pub parts: BTreeMap<&'static str, u64>,
    /// Flips for which a whole push was played.
    pub pushed: usize,
    /// Flips that were not noticed, not named, or sent.
    pub failed: Vec<Failure>,
    /// How long it took.
    pub seconds: f64,
}

/// Flips `cases` bytes from a seed on, one after the other, and calls `say` for each failure at once. The file as it is must pass before and
/// afterwards. Blocks until all are done.
pub fn flips(real: &RealBundle, seed: u64, cases: u64, say: &(dyn Fn(&Failure) + Sync)) -> FlipReport {
    let began = Instant::now();
    let layout = Layout::read(&real.path).unwrap();
    let needed = needed(real.open().index());
    let play = Play {
        seeds: seed..seed + cases,
        at_once: processors(),
        describe: &|seed| layout.choose(seed).to_string(),
        say,
    };
    let (passed, failed) = play.run(
        || PrivateCopy::of(real),
        |copy, seed| {
            let flip = layout.choose(seed);
            must_be_named(copy, &flip);
            let mut choices = Choices::new(seed, "push");
            let blob = flip
                .member
                .blob()
                .filter(|digest| flip.part == Part::Blob && needed.contains(digest));
            let Some(digest) = blob.filter(|_| choices.below(PUSHED_OF) == 0) else {
                return false;
            };
            match choices.below(2) {
                0 => push_damaged(copy, &flip),
                _ => push_and_damage(copy, &flip, &digest),
            }
            true
        },
    );
    FlipReport {
        parts: layout.counts(seed..seed + cases),
        pushed: passed.into_iter().filter(|pushed| *pushed).count(),
        failed,
        seconds: began.elapsed().as_secs_f64(),
    }
}

/// A copy of the bundle for one thread. All of it is read when it is made and when it goes: then it must be as it was.
struct PrivateCopy<'a> {
    real: &'a RealBundle,
    path: PathBuf,
    file: Arc<File>,
    _directory: TempDir,
}

impl<'a> PrivateCopy<'a> {
    fn of(real: &'a RealBundle) -> Self {
        let directory = memory_dir().unwrap();
        let path = directory.path().join("copy.bundle");
        fs::copy(&real.path, &path).unwrap();
        let copy = Self {
            real,
            file: Arc::new(File::options().read(true).write(true).open(&path).unwrap()),
            path,
            _directory: directory,
        };
        copy.must_pass();
        copy
    }

    fn open(&self) -> Result<Bundle<Verified>, Diagnosis> {
        self.real.open_copy(&self.path)
    }

    fn must_pass(&self) {
        self.open().unwrap().check_blobs(&mut |_, _| {}).unwrap();
    }

    /// Flips a byte until the returned value goes.
    fn flip(&self, flip: &Flip) -> Flipped {
        let flipped = Flipped::prepare(&self.file, flip);
        flipped.write();
        flipped
    }
}

impl Drop for PrivateCopy<'_> {
    fn drop(&mut self) {
        self.must_pass();
    }
}

/// A byte that gets its old value back.
struct Flipped {
    file: Arc<File>,
    at: u64,
    old: u8,
    new: u8,
}

impl Flipped {
    fn prepare(file: &Arc<File>, flip: &Flip) -> Self {
        let mut byte = [0];
        file.read_exact_at(&mut byte, flip.at).unwrap();
        Self {
            file: Arc::clone(file),
            at: flip.at,
            old: byte[0],
            new: byte[0] ^ flip.mask,
        }
    }

    fn write(&self) {
        self.file.write_all_at(&[self.new], self.at).unwrap();
    }

    fn put_right(&self) {
        self.file.write_all_at(&[self.old], self.at).unwrap();
    }
}

impl Drop for Flipped {
    fn drop(&mut self) {
        self.put_right();
    }
}

/// Fails unless opening the bundle refuses the flip or, in a blob, reading it does, and both name it.
fn must_be_named(copy: &PrivateCopy<'_>, flip: &Flip) {
    let _flipped = copy.flip(flip);
    let bundle = match copy.open() {
        Ok(bundle) => bundle,
        Err(error) => return must_name(&error, flip, &flip.names()),
    };
    let Some(digest) = flip.member.blob().filter(|_| flip.part == Part::Blob) else {
        panic!("{flip} was not noticed");
    };
    // What an install or a push does before it changes a node, and what `landfall bundle verify` does.
    let faults = bundle.check_some_blobs([digest].iter(), &mut |_, _| {});
    let faults = faults.expect_err(&format!("{flip} was not noticed"));
    assert_eq!(faults.len(), 1, "{flip}: {faults:?}");
    must_name_chunk(&faults[0], flip);
    // What a transfer does.
    let mut given = Given(0);
    let error = io::copy(&mut bundle.blob(&digest).unwrap(), &mut given);
    let error = error.expect_err(&format!("{flip} was not noticed in the transfer"));
    assert_eq!(
        given.0,
        flip.chunk(),
        "{flip}: what was handed on ends elsewhere than before the damaged chunk"
    );
    must_name_chunk(&bundle.blob_fault(error), flip);
}

/// Fails unless an error has a code of bundles and says one of the names.
fn must_name(error: &Diagnosis, flip: &Flip, names: &[String]) {
    let text = format!("{} {} {:?} {:?}", error.code, error.what, error.saw, error.causes);
    let is_named = names.iter().any(|name| text.contains(name.as_str()));
    assert!(is_named && text.starts_with("LF04"), "{flip} is not named: {text}");
}

/// Fails unless an error names the chunk of a blob.
fn must_name_chunk(error: &Diagnosis, flip: &Flip) {
    assert_eq!(error.code, Code::BundleDigest, "{flip}: {error:?}");
    must_name(error, flip, &[format!("bytes {} to ", flip.chunk())]);
    must_name(error, flip, std::slice::from_ref(&flip.member.name));
}

/// Counts bytes.
struct Given(u64);

impl Write for Given {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Pushes, and calls `on_plan` when the machine has said what it lacks.
fn push(scene: &Scene, bundle: &Bundle<Verified>, run: &str, on_plan: impl Fn() + Send + Sync + 'static) -> Outcome {
    let listener = Listener(move |event: &Event| {
        if matches!(event.kind, EventKind::PushPlanned { .. }) {
            on_plan();
        }
    });
    let context = scene.fleet.run_context(run, "ann@desk", Arc::new(listener)).unwrap();
    scene.push_reconnecting(bundle, &context, Duration::ZERO)
}

fn must_be_refused(outcome: &Outcome, flip: &Flip) {
    assert!(!outcome.errors.is_empty(), "{flip}: the push has worked");
    outcome.errors.iter().for_each(|error| must_name_chunk(error, flip));
}

/// The bundle was damaged before it is pushed: nothing is sent, and the machine stays as it was.
fn push_damaged(copy: &PrivateCopy<'_>, flip: &Flip) {
    let scene = Scene::new(1, 0);
    let _flipped = copy.flip(flip);
    let planned = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&planned);
    let outcome = push(&scene, &copy.open().unwrap(), "100-a", move || {
        seen.store(true, Ordering::SeqCst)
    });
    must_be_refused(&outcome, flip);
    assert!(!planned.load(Ordering::SeqCst), "{flip}: a transfer began");
    let changed = (outcome.bytes_sent.values().sum::<u64>(), outcome.changes);
    assert_eq!(changed, (0, 0), "{flip}");
    scene.must_be_as_before(&flip.to_string());
}

/// The bundle is damaged when its check is over and the transfer begins: the blob does not arrive. Once the byte is right again, the next
/// push goes on.
fn push_and_damage(copy: &PrivateCopy<'_>, flip: &Flip, digest: &Digest) {
    let scene = Scene::new(1, 0);
    let bundle = copy.open().unwrap();
    let flipped = Arc::new(Flipped::prepare(&copy.file, flip));
    let late = Arc::clone(&flipped);
    let outcome = push(&scene, &bundle, "100-a", move || late.write());
    flipped.put_right();
    must_be_refused(&outcome, flip);
    let (blobs, _) = kept(&scene.fleet);
    assert!(!blobs.contains_key(digest), "{flip}: the blob arrived");
    let again = push(&scene, &bundle, "200-b", || {});
    scene.must_work(&again, &format!("push after {flip}"));
    assert_eq!(
        kept(&scene.fleet).0.into_keys().collect::<BTreeSet<_>>(),
        needed(bundle.index())
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_test_support::bundle;

    #[test]
    fn what_nobody_notices_fails_and_says_place_and_member() {
        let directory = memory_dir().unwrap();
        let path = directory.path().join("tiny.bundle");
        bundle::write_tiny(&path, bundle::VERSION).unwrap();
        fs::write(path.with_extension("pub"), bundle::key().public().to_text()).unwrap();
        let real = RealBundle::at(&path).unwrap();
        let layout = Layout::read(&path).unwrap();
        let play = Play {
            seeds: 0..200,
            at_once: 1,
            describe: &|seed| layout.choose(seed).to_string(),
            say: &|_| {},
        };
        // The byte stays what it is, and the check is told that it was flipped.
        let unchanged = |seed| Flip {
            mask: 0,
            ..layout.choose(seed)
        };
        let (passed, failed) = play.run(
            || PrivateCopy::of(&real),
            |copy, seed| must_be_named(copy, &unchanged(seed)),
        );
        assert_eq!((passed.len(), failed.len()), (0, 200));
        for failure in &failed {
            let flip = unchanged(failure.seed);
            let said = [format!("byte {} ", flip.at), flip.member.name, "not noticed".to_owned()];
            assert!(said.iter().all(|text| failure.why.contains(text)), "{failure}");
        }
    }
}
