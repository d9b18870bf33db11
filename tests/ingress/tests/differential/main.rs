//! The same bytes through Debian's nginx, haproxy and landfall, equally configured: what differs is listed with a reason.
//!
//! `corpus.rs` has the cases, `recorder.rs` the endpoints, `exchange.rs` the client, `compare.rs` what is compared, `listed.rs` the list.

mod compare;
mod corpus;
mod exchange;
mod listed;
mod recorder;

use compare::{Difference, differences};
use corpus::Case;
use exchange::Outcome;
use landfall_test_ingress::FakeApi;
use landfall_test_ingress::needs::installed;
use landfall_test_ingress::objects::{class, ingress, pem, service, slice};
use landfall_test_ingress::peers::{Kind, Peer, Site, Task};
use landfall_test_ingress::program::{Launch, Program, built};
use recorder::Recorder;
use serde_json::json;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

/// Goes to `plain`, and below [`GUARDED`] to `guarded`.
const HOST: &str = "h.test";
/// Goes to `guarded`.
const OTHER: &str = "other.test";
const GUARDED: &str = "/guarded";
const PEERS: [Kind; 2] = [Kind::Nginx, Kind::Haproxy];

#[tokio::test(flavor = "multi_thread")]
async fn every_difference_from_nginx_and_haproxy_is_listed_with_its_reason() {
    if !installed("the differential", &PEERS.map(|kind| kind.program().to_owned())) {
        return;
    }
    let cases = corpus::parse(include_str!("corpus.txt"));
    let (ours, peers) = tokio::join!(landfall(&cases), theirs(&cases));
    let mut found = BTreeSet::new();
    for (name, theirs) in &peers {
        for ((case, ours), theirs) in cases.iter().zip(&ours).zip(theirs) {
            found.extend(differences(&case.name, name, ours, theirs));
        }
    }
    let reasons = listed::parse(include_str!("differences.txt"));
    let known: BTreeSet<Difference> = reasons.iter().flat_map(|reason| &reason.rows).cloned().collect();
    let lines = |rows: Vec<&Difference>| rows.into_iter().map(listed::line).collect::<String>();
    let (new, gone) = (
        lines(found.difference(&known).collect()),
        lines(known.difference(&found).collect()),
    );
    assert!(
        new.is_empty() && gone.is_empty(),
        "what differs is not what differences.txt lists.\nNot listed; mend it, or put it under a reason:\n{new}\nListed, and gone:\n{gone}"
    );

    let versions = PEERS.map(|kind| format!("Debian's {} {}", kind.name(), release(&kind.version())));
    let document = listed::document(&reasons, cases.len(), &versions);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("DIFFERENTIAL.md");
    if std::env::var_os("LANDFALL_BLESS").is_some() {
        std::fs::write(&file, &document).unwrap();
    }
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        kept == document,
        "DIFFERENTIAL.md is not what the list says; LANDFALL_BLESS=1 writes it anew"
    );
}

/// Major and minor number in a program's words; what Debian mends within one changes nothing here.
fn release(version: &str) -> String {
    let start = version.find(|c: char| c.is_ascii_digit()).expect("a version");
    version[start..].split('.').take(2).collect::<Vec<_>>().join(".")
}

/// What becomes of each case.
async fn play(cases: &[Case], proxy: SocketAddr, recorder: Recorder) -> Vec<Outcome> {
    let cases = cases.to_vec();
    let play = move || {
        cases
            .iter()
            .map(|case| exchange::play(case, proxy, &recorder))
            .collect()
    };
    tokio::task::spawn_blocking(play).await.unwrap()
}

async fn landfall(cases: &[Case]) -> Vec<Outcome> {
    let recorder = Recorder::default();
    let api = FakeApi::start().await;
    api.put("ingressclasses", class());
    for name in ["plain", "guarded"] {
        api.put("services", service(name));
        api.put("endpointslices", slice(name, name, recorder.endpoint(name)));
    }
    let mut route = ingress("h", HOST, "plain");
    let paths = route["spec"]["rules"][0]["http"]["paths"].as_array_mut().unwrap();
    let mut guarded = paths[0].clone();
    guarded["path"] = json!(GUARDED);
    guarded["backend"]["service"]["name"] = json!("guarded");
    paths.push(guarded);
    api.put("ingresses", route);
    api.put("ingresses", ingress("other", OTHER, "guarded"));
    let program: Program = Launch::new(built()).argument("--access-log=off").start(&api);
    program.until_ready().await;
    play(cases, program.http(), recorder).await
}

async fn theirs(cases: &[Case]) -> Vec<(&'static str, Vec<Outcome>)> {
    let made = rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap();
    let pem = (
        pem("CERTIFICATE", made.cert.der()),
        pem("PRIVATE KEY", &made.signing_key.serialize_der()),
    );
    let start = async |kind: Kind| {
        let recorder = Recorder::default();
        let (plain, guarded) = (recorder.endpoint("plain"), recorder.endpoint("guarded"));
        let site = |host: &str, path, endpoint| Site {
            host: host.to_owned(),
            path,
            backends: vec![endpoint],
        };
        let sites = [
            site(HOST, GUARDED, guarded),
            site(HOST, "/", plain),
            site(OTHER, "/", guarded),
        ];
        let task = Task {
            core: None,
            sites: &sites,
            certificate: (&pem.0, &pem.1),
        };
        let peer = Peer::start(&kind, &task).await.unwrap();
        (kind.name(), play(cases, peer.ports.http, recorder).await)
    };
    let [nginx, haproxy] = PEERS.map(start);
    let (nginx, haproxy) = tokio::join!(nginx, haproxy);
    vec![nginx, haproxy]
}
