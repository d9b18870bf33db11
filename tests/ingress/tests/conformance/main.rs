//! The 25 scenarios of the upstream Ingress conformance suite (kubernetes-sigs/ingress-controller-conformance, last changed in 2021),
//! written anew from its features: the real program, a pretended API server, echoing endpoints.
//!
//! As there, a scenario begins when the Ingress's status has an address, and is asked through that address. What the suite demands
//! without saying it in a feature is in [`world::Asked`]: status before traffic, an answer that is JSON with Content-Length,
//! Content-Type, Date and Server, HTTP/1.1 to the endpoint, the same method, target and User-Agent.

mod default_backend;
mod host_rules;
mod ingress_class;
mod load_balancing;
mod path_rules;
mod world;
