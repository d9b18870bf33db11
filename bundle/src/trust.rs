//! Decides whether a bundle is signed by a key that counts: the operator's before any connection, the cluster's own from its founding on.

use crate::minisign::{MinisignError, PublicKey, Signature};
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::trust::{ClusterTrust, KeyId, NewKeys, OfferedKey, TrustOffer, Unsigned};
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
    let mut revoked = offer.revoked.clone();
    revoked.extend(recorded.iter().flat_map(|r| r.revoked.iter().cloned()));
    let offered = offer
        .keys
        .iter()
        .map(|offered| Ok((read(offered)?.id(), offered)))
        .collect::<Result<BTreeMap<KeyId, &OfferedKey>, TrustError>>()?;
    let mut keys = match recorded {
        Some(recorded) => with_endorsed(recorded, &offered, &revoked)?,
        None => offered.iter().map(|(id, o)| (id.clone(), o.key.clone())).collect(),
    };
    let recorded_now = |keys: BTreeMap<KeyId, String>| {
        let keys = keys.into_iter().filter(|(id, _)| !revoked.contains(id)).collect();
        ClusterTrust {
            keys,
            revoked: revoked.clone(),
        }
    };
    let unsigned = |error: TrustError, keys: &BTreeMap<KeyId, String>| match offer.unsigned {
        Unsigned::Allow => Ok(Judged {
            signer: None,
            trust: recorded.map(|_| recorded_now(keys.clone())),
        }),
        Unsigned::Refuse => Err(error),
    };
    let Some(text) = signature else {
        return unsigned(TrustError::NotSigned, &keys);
    };
    let read_signature = Signature::parse(text).map_err(unreadable("the signature of bundle.json"))?;
    let id = read_signature.key_id();
    if revoked.contains(&id) {
        return Err(TrustError::Revoked(id));
    }
    if let (NewKeys::Force, Some(new)) = (offer.new_keys, offered.get(&id)) {
        keys.entry(id.clone()).or_insert_with(|| new.key.clone());
    }
    let Some(key) = keys.get(&id) else {
        let cluster: Vec<KeyId> = keys.keys().cloned().collect();
        let error = if offered.contains_key(&id) {
            TrustError::NotOfCluster { key: id, cluster }
        } else {
            TrustError::Unknown(id)
        };
        return unsigned(error, &keys);
    };
    let key = PublicKey::parse(key).map_err(unreadable("a key in the cluster's record"))?;
    key.verify(index, &read_signature)
        .map_err(|_| TrustError::Wrong(id.clone()))?;
    Ok(Judged {
        signer: Some(id),
        trust: Some(recorded_now(keys)),
    })
}

/// The cluster's keys, and those offered that one of them has signed. The file of the key is what is signed.
fn with_endorsed(
    recorded: &ClusterTrust,
    offered: &BTreeMap<KeyId, &OfferedKey>,
    revoked: &std::collections::BTreeSet<KeyId>,
) -> Result<BTreeMap<KeyId, String>, TrustError> {
    let mut keys = recorded.keys.clone();
    for (id, new) in offered {
        let Some(text) = new.endorsement.as_ref().filter(|_| !keys.contains_key(id)) else {
            continue;
        };
        let endorsement = Signature::parse(text).map_err(unreadable(format!("the signature of the key {id}")))?;
        let by = endorsement.key_id();
        let Some(old) = recorded.keys.get(&by).filter(|_| !revoked.contains(&by)) else {
            continue;
        };
        let old = PublicKey::parse(old).map_err(unreadable("a key in the cluster's record"))?;
        if old.verify(new.key.as_bytes(), &endorsement).is_ok() {
            keys.insert(id.clone(), new.key.clone());
        }
    }
    Ok(keys)
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
        assert_eq!(taken.trust, Some(cluster(&[1, 2])));
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
