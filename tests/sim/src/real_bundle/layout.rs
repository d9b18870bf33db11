//! Where the members of a bundle lie, read by the tar library and not by landfall; and which byte a seed flips.

use landfall_core::bundle_index::CHUNK_BYTES;
use landfall_core::name::Digest;
use landfall_test_support::seed::Choices;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::path::Path;

/// Block of a tar.
const BLOCK: u64 = 512;
/// Folder of blobs inside the file.
const BLOBS: &str = "blobs/sha256/";
/// The signature, which errors name by what is signed and by its key.
const SIGNATURE: &str = "bundle.json.minisig";

/// One member.
#[derive(Debug, Clone)]
pub struct Member {
    pub name: String,
    header: u64,
    pub content: Range<u64>,
}

impl Member {
    /// The digest by which a blob is named.
    pub fn blob(&self) -> Option<Digest> {
        let hex = self.name.strip_prefix(BLOBS)?;
        Some(format!("sha256:{hex}").parse().unwrap())
    }

    fn padding(&self) -> Range<u64> {
        self.content.end..self.content.end.next_multiple_of(BLOCK)
    }
}

/// What a byte belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The header of a member.
    Header,
    /// The content of a member that is no blob.
    Text,
    /// The content of a blob.
    Blob,
    /// The zeros between a member and the next one.
    Padding,
    /// The zeros behind the last member.
    End,
}

impl Part {
    /// The name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Header => "headers",
            Self::Text => "texts",
            Self::Blob => "blobs",
            Self::Padding => "padding",
            Self::End => "end",
        }
    }
}

/// A byte, and what it becomes.
#[derive(Debug, Clone)]
pub struct Flip {
    /// Place in the file.
    pub at: u64,
    /// What is changed of it.
    pub mask: u8,
    pub part: Part,
    /// The member, or the last one before the end.
    pub member: Member,
}

impl fmt::Display for Flip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { at, mask, part, member } = self;
        write!(f, "byte {at} xor {mask:#04x} in {} of {}", part.name(), member.name)
    }
}

impl Flip {
    /// Where the damaged chunk begins in its blob.
    pub fn chunk(&self) -> u64 {
        (self.at - self.member.content.start) / CHUNK_BYTES * CHUNK_BYTES
    }

    /// How an error of opening or verifying may name the byte: by itself, by its member, or by where the member's header must be.
    pub fn names(&self) -> Vec<String> {
        let Member { name, header, .. } = &self.member;
        let mut names = vec![
            name.clone(),
            format!("byte {} ", self.at),
            format!("must be at byte {header};"),
        ];
        names.extend(self.member.blob().map(|digest| digest.to_string()));
        if name == SIGNATURE {
            names.extend(["signature of bundle.json", "is signed by the key"].map(str::to_owned));
        }
        names
    }
}

/// The members of a bundle.
#[derive(Debug)]
pub struct Layout {
    members: Vec<Member>,
    length: u64,
}

impl Layout {
    pub fn read(path: &Path) -> std::io::Result<Self> {
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        let mut members = Vec::new();
        for entry in tar::Archive::new(file).entries_with_seek()? {
            let entry = entry?;
            let start = entry.raw_file_position();
            members.push(Member {
                name: entry.path()?.display().to_string(),
                header: entry.raw_header_position(),
                content: start..start + entry.size(),
            });
        }
        Ok(Self { members, length })
    }

    /// Returns the byte that a seed chooses. Most bytes of a bundle are those of some large blobs: the rest gets a share of its own.
    pub fn choose(&self, seed: u64) -> Flip {
        let mut choices = Choices::new(seed, "flipped byte");
        let of = |is_wanted: &dyn Fn(&&Member) -> bool| self.members.iter().filter(is_wanted).collect::<Vec<_>>();
        let all = of(&|_| true);
        let texts = of(&|member| member.blob().is_none());
        let blobs = of(&|member| member.blob().is_some());
        let padded = of(&|member| !member.padding().is_empty());
        let (part, list) = match choices.below(16) {
            0..=1 => (Part::Header, &all),
            2 => (Part::Padding, &padded),
            3 => (Part::End, &all),
            4..=5 => (Part::Text, &texts),
            _ => (Part::Blob, &blobs),
        };
        let member = match (part, choices.below(4)) {
            (Part::End, _) => *all.last().unwrap(),
            // A byte of all blobs, wherever it falls; in one case of four the smallest blob counts as much as the largest.
            (Part::Blob, 0..=2) => within(&blobs, choices.below(blobs.iter().map(|m| length(&m.content)).sum())),
            _ => choices.one_of(list).unwrap(),
        };
        let range = match part {
            Part::Header => member.header..member.content.start,
            Part::Text | Part::Blob => member.content.clone(),
            Part::Padding => member.padding(),
            Part::End => member.padding().end..self.length,
        };
        let at = match choices.below(8) {
            // Where ranges and chunks begin and end.
            0 => {
                let chunk = range.start + choices.below(length(&range).div_ceil(CHUNK_BYTES)) * CHUNK_BYTES;
                let last = (chunk + CHUNK_BYTES).min(range.end) - 1;
                *choices.one_of(&[chunk, last]).unwrap()
            }
            _ => range.start + choices.below(length(&range)),
        };
        Flip {
            at,
            mask: u8::try_from(choices.below(255) + 1).unwrap(),
            part,
            member: member.clone(),
        }
    }

    /// How many flips there are of each part.
    pub fn counts(&self, seeds: Range<u64>) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::new();
        for seed in seeds {
            *counts.entry(self.choose(seed).part.name()).or_default() += 1;
        }
        counts
    }
}

fn length(range: &Range<u64>) -> u64 {
    range.end - range.start
}

/// Returns the member that has the byte of that number, over all contents.
fn within<'a>(members: &[&'a Member], mut number: u64) -> &'a Member {
    for member in members {
        if number < length(&member.content) {
            return member;
        }
        number -= length(&member.content);
    }
    unreachable!("the number is below the sum of all lengths")
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_test_support::{bundle, machine};

    #[test]
    fn every_byte_of_a_bundle_belongs_to_a_part_and_each_part_is_chosen() {
        let directory = machine::memory_dir().unwrap();
        let path = directory.path().join("tiny.bundle");
        bundle::write_tiny(&path, bundle::VERSION).unwrap();
        let layout = Layout::read(&path).unwrap();
        let mut at = 0;
        for member in &layout.members {
            assert_eq!((member.header, member.content.start), (at, at + BLOCK));
            at = member.padding().end;
        }
        assert_eq!(layout.length, at + 2 * BLOCK);
        assert_eq!(layout.counts(0..1000).len(), 5);
        let flip = layout.choose(4711);
        assert_eq!(flip.to_string(), layout.choose(4711).to_string());
        let flips = || (0..1000).map(|seed| layout.choose(seed));
        let names = |part| {
            flips()
                .filter(move |flip| flip.part == part)
                .map(|flip| flip.member.name)
        };
        for text in ["bundle.json", "oci-layout", "index.json", "checksums", SIGNATURE] {
            assert!(names(Part::Text).any(|name| name == text), "{text}");
        }
        assert!(flips().all(|flip| flip.at < layout.length && flip.mask > 0));
    }
}
