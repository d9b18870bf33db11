//! Parsers of hostile input, fed with mutated corpora: `tests/fuzz/corpus/PARSER/`, one input a file. What is private to a module is fed
//! by a module `fuzz` of its own.
//!
//! A run replays its corpus, then mutates it for a bounded number of rounds, or a bounded time, with a seed that is printed. `FUZZ_SEED`
//! repeats a run, `FUZZ_SECONDS` makes each parser's longer. An input that a check fails on is written into the corpus, so that it is
//! replayed from then on. There is no coverage feedback: cargo-fuzz needs a nightly compiler, and this repository builds with one stable
//! toolchain.

use crate::annotations::{self, NoSecrets, OWN};
use crate::handover;
use crate::path;
use crate::route::{Options, host_of};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Inputs of a short run; most parsers take a second or two in a build without optimisation.
const INPUTS: usize = 20_000;
/// Longest short run: all of them together stay below the three minutes that `cargo xtask test` has for them, also one by one.
const SHORT: Duration = Duration::from_secs(8);
/// Longest input.
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

fn mutate(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
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
        input.truncate(LENGTH);
    }
    input
}

fn folder(parser: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fuzz/corpus")
        .join(parser)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Replays and mutates the corpus of a parser; `check` panics on what must not be.
pub(crate) fn fuzz(parser: &str, check: impl Fn(&[u8])) {
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
            .unwrap_or_else(|| mutate(&mut random, &corpus));
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

/// Cuts an input into so many texts, at line feeds; what is missing is empty, what is too much stays in the last.
pub(crate) fn lines<const N: usize>(input: &[u8]) -> Option<[&str; N]> {
    let text = std::str::from_utf8(input).ok()?;
    let mut lines = text.splitn(N, '\n');
    Some([(); N].map(|()| lines.next().unwrap_or_default()))
}

#[test]
fn a_path_means_the_same_as_its_canonical_form() {
    fuzz("path", |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let Ok(once) = path::canonical(text) else { return };
        let twice = path::canonical(&once).expect("a canonical path is a path");
        assert_eq!(once, twice);
        assert!(once.starts_with('/') && !once.contains("//") && !once.contains('\\') && !once.contains("%00"));
        assert!(once.split('/').all(|segment| segment != "." && segment != ".."));
        assert!(once.bytes().all(|byte| byte.is_ascii_graphic()));
    });
}

/// What a server sees that decodes a path, splits it, and leaves parameters out.
fn segments(path: &str) -> Vec<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16)).unwrap_or(0);
        bytes.push(if byte == b'%' {
            (digit() * 16 + digit()) as u8
        } else {
            byte
        });
    }
    let segments = bytes.split(|byte| *byte == b'/');
    let named = segments.map(|segment| segment.split(|byte| *byte == b';').next().unwrap_or(segment).to_vec());
    named.filter(|segment| !segment.is_empty()).collect()
}

#[test]
fn the_decoded_reading_of_a_path_is_what_a_server_sees() {
    fuzz("path", |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let Ok(path) = path::canonical(text) else { return };
        let seen = segments(&path);
        let dots = seen.iter().any(|segment| matches!(&segment[..], b"." | b".."));
        match path::decoded(&path) {
            Err(why) => assert!(dots, "{path:?}: {why}"),
            Ok(read) => {
                assert!(!dots, "{path:?}");
                let read = read.unwrap_or_else(|| path.to_string());
                assert!(path::is_canonical(read.as_bytes()), "{path:?} {read:?}");
                assert_eq!(
                    segments(&read.replace("%3B", "")),
                    segments(&read),
                    "no parameter is left in {read:?}"
                );
                assert_eq!(segments(&read), seen, "{path:?} {read:?}");
            }
        }
    });
}

#[test]
fn a_host_is_read_once_and_for_all() {
    fuzz("host", |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        let Some(host) = host_of(text) else { return };
        assert_eq!(host_of(&host).as_deref(), Some(host.as_str()), "{text:?}");
        assert!(
            !host
                .bytes()
                .any(|byte| byte.is_ascii_uppercase() || byte <= b' ' || b"/\\@?#".contains(&byte))
        );
    });
}

#[test]
fn annotations_of_any_value_are_read_without_a_panic() {
    fuzz("annotation", |input| {
        // The first byte chooses the name, the rest is the value.
        let Some((first, value)) = input.split_first() else {
            return;
        };
        let (name, _) = &annotations::NAMES[usize::from(*first) % annotations::NAMES.len()];
        let value = String::from_utf8_lossy(value).into_owned();
        let read = |value: String| {
            let all = annotations::Annotations::from_iter([(format!("{OWN}{name}"), value)]);
            annotations::read(&all, "default", &NoSecrets, &Options::default())
        };
        let (once, again) = (read(value.clone()), read(value));
        assert_eq!(once.faults, again.faults);
    });
}

#[test]
fn a_hand_over_s_messages_of_any_bytes_are_refused_or_read() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    fuzz("handover", |input| {
        runtime.block_on(async {
            // Any result will do; a panic or a wait will not.
            let patience = Duration::from_secs(5);
            let (mut one, mut other) = (sent(input), sent(input));
            let read = tokio::time::timeout(patience, handover::receive(&mut one));
            let message = read.await.unwrap();
            let read = tokio::time::timeout(patience, handover::receive_listeners(&mut other));
            let with_listeners = read.await.unwrap();
            // Both ways of reading agree, and what was read is what would be sent.
            assert_eq!(message.is_ok(), with_listeners.is_ok());
            let (Ok(message), Ok((same, listeners))) = (message, with_listeners) else {
                return;
            };
            assert!(listeners.is_empty() && same == message);
            let (mut ours, mut theirs) = tokio::net::UnixStream::pair().unwrap();
            handover::send(&mut ours, &message).await.unwrap();
            assert_eq!(handover::receive(&mut theirs).await.unwrap(), message);
        });
    });
}

/// A connection on which this was sent, and nothing more will be.
fn sent(bytes: &[u8]) -> tokio::net::UnixStream {
    use std::io::Write;
    let (ours, theirs) = tokio::net::UnixStream::pair().unwrap();
    (&theirs.into_std().unwrap()).write_all(bytes).unwrap();
    ours
}
