//! Traffic as Prometheus series. Statuses count by class, so a route has ten series at most.

use super::stats::BOUNDS_MS;
use crate::metrics::{Text, label};
use crate::traffic::{EntryPoint, Numbers, RouteStats, Routes, Traffic};

type Labelled = (String, Numbers);
/// One of the numbers.
type Pick = fn(&Numbers) -> u64;

impl Traffic {
    /// Writes the series of entry points and routes.
    pub fn render(&self, text: &mut Text) {
        let entries = EntryPoint::ALL.map(|e| (format!("entrypoint=\"{}\"", e.label()), self.entry_numbers(e)));
        write(text, "entrypoint", &entries);
        let name = "entrypoint_own_responses_total";
        text.series::<u64>(name, "counter", "Answers that no endpoint gave, by reason.", []);
        for (labels, numbers) in &entries {
            for (reason, count) in &numbers.ours {
                text.sample(name, &format!("{{{labels},reason=\"{}\"}}", reason.label()), count);
            }
        }
        let name = "entrypoint_request_duration_seconds";
        text.series::<u64>(
            name,
            "histogram",
            "Time from the request's head to the answer's end.",
            [],
        );
        for (labels, numbers) in &entries {
            let mut total = 0;
            for (bound, count) in BOUNDS_MS.iter().zip(numbers.durations) {
                total += count;
                let bound = *bound as f64 / 1000.0;
                text.sample(
                    &format!("{name}_bucket"),
                    &format!("{{{labels},le=\"{bound}\"}}"),
                    total,
                );
            }
            text.sample(
                &format!("{name}_bucket"),
                &format!("{{{labels},le=\"+Inf\"}}"),
                numbers.ended,
            );
            text.sample(&format!("{name}_sum"), &format!("{{{labels}}}"), numbers.seconds);
            text.sample(&format!("{name}_count"), &format!("{{{labels}}}"), numbers.ended);
        }
        self.render_routes(text);
    }

    fn render_routes(&self, text: &mut Text) {
        let (own, others) = self.routes.series();
        let mut routes: Vec<Labelled> = own
            .iter()
            .map(|(key, stats)| {
                let kind = if key.exact { "exact" } else { "prefix" };
                let (ingress, host, path) = (label(&key.ingress), label(&key.host), label(&key.path));
                let labels = format!("ingress=\"{ingress}\",host=\"{host}\",path=\"{path}\",type=\"{kind}\"");
                (labels, stats.totals())
            })
            .collect();
        let labels = format!("ingress=\"{0}\",host=\"\",path=\"\",type=\"\"", Routes::OTHERS);
        routes.push((labels, sum(&others)));
        write(text, "route", &routes);
        let sums = routes.iter().map(|(labels, n)| (format!("{{{labels}}}"), n.seconds));
        text.series(
            "route_request_seconds_total",
            "counter",
            "Sum of the durations of requests that are over.",
            sums,
        );
    }
}

/// The series that entry points and routes have in common.
fn write(text: &mut Text, of: &str, all: &[Labelled]) {
    let name = format!("{of}_requests_total");
    text.series::<u64>(&name, "counter", "Answers by class of status.", []);
    for (labels, numbers) in all {
        for (class, count) in numbers.classes.iter().enumerate().filter(|(_, count)| **count > 0) {
            text.sample(&name, &format!("{{{labels},class=\"{class}xx\"}}"), count);
        }
    }
    let name = format!("{of}_errors_total");
    text.series::<u64>(
        &name,
        "counter",
        "Errors by who made them: 5xx of endpoints, or answers of our own.",
        [],
    );
    for (labels, numbers) in all {
        for (by, count) in [("upstream", numbers.upstream), ("proxy", numbers.ours_total())] {
            text.sample(&name, &format!("{{{labels},by=\"{by}\"}}"), count);
        }
    }
    let values: [(&str, &str, Pick); 3] = [
        ("cut_total", "Answers that did not arrive whole.", |n| n.cut),
        ("received_bytes_total", "Bytes of requests' bodies.", |n| n.received),
        ("sent_bytes_total", "Bytes of answers' bodies.", |n| n.sent),
    ];
    for (name, help, value) in values {
        let values = all.iter().map(|(labels, n)| (format!("{{{labels}}}"), value(n)));
        text.series(&format!("{of}_{name}"), "counter", help, values);
    }
}

fn sum(all: &[RouteStats]) -> Numbers {
    let mut total = Numbers::default();
    for stats in all {
        total.add(stats.totals());
    }
    total
}

#[cfg(test)]
mod tests {
    use super::super::{End, Made, RouteKey, Slot};
    use super::*;
    use crate::reason::Reason;
    use http::StatusCode;
    use std::time::Duration;

    #[test]
    fn routes_beyond_the_cap_are_counted_together_and_names_are_escaped() {
        let traffic = Traffic::new(1);
        let slots = [Slot::default(), Slot::default(), Slot::default()];
        for (slot, host) in slots.iter().zip(["a\"b", "c", "d"]) {
            let key = || RouteKey {
                ingress: "n/i".into(),
                host: host.into(),
                path: "/".into(),
                exact: false,
            };
            let route = traffic.routes.find(slot, key);
            let took = Duration::from_millis(30);
            let made = Made::Us(Reason::NoEndpoint);
            traffic.answered(
                EntryPoint::Https,
                Some(route),
                StatusCode::SERVICE_UNAVAILABLE,
                made,
                took,
            );
            let end = End {
                took,
                sent: 10,
                ..End::default()
            };
            traffic.ended(EntryPoint::Https, Some(route), &end);
        }
        let mut text = Text::default();
        traffic.render(&mut text);
        let text = text.finish();
        for line in [
            "entrypoint_requests_total{entrypoint=\"https\",class=\"5xx\"} 3",
            "entrypoint_own_responses_total{entrypoint=\"https\",reason=\"no_endpoint\"} 3",
            "entrypoint_request_duration_seconds_bucket{entrypoint=\"https\",le=\"0.025\"} 0",
            "entrypoint_request_duration_seconds_bucket{entrypoint=\"https\",le=\"0.05\"} 3",
            "entrypoint_request_duration_seconds_sum{entrypoint=\"https\"} 0.09",
            "route_requests_total{ingress=\"n/i\",host=\"a\\\"b\",path=\"/\",type=\"prefix\",class=\"5xx\"} 1",
            "route_requests_total{ingress=\"(others)\",host=\"\",path=\"\",type=\"\",class=\"5xx\"} 2",
            "route_errors_total{ingress=\"(others)\",host=\"\",path=\"\",type=\"\",by=\"proxy\"} 2",
            "route_sent_bytes_total{ingress=\"(others)\",host=\"\",path=\"\",type=\"\"} 20",
        ] {
            assert!(text.contains(&format!("landfall_ingress_{line}\n")), "{line}\n{text}");
        }
        assert!(!text.contains("host=\"c\""), "{text}");
    }
}
