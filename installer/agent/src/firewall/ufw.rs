//! Rules in ufw's tables, by ufw's own command: it keeps them in its file, and loads them at each boot and reload.

use crate::agent::Agent;
use crate::child::Job;
use crate::error::{AgentError, Result};
use crate::files;
use crate::host::Host;
use landfall_core::packet_filter::openings::{Insertion, Openings};
use landfall_core::packet_filter::ufw::{self, UserRule};
use std::time::Duration;

/// Seconds for one call of ufw, which waits for its own lock.
const UFW_S: u64 = 60;
/// How long the kernel is given to free what old rules held.
const SETTLE: Duration = Duration::from_secs(1);

/// ufw's rules of IPv4, and those of IPv6 that it made by the same command.
struct Present {
    rules: Vec<UserRule>,
    twins: Vec<UserRule>,
}

impl Present {
    fn read(host: &Host) -> Self {
        let read = |path: &str| files::text(host.at(path));
        Self {
            rules: ufw::rules(&read(ufw::USER_RULES)),
            twins: ufw::rules(&read(ufw::USER_RULES_6).replace(ufw::ANYWHERE_6, ufw::ANYWHERE)),
        }
    }

    fn all(&self) -> impl Iterator<Item = &UserRule> {
        self.rules.iter().chain(&self.twins)
    }

    fn marked(&self, wanted: &Openings) -> impl Iterator<Item = &UserRule> {
        self.all().filter(|rule| wanted.is_marked(rule.comment.as_deref()))
    }
}

/// Says whether ufw has rules with the mark, loaded or not.
pub(super) fn has_marked(host: &Host, mark: &Openings) -> bool {
    Present::read(host).marked(mark).next().is_some()
}

/// Returns the rules that belong to these places. One about which ufw's user has a rule stays the user's: ufw would give that our comment, and
/// our action.
fn rules(present: &Present, insertions: &[Insertion], wanted: &Openings) -> Vec<UserRule> {
    let is_theirs = |rule: &UserRule| {
        let mut others = present
            .all()
            .filter(|other| !wanted.is_marked(other.comment.as_deref()));
        others.any(|other| other.about == rule.about)
    };
    let mut rules = Vec::new();
    for place in insertions.iter().filter(|place| place.is_of_ufw()) {
        let comment = wanted.ufw_comment(place.hook);
        let accepted = wanted.accepted_at(place.hook);
        rules.extend(accepted.flat_map(|accept| ufw::wanted(accept, &comment)));
    }
    rules.retain(|rule| !is_theirs(rule));
    rules
}

/// Says whether ufw, where it is switched on, has other rules with the mark than those of these places.
pub(super) fn differs(host: &Host, insertions: &[Insertion], wanted: &Openings) -> bool {
    let present = Present::read(host);
    let rules = rules(&present, insertions, wanted);
    let is_missing = rules.iter().any(|rule| !present.rules.contains(rule));
    !rules.is_empty() && (is_missing || present.marked(wanted).any(|old| !rules.contains(old)))
}

/// Makes ufw's rules with the mark those of these places. Calls ufw once for each rule that is missing or too much.
pub(super) fn set(agent: &Agent, insertions: &[Insertion], wanted: &Openings) -> Result<()> {
    let present = Present::read(&agent.host);
    let rules = rules(&present, insertions, wanted);
    for rule in rules.iter().filter(|rule| !present.rules.contains(rule)) {
        run(agent, &rule.addition(), &|now| now.rules.contains(rule))?;
    }
    let mut gone: Vec<&UserRule> = Vec::new();
    for old in present
        .marked(wanted)
        .filter(|old| !rules.iter().any(|rule| rule.about == old.about))
    {
        // One command deletes a rule and its twin.
        if !gone.contains(&old) {
            run(agent, &old.deletion(), &|now| {
                now.all().all(|rule| rule.about != old.about)
            })?;
            gone.push(old);
        }
    }
    Ok(())
}

/// Runs ufw, which writes its file and then loads its rules. When that fails, its chains may be empty: then it loads them again, and what counts is
/// the file. (Seen 2026-11-29 where its user has a rule of the kind `limit`: the kernel frees what such a rule holds later than the rule itself, and
/// refuses the next one meanwhile.)
fn run(agent: &Agent, arguments: &[String], is_done: &dyn Fn(&Present) -> bool) -> Result<()> {
    let argv: Vec<&str> = std::iter::once("ufw")
        .chain(arguments.iter().map(String::as_str))
        .collect();
    let ran = agent.children.run(&agent.host, Job::quick(&argv, UFW_S));
    if let Err(AgentError::Program { .. }) = &ran {
        agent.children.sleep(SETTLE)?;
        agent.children.run(&agent.host, Job::quick(&["ufw", "reload"], UFW_S))?;
        if is_done(&Present::read(&agent.host)) {
            return Ok(());
        }
    }
    ran.map(|_| ())
}
