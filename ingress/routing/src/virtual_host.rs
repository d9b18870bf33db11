//! All that a request needs of one host.

use crate::certificate::Held;
use crate::route::{Host, Route};
use crate::shared::Keyed;
use crate::table::Table;
use std::sync::Arc;

/// One host: its routes and its certificate.
#[derive(Debug)]
pub struct VirtualHost {
    /// The host's name once more, where a search finds it without another step.
    pub name: Arc<str>,
    /// Its name, and who owns it.
    pub host: Arc<Host>,
    /// `None` when no rule has the host: then it only has a certificate.
    pub table: Option<Table>,
    /// For paths that no rule of it has: the default backend of an Ingress that names it.
    pub default: Option<Arc<Route>>,
    /// The certificate that it has by its own name.
    pub held: Option<Box<Held>>,
}

impl VirtualHost {
    /// It has neither routes nor a certificate.
    pub fn is_void(&self) -> bool {
        self.table.is_none() && self.held.is_none()
    }

    /// Some rule has it, so that requests for it go nowhere else.
    pub fn is_routed(&self) -> bool {
        self.table.is_some()
    }

    /// How many routes it has.
    pub fn route_count(&self) -> usize {
        self.routes().count()
    }

    /// Its routes in order of precedence, the default backend last.
    pub fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        let table = self.table.iter().flat_map(|table| table.routes().iter());
        table.chain(&self.default)
    }

    /// The route that takes this canonical path.
    #[inline]
    pub fn find(&self, path: &str) -> Option<&Arc<Route>> {
        let found = self.table.as_ref().and_then(|table| table.find(path));
        found.or(self.default.as_ref())
    }
}

/// Precise hosts and wildcards lie in maps of their own: what stands behind `*.` is a wildcard's key.
impl Keyed for VirtualHost {
    fn key(&self) -> &str {
        key(&self.name)
    }
}

/// The key of a host.
pub fn key(host: &str) -> &str {
    host.strip_prefix("*.").unwrap_or(host)
}
