//! Rules of packet filters, as the host's own programs print them. What they cannot print is named by what the kernel says.

use super::survey::has_nftables;
use crate::agent::Agent;
use crate::child::Job;
use crate::error::Result;
use crate::files;
use crate::netlink::nft::{self, IPTABLES_TABLES, Table};
use landfall_core::facts::PacketFilters;
use landfall_core::packet_filter::{firewalld, ufw};

/// Seconds that a program may take to print rules.
const PRINT_S: u64 = 5;
/// Seconds for one question to firewalld.
const FIREWALL_CMD_S: u64 = 15;
/// Most bytes of rules that are told of one table: ten thousand rules.
const MOST_BYTES: usize = 1024 * 1024;

/// What prints iptables' rules in nf_tables.
const NFT_SAVE: [&[&str]; 2] = [&["iptables-nft-save"], &["iptables-save"]];
/// What prints its rules in the kernel's old tables.
const LEGACY_SAVE: [&[&str]; 2] = [&["iptables-legacy-save"], &["iptables-save"]];

/// Returns the old iptables' tables that are in use in this network namespace.
pub(crate) fn legacy_tables() -> Vec<String> {
    let names = files::text("/proc/thread-self/net/ip_tables_names");
    names.split_whitespace().map(str::to_owned).collect()
}

/// Reads the rules of IPv4, without those of the tables of `own`.
pub(crate) fn read(agent: &Agent, own: &[String]) -> PacketFilters {
    let mut filters = PacketFilters::default();
    if !agent.host.has_packet_filters() {
        return filters;
    }
    if has_nftables(&agent.host) {
        nftables(agent, own, &mut filters);
    }
    let legacy = legacy_tables();
    if !legacy.is_empty() {
        match print(agent, &LEGACY_SAVE) {
            Some(text) => filters.iptables_legacy.push(text),
            None => filters.unread_legacy = legacy,
        }
    }
    let mut texts = filters.iptables.iter().chain(&filters.iptables_legacy);
    if texts.any(|text| text.contains("\n:ufw-user-")) {
        filters.ufw = Some(files::text(agent.host.at(ufw::USER_RULES))).filter(|text| text.len() <= MOST_BYTES);
    }
    filters
}

/// Returns the version of the host's nft, where there is one.
pub(crate) fn nft_version(agent: &Agent) -> Option<String> {
    let is_asked = agent.host.has_packet_filters();
    let text = is_asked.then(|| print(agent, &[&["nft", "--version"]])).flatten()?;
    version(&text)
}

/// Reads what `nft --version` prints: `nftables v1.0.6 (Lester Gooch #5)`.
fn version(text: &str) -> Option<String> {
    let versions = text.split_whitespace().filter_map(|word| word.strip_prefix('v'));
    let mut numbered = versions.filter(|version| version.starts_with(|first: char| first.is_ascii_digit()));
    numbered.next().map(str::to_owned)
}

/// Says how what firewalld has loaded differs from what it has saved, one line each; nothing where both are the same. Blocks for a dozen calls of
/// firewall-cmd, each a third of a second.
pub(crate) fn firewalld_differences(agent: &Agent) -> Result<Vec<String>> {
    let call = |words: &[&str]| -> Result<String> {
        let argv: Vec<&str> = std::iter::once("firewall-cmd").chain(words.iter().copied()).collect();
        Ok(agent
            .children
            .run(&agent.host, Job::quick(&argv, FIREWALL_CMD_S))?
            .text())
    };
    let default_zone = call(&["--get-default-zone"])?;
    let (loaded, saved) = (call(&["--get-ipsets"])?, call(&["--permanent", "--get-ipsets"])?);
    let mut lines = Vec::new();
    let mut sets = Vec::new();
    if loaded.trim() == saved.trim() {
        sets.extend(loaded.split_whitespace().map(|set| format!("--info-ipset={set}")));
    } else {
        lines.push(format!("sets: loaded {}; saved {}", loaded.trim(), saved.trim()));
    }
    let mut compare = |words: &[&str], as_sections: &dyn Fn(String) -> String| -> Result<()> {
        let loaded = as_sections(call(words)?);
        let saved = as_sections(call(&[&["--permanent"], words].concat())?);
        lines.extend(firewalld::differences(&loaded, &saved, default_zone.trim()));
        Ok(())
    };
    let lists = ["--list-all-zones", "--list-all-policies"];
    for list in lists.into_iter().chain(sets.iter().map(String::as_str)) {
        compare(&[list], &|text| text)?;
    }
    for list in ["--get-all-chains", "--get-all-rules", "--get-all-passthroughs"] {
        let as_section = |text: String| {
            text.lines()
                .fold("direct\n".to_owned(), |all, line| format!("{all}  rule {line}\n"))
        };
        compare(&["--direct", list], &as_section)?;
    }
    Ok(lines)
}

fn nftables(agent: &Agent, own: &[String], filters: &mut PacketFilters) {
    let Ok(all) = nft::read() else { return };
    let others = all.tables.iter().filter(|table| matches!(table.family, "ip" | "inet"));
    let others: Vec<&Table> = others.filter(|table| !own.contains(&table.to_string())).collect();
    let is_of_iptables = |table: &Table| table.family == "ip" && IPTABLES_TABLES.contains(&table.name.as_str());
    let mut by_iptables = String::new();
    if others.iter().any(|table| is_of_iptables(table)) {
        by_iptables = print(agent, &NFT_SAVE).unwrap_or_default();
    }
    for table in others {
        // A table that nft alone made is not printed by iptables, although it has the name.
        if is_of_iptables(table) && by_iptables.lines().any(|line| line == format!("*{}", table.name)) {
            continue;
        }
        let list = ["nft", "--json", "list", "table", table.family, &table.name];
        match print(agent, &[&list]) {
            Some(text) => filters.nftables.push(text),
            None => {
                let chains = all
                    .chains
                    .iter()
                    .filter(|c| c.table == *table && c.filters && !c.accepts);
                filters
                    .unread
                    .extend(chains.map(|chain| format!("{table} {}", chain.name)));
            }
        }
    }
    if !by_iptables.is_empty() {
        filters.iptables.push(by_iptables);
    }
}

/// Returns what the first program that is there prints; `None` when there is none, it fails, or it prints too much.
fn print(agent: &Agent, programs: &[&[&str]]) -> Option<String> {
    let there = programs
        .iter()
        .find(|argv| agent.host.find_program(argv[0]).is_some())?;
    let output = agent.children.run(&agent.host, Job::quick(there, PRINT_S)).ok()?;
    let text = output.text();
    (text.len() <= MOST_BYTES).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn the_version_of_nft_is_read() {
        assert_eq!(version("nftables v1.0.6 (Lester Gooch #5)\n").as_deref(), Some("1.0.6"));
        assert_eq!(version("nftables v0.9.8 (E.D.S.)\n").as_deref(), Some("0.9.8"));
        assert_eq!(version("nftables: very old\n"), None);
    }
}
