//! Container images: imported from the blob store into containerd, pinned, checked.

use super::Work;
use crate::actions::file::{forget_damaged, wrong_digest};
use crate::agent::Agent;
use crate::child::{Input, Job};
use crate::error::{AgentError, Result, io_at};
use crate::files;
use landfall_bundle::BundleError;
use landfall_core::bundle_index::Image;
use landfall_core::observe::Observation;
use std::collections::BTreeSet;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::OnceLock;

/// The label that keeps the kubelet from collecting an image as garbage, and its value.
const PINNED: &str = "io.cri-containerd.pinned=pinned";
/// Bytes under way between the archive's writer and containerd's client.
const PIPE: usize = 1024 * 1024;
/// Where containerd listens.
pub const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";

/// Arguments of `ctr` for Kubernetes' namespace.
pub fn ctr<'a>(args: &[&'a str]) -> Vec<&'a str> {
    ["ctr", "--namespace", "k8s.io"].iter().chain(args).copied().collect()
}

/// Returns the images that are not there with their very manifest, or not pinned. All are missing where containerd is not there yet.
pub fn missing(agent: &Agent, images: &[Image]) -> Result<Vec<Image>> {
    let (key, value) = PINNED.split_once('=').unwrap_or((PINNED, ""));
    if images.is_empty() {
        return Ok(vec![]);
    }
    if !agent.host.at(CONTAINERD_SOCKET).exists() || agent.host.find_program("ctr").is_none() {
        return Ok(images.to_vec());
    }
    let filters: Vec<String> = images
        .iter()
        .map(|i| {
            format!(
                "name=={},target.digest=={},labels.\"{key}\"=={value}",
                i.reference, i.manifest
            )
        })
        .collect();
    let mut argv = ctr(&["images", "list", "--quiet"]);
    argv.extend(filters.iter().map(String::as_str));
    let text = agent.children.run(&agent.host, Job::quick(&argv, 60))?.text();
    let there: BTreeSet<&str> = text.lines().map(str::trim).collect();
    Ok(images
        .iter()
        .filter(|i| !there.contains(i.reference.as_str()))
        .cloned()
        .collect())
}

/// Returns the references of the images that were missing when the step began.
pub fn seen_missing<'a>(work: &Work<'a>) -> &'a [String] {
    match work.seen {
        Observation::Images { missing } => missing,
        _ => &[],
    }
}

/// Imports the missing images as one archive that is made on the way. The client gets no whole archive when a blob is damaged, and makes no image
/// then; the blob is removed, so that the next run brings it again. Blocks until the step's deadline at most.
pub fn import(work: &Work, images: &[Image]) -> Result<()> {
    let host = &work.agent.host;
    let is_missing = |image: &&Image| seen_missing(work).iter().any(|name| name == image.reference.as_str());
    let wanted: Vec<Image> = images.iter().filter(is_missing).cloned().collect();
    if let Some(digest) = wanted.iter().flat_map(|i| &i.blobs).find(|d| !host.blob(d).exists()) {
        return Err(AgentError::BlobMissing(*digest));
    }
    let blobs = host.state("blobs");
    let damaged = OnceLock::new();
    let feed = |stdin: std::process::ChildStdin| {
        // With the usual 64 KiB the two sides would wait for each other ten thousand times.
        let _ = rustix::pipe::fcntl_setpipe_size(&stdin, PIPE);
        let mut to = BufWriter::with_capacity(PIPE, stdin);
        let written = landfall_bundle::write_oci_archive(&wanted, &blobs, &mut to);
        if let Err(BundleError::StoredBlob { digest, .. }) = &written {
            let _ = damaged.set(*digest);
        }
        written?;
        to.flush().map_err(io_at("writing to", Path::new("ctr")))
    };
    // `--local`: through containerd's transfer service the same import costs half as much CPU again.
    let argv = ctr(&["images", "import", "--local", "--label", PINNED, "-"]);
    let job = Job {
        deadline: work.deadline,
        input: Input::Feed(Box::new(feed)),
        ..Job::quick(&argv, 0)
    };
    let imported = work.agent.children.run(host, job).map(|_| ());
    // containerd's client says only that the archive ends too early.
    if let Some(blob) = damaged.into_inner() {
        files::remove_file(&host.blob(&blob))?;
        return Err(wrong_digest(blob));
    }
    if imported.is_err() && !work.agent.children.is_stopping() {
        forget_damaged(host, wanted.iter().flat_map(|i| &i.blobs))?;
    }
    imported
}

/// Removes images; ones that are gone are fine, and so is a containerd that is gone.
pub fn remove(agent: &Agent, references: &[String]) -> Result<()> {
    let socket = agent.host.at(CONTAINERD_SOCKET);
    if references.is_empty() || std::os::unix::net::UnixStream::connect(socket).is_err() {
        return Ok(());
    }
    let mut argv = ctr(&["images", "remove", "--sync"]);
    argv.extend(references.iter().map(String::as_str));
    agent.children.run(&agent.host, Job::quick(&argv, 120)).map(|_| ())
}
