//! Rules of the packet filter: tables of nftables, chains of iptables in either of its forms.

use crate::agent::Agent;
use crate::child::{Job, Output};
use crate::error::Result;
use crate::files;
use crate::netlink::nft;
use landfall_core::action::Claims;

/// The old iptables' programs, and where the kernel lists the tables that each has used in this network namespace.
const LEGACY: [(&str, &str); 2] = [
    ("iptables-legacy", "/proc/net/ip_tables_names"),
    ("ip6tables-legacy", "/proc/net/ip6_tables_names"),
];

/// Takes away tables and chains of these claims, and of iptables-nft's own tables what was absent and is idle by now.
pub fn remove(claims: &Claims, absent_bases: &[String]) -> std::io::Result<()> {
    if claims.nft_tables.is_empty() && claims.iptables_chains.is_empty() && absent_bases.is_empty() {
        return Ok(());
    }
    let all = nft::read()?;
    nft::delete_tables(all.tables.iter().filter(|t| claims.nft_tables.contains(&t.to_string())))?;
    if !claims.iptables_chains.is_empty() {
        nft::delete_chains(&nft::read()?, &claims.iptables_chains)?;
    }
    let left = nft::read()?;
    nft::delete_tables(&left.idle_tables(absent_bases))?;
    nft::delete_empty_chains(&left.idle_base_chains(absent_bases))
}

/// Takes away chains of the old iptables. They can only be reached through its own program, and exist only where that is installed.
pub fn remove_legacy(agent: &Agent, claims: &Claims) -> Vec<String> {
    let mut residue = Vec::new();
    for (program, names) in LEGACY {
        if claims.iptables_chains.is_empty() || agent.host.find_program(program).is_none() {
            continue;
        }
        for table in files::text(names).lines() {
            if let Err(error) = remove_legacy_table_chains(agent, program, table, &claims.iptables_chains) {
                residue.push(format!("chains in {program}'s table {table} stay: {}", error.line()));
            }
        }
    }
    residue
}

fn run_legacy(agent: &Agent, program: &str, table: &str, args: &[&str]) -> Result<Output> {
    let argv = [&[program, "--wait", "5", "--table", table], args].concat();
    agent.children.run(&agent.host, Job::quick(&argv, 15))
}

fn remove_legacy_table_chains(agent: &Agent, program: &str, table: &str, prefixes: &[String]) -> Result<()> {
    let run = |args: &[&str]| run_legacy(agent, program, table, args);
    let ours = |name: &str| prefixes.iter().any(|p| name.starts_with(p.as_str()));
    let listing = run(&["--list-rules"])?.text();
    let chains: Vec<&str> = listing
        .lines()
        .filter_map(|l| l.strip_prefix("-N "))
        .filter(|name| ours(name))
        .collect();
    for line in listing.lines().filter_map(|l| l.strip_prefix("-A ")) {
        let words = shell_words(line);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let target = words.windows(2).find(|w| matches!(w[0], "-j" | "-g")).map(|w| w[1]);
        if !ours(words.first().copied().unwrap_or_default()) && target.is_some_and(ours) {
            run(&[&["--delete"], words.as_slice()].concat())?;
        }
    }
    for verb in ["--flush", "--delete-chain"] {
        for chain in &chains {
            run(&[verb, chain])?;
        }
    }
    Ok(())
}

/// Splits a rule as iptables lists it: words, or texts in double quotes.
fn shell_words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quoted, mut escaped) = (Vec::new(), String::new(), false, false);
    let mut begun = false;
    for c in line.chars() {
        match c {
            _ if escaped => {
                word.push(c);
                escaped = false;
            }
            '\\' if quoted => escaped = true,
            '"' => {
                quoted = !quoted;
                begun = true;
            }
            ' ' if !quoted => {
                if begun || !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                begun = false;
            }
            c => word.push(c),
        }
    }
    if begun || !word.is_empty() {
        words.push(word);
    }
    words
}

/// Returns a foreign rule of the old iptables that translates addresses; one that cannot be looked for counts as there.
pub fn legacy_translation(agent: &Agent, ours: &Claims) -> Option<String> {
    for (program, names) in LEGACY {
        if !files::text(names).lines().any(|table| table == "nat") {
            continue;
        }
        let listing = run_legacy(agent, program, "nat", &["--list-rules"]);
        let Ok(listing) = listing else {
            return Some(format!("the table nat of {program}"));
        };
        let is_foreign = |line: &&str| {
            let words: Vec<&str> = line.split(' ').collect();
            let target = words.windows(2).find(|w| w[0] == "-j").map(|w| w[1]);
            words[0] == "-A"
                && target.is_some_and(|t| matches!(t, "MASQUERADE" | "SNAT" | "DNAT" | "NETMAP"))
                && !words.get(1).is_some_and(|chain| has_prefix(ours, chain))
        };
        if let Some(line) = listing.text().lines().find(is_foreign) {
            return Some(format!("the rule `{line}` of {program}"));
        }
    }
    None
}

/// Says whether a chain's name is one of these claims'.
pub fn has_prefix(claims: &Claims, chain: &str) -> bool {
    claims
        .iptables_chains
        .iter()
        .any(|prefix| chain.starts_with(prefix.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_split_as_iptables_writes_them() {
        let words = shell_words(r#"INPUT -m comment --comment "kubernetes \"x\" y" -j KUBE-FIREWALL"#);
        assert_eq!(
            words,
            [
                "INPUT",
                "-m",
                "comment",
                "--comment",
                "kubernetes \"x\" y",
                "-j",
                "KUBE-FIREWALL"
            ]
        );
    }
}
