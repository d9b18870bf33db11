//! What preflight looks at beside the present moment: files that count at the next boot, disks, leftovers, tries.

use super::{places, tries};
use crate::actions::system::{ModuleIndex, loaded_modules};
use crate::host::Host;
use crate::netlink::nft;
use crate::text_files;
use landfall_core::facts::{Survey, SurveyQuery};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// Most names that are told of a directory.
const MAX_NAMES: usize = 20;

/// Looks at everything that is asked for. Files and disks of a directory that stands in for a machine are looked at; it has no kernel to
/// try anything with.
pub(super) fn gather(host: &Host, query: &SurveyQuery) -> io::Result<Survey> {
    let modules = modules(host, &query.modules);
    let (tables, chains) = rules(host, query);
    let mut survey = Survey {
        files: text_files::read(host, &query.files),
        places: BTreeMap::new(),
        immutable: query
            .mutable_files
            .iter()
            .filter(|path| places::is_immutable(&host.at(path)))
            .cloned()
            .collect(),
        contents: query
            .listed
            .iter()
            .filter_map(|path| Some((path.clone(), names(host, path)?)))
            .collect(),
        links: host
            .network()
            .links()?
            .into_iter()
            .map(|link| (link.name, link.kind))
            .collect(),
        tables,
        chains,
        loaded_modules: modules.intersection(&loaded_modules(host)).cloned().collect(),
        modules,
        ..Survey::default()
    };
    for place in &query.places {
        survey.places.insert(place.clone(), places::look(host, place)?);
    }
    if host.has_kernel() {
        tries::without_new_modules(host, || {
            if query.try_nftables {
                survey.nftables_families = tries::nftables_families();
            }
            if let Some(directory) = &query.try_overlay {
                survey.overlay = tries::overlay(host, directory);
            }
        });
    }
    Ok(survey)
}

/// Returns what is in a directory, some names of it; `None` when it is none.
fn names(host: &Host, path: &str) -> Option<Vec<String>> {
    let entries = std::fs::read_dir(host.at(path)).ok()?.flatten();
    let mut names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names.truncate(MAX_NAMES);
    Some(names)
}

/// Returns tables by their names and chains by the prefixes of theirs. Where nf_tables is a module that is not loaded there are none, and asking
/// would load it.
fn rules(host: &Host, query: &SurveyQuery) -> (BTreeSet<String>, BTreeSet<String>) {
    let (names, prefixes) = (&query.table_names, &query.chain_prefixes);
    if (names.is_empty() && prefixes.is_empty()) || !has_nftables(host) {
        return (BTreeSet::new(), BTreeSet::new());
    }
    let all = nft::read().unwrap_or_default();
    let tables = all.tables.iter().filter(|table| names.contains(&table.name));
    let chains = all.chains.iter();
    let chains = chains.filter(|chain| prefixes.iter().any(|p| chain.name.starts_with(p.as_str())));
    (
        tables.map(ToString::to_string).collect(),
        chains.map(|chain| format!("{} {}", chain.table, chain.name)).collect(),
    )
}

/// Says whether nf_tables can be asked without loading its module.
pub(super) fn has_nftables(host: &Host) -> bool {
    let is_loaded = || loaded_modules(host).contains("nf_tables") || !ModuleIndex::read(host).has("nf_tables");
    host.has_packet_filters() && is_loaded()
}

fn modules(host: &Host, asked: &[String]) -> BTreeSet<String> {
    let index = ModuleIndex::read(host);
    asked.iter().filter(|module| index.has(module)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_core::facts::{FilePattern, Tried};

    /// Needs root.
    #[test]
    fn this_machine_is_looked_at_and_stays_as_it_is() {
        let query = SurveyQuery {
            files: vec![FilePattern {
                pattern: "/proc/sys/kernel/osrel*".to_owned(),
                only: vec![],
            }],
            places: vec!["/usr/local/bin".to_owned(), "/no/such".to_owned()],
            mutable_files: vec!["/etc/hosts".to_owned()],
            listed: vec!["/etc".to_owned(), "/no/such".to_owned()],
            chain_prefixes: vec!["KUBE-".to_owned()],
            try_nftables: true,
            ..SurveyQuery::default()
        };
        let modules_before = loaded_modules(&Host::real());
        let seen = gather(&Host::real(), &query).unwrap();
        assert!(seen.files.contains_key("/proc/sys/kernel/osrelease"));
        assert_eq!(seen.places["/no/such"].directory, "/");
        assert!(seen.links.contains_key("lo") && seen.contents.len() == 1 && seen.contents["/etc"].len() == MAX_NAMES);
        assert!(seen.nftables_families.values().all(|t| *t == Tried::Works));
        assert_eq!(seen.overlay, Tried::Unknown, "it was not asked for");
        assert_eq!(loaded_modules(&Host::real()), modules_before);
    }

    #[test]
    fn a_directory_that_stands_in_for_a_machine_has_files_and_no_kernel() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::under(root.path());
        std::fs::create_dir_all(host.at("/var/lib/etcd/lost+found")).unwrap();
        let query = SurveyQuery {
            places: vec!["/var/lib/etcd".to_owned()],
            listed: vec!["/var/lib/etcd".to_owned()],
            chain_prefixes: vec![String::new()],
            try_overlay: Some("/var/lib/containerd".to_owned()),
            try_nftables: true,
            ..SurveyQuery::default()
        };
        let seen = gather(&host, &query).unwrap();
        assert_eq!(seen.contents["/var/lib/etcd"], ["lost+found"]);
        assert_eq!(seen.places["/var/lib/etcd"].directory, "/var/lib/etcd");
        assert!(seen.chains.is_empty() && seen.nftables_families.is_empty() && seen.overlay == Tried::Unknown);
    }
}
