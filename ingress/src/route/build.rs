//! Objects of the API to a [`Snapshot`]. Pure: the same objects give the same table, in whatever order they come.

use super::endpoints::Resolver;
use super::{Ours, Route, Snapshot};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass, IngressRule};
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

/// `spec.controller` of classes that are ours.
pub const CONTROLLER: &str = "landfall.dev/ingress";
/// The annotation that named a class before `ingressClassName`; controllers should still honour it.
pub const CLASS_ANNOTATION: &str = "kubernetes.io/ingress.class";
/// Marks the class of Ingresses that name none.
pub const DEFAULT_CLASS: &str = "ingressclass.kubernetes.io/is-default-class";

/// Objects as the API has them.
#[derive(Debug, Default)]
pub struct Objects {
    /// All Ingresses.
    pub ingresses: Vec<Arc<Ingress>>,
    /// All classes.
    pub classes: Vec<Arc<IngressClass>>,
    /// All Services.
    pub services: Vec<Arc<Service>>,
    /// All slices.
    pub slices: Vec<Arc<EndpointSlice>>,
}

/// The class that is served, as the API knows it.
struct Class<'a> {
    name: &'a str,
    default: bool,
}

impl<'a> Class<'a> {
    /// `None` when there is no class of that name, or when it is for another controller: then nothing is ours.
    fn find(objects: &'a Objects, name: &str) -> Option<Self> {
        let class = objects
            .classes
            .iter()
            .find(|c| c.metadata.name.as_deref() == Some(name))?;
        if class.spec.as_ref()?.controller.as_deref() != Some(CONTROLLER) {
            return None;
        }
        let mark = class.metadata.annotations.as_ref().and_then(|a| a.get(DEFAULT_CLASS));
        Some(Self {
            name: class.metadata.name.as_deref()?,
            default: mark.is_some_and(|m| m == "true"),
        })
    }

    /// The field counts first, then the old annotation; without both it is ours when our class is the default. The API server
    /// fills in the default class at creation only, so an Ingress that is older than the class has none.
    fn has(&self, ingress: &Ingress) -> bool {
        let named = ingress.spec.as_ref().and_then(|s| s.ingress_class_name.as_deref());
        let annotations = ingress.metadata.annotations.as_ref();
        let class = named.or_else(|| annotations?.get(CLASS_ANNOTATION).map(String::as_str));
        class.map_or(self.default, |class| class == self.name)
    }
}

impl Snapshot {
    /// Builds the table. Order among equal paths (S4): oldest Ingress first, then namespace and name.
    ///
    /// `turn` says which endpoint of each Service comes first. It differs from table to table: otherwise the first endpoint would get
    /// most requests while tables follow each other quickly.
    pub fn build(objects: &Objects, class: &str, turn: usize) -> Self {
        let mut snapshot = Self::default();
        let Some(class) = Class::find(objects, class) else {
            snapshot
                .remarks
                .push(format!("there is no IngressClass {class} with controller {CONTROLLER}"));
            return snapshot;
        };
        let mut ours: Vec<&Ingress> = objects
            .ingresses
            .iter()
            .map(|i| &**i)
            .filter(|i| class.has(i))
            .collect();
        ours.sort_by_key(|i| {
            let meta = &i.metadata;
            (
                meta.creation_timestamp.clone(),
                meta.namespace.clone(),
                meta.name.clone(),
            )
        });
        let resolver = Resolver::new(objects, turn);
        for ingress in ours {
            snapshot.add(ingress, &resolver);
        }
        let lists = snapshot.hosts.values_mut().chain(snapshot.wildcards.values_mut());
        for routes in lists.chain([&mut snapshot.any_host]) {
            order(routes, &mut snapshot.remarks);
        }
        snapshot
    }

    fn add(&mut self, ingress: &Ingress, resolver: &Resolver<'_>) {
        let namespace = ingress.metadata.namespace.clone().unwrap_or_default();
        let name = ingress.metadata.name.clone().unwrap_or_default();
        let label = format!("{namespace}/{name}");
        self.ours.push(Ours {
            namespace: namespace.clone(),
            name,
            addresses: addresses(ingress),
        });
        let Some(spec) = &ingress.spec else { return };
        if let Some(backend) = &spec.default_backend {
            if self.default.is_some() {
                self.remarks
                    .push(format!("{label}: an older Ingress has the default backend"));
            } else {
                self.default = Some(Route {
                    exact: false,
                    path: "/".to_owned(),
                    backend: Arc::new(resolver.backend(&namespace, backend, &label, &mut self.remarks)),
                    ingress: label.as_str().into(),
                    policy: Arc::default(),
                });
            }
        }
        for rule in spec.rules.iter().flatten() {
            let routes = rule_routes(rule, &namespace, &label, resolver, &mut self.remarks);
            // A rule without paths still claims its host: its requests go to the default backend (S7).
            let host = rule.host.as_deref().unwrap_or_default().to_ascii_lowercase();
            match host.strip_prefix("*.") {
                _ if host.is_empty() => &mut self.any_host,
                Some(parent) => self.wildcards.entry(parent.to_owned()).or_default(),
                None => self.hosts.entry(host).or_default(),
            }
            .extend(routes);
        }
    }
}

fn rule_routes(
    rule: &IngressRule,
    namespace: &str,
    label: &str,
    resolver: &Resolver<'_>,
    remarks: &mut Vec<String>,
) -> Vec<Route> {
    let paths = rule.http.iter().flat_map(|http| &http.paths);
    let ingress: Arc<str> = label.into();
    paths
        .map(|path| Route {
            exact: path.path_type == "Exact",
            path: path
                .path
                .clone()
                .filter(|p| !p.is_empty())
                .unwrap_or_else(|| "/".to_owned()),
            backend: Arc::new(resolver.backend(namespace, &path.backend, label, remarks)),
            ingress: Arc::clone(&ingress),
            policy: Arc::default(),
        })
        .collect()
}

/// S4: longest path first, then `Exact`; the sort is stable, so that of equal paths the older Ingress stays first. `/foo` and
/// `/foo/` match the same requests; the longer one wins (S2).
fn order(routes: &mut Vec<Route>, remarks: &mut Vec<String>) {
    routes.sort_by_key(|r| (Reverse(r.path.len()), !r.exact));
    let mut seen = BTreeSet::new();
    routes.retain(|r| {
        let first = seen.insert((r.path.clone(), r.exact));
        if !first {
            remarks.push(format!("{}: path {} belongs to an older Ingress", r.ingress, r.path));
        }
        first
    });
}

fn addresses(ingress: &Ingress) -> BTreeSet<String> {
    let balancer = ingress.status.as_ref().and_then(|s| s.load_balancer.as_ref());
    let points = balancer.and_then(|b| b.ingress.as_ref()).into_iter().flatten();
    points.filter_map(|p| p.ip.clone().or(p.hostname.clone())).collect()
}
