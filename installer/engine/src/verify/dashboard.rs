//! Requests each node's dashboard with the password, on the node's own loopback; all other sources only check that the password is asked for.
//! The answers also tell which Secrets the proxy may not read.

use crate::cluster::Cluster;
use crate::dashboard::{self, Login, Named};
use crate::fleet::{self, Sessions};
use crate::session::NodeSession;
use landfall_core::explain::Diagnosis;
use landfall_core::name::NodeName;
use landfall_core::spec::Desired;
use landfall_core::verify::{Cell, CellOutcome};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Probes the dashboard of each connected member. `api_error` says why the API, which holds the login, does not answer. Blocks for the requests.
pub(super) fn probe(
    desired: &Desired,
    cluster: &Cluster,
    members: &Sessions,
    api_error: Option<&Diagnosis>,
) -> Vec<Cell> {
    let ingress = &desired.spec.ingress;
    if !ingress.enabled || !ingress.dashboard {
        return vec![];
    }
    let login = match api_error {
        Some(diagnosis) => Err(diagnosis.clone()),
        None => dashboard::login(desired, cluster, members),
    };
    let login = match login {
        Ok(login) => login,
        Err(diagnosis) => {
            let red = |name: &NodeName| cell(&format!("node/{name}"), name.as_str(), Err(&diagnosis), None);
            return members.keys().map(red).collect();
        }
    };
    let sessions: Vec<&Arc<NodeSession>> = members.values().collect();
    let answers = fleet::each(&sessions, |session| {
        dashboard::secrets(session, ingress.dashboard_port, login.as_ref())
    });
    let judged = sessions.iter().zip(&answers).map(|(session, answer)| {
        let name = session.name().as_str();
        cell(&format!("node/{name}"), name, answer.as_ref(), login.as_ref())
    });
    let mut cells: Vec<Cell> = judged.collect();
    cells.extend(forbidden(answers.iter().filter_map(|answer| answer.as_ref().ok())));
    cells
}

/// Makes a cell for each Secret or ConfigMap that some Ingress names and the proxy may not read. These do not belong to landfall, so the cell
/// is not failed, but the user who made the Ingress has to know.
fn forbidden<'a>(answers: impl Iterator<Item = &'a Named>) -> Vec<Cell> {
    let uses = answers
        .flat_map(|answer| &answer.uses)
        .filter(|used| used.state == "forbidden");
    let named: BTreeSet<(&str, &str, &str)> = uses
        .map(|used| (used.namespace.as_str(), used.name.as_str(), used.kind.as_str()))
        .collect();
    let cell = |(namespace, name, kind): (&str, &str, &str)| {
        Cell {
        vantage: "ingress".to_owned(),
        target: format!("{}/{namespace}/{name}", kind.to_lowercase()),
        expected: format!("the ingress proxy may read {kind} {namespace}/{name}, which an Ingress names"),
        outcome: CellOutcome::Skip,
        saw: "it may not".to_owned(),
        cause: Some("the proxy reads no Secret until it is allowed to; a host with TLS has a self-signed certificate until then".to_owned()),
        next: Some(format!("landfall ingress allow {namespace}")),
    }
    };
    named.into_iter().map(cell).collect()
}

/// Makes the cell of one node's answer.
fn cell(vantage: &str, name: &str, answer: Result<&Named, &Diagnosis>, login: Option<&Login>) -> Cell {
    let with = if login.is_some() { " with the password" } else { "" };
    let (outcome, saw) = match answer {
        Ok(answer) if answer.status == 200 => (CellOutcome::Pass, "200".to_owned()),
        Ok(answer) => (CellOutcome::Fail, answer.status.to_string()),
        Err(diagnosis) => {
            let saw = diagnosis.saw.first().map_or(String::new(), |saw| format!(": {saw}"));
            (CellOutcome::Fail, format!("{}{saw}", diagnosis.what))
        }
    };
    let likely = match answer {
        Ok(answer) => Some(cause(answer.status)),
        Err(_) => Some((
            "the ingress proxy does not run on that node, or its login is gone",
            "landfall status; landfall install",
        )),
    };
    let likely = likely.filter(|_| outcome == CellOutcome::Fail);
    Cell {
        vantage: vantage.to_owned(),
        target: format!("dashboard/{name}"),
        expected: format!("200{with}, on the node's loopback"),
        outcome,
        saw,
        cause: likely.map(|(cause, _)| cause.to_owned()),
        next: likely.map(|(_, next)| next.to_owned()),
    }
}

fn cause(status: u16) -> (&'static str, &'static str) {
    match status {
        401 => (
            "the proxy has another password than the Secret: the kubelet renews a mounted Secret within two minutes",
            "landfall verify, after two minutes",
        ),
        404 => (
            "the proxy has no password yet, or it was started without a dashboard",
            "landfall verify, after two minutes; then landfall install",
        ),
        _ => (
            "something else than the ingress proxy has the dashboard's port",
            "ss -ltnp on the node",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_core::explain::Code;
    use landfall_core::secret::Secret;

    #[test]
    fn a_probe_is_judged_by_its_status_and_says_what_to_do() {
        let login = Login {
            user: "landfall".to_owned(),
            password: Secret::new("hunter2"),
        };
        let answer = |status| Named { status, uses: vec![] };
        let right = cell("node/a", "a", Ok(&answer(200)), Some(&login));
        assert_eq!((right.outcome, right.next), (CellOutcome::Pass, None));
        assert_eq!(right.target, "dashboard/a");
        for status in [401, 404, 502] {
            let wrong = cell("node/a", "a", Ok(&answer(status)), Some(&login));
            assert_eq!(wrong.outcome, CellOutcome::Fail);
            assert!(wrong.cause.is_some() && wrong.next.is_some() && wrong.saw == status.to_string());
            assert!(!format!("{wrong:?}").contains("hunter2"));
        }
        let used = |name: &str, state: &str| crate::dashboard::Use {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            kind: "Secret".to_owned(),
            state: state.to_owned(),
        };
        let named = Named {
            status: 200,
            uses: vec![used("a", "read"), used("b", "forbidden"), used("c", "missing")],
        };
        let cells = forbidden([&named, &named].into_iter());
        assert_eq!(cells.len(), 1);
        assert_eq!(cells[0].target, "secret/shop/b");
        assert_eq!(cells[0].next.as_deref(), Some("landfall ingress allow shop"));
        let gone = Diagnosis::new(Code::ClusterApi, "it is gone").saw("nothing");
        assert_eq!(cell("node/a", "a", Err(&gone), None).saw, "it is gone: nothing");
    }
}
