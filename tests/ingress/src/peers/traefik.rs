//! traefik with its file provider. It sets X-Forwarded-For, -Host, -Port, -Proto, -Server and X-Real-Ip by itself; that it has one thread at
//! work is in its environment.

use super::{Ports, Site, Task};
use anyhow::Result;
use serde_json::{Map, json};
use std::ffi::OsString;
use std::fs;
use std::path::Path;

/// Writes its files; returns its arguments.
pub(super) fn configure(task: &Task, ports: &Ports, folder: &Path) -> Result<Vec<OsString>> {
    fs::write(folder.join("tls.crt"), task.certificate.0)?;
    fs::write(folder.join("tls.key"), task.certificate.1)?;
    let (mut routers, mut services) = (Map::new(), Map::new());
    for (number, Site { host, path, backends }) in task.sites.iter().enumerate() {
        let name = format!("s{number}");
        let rule = match *path {
            "/" => format!("Host(`{host}`)"),
            path => format!("Host(`{host}`) && (Path(`{path}`) || PathPrefix(`{path}/`))"),
        };
        routers.insert(
            name.clone(),
            json!({ "entryPoints": ["http"], "rule": rule, "service": name }),
        );
        routers.insert(
            format!("{name}-tls"),
            json!({ "entryPoints": ["https"], "rule": rule, "service": name, "tls": {} }),
        );
        let servers: Vec<_> = backends
            .iter()
            .map(|address| json!({ "url": format!("http://{address}") }))
            .collect();
        services.insert(name, json!({ "loadBalancer": { "servers": servers } }));
    }
    let tls = json!({
        "certificates": [{ "certFile": folder.join("tls.crt"), "keyFile": folder.join("tls.key") }],
        "options": { "default": { "minVersion": "VersionTLS13", "curvePreferences": ["X25519"], "disableSessionTickets": true } },
    });
    // JSON is YAML, and YAML it takes.
    let file = folder.join("dynamic.yaml");
    fs::write(
        &file,
        json!({ "http": { "routers": routers, "services": services }, "tls": tls }).to_string(),
    )?;
    let arguments = [
        format!("--entrypoints.http.address={}", ports.http),
        format!("--entrypoints.https.address={}", ports.https),
        "--entrypoints.http.transport.respondingtimeouts.idletimeout=75s".to_owned(),
        "--entrypoints.https.transport.respondingtimeouts.idletimeout=75s".to_owned(),
        format!("--providers.file.filename={}", file.display()),
        "--providers.file.watch=false".to_owned(),
        "--global.checknewversion=false".to_owned(),
        "--global.sendanonymoususage=false".to_owned(),
        "--log.level=ERROR".to_owned(),
    ];
    Ok(arguments.map(OsString::from).to_vec())
}
