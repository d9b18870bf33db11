//! Bounds of ejection and of retries, with their reasons.

use std::time::Duration;

/// Failed connections in a row after which an endpoint is left out. One is a race that every rollout has; two are a pod that is gone.
pub const EJECT_AFTER_UNREACHABLE: u32 = 2;
/// Requests in a row that an endpoint took and did not answer (Envoy's `consecutive_gateway_failure`).
pub const EJECT_AFTER_BROKEN: u32 = 5;
/// First and longest time an endpoint is left out. Its readiness probe, every 10 s by default, takes over from there.
pub const EJECT_FIRST: Duration = Duration::from_secs(2);
/// See [`EJECT_FIRST`].
pub const EJECT_LONGEST: Duration = Duration::from_secs(60);
/// Retries that a hundred requests pay for (linkerd's and Envoy's budget), after which a Service that fails gets 1.2 times its load.
pub const RETRIES_PER_HUNDRED: u32 = 20;
/// Retries per second that need no requests, for Services with few of them.
pub const RETRIES_PER_SECOND: u32 = 10;
/// How often one request is repeated after an endpoint saw it or may have seen it, whatever the reasons are: a kept connection that
/// ended, a refused stream, a status. Failed connections do not count.
pub const REPEATS: usize = 2;
/// Most retries that are saved up: a second's worth at 500 requests per second.
pub const RETRIES_SAVED: u32 = 100;
