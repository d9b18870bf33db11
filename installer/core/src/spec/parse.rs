//! Reads `cluster.yaml`.
