//! When this control plane's certificates end, as kubeadm knows it.

use crate::agent::Agent;
use crate::child::Job;
use crate::error::{AgentError, Result};
use landfall_core::wire::CertificateAge;
use serde_json::Value;

/// kubeadm asks the API first, and goes on without it.
const LIMIT_S: u64 = 30;
const SECONDS_PER_DAY: i64 = 86_400;

/// Asks kubeadm. Blocks 30 s at most.
pub fn ages(agent: &Agent) -> Result<Vec<CertificateAge>> {
    let argv = ["kubeadm", "certs", "check-expiration", "--output", "json"];
    let output = agent.children.run(&agent.host, Job::quick(&argv, LIMIT_S))?;
    parse(&output.stdout).ok_or_else(|| AgentError::Program {
        program: argv.join(" "),
        status: "an answer that is not understood".to_owned(),
        tail: output.tail,
    })
}

fn parse(text: &[u8]) -> Option<Vec<CertificateAge>> {
    let answer: Value = serde_json::from_slice(text).ok()?;
    let lists = ["certificates", "certificateAuthorities"].map(|list| answer[list].as_array());
    let all = lists.into_iter().flatten().flatten();
    // kubeadm lists files that a node does not have, such as super-admin.conf on a control plane that joined, as missing.
    all.filter(|certificate| certificate["missing"].as_bool() != Some(true))
        .map(|certificate| {
            Some(CertificateAge {
                name: certificate["name"].as_str()?.to_owned(),
                days_left: certificate["residualTime"].as_i64()?.div_euclid(SECONDS_PER_DAY),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_become_whole_days() {
        let text =
            br#"{"kind":"CertificateExpirationInfo","certificates":[{"name":"apiserver","residualTime":31535999},
            {"name":"old","residualTime":-1},{"name":"super-admin.conf","residualTime":0,"missing":true}],"certificateAuthorities":[{"name":"ca","residualTime":315359999}]}"#;
        let ages = parse(text).unwrap();
        let seen: Vec<_> = ages.iter().map(|a| (a.name.as_str(), a.days_left)).collect();
        assert_eq!(seen, [("apiserver", 364), ("old", -1), ("ca", 3649)]);
        assert_eq!(parse(b"no answer"), None);
    }
}
