//! Memory with ten hosts: steady after load, and at its highest. Every round starts all proxies anew.

use super::WARM_UP;
use super::figures::{ratio, summary};
use super::load::{self, Aim, Work};
use super::proxies::{Identity, Programs, start_all};
use anyhow::Result;
use serde_json::{Map, Value, json};
use std::time::Duration;

const HOSTS: usize = 10;
/// Bytes of an answer's body.
const BODY: usize = 128;
/// Connections at once while there is load.
const WORKERS: usize = 32;
/// Pause between the load and the measurement, in which short-lived memory is freed.
const REST: Duration = Duration::from_secs(1);

pub(super) async fn measure(programs: &Programs, rounds: u32, part: Duration) -> Result<Value> {
    let hosts: Vec<_> = (0..HOSTS).map(|number| format!("h{number}.test")).collect();
    let identity = Identity::new(&hosts)?;
    let backend = load::backend(vec![b'x'; BODY]).await?;
    let mut series: Vec<(&str, Vec<f64>, Vec<f64>)> = Vec::new();
    for _ in 0..rounds {
        let proxies = start_all(programs, &hosts, backend, &identity).await?;
        for (index, (name, proxy)) in proxies.iter().enumerate() {
            let aim = Aim {
                address: proxy.ports().http,
                hosts: hosts.clone().into(),
                body: BODY,
            };
            load::closed(&aim, &Work::Http1(None), WORKERS, WARM_UP).await?;
            load::closed(&aim, &Work::Http1(None), WORKERS, part).await?;
            tokio::time::sleep(REST).await;
            let (steady, peak) = proxy.tree().memory_mib();
            if series.len() == index {
                series.push((name, Vec::new(), Vec::new()));
            }
            series[index].1.push(steady);
            series[index].2.push(peak);
        }
    }
    let mut object = Map::from_iter([("hosts".to_owned(), json!(HOSTS))]);
    for (name, steady, peak) in &series {
        if let Some((_, ours, ours_peak)) = series.first().filter(|(first, ..)| first != name) {
            object.insert(format!("rss_ratio_{name}"), json!(ratio(ours, steady)));
            object.insert(format!("peak_ratio_{name}"), json!(ratio(ours_peak, peak)));
        }
        object.insert(
            (*name).to_owned(),
            json!({ "rss_mib": summary(steady), "peak_mib": summary(peak) }),
        );
    }
    Ok(Value::Object(object))
}
