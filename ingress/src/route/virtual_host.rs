//! All that is known of one host.

use super::shared::Keyed;
use super::table::Table;
use super::{Host, Remark, Route};
use crate::tls::Held;
use std::sync::Arc;

/// One host: its routes, its certificate, and what is to be said of them.
#[derive(Debug)]
pub struct VirtualHost {
    /// The host's name once more, where a search finds it without another step.
    pub(super) name: Arc<str>,
    pub(super) host: Arc<Host>,
    /// `None` when no rule has the host: then it only has a certificate, or remarks.
    pub(super) table: Option<Table>,
    /// For paths that no rule of it has: the default backend of an Ingress that names it.
    pub(super) default: Option<Arc<Route>>,
    /// The certificate that it has by its own name.
    pub(super) held: Option<Box<Held>>,
    pub(super) remarks: Box<[Remark]>,
}

impl VirtualHost {
    /// Nothing is to be said of it.
    pub(super) fn is_void(&self) -> bool {
        self.table.is_none() && self.held.is_none() && self.remarks.is_empty()
    }

    /// Some rule has it, so that requests for it go nowhere else.
    pub(super) fn is_routed(&self) -> bool {
        self.table.is_some()
    }

    pub(super) fn route_count(&self) -> usize {
        self.routes().count()
    }

    /// Its routes in order of precedence, the default backend last.
    pub(super) fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        let table = self.table.iter().flat_map(|table| table.routes.iter());
        table.chain(&self.default)
    }

    /// The route that takes this canonical path.
    pub(super) fn find(&self, path: &str) -> Option<&Arc<Route>> {
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
pub(super) fn key(host: &str) -> &str {
    host.strip_prefix("*.").unwrap_or(host)
}
