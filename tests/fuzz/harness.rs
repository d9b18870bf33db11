// Feeds parsers with mutated corpora: `tests/fuzz/corpus/PARSER/`, one input a file. Included by the crates whose parsers are fed.
//
// A run replays its corpus, then mutates it for a bounded number of rounds, or a bounded time, with a seed that is printed. `FUZZ_SEED`
// repeats a run, `FUZZ_SECONDS` makes each parser's longer. An input that a check fails on is written into the corpus, so that it is
// replayed from then on. There is no coverage feedback: cargo-fuzz needs a nightly compiler, and this repository builds with one stable
// toolchain.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Inputs of a short run; most parsers take a second or two in a build without optimisation.
const INPUTS: usize = 20_000;
/// Longest short run: all of them together stay below the three minutes that `cargo xtask test` has for them, also one by one.
const SHORT: Duration = Duration::from_secs(8);
/// Longest input, where a parser's check asks for no other.
const LENGTH: usize = 2048;

/// SplitMix64 (public domain): small, seedable, good enough to choose mutations.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

/// Bytes that parsers mind.
const SPECIAL: &[u8] = b"/.%\\;:,=?#[]{}\"'@ \t\r\n\0\x7f\xff-+*~^$|()0aAfF";

fn mutate(random: &mut Random, corpus: &[Vec<u8>], length: usize) -> Vec<u8> {
    let mut input = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(6) {
        let place = random.below(input.len() + 1);
        match random.below(7) {
            0 if place < input.len() => input[place] ^= 1 << random.below(8),
            1 => input.insert(place, SPECIAL[random.below(SPECIAL.len())]),
            2 if place < input.len() => drop(input.remove(place)),
            3 => input.truncate(place),
            4 => {
                // A part of another input in the middle of this one.
                let other = &corpus[random.below(corpus.len())];
                let from = random.below(other.len() + 1);
                let to = from + random.below(other.len() - from + 1);
                input.splice(place..place, other[from..to].iter().copied());
            }
            5 => {
                let copy = input[place..].to_vec();
                input.extend(copy);
            }
            _ if place < input.len() => input[place] = random.next() as u8,
            _ => {}
        }
        input.truncate(length);
    }
    input
}

fn folder(parser: &str) -> PathBuf {
    // Crates lie one or two folders below the root.
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let mut corpora = above.map(|folder| folder.join("tests/fuzz/corpus"));
    corpora
        .find(|folder| folder.is_dir())
        .expect("the corpora")
        .join(parser)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Replays and mutates the corpus of a parser; `check` panics on what must not be.
pub(crate) fn fuzz(parser: &str, check: impl Fn(&[u8])) {
    fuzz_up_to(parser, LENGTH, check);
}

/// The same with another longest input.
pub(crate) fn fuzz_up_to(parser: &str, length: usize, check: impl Fn(&[u8])) {
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    assert!(
        test == "main" || test.contains("fuzz::"),
        "{test}: the long run would not find it"
    );
    let files = fs::read_dir(folder(parser)).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files.collect();
    files.sort();
    let corpus: Vec<Vec<u8>> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    assert!(corpus.len() > 2, "a corpus for {parser}");
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let seed = number("FUZZ_SEED").unwrap_or(clock);
    let mut random = Random(seed);
    let longer = number("FUZZ_SECONDS").map(Duration::from_secs);
    let start = Instant::now();
    let mut count = 0;
    let goes_on = |count| match longer {
        Some(longer) => start.elapsed() < longer,
        None => count < INPUTS && start.elapsed() < SHORT,
    };
    while count < corpus.len() || goes_on(count) {
        let input = corpus
            .get(count)
            .cloned()
            .unwrap_or_else(|| mutate(&mut random, &corpus, length));
        if catch_unwind(AssertUnwindSafe(|| check(&input))).is_err() {
            let kept = folder(parser).join(format!("found-{seed}-{count}"));
            fs::write(&kept, &input).unwrap();
            panic!(
                "{parser}: FUZZ_SEED={seed}, input {count}, kept as {}: {:?}",
                kept.display(),
                String::from_utf8_lossy(&input)
            );
        }
        count += 1;
    }
}
