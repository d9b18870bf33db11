//! The 25 scenarios of the upstream Ingress conformance suite (kubernetes-sigs/ingress-controller-conformance, last changed in 2021),
//! written anew from its features: the same in a pretended cluster on loopback and in a real one, with echoing endpoints of this process.
//!
//! As there, a scenario begins when the Ingress's status has an address, and is asked through that address. What the suite demands
//! without saying it in a feature is in [`round_trip`]: status before traffic, an answer that is JSON with Content-Length, Content-Type, Date
//! and Server, HTTP/1.1 to the endpoint, the same method, target and User-Agent.

mod cluster;
mod features;
mod kubectl;
mod loopback;
mod round_trip;
mod world;

pub use cluster::{Cluster, Proxy};
pub use features::{Feature, features};
pub use kubectl::Kubectl;
pub use loopback::Loopback;

use anyhow::{Context, Result};
use features::Scenario;
use round_trip::Over;
use world::World;

/// One scenario and what came of it.
#[derive(Debug)]
pub struct Shown {
    /// Feature and scenario.
    pub name: String,
    /// Why it does not hold.
    pub failure: Option<String>,
}

/// Plays all scenarios of a feature in a cluster, and takes away what it made there. Fails when the feature cannot be set up.
pub async fn play(cluster: &dyn Cluster, feature: Feature) -> Result<Vec<Shown>> {
    let name = feature.name;
    let mut world = World::with(cluster, &feature)
        .await
        .with_context(|| format!("{name} cannot be set up"))?;
    let mut shown = Vec::new();
    for (scenario, what) in &feature.scenarios {
        let held = match what {
            Scenario::Asks(question) => ask(&world, &feature, question).await,
            Scenario::AllPods(service) => all_pods(&mut world, service).await,
            Scenario::LeftAlone(ingress) => world.leaves_alone(ingress).await,
        };
        shown.push(Shown {
            name: format!("{name}: {scenario}"),
            failure: held.err().map(|error| format!("{error:#}")),
        });
    }
    world
        .take_away()
        .await
        .with_context(|| format!("{name} cannot be taken away"))?;
    Ok(shown)
}

async fn ask(world: &World<'_>, feature: &Feature, question: &features::Question) -> Result<()> {
    let over = match (question.tls, &feature.certificate) {
        (true, Some(certificate)) => Over::Tls(certificate),
        _ => Over::Plain,
    };
    // Every proxy of a cluster has to serve alike.
    for proxy in world.proxies() {
        let answer = round_trip::send(proxy, question.method, question.host, question.path, over).await?;
        match question.wants {
            features::Wants::Service(service) => answer.served_by(service),
            features::Wants::NotFound => answer.is_not_found(),
            features::Wants::Https => answer.is_redirected_to(&format!("https://{}", question.host)),
        }
        .with_context(|| {
            format!(
                "{} {}{} at {}",
                question.method, question.host, question.path, proxy.http
            )
        })?;
    }
    Ok(())
}

async fn all_pods(world: &mut World<'_>, service: &str) -> Result<()> {
    const PODS: usize = 10;
    world.scale(service, PODS).await?;
    let proxy = world.proxies()[0];
    let mut pods = std::collections::BTreeSet::new();
    for _ in 0..100 {
        let answer = round_trip::send(proxy, "GET", "load-balancing", "/", Over::Plain).await?;
        answer.served_by(service)?;
        pods.insert(answer.pod());
    }
    anyhow::ensure!(
        pods.len() == PODS,
        "{} of {PODS} pods were reached: {pods:?}",
        pods.len()
    );
    Ok(())
}
