//! How far a push is: texts for bars on a terminal, and for a line now and then elsewhere. Time comes from the events, so nothing here waits.

use super::plan::bytes;
use landfall_core::event::{Event, EventKind};
use landfall_core::name::NodeName;
use std::collections::{BTreeMap, VecDeque};

/// The rate is that of the last so many milliseconds: long enough to be steady, short enough to show that a line became slow.
const RATE_OVER_MS: u64 = 10_000;
/// Time between two lines where there is no terminal.
const LINE_EVERY_MS: u64 = 5_000;

/// What one node needs, and how much of it came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Transfer {
    needed: u64,
    came: u64,
    /// How much of that came from other nodes.
    relayed: u64,
}

/// The transfers of a run.
#[derive(Debug, Default)]
pub struct Transfers {
    nodes: BTreeMap<NodeName, Transfer>,
    /// Bytes that came in this run, by the time at which they had come; the oldest first.
    samples: VecDeque<(u64, u64)>,
    came: u64,
    line_at_ms: Option<u64>,
}

impl Transfers {
    /// Takes in an event; says whether it changed anything.
    pub fn take(&mut self, event: &Event) -> bool {
        let Some(node) = &event.node else { return false };
        match event.kind {
            EventKind::PushPlanned { bytes } => {
                // A push that goes on after a lost connection begins anew with what is left.
                let transfer = Transfer {
                    needed: bytes,
                    ..Transfer::default()
                };
                self.nodes.insert(node.clone(), transfer);
            }
            EventKind::PushProgress { bytes, relayed } => {
                let transfer = self.nodes.entry(node.clone()).or_default();
                // Two threads report: an older figure may come later.
                self.came += bytes.saturating_sub(transfer.came);
                transfer.came = transfer.came.max(bytes);
                transfer.relayed = transfer.relayed.max(relayed);
                // What is damaged on its way is sent again.
                transfer.needed = transfer.needed.max(transfer.came);
            }
            _ => return false,
        }
        self.samples.push_back((event.at_ms, self.came));
        while self.samples.len() > 2 && self.samples[1].0 + RATE_OVER_MS < event.at_ms {
            self.samples.pop_front();
        }
        true
    }

    /// Returns what a node needs and what came of it, in bytes, while something is outstanding.
    pub fn of_node(&self, node: &NodeName) -> Option<(u64, u64)> {
        let transfer = self.nodes.get(node)?;
        (transfer.came < transfer.needed).then_some((transfer.needed, transfer.came))
    }

    /// Returns what all nodes need and what came of it, in bytes, while something is outstanding.
    pub fn of_all(&self) -> Option<(u64, u64)> {
        let sum = |of: fn(&Transfer) -> u64| self.nodes.values().map(of).sum::<u64>();
        let (needed, came) = (sum(|t| t.needed), sum(|t| t.came));
        (came < needed).then_some((needed, came))
    }

    /// Says how far a node is, while something is outstanding.
    pub fn node_text(&self, node: &NodeName) -> Option<String> {
        let (needed, came) = self.of_node(node)?;
        let relayed = self.nodes.get(node).map_or(0, |transfer| transfer.relayed);
        let from_nodes = match relayed {
            0 => String::new(),
            relayed => format!(", {} from other nodes", bytes(relayed)),
        };
        Some(format!("{} of {}{from_nodes}", bytes(came), bytes(needed)))
    }

    /// Says how far all nodes are, how fast it goes and how long it will take, while something is outstanding.
    pub fn total_text(&self) -> Option<String> {
        let (needed, came) = self.of_all()?;
        let mut parts = vec![format!(
            "{} of {} ({} %)",
            bytes(came),
            bytes(needed),
            came * 100 / needed
        )];
        if let Some(rate) = self.rate().filter(|rate| *rate > 0) {
            parts.push(format!("{}/s", bytes(rate)));
            parts.push(format!("{} left", duration((needed - came).div_ceil(rate))));
        }
        let relayed: u64 = self.nodes.values().map(|transfer| transfer.relayed).sum();
        if relayed > 0 {
            parts.push(format!("{} from node to node", bytes(relayed)));
        }
        let waiting = self.nodes.values().filter(|t| t.came < t.needed).count();
        parts.push(format!("{waiting} of {} nodes wait", self.nodes.len()));
        Some(parts.join(", "))
    }

    /// Returns the line that is due at the time of an event that was taken: one every [`LINE_EVERY_MS`], and one when all has come.
    pub fn line(&mut self, event: &Event) -> Option<String> {
        if !matches!(event.kind, EventKind::PushProgress { .. }) {
            return None;
        }
        let Some(text) = self.total_text() else {
            // Short pushes need no word: that steps go on says enough.
            self.line_at_ms.take()?;
            return Some(format!("files: all {} have come", bytes(self.came)));
        };
        let since = self.line_at_ms.or(self.samples.front().map(|(at_ms, _)| *at_ms))?;
        if event.at_ms.saturating_sub(since) < LINE_EVERY_MS {
            return None;
        }
        self.line_at_ms = Some(event.at_ms);
        Some(format!("files: {text}"))
    }

    /// Returns the bytes a second that came of late.
    fn rate(&self) -> Option<u64> {
        let (first, last) = (self.samples.front()?, self.samples.back()?);
        let (took_ms, came) = (last.0.checked_sub(first.0)?, last.1 - first.1);
        (came * 1000).checked_div(took_ms)
    }
}

/// A time in seconds for people.
fn duration(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1_000_000;

    fn name(node: &str) -> NodeName {
        node.parse().unwrap()
    }

    fn event(at_ms: u64, node: &str, kind: EventKind) -> Event {
        Event {
            at_ms,
            node: Some(name(node)),
            kind,
        }
    }

    fn planned(node: &str, bytes: u64) -> Event {
        event(0, node, EventKind::PushPlanned { bytes })
    }

    fn came(at_ms: u64, node: &str, bytes: u64, relayed: u64) -> Event {
        event(at_ms, node, EventKind::PushProgress { bytes, relayed })
    }

    fn after(events: &[Event]) -> Transfers {
        let mut transfers = Transfers::default();
        events.iter().for_each(|event| assert!(transfers.take(event)));
        transfers
    }

    #[test]
    fn a_node_has_a_text_until_all_its_bytes_came() {
        let mut transfers = after(&[planned("cp-1", 271 * MB), planned("w-1", 0)]);
        assert_eq!(transfers.node_text(&name("cp-1")).unwrap(), "0 B of 271.0 MB");
        assert_eq!(transfers.node_text(&name("w-1")), None, "it needs nothing");
        transfers.take(&came(1000, "cp-1", 30 * MB, 0));
        transfers.take(&came(1001, "cp-1", 20 * MB, 0));
        assert_eq!(
            transfers.of_node(&name("cp-1")),
            Some((271 * MB, 30 * MB)),
            "an older figure came later"
        );
        transfers.take(&came(2000, "cp-1", 63 * MB, 12 * MB));
        let text = transfers.node_text(&name("cp-1")).unwrap();
        assert_eq!(text, "63.0 MB of 271.0 MB, 12.0 MB from other nodes");
        transfers.take(&came(3000, "cp-1", 271 * MB, 12 * MB));
        assert_eq!(
            (transfers.node_text(&name("cp-1")), transfers.total_text()),
            (None, None)
        );
        assert!(!transfers.take(&event(4000, "cp-1", EventKind::Connected)));
    }

    #[test]
    fn the_total_has_rate_time_left_relays_and_who_waits() {
        let mut transfers = after(&[planned("cp-1", 200 * MB), planned("w-1", 100 * MB), planned("w-2", 0)]);
        let text = transfers.total_text().unwrap();
        assert_eq!(text, "0 B of 300.0 MB (0 %), 2 of 3 nodes wait", "no rate is known yet");
        transfers.take(&came(2000, "cp-1", 50 * MB, 0));
        let text = transfers.total_text().unwrap();
        assert_eq!(
            text,
            "50.0 MB of 300.0 MB (16 %), 25.0 MB/s, 10 s left, 2 of 3 nodes wait"
        );
        transfers.take(&came(4000, "w-1", 100 * MB, 90 * MB));
        assert_eq!(
            transfers.total_text().unwrap(),
            "150.0 MB of 300.0 MB (50 %), 37.5 MB/s, 4 s left, 90.0 MB from node to node, 1 of 3 nodes wait"
        );
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let mut transfers = after(&[planned("cp-1", 1000 * MB), came(1000, "cp-1", 500 * MB, 0)]);
        for second in 2..=21 {
            transfers.take(&came(second * 1000, "cp-1", (500 + second) * MB, 0));
        }
        let text = transfers.total_text().unwrap();
        assert!(text.contains(", 1.0 MB/s, 7 min 59 s left"), "{text}");
        assert!(transfers.samples.len() < 15, "{:?}", transfers.samples);
    }

    #[test]
    fn a_push_that_begins_anew_counts_what_is_left() {
        let mut transfers = after(&[planned("cp-1", 100 * MB), came(1000, "cp-1", 60 * MB, 0)]);
        transfers.take(&event(5000, "cp-1", EventKind::PushPlanned { bytes: 40 * MB }));
        assert_eq!(transfers.of_all(), Some((40 * MB, 0)));
        transfers.take(&came(6000, "cp-1", 10 * MB, 0));
        assert_eq!(transfers.of_all(), Some((40 * MB, 10 * MB)));
        transfers.take(&came(7000, "cp-1", 44 * MB, 0));
        assert_eq!(transfers.of_all(), None, "some bytes were sent twice");
    }

    #[test]
    fn without_a_terminal_there_is_a_line_every_few_seconds() {
        let mut transfers = after(&[planned("cp-1", 100 * MB)]);
        let mut lines = Vec::new();
        for tick in 1..=100 {
            let event = came(tick * 130, "cp-1", tick * MB, 0);
            transfers.take(&event);
            lines.extend(transfers.line(&event).map(|line| (event.at_ms, line)));
        }
        let at: Vec<u64> = lines.iter().map(|(at_ms, _)| *at_ms).collect();
        assert_eq!(at, [5070, 10_140, 13_000]);
        assert_eq!(
            lines[0].1,
            "files: 39.0 MB of 100.0 MB (39 %), 7.7 MB/s, 8 s left, 1 of 1 nodes wait"
        );
        assert_eq!(lines[2].1, "files: all 100.0 MB have come");
        let mut short = after(&[planned("cp-1", MB)]);
        let event = came(100, "cp-1", MB, 0);
        short.take(&event);
        assert_eq!(short.line(&event), None);
    }

    #[test]
    fn times_are_told_in_the_units_that_fit() {
        for (seconds, text) in [(9, "9 s"), (60, "1 min 0 s"), (3725, "1 h 2 min")] {
            assert_eq!(duration(seconds), text);
        }
    }
}
