//! Accept rules among the rules of others (`firewall: open`). Where they belong is decided in `landfall_core::packet_filter::openings`, from the
//! rules as the host's own programs print them; here they are written and removed, by the cluster's mark in their comments.
//!
//! ```text
//! nftables' own tables         over netlink, new rules and the removal of old ones in one transaction
//! iptables, in either form     by the host's own iptables-restore --noflush, all of a table in one transaction
//! ufw's tables                 by ufw's own command, one call for each rule
//! firewalld's table            by policies of landfall's own, in files that firewalld loads
//! ```
//! INVARIANT: no rule without the mark is changed, moved or removed, no table or chain is made, and no policy is changed.

mod firewalld;
mod saved;
mod ufw;

use crate::actions::Work;
use crate::agent::Agent;
use crate::child::{Input, Job};
use crate::claims::Left;
use crate::error::{AgentError, Result};
use crate::facts::filters;
use crate::netlink::accept::{self, Placed};
use crate::netlink::nft::{self, Table};
use landfall_core::action::{Undo, Wanted};
use landfall_core::facts::PacketFilters;
use landfall_core::packet_filter::openings::{self, Insertion, Openings};
use landfall_core::packet_filter::{Chain, Variant, chains};
use landfall_core::traffic::OWN_TABLES;
use std::collections::BTreeMap;

/// How often rules are read anew when they have changed between look and act.
const MOST_ATTEMPTS: usize = 3;
/// Seconds that iptables may take; it waits for its own lock 5 s of them.
const RESTORE_S: u64 = 15;

fn read(agent: &Agent) -> PacketFilters {
    filters::read(agent, &OWN_TABLES.map(str::to_owned))
}

/// Says what is not as wanted, one line each. Where nothing is to be let through any more, that is every rule with the mark, and every saved one.
pub fn faults(agent: &Agent, wanted: &Openings) -> Result<Vec<String>> {
    faults_among(agent, &chains(&read(agent)), wanted)
}

/// The same, and where what others send to NodePorts is dropped ([`openings::closed_node_ports`]).
pub fn faults_and_closed_node_ports(agent: &Agent, wanted: &Openings) -> Result<(Vec<String>, Vec<String>)> {
    let present = chains(&read(agent));
    let closed = openings::closed_node_ports(&present, wanted);
    Ok((faults_among(agent, &present, wanted)?, closed))
}

fn faults_among(agent: &Agent, present: &[Chain], wanted: &Openings) -> Result<Vec<String>> {
    let mut faults = openings::faults(present, wanted);
    let (_, insertions) = openings::open(&openings::without_marked(present, &wanted.mark), wanted);
    if ufw::differs(&agent.host, &insertions, wanted) {
        faults.push("ufw has other rules with the mark than it is to have".to_owned());
    }
    faults.extend(firewalld::faults(&agent.host, present, &insertions, wanted));
    if wanted.accept.is_empty() {
        if faults.is_empty() && !marked(agent, &wanted.mark)?.is_empty() {
            faults.push("rules of an earlier setting".to_owned());
        }
        if ufw::has_marked(&agent.host, wanted) {
            faults.push("ufw has rules of an earlier setting".to_owned());
        }
        faults.extend(saved::holding(&agent.host, &wanted.mark));
    }
    Ok(faults)
}

/// Returns how the rules are made again what they are now.
pub fn undo_for(work: &Work, wanted: &Openings) -> Undo {
    let prior = match work.owned.and_then(|entry| entry.wanted.as_ref()) {
        Some(Wanted::Firewall(openings)) => openings.clone(),
        _ => Openings {
            accept: vec![],
            ..wanted.clone()
        },
    };
    Undo::Firewall { prior }
}

/// Makes the rules with the mark those that are wanted, wherever rules of others drop what is to be let through. Idempotent. Blocks for some
/// programs of the host, 30 s at most.
pub fn set(agent: &Agent, wanted: &Openings) -> Result<()> {
    if !agent.host.has_packet_filters() {
        return Ok(());
    }
    let mut attempts = 0;
    loop {
        attempts += 1;
        match set_once(agent, wanted) {
            Err(error) if attempts == MOST_ATTEMPTS || agent.children.is_stopping() => return Err(error),
            Err(_) => {}
            Ok(()) => return Ok(()),
        }
    }
}

/// Removes the rules with the mark, from the packet filters and from saved rules. What the host's programs do not print is found over netlink.
pub fn remove(agent: &Agent, prior: &Openings) -> Result<Left> {
    let mut left = Left::default();
    match set(agent, prior) {
        Err(AgentError::Stopped) => return Err(AgentError::Stopped),
        Err(error) => left
            .residue
            .push(format!("rules marked `{}` stay: {}", prior.mark, error.line())),
        Ok(()) => {}
    }
    left.residue.extend(saved::clean(&agent.host, &prior.mark));
    if agent.host.has_packet_filters() {
        left.notes
            .extend(firewalld::emptied(&chains(&read(agent)), &prior.mark));
    }
    let legacy = filters::legacy_tables();
    if agent.host.has_packet_filters() && !legacy.is_empty() && !read(agent).unread_legacy.is_empty() {
        left.notes.push(format!(
            "iptables-legacy is not there any more, so nobody can say whether its tables {} hold rules marked `{}`",
            legacy.join(", "),
            prior.mark
        ));
    }
    Ok(left)
}

fn set_once(agent: &Agent, wanted: &Openings) -> Result<()> {
    let present = chains(&read(agent));
    let foreign = openings::without_marked(&present, &wanted.mark);
    let (_, insertions) = openings::open(&foreign, wanted);
    ufw::set(agent, &insertions, wanted)?;
    firewalld::set(agent, &present, &insertions, wanted)?;
    for variant in [Variant::IptablesNft, Variant::IptablesLegacy] {
        let batch = batch(&present, variant, &insertions, wanted);
        if !batch.is_empty() {
            restore(agent, variant, batch)?;
        }
    }
    let of_iptables = |table: &Table| {
        let mut chains = present.iter().filter(|chain| chain.variant == Variant::IptablesNft);
        chains.any(|chain| chain.table == table.to_string())
    };
    let mut old = marked(agent, &wanted.mark)?;
    // iptables has replaced its own already; what is left of them was not printed.
    old.retain(|rule| wanted.accept.is_empty() || !of_iptables(&rule.table));
    let placed: Vec<Placed> = insertions
        .iter()
        .filter(|insertion| insertion.variant == Variant::Nftables && !insertion.is_of_firewalld())
        .filter_map(|insertion| {
            Some(Placed {
                table: Table::parse(&insertion.table)?,
                chain: &insertion.chain,
                before: insertion.before,
                accept: wanted.accepted_at(insertion.hook).collect(),
                comment: wanted.comment(insertion.hook),
            })
        })
        .collect();
    accept::replace(&placed, &old).map_err(|error| nftables("writing rules of nftables", error))?;
    match openings::unasked(&present, wanted) {
        Some(_) => Err(AgentError::NotSatisfied(
            "landfall does not write into firewalld 2.x; `landfall status` says what is dropped and what to do"
                .to_owned(),
        )),
        None => Ok(()),
    }
}

fn marked(agent: &Agent, mark: &str) -> Result<Vec<nft::Rule>> {
    if !agent.host.has_packet_filters() {
        return Ok(vec![]);
    }
    nft::marked(mark).map_err(|error| nftables("reading rules of nftables", error))
}

fn nftables(what: &str, source: std::io::Error) -> AgentError {
    let what = what.to_owned();
    AgentError::Kernel { what, source }
}

/// What iptables-restore is to read: in each table first the removal of all rules with the mark, then the new ones. Empty when there is nothing to
/// be done.
fn batch(present: &[Chain], variant: Variant, insertions: &[Insertion], wanted: &Openings) -> String {
    let mut tables: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let is_ufws = |chain: &&Chain| chain.name.starts_with(landfall_core::packet_filter::ufw::PREFIX);
    for chain in present
        .iter()
        .filter(|chain| chain.variant == variant && !is_ufws(chain))
    {
        let old = chain
            .rules
            .iter()
            .filter(|rule| wanted.is_marked(rule.comment.as_deref()))
            .filter_map(|rule| rule.text.strip_prefix("-A "));
        let removals: Vec<String> = old.map(|rule| format!("-D {rule}")).collect();
        if !removals.is_empty() {
            tables.entry(&chain.table).or_default().extend(removals);
        }
    }
    let places = insertions
        .iter()
        .filter(|place| place.variant == variant && !place.is_of_ufw());
    let mut places: Vec<&Insertion> = places.collect();
    // From the end of each chain to its begin, so that no place moves before it is used.
    places.sort_by_key(|place| std::cmp::Reverse(place.before.unwrap_or(u64::MAX)));
    for place in places {
        let lines = tables.entry(&place.table).or_default();
        let comment = wanted.comment(place.hook);
        let rules = wanted
            .accepted_at(place.hook)
            .flat_map(|accept| accept.iptables_words());
        for (words, nth) in rules.zip(0..) {
            let where_to = match place.before {
                Some(number) => format!("-I {} {}", place.chain, number + nth),
                None => format!("-A {}", place.chain),
            };
            lines.push(format!(
                "{where_to} {} -m comment --comment \"{comment}\" -j ACCEPT",
                words.join(" ")
            ));
        }
    }
    let table = |(table, lines): (&str, Vec<String>)| {
        let name = table.strip_prefix("ip ").unwrap_or(table);
        format!("*{name}\n{}\nCOMMIT\n", lines.join("\n"))
    };
    tables.into_iter().map(table).collect()
}

fn restore(agent: &Agent, variant: Variant, batch: String) -> Result<()> {
    let own = match variant {
        Variant::IptablesLegacy => "iptables-legacy-restore",
        Variant::IptablesNft | Variant::Nftables => "iptables-nft-restore",
    };
    let program = match agent.host.find_program(own) {
        Some(_) => own,
        None => "iptables-restore",
    };
    let job = Job {
        input: Input::Bytes(batch.as_bytes()),
        ..Job::quick(&[program, "--wait", "5", "--noflush"], RESTORE_S)
    };
    agent.children.run(&agent.host, job).map(|_| ())
}

#[cfg(test)]
pub(crate) mod tests;
