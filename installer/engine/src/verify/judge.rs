//! Turns a probe's result into a cell: whether it is as expected, what was seen, the likely cause, what to do.

use super::nodes::in_a_line;
use super::{Expectation, Target, TargetKind, VantageKind};
use landfall_core::explain::Diagnosis;
use landfall_core::layout::SAMPLE_NAMESPACE;
use landfall_core::verify::{Cell, CellOutcome, ProbeResult, ProbeSpec};

/// Makes the cell of one target from the results of its probes, of which there is at least one: it passes when one of them is as expected.
pub(crate) fn judge(vantage: VantageKind, vantage_name: &str, target: &Target, results: &[ProbeResult]) -> Cell {
    let met = results.iter().position(|result| is_met(&target.expect, result));
    let cell = Cell {
        vantage: vantage_name.to_owned(),
        target: target.name.clone(),
        expected: expected_text(&target.expect),
        outcome: if met.is_some() {
            CellOutcome::Pass
        } else {
            CellOutcome::Fail
        },
        saw: match met {
            Some(at) => seen_at(target, &results[at..=at], at),
            None => seen_at(target, results, 0),
        },
        cause: None,
        next: None,
    };
    if met.is_some() {
        return cell;
    }
    if let Some(why) = skipped_because(vantage, target, results) {
        return Cell {
            expected: format!("no answer: {why}"),
            outcome: CellOutcome::Skip,
            ..cell
        };
    }
    let told = results.iter().find(|result| answered(result)).or(results.last());
    let (cause, next) = match told {
        Some(result) => likely_cause(vantage, target, result),
        None => return cell,
    };
    Cell {
        cause: Some(cause),
        next: Some(next),
        ..cell
    }
}

/// Says why nothing is wrong although nothing answered.
fn skipped_because(vantage: VantageKind, target: &Target, results: &[ProbeResult]) -> Option<String> {
    if results.iter().any(answered) {
        return None;
    }
    if target.filtered.is_some() {
        return target.filtered.clone();
    }
    if vantage == VantageKind::Operator && needs_route(target.kind) {
        // The operator is no member and has no routes into the cluster's networks.
        return Some("the operator has no route to the cluster's networks".to_owned());
    }
    // A refusal at the node's own address shows that there is a route to it.
    let is_silent = |result: &ProbeResult| match result {
        ProbeResult::Failed { kind, .. } => ["timeout", "unreachable"].contains(&kind.as_str()),
        ProbeResult::Http { .. } | ProbeResult::Dns { .. } => false,
    };
    let own = results.last();
    target.unrouted.clone().filter(|_| own.is_some_and(is_silent))
}

/// Says what was seen, with the address where several were tried. `first` is the number of the first result's probe.
fn seen_at(target: &Target, results: &[ProbeResult], first: usize) -> String {
    if target.probes.len() < 2 {
        return results.iter().map(seen).collect();
    }
    let probes = target.probes.iter().skip(first);
    let parts: Vec<String> = probes
        .zip(results)
        .map(|(probe, result)| match probe {
            ProbeSpec::Http { address, .. } => format!("{address}: {}", seen(result)),
            ProbeSpec::Dns { .. } => seen(result),
        })
        .collect();
    parts.join("; ")
}

/// Returns the failed cell of a source whose probes cannot run.
pub(crate) fn unprobed(vantage: &str, why: &str) -> Cell {
    Cell {
        vantage: vantage.to_owned(),
        target: "everything".to_owned(),
        expected: "probes can run there".to_owned(),
        outcome: CellOutcome::Fail,
        saw: why.to_owned(),
        cause: Some("the machine or its probe pod is down or cannot be reached over SSH".to_owned()),
        next: Some("landfall status".to_owned()),
    }
}

/// Returns the failed cell of a machine that could not be connected to.
pub(crate) fn unconnected(vantage: &str, error: &Diagnosis) -> Cell {
    let next = error.next.iter().map(String::as_str).collect::<Vec<_>>().join("; ");
    Cell {
        next: Some(if next.is_empty() {
            "landfall status".to_owned()
        } else {
            next
        }),
        ..unprobed(vantage, &in_a_line(error))
    }
}

/// Returns the failed cell of a target whose address only the API knows, while the API does not answer.
pub(crate) fn unknown_target(vantage: &str, target: &str) -> Cell {
    Cell {
        vantage: vantage.to_owned(),
        target: target.to_owned(),
        expected: "an address that can be probed".to_owned(),
        outcome: CellOutcome::Fail,
        saw: "the API does not answer, and no other place has the address".to_owned(),
        cause: None,
        next: Some("landfall status".to_owned()),
    }
}

/// Returns the skipped cell of a sample that does not exist. Users may delete it; the paths to it cannot be probed then.
pub(crate) fn absent_sample() -> Cell {
    Cell {
        vantage: "operator".to_owned(),
        target: "sample".to_owned(),
        expected: format!("Service nginx in namespace {SAMPLE_NAMESPACE}"),
        outcome: CellOutcome::Skip,
        saw: "it is not there".to_owned(),
        cause: Some("it was deleted: paths to pods, Services and node ports are not probed".to_owned()),
        next: Some(
            "landfall install brings it back; `sample: false` in cluster.yaml leaves it out for good".to_owned(),
        ),
    }
}

fn needs_route(kind: TargetKind) -> bool {
    matches!(kind, TargetKind::PodIp | TargetKind::ClusterIp | TargetKind::Dns)
}

fn answered(result: &ProbeResult) -> bool {
    !matches!(result, ProbeResult::Failed { .. })
}

fn is_met(expect: &Expectation, result: &ProbeResult) -> bool {
    match (expect, result) {
        (Expectation::Http { status, contains }, ProbeResult::Http { status: got, body, .. }) => {
            status == got && body.contains(contains)
        }
        (Expectation::Resolves(address), ProbeResult::Dns { rcode, addresses, .. }) => {
            rcode == "NOERROR" && addresses.contains(address)
        }
        (Expectation::NoSuchName { within_ms }, ProbeResult::Dns { rcode, took_ms, .. }) => {
            rcode == "NXDOMAIN" && took_ms <= within_ms
        }
        _ => false,
    }
}

fn expected_text(expect: &Expectation) -> String {
    match expect {
        Expectation::Http { status, contains } if contains.is_empty() => format!("{status}"),
        Expectation::Http { status, contains } => format!("{status} with {contains:?}"),
        Expectation::Resolves(address) => format!("NOERROR {address}"),
        Expectation::NoSuchName { within_ms } => format!("NXDOMAIN within {within_ms} ms"),
    }
}

fn seen(result: &ProbeResult) -> String {
    match result {
        ProbeResult::Http { status, body, took_ms } => {
            let first: String = body.lines().next().unwrap_or_default().chars().take(60).collect();
            format!("{status} in {took_ms} ms: {first}")
        }
        ProbeResult::Dns {
            rcode,
            addresses,
            took_ms,
        } => format!("{rcode} {} in {took_ms} ms", addresses.join(" ")),
        ProbeResult::Failed { kind, text, took_ms } => format!("{kind} after {took_ms} ms: {text}"),
    }
}

fn likely_cause(vantage: VantageKind, target: &Target, result: &ProbeResult) -> (String, String) {
    let failure = match result {
        ProbeResult::Failed { kind, .. } => kind.as_str(),
        _ => "answered",
    };
    let (cause, next) = match (vantage, target.kind, failure) {
        (
            VantageKind::Outside,
            TargetKind::PodIp | TargetKind::ClusterIp | TargetKind::Dns,
            "unreachable" | "timeout",
        ) => (
            "the machine has no route to the cluster's networks by a node",
            "add the route lines printed below",
        ),
        (VantageKind::Node, TargetKind::ClusterIp, "unreachable") => (
            "the node has no route that covers the Service network",
            "systemctl status landfall-node-settings on the node",
        ),
        (_, TargetKind::PodIp, "timeout" | "unreachable") => (
            "the pod network does not carry packets between the nodes: flannel does not run, or the UDP port of VXLAN is blocked; where ping \
             between pods works and TCP does not, a network card breaks VXLAN's checksums",
            "kubectl -n kube-flannel get pods -o wide; podNetwork.vxlanPort (8472) between the nodes; podNetwork.checksumOffload: false",
        ),
        (_, TargetKind::ClusterIp | TargetKind::NodePort, "refused") => (
            "the Service has no ready endpoint, or kube-proxy has not programmed it",
            "kubectl get endpointslices -A",
        ),
        (_, TargetKind::NodePort, _) => (
            "kube-proxy does not run on that node, or a firewall drops the port",
            "kubectl -n kube-system get pods -o wide",
        ),
        (_, TargetKind::Ingress | TargetKind::IngressTls, "refused") => (
            "the ingress proxy does not run on that node",
            "kubectl -n kube-system get pods -o wide",
        ),
        (_, TargetKind::Ingress | TargetKind::IngressTls, "answered") => (
            "the ingress proxy has another set of routes or no endpoint",
            "kubectl get ingresses,endpointslices -A; the dashboard on that node shows the proxy's routes",
        ),
        (_, TargetKind::IngressTls, "other" | "reset") => (
            "the program on that port does not speak TLS, or only versions that are no longer safe",
            "kubectl -n kube-system logs -l app.kubernetes.io/name=landfall-ingress",
        ),
        (_, TargetKind::Dns, _) => (
            "CoreDNS does not run, or its Service cannot be reached",
            "kubectl -n kube-system get pods -l k8s-app=kube-dns",
        ),
        _ => ("the node is down or cannot be reached from here", "landfall status"),
    };
    (cause.to_owned(), next.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(kind: TargetKind, expect: Expectation) -> Target {
        let probe = ProbeSpec::Dns {
            name: "x".into(),
            server: None,
            tcp: false,
            timeout_ms: 1,
        };
        Target {
            kind,
            name: "t".into(),
            probes: vec![probe],
            expect,
            unrouted: None,
            filtered: None,
        }
    }
    fn http(status: u16, body: &str) -> ProbeResult {
        ProbeResult::Http {
            status,
            body: body.into(),
            took_ms: 1,
        }
    }
    fn failed(kind: &str) -> ProbeResult {
        ProbeResult::Failed {
            kind: kind.into(),
            text: "x".into(),
            took_ms: 1,
        }
    }

    #[test]
    fn a_right_status_with_a_wrong_body_fails() {
        let sample = target(
            TargetKind::NodePort,
            Expectation::Http {
                status: 200,
                contains: "Welcome".into(),
            },
        );
        assert_eq!(
            judge(VantageKind::Node, "node/a", &sample, &[http(200, "Welcome!")]).outcome,
            CellOutcome::Pass
        );
        assert_eq!(
            judge(VantageKind::Node, "node/a", &sample, &[http(200, "other")]).outcome,
            CellOutcome::Fail
        );
        assert_eq!(
            judge(VantageKind::Node, "node/a", &sample, &[http(503, "Welcome!")]).outcome,
            CellOutcome::Fail
        );
    }

    #[test]
    fn only_the_operator_may_lack_routes_to_pods() {
        let pod = target(
            TargetKind::PodIp,
            Expectation::Http {
                status: 200,
                contains: String::new(),
            },
        );
        assert_eq!(
            judge(VantageKind::Operator, "operator", &pod, &[failed("unreachable")]).outcome,
            CellOutcome::Skip
        );
        assert_eq!(
            judge(VantageKind::Operator, "operator", &pod, &[http(500, "")]).outcome,
            CellOutcome::Fail
        );
        let outside = judge(VantageKind::Outside, "outside/pc", &pod, &[failed("unreachable")]);
        assert_eq!(outside.outcome, CellOutcome::Fail);
        assert!(outside.cause.unwrap().contains("no route"));
        let port = target(
            TargetKind::NodePort,
            Expectation::Http {
                status: 200,
                contains: String::new(),
            },
        );
        assert_eq!(
            judge(VantageKind::Operator, "operator", &port, &[failed("timeout")]).outcome,
            CellOutcome::Fail
        );
    }

    #[test]
    fn a_deleted_sample_is_skipped_and_named() {
        let cell = absent_sample();
        assert_eq!(cell.outcome, CellOutcome::Skip);
        assert!(cell.expected.contains("landfall-sample") && cell.next.unwrap().contains("sample: false"));
    }

    #[test]
    fn a_late_negative_answer_fails() {
        let name = target(TargetKind::Dns, Expectation::NoSuchName { within_ms: 1000 });
        let answer = |took_ms| ProbeResult::Dns {
            rcode: "NXDOMAIN".into(),
            addresses: vec![],
            took_ms,
        };
        assert_eq!(
            judge(VantageKind::Pod, "pod/a", &name, &[answer(5)]).outcome,
            CellOutcome::Pass
        );
        assert_eq!(
            judge(VantageKind::Pod, "pod/a", &name, &[answer(4000)]).outcome,
            CellOutcome::Fail
        );
    }

    #[test]
    fn a_node_port_behind_a_filter_is_skipped_unless_something_answers() {
        let expect = Expectation::Http {
            status: 200,
            contains: "Welcome".into(),
        };
        let port = Target {
            filtered: Some("the packet filter of a".into()),
            ..target(TargetKind::NodePort, expect)
        };
        let judged = |result| judge(VantageKind::Operator, "operator", &port, &[result]);
        // A filter drops or rejects.
        for refusal in ["timeout", "unreachable", "refused"] {
            let cell = judged(failed(refusal));
            assert_eq!(
                (cell.outcome, cell.expected.as_str()),
                (CellOutcome::Skip, "no answer: the packet filter of a"),
                "{refusal}"
            );
        }
        assert_eq!(judged(http(404, "other")).outcome, CellOutcome::Fail);
        assert_eq!(judged(http(200, "Welcome")).outcome, CellOutcome::Pass);
    }

    /// A node port of a node to which the operator logs in by another address than its own in the cluster.
    fn behind_nat() -> Target {
        let at = |address: &str| ProbeSpec::Http {
            scheme: landfall_core::verify::Scheme::Http,
            address: address.into(),
            host: "x".into(),
            path: "/".into(),
            timeout_ms: 1,
        };
        let expect = Expectation::Http {
            status: 200,
            contains: "Welcome".into(),
        };
        Target {
            probes: vec![at("203.0.113.1:30080"), at("10.0.0.1:30080")],
            unrouted: Some("no route to 10.0.0.1".into()),
            ..target(TargetKind::NodePort, expect)
        }
    }

    #[test]
    fn one_address_of_a_node_with_two_is_enough() {
        let judged = |results: &[ProbeResult]| judge(VantageKind::Operator, "operator", &behind_nat(), results);
        let outer = judged(&[http(200, "Welcome"), failed("timeout")]);
        assert_eq!(
            (outer.outcome, outer.saw.as_str()),
            (CellOutcome::Pass, "203.0.113.1:30080: 200 in 1 ms: Welcome")
        );
        let inner = judged(&[failed("refused"), http(200, "Welcome")]);
        assert_eq!(
            (inner.outcome, inner.saw.as_str()),
            (CellOutcome::Pass, "10.0.0.1:30080: 200 in 1 ms: Welcome")
        );
        let wrong = judged(&[http(404, "other"), failed("timeout")]);
        assert_eq!(wrong.outcome, CellOutcome::Fail);
        assert!(
            wrong.saw.contains("203.0.113.1:30080: 404") && wrong.saw.contains("10.0.0.1:30080: timeout"),
            "{}",
            wrong.saw
        );
    }

    #[test]
    fn a_node_that_the_operator_has_no_route_to_is_skipped_only_when_nothing_answers() {
        let judged = |results: &[ProbeResult]| judge(VantageKind::Operator, "operator", &behind_nat(), results);
        for silence in ["timeout", "unreachable"] {
            let skipped = judged(&[failed("refused"), failed(silence)]);
            assert_eq!(skipped.outcome, CellOutcome::Skip, "{silence}");
            assert_eq!(skipped.expected, "no answer: no route to 10.0.0.1");
            assert!(skipped.saw.contains("203.0.113.1:30080: refused"), "{}", skipped.saw);
        }
        // A refusal at the node's own address shows a route.
        assert_eq!(
            judged(&[failed("timeout"), failed("refused")]).outcome,
            CellOutcome::Fail
        );
    }
}
