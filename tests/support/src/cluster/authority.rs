//! Certificate authorities: what a client checks an API server by, and the kubeconfigs that name them.

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use landfall_core::name::Digest;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::sync::Arc;

/// A certificate authority and what it vouches for.
#[derive(Debug)]
pub(super) struct Authority {
    /// Its certificate, as the file `ca.crt` holds it.
    pub(super) pem: String,
    /// What an administrator shows to the API server.
    pub(super) admin_token: String,
    server: Arc<ServerConfig>,
}

/// The form of a certificate in a file.
pub(crate) fn pem(der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = text
        .as_bytes()
        .chunks(64)
        .filter_map(|line| std::str::from_utf8(line).ok())
        .collect();
    format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        lines.join("\n")
    )
}

impl Authority {
    /// Makes one. `number` tells it from all others.
    pub(super) fn new(number: u64) -> Result<Self> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(DnType::CommonName, format!("kubernetes {number}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key)?;
        let issuer = Issuer::from_params(&params, &key);
        let leaf_key = KeyPair::generate()?;
        let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()])?.signed_by(&leaf_key, &issuer)?;
        let leaf_key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(leaf_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], leaf_key)
            .context("a certificate that was just made")?;
        let pem = pem(certificate.der());
        Ok(Self {
            admin_token: format!("admin-{}", Digest::of(pem.as_bytes()).hex()),
            pem,
            server: Arc::new(server),
        })
    }

    /// Returns the digest of the file `ca.crt`.
    pub(super) fn digest(&self) -> String {
        Digest::of(self.pem.as_bytes()).hex()
    }

    pub(super) fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.server)
    }

    /// A kubeconfig with this token.
    pub(super) fn kubeconfig(&self, user: &str, token: &str) -> String {
        let authority = STANDARD.encode(&self.pem);
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: kubernetes\n  cluster:\n    \
             certificate-authority-data: {authority}\n    server: https://127.0.0.1:7443\ncontexts:\n- name: context\n  \
             context:\n    cluster: kubernetes\n    user: {user}\ncurrent-context: context\nusers:\n- name: {user}\n  user:\n    \
             token: {token}\n"
        )
    }
}
