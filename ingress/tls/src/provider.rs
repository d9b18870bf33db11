//! The one place that says whose cryptography is used.
//!
//! ring, because the Kubernetes client brings it in already and it needs no more than a C compiler. aws-lc-rs makes a full handshake about
//! 15 % cheaper; to change over, change [`provider`] and the features in the workspace's manifest.

use crate::{MinVersion, Options};
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::ProducesTickets;
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, SupportedProtocolVersion};
use std::sync::{Arc, OnceLock};

/// The provider with everything it has that is safe.
pub fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(ring::default_provider())))
}

/// The provider with the suites that were chosen.
pub fn chosen(options: &Options) -> Arc<CryptoProvider> {
    if options.tls_ciphers.is_empty() {
        return provider();
    }
    let mut chosen = ring::default_provider();
    chosen
        .cipher_suites
        .retain(|suite| options.tls_ciphers.contains(&suite.suite()));
    Arc::new(chosen)
}

/// Versions from the oldest that was chosen.
pub fn versions(options: &Options) -> &'static [&'static SupportedProtocolVersion] {
    static FROM_1_2: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    static FROM_1_3: [&SupportedProtocolVersion; 1] = [&TLS13];
    match options.tls_min_version {
        MinVersion::Tls12 => &FROM_1_2,
        MinVersion::Tls13 => &FROM_1_3,
    }
}

/// Keys for tickets, new every six hours. `None` when the system has no randomness to give; then sessions are not resumed.
pub fn tickets() -> Option<Arc<dyn ProducesTickets>> {
    ring::Ticketer::new().ok()
}

/// Reads the IANA name of a cipher suite that there is.
pub fn parse_suite(text: &str) -> Result<CipherSuite, String> {
    let all = || provider().cipher_suites.iter().map(|s| s.suite()).collect::<Vec<_>>();
    let found = all().into_iter().find(|suite| iana(*suite) == text.trim());
    found.ok_or_else(|| {
        let names: Vec<String> = all().into_iter().map(iana).collect();
        format!("no such suite; there are {}", names.join(", "))
    })
}

/// rustls tells suites of TLS 1.3 apart by their prefix; IANA does not.
pub fn iana(suite: CipherSuite) -> String {
    suite
        .as_str()
        .map_or_else(|| format!("{suite:?}"), |name| name.replace("TLS13_", "TLS_"))
}
