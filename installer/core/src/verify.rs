//! The probes of verify, their results as cells, and the report. Agents, pods and the operator's machine run the probes.

use serde::{Deserialize, Serialize};

/// One probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "probe", rename_all = "kebab-case")]
pub enum ProbeSpec {
    /// GET over HTTP/1.1.
    Http {
        /// Plain, or over TLS.
        #[serde(default)]
        scheme: Scheme,
        /// `address:port` or `name:port`; a name is resolved by the vantage's own resolver file.
        address: String,
        /// Host header.
        host: String,
        /// Path.
        path: String,
        /// Whole time allowed, in milliseconds.
        timeout_ms: u64,
    },
    /// A DNS question for A records, asked of the servers in the vantage's /etc/resolv.conf, or of `server`.
    Dns {
        /// Name asked; search lists of the resolver file are applied as resolvers do (ndots).
        name: String,
        /// Server to ask instead, `address:port`.
        server: Option<String>,
        /// Over TCP instead of UDP.
        tcp: bool,
        /// Whole time allowed, in milliseconds.
        timeout_ms: u64,
    },
}

impl ProbeSpec {
    /// Returns the probe's own time-out in milliseconds.
    pub fn timeout_ms(&self) -> u64 {
        match self {
            Self::Http { timeout_ms, .. } | Self::Dns { timeout_ms, .. } => *timeout_ms,
        }
    }
}

/// How an HTTP probe is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// As it is.
    #[default]
    Http,
    /// Over TLS with the host as server name. The certificate is not checked: a fresh cluster has a self-signed one.
    Https,
}

/// The result of a probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum ProbeResult {
    /// An HTTP answer.
    Http {
        /// Status code.
        status: u16,
        /// First 4 KiB of the body, as text.
        body: String,
        /// Milliseconds until it was complete.
        took_ms: u64,
    },
    /// A DNS answer.
    Dns {
        /// Response code as text, for instance `NOERROR`.
        rcode: String,
        /// Addresses.
        addresses: Vec<String>,
        /// Milliseconds until it was there.
        took_ms: u64,
    },
    /// No answer.
    Failed {
        /// `refused`, `timeout`, `unreachable`, `reset`, `no-name`, `other`.
        kind: String,
        /// What the system said.
        text: String,
        /// Milliseconds until it failed.
        took_ms: u64,
    },
}

/// The outcome of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CellOutcome {
    /// As expected.
    Pass,
    /// Not as expected.
    Fail,
    /// Not tried; the reason is in `saw`.
    Skip,
}

/// The result of one source (`vantage`) for one target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    /// From where: `pod/cp-1`, `node/cp-1`, `operator`, `outside/pc-1`.
    pub vantage: String,
    /// To what: `pod-ip/10.244.1.3`, `cluster-ip`, `node-port/cp-1`, `ingress/cp-1/test.nginx.com`, `dns/…`.
    pub target: String,
    /// What is expected, in words.
    pub expected: String,
    /// How it came out.
    pub outcome: CellOutcome,
    /// What was seen.
    pub saw: String,
    /// Likely cause, for a red cell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl Cell {
    /// Says whether the cell looks from a node or at one: it fails as long as that node is off.
    pub fn is_about(&self, node: &str) -> bool {
        let named = |path: &str| path.split('/').nth(1) == Some(node);
        named(&self.vantage) || named(&self.target)
    }
}

/// Everything verify saw.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct VerifyReport {
    /// Version of this format.
    pub version: u32,
    /// All cells, in a stable order.
    pub cells: Vec<Cell>,
    /// Route lines that are missing on outside machines, ready to paste.
    pub missing_routes: Vec<String>,
}

impl VerifyReport {
    /// Says in one line what is not as expected: how many cells, and the first of them. `None` when all is as expected.
    pub fn missing(&self) -> Option<String> {
        let first = self.cells.iter().find(|c| c.outcome == CellOutcome::Fail)?;
        let (red, all) = (self.count(CellOutcome::Fail), self.cells.len());
        let Cell {
            vantage, target, saw, ..
        } = first;
        Some(format!(
            "{red} of {all} paths are not as expected yet, first {vantage} -> {target}: {saw}"
        ))
    }

    /// Says whether the API answers, the members' services run and their Nodes are Ready. Other failed cells may never pass.
    pub fn is_up(&self) -> bool {
        let tells = |cell: &&Cell| matches!(cell.target.as_str(), "api" | "services" | "ready");
        let mut cells = self.cells.iter().filter(tells);
        cells.all(|cell| cell.outcome == CellOutcome::Pass)
    }

    /// Counts cells of one outcome.
    pub fn count(&self, outcome: CellOutcome) -> usize {
        self.cells.iter().filter(|c| c.outcome == outcome).count()
    }
}
