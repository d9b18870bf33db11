//! Debian's nginx: one worker.

use super::{Ports, Site, Task};
use anyhow::Result;
use std::ffi::OsString;
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// Writes its files; returns its arguments.
pub(super) fn configure(task: &Task, ports: &Ports, folder: &Path) -> Result<Vec<OsString>> {
    fs::write(folder.join("tls.crt"), task.certificate.0)?;
    fs::write(folder.join("tls.key"), task.certificate.1)?;
    let file = folder.join("nginx.conf");
    let (folder, Ports { http, http2, https }) = (folder.display(), ports);
    let mut text = format!(
        "daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log error;\n\
         events {{ worker_connections 8192; }}\n\
         http {{\n access_log off; server_tokens off; keepalive_timeout 75s; keepalive_requests 1000000000;\n\
         server_names_hash_max_size 65536; server_names_hash_bucket_size 128; proxy_http_version 1.1;\n\
         proxy_request_buffering off; client_max_body_size 0; map $http_upgrade $upgrade {{ default upgrade; '' ''; }}\n\
         proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $upgrade;\n\
         proxy_set_header Host $http_host; proxy_set_header X-Real-IP $remote_addr;\n\
         proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto $scheme;\n\
         proxy_set_header X-Forwarded-Host $http_host; proxy_set_header X-Forwarded-Port $server_port;\n\
         proxy_set_header X-Forwarded-Scheme $scheme; proxy_set_header X-Scheme $scheme;\n\
         ssl_certificate {folder}/tls.crt; ssl_certificate_key {folder}/tls.key; ssl_protocols TLSv1.3; ssl_ecdh_curve X25519;\n\
         ssl_session_cache off; ssl_session_tickets off;\n"
    );
    let listen = format!("listen {http}; listen {http2} http2; listen {https} ssl;");
    let default = format!("listen {http} default_server; listen {http2} http2 default_server;");
    writeln!(
        text,
        " server {{ {default} listen {https} ssl default_server; server_name _; return 404; }}"
    )?;
    for (number, site) in task.sites.iter().enumerate() {
        let servers: String = site
            .backends
            .iter()
            .map(|address| format!("server {address}; "))
            .collect();
        writeln!(
            text,
            " upstream u{number} {{ {servers} keepalive 64; keepalive_requests 1000000000; }}"
        )?;
    }
    let numbered: Vec<_> = task.sites.iter().enumerate().collect();
    for sites in numbered.chunk_by(|(_, a), (_, b)| a.host == b.host) {
        write!(text, " server {{ {listen} server_name {};", sites[0].1.host)?;
        for (number, Site { path, .. }) in sites {
            if *path == "/" {
                write!(text, " location / {{ proxy_pass http://u{number}; }}")?;
            } else {
                write!(text, " location = {path} {{ proxy_pass http://u{number}; }}")?;
                write!(text, " location {path}/ {{ proxy_pass http://u{number}; }}")?;
            }
        }
        text.push_str(" }\n");
    }
    text.push_str("}\n");
    fs::write(&file, text)?;
    Ok(vec!["-c".into(), file.into()])
}
