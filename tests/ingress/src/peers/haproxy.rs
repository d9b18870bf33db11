//! Debian's haproxy: one thread.

use super::{Ports, Site, Task};
use anyhow::Result;
use std::ffi::OsString;
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// Writes its files; returns its arguments.
pub(super) fn configure(task: &Task, ports: &Ports, folder: &Path) -> Result<Vec<OsString>> {
    fs::write(
        folder.join("tls.pem"),
        task.certificate.0.to_owned() + task.certificate.1,
    )?;
    let (mut map, mut paths, mut backends) = (String::new(), String::new(), String::new());
    for (
        number,
        Site {
            host,
            path,
            backends: addresses,
        },
    ) in task.sites.iter().enumerate()
    {
        if *path == "/" {
            writeln!(map, "{host} b{number}")?;
        } else {
            let is_host = format!("{{ req.hdr(host),field(1,:),lower -m str {host} }}");
            writeln!(paths, " use_backend b{number} if {is_host} {{ path {path} }}")?;
            writeln!(paths, " use_backend b{number} if {is_host} {{ path_beg {path}/ }}")?;
        }
        writeln!(backends, "backend b{number}\n http-reuse always")?;
        for (index, address) in addresses.iter().enumerate() {
            writeln!(backends, " server s{index} {address}")?;
        }
    }
    fs::write(folder.join("hosts.map"), map)?;
    let file = folder.join("haproxy.cfg");
    let (folder, Ports { http, http2, https }) = (folder.display(), ports);
    let text = format!(
        "global\n nbthread 1\n maxconn 8192\n tune.ssl.cachesize 0\n ssl-default-bind-options ssl-min-ver TLSv1.3 no-tls-tickets\n\
         \x20ssl-default-bind-curves X25519\n\
         defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n timeout http-keep-alive 75s\n\
         frontend f\n bind {http}\n bind {http2} proto h2\n bind {https} ssl crt {folder}/tls.pem\n\
         \x20http-request del-header X-Forwarded-For\n http-request set-header X-Forwarded-For %[src]\n\
         \x20http-request set-header X-Real-IP %[src]\n http-request set-header X-Forwarded-Host %[req.hdr(host)]\n\
         \x20http-request set-header X-Forwarded-Port %[dst_port]\n\
         \x20http-request set-header X-Forwarded-Proto https if {{ ssl_fc }}\n\
         \x20http-request set-header X-Forwarded-Proto http if !{{ ssl_fc }}\n\
         \x20http-request set-header X-Forwarded-Scheme %[req.hdr(x-forwarded-proto)]\n\
         \x20http-request set-header X-Scheme %[req.hdr(x-forwarded-proto)]\n\
         {paths}\x20use_backend %[req.hdr(host),field(1,:),lower,map({folder}/hosts.map,none)]\n default_backend none\n\
         backend none\n http-request return status 404\n{backends}"
    );
    fs::write(&file, text)?;
    Ok(vec!["-db".into(), "-q".into(), "-f".into(), file.into()])
}
