//! Decides whether a bundle is signed by a key that counts: the operator's before any connection, the cluster's own from its founding on.

use crate::minisign::{MinisignError, PublicKey, Signature};
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::trust::{ClusterTrust, Endorsement, KeyId, NewKeys, OfferedKey, TrustOffer, Unsigned};
use std::collections::BTreeMap;

/// Why a bundle is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// There is no signature.
    #[error("the bundle is not signed")]
    NotSigned,
    /// A key or signature has not minisign's form.
    #[error("{what} cannot be read")]
    Unreadable {
        /// What.
        what: String,
        /// Why.
        #[source]
        source: MinisignError,
    },
    /// The signature does not fit the index.
    #[error("the signature of bundle.json by the key {0} does not fit")]
    Wrong(KeyId),
    /// Nobody trusts the key.
    #[error("the bundle is signed by the key {0}, which is not trusted")]
    Unknown(KeyId),
    /// The operator trusts the key, and the cluster does not.
    #[error(
        "the bundle is signed by the key {key}, which the cluster does not trust; it trusts {}",
        list(cluster)
    )]
    NotOfCluster {
        /// The key.
        key: KeyId,
        /// The cluster's keys.
        cluster: Vec<KeyId>,
    },
    /// The key is revoked.
    #[error("the bundle is signed by the key {0}, which is revoked")]
    Revoked(KeyId),
}

fn list(keys: &[KeyId]) -> String {
    let texts: Vec<String> = keys.iter().map(ToString::to_string).collect();
    if texts.is_empty() {
        "none".to_owned()
    } else {
        texts.join(", ")
    }
}

impl From<TrustError> for Diagnosis {
    fn from(error: TrustError) -> Self {
        let diagnosis = Self::new(Code::BundleSignature, "the bundle is not trusted").because(&error);
        match error {
            TrustError::NotSigned => diagnosis
                .next("sign it with `landfall bundle sign FILE` where it was built")
                .next("or give --allow-unsigned: then nothing protects against a forged bundle"),
            TrustError::Wrong(_) => diagnosis.next("copy the bundle again from where it was built"),
            TrustError::Unreadable { .. } => {
                diagnosis.next("look at what is named; `landfall bundle keygen` makes keys")
            }
            TrustError::Unknown(_) => diagnosis,
            TrustError::NotOfCluster { key, .. } => diagnosis
                .next(format!(
                    "sign the file of {key} by a key of the cluster: `landfall bundle sign FILE.pub --key OLD`"
                ))
                .next("or give --force-new-key, when the old keys are lost"),
            TrustError::Revoked(_) => diagnosis.next("build the bundle again, and sign it with another key"),
        }
    }
}

/// What is known of a bundle that is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judged {
    /// The key that signed it; `None` when the operator lets an unsigned one pass.
    pub signer: Option<KeyId>,
    /// What the cluster trusts from now on. `None` while it never saw a signed bundle.
    pub trust: Option<ClusterTrust>,
}

fn unreadable(what: impl Into<String>) -> impl FnOnce(MinisignError) -> TrustError {
    let what = what.into();
    move |source| TrustError::Unreadable { what, source }
}

fn read(offered: &OfferedKey) -> Result<PublicKey, TrustError> {
    PublicKey::parse(&offered.key).map_err(unreadable("a trusted key"))
}

/// Decides by what the operator offers and, once there is one, by what the cluster trusts. `index` are the index's own bytes.
pub fn judge(
    offer: &TrustOffer,
    recorded: Option<&ClusterTrust>,
    index: &[u8],
    signature: Option<&str>,
) -> Result<Judged, TrustError> {
    let offered = offer
        .keys
        .iter()
        .map(|offered| Ok((read(offered)?.id(), offered)))
        .collect::<Result<BTreeMap<KeyId, &OfferedKey>, TrustError>>()?;
    let of_operator = || ClusterTrust {
        keys: offered.iter().map(|(id, o)| (id.clone(), o.key.clone())).collect(),
        ..ClusterTrust::default()
    };
    let mut trust = recorded.cloned().unwrap_or_else(of_operator);
    trust.revoke(offer.revoked.iter().cloned());
    follow(&mut trust, &links(offer)?)?;
    let unsigned = |error: TrustError, trust: ClusterTrust| match offer.unsigned {
        Unsigned::Allow => Ok(Judged {
            signer: None,
            trust: recorded.map(|_| trust),
        }),
        Unsigned::Refuse => Err(error),
    };
    let Some(text) = signature else {
        return unsigned(TrustError::NotSigned, trust);
    };
    let read_signature = Signature::parse(text).map_err(unreadable("the signature of bundle.json"))?;
    let id = read_signature.key_id();
    if trust.revoked.contains(&id) {
        return Err(TrustError::Revoked(id));
    }
    if let (NewKeys::Force, Some(new)) = (offer.new_keys, offered.get(&id)) {
        trust.keys.entry(id.clone()).or_insert_with(|| new.key.clone());
    }
    let Some(key) = trust.keys.get(&id) else {
        let cluster: Vec<KeyId> = trust.keys.keys().cloned().collect();
        let error = if offered.contains_key(&id) {
            TrustError::NotOfCluster { key: id, cluster }
        } else {
            TrustError::Unknown(id)
        };
        return unsigned(error, trust);
    };
    let key = PublicKey::parse(key).map_err(unreadable("a key in the cluster's record"))?;
    key.verify(index, &read_signature)
        .map_err(|_| TrustError::Wrong(id.clone()))?;
    Ok(Judged {
        signer: Some(id),
        trust: Some(trust),
    })
}

/// A key and a signature of its file.
struct Link<'a> {
    id: KeyId,
    key: PublicKey,
    file: &'a str,
    text: &'a str,
    endorsement: Signature,
}

/// Reads what is offered of keys that others have signed.
fn links(offer: &TrustOffer) -> Result<Vec<Link<'_>>, TrustError> {
    let mut links = Vec::new();
    for offered in offer.keys.iter().chain(&offer.chain) {
        let Some(text) = &offered.endorsement else { continue };
        let key = read(offered)?;
        let id = key.id();
        let endorsement = Signature::parse(text).map_err(unreadable(format!("the signature of the key {id}")))?;
        links.push(Link {
            id,
            key,
            file: &offered.key,
            text,
            endorsement,
        });
    }
    Ok(links)
}

/// Takes the keys that a trusted one has signed, those that these have signed in turn, and so on; and notes by which signature. A revoked key is no link.
fn follow(trust: &mut ClusterTrust, links: &[Link]) -> Result<(), TrustError> {
    let mut before = None;
    while before != Some(trust.endorsements.len()) {
        before = Some(trust.endorsements.len());
        for link in links {
            if leads_on(trust, link)? {
                let endorsement = Endorsement {
                    by: link.endorsement.key_id(),
                    signature: link.text.to_owned(),
                };
                trust.keys.insert(link.id.clone(), link.file.to_owned());
                trust.endorsements.insert(link.id.clone(), endorsement);
            }
        }
    }
    Ok(())
}

/// Says whether a trusted key has signed this one, and that is not noted yet. Ids are no proof: a key that is trusted already stays what it is.
fn leads_on(trust: &ClusterTrust, link: &Link) -> Result<bool, TrustError> {
    let read = |text: &String| PublicKey::parse(text).map_err(unreadable("a key in the cluster's record"));
    let by = link.endorsement.key_id();
    let Some(signer) = trust.keys.get(&by) else {
        return Ok(false);
    };
    if by == link.id || trust.revoked.contains(&link.id) || trust.endorsements.contains_key(&link.id) {
        return Ok(false);
    }
    let known = trust.keys.get(&link.id).map(read).transpose()?;
    let is_other = known.is_some_and(|known| known != link.key);
    Ok(!is_other && read(signer)?.verify(link.file.as_bytes(), &link.endorsement).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::minisign::SecretKey;
    use zeroize::Zeroizing;

    const INDEX: &[u8] = b"an index";

    fn key(number: u8) -> SecretKey {
        SecretKey::from_random(&Zeroizing::new([number; 40]))
    }

    fn id(number: u8) -> KeyId {
        key(number).public().id()
    }

    fn offer(numbers: &[u8]) -> TrustOffer {
        let offered = |number: &u8| OfferedKey {
            key: key(*number).public().to_text(),
            endorsement: None,
        };
        TrustOffer {
            keys: numbers.iter().map(offered).collect(),
            ..TrustOffer::default()
        }
    }

    fn signed(number: u8) -> String {
        key(number).sign(INDEX, "x").to_text()
    }

    fn cluster(numbers: &[u8]) -> ClusterTrust {
        let keys = numbers.iter().map(|n| (id(*n), key(*n).public().to_text())).collect();
        ClusterTrust {
            keys,
            ..ClusterTrust::default()
        }
    }

    #[test]
    fn the_operators_keys_decide_until_a_cluster_has_its_own() {
        let judged = judge(&offer(&[1, 2]), None, INDEX, Some(&signed(2))).unwrap();
        assert_eq!(judged.signer, Some(id(2)));
        assert_eq!(judged.trust, Some(cluster(&[1, 2])));
        let unknown = judge(&offer(&[1]), None, INDEX, Some(&signed(2)));
        assert_eq!(unknown, Err(TrustError::Unknown(id(2))));
        let other = judge(&offer(&[1]), None, b"another index", Some(&signed(1)));
        assert_eq!(other, Err(TrustError::Wrong(id(1))));
    }

    #[test]
    fn an_unsigned_bundle_passes_by_name_alone_and_founds_no_trust() {
        let mut offer = offer(&[1]);
        assert_eq!(judge(&offer, None, INDEX, None), Err(TrustError::NotSigned));
        offer.unsigned = Unsigned::Allow;
        let nothing = Judged {
            signer: None,
            trust: None,
        };
        assert_eq!(judge(&offer, None, INDEX, None), Ok(nothing.clone()));
        assert_eq!(judge(&offer, None, INDEX, Some(&signed(2))), Ok(nothing));
        let wrong = judge(&offer, None, b"another index", Some(&signed(1)));
        assert_eq!(wrong, Err(TrustError::Wrong(id(1))), "a wrong signature never passes");
        let kept = judge(&offer, Some(&cluster(&[2])), INDEX, None).unwrap();
        assert_eq!(kept.trust, Some(cluster(&[2])));
    }

    #[test]
    fn a_new_key_is_signed_by_an_old_one_or_forced() {
        let (ours, mut offer) = (cluster(&[1]), offer(&[2]));
        let refused = judge(&offer, Some(&ours), INDEX, Some(&signed(2)));
        let not_of_cluster = TrustError::NotOfCluster {
            key: id(2),
            cluster: vec![id(1)],
        };
        assert_eq!(refused, Err(not_of_cluster.clone()));
        offer.keys[0].endorsement = Some(key(3).sign(offer.keys[0].key.as_bytes(), "x").to_text());
        let by_stranger = judge(&offer, Some(&ours), INDEX, Some(&signed(2)));
        assert_eq!(by_stranger, Err(not_of_cluster));
        offer.keys[0].endorsement = Some(key(1).sign(offer.keys[0].key.as_bytes(), "x").to_text());
        let taken = judge(&offer, Some(&ours), INDEX, Some(&signed(2))).unwrap();
        assert_eq!(
            taken.trust,
            Some(rotated(&[1, 2])),
            "with the signature by which it was taken"
        );
        offer.keys[0].endorsement = None;
        offer.new_keys = NewKeys::Force;
        let forced = judge(&offer, Some(&ours), INDEX, Some(&signed(2))).unwrap();
        assert_eq!(forced.trust, Some(cluster(&[1, 2])));
        let stranger = judge(&offer, Some(&ours), INDEX, Some(&signed(3)));
        assert_eq!(
            stranger,
            Err(TrustError::Unknown(id(3))),
            "force takes only what the operator trusts"
        );
    }

    /// A cluster that took each of these keys, but the first, by a signature of the one before.
    fn rotated(numbers: &[u8]) -> ClusterTrust {
        let mut trust = cluster(numbers);
        for pair in numbers.windows(2) {
            let signature = key(pair[0]).sign(trust.keys[&id(pair[1])].as_bytes(), "x").to_text();
            let by = id(pair[0]);
            trust.endorsements.insert(id(pair[1]), Endorsement { by, signature });
        }
        trust
    }

    /// The operator has the newest key alone, the cluster's record the signatures; the member knows the first key.
    #[test]
    fn a_member_that_was_away_follows_the_signatures_from_the_key_that_it_knows() {
        let (away, now) = (cluster(&[1]), rotated(&[1, 2, 3, 4]));
        let alone = judge(&offer(&[4]), Some(&away), INDEX, Some(&signed(4)));
        let refused = TrustError::NotOfCluster {
            key: id(4),
            cluster: vec![id(1)],
        };
        assert_eq!(alone, Err(refused), "without the signatures");
        let carried = offer(&[4]).with_chain_of(Some(&now));
        let judged = judge(&carried, Some(&away), INDEX, Some(&signed(4))).unwrap();
        assert_eq!((judged.signer, judged.trust), (Some(id(4)), Some(now.clone())));
        for missing in [2, 3, 4] {
            let mut broken = now.clone();
            broken.endorsements.remove(&id(missing));
            let broken = offer(&[4]).with_chain_of(Some(&broken));
            let judged = judge(&broken, Some(&away), INDEX, Some(&signed(4)));
            assert!(
                matches!(judged, Err(TrustError::NotOfCluster { .. })),
                "{missing}: {judged:?}"
            );
        }
        let stranger = judge(&carried, Some(&cluster(&[9])), INDEX, Some(&signed(4)));
        assert!(matches!(stranger, Err(TrustError::NotOfCluster { .. })), "{stranger:?}");
        // The keys may as well be in the operator's own folder.
        let mut own = offer(&[]);
        own.keys = carried.chain;
        assert_eq!(
            judge(&own, Some(&away), INDEX, Some(&signed(4))).unwrap().trust,
            Some(now)
        );
    }

    #[test]
    fn a_signature_that_does_not_fit_is_no_link() {
        let away = cluster(&[1]);
        let mut carried = offer(&[3]).with_chain_of(Some(&rotated(&[1, 2, 3])));
        for link in &mut carried.chain {
            if link.key == key(2).public().to_text() {
                link.endorsement = Some(key(1).sign(b"another file", "x").to_text());
            }
        }
        let judged = judge(&carried, Some(&away), INDEX, Some(&signed(3)));
        assert!(matches!(judged, Err(TrustError::NotOfCluster { .. })), "{judged:?}");
        carried.chain[0].endorsement = Some("no signature".to_owned());
        let judged = judge(&carried, Some(&away), INDEX, Some(&signed(3)));
        assert!(matches!(judged, Err(TrustError::Unreadable { .. })), "{judged:?}");
    }

    /// What a revoked key has signed may be its thief's.
    #[test]
    fn a_revoked_key_in_the_chain_leads_nowhere() {
        for revoked in [1, 2] {
            let mut carried = offer(&[3]).with_chain_of(Some(&rotated(&[1, 2, 3])));
            carried.revoked.insert(id(revoked));
            let judged = judge(&carried, Some(&cluster(&[1])), INDEX, Some(&signed(3)));
            assert!(
                matches!(judged, Err(TrustError::NotOfCluster { .. })),
                "{revoked}: {judged:?}"
            );
            let mut away = cluster(&[1]);
            away.revoke([id(revoked)]);
            carried.revoked.clear();
            let judged = judge(&carried, Some(&away), INDEX, Some(&signed(3)));
            assert!(
                matches!(judged, Err(TrustError::NotOfCluster { .. })),
                "{revoked}: {judged:?}"
            );
        }
        let mut now = rotated(&[1, 2, 3]);
        now.revoke([id(2)]);
        let judged = judge(&offer(&[3]), Some(&now), INDEX, Some(&signed(3)))
            .unwrap()
            .trust
            .unwrap();
        assert_eq!(judged, now, "who took the key before the signer was revoked keeps it");
        let none = judge(
            &offer(&[3]).with_chain_of(Some(&now)),
            Some(&cluster(&[1])),
            INDEX,
            Some(&signed(3)),
        );
        assert!(matches!(none, Err(TrustError::NotOfCluster { .. })), "{none:?}");
    }

    /// Records of earlier versions hold no signatures: they are learned while the operator has them.
    #[test]
    fn a_record_without_signatures_learns_them() {
        let mut offer = offer(&[2]);
        offer.keys[0].endorsement = Some(key(1).sign(offer.keys[0].key.as_bytes(), "x").to_text());
        let judged = judge(&offer, Some(&cluster(&[1, 2])), INDEX, Some(&signed(2))).unwrap();
        assert_eq!(judged.trust, Some(rotated(&[1, 2])));
        let again = judge(&offer, judged.trust.as_ref(), INDEX, Some(&signed(2))).unwrap();
        assert_eq!(again.trust, judged.trust);
    }

    #[test]
    fn a_revoked_key_is_good_for_nothing_and_stays_revoked() {
        let mut offer = offer(&[1, 2]);
        offer.revoked.insert(id(1));
        offer.unsigned = Unsigned::Allow;
        offer.new_keys = NewKeys::Force;
        let revoked = judge(&offer, None, INDEX, Some(&signed(1)));
        assert_eq!(revoked, Err(TrustError::Revoked(id(1))));
        offer.keys[1].endorsement = Some(key(1).sign(offer.keys[1].key.as_bytes(), "x").to_text());
        offer.new_keys = NewKeys::SignedByOld;
        offer.unsigned = Unsigned::Refuse;
        let by_revoked = judge(&offer, Some(&cluster(&[1])), INDEX, Some(&signed(2)));
        assert!(
            matches!(by_revoked, Err(TrustError::NotOfCluster { .. })),
            "{by_revoked:?}"
        );
        let judged = judge(&offer, Some(&cluster(&[1, 2])), INDEX, Some(&signed(2)))
            .unwrap()
            .trust
            .unwrap();
        assert_eq!(judged.keys.into_keys().collect::<Vec<_>>(), [id(2)]);
        assert!(judged.revoked.contains(&id(1)));
    }
}
