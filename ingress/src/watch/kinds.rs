//! The five kinds as they are read: only fields that are used are decoded, so that the bulk (managedFields, selectors, pod references)
//! never takes memory, not even while it is read.

use crate::object::{Addresses, Ingress, Meta, Spec, Words};
use crate::route::{Class, ClassSpec};
use crate::services::{Locality, SHARED_WITH, Service, ServicePort, Services, Slice, SliceEndpoint, SlicePort};
use k8s_openapi::Resource as Kind;
use k8s_openapi::api::core::v1::{Namespace as ApiNamespace, Service as ApiService};
use k8s_openapi::api::discovery::v1::EndpointSlice as ApiSlice;
use k8s_openapi::api::networking::v1::{Ingress as ApiIngress, IngressClass as ApiClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::ResourceExt;
use landfall_ingress_http::protocol::Protocol;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Label that joins slices to their Service.
pub const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// `metadata`, without what is never used.
fn metadata<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Read {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        creation_timestamp: Option<Time>,
        deletion_timestamp: Option<Time>,
        annotations: Option<BTreeMap<String, String>>,
        labels: Option<BTreeMap<String, String>>,
    }
    let read = Read::deserialize(deserializer)?;
    Ok(ObjectMeta {
        name: read.name,
        namespace: read.namespace,
        uid: read.uid,
        resource_version: read.resource_version,
        creation_timestamp: read.creation_timestamp,
        deletion_timestamp: read.deletion_timestamp,
        annotations: read.annotations,
        labels: read.labels,
        ..ObjectMeta::default()
    })
}

/// An object that `kube` can list and watch.
macro_rules! kind {
    ($name:ident, $api:ty) => {
        impl kube::Resource for $name {
            type DynamicType = ();
            type Scope = <$api as Kind>::Scope;

            fn kind((): &()) -> Cow<'_, str> {
                <$api as Kind>::KIND.into()
            }

            fn group((): &()) -> Cow<'_, str> {
                <$api as Kind>::GROUP.into()
            }

            fn version((): &()) -> Cow<'_, str> {
                <$api as Kind>::VERSION.into()
            }

            fn plural((): &()) -> Cow<'_, str> {
                <$api as Kind>::URL_PATH_SEGMENT.into()
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

/// An Ingress as read.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct IngressObject {
    #[serde(deserialize_with = "metadata")]
    metadata: ObjectMeta,
    spec: Option<Spec>,
    status: Option<ReadStatus>,
}
kind!(IngressObject, ApiIngress);

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReadStatus {
    load_balancer: Option<ReadBalancer>,
}

#[derive(Debug, Clone, Deserialize)]
struct ReadBalancer {
    ingress: Option<Vec<ReadPoint>>,
}

#[derive(Debug, Clone, Deserialize)]
struct ReadPoint {
    ip: Option<String>,
    hostname: Option<String>,
}

/// A Namespace as read.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct NamespaceObject {
    #[serde(deserialize_with = "metadata")]
    metadata: ObjectMeta,
}
kind!(NamespaceObject, ApiNamespace);

/// An IngressClass as read.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ClassObject {
    #[serde(deserialize_with = "metadata")]
    metadata: ObjectMeta,
    spec: Option<ClassSpec>,
}
kind!(ClassObject, ApiClass);

/// A Service as read.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ServiceObject {
    #[serde(deserialize_with = "metadata")]
    metadata: ObjectMeta,
    spec: Option<ReadService>,
}
kind!(ServiceObject, ApiService);

#[derive(Debug, Clone, Deserialize)]
struct ReadService {
    ports: Option<Vec<ReadServicePort>>,
    #[serde(rename = "type")]
    kind: Option<String>,
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<String>,
    #[serde(rename = "externalName")]
    external_name: Option<Box<str>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReadServicePort {
    name: Option<Box<str>>,
    port: i32,
    app_protocol: Option<String>,
}

/// An EndpointSlice as read.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct SliceObject {
    #[serde(deserialize_with = "metadata")]
    metadata: ObjectMeta,
    ports: Option<Vec<ReadSlicePort>>,
    endpoints: Option<Vec<ReadEndpoint>>,
}
kind!(SliceObject, ApiSlice);

#[derive(Debug, Clone, Deserialize)]
struct ReadSlicePort {
    name: Option<Box<str>>,
    port: Option<i32>,
}

#[derive(Debug, Clone, Deserialize)]
struct ReadEndpoint {
    addresses: Vec<String>,
    #[serde(default)]
    conditions: Option<Conditions>,
    #[serde(default)]
    hints: Option<Hints>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Hints {
    for_zones: Option<Vec<Named>>,
    for_nodes: Option<Vec<Named>>,
}

#[derive(Debug, Clone, Deserialize)]
struct Named {
    name: String,
}

/// What is used of the metadata of Ingresses and classes: neither labels nor version, which would make each of our own status writes a
/// change.
fn meta(read: ObjectMeta) -> Meta {
    Meta {
        name: read.name,
        namespace: read.namespace,
        uid: read.uid,
        creation_timestamp: read.creation_timestamp,
        annotations: read.annotations,
    }
}

impl IngressObject {
    /// What is kept of the Ingress, and the addresses that its status names.
    pub fn split(self, words: &mut Words) -> (Ingress, Addresses) {
        let balancer = self.status.and_then(|status| status.load_balancer);
        let points = balancer.and_then(|balancer| balancer.ingress).into_iter().flatten();
        let addresses = points.filter_map(|point| point.ip.or(point.hostname)).collect();
        let ingress = Ingress::new(meta(self.metadata), self.spec.unwrap_or_default(), words);
        (ingress, addresses)
    }
}

impl ClassObject {
    /// What is kept of the class.
    pub fn compact(self) -> Class {
        Class::new(meta(self.metadata), self.spec.unwrap_or_default())
    }
}

impl ServiceObject {
    /// What is kept of it.
    pub fn compact(self, words: &mut Words) -> Service {
        let annotations = self.metadata.annotations.unwrap_or_default();
        let shared_with = annotations.get(SHARED_WITH).map(|names| names.as_str().into());
        let Some(spec) = self.spec else {
            return Service::default();
        };
        let ports = spec.ports.into_iter().flatten().filter_map(|port| {
            Some(ServicePort {
                name: words.word(port.name.as_deref().unwrap_or_default()),
                number: port_number(port.port)?,
                protocol: port.app_protocol.as_deref().and_then(protocol),
            })
        });
        Service {
            ports: ports.collect(),
            // "None" of headless Services is no address.
            address: spec.cluster_ip.and_then(|ip| ip.parse().ok()),
            external: (spec.kind.as_deref() == Some("ExternalName")).then(|| spec.external_name.unwrap_or_default()),
            shared_with,
        }
    }
}

impl SliceObject {
    /// The Service that its label names.
    pub fn service(&self) -> Option<&str> {
        self.metadata.labels.as_ref()?.get(SERVICE_LABEL).map(String::as_str)
    }

    /// What is kept of it, seen from `here`.
    pub fn compact(self, here: &Locality, words: &mut Words) -> Slice {
        let ports = self.ports.into_iter().flatten().filter_map(|port| {
            Some(SlicePort {
                name: words.word(port.name.as_deref().unwrap_or_default()),
                number: port_number(port.port?)?,
            })
        });
        let endpoints = self.endpoints.into_iter().flatten();
        Slice {
            ports: ports.collect(),
            endpoints: endpoints.filter_map(|endpoint| endpoint.compact(here)).collect(),
        }
    }
}

impl ReadEndpoint {
    /// S12: without a word an endpoint is ready, serving and not terminating. As kube-proxy does, endpoints that are going away but
    /// still serve are kept: they are better than none (KEP-1669).
    fn compact(self, here: &Locality) -> Option<SliceEndpoint> {
        // Only the first address is to be used; those of FQDN slices are no addresses, and are left out as they should.
        let address: IpAddr = self.addresses.first()?.parse().ok()?;
        let conditions = self.conditions.unwrap_or_default();
        let ready = conditions.ready.unwrap_or(true);
        let draining = conditions.serving.unwrap_or(true) && conditions.terminating.unwrap_or(false);
        let names = |list: Option<&Vec<Named>>, here: &str| {
            let named = list.into_iter().flatten().map(|named| named.name.as_str());
            Locality::hint(here, named)
        };
        let hints = self.hints.as_ref();
        (ready || draining).then(|| SliceEndpoint {
            address,
            ready,
            node_hint: names(hints.and_then(|h| h.for_nodes.as_ref()), &here.node),
            zone_hint: names(hints.and_then(|h| h.for_zones.as_ref()), &here.zone),
        })
    }
}

/// Puts a Service as the API writes it into a store, for whoever has objects without a watch (`check`, tests).
pub fn add_service(services: &Services, value: Value) -> Result<(), serde_json::Error> {
    put_service(services, serde_json::from_value(value)?);
    Ok(())
}

/// Puts a Service that was read into a store.
pub fn put_service(services: &Services, service: ServiceObject) {
    let key = (service.namespace().unwrap_or_default(), service.name_any());
    let _ = services.put_service(&key.0, &key.1, service.compact(&mut Words::default()));
}

/// Puts an EndpointSlice as the API writes it into a store.
pub fn add_slice(services: &Services, value: Value) -> Result<(), serde_json::Error> {
    let slice: SliceObject = serde_json::from_value(value)?;
    let key = (slice.namespace().unwrap_or_default(), slice.name_any());
    let service = slice.service().unwrap_or_default().to_owned();
    let slice = slice.compact(&Locality::default(), &mut Words::default());
    services.put_slice(&key.0, &key.1, &service, slice);
    Ok(())
}

/// S26: what an `appProtocol` asks for. Names that are unknown mean nothing, as the API's description wants it.
fn protocol(name: &str) -> Option<Protocol> {
    match name {
        "kubernetes.io/h2c" => Some(Protocol::H2c),
        // WebSocket is an upgrade within HTTP/1.1.
        "http" | "kubernetes.io/ws" => Some(Protocol::Http1),
        "https" | "kubernetes.io/wss" => Some(Protocol::Https),
        _ => None,
    }
}

fn port_number(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|number| *number != 0)
}
