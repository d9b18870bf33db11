//! The proxy beside nginx, haproxy and, on request, traefik: CPU per request, p99 at a fixed rate, memory.
//!
//! Every proxy has one worker on core 0; load, backend and the pretended API server share one thread on core 1. Rounds are
//! interleaved: in each, every case is measured on every proxy, and which is first moves on. A ratio is the median of the rounds'
//! ratios. TLS keys are ECDSA P-256, the group is X25519, the version 1.3, and no session is resumed.

mod figures;
mod hosts;
mod load;
mod memory;
mod process;
mod proxies;

use crate::peers::{Kind, Ports};
use anyhow::{Context, Result};
use clap::Args;
use figures::{quantile, ratio, ratio_spread, rounded, summary};
use load::{Aim, Work};
use proxies::{Identity, Programs, Proxy, start_all};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::{Map, Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Host of every case but those with many.
const HOST: &str = "bench.test";
/// Warm-up before a part is measured, which opens connections and fills pools.
const WARM_UP: Duration = Duration::from_millis(300);
const CASES: [&str; 7] = [
    "http1_small",
    "http1_64k",
    "http2",
    "tls_handshakes",
    "tls_requests",
    "hosts_10",
    "hosts_10000",
];

/// What to measure.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// How often each case is measured on each proxy.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// The cases to run; all when empty.
    #[arg(long, value_delimiter = ',', value_parser = CASES)]
    pub cases: Vec<String>,
    /// Milliseconds of each measured part.
    #[arg(long, default_value_t = 1500)]
    pub part_ms: u64,
    /// The program of traefik, which is a peer then.
    #[arg(long)]
    pub traefik: Option<PathBuf>,
    /// Leave out the table before the last line.
    #[arg(long)]
    pub json: bool,
}

/// One of the first five cases.
struct Case {
    name: &'static str,
    work: Work,
    workers: usize,
    /// Requests per second of the open loop.
    rate: u32,
    large: bool,
    to: fn(&Ports) -> SocketAddr,
}

fn cases(tls: &Arc<rustls::ClientConfig>) -> Vec<Case> {
    let plain = |ports: &Ports| ports.http;
    let case = |name, work, workers, rate, large, to| Case {
        name,
        work,
        workers,
        rate,
        large,
        to,
    };
    vec![
        case("http1_small", Work::Http1(None), 32, 10_000, false, plain),
        case("http1_64k", Work::Http1(None), 32, 2_000, true, plain),
        case("http2", Work::Http2(8), 32, 10_000, false, |ports| ports.http2),
        case(
            "tls_handshakes",
            Work::Handshake(Arc::clone(tls)),
            16,
            500,
            false,
            |ports| ports.https,
        ),
        case(
            "tls_requests",
            Work::Http1(Some(Arc::clone(tls))),
            32,
            8_000,
            false,
            |ports| ports.https,
        ),
    ]
}

/// The figures of one case on one proxy, one value a round.
#[derive(Default)]
struct Series {
    cpu_us: Vec<f64>,
    p50_ms: Vec<f64>,
    p99_ms: Vec<f64>,
    per_second: Vec<f64>,
    rss_mib: Vec<f64>,
    peak_mib: Vec<f64>,
}

impl Series {
    fn json(&self) -> Value {
        json!({
            "cpu_us_per_request": summary(&self.cpu_us),
            "p50_ms": summary(&self.p50_ms),
            "p99_ms": summary(&self.p99_ms),
            "closed_per_s": summary(&self.per_second),
            "rss_mib": summary(&self.rss_mib),
            "peak_mib": rounded(self.peak_mib.iter().copied().fold(0.0, f64::max)),
        })
    }
}

/// Measures and prints; the last line is one JSON object.
pub fn run(program: &Path, settings: &Settings) -> Result<()> {
    let mut cores = CpuSet::new();
    cores.set(1);
    sched_setaffinity(None, &cores).context("a second core for the load")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let figures = runtime.block_on(measure(program, settings))?;
    if !settings.json {
        println!("{figures:#}");
    }
    println!("{figures}");
    Ok(())
}

async fn measure(program: &Path, settings: &Settings) -> Result<Value> {
    let wanted = |name: &str| settings.cases.is_empty() || settings.cases.iter().any(|case| case == name);
    let traefik = settings.traefik.clone().map(Kind::Traefik);
    let programs = Programs {
        ours: program.to_owned(),
        peers: [Kind::Nginx, Kind::Haproxy].into_iter().chain(traefik).collect(),
    };
    let part = Duration::from_millis(settings.part_ms);
    let identity = Identity::new(&[HOST.to_owned()])?;
    let mut figures = Map::new();
    let simple: Vec<_> = cases(&identity.client()?)
        .into_iter()
        .filter(|case| wanted(case.name))
        .collect();
    if !simple.is_empty() {
        compare(&programs, settings, &simple, &identity, &mut figures).await?;
    }
    if wanted("hosts_10") {
        let value = memory::measure(&programs, settings.rounds, part).await?;
        figures.insert("hosts_10".to_owned(), value);
    }
    if wanted("hosts_10000") {
        figures.insert("hosts_10000".to_owned(), hosts::measure(program, part).await?);
    }
    let peers: Map<_, _> = programs
        .peers
        .iter()
        .map(|kind| (kind.name().to_owned(), json!(kind.version())))
        .collect();
    figures.insert("peers".to_owned(), Value::Object(peers));
    figures.insert("rounds".to_owned(), json!(settings.rounds));
    figures.insert(
        "tls".to_owned(),
        json!({ "version": "1.3", "key": "ECDSA P-256", "group": "X25519", "resumption": false }),
    );
    Ok(Value::Object(figures))
}

/// Runs all rounds of all cases and adds an object for each case.
async fn compare(
    programs: &Programs,
    settings: &Settings,
    cases: &[Case],
    identity: &Identity,
    figures: &mut Map<String, Value>,
) -> Result<()> {
    let part = Duration::from_millis(settings.part_ms);
    for large in [false, true] {
        let cases: Vec<_> = cases.iter().filter(|case| case.large == large).collect();
        if cases.is_empty() {
            continue;
        }
        let body = if large { 64 * 1024 } else { 128 };
        let backend = load::backend(vec![b'x'; body]).await?;
        let proxies = start_all(programs, &[HOST.to_owned()], backend, identity).await?;
        let mut series: Vec<Vec<Series>> = cases
            .iter()
            .map(|_| proxies.iter().map(|_| Series::default()).collect())
            .collect();
        let mut refused: Vec<Option<String>> = cases.iter().map(|_| None).collect();
        for round in 0..settings.rounds as usize {
            for (number, case) in cases.iter().enumerate() {
                for turn in 0..proxies.len() {
                    let index = (turn + round) % proxies.len();
                    let (name, proxy) = &proxies[index];
                    if refused[number].is_some() {
                        continue;
                    }
                    let measured = one(case, proxy, body, part, &mut series[number][index]).await;
                    if let Err(error) = measured {
                        refused[number] = Some(format!("{name}: {error:#}"));
                    }
                }
            }
            eprintln!("round {} of {}", round + 1, settings.rounds);
        }
        for (number, case) in cases.iter().enumerate() {
            let value = match refused[number].take() {
                Some(why) => json!({ "skipped": why }),
                None => case_json(case, &proxies, &series[number]),
            };
            figures.insert(case.name.to_owned(), value);
        }
    }
    Ok(())
}

async fn one(case: &Case, proxy: &Proxy, body: usize, part: Duration, series: &mut Series) -> Result<()> {
    let address = (case.to)(&proxy.ports());
    let aim = Aim {
        address,
        hosts: Arc::from([HOST.to_owned()]),
        body,
    };
    load::closed(&aim, &case.work, case.workers, WARM_UP).await?;
    let tree = proxy.tree();
    let before = tree.cpu_us();
    let (done, took) = load::closed(&aim, &case.work, case.workers, part).await?;
    series.cpu_us.push((tree.cpu_us() - before) / done as f64);
    series.per_second.push(done as f64 / took.as_secs_f64());
    let mut took = load::open(&aim, &case.work, case.workers, case.rate, part).await?;
    series.p50_ms.push(quantile(&mut took, 0.5));
    series.p99_ms.push(quantile(&mut took, 0.99));
    let (rss, peak) = tree.memory_mib();
    series.rss_mib.push(rss);
    series.peak_mib.push(peak);
    Ok(())
}

fn case_json(case: &Case, proxies: &[(&'static str, Proxy)], series: &[Series]) -> Value {
    let mut object = Map::new();
    let ours = &series[0];
    for ((name, _), theirs) in proxies.iter().zip(series).skip(1) {
        object.insert(format!("cpu_ratio_{name}"), json!(ratio(&ours.cpu_us, &theirs.cpu_us)));
        let spread = ratio_spread(&ours.cpu_us, &theirs.cpu_us);
        object.insert(format!("cpu_ratio_spread_{name}"), json!(spread));
        object.insert(format!("p99_ratio_{name}"), json!(ratio(&ours.p99_ms, &theirs.p99_ms)));
        let spread = ratio_spread(&ours.p99_ms, &theirs.p99_ms);
        object.insert(format!("p99_ratio_spread_{name}"), json!(spread));
        object.insert(
            format!("rss_ratio_{name}"),
            json!(ratio(&ours.rss_mib, &theirs.rss_mib)),
        );
    }
    object.insert("open_loop_per_s".to_owned(), json!(case.rate));
    for ((name, _), series) in proxies.iter().zip(series) {
        object.insert((*name).to_owned(), series.json());
    }
    Value::Object(object)
}
