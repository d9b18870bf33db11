//! What Ingresses refer to.

/// What an Ingress can have to do with.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Topic<'a> {
    /// A host, as in [`landfall_ingress_routing::Host::name`].
    Host(&'a str),
    /// Namespace and name of a Service.
    Service(&'a str, &'a str),
    /// Namespace and name of a Secret or ConfigMap: one of the other kind costs an unneeded look.
    Secret(&'a str, &'a str),
}
