//! The keys that may sign a bundle for a cluster: those that an operator trusts, and those in the cluster's record. The `bundle` crate checks
//! signatures.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

/// Id of a key, as minisign prints it: 16 upper-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId(String);

/// The text is no id of a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no id of a key: 16 hexadecimal digits")]
pub struct KeyIdError(String);

impl KeyId {
    /// Makes an id of the number that it is in key files.
    pub fn from_number(number: u64) -> Self {
        Self(format!("{number:016X}"))
    }
}

impl FromStr for KeyId {
    type Err = KeyIdError;
    fn from_str(text: &str) -> Result<Self, KeyIdError> {
        if text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(Self(text.to_ascii_uppercase()));
        }
        Err(KeyIdError(text.to_owned()))
    }
}
impl TryFrom<String> for KeyId {
    type Error = KeyIdError;
    fn try_from(text: String) -> Result<Self, KeyIdError> {
        text.parse()
    }
}
impl From<KeyId> for String {
    fn from(id: KeyId) -> String {
        id.0
    }
}
impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a bundle without a signature of a trusted key may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unsigned {
    /// It is refused.
    #[default]
    Refuse,
    /// It is used, with a warning. A signature that is wrong, or of a revoked key, is refused still.
    Allow,
}

/// Whether a cluster takes a key that none of its own keys has signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NewKeys {
    /// One of the cluster's keys must have signed the new one.
    #[default]
    SignedByOld,
    /// The operator confirms that the key that signed this bundle is trusted.
    Force,
}

/// A key that the operator trusts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct OfferedKey {
    /// Its file, in minisign's form for public keys.
    pub key: String,
    /// A signature of that file by another key, in minisign's form, when there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endorsement: Option<String>,
}

/// What an operator trusts. Nothing of it is secret.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TrustOffer {
    /// The keys.
    pub keys: Vec<OfferedKey>,
    /// Revoked keys.
    pub revoked: BTreeSet<KeyId>,
    /// Bundles without a signature.
    pub unsigned: Unsigned,
    /// Keys that are new to a cluster.
    pub new_keys: NewKeys,
    /// What the cluster's record knows of keys that others have signed. None of them is trusted for being here: a member that was away while keys changed
    /// takes those that a key of its own record has signed, and those that these have signed in turn.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<OfferedKey>,
}

impl TrustOffer {
    /// Returns the offer with what a cluster has learned of keys, for members that may have been away meanwhile.
    pub fn with_chain_of(&self, cluster: Option<&ClusterTrust>) -> Self {
        let mut offer = self.clone();
        if let Some(cluster) = cluster {
            let link = |(id, endorsement): (&KeyId, &Endorsement)| {
                Some(OfferedKey {
                    key: cluster.keys.get(id)?.clone(),
                    endorsement: Some(endorsement.signature.clone()),
                })
            };
            offer.chain.extend(cluster.endorsements.iter().filter_map(link));
            offer.revoked.extend(cluster.revoked.iter().cloned());
        }
        offer
    }
}

/// How a key came to be trusted: another one has signed its file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endorsement {
    /// The key that has signed.
    pub by: KeyId,
    /// The signature, in minisign's form.
    pub signature: String,
}

/// What a cluster trusts, in its record. From its founding by a signed bundle on, this decides.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClusterTrust {
    /// Files of keys, in minisign's form, by their id.
    pub keys: BTreeMap<KeyId, String>,
    /// The signatures of keys by other keys of the cluster, by the id of the key that was signed.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub endorsements: BTreeMap<KeyId, Endorsement>,
    /// Revoked keys.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub revoked: BTreeSet<KeyId>,
}

impl ClusterTrust {
    /// Returns what a cluster trusts once a run is undone that began at `earlier`, where `self` is what it trusts now. What was learned about keys
    /// is not undone: a revoked key stays revoked, and the key that took its place is trusted still, for without it no bundle could be installed any
    /// more.
    pub fn after_undo_to(&self, earlier: Option<&Self>) -> Self {
        let mut after = earlier.cloned().unwrap_or_default();
        after.keys.extend(self.keys.clone());
        after.endorsements.extend(self.endorsements.clone());
        after.revoke(self.revoked.iter().cloned());
        after
    }

    /// Revokes keys. They are trusted no more, and what they have signed tells nobody anything any more; keys that were taken by it stay.
    pub fn revoke(&mut self, revoked: impl IntoIterator<Item = KeyId>) {
        self.revoked.extend(revoked);
        let (keys, gone) = (&mut self.keys, &self.revoked);
        keys.retain(|id, _| !gone.contains(id));
        self.endorsements
            .retain(|id, endorsement| keys.contains_key(id) && !gone.contains(&endorsement.by));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trust(keys: &[u64], revoked: &[u64]) -> ClusterTrust {
        let id = |number: &u64| KeyId::from_number(*number);
        ClusterTrust {
            keys: keys.iter().map(|n| (id(n), format!("key {n}"))).collect(),
            revoked: revoked.iter().map(id).collect(),
            ..ClusterTrust::default()
        }
    }

    #[test]
    fn a_signature_by_a_revoked_key_goes_and_the_key_that_it_brought_stays() {
        let id = KeyId::from_number;
        let by = |number| Endorsement {
            by: id(number),
            signature: format!("by {number}"),
        };
        let mut now = trust(&[1, 2, 3], &[]);
        now.endorsements = [(id(2), by(1)), (id(3), by(2))].into();
        let offer = TrustOffer::default().with_chain_of(Some(&now));
        let chain: Vec<_> = offer
            .chain
            .iter()
            .map(|link| (&*link.key, link.endorsement.as_deref()))
            .collect();
        assert_eq!(chain, [("key 2", Some("by 1")), ("key 3", Some("by 2"))]);
        assert_eq!(offer.keys, [], "none is trusted for being in the chain");
        now.revoke([id(1)]);
        assert_eq!(now.keys.keys().collect::<Vec<_>>(), [&id(2), &id(3)]);
        assert_eq!(now.endorsements, [(id(3), by(2))].into());
        assert_eq!(now.after_undo_to(None), now);
        let offer = TrustOffer::default().with_chain_of(Some(&now));
        assert_eq!(
            offer.revoked,
            [id(1)].into(),
            "a member that was away learns what was revoked"
        );
        now.revoke([id(3)]);
        assert_eq!(now.endorsements, [].into());
    }

    #[test]
    fn an_undo_gives_no_trust_back_to_a_revoked_key_and_takes_none_from_its_successor() {
        let now = trust(&[2], &[1]);
        assert_eq!(now.after_undo_to(Some(&trust(&[1], &[]))), now);
        assert_eq!(now.after_undo_to(None), now);
        let earlier = trust(&[1, 2, 3], &[4]);
        assert_eq!(now.after_undo_to(Some(&earlier)), trust(&[2, 3], &[1, 4]));
    }

    #[test]
    fn an_id_is_16_hexadecimal_digits() {
        let id: KeyId = "e7620f1842b4e81f".parse().unwrap();
        assert_eq!(id.to_string(), "E7620F1842B4E81F");
        assert_eq!(id, KeyId::from_number(0xE762_0F18_42B4_E81F));
        for wrong in ["", "E7620F1842B4E81", "E7620F1842B4E81G", "+7620F1842B4E81F"] {
            assert!(wrong.parse::<KeyId>().is_err(), "{wrong}");
        }
    }
}
