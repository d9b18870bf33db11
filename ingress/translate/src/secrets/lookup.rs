//! How the content of Secrets and ConfigMaps comes to who makes tables.

use super::{Absent, Material, Name};
use std::sync::Arc;

/// What a table needs of Secrets. An error says why the content is not there.
pub trait Secrets {
    /// The bytes of one key; `Ok(None)` when the Secret has no such key.
    fn value(&self, namespace: &str, name: &str, key: &str) -> Result<Option<Vec<u8>>, String>;
    /// All keys.
    fn keys(&self, namespace: &str, name: &str) -> Result<Vec<String>, String>;
    /// Keys and values of a ConfigMap.
    fn config(&self, _: &str, _: &str) -> Result<Vec<(String, Vec<u8>)>, String> {
        Err("was not read".to_owned())
    }
    /// A whole Secret, for its certificate; `None` where certificates are not looked at.
    fn material(&self, _: &Name) -> Option<Result<&Arc<Material>, Absent>> {
        None
    }
}

/// No Secret is there.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoSecrets;

impl Secrets for NoSecrets {
    fn value(&self, _: &str, _: &str, _: &str) -> Result<Option<Vec<u8>>, String> {
        Err("was not read".to_owned())
    }

    fn keys(&self, _: &str, _: &str) -> Result<Vec<String>, String> {
        Err("was not read".to_owned())
    }
}
