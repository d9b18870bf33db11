//! The proxies of the benchmark, started with the same routes: ours, nginx, haproxy, and traefik where it is asked for.

use super::process::Tree;
use crate::FakeApi;
use crate::objects::{class, ingress, pem, service, slice, tls_secret};
use crate::peers::{Kind, Peer, Ports, Site, Task};
use crate::program::{Launch, Program};
use anyhow::Result;
use serde_json::json;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Programs that are compared.
pub(super) struct Programs {
    /// Ours.
    pub(super) ours: PathBuf,
    pub(super) peers: Vec<Kind>,
}

/// A proxy that is measured.
pub(super) enum Proxy {
    Ours(Box<Program>),
    Peer(Peer),
}

impl Proxy {
    pub(super) fn ports(&self) -> Ports {
        match self {
            // HTTP/1.1 and HTTP/2 by prior knowledge share a port.
            Self::Ours(program) => Ports {
                http: program.http(),
                http2: program.http(),
                https: program.https(),
            },
            Self::Peer(peer) => peer.ports,
        }
    }

    pub(super) fn tree(&self) -> Tree {
        match self {
            Self::Ours(program) => Tree::of(program.pid()),
            Self::Peer(peer) => Tree::of(peer.pid()),
        }
    }
}

/// Starts all with routes from these hosts to the backend; ours comes first.
pub(super) async fn start_all(
    programs: &Programs,
    hosts: &[String],
    backend: SocketAddr,
    identity: &Identity,
) -> Result<Vec<(&'static str, Proxy)>> {
    let api = FakeApi::start().await;
    api.put("ingressclasses", class());
    api.put("secrets", tls_secret("tls", &identity.certificate, &identity.key));
    for host in hosts {
        api.put("services", service(host));
        api.put("endpointslices", slice(&format!("{host}-0"), host, backend));
        let mut route = ingress(host, host, host);
        route["spec"]["tls"] = json!([{ "hosts": [host], "secretName": "tls" }]);
        // Plain requests are measured too.
        route["metadata"]["annotations"] = json!({ "ingress.landfall.dev/ssl-redirect": "false" });
        api.put("ingresses", route);
    }
    let ours = launch(&programs.ours).start(&api);
    ours.until_ready().await;
    let sites: Vec<_> = hosts
        .iter()
        .map(|host| Site {
            host: host.clone(),
            path: "/",
            backends: vec![backend],
        })
        .collect();
    let (certificate, key) = (
        pem("CERTIFICATE", &identity.certificate),
        pem("PRIVATE KEY", &identity.key),
    );
    let mut all = vec![("landfall", Proxy::Ours(Box::new(ours)))];
    let task = Task {
        core: Some(0),
        sites: &sites,
        certificate: (&certificate, &key),
    };
    for kind in &programs.peers {
        all.push((kind.name(), Proxy::Peer(Peer::start(kind, &task).await?)));
    }
    Ok(all)
}

/// One worker on core 0, with what a pod has on: metrics, timeouts.
pub(super) fn launch(program: &Path) -> Launch {
    Launch::new(program).on_core(0).argument("--workers=1")
}

/// A self-signed certificate with its ECDSA P-256 key, both in DER.
pub(super) struct Identity {
    pub(super) certificate: Vec<u8>,
    pub(super) key: Vec<u8>,
}

impl Identity {
    pub(super) fn new(hosts: &[String]) -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(hosts)?;
        Ok(Self {
            certificate: made.cert.der().to_vec(),
            key: made.signing_key.serialize_der(),
        })
    }

    /// A client that trusts only this certificate and resumes nothing.
    pub(super) fn client(&self) -> Result<Arc<rustls::ClientConfig>> {
        let mut provider = rustls::crypto::ring::default_provider();
        provider.kx_groups = vec![rustls::crypto::ring::kx_group::X25519];
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.clone().into())?;
        let builder = rustls::ClientConfig::builder_with_provider(Arc::new(provider));
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13])?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Arc::new(config))
    }
}
