//! Looks at what steps are about. Reads only; `landfall_core::observe` judges.

use crate::actions::{images, kubeconfig, system, unit};
use crate::agent::Agent;
use crate::error::Result;
use crate::{files, firewall};
use landfall_core::action::{Action, Content};
use landfall_core::bundle_index::Image;
use landfall_core::journal::{Entry, Ownership};
use landfall_core::name::ImageRef;
use landfall_core::observe::{Observation, Observations};
use landfall_core::plan::Step;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Looks at what several steps are about.
pub fn observe_all(agent: &Agent, steps: &[Step]) -> Result<Observations> {
    let own: Ownership = agent.ownership()?;
    // containerd's client is asked once for the images of all steps.
    let images: Vec<Image> = steps.iter().flat_map(|step| images_of(&step.action)).cloned().collect();
    let missing: BTreeSet<ImageRef> = images::missing(agent, &images)?
        .into_iter()
        .map(|i| i.reference)
        .collect();
    let look = |step: &Step| {
        let seen = match &step.action {
            Action::Images { images } => images_seen(images, |image| missing.contains(&image.reference)),
            action => observe(agent, action, own.newest(&step.id))?,
        };
        Ok((step.id.clone(), seen))
    };
    steps.iter().map(look).collect()
}

fn images_of(action: &Action) -> &[Image] {
    match action {
        Action::Images { images } => images,
        _ => &[],
    }
}

fn images_seen(images: &[Image], is_missing: impl Fn(&Image) -> bool) -> Observation {
    let missing = images.iter().filter(|image| is_missing(image));
    Observation::Images {
        missing: missing.map(|image| image.reference.to_string()).collect(),
    }
}

/// Looks at what one action is about. `entry` is its newest record, whose stamp may save reading a file.
pub fn observe(agent: &Agent, action: &Action, entry: Option<&Entry>) -> Result<Observation> {
    let host = &agent.host;
    Ok(match action {
        Action::Directory { path, .. } => Observation::Directory {
            exists: host.at(path).is_dir(),
        },
        Action::File { path, content, .. } => observe_file(agent, path, Some(content), entry)?,
        Action::Binary { path, .. } => observe_file(agent, path, None, entry)?,
        Action::KubeconfigServer { path, from, .. } => Observation::Kubeconfig {
            names_server: kubeconfig::names_server(host, path, from)?,
        },
        Action::HostsLines { lines } => Observation::HostsLines {
            missing: system::missing_hosts_lines(host, lines)?,
        },
        Action::Sysctls { settings } => {
            let differing = system::differing_sysctls(host, settings).into_iter();
            let value = |(name, _): (String, String)| {
                let value = system::read_sysctl(host, &name);
                (name, value)
            };
            Observation::Sysctls {
                differing: differing.map(value).collect(),
            }
        }
        Action::KernelFeatures { features } => {
            let absent = features.iter().filter(|f| !system::has_feature(host, &f.evidence));
            Observation::Features {
                absent: absent.map(|f| f.module.clone()).collect(),
            }
        }
        Action::Firewall { openings } => Observation::Firewall {
            faults: firewall::faults(agent, openings)?,
        },
        Action::Unit { name, .. } | Action::StopUnit { name } => unit::observe(agent, name)?,
        Action::Images { images } => {
            let missing = images::missing(agent, images)?;
            images_seen(images, |image| missing.iter().any(|m| m.reference == image.reference))
        }
        Action::Run { creates, .. } | Action::Bootstrap { creates, .. } => {
            let missing: Vec<PathBuf> = creates.iter().filter(|p| !host.at(p).exists()).cloned().collect();
            Observation::Paths { missing }
        }
        Action::Claim { .. }
        | Action::Apply { .. }
        | Action::Delete { .. }
        | Action::Await { .. }
        | Action::MarkUndo { .. }
        | Action::BeginUndo { .. }
        | Action::TakeBack { .. }
        | Action::FinishUndo { .. }
        | Action::LeaveCluster { .. }
        | Action::RestoreObjects { .. } => Observation::Nothing,
    })
}

/// A file whose stamp is as recorded is not hashed again: its content has not changed. This saves hashing some hundred megabytes.
fn observe_file(agent: &Agent, path: &Path, content: Option<&Content>, entry: Option<&Entry>) -> Result<Observation> {
    let real = agent.host.at(path);
    let stamp = files::stamp(&real);
    // Of an entry whose line was lost nobody knows which content its stamp belongs to.
    let same_as_recorded = stamp.is_some() && entry.is_some_and(|e| e.stamp == stamp && !e.undo.is_lost());
    let secret = match content {
        Some(Content::Secret(id)) => agent.secret(id),
        _ => None,
    };
    let holds_secret = match &secret {
        Some(secret) => Some(files::read(&real)?.is_some_and(|found| found == secret.expose())),
        None => None,
    };
    let public = !matches!(content, Some(Content::Secret(_) | Content::Generated(_)));
    let digest = if public && stamp.is_some() && !same_as_recorded {
        Some(files::digest(&real)?)
    } else {
        None
    };
    Ok(Observation::File {
        mode: files::mode_of(&real),
        same_as_recorded,
        digest,
        holds_secret,
    })
}
