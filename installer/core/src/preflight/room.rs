//! Space on the file systems that are really used: for what the bundle brings, and above the kubelet's own limits.

use super::Look;
use crate::bundle_index::{BinaryPlace, BundleIndex, BundleRole};
use crate::facts::{NodeFacts, PlaceFacts};
use crate::finding::{Check, Finding};
use crate::inventory::Role;
use crate::layout;
use crate::layout::{CONTAINERD_DIR, KUBELET_DIR};
use crate::name::{Digest, NodeName};
use crate::spec::BinDir;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// How much larger images are once they are unpacked: zstd makes a quarter of Kubernetes' images (kube-apiserver 119 to 30 MB, measured
/// 2026-11-23). containerd keeps both forms.
const UNPACKED: u64 = 4;
/// Per cent within which the kubelet's limit is near.
const NEAR: u64 = 5;

/// A limit below which the kubelet evicts pods: the defaults of `evictionHard` (pkg/kubelet/eviction/defaults_linux.go), which landfall
/// leaves as they are.
struct Limit {
    place: &'static str,
    signal: &'static str,
    percent: u64,
    /// What is left and what there is in all.
    left: fn(&PlaceFacts) -> (u64, u64),
}

const LIMITS: [Limit; 4] = [
    Limit {
        place: KUBELET_DIR,
        signal: "nodefs.available",
        percent: 10,
        left: |place| (place.available_bytes, place.total_bytes),
    },
    Limit {
        place: CONTAINERD_DIR,
        signal: "imagefs.available",
        percent: 15,
        left: |place| (place.available_bytes, place.total_bytes),
    },
    Limit {
        place: KUBELET_DIR,
        signal: "nodefs.inodesFree",
        percent: 5,
        left: |place| (place.free_inodes, place.inodes),
    },
    Limit {
        place: CONTAINERD_DIR,
        signal: "imagefs.inodesFree",
        percent: 5,
        left: |place| (place.free_inodes, place.inodes),
    },
];

pub(super) fn check(look: &mut Look) {
    let places = &look.facts.survey.places;
    // What is installed lies there already; what of it changes is known when the plan is made ([`no_room`]).
    let bundle = look.input.bundle.filter(|_| !look.ours);
    let needs = bundle
        .map(|bundle| needs(bundle.index, look.node.role, look.input.desired.spec.bin_dir))
        .unwrap_or_default();
    let brought = by_device(places, &needs);
    let found = without_room(places, &brought);
    found.into_iter().for_each(|finding| look.add_before_install(finding));
    // The lab's kubelets have no such limits: its machines share the host's disk.
    if !look.lab {
        check_limits(look, &brought);
    }
}

/// What the bundle brings to a place, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Need {
    /// What stays there.
    stays: u64,
    /// What is there only while the install runs.
    passing: u64,
}

/// What a run is about to bring to a node on which something is installed already, as it was seen to lack it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Coming {
    /// Sizes of programs, by the path of the file.
    pub programs: BTreeMap<PathBuf, u64>,
    /// Blobs of images.
    pub images: BTreeSet<Digest>,
    /// Bytes of blobs that the node's store lacks.
    pub blob_bytes: u64,
}

/// Finds file systems on which that does not fit: with it a run would stop in its middle. An older program of the same name makes room only afterwards.
pub fn no_room(node: &NodeName, facts: &NodeFacts, index: &BundleIndex, coming: &Coming) -> Vec<Finding> {
    let places = &facts.survey.places;
    let mut needs: BTreeMap<&str, Need> = BTreeMap::new();
    for (path, size) in &coming.programs {
        // The last prefix in this order is the longest.
        let place = places.keys().rev().find(|place| path.starts_with(place));
        needs.entry(place.map_or("/", String::as_str)).or_default().stays += size;
    }
    needs.entry(CONTAINERD_DIR).or_default().stays += size_of(index, &coming.images) * (1 + UNPACKED);
    needs.entry(layout::STATE_DIR).or_default().passing += coming.blob_bytes;
    let found = without_room(places, &by_device(places, &needs)).into_iter();
    found.map(|finding| finding.on([node])).collect()
}

fn by_device(places: &BTreeMap<String, PlaceFacts>, needs: &BTreeMap<&str, Need>) -> BTreeMap<u64, Need> {
    let mut brought: BTreeMap<u64, Need> = BTreeMap::new();
    for (place, need) in needs {
        if let Some(seen) = places.get(*place) {
            let sum = brought.entry(seen.device).or_default();
            sum.stays += need.stays;
            sum.passing += need.passing;
        }
    }
    brought
}

fn size_of<'a>(index: &BundleIndex, blobs: impl IntoIterator<Item = &'a Digest>) -> u64 {
    let size = |digest: &Digest| index.blob(digest).map_or(0, |blob| blob.size_bytes);
    blobs.into_iter().map(size).sum()
}

/// Sums up what a node of this role gets.
fn needs(index: &BundleIndex, role: Role, bin_dir: BinDir) -> BTreeMap<&'static str, Need> {
    let role = match role {
        Role::ControlPlane => BundleRole::ControlPlane,
        Role::Worker | Role::Outside => BundleRole::Worker,
    };
    let mut needs: BTreeMap<&'static str, Need> = BTreeMap::new();
    let mut sent = BTreeSet::new();
    for binary in index.binaries().iter().filter(|b| b.roles.contains(&role)) {
        let place = match binary.place {
            BinaryPlace::Bin => bin_dir.path(),
            BinaryPlace::Cni => layout::CNI_BIN_DIR,
        };
        needs.entry(place).or_default().stays += binary.size_bytes;
        sent.insert(binary.blob);
    }
    let images = index.images().iter().filter(|i| i.roles.contains(&role));
    // Images share layers.
    let layers: BTreeSet<_> = images.flat_map(|image| image.blobs.iter().copied()).collect();
    needs.entry(CONTAINERD_DIR).or_default().stays += size_of(index, &layers) * (1 + UNPACKED);
    sent.extend(&layers);
    needs.entry(layout::STATE_DIR).or_default().passing += size_of(index, &sent);
    needs
}

/// All that comes must fit, for root.
fn without_room(places: &BTreeMap<String, PlaceFacts>, brought: &BTreeMap<u64, Need>) -> Vec<Finding> {
    let mut found = Vec::new();
    for (device, need) in brought {
        let mut on_device = places.iter().filter(|(_, p)| p.device == *device);
        let Some((_, seen)) = on_device.next() else { continue };
        let wanted = need.stays + need.passing;
        if wanted > seen.free_bytes && seen.total_bytes > 0 {
            found.push(
                Finding::new(
                    Check::BundleSpace,
                    format!(
                        "what the bundle brings does not fit on the file system of {}",
                        seen.directory
                    ),
                    format!("{} MiB free, {} MiB needed", mib(seen.free_bytes), mib(wanted)),
                    "free disk space, or mount larger file systems at /var/lib/containerd and /var/lib/landfall",
                )
                .at(&seen.directory, None),
            );
        }
    }
    found
}

/// Once all is there, the kubelet must have room above its limits.
fn check_limits(look: &mut Look, brought: &BTreeMap<u64, Need>) {
    let mut found = Vec::new();
    for limit in LIMITS {
        let Some(seen) = look.facts.survey.places.get(limit.place) else {
            continue;
        };
        let (left, all) = (limit.left)(seen);
        // File systems that make inodes as needed, or do not tell their size, have no such limit.
        if all == 0 {
            continue;
        }
        let bytes = limit.signal.ends_with("available");
        let comes = brought.get(&seen.device).map_or(0, |need| need.stays);
        let left = if bytes { left.saturating_sub(comes) } else { left };
        // In thousandths: 14.9 % is below 15 %.
        let share = u128::from(left) * 1000 / u128::from(all);
        let above = |percent: u64| share >= u128::from(percent) * 10;
        let check = match (above(limit.percent), above(limit.percent + NEAR)) {
            (false, _) => Check::Space,
            (true, false) => Check::SpaceLow,
            (true, true) => continue,
        };
        let (signal, percent) = (limit.signal, limit.percent);
        let what = match check {
            Check::Space => format!("the kubelet evicts below {percent} % ({signal}), and less will be left"),
            _ => format!("the kubelet evicts below {percent} % ({signal}), and little more will be left"),
        };
        let share = format!("{}.{} %", share / 10, share % 10);
        let saw = match (bytes, comes) {
            (false, _) => format!("{left} of {all} inodes free ({share})"),
            (true, 0) => format!("{} of {} MiB free ({share})", mib(left), mib(all)),
            (true, comes) => format!(
                "{} of {} MiB will be free ({share}), when {} MiB of the bundle are there",
                mib(left),
                mib(all),
                mib(comes)
            ),
        };
        let next = format!("free disk space, or mount a file system of its own at {}", limit.place);
        found.push(Finding::new(check, what, saw, next).at(&seen.directory, None));
    }
    found.into_iter().for_each(|finding| look.add_before_install(finding));
}

fn mib(bytes: u64) -> u64 {
    bytes / (1024 * 1024)
}
