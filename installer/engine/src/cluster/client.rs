//! A client of the Kubernetes API whose connection goes through a node's session, and where objects lie in the API.

use super::error_text::error_text;
use crate::forward::Forward;
use kube::api::{Api, DynamicObject};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Config};
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::secret::Secret;
use serde_json::Value;
use std::time::Duration;

/// Time limit of one API request; a healthy server answers in milliseconds, a restarting one after seconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// Returns the name of a kind in the API's paths, as English makes the plural. Kubernetes' own kinds have it; a definition may say another.
pub fn resource_name(kind: &str) -> String {
    ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", kind)).plural
}

/// An object's place in the API.
pub(super) struct Place {
    pub resource: ApiResource,
    pub namespace: Option<String>,
    pub name: String,
}

impl Place {
    /// Reads the place out of an object's body.
    pub fn of(object: &Value) -> Result<Self, Diagnosis> {
        let malformed = || Diagnosis::new(Code::Internal, "an object to apply has no apiVersion, kind or name");
        let (group, version) = match object["apiVersion"].as_str().ok_or_else(malformed)?.split_once('/') {
            Some((group, version)) => (group, version),
            None => ("", object["apiVersion"].as_str().unwrap_or_default()),
        };
        let kind = object["kind"].as_str().ok_or_else(malformed)?;
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        let name = object["metadata"]["name"].as_str().ok_or_else(malformed)?.to_owned();
        Ok(Self {
            resource,
            namespace: object["metadata"]["namespace"].as_str().map(str::to_owned),
            name,
        })
    }

    /// Returns the API of the place's kind in its namespace.
    pub fn api(&self, client: &Client) -> Api<DynamicObject> {
        match &self.namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &self.resource),
            None => Api::all_with(client.clone(), &self.resource),
        }
    }
}

/// Kind, namespace and name, for people.
impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.resource.kind, self.name),
            None => write!(f, "{} {}", self.resource.kind, self.name),
        }
    }
}

pub(super) async fn client(admin: &Secret, forward: &Forward) -> Result<Client, Diagnosis> {
    let bad = |error: &(dyn std::error::Error + 'static)| {
        Diagnosis::new(Code::ClusterApi, "the admin kubeconfig of the node is not usable").because(error)
    };
    let text = String::from_utf8_lossy(admin.expose());
    let kubeconfig = Kubeconfig::from_yaml(&text).map_err(|e| bad(&e))?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(|e| bad(&e))?;
    config.cluster_url = format!("https://{}", forward.address()).parse().map_err(|e| bad(&e))?;
    config.tls_server_name = Some("127.0.0.1".to_owned());
    config.connect_timeout = Some(Duration::from_secs(5));
    config.read_timeout = Some(REQUEST_TIMEOUT);
    config.proxy_url = None;
    Client::try_from(config).map_err(|e| bad(&e))
}

/// Makes a diagnosis of an error that the API server answered, or of one on the connection to it.
pub fn api_error(what: &str, error: &kube::Error) -> Diagnosis {
    Diagnosis::new(Code::ClusterApi, what).saw(error_text(error))
}

pub(super) fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}
