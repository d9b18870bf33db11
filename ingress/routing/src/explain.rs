//! Why a request goes where it goes: the host that fits, every path of it with the reason why it lost.

use crate::route::Route;
use crate::route_table::RouteTable;
use crate::table::Table;
use crate::virtual_host::VirtualHost;
use landfall_ingress_http::host::host_of;
use landfall_ingress_http::path;
use std::sync::Arc;

/// Paths of one host that are shown; the winner always is.
const MOST: usize = 200;

/// The way of one request through the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The host as it is compared; none when it is no host.
    pub host: Option<String>,
    /// The path as it is compared; none when it is refused.
    pub path: Option<String>,
    /// Why the request is answered with 400.
    pub refused: Option<String>,
    /// Entries of the table that were looked for, in order, up to the one that fits.
    pub hosts: Vec<HostStep>,
    /// Paths of the host that fits, in order of precedence.
    pub candidates: Vec<Candidate>,
    /// Paths that are not shown.
    pub left_out: usize,
    /// Where it goes; none is 404.
    pub winner: Option<Winner>,
    /// The entry of the table that fits, as in [`crate::Host::name`].
    pub entry: Option<Arc<str>>,
}

/// One entry that was looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostStep {
    /// The entry.
    pub host: String,
    /// `precise`, `wildcard` or `any`.
    pub kind: &'static str,
    /// Whether the table has it.
    pub found: bool,
}

/// One path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The path.
    pub path: String,
    /// `Exact`, `Prefix` or `Regex`.
    pub kind: &'static str,
    /// Its Ingress.
    pub ingress: String,
    /// Its Service and port.
    pub service: String,
    /// Whether it takes the request.
    pub won: bool,
    /// Why it won or lost.
    pub why: String,
}

/// Where the request goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Winner {
    /// Host of the route; empty for all hosts.
    pub host: String,
    /// Path of the route; empty for the default backend.
    pub path: String,
    /// `Exact`, `Prefix`, `Regex` or `DefaultBackend`.
    pub kind: &'static str,
    /// Its Ingress.
    pub ingress: String,
    /// Its Service and port.
    pub service: String,
    /// Alternatives that some of these requests go to.
    pub alternatives: Vec<String>,
    /// Why the route answers 503, when it does so by its annotations.
    pub closed: Option<String>,
}

impl RouteTable {
    /// Explains what [`RouteTable::find`] does with a request. `host` and `path` are as a client sends them.
    pub fn explain(&self, host: &str, path: &str) -> Explanation {
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let known = if host.is_empty() {
            Some(String::new())
        } else {
            host_of(host)
        };
        let canonical = path::canonical(path);
        let refused = match (&known, &canonical) {
            (None, _) => Some("the host is none".to_owned()),
            (_, Err(why)) => Some(why.to_string()),
            _ => None,
        };
        let mut explanation = Explanation {
            host: known.clone(),
            path: canonical.as_ref().ok().map(ToString::to_string),
            refused,
            hosts: vec![],
            candidates: vec![],
            left_out: 0,
            winner: None,
            entry: None,
        };
        let (Some(host), Ok(path)) = (known, canonical) else {
            return explanation;
        };
        explanation.hosts = self.steps(&host);
        let winner = self.find(&host, &path);
        if let Some((entry, table)) = self.routed(&host) {
            explanation.entry = Some(Arc::clone(&entry.name));
            candidates(table, &path, &mut explanation);
        }
        explanation.winner = winner.map(|route| Winner::of(route));
        explanation
    }

    /// Most specific first, as in [`RouteTable::find`].
    fn steps(&self, host: &str) -> Vec<HostStep> {
        let mut steps = vec![];
        let mut look = |host: String, kind, found| {
            steps.push(HostStep { host, kind, found });
            found
        };
        let routed = |entry: Option<&Arc<VirtualHost>>| entry.is_some_and(|entry| entry.is_routed());
        if !host.is_empty() && look(host.to_owned(), "precise", routed(self.precise(host))) {
            return steps;
        }
        if let Some((label, parent)) = host.split_once('.')
            && !label.is_empty()
            && look(format!("*.{parent}"), "wildcard", routed(self.wildcard(parent)))
        {
            return steps;
        }
        look(String::new(), "any", routed(self.any_host()));
        steps
    }
}

fn candidates(table: &Table, path: &str, explanation: &mut Explanation) {
    let winner = table.find(path);
    let mut won_before = false;
    for route in table.routes().iter() {
        let won = winner.is_some_and(|winner| std::ptr::eq(&raw const **winner, &raw const **route));
        if explanation.candidates.len() >= MOST && !won {
            explanation.left_out += 1;
            continue;
        }
        explanation.candidates.push(Candidate {
            path: route.path.to_string(),
            kind: route.kind(),
            ingress: route.ingress.to_string(),
            service: route.backend.name.clone(),
            won,
            why: why(route, winner.map(|w| &**w), path, won, won_before),
        });
        won_before |= won;
    }
}

fn why(route: &Route, winner: Option<&Route>, path: &str, won: bool, won_before: bool) -> String {
    let Some(winner) = winner.filter(|_| route.matches(path)) else {
        return match route.kind() {
            "Exact" => "it is not the whole path".to_owned(),
            "Regex" => "the expression does not fit from the start".to_owned(),
            _ => "its elements are not the first of the path".to_owned(),
        };
    };
    match () {
        () if won => "it fits and comes first".to_owned(),
        () if winner.exact => "an Exact path takes the request".to_owned(),
        () if won_before && winner.path.len() > route.path.len() => "a longer path takes the request".to_owned(),
        () => "another path of the same length takes the request".to_owned(),
    }
}

impl Winner {
    fn of(route: &Route) -> Self {
        Self {
            host: route.host.name.to_string(),
            path: route.path.to_string(),
            kind: if route.path.is_empty() {
                "DefaultBackend"
            } else {
                route.kind()
            },
            ingress: route.ingress.to_string(),
            service: route.backend.name.clone(),
            alternatives: route
                .alternatives
                .iter()
                .map(|a| format!("{} ({})", a.backend.name, a.ingress))
                .collect(),
            closed: route.policy.closed.clone(),
        }
    }
}
