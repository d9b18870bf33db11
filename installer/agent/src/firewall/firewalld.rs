//! Policies of landfall's own in firewalld. Their files are written here, and firewalld loads them: a new one by a reload alone, which takes away
//! whatever was loaded and not saved, so it is not done where there is such; the rules of one that is loaded are changed one by one, without a reload.

use crate::agent::Agent;
use crate::child::Job;
use crate::error::{AgentError, Result};
use crate::facts;
use crate::files::{self, Meta};
use crate::host::Host;
use landfall_core::packet_filter::Chain;
use landfall_core::packet_filter::firewalld::{self, Policy, RichRule};
use landfall_core::packet_filter::openings::{Insertion, Openings};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Seconds for one call of firewall-cmd. A reload of thousands of rules takes some.
const CALL_S: u64 = 60;
/// Most rules in one call: their texts together stay below what the kernel takes as arguments.
const MOST_RULES: usize = 200;

fn path_of(host: &Host, name: &str) -> PathBuf {
    host.at(firewalld::file_of(name))
}

/// Returns the files with the mark that belong to a policy: its own, and the copy that firewalld keeps of one that it has written anew.
fn marked(host: &Host, name: &str, mark: &str) -> Vec<PathBuf> {
    let paths = ["", ".old"].map(|end| host.at(firewalld::file_of(name) + end));
    let is_ours = |path: &PathBuf| firewalld::is_marked(&files::text(path), mark);
    paths.into_iter().filter(is_ours).collect()
}

/// Returns the policies that belong to these places; `None` where firewalld does not run or does not ask policies about all (2.x): nobody can say
/// which then, and those that are there stay.
fn policies(present: &[Chain], insertions: &[Insertion], wanted: &Openings) -> Option<Vec<Policy>> {
    if wanted.accept.is_empty() {
        return Some(vec![]);
    }
    if !firewalld::has_policies(present) {
        return None;
    }
    let bans = firewalld::bans(present);
    let places = insertions.iter().filter(|place| place.is_of_firewalld());
    let mut hooks: Vec<_> = places.map(|place| place.hook).collect();
    hooks.sort_unstable();
    hooks.dedup();
    Some(
        hooks
            .into_iter()
            .filter_map(|hook| Policy::of(&wanted.mark, &wanted.accept, hook, &bans))
            .collect(),
    )
}

/// Says what is not as wanted, one line each.
pub(super) fn faults(host: &Host, present: &[Chain], insertions: &[Insertion], wanted: &Openings) -> Vec<String> {
    let mut faults = Vec::new();
    for policy in policies(present, insertions, wanted).unwrap_or_default() {
        if files::text(path_of(host, &policy.name)) != policy.file() {
            faults.push(format!("firewalld's policy {} is not as it is to be", policy.name));
        } else if policy.loaded(present) != Some(policy.rules.len()) {
            faults.push(format!("firewalld has not loaded its policy {} as it is", policy.name));
        }
    }
    if wanted.accept.is_empty() {
        let has_rules = |name: &String| firewalld::loaded(present, name).unwrap_or(0) > 0;
        let mut names = firewalld::names(&wanted.mark);
        names.retain(|name| has_rules(name) || !marked(host, name, &wanted.mark).is_empty());
        let line = |name| format!("firewalld has the policy {name} of an earlier setting");
        faults.extend(names.into_iter().map(line));
    }
    faults
}

/// Makes firewalld's policies with the mark those of these places. Blocks for some calls of firewall-cmd, and a reload where a policy is new.
pub(super) fn set(agent: &Agent, present: &[Chain], insertions: &[Insertion], wanted: &Openings) -> Result<()> {
    let Some(policies) = policies(present, insertions, wanted) else {
        return Ok(());
    };
    let host = &agent.host;
    let has = |name: &String| policies.iter().any(|policy| policy.name == *name);
    let mut gone = firewalld::names(&wanted.mark);
    gone.retain(|name| !has(name));
    let is_loaded = |name: &String| firewalld::loaded(present, name).is_some();
    for policy in &policies {
        let path = path_of(host, &policy.name);
        if files::read(&path)?.is_some_and(|text| !firewalld::is_marked(&String::from_utf8_lossy(&text), &wanted.mark))
        {
            let found = "a policy of firewalld without the cluster's mark";
            return Err(AgentError::Foreign { path, found });
        }
    }
    let (changed, new): (Vec<&Policy>, Vec<&Policy>) = policies.iter().partition(|policy| is_loaded(&policy.name));
    if !new.is_empty() {
        let differences = facts::firewalld_differences(agent)?;
        if !differences.is_empty() {
            return Err(AgentError::NotSatisfied(format!(
                "firewalld must be reloaded for landfall's policies, and that would undo what is loaded and not saved, or load what is saved \
                 and not loaded ({}); run `firewall-cmd --runtime-to-permanent` or `firewall-cmd --reload` first",
                differences.join("; ")
            )));
        }
    }
    changed.iter().try_for_each(|policy| write(host, policy))?;
    match new.is_empty() {
        true => changed
            .iter()
            .try_for_each(|policy| change(agent, &policy.name, &policy.rules))?,
        // A reload loads all of them.
        false => load(agent, &new)?,
    }
    remove(agent, present, &gone, &wanted.mark)
}

fn write(host: &Host, policy: &Policy) -> Result<()> {
    let path = path_of(host, &policy.name);
    let text = policy.file();
    if files::text(&path) == text {
        return Ok(());
    }
    files::write_bytes(&path, Meta::mode(0o644), text.as_bytes())
}

/// Writes policies that firewalld does not have yet, and has it load them. Where it does not take them they are removed: a file that it does not take
/// would keep it from loading all its others at the next boot.
fn load(agent: &Agent, new: &[&Policy]) -> Result<()> {
    let write_all = || new.iter().try_for_each(|policy| write(&agent.host, policy));
    let loaded = write_all()
        .and_then(|()| call(agent, &["--check-config"]))
        .and_then(|_| call(agent, &["--reload"]));
    if loaded.is_err() {
        for policy in new {
            files::remove_file(&path_of(&agent.host, &policy.name))?;
        }
    }
    loaded.map(|_| ())
}

/// Makes the rules of a policy that is loaded these. (Its file was written before, so a reload at any time loads the same.)
fn change(agent: &Agent, name: &str, rules: &[RichRule]) -> Result<()> {
    let policy = format!("--policy={name}");
    let listed = call(agent, &[&policy, "--list-rich-rules"])?;
    let present: BTreeSet<String> = listed
        .lines()
        .map(|line| line.trim().to_owned())
        .filter(|l| !l.is_empty())
        .collect();
    let wanted: BTreeSet<String> = rules.iter().map(RichRule::text).collect();
    // Connections of the members that stay are never without their rules.
    for (option, rules) in [
        ("--add-rich-rule", wanted.difference(&present).collect::<Vec<_>>()),
        ("--remove-rich-rule", present.difference(&wanted).collect()),
    ] {
        for some in rules.chunks(MOST_RULES) {
            let options = some.iter().map(|rule| format!("{option}={rule}"));
            let words: Vec<String> = std::iter::once(policy.clone()).chain(options).collect();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            call(agent, &words)?;
        }
    }
    Ok(())
}

/// Removes policies: their files, and what of them is loaded. Where a reload would undo something of others they are emptied instead, and go with
/// the next reload.
fn remove(agent: &Agent, present: &[Chain], gone: &[String], mark: &str) -> Result<()> {
    for path in gone.iter().flat_map(|name| marked(&agent.host, name, mark)) {
        files::remove_file(&path)?;
        files::sync_parent(&path)?;
    }
    // One that is loaded and has another's file now is another's.
    let is_ours = |name: &&String| firewalld::loaded(present, name).is_some() && !path_of(&agent.host, name).exists();
    let loaded: Vec<&String> = gone.iter().filter(is_ours).collect();
    if loaded.is_empty() {
        return Ok(());
    }
    if facts::firewalld_differences(agent)?.is_empty() {
        return call(agent, &["--reload"]).map(|_| ());
    }
    loaded.into_iter().try_for_each(|name| change(agent, name, &[]))
}

/// Says which policies are loaded and empty, one line each.
pub(super) fn emptied(present: &[Chain], mark: &str) -> Vec<String> {
    let names = firewalld::names(mark).into_iter();
    let empty = names.filter(|name| firewalld::loaded(present, name) == Some(0));
    let line = |name| {
        format!(
            "firewalld keeps the empty policy {name} until its next reload, which would undo what others have loaded and not saved"
        )
    };
    empty.map(line).collect()
}

fn call(agent: &Agent, words: &[&str]) -> Result<String> {
    let argv: Vec<&str> = std::iter::once("firewall-cmd").chain(words.iter().copied()).collect();
    Ok(agent.children.run(&agent.host, Job::quick(&argv, CALL_S))?.text())
}
