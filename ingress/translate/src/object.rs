//! Objects of the API as they are kept: what is read of them, in few bytes.

mod annotations;
mod ingress;
mod words;

pub use annotations::{Annotations, NGINX, OWN, is_read};
#[cfg(test)]
pub use ingress::CLASS_ANNOTATION;
pub use ingress::{Addresses, Destination, Ingress, Meta, Path, PortKey, Rule, Spec};
pub use words::Words;
