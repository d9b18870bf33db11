//! Plan files of version 1, and the index of a bundle of versions 1 and 2.

use crate::must_be_all;
use landfall_core::action::{Action, ClusterCondition, Content, FeatureEvidence};
use landfall_core::bundle_index::{BundleIndex, INDEX_VERSION, IndexError};
use landfall_core::plan::file::{PLAN_FILE_VERSION, PlanFile, PlanFileError};

const PLAN: &str = include_str!("../../../../tests/fixtures/formats/plan-1.json");
const INDEX_1: &str = include_str!("../../../../tests/fixtures/formats/bundle-index-1.json");
const INDEX: &str = include_str!("../../../../tests/fixtures/formats/bundle-index-2.json");

fn kind(action: &Action) -> &'static str {
    match action {
        Action::Claim { .. } => "claim",
        Action::Directory { .. } => "directory",
        Action::File { content, .. } => match content {
            Content::Text(_) => "file of text",
            Content::Generated(_) => "generated file",
            Content::Secret(_) => "secret file",
        },
        Action::Binary { .. } => "binary",
        Action::HostsLines { .. } => "hosts-lines",
        Action::Sysctls { .. } => "sysctls",
        Action::KernelFeatures { .. } => "kernel-features",
        Action::Firewall { .. } => "firewall",
        Action::Unit { .. } => "unit",
        Action::StopUnit { .. } => "stop-unit",
        Action::Images { .. } => "images",
        Action::Run { .. } => "run",
        Action::Bootstrap { .. } => "bootstrap",
        Action::MarkUndo { .. } => "mark-undo",
        Action::BeginUndo { .. } => "begin-undo",
        Action::TakeBack { .. } => "take-back",
        Action::FinishUndo { .. } => "finish-undo",
        Action::LeaveCluster { .. } => "leave-cluster",
        Action::RestoreObjects { .. } => "restore-objects",
        Action::Apply { .. } => "apply",
        Action::Delete { .. } => "delete",
        Action::KubeconfigServer { .. } => "kubeconfig-server",
        Action::Await { condition } => match condition {
            ClusterCondition::NodesReady(_) => "await nodes",
            ClusterCondition::RolledOut { .. } => "await a roll-out",
        },
    }
}

#[test]
fn a_plan_with_every_action_is_written_as_it_was_read() {
    let file = PlanFile::parse(PLAN).unwrap();
    assert_eq!(file.render(), PLAN);
    must_be_all(file.plan.steps.iter().map(|step| kind(&step.action)), 25);
    let features = file.plan.steps.iter().find_map(|step| match &step.action {
        Action::KernelFeatures { features } => Some(features),
        _ => None,
    });
    let evidence = features.unwrap().iter().map(|feature| match &feature.evidence {
        FeatureEvidence::Path(_) => "path",
        FeatureEvidence::Filesystem(_) => "filesystem",
        FeatureEvidence::Nftables => "nftables",
    });
    must_be_all(evidence, 3);
}

#[test]
fn a_plan_file_of_another_version_is_refused() {
    let version = u64::from(PLAN_FILE_VERSION) + 1;
    let mut newer: serde_json::Value = serde_json::from_str(PLAN).unwrap();
    newer["version"] = version.into();
    newer["satisfied"] = "a field that means something else by then".into();
    let error = PlanFile::parse(&newer.to_string()).unwrap_err();
    assert!(
        matches!(error, PlanFileError::Version(found) if found == version),
        "{error}"
    );
}

#[test]
fn the_index_of_a_bundle_is_written_as_it_was_read() {
    let index = BundleIndex::parse(INDEX.as_bytes()).unwrap();
    assert_eq!(serde_json::to_string_pretty(&index).unwrap() + "\n", INDEX);
    assert!(
        index
            .components
            .iter()
            .any(|c| c.name == "etcd" && c.version == "3.7.3")
    );
    assert!(index.image_named("pause").is_some());
    assert!(index.variant("arm64").is_some());
    assert_eq!(index.upgrades_from[0].name, "etcd");
}

#[test]
fn an_index_of_version_1_has_one_variant() {
    let (old, new) = (
        BundleIndex::parse(INDEX_1.as_bytes()).unwrap(),
        BundleIndex::parse(INDEX.as_bytes()).unwrap(),
    );
    assert_eq!((old.version, old.min_upgrade_from), (1, None));
    assert_eq!(old.variants[..], new.variants[..1]);
    assert_eq!(old.blobs, new.blobs);
    assert_eq!(old.bundle_version, "0.1.0");
}

#[test]
fn an_index_of_a_newer_version_is_refused() {
    let mut newer: serde_json::Value = serde_json::from_str(INDEX).unwrap();
    newer["version"] = (INDEX_VERSION + 1).into();
    newer["variants"] = "something else by then".into();
    let error = BundleIndex::parse(newer.to_string().as_bytes()).unwrap_err();
    assert_eq!(error, IndexError::Version(INDEX_VERSION + 1));
}
