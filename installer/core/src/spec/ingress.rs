//! Settings of the ingress proxy: the field `ingress` of `cluster.yaml`.
//!
//! The proxy's program has a flag for each; a test of the manifests writes them all, and a test of the program reads them.

use super::Cidr;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use std::num::NonZeroU16;

/// Settings of the ingress proxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct IngressSpec {
    /// Whether it is deployed.
    pub enabled: bool,
    /// Port for HTTP traffic on every node.
    pub http_port: u16,
    /// Port for HTTPS traffic on every node.
    pub https_port: u16,
    /// Whether there is a dashboard.
    pub dashboard: bool,
    /// Port of the dashboard on every node; also without one, for health and metrics.
    pub dashboard_port: u16,
    /// Host name of the dashboard's Ingress.
    pub dashboard_host: String,
    /// How the dashboard is protected.
    pub dashboard_auth: DashboardAuth,
    /// Secrets that the proxy may read.
    pub secrets: SecretScope,
    /// Networks of proxies in front, whose X-Forwarded headers are trusted.
    pub trusted_cidrs: Vec<Cidr>,
    /// Connections from `trusted_cidrs` may begin with a PROXY header.
    pub proxy_protocol: bool,
    /// Oldest version of TLS that clients may speak.
    pub tls_min_version: TlsVersion,
    /// Cipher suites that clients are offered; empty for all that the proxy has.
    pub tls_ciphers: Vec<TlsCipher>,
    /// Threads that serve; one for each processor when not said.
    pub workers: Option<NonZeroU16>,
    /// Requests that get a line in the proxy's log.
    pub access_log: AccessLog,
}

impl Default for IngressSpec {
    fn default() -> Self {
        Self {
            enabled: true,
            http_port: 80,
            https_port: 443,
            dashboard: true,
            dashboard_port: 8080,
            dashboard_host: "ui.landfall.local".to_owned(),
            dashboard_auth: DashboardAuth::default(),
            secrets: SecretScope::default(),
            trusted_cidrs: vec![],
            proxy_protocol: false,
            tls_min_version: TlsVersion::default(),
            tls_ciphers: vec![],
            workers: None,
            access_log: AccessLog::default(),
        }
    }
}

impl IngressSpec {
    /// Calls `refuse` for every rule that the settings break, with what is wrong and what to do.
    pub(super) fn validate(&self, refuse: &mut dyn FnMut(String, &str)) {
        if !self.enabled {
            return;
        }
        let mut ports = [self.http_port, self.https_port, self.dashboard_port];
        ports.sort_unstable();
        if let Some([twice, _]) = ports.array_windows().find(|[one, next]| one == next) {
            refuse(
                format!("the ingress proxy has port {twice} twice"),
                "give httpPort, httpsPort and dashboardPort different values",
            );
        }
        if ports.contains(&0) {
            refuse(
                "the ingress proxy has port 0".to_owned(),
                "give httpPort, httpsPort and dashboardPort values from 1 to 65535",
            );
        }
        if self.proxy_protocol && self.trusted_cidrs.is_empty() {
            refuse(
                "ingress.proxyProtocol is true, but no address is trusted to send PROXY headers".to_owned(),
                "name the networks of the balancers in front in ingress.trustedCidrs",
            );
        }
        let none_fits = |fits: fn(TlsCipher) -> bool| {
            let suites = &self.tls_ciphers;
            !suites.is_empty() && !suites.iter().any(|suite| fits(*suite))
        };
        let next = "add TLS_AES_128_GCM_SHA256, or leave tlsCiphers out for all suites";
        if self.tls_min_version == TlsVersion::Tls13 && none_fits(TlsCipher::is_tls13) {
            refuse(
                "ingress.tlsMinVersion is 1.3, and ingress.tlsCiphers has no suite of TLS 1.3".to_owned(),
                next,
            );
        } else if none_fits(TlsCipher::takes_ecdsa) {
            refuse(
                "ingress.tlsCiphers has only suites for RSA certificates, and the proxy's own certificate has an ECDSA key: \
                 hosts without a certificate would have no HTTPS"
                    .to_owned(),
                next,
            );
        }
    }
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "serde_json::Value")]
pub enum TlsVersion {
    /// RFC 5246.
    #[default]
    #[serde(rename = "1.2")]
    Tls12,
    /// RFC 8446.
    #[serde(rename = "1.3")]
    Tls13,
}

impl TlsVersion {
    /// Returns its number.
    pub fn number(self) -> &'static str {
        match self {
            Self::Tls12 => "1.2",
            Self::Tls13 => "1.3",
        }
    }
}

impl TryFrom<serde_json::Value> for TlsVersion {
    type Error = String;
    /// Takes text and, because YAML reads `1.3` as one, a number; also the names of Kubernetes' own flags.
    fn try_from(value: serde_json::Value) -> Result<Self, String> {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        match text.as_str() {
            "1.2" | "VersionTLS12" => Ok(Self::Tls12),
            "1.3" | "VersionTLS13" => Ok(Self::Tls13),
            _ => Err(format!("{text} is neither 1.2 nor 1.3")),
        }
    }
}

/// The cipher suites that the proxy has, by their IANA names; those of TLS 1.3 first.
pub const TLS_CIPHERS: [&str; 9] = [
    "TLS_AES_256_GCM_SHA384",
    "TLS_AES_128_GCM_SHA256",
    "TLS_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
];

/// One of [`TLS_CIPHERS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TlsCipher(&'static str);

impl TlsCipher {
    /// Returns its IANA name.
    pub fn name(self) -> &'static str {
        self.0
    }

    /// Says whether it is one of TLS 1.3, whose names have no key exchange.
    pub fn is_tls13(self) -> bool {
        !self.0.contains("_WITH_")
    }

    /// Says whether a certificate with an ECDSA key can be served with it; all of TLS 1.3 take any key.
    pub fn takes_ecdsa(self) -> bool {
        self.is_tls13() || self.0.contains("_ECDSA_")
    }
}

// Not derived: a derived one would require text with the lifetime of the names.
impl<'de> Deserialize<'de> for TlsCipher {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let known = TLS_CIPHERS.into_iter().find(|name| *name == text);
        let why = || D::Error::custom(format!("{text:?} is none of {}", TLS_CIPHERS.join(", ")));
        known.map(Self).ok_or_else(why)
    }
}

/// How the dashboard is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DashboardAuth {
    /// By a password that is made once for each cluster; `landfall dashboard` prints it.
    #[default]
    Password,
    /// Not at all: everybody who can connect to it can read it, and the metrics.
    None,
}

/// Secrets that the proxy may read: with them it serves TLS for Ingresses that name one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretScope {
    /// Those that `landfall ingress allow` allowed, each followed by its name.
    #[default]
    Named,
    /// All of the cluster.
    Cluster,
}

/// Which requests get a line of JSON in the proxy's log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessLog {
    /// Those that failed.
    #[default]
    Errors,
    /// All.
    Json,
    /// None.
    Off,
}

impl AccessLog {
    /// Returns its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Errors => "errors",
            Self::Json => "json",
            Self::Off => "off",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{DashboardAuth, SecretScope, TlsVersion};
    use crate::explain::{Code, Diagnosis};
    use crate::spec::Desired;
    use crate::spec::parse::cluster_yaml;

    fn read(ingress: &str) -> Result<Desired, Vec<Diagnosis>> {
        let nodes = "nodes: [{name: cp-1, role: control-plane, host: 10.9.0.1}]";
        cluster_yaml(&format!("ingress: {{{ingress}}}\n{nodes}\n"), "c.yaml")
    }

    fn refused(ingress: &str) -> (Vec<Diagnosis>, String) {
        let problems = read(ingress).unwrap_err();
        let lines: Vec<String> = problems.iter().map(|p| format!("{} {:?}", p.what, p.next)).collect();
        (problems, lines.join("\n"))
    }

    #[test]
    fn a_port_that_the_proxy_has_twice_is_refused() {
        for ports in ["httpPort: 443", "httpsPort: 8080", "dashboardPort: 80"] {
            let (problems, text) = refused(ports);
            assert!(problems.len() == 1 && text.contains("twice"), "{ports}");
            assert!(read(&format!("enabled: false, {ports}")).is_ok(), "{ports}");
        }
    }

    #[test]
    fn settings_are_read_and_written() {
        let all = "trustedCidrs: [10.9.0.0/24, 192.0.2.1/32], proxyProtocol: true, tlsMinVersion: 1.3, \
                   tlsCiphers: [TLS_AES_128_GCM_SHA256], workers: 2, accessLog: json, dashboardAuth: none, secrets: cluster";
        let ingress = read(all).unwrap().spec.ingress;
        assert_eq!(ingress.trusted_cidrs[1].to_string(), "192.0.2.1/32");
        assert_eq!((ingress.proxy_protocol, ingress.workers.unwrap().get()), (true, 2));
        assert_eq!(ingress.tls_min_version, TlsVersion::Tls13);
        assert_eq!(ingress.tls_ciphers[0].name(), "TLS_AES_128_GCM_SHA256");
        assert_eq!(ingress.access_log.name(), "json");
        assert_eq!(ingress.dashboard_auth, DashboardAuth::None);
        assert_eq!(ingress.secrets, SecretScope::Cluster);
        let usual = read("").unwrap().spec.ingress;
        assert_eq!(usual.dashboard_auth, DashboardAuth::Password);
        assert_eq!(usual.secrets, SecretScope::Named);
        let again = serde_json::from_value(serde_json::to_value(&ingress).unwrap());
        assert_eq!(ingress, again.unwrap());
        for (written, version) in [("'1.2'", TlsVersion::Tls12), ("VersionTLS13", TlsVersion::Tls13)] {
            let spec = read(&format!("tlsMinVersion: {written}")).unwrap().spec;
            assert_eq!(spec.ingress.tls_min_version, version);
        }
    }

    #[test]
    fn every_wrong_setting_is_named() {
        let (problems, text) = refused(
            "trustedCidrs: [10.9.0.1/24, 10.0.0.0/8, all], tlsMinVersion: 1.1, tlsCiphers: [RC4, TLS_AES_128_GCM_SHA256], \
             workers: 0, accessLog: verbose, httpPort: 70000, shoe: 1",
        );
        for wanted in [
            "ingress.trustedCidrs[0]: \"10.9.0.1/24\" has host bits set",
            "ingress.trustedCidrs[2]: \"all\" is no IPv4 network",
            "ingress.tlsMinVersion: 1.1 is neither",
            "ingress.tlsCiphers[0]: \"RC4\" is none of TLS_AES",
            "ingress.workers",
            "ingress.accessLog",
            "ingress.httpPort",
            "ingress.shoe",
        ] {
            assert!(text.contains(wanted), "{wanted} is not named in:\n{text}");
        }
        assert_eq!(problems.len(), 8, "{text}");
        assert!(problems.iter().all(|p| p.code == Code::SpecValue), "{text}");
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused() {
        for (fields, wanted) in [
            ("proxyProtocol: true", "trustedCidrs"),
            (
                "tlsMinVersion: 1.3, tlsCiphers: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]",
                "no suite of TLS 1.3",
            ),
            (
                "tlsCiphers: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]",
                "only suites for RSA",
            ),
            ("httpPort: 0", "port 0"),
        ] {
            let (problems, text) = refused(fields);
            assert!(problems.len() == 1 && text.contains(wanted), "{text}");
            assert_eq!(problems[0].code, Code::SpecTopology);
        }
    }
}
