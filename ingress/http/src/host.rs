//! What counts as a host, and how two of them are compared (S6). Pure.

use std::net::Ipv6Addr;

/// S6: the host without port and trailing dot, lower case. `None` when it is no host.
pub fn host_of(text: &str) -> Option<String> {
    let host = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            let port_fine = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
            // One address has many spellings; Rust writes the canonical one.
            let address = address.parse::<Ipv6Addr>().ok()?;
            return port_fine.then(|| format!("[{address}]"));
        }
        None => match text.split_once(':') {
            Some((host, port)) => is_port(port).then_some(host)?,
            None => text,
        },
    };
    let host = host.strip_suffix('.').unwrap_or(host);
    let fine = |c: char| c.is_ascii_alphanumeric() || "-_".contains(c);
    let label = |text: &str| !text.is_empty() && text.chars().all(fine);
    (host.len() <= 253 && host.split('.').all(label)).then(|| host.to_ascii_lowercase())
}

fn is_port(text: &str) -> bool {
    text.is_empty() || (text.len() <= 5 && text.bytes().all(|b| b.is_ascii_digit()))
}
