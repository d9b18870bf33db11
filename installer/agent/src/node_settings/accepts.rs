//! Accept rules in packet filters of others (`firewall: open`): written again when the rules were loaded anew without them, or when other rules
//! have come. The service gives way to who takes them away again and again ([`Rivalry`]).

use super::rivalry::{MOST_CHANGES, Rivalry};
use crate::agent::Agent;
use crate::firewall;
use crate::netlink::nft;
use landfall_core::packet_filter::openings::Openings;
use std::time::Instant;

/// What is known of the rules.
#[derive(Default)]
pub(super) struct Accepts {
    wanted: Option<Openings>,
    /// When they were mended.
    mends: Rivalry,
    /// Nothing is written any more until they are right, or something else is wanted.
    given_up: bool,
    /// nftables' ruleset at the last look, and how many rules there bore the mark.
    seen: Option<(Vec<u8>, usize)>,
    /// What was said last of rules that could not be written.
    trouble: String,
}

impl Accepts {
    /// Says whether rules have gone from nftables since the last look. Asks for all rules only when something has changed there.
    pub(super) fn have_gone(&mut self) -> bool {
        let (Some(wanted), Some((generation, count))) = (&self.wanted, &mut self.seen) else {
            return false;
        };
        let Some(now) = nft::generation().filter(|now| now != generation) else {
            return false;
        };
        *generation = now;
        let left = nft::marked(&wanted.mark).map_or(*count, |rules| rules.len());
        let have_gone = left < *count;
        *count = left;
        have_gone
    }

    /// Puts the rules right, or gives way. Everything is said once.
    pub(super) fn keep(&mut self, agent: &Agent, wanted: Option<&Openings>, now: Instant, say: &mut dyn FnMut(&str)) {
        if self.wanted.as_ref() != wanted {
            *self = Self {
                wanted: wanted.cloned(),
                ..Self::default()
            };
        }
        let Some(wanted) = wanted else { return };
        let trouble = match firewall::faults(agent, wanted) {
            Ok(faults) if faults.is_empty() => {
                if self.given_up {
                    say("the accept rules in the packet filters are there again, and are kept");
                    (self.given_up, self.mends) = (false, Rivalry::default());
                }
                String::new()
            }
            Ok(_) if self.given_up => String::new(),
            Ok(faults) => self.mend(agent, wanted, &faults.join("; "), now, say),
            Err(error) => format!("the packet filters cannot be read: {}", error.line()),
        };
        if !trouble.is_empty() && trouble != self.trouble {
            say(&trouble);
        }
        self.trouble = trouble;
        self.seen = nft::generation().zip(nft::marked(&wanted.mark).ok().map(|rules| rules.len()));
    }

    /// Writes the rules; returns what went wrong.
    fn mend(
        &mut self,
        agent: &Agent,
        wanted: &Openings,
        faults: &str,
        now: Instant,
        say: &mut dyn FnMut(&str),
    ) -> String {
        if self.mends.is_lost(now) {
            self.given_up = true;
            say(&format!(
                "something has taken the accept rules away {MOST_CHANGES} times and keeps them away: {faults}; the cluster's nodes do not reach \
                 each other without them"
            ));
            return String::new();
        }
        match firewall::set(agent, wanted) {
            Ok(()) => {
                self.mends.note(now);
                say(&format!("packet filters: {faults}; wrote the accept rules"));
                String::new()
            }
            Err(error) => format!("the accept rules cannot be written ({faults}): {}", error.line()),
        }
    }
}
