//! Bounds of what is kept and read for TLS, with their reasons.

/// Sets of client authorities, and configurations for endpoints, that are kept ready. Each is some KiB; those beyond are made anew.
pub const TLS_CONFIGS: usize = 256;
/// Certificates in one PEM text; public bundles have about 150.
pub const PEM_CERTIFICATES: usize = 512;
