//! 10,000 hosts with two endpoints each and 100 certificates: measures when a change takes effect, and the cost of keeping them.

use super::WARM_UP;
use super::figures::{quantile, rounded};
use super::load::{self, Aim, Work};
use super::process::Tree;
use super::proxies::{Identity, launch};
use crate::FakeApi;
use crate::client::{self, Connection};
use crate::objects::{class, ingress, service, slice, tls_secret};
use crate::program::Program;
use anyhow::{Result, anyhow, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

const HOSTS: usize = 10_000;
const CERTIFICATES: usize = 100;
/// Changes of each kind that are timed; the worst two of 200 lie above p99.
const CHANGES: usize = 200;
/// How often all Ingresses leave or come back, for the time that a whole table takes.
const WHOLE_REBUILDS: usize = 20;
/// Metrics of whole tables, without what all names begin with: how many, and the longest time.
const WHOLE_TABLES: &str = "s_total{kind=\"whole\"}";
const WHOLE_LONGEST: &str = "longest_seconds{kind=\"whole\"}";
/// Time limit for a change to take effect.
const PATIENCE: Duration = Duration::from_secs(5);
/// Answers that tell the two backends apart by their length.
const OLD: usize = 128;
const NEW: usize = 64;

pub(super) async fn measure(program: &Path, part: Duration) -> Result<Value> {
    let (old, new) = (
        load::backend(vec![b'o'; OLD]).await?,
        load::backend(vec![b'n'; NEW]).await?,
    );
    let api = FakeApi::start().await;
    fill(&api, old)?;
    let start = Instant::now();
    let ours = launch(program).start(&api);
    ours.until_ready().await;
    let ready = start.elapsed();
    let tree = Tree::of(ours.pid());

    let aim = Aim {
        address: ours.http(),
        hosts: (0..HOSTS).map(host).collect(),
        body: OLD,
    };
    load::closed(&aim, &Work::Http1(None), 32, WARM_UP).await?;
    let before = tree.cpu_us();
    let (done, _) = load::closed(&aim, &Work::Http1(None), 32, part).await?;
    let cpu_us = (tree.cpu_us() - before) / done as f64;

    let mut connection = client::connect(ours.http()).await?;
    let (mut endpoints, mut routes) = (Vec::new(), Vec::new());
    for change in 0..CHANGES {
        let number = change * 37 % HOSTS;
        let written = Instant::now();
        api.put("endpointslices", slices_of(number, new));
        endpoints.push(until(&mut connection, &host(number), NEW, written).await?);
        let name = format!("added-{change}.test");
        let written = Instant::now();
        api.put("ingresses", ingress(&name, &name, &format!("s{number}")));
        routes.push(until(&mut connection, &name, NEW, written).await?);
        api.put("endpointslices", slices_of(number, old));
        until(&mut connection, &host(number), OLD, Instant::now()).await?;
    }
    let (rss, peak) = tree.memory_mib();
    let before = tree.cpu_us();
    for number in 0..WHOLE_REBUILDS {
        let mut class = class();
        if number % 2 == 0 {
            class["spec"]["controller"] = json!("example.com/other");
        }
        api.put("ingressclasses", class);
        until_rebuilt(&ours, number + 1).await?;
    }
    let whole_cpu_ms = (tree.cpu_us() - before) / 1000.0 / WHOLE_REBUILDS as f64;
    let rebuilds = rebuilds(&ours).await;
    Ok(json!({
        "hosts": HOSTS,
        "certificates": CERTIFICATES,
        "ready_after_start_ms": rounded(ready.as_secs_f64() * 1000.0),
        "endpoint_p50_ms": rounded(quantile(&mut endpoints, 0.5)),
        "endpoint_p99_ms": rounded(quantile(&mut endpoints, 0.99)),
        "route_p50_ms": rounded(quantile(&mut routes, 0.5)),
        "route_p99_ms": rounded(quantile(&mut routes, 0.99)),
        "cpu_us_per_request": rounded(cpu_us),
        "rss_mib": rounded(rss),
        "peak_mib": rounded(peak),
        "whole_rebuild_cpu_ms": rounded(whole_cpu_ms),
        "whole_rebuild_longest_ms": rebuilds.get(WHOLE_LONGEST).map(|seconds| rounded(seconds * 1000.0)),
        "rebuild_metrics": rebuilds,
    }))
}

/// What the metrics say about the building of tables.
async fn rebuilds(ours: &Program) -> BTreeMap<String, f64> {
    let value = |line: &str| {
        let (name, value) = line.strip_prefix("landfall_ingress_table_rebuild")?.rsplit_once(' ')?;
        Some((name.trim_start_matches('_').to_owned(), value.parse().ok()?))
    };
    let (_, metrics) = ours.page("/metrics").await;
    metrics.lines().filter_map(value).collect()
}

fn host(number: usize) -> String {
    format!("h{number}.test")
}

/// Both endpoints of a host: two addresses of loopback, for one slice has one port.
fn slices_of(number: usize, backend: SocketAddr) -> Value {
    let mut object = slice(&format!("s{number}-0"), &format!("s{number}"), backend);
    let mut second = object["endpoints"][0].clone();
    second["addresses"] = json!(["127.0.0.2"]);
    if let Some(endpoints) = object["endpoints"].as_array_mut() {
        endpoints.push(second);
    }
    object
}

fn fill(api: &FakeApi, backend: SocketAddr) -> Result<()> {
    api.put("ingressclasses", class());
    for number in 0..CERTIFICATES {
        let identity = Identity::new(&[host(number)])?;
        api.put(
            "secrets",
            tls_secret(&format!("tls{number}"), &identity.certificate, &identity.key),
        );
    }
    let route = |number: usize| {
        let mut object = ingress(&format!("i{number}"), &host(number), &format!("s{number}"));
        if number < CERTIFICATES {
            object["spec"]["tls"] = json!([{ "hosts": [host(number)], "secretName": format!("tls{number}") }]);
            object["metadata"]["annotations"] = json!({ "ingress.landfall.dev/ssl-redirect": "false" });
        }
        object
    };
    api.put_all("services", (0..HOSTS).map(|number| service(&format!("s{number}"))));
    api.put_all("endpointslices", (0..HOSTS).map(|number| slices_of(number, backend)));
    api.put_all("ingresses", (0..HOSTS).map(route));
    Ok(())
}

/// Waits until so many whole tables followed the first one. Nothing is asked meanwhile but this: the proxy has one core.
async fn until_rebuilt(ours: &Program, count: usize) -> Result<()> {
    let begun = Instant::now();
    while rebuilds(ours)
        .await
        .get(WHOLE_TABLES)
        .is_none_or(|all| *all < 1.0 + count as f64)
    {
        ensure!(begun.elapsed() < PATIENCE, "no whole table within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Repeats a request until the answer has this length; returns the milliseconds since the change was written.
async fn until(connection: &mut Connection<TcpStream>, host: &str, length: usize, written: Instant) -> Result<f64> {
    let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
    loop {
        let answer = connection.exchange(request.as_bytes()).await;
        let answer = answer.map_err(|failure| anyhow!("{host}: {failure:?}"))?;
        if answer.status == 200 && answer.body.len() == length {
            return Ok(written.elapsed().as_secs_f64() * 1000.0);
        }
        ensure!(
            written.elapsed() < PATIENCE,
            "{host}: still {} after {PATIENCE:?}",
            answer.status
        );
        // The pretended API server shares this thread.
        tokio::task::yield_now().await;
    }
}
