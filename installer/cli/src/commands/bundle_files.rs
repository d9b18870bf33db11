//! `bundle diff`, `delta`, `apply`, `split`, `join`, `export`, `sbom`: bundles on their way by stick.

use super::CommandResult;
use crate::args::{BundleFiles as Command, TrustArgs};
use crate::output::{write_stderr, write_stdout, write_whole};
use crate::{render, trust};
use landfall_bundle::{Bundle, Change, Difference, Unverified, Verified, delta, diff, export, parts};
use landfall_core::bundle_index::BundleRole;
use landfall_core::explain::{Code, Diagnosis, ExitCode};
use std::path::Path;

/// Runs one of them.
pub fn run(command: Command) -> CommandResult {
    let result = match command {
        Command::Diff { old, new, all, json } => show_diff(&old, &new, all, json),
        Command::Delta {
            old,
            new,
            output,
            trust,
        } => make_delta(&old, &new, &output, &trust),
        Command::Apply {
            old,
            delta,
            output,
            trust,
        } => apply(&old, &delta, &output, &trust),
        Command::Split { file, size, output } => split(&file, size, &output),
        Command::Join { folder, output } => join(&folder, &output),
        Command::Export {
            bundle,
            role,
            output,
            trust,
        } => export_role(&bundle, role.into(), &output, &trust),
        Command::Sbom { bundle, output } => sbom(&bundle, output.as_deref()),
    };
    result.map(|()| ExitCode::Done).map_err(|d| vec![d])
}

fn open(path: &Path, trust: &TrustArgs) -> Result<Bundle<Verified>, Diagnosis> {
    Bundle::open(path)?.verify(&trust::offer(trust, &[])?)
}

fn show_diff(old: &Path, new: &Path, all: bool, json: bool) -> Result<(), Diagnosis> {
    let (old, new) = (Bundle::<Unverified>::open(old)?, Bundle::<Unverified>::open(new)?);
    let found = diff(&old, &new);
    if json {
        write_stdout(&format!("{:#}\n", serde_json::to_value(&found).unwrap_or_default()));
        return Ok(());
    }
    let mut text = String::new();
    for difference in found.iter().filter(|d| all || d.change != Change::Same) {
        text.push_str(&line(difference));
    }
    let count = |change| found.iter().filter(|d| d.change == change).count();
    let blobs = new.index().blobs.iter();
    let new_bytes: u64 = blobs
        .filter(|b| old.index().blob(&b.digest).is_none())
        .map(|b| b.size_bytes)
        .sum();
    text.push_str(&format!(
        "{} same, {} changed, {} added, {} removed; {} in blobs that the old bundle lacks\n",
        count(Change::Same),
        count(Change::Changed),
        count(Change::Added),
        count(Change::Removed),
        render::bytes(new_bytes)
    ));
    write_stdout(&text);
    Ok(())
}

fn line(difference: &Difference) -> String {
    let Difference { old, new, .. } = difference;
    let change = match difference.change {
        Change::Same => "same",
        Change::Changed => "changed",
        Change::Added => "added",
        Change::Removed => "removed",
    };
    let versions = match (old.as_deref(), new.as_deref()) {
        (Some(old), Some(new)) if old != new => format!("{old} -> {new}"),
        (old, new) => new.or(old).unwrap_or_default().to_owned(),
    };
    let bytes = match (difference.bytes, difference.new_bytes) {
        (0, _) => String::new(),
        (bytes, 0) => render::bytes(bytes),
        (bytes, new) => format!("{}, {} new", render::bytes(bytes), render::bytes(new)),
    };
    let text = format!("{change:8} {:48} {versions:32} {bytes}", difference.name);
    format!("{}\n", text.trim_end())
}

fn make_delta(old: &Path, new: &Path, output: &Path, trust: &TrustArgs) -> Result<(), Diagnosis> {
    let (old, new) = (open(old, trust)?, open(new, trust)?);
    let size = delta::make(&old, &new, output, &mut |line| write_stderr(&format!("{line}\n")))?;
    write_stdout(&format!(
        "{}: {} in place of {}\n",
        output.display(),
        render::bytes(size.patch_bytes),
        render::bytes(size.new_bytes)
    ));
    Ok(())
}

fn apply(old: &Path, delta: &Path, output: &Path, trust: &TrustArgs) -> Result<(), Diagnosis> {
    let offer = trust::offer(trust, &[])?;
    let old = Bundle::open(old)?.verify(&offer)?;
    let made = delta::apply(&old, delta, output, &offer)?;
    write_stdout(&format!(
        "{}: made to the byte; {}\n",
        output.display(),
        signed_by(&made)
    ));
    Ok(())
}

/// Says who signed a bundle that was checked.
pub(super) fn signed_by(bundle: &Bundle<Verified>) -> String {
    bundle.signer().map_or_else(
        || "not signed by a trusted key".to_owned(),
        |id| format!("signed by {id}"),
    )
}

fn split(file: &Path, size: u64, folder: &Path) -> Result<(), Diagnosis> {
    let count = parts::split(file, size, folder)?;
    write_stdout(&format!(
        "{}: {count} parts and {}\n",
        folder.display(),
        parts::INDEX_NAME
    ));
    Ok(())
}

fn join(folder: &Path, output: &Path) -> Result<(), Diagnosis> {
    let bytes = parts::join(folder, output)?;
    write_stdout(&format!(
        "{}: {}, as it was split\n",
        output.display(),
        render::bytes(bytes)
    ));
    Ok(())
}

fn export_role(bundle: &Path, role: BundleRole, output: &Path, trust: &TrustArgs) -> Result<(), Diagnosis> {
    let bundle = open(bundle, trust)?;
    export(&bundle, role, output)?;
    let exported = open(output, trust)?;
    let sizes = exported
        .index()
        .blobs
        .iter()
        .filter(|b| exported.index().is_for(role, &b.digest));
    write_stdout(&format!(
        "{}: {} for the role {role}; {}\n",
        output.display(),
        render::bytes(sizes.map(|b| b.size_bytes).sum()),
        signed_by(&exported)
    ));
    Ok(())
}

fn sbom(bundle: &Path, output: Option<&Path>) -> Result<(), Diagnosis> {
    let opened = Bundle::<Unverified>::open(bundle)?;
    let text = opened.sbom()?.ok_or_else(|| {
        let what = format!("{} has no bill of materials", bundle.display());
        Diagnosis::new(Code::BundleMissing, what)
    })?;
    match output {
        Some(path) => write_whole(path, &text, 0o644),
        None => {
            write_stdout(&String::from_utf8_lossy(&text));
            Ok(())
        }
    }
}
