//! The last quarter of an hour, as columns of numbers: a graph is drawn from each as it is.

use super::super::Site;
use super::query::{Key, Line, Query};
use landfall_ingress_telemetry::traffic::RouteKey;
use landfall_ingress_telemetry::traffic::series::{PERIOD, SAMPLES, Sample};
use serde_json::{Value, json};

/// A route with its samples.
struct SeriesLine<'a> {
    key: &'a RouteKey,
    samples: Vec<Sample>,
}

impl Site {
    /// Samples of everything, and of the busiest routes as a list of which `query` has its part.
    pub(super) fn series(&self, query: &Query) -> Value {
        let traffic = &self.state.observer.traffic;
        let now = traffic.now().second;
        let series = traffic.series();
        let routes = series.routes().into_iter();
        let lines = routes.map(|(key, samples)| SeriesLine { key, samples }).collect();
        let mut list = query.apply(lines, &self.lines);
        let (samples, whole): (Vec<_>, Vec<_>) = series.whole().unzip();
        list["all"] = columns(&samples);
        list["all"]["connections"] = whole.iter().map(|about| about.connections).collect();
        list["seconds_ago"] = whole.iter().map(|about| now.saturating_sub(about.second)).collect();
        list["lengths"] = whole.iter().map(|about| about.length).collect();
        list["range_seconds"] = json!(PERIOD.as_secs() * SAMPLES as u64);
        list
    }
}

/// Counts of each sample; times are in milliseconds, `null` where nothing was asked.
fn columns(samples: &[Sample]) -> Value {
    let counts = |of: fn(&Sample) -> u32| samples.iter().map(of).collect::<Vec<_>>();
    let quantile = |i: usize| {
        let of = |sample: &Sample| sample.quantiles.map(|both| f64::from(both[i]) / 1000.0);
        samples.iter().map(of).collect::<Vec<_>>()
    };
    json!({ "requests": counts(|s| s.requests), "errors_ours": counts(|s| s.ours), "errors_upstream": counts(|s| s.upstream),
        "p50_ms": quantile(0), "p99_ms": quantile(1) })
}

impl Line for SeriesLine<'_> {
    fn state(&self) -> &'static str {
        ""
    }

    fn any_text(&self, is_wanted: &dyn Fn(&str) -> bool) -> bool {
        let RouteKey {
            host, path, ingress, ..
        } = self.key;
        [host, path, ingress].into_iter().any(|text| is_wanted(text))
    }

    fn key(&self, name: &str) -> Key<'_> {
        match name {
            "host" => (&*self.key.host).into(),
            "path" => (&*self.key.path).into(),
            "ingress" => (&*self.key.ingress).into(),
            _ => Key::None,
        }
    }

    fn json(&self) -> Value {
        let mut line = columns(&self.samples);
        line["host"] = json!(&*self.key.host);
        line["path"] = json!(&*self.key.path);
        line["exact"] = json!(self.key.exact);
        line["ingress"] = json!(&*self.key.ingress);
        line
    }
}
