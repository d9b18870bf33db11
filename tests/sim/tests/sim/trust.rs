//! Which keys a cluster trusts, carried through runs: what one run learns of keys, every later one goes by.

use crate::scene::{Scene, null_sink};
use landfall_bundle::minisign::SecretKey;
use landfall_bundle::{Bundle, Verified};
use landfall_core::explain::Code;
use landfall_core::name::NodeName;
use landfall_core::trust::{ClusterTrust, KeyId, NewKeys, OfferedKey, TrustOffer};
use landfall_engine::run::{InstallOptions, OnFailure, Outcome, UndoCommand, Until};
use landfall_test_support::bundle;

fn id(key: &SecretKey) -> KeyId {
    key.public().id()
}

/// An operator who trusts the old key, and the new one, which the old one has signed.
fn both() -> TrustOffer {
    let mut offer = bundle::trusted();
    let key = bundle::other_key().public().to_text();
    let endorsement = Some(bundle::key().sign(key.as_bytes(), "a key for bundles").to_text());
    offer.keys.push(OfferedKey { key, endorsement });
    offer
}

fn install(scene: &Scene, run: &str, bundle: &Bundle<Verified>) -> Outcome {
    let context = scene.fleet.run_context(run, "ann@desk", null_sink()).unwrap();
    scene.install_of(bundle, &context, &InstallOptions::new(Until::Done, OnFailure::Keep))
}

/// Fails unless every journal records these keys as trusted and as revoked.
fn must_trust(scene: &Scene, trusted: &[KeyId], revoked: &[KeyId], case: &str) {
    for node in scene.desired.inventory.members() {
        let (_, own) = scene.journal(&node.name);
        let trust = own.record().and_then(|record| record.trust.clone());
        let Some(ClusterTrust {
            keys, revoked: gone, ..
        }) = trust
        else {
            panic!("{case}: {} records no keys", node.name);
        };
        assert!(keys.keys().eq(trusted), "{case}: {} trusts {keys:?}", node.name);
        assert!(gone.iter().eq(revoked), "{case}: {} has revoked {gone:?}", node.name);
    }
}

/// Fails unless the bundle that the old key has signed is refused, by the cluster's record alone.
fn must_refuse_the_old_key(scene: &Scene, run: &str, case: &str) {
    let refused = scene.install(run);
    let codes: Vec<Code> = refused.errors.iter().map(|d| d.code).collect();
    assert_eq!(codes, [Code::BundleSignature], "{case}: {:#?}", refused.errors);
    let text = format!("{:?}", refused.errors);
    assert!(text.contains("which is revoked"), "{case}: {text}");
    assert_eq!(refused.changes, 0, "{case}");
}

#[test]
fn an_install_without_changes_records_new_and_revoked_keys() {
    let scene = Scene::new(1, 1);
    scene.must_work(&scene.install("100-a"), "install");
    let (old, new) = (id(&bundle::key()), id(&bundle::other_key()));
    must_trust(&scene, std::slice::from_ref(&old), &[], "install");

    let endorsed = install(&scene, "200-b", &scene.bundle_signed(&bundle::other_key(), &both()));
    scene.must_work(&endorsed, "endorsed");
    assert_eq!(endorsed.changes, 0);
    let mut trusted = [old.clone(), new.clone()];
    trusted.sort();
    must_trust(&scene, &trusted, &[], "endorsed");
    let mut offer = both();
    offer.keys.remove(0);
    offer.keys[0].endorsement = None;
    offer.revoked.insert(old.clone());
    let revoking = install(&scene, "300-c", &scene.bundle_signed(&bundle::other_key(), &offer));
    scene.must_work(&revoking, "revoked, and the new key is trusted without the old one");
    assert_eq!(revoking.changes, 0);
    must_trust(&scene, &[new], &[old], "revoked");
    must_refuse_the_old_key(&scene, "400-d", "the next run");

    let runs = scene.journal(&"cp-1".parse().unwrap()).1.runs.len();
    offer.revoked.clear();
    let again = install(&scene, "500-e", &scene.bundle_signed(&bundle::other_key(), &offer));
    scene.must_work(&again, "nothing new");
    assert_eq!(
        scene.journal(&"cp-1".parse().unwrap()).1.runs.len(),
        runs,
        "a run that learns nothing leaves no record"
    );
}

#[test]
fn a_rollback_gives_no_trust_back_to_a_revoked_key() {
    let mut scene = Scene::new(1, 0);
    scene.must_work(&scene.install("100-a"), "install");
    let (old, new) = (id(&bundle::key()), id(&bundle::other_key()));
    scene.set("upstreamDns: [10.20.9.9]\n");
    let mut offer = both();
    let endorsed = install(&scene, "200-b", &scene.bundle_signed(&bundle::other_key(), &offer));
    scene.must_work(&endorsed, "endorsed");
    scene.set("upstreamDns: [10.20.9.10]\n");
    offer.revoked.insert(old.clone());
    let revoking = install(&scene, "300-c", &scene.bundle_signed(&bundle::other_key(), &offer));
    scene.must_work(&revoking, "revoked");
    assert!(revoking.changes > 0, "there is something to roll back");
    must_trust(
        &scene,
        std::slice::from_ref(&new),
        std::slice::from_ref(&old),
        "revoked",
    );

    scene.must_work(&scene.undo("400-d", UndoCommand::Rollback), "rollback");
    must_trust(&scene, &[new], &[old], "rollback");
    must_refuse_the_old_key(&scene, "500-e", "after the rollback");
}

/// A third key, which the second has signed.
fn third() -> (SecretKey, OfferedKey) {
    let new = bundle::third_key();
    let key = new.public().to_text();
    let endorsement = Some(bundle::other_key().sign(key.as_bytes(), "a key for bundles").to_text());
    (new, OfferedKey { key, endorsement })
}

/// Changes the cluster's key twice while the worker is away.
fn changed_while_the_worker_was_away() -> (Scene, NodeName) {
    let scene = Scene::new(1, 1);
    let away: NodeName = "w-1".parse().unwrap();
    scene.must_work(&scene.install("100-a"), "install");
    scene.fleet.set_unreachable(&away, true);
    let without = |outcome: Outcome, case: &str| {
        assert!(outcome.errors.is_empty(), "{case}: {:#?}", outcome.errors);
        assert_eq!(outcome.absent.len(), 1, "{case}");
    };
    without(
        install(&scene, "200-b", &scene.bundle_signed(&bundle::other_key(), &both())),
        "the second key",
    );
    let (new, offered) = third();
    let mut offer = both();
    offer.keys.push(offered);
    without(
        install(&scene, "300-c", &scene.bundle_signed(&new, &offer)),
        "the third key",
    );
    scene.fleet.set_unreachable(&away, false);
    (scene, away)
}

/// An operator who trusts the third key, and has no signature of it.
fn third_alone() -> TrustOffer {
    let mut offer = bundle::trusted();
    let endorsement = None;
    offer.keys = vec![OfferedKey {
        endorsement,
        ..third().1
    }];
    offer
}

#[test]
fn a_member_that_was_away_takes_the_new_key_by_the_signatures_in_the_record() {
    let (scene, away) = changed_while_the_worker_was_away();
    let old = scene.journal(&away).1.record().and_then(|record| record.trust.clone());
    assert!(old.unwrap().keys.keys().eq([&id(&bundle::key())]));
    let back = install(&scene, "400-d", &scene.bundle_signed(&third().0, &third_alone()));
    scene.must_work(&back, "the worker is back");
    let mut trusted = [bundle::key(), bundle::other_key(), third().0].map(|key| id(&key));
    trusted.sort();
    must_trust(&scene, &trusted, &[], "the worker is back");
}

#[test]
fn a_revoked_key_leads_a_member_that_was_away_nowhere() {
    let (scene, away) = changed_while_the_worker_was_away();
    let mut offer = third_alone();
    offer.revoked.insert(id(&bundle::other_key()));
    let refused = install(&scene, "400-d", &scene.bundle_signed(&third().0, &offer));
    let codes: Vec<_> = refused.errors.iter().map(|d| (d.code, d.node.clone())).collect();
    assert_eq!(
        codes,
        [(Code::BundleSignature, Some(away.clone()))],
        "{:#?}",
        refused.errors
    );
    assert_eq!(refused.changes, 0);
    offer.new_keys = NewKeys::Force;
    let forced = install(&scene, "500-e", &scene.bundle_signed(&third().0, &offer));
    scene.must_work(&forced, "forced");
    let mut trusted = [bundle::key(), third().0].map(|key| id(&key));
    trusted.sort();
    must_trust(&scene, &trusted, &[id(&bundle::other_key())], "forced");
}
