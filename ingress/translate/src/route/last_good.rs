//! Good versions of Ingresses whose newest one is bad, in the form in which they travel to the next process.

use crate::object::Ingress;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::sync::Arc;

/// Goes up when the form changes; a state of another version is left out.
const VERSION: u32 = 1;

/// Good versions of Ingresses whose newest version is bad; all others can be read from the API again.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LastGood {
    /// Version of this form.
    version: u32,
    #[serde(serialize_with = "write", deserialize_with = "read")]
    ingresses: Vec<Arc<Ingress>>,
}

impl LastGood {
    /// These versions.
    pub(super) fn of(ingresses: Vec<Arc<Ingress>>) -> Self {
        Self {
            version: VERSION,
            ingresses,
        }
    }

    /// The versions; none when they are in a form of another process that is not ours.
    pub(super) fn into_versions(self) -> Vec<Arc<Ingress>> {
        if self.version == VERSION {
            self.ingresses
        } else {
            vec![]
        }
    }
}

fn write<S: Serializer>(ingresses: &[Arc<Ingress>], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(ingresses.iter().map(|ingress| &**ingress))
}

fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Arc<Ingress>>, D::Error> {
    let ingresses: Vec<Ingress> = Vec::deserialize(deserializer)?;
    Ok(ingresses.into_iter().map(Arc::new).collect())
}
