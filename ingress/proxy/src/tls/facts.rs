//! What people want to know of certificates: for the dashboard and the metrics. Pure.

use landfall_ingress_routing::{Held, RouteTable};

/// Seconds of a day.
const DAY: i64 = 24 * 60 * 60;

/// One host's certificate. Nothing in it is secret.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Fact {
    /// Host or wildcard; `*` for the default certificate.
    pub host: String,
    /// `namespace/name` of the Secret.
    pub secret: Option<String>,
    /// `namespace/name` of the Ingress; empty when a flag names the Secret.
    pub ingress: String,
    /// End of validity, in seconds since 1970; `None` when the default certificate is served instead.
    pub not_after: Option<i64>,
    /// Whole days until then; negative when it is over.
    pub days_left: Option<i64>,
    /// Names in the certificate.
    pub names: Vec<String>,
    /// Why it cannot be used, or why clients refuse it.
    pub problem: Option<String>,
}

/// Every host with TLS, and the default certificate when one was named. `now` is in seconds since 1970.
pub fn facts(snapshot: &RouteTable, now: i64) -> Vec<Fact> {
    let mut hosts: Vec<_> = snapshot.certificates().collect();
    hosts.sort_unstable_by_key(|(host, _)| *host);
    let default = snapshot.default_certificate().map(|held| ("*", held));
    let all = hosts.into_iter().chain(default);
    all.map(|(host, held)| fact(host, held, now)).collect()
}

/// All of them in three numbers, which cost no text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Outline {
    /// Hosts with TLS, and the default certificate when one was named.
    pub count: usize,
    /// Those whose Secret gives no certificate, or not one for the host.
    pub faulty: usize,
    /// End of the certificate that ends first, in seconds since 1970.
    pub first_end: Option<i64>,
}

/// Outlines what [`facts`] tells.
pub fn outline(snapshot: &RouteTable) -> Outline {
    let mut outline = Outline::default();
    let all = snapshot.certificates().map(|(_, held)| held);
    for held in all.chain(snapshot.default_certificate()) {
        let end = held.certificate.as_ref().map(|certificate| certificate.validity().1);
        outline.count += 1;
        outline.faulty += usize::from(held.fault.is_some() || end.is_none());
        outline.first_end = outline.first_end.into_iter().chain(end).min();
    }
    outline
}

fn fact(host: &str, held: &Held, now: i64) -> Fact {
    let validity = held.certificate.as_ref().map(|certificate| certificate.validity());
    let problem = match (&held.fault, validity) {
        (Some(fault), _) => Some(match &held.secret {
            Some(secret) => format!("Secret {secret} {fault}"),
            None => format!("the Secret {fault}"),
        }),
        (None, Some((_, not_after))) if not_after < now => Some("has expired".to_owned()),
        (None, Some((not_before, _))) if not_before > now => Some("is not valid yet".to_owned()),
        _ => None,
    };
    Fact {
        host: host.to_owned(),
        secret: held.secret.as_ref().map(ToString::to_string),
        ingress: held.ingress.to_string(),
        not_after: validity.map(|(_, not_after)| not_after),
        days_left: validity.map(|(_, not_after)| (not_after - now).div_euclid(DAY)),
        names: held.certificate.as_ref().map_or_else(Vec::new, |c| c.names().to_vec()),
        problem,
    }
}

/// Secrets with the end of their certificate, those that end first, at most `most`: so that the number of series is bounded.
pub fn earliest(snapshot: &RouteTable, most: usize) -> Vec<(String, i64)> {
    let all = snapshot.certificates().map(|(_, held)| held);
    let all = all.chain(snapshot.default_certificate());
    let mut ends: Vec<(i64, String)> = all
        .filter_map(|held| {
            Some((
                held.certificate.as_ref()?.validity().1,
                held.secret.as_ref()?.to_string(),
            ))
        })
        .collect();
    ends.sort_unstable();
    ends.dedup();
    ends.truncate(most);
    ends.into_iter().map(|(end, secret)| (secret, end)).collect()
}
