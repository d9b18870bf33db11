//! Clients that tell what they were shown, and the objects of a small cluster.

use super::pki::{Authority, Pair};
use k8s_openapi::api::core::v1::Secret;
use landfall_ingress_tls::provider::provider;
use landfall_ingress_translate::object::Ingress;
use landfall_ingress_translate::options::{CONTROLLER, Options as RouteOptions};
use landfall_ingress_translate::remark::Reason;
use landfall_ingress_translate::route::{Builder, Class, Objects, Snapshot};
use landfall_ingress_translate::secrets::{Found, Material, Name, View};
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, ProtocolVersion, RootCertStore, SupportedProtocolVersion};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A class of ours.
pub fn class() -> Class {
    serde_json::from_value(json!({ "metadata": { "name": "landfall" }, "spec": { "controller": CONTROLLER } })).unwrap()
}

/// An Ingress of one host with one `tls` item; `created` orders it among others.
pub fn ingress(namespace: &str, name: &str, created: u32, hosts: &[&str], tls: Value) -> Arc<Ingress> {
    let rules: Vec<Value> = hosts.iter().map(|host| rule(host, name)).collect();
    let object = json!({
        "metadata": { "namespace": namespace, "name": name, "creationTimestamp": format!("2026-01-01T00:00:{created:02}Z") },
        "spec": { "ingressClassName": "landfall", "tls": tls, "rules": rules } });
    Arc::new(serde_json::from_value(object).unwrap())
}

fn rule(host: &str, service: &str) -> Value {
    let backend = json!({ "service": { "name": service, "port": { "number": 80 } } });
    json!({ "host": host, "http": { "paths": [{ "path": "/", "pathType": "Prefix", "backend": backend }] } })
}

/// The view that following these Secrets would give.
pub fn view(secrets: Vec<Secret>) -> View {
    let found = secrets.into_iter().map(|secret| {
        let meta = &secret.metadata;
        let name = Name::new(meta.namespace.as_deref().unwrap(), meta.name.as_deref().unwrap()).unwrap();
        (name, Found::Here(Arc::new(Material::from(secret))))
    });
    View::new(found.collect::<BTreeMap<_, _>>())
}

/// The snapshot of these Ingresses when these Secrets are there.
pub fn snapshot(ingresses: Vec<Arc<Ingress>>, secrets: Vec<Secret>) -> Snapshot {
    snapshot_of(ingresses, &view(secrets), None)
}

pub fn snapshot_of(ingresses: Vec<Arc<Ingress>>, secrets: &View, default: Option<&Name>) -> Snapshot {
    let objects = Objects {
        ingresses,
        classes: vec![Arc::new(class())],
        ..Objects::default()
    };
    let mut builder = Builder::new(RouteOptions::default()).with_default_certificate(default.cloned());
    builder.build(&objects, secrets)
}

/// Remarks that are about certificates, as text.
pub fn remarks(snapshot: &Snapshot) -> Vec<String> {
    let remarks = snapshot.remarks().into_iter();
    let about = remarks.filter(|remark| remark.reason == Reason::Certificate);
    about.map(|remark| remark.to_string()).collect()
}

/// A client that trusts one authority.
#[derive(Clone)]
pub struct Client {
    config: ClientConfig,
}

/// What a handshake showed.
#[derive(Debug)]
pub struct Shown {
    pub certificate: Vec<u8>,
    pub kind: HandshakeKind,
    pub version: ProtocolVersion,
    pub alpn: Option<Vec<u8>>,
    pub stream: TlsStream<TcpStream>,
}

impl Client {
    pub fn trusting(authority: &Authority) -> Self {
        Self::speaking(authority, rustls::ALL_VERSIONS, None)
    }

    pub fn speaking(authority: &Authority, versions: &[&'static SupportedProtocolVersion], own: Option<&Pair>) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(authority.der.clone())).unwrap();
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let config = match own {
            None => builder.with_no_client_auth(),
            Some(pair) => builder.with_client_auth_cert(vec![pair.der()], pair.key()).unwrap(),
        };
        Self { config }
    }

    pub fn with_certificate(authority: &Authority, own: &Pair) -> Self {
        Self::speaking(authority, rustls::ALL_VERSIONS, Some(own))
    }

    /// Takes any certificate, so that the test can look at it.
    pub fn trusting_all() -> Self {
        let config = landfall_ingress_tls::client::config(
            &landfall_ingress_tls::client::ClientSettings::default(),
            landfall_ingress_tls::client::Alpn::Http1,
        );
        Self {
            config: (*config).clone(),
        }
    }

    pub fn offering(mut self, alpn: &[&str]) -> Self {
        self.config.alpn_protocols = alpn.iter().map(|a| a.as_bytes().to_vec()).collect();
        self
    }

    /// Resumes no session: each handshake shows the certificate of its time.
    pub fn forgetful(mut self) -> Self {
        self.config.resumption = Resumption::disabled();
        self
    }

    /// Sends no server name.
    pub fn nameless(mut self) -> Self {
        self.config.enable_sni = false;
        self
    }

    pub async fn connect(&self, address: SocketAddr, name: &str) -> io::Result<Shown> {
        let stream = TcpStream::connect(address).await?;
        let connector = TlsConnector::from(Arc::new(self.config.clone()));
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let stream = connector.connect(name, stream).await?;
        let connection = stream.get_ref().1;
        Ok(Shown {
            certificate: connection.peer_certificates().unwrap()[0].to_vec(),
            kind: connection.handshake_kind().unwrap(),
            version: connection.protocol_version().unwrap(),
            alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
            stream,
        })
    }
}

pub async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}
