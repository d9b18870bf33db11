//! A Service and an EndpointSlice as the API writes them, read: only fields that are used are decoded.

use super::Services;
use super::entry::{Locality, SHARED_WITH, Service, ServicePort, Slice, SliceEndpoint, SlicePort};
use crate::object::{Meta, Words};
use landfall_ingress_http::protocol::Protocol;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Label that joins slices to their Service.
pub const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// What is read of a Service's `spec`.
#[derive(Debug, Clone, Deserialize)]
pub struct ServiceSpec {
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

/// One of an EndpointSlice's `ports`, as read.
#[derive(Debug, Clone, Deserialize)]
pub struct ReadSlicePort {
    name: Option<Box<str>>,
    port: Option<i32>,
}

/// One of an EndpointSlice's `endpoints`, as read.
#[derive(Debug, Clone, Deserialize)]
pub struct ReadEndpoint {
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

impl Service {
    /// Takes what is used of an object as read.
    pub fn new(meta: Meta, spec: Option<ServiceSpec>, words: &mut Words) -> Self {
        let annotations = meta.annotations.unwrap_or_default();
        let shared_with = annotations.get(SHARED_WITH).map(|names| names.as_str().into());
        let Some(spec) = spec else {
            return Self::default();
        };
        let ports = spec.ports.into_iter().flatten().filter_map(|port| {
            Some(ServicePort {
                name: words.word(port.name.as_deref().unwrap_or_default()),
                number: port_number(port.port)?,
                protocol: port.app_protocol.as_deref().and_then(protocol),
            })
        });
        Self {
            ports: ports.collect(),
            // "None" of headless Services is no address.
            address: spec.cluster_ip.and_then(|ip| ip.parse().ok()),
            external: (spec.kind.as_deref() == Some("ExternalName")).then(|| spec.external_name.unwrap_or_default()),
            shared_with,
        }
    }
}

impl Slice {
    /// Takes what is used of an object as read, seen from `here`.
    pub fn new(
        ports: Option<Vec<ReadSlicePort>>,
        endpoints: Option<Vec<ReadEndpoint>>,
        here: &Locality,
        words: &mut Words,
    ) -> Self {
        let ports = ports.into_iter().flatten().filter_map(|port| {
            Some(SlicePort {
                name: words.word(port.name.as_deref().unwrap_or_default()),
                number: port_number(port.port?)?,
            })
        });
        let endpoints = endpoints.into_iter().flatten();
        Self {
            ports: ports.collect(),
            endpoints: endpoints.filter_map(|endpoint| endpoint.keep(here)).collect(),
        }
    }
}

impl ReadEndpoint {
    /// S12: without a word an endpoint is ready, serving and not terminating. As kube-proxy does, endpoints that are going away but
    /// still serve are kept: they are better than none (KEP-1669).
    fn keep(self, here: &Locality) -> Option<SliceEndpoint> {
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

/// A Service with what is read of it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct WholeService {
    metadata: Meta,
    spec: Option<ServiceSpec>,
}

/// An EndpointSlice with what is read of it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct WholeSlice {
    metadata: Labelled,
    ports: Option<Vec<ReadSlicePort>>,
    endpoints: Option<Vec<ReadEndpoint>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Labelled {
    namespace: Option<String>,
    name: Option<String>,
    labels: Option<BTreeMap<String, String>>,
}

impl Services {
    /// Takes a Service as the API writes it, from whoever has objects without a watch.
    pub fn read_service(&self, value: Value) -> Result<(), serde_json::Error> {
        let WholeService { mut metadata, spec } = serde_json::from_value(value)?;
        let namespace = metadata.namespace.take().unwrap_or_default();
        let name = metadata.name.take().unwrap_or_default();
        let _ = self.put_service(&namespace, &name, Service::new(metadata, spec, &mut Words::default()));
        Ok(())
    }

    /// Takes an EndpointSlice as the API writes it, from whoever has objects without a watch. It is seen from no node and no zone.
    pub fn read_slice(&self, value: Value) -> Result<(), serde_json::Error> {
        let whole: WholeSlice = serde_json::from_value(value)?;
        let slice = Slice::new(
            whole.ports,
            whole.endpoints,
            &Locality::default(),
            &mut Words::default(),
        );
        let meta = whole.metadata;
        let service = meta
            .labels
            .and_then(|mut labels| labels.remove(SERVICE_LABEL))
            .unwrap_or_default();
        let (namespace, name) = (meta.namespace.unwrap_or_default(), meta.name.unwrap_or_default());
        self.put_slice(&namespace, &name, &service, slice);
        Ok(())
    }
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
