//! The proxy beside nginx and haproxy: CPU per request, p99 at a fixed rate, memory.
//!
//! Every proxy has one worker on core 0; load, backend and the pretended API server share one thread on core 1. Rounds are
//! interleaved: in each, every case is measured on every proxy, and which is first moves on. A ratio is the median of the rounds'
//! ratios. TLS keys are ECDSA P-256, the group is X25519, the version 1.3, and no session is resumed.

mod figures;
mod hosts;
mod load;
mod process;

use crate::FakeApi;
use crate::objects::{class, ingress, pem, service, slice, tls_secret};
use crate::peers::{Peer, Ports, Site, Task};
use crate::program::{Launch, Program};
use anyhow::{Context, Result};
use clap::Args;
use figures::{quantile, ratio, rounded, summary};
use load::{Aim, Work};

use process::Tree;
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::{Map, Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Host of every case but the one with many.
const HOST: &str = "bench.test";
/// Load before a part is measured: connections are made, pools are filled.
const WARM_UP: Duration = Duration::from_millis(300);
const CASES: [&str; 6] = [
    "http1_small",
    "http1_64k",
    "http2",
    "tls_handshake",
    "tls_requests",
    "hosts_10000",
];

/// What to measure.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// How often each case is measured on each proxy.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Only these cases.
    #[arg(long, value_delimiter = ',', value_parser = CASES)]
    pub cases: Vec<String>,
    /// Milliseconds of each measured part.
    #[arg(long, default_value_t = 1500)]
    pub part_ms: u64,
    /// More peers; traefik is the only one known, and is run where it is installed.
    #[arg(long, value_parser = ["traefik"])]
    pub with: Vec<String>,
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
    to: fn(&Ports) -> Option<SocketAddr>,
}

fn cases(tls: &Arc<rustls::ClientConfig>) -> Vec<Case> {
    let plain = |ports: &Ports| Some(ports.http);
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
        case("http2", Work::Http2(8), 32, 10_000, false, |ports| Some(ports.http2)),
        case(
            "tls_handshake",
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

/// A proxy that is measured.
enum Proxy {
    Ours(Box<Program>),
    Peer(Peer),
}

impl Proxy {
    fn ports(&self) -> Ports {
        match self {
            // HTTP/1.1 and HTTP/2 by prior knowledge share a port.
            Self::Ours(program) => Ports {
                http: program.http(),
                http2: program.http(),
                https: program.port("https"),
            },
            Self::Peer(peer) => peer.ports,
        }
    }

    fn tree(&self) -> Tree {
        match self {
            Self::Ours(program) => Tree::of(program.pid()),
            Self::Peer(peer) => Tree::of(peer.pid()),
        }
    }
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
    let identity = Identity::new(&[HOST])?;
    let mut figures = Map::new();
    let simple: Vec<_> = cases(&identity.client()?)
        .into_iter()
        .filter(|case| wanted(case.name))
        .collect();
    if !simple.is_empty() {
        compare(program, settings, &simple, &identity, &mut figures).await?;
    }
    if wanted("hosts_10000") {
        let part = Duration::from_millis(settings.part_ms);
        figures.insert("hosts_10000".to_owned(), hosts::measure(program, part).await?);
    }
    let traefik = settings.with.iter().any(|peer| peer == "traefik");
    let peers = json!({
        "nginx": version("/usr/sbin/nginx", "-v"),
        "haproxy": version("/usr/sbin/haproxy", "-v"),
        "traefik": match (traefik, find("traefik")) {
            (false, _) => "not asked for".to_owned(),
            (true, None) => "not measured: no program of this name is installed, and Debian has no package of it".to_owned(),
            (true, Some(path)) => format!("not measured: {} is there, but this command has no configuration for it", path.display()),
        },
    });
    figures.insert("peers".to_owned(), peers);
    figures.insert("rounds".to_owned(), json!(settings.rounds));
    figures.insert(
        "tls".to_owned(),
        json!({ "version": "1.3", "key": "ECDSA P-256", "group": "X25519", "resumption": false }),
    );
    Ok(Value::Object(figures))
}

/// Runs all rounds of all cases and adds an object for each case.
async fn compare(
    program: &Path,
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
        let folder = tempfile::tempdir()?;
        let proxies = start_all(program, backend, identity, folder.path()).await?;
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
    let address = (case.to)(&proxy.ports()).context("takes no TLS")?;
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
        object.insert(format!("p99_ratio_{name}"), json!(ratio(&ours.p99_ms, &theirs.p99_ms)));
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

/// Ours comes first.
async fn start_all(
    program: &Path,
    backend: SocketAddr,
    identity: &Identity,
    folder: &Path,
) -> Result<Vec<(&'static str, Proxy)>> {
    let api = FakeApi::start().await;
    api.put("ingressclasses", class());
    api.put("services", service("bench"));
    api.put("endpointslices", slice("bench-0", "bench", backend));
    let mut route = ingress("bench", HOST, "bench");
    route["spec"]["tls"] = json!([{ "hosts": [HOST], "secretName": "bench-tls" }]);
    // Plain requests are measured too.
    route["metadata"]["annotations"] = json!({ "ingress.landfall.dev/ssl-redirect": "false" });
    api.put("secrets", tls_secret("bench-tls", &identity.certificate, &identity.key));
    api.put("ingresses", route);
    let ours = launch(program).start(&api);
    ours.until_ready().await;
    let sites = [Site {
        host: HOST.to_owned(),
        path: "/",
        backends: vec![backend],
    }];
    let (certificate, key) = (
        pem("CERTIFICATE", &identity.certificate),
        pem("PRIVATE KEY", &identity.key),
    );
    let mut all = vec![("landfall", Proxy::Ours(Box::new(ours)))];
    for name in ["nginx", "haproxy"] {
        let folder = folder.join(name);
        std::fs::create_dir(&folder)?;
        let task = Task {
            core: Some(0),
            folder: &folder,
            sites: &sites,
            certificate: (&certificate, &key),
        };
        let peer = if name == "nginx" {
            Peer::nginx(&task)
        } else {
            Peer::haproxy(&task)
        };
        all.push((name, Proxy::Peer(peer?)));
    }
    Ok(all)
}

/// One worker on core 0, with what a pod has on: metrics, timeouts.
fn launch(program: &Path) -> Launch {
    Launch::new(program).on_core(0).argument("--workers=1")
}

/// A self-signed certificate with its ECDSA P-256 key, both in DER.
struct Identity {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Identity {
    fn new(hosts: &[&str]) -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(hosts.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        Ok(Self {
            certificate: made.cert.der().to_vec(),
            key: made.signing_key.serialize_der(),
        })
    }

    /// A client that trusts only this certificate and resumes nothing.
    fn client(&self) -> Result<Arc<rustls::ClientConfig>> {
        let mut provider = rustls::crypto::ring::default_provider();
        provider.kx_groups = vec![rustls::crypto::ring::kx_group::X25519];
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.certificate.clone().into())?;
        let builder = rustls::ClientConfig::builder_with_provider(Arc::new(provider));
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13])?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.resumption = rustls::client::Resumption::disabled();
        Ok(Arc::new(config))
    }
}

fn version(program: &str, flag: &str) -> String {
    let Ok(output) = std::process::Command::new(program).arg(flag).output() else {
        return "not installed".to_owned();
    };
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&text)
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
}
