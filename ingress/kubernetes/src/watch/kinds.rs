//! The five kinds as they are read: only fields that are used are decoded, so that the bulk (managedFields, selectors, pod references)
//! never takes memory, not even while it is read.

use k8s_openapi::Resource as Kind;
use k8s_openapi::api::core::v1::{Namespace as ApiNamespace, Service as ApiService};
use k8s_openapi::api::discovery::v1::EndpointSlice as ApiSlice;
use k8s_openapi::api::networking::v1::{Ingress as ApiIngress, IngressClass as ApiClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use landfall_ingress_translate::object::{Addresses, Ingress, Meta, Spec, Words};
use landfall_ingress_translate::route::{Class, ClassSpec};
use landfall_ingress_translate::services::{
    Locality, ReadEndpoint, ReadSlicePort, SERVICE_LABEL, Service, ServiceSpec, Slice,
};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::collections::BTreeMap;

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
    spec: Option<ServiceSpec>,
}
kind!(ServiceObject, ApiService);

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

/// What is used of the metadata: neither labels nor version, which would make each of our own status writes a
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
        Service::new(meta(self.metadata), self.spec, words)
    }
}

impl SliceObject {
    /// The Service that its label names.
    pub fn service(&self) -> Option<&str> {
        self.metadata.labels.as_ref()?.get(SERVICE_LABEL).map(String::as_str)
    }

    /// What is kept of it, seen from `here`.
    pub fn compact(self, here: &Locality, words: &mut Words) -> Slice {
        Slice::new(self.ports, self.endpoints, here, words)
    }
}
