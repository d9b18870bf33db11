//! nftables tables that daemons in containers write once, or once an hour: when they are gone, their containers are ended, and the kubelet
//! starts them again.
//!
//! `nft flush ruleset`, which a restart of nftables.service does, takes every table away. kube-proxy in nftables mode writes all of its rules
//! anew once an hour (`pkg/proxy/nftables`, `syncPeriod`; its iptables mode has canaries and needs no help), flannel never
//! (`pkg/trafficmngr/nftables`).
//!
//! A cluster that goes over to `proxyMode: iptables` removes both tables. The cluster's record says so before its daemons do: from then on no table
//! is missed.

use crate::agent::Agent;
use crate::containers;
use crate::netlink::nft;
use std::collections::{BTreeMap, BTreeSet};

/// A table, and the container that writes it when it starts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Writer {
    table: &'static str,
    namespace: &'static str,
    container: &'static str,
}

const WRITERS: [Writer; 2] = [
    Writer {
        table: "ip kube-proxy",
        namespace: "kube-system",
        container: "kube-proxy",
    },
    Writer {
        table: "ip flannel-ipv4",
        namespace: "kube-flannel",
        container: "flannel",
    },
];

/// For how many looks in a row (a minute) a table may be missing that this process has not seen: its writer may not run yet. After that it was flushed
/// away while the service was not there.
const LOOKS_UNSEEN: u32 = 30;

/// Tables in which CNI's portmap keeps the hostPorts of pods. It writes them when a pod is made, and nobody writes them again: pods of users are
/// not ended for it.
const HOST_PORTS: [&str; 2] = ["ip cni_hostport", "inet cni_hostport"];

/// Which tables were there, and which were missing at the last look.
#[derive(Default)]
pub(super) struct Tables {
    seen: BTreeSet<&'static str>,
    /// How often in a row each was missing.
    missing: BTreeMap<&'static str, u32>,
    /// Tables that were not there again since their writers were ended.
    ended: BTreeSet<&'static str>,
    /// What was said last of writers that could not be ended, by their table.
    trouble: BTreeMap<&'static str, String>,
    /// Tables of hostPorts at the last look.
    host_ports: BTreeSet<&'static str>,
}

impl Tables {
    /// Forgets all tables: they have gone, or will go, because a run wants it so.
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// Begins to count anew how often tables are missing: a run may be about to start their writers.
    pub(super) fn pause(&mut self) {
        self.missing.clear();
    }

    /// Returns the writers of tables that were there before and are missing for the second time in a row (a writer may be about to write), or that were
    /// never there and are missing for a minute.
    pub(super) fn look(&mut self, say: &mut dyn FnMut(&str)) -> Vec<&'static Writer> {
        // Rules that cannot be listed say nothing.
        let Ok(tables) = nft::tables() else { return vec![] };
        let there: BTreeSet<String> = tables.iter().map(ToString::to_string).collect();
        for table in HOST_PORTS {
            if there.contains(table) {
                self.host_ports.insert(table);
            } else if self.host_ports.remove(table) {
                say(&format!(
                    "the nftables table {table} is gone; hostPorts of pods on this node are closed until the pods are made anew (kubectl delete pod)"
                ));
            }
        }
        let mut due = Vec::new();
        for writer in &WRITERS {
            if there.contains(writer.table) {
                self.seen.insert(writer.table);
                self.missing.remove(writer.table);
                self.ended.remove(writer.table);
                continue;
            }
            let looks = self.missing.entry(writer.table).or_default();
            *looks += 1;
            let most = if self.seen.contains(writer.table) {
                2
            } else {
                LOOKS_UNSEEN
            };
            if *looks >= most && !self.ended.contains(writer.table) {
                due.push(writer);
            }
        }
        due
    }

    /// Ends the containers of these writers. One that cannot be ended now is tried again at the next look.
    pub(super) fn restart_writers(&mut self, agent: &Agent, due: &[&'static Writer], say: &mut dyn FnMut(&str)) {
        for writer in due {
            match containers::end_all(agent, writer.namespace, writer.container) {
                // It does not run now, and writes its table when it starts. Tried again in a minute.
                Ok(0) => {
                    self.seen.remove(writer.table);
                    self.missing.remove(writer.table);
                }
                Ok(count) => {
                    // It is due again when the table has been there again.
                    self.ended.insert(writer.table);
                    self.missing.remove(writer.table);
                    self.trouble.remove(writer.table);
                    say(&format!(
                        "the nftables table {} is gone; ended {count} container(s) {}/{}, which write it when they start again",
                        writer.table, writer.namespace, writer.container
                    ));
                }
                Err(error) => {
                    let trouble = format!(
                        "the writer of the nftables table {} cannot be ended: {}",
                        writer.table,
                        error.line()
                    );
                    if self.trouble.get(writer.table) != Some(&trouble) {
                        say(&trouble);
                        self.trouble.insert(writer.table, trouble);
                    }
                }
            }
        }
    }
}
