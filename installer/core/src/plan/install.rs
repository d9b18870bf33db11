//! Plans an installation.
