//! Where an annotation may lead on our behalf: URLs of `auth-url` and `mirror-target`, under a policy against forged requests.
//!
//! A host is an address, a Service of the cluster by its DNS name, `$host` (the request's own, which is looked up in our own table), or a
//! name outside the cluster, which the data plane asks for when there is a request.

use super::syntax::object_name;
use crate::options::Options;
use landfall_ingress_http::host::host_of;
use landfall_ingress_routing::target::{Place, Target};
use std::net::{IpAddr, SocketAddr};

/// Longest URL that is taken.
const LONGEST: usize = 2048;

/// Reads a URL that an Ingress in `namespace` names. An error says why it is refused.
pub fn parse(url: &str, namespace: &str, options: &Options) -> Result<Target, &'static str> {
    let graphic = |b: u8| b.is_ascii_graphic() && !b"\"'<>\\^`{|}#".contains(&b);
    if url.len() > LONGEST || !url.bytes().all(graphic) {
        return Err("no URL");
    }
    let (tls, rest) = match url.split_once("://") {
        Some(("http", rest)) => (false, rest),
        Some(("https", rest)) => (true, rest),
        Some(("$scheme" | "$pass_access_scheme", rest)) => (false, rest),
        _ => return Err("no URL of http or https"),
    };
    // A variable may be the host, and path or query may begin with one.
    let begun = usize::from(rest.starts_with('$'));
    let end = rest[begun..].find(['/', '?', '$']).map_or(rest.len(), |at| at + begun);
    let (authority, path) = rest.split_at(end);
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    };
    if authority.contains('@') {
        return Err("users in URLs are refused");
    }
    if authority == "$host" || authority == "$http_host" {
        return Ok(Target {
            tls: false,
            place: Place::OwnHost,
            authority: String::new(),
            path,
        });
    }
    let host = host_of(authority).ok_or("no host")?;
    let port = port_of(authority)
        .ok_or("no port")?
        .unwrap_or(if tls { 443 } else { 80 });
    let place = match host.trim_matches(['[', ']']).parse::<IpAddr>() {
        Ok(address) => {
            options.admits(address)?;
            Place::Address(SocketAddr::new(address, port))
        }
        Err(_) => service(&host, port, namespace, options)?,
    };
    Ok(Target {
        tls,
        place,
        authority: authority.to_owned(),
        path,
    })
}

/// `name`, `name.namespace`, both with `.svc` and `.svc.cluster.local` behind.
fn service(host: &str, port: u16, own: &str, options: &Options) -> Result<Place, &'static str> {
    if host == "localhost" || host.ends_with(".localhost") {
        return Err("loopback addresses are refused");
    }
    // `1`, `0x7f.1` and the like are addresses to some resolvers; a Service's name begins with a letter.
    let short = host.strip_suffix(".cluster.local").unwrap_or(host);
    let (name, namespace) = match (short.strip_suffix(".svc"), short.split('.').count()) {
        (Some(place), _) => place.split_once('.').ok_or("no Service")?,
        (None, 1) => (short, own),
        (None, 2) => short.split_once('.').ok_or("no Service")?,
        _ if short != host => return Err("no Service"),
        _ => return outside(host, port, options),
    };
    let letter = name.starts_with(|c: char| c.is_ascii_lowercase()) && !name.contains('.');
    if !letter || namespace.contains('.') || object_name(name).is_err() || object_name(namespace).is_err() {
        return Err("no Service");
    }
    if (namespace, name) == ("default", "kubernetes") && !options.allow_internal_targets {
        return Err("the API server is refused");
    }
    // Whether a Service of another namespace may be named is its own word, for which the table looks (`route/endpoints.rs`).
    Ok(Place::Service {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        port,
    })
}

/// A name of three labels or more that is no Service's. Two are always a Service with its namespace.
fn outside(host: &str, port: u16, options: &Options) -> Result<Place, &'static str> {
    if options.dns.is_none() {
        return Err("neither an address nor a Service of the cluster: names are looked up only with --cluster-dns");
    }
    let label = |label: &str| {
        let bytes = label.bytes();
        (1..=63).contains(&label.len()) && bytes.clone().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    };
    // What ends in a number is an address to some resolvers (`0x7f.1.1`, `127.1.1`), and to nobody a name.
    let named = host
        .rsplit('.')
        .next()
        .is_some_and(|last| last.starts_with(|c: char| c.is_ascii_alphabetic()));
    match named && host.split('.').all(label) {
        true => Ok(Place::Name {
            host: host.to_owned(),
            port,
        }),
        false => Err("no host"),
    }
}

/// The port behind a host; the outer `None` is a port that is none.
fn port_of(authority: &str) -> Option<Option<u16>> {
    let behind = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.1.strip_prefix(':'),
        None => authority.split_once(':').map(|(_, port)| port),
    };
    match behind {
        None | Some("") => Some(None),
        Some(digits) => digits.parse().ok().filter(|port| *port != 0).map(Some),
    }
}
