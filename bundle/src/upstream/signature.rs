//! Publishers' signatures, verified by `cosign` and `gpgv` where they are installed. What is signed, and how, the catalogue says. A signature that
//! is looked for and is wrong, or is not there, is an error; what was not looked for is said, with the reason.

mod gpgv;
mod program;

use super::NetworkOptions;
use super::catalogue::{self, GITHUB_ISSUER, KUBERNETES_ISSUER, KUBERNETES_SIGNER, OPENPGP, Signing};
use super::download::{Downloads, small_file};
use super::lockfile::{Known, LockFile, LockedProgram};
use crate::source::contents::NODE_PROGRAMS;
use crate::source::{failed, io};
use landfall_core::explain::{Code, Diagnosis};
use program::Ended;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;
use std::time::Duration;

/// The most that a signature, certificate or attestation may have; publishers' own have less than 50 kB.
const SIGNATURE_BYTES: u64 = 1024 * 1024;
/// Longer than cosign gives itself (`--timeout`, three minutes): it asks the roots of trust and the transparency log.
const COSIGN_LIMIT: Duration = Duration::from_secs(200);
/// gpgv reads a file once and asks nobody.
const GPGV_LIMIT: Duration = Duration::from_secs(60);
/// The way out when a signature cannot be verified for reasons of this machine.
const SKIP: &str = "to lock without it, which the lock file will say: --signatures skip";

/// Which publishers' signatures are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignaturePolicy {
    /// Those for which the verifying program is installed, and the keyring given.
    Check,
    /// All of them; what cannot be verified is an error.
    Require,
    /// None.
    Skip,
}

/// How publishers' signatures are verified.
pub struct SignatureOptions<'a> {
    /// Which are.
    pub policy: SignaturePolicy,
    /// Keys for gpgv.
    pub keyrings: &'a [Keyring],
}

/// A publisher's OpenPGP keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyring {
    component: String,
    file: PathBuf,
}

impl FromStr for Keyring {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (component, file) = text.split_once('=').ok_or("it does not have the form NAME=FILE")?;
        if !OPENPGP.contains(&component) {
            return Err(format!(
                "{component} is none of those that sign by OpenPGP: {}",
                OPENPGP.join(", ")
            ));
        }
        Ok(Self {
            component: component.to_owned(),
            file: file.into(),
        })
    }
}

/// Verifies what the programs of a lock file are.
pub(super) struct Signatures<'a> {
    pub options: &'a SignatureOptions<'a>,
    pub network: &'a NetworkOptions<'a>,
    pub downloads: &'a Downloads<'a>,
}

impl Signatures<'_> {
    /// Returns what is known now of each component; says it too. Fetches the files that are verified. Blocks on the network and on the
    /// programs, at most three minutes for each file. With [`SignaturePolicy::Require`], what is signed and cannot be verified is an error
    /// that names all of it.
    pub fn check(&self, lock: &LockFile, architectures: &[String]) -> Result<BTreeMap<String, Known>, Diagnosis> {
        let mut all = BTreeMap::new();
        let mut lacking = Vec::new();
        let components: BTreeSet<&str> = NODE_PROGRAMS.iter().map(|program| program.component).collect();
        for component in components.into_iter().filter(|name| *name != "landfall") {
            let recorded = lock.signature(component);
            let version = lock.version_of(component).unwrap_or_default();
            let say = |text: &str| (self.network.progress)(&format!("{component} {version}: {text}"));
            let asked_again = self.options.policy == SignaturePolicy::Require && recorded != Some(Known::Verified);
            let known = match recorded {
                Some(known) if !asked_again => {
                    say(&format!("signature {known}, by the lock file"));
                    known
                }
                _ => {
                    let (known, needed) = self.component(lock, component, architectures)?;
                    say(&format!("signature {known}"));
                    if needed && let Known::NotChecked(why) = &known {
                        lacking.push(format!("{component} {version}: {why}"));
                    }
                    known
                }
            };
            all.insert(component.to_owned(), known);
        }
        if self.options.policy != SignaturePolicy::Require || lacking.is_empty() {
            return Ok(all);
        }
        let what = "publishers' signatures are required, and not all can be verified";
        let lacks = lacking
            .into_iter()
            .fold(Diagnosis::new(Code::PublisherSignature, what), Diagnosis::saw);
        Err(lacks.next("install cosign and gpgv, and name the publisher's keyring: --keyring runc=FILE"))
    }

    /// Verifies the files of one component. Also says whether somebody signs them.
    fn component(
        &self,
        lock: &LockFile,
        component: &str,
        architectures: &[String],
    ) -> Result<(Known, bool), Diagnosis> {
        let not = |why: &str, signed: bool| Ok((Known::NotChecked(why.to_owned()), signed));
        let mut files: BTreeMap<&str, (&LockedProgram, Signing)> = BTreeMap::new();
        for program in lock
            .programs
            .iter()
            .filter(|program| architectures.contains(&program.architecture))
        {
            let mut own = NODE_PROGRAMS.iter().filter(|own| own.component == component);
            if own.all(|own| own.name != program.name) {
                continue;
            }
            let version = lock.version_of(component).unwrap_or_default();
            let at = catalogue::published(component, &program.name, version, &program.architecture);
            match at.filter(|at| at.url == program.url) {
                Some(at) => files.insert(&program.url, (program, at.signing)),
                // Somebody edited the lock file, or its version.
                None => {
                    return not(
                        &format!("{} is not where the publisher has this version", program.url),
                        true,
                    );
                }
            };
        }
        let mut by = None;
        for (_, signing) in files.values() {
            match signing {
                Signing::Nothing => return not("the publisher signs none of its files", false),
                Signing::From(first) => {
                    return not(&format!("the publisher signs from version {first} on"), false);
                }
                Signing::OpenPgp { .. } => by = Some("gpgv"),
                Signing::CosignBlob { .. } | Signing::CosignAttestation { .. } => by = Some("cosign"),
            }
        }
        let Some(by) = by else {
            return not("the lock file has none of its programs", false);
        };
        if self.options.policy == SignaturePolicy::Skip {
            return not("left out by --signatures skip", true);
        }
        let Some(program) = program::find(by, &std::env::var_os("PATH").unwrap_or_default()) else {
            return not(&format!("{by} is not installed"), true);
        };
        let keyring = self
            .options
            .keyrings
            .iter()
            .find(|keyring| keyring.component == component);
        if by == "gpgv" && keyring.is_none() {
            return not(&format!("no keyring was given (--keyring {component}=FILE)"), true);
        }
        for (locked, signing) in files.values() {
            let verifier = Verifier {
                signatures: self,
                program: &program,
                locked,
                folder: private_folder()?,
            };
            verifier.verify(signing, keyring)?;
        }
        Ok((Known::Verified, true))
    }
}

fn private_folder() -> Result<tempfile::TempDir, Diagnosis> {
    // Mode 0700.
    tempfile::Builder::new()
        .prefix("landfall-signature-")
        .tempdir()
        .map_err(|error| failed("a temporary folder cannot be made").because(&error))
}

/// Verifies one file. What is fetched for it lies in a folder of its own, which goes with it.
struct Verifier<'a> {
    signatures: &'a Signatures<'a>,
    program: &'a Path,
    locked: &'a LockedProgram,
    folder: tempfile::TempDir,
}

impl Verifier<'_> {
    fn verify(&self, signing: &Signing, keyring: Option<&Keyring>) -> Result<(), Diagnosis> {
        match signing {
            Signing::CosignBlob { signature, certificate } => {
                let signature = self.fetch(signature, "signature")?;
                let certificate = self.fetch(certificate, "certificate")?;
                let files = [("--signature", signature), ("--certificate", certificate)];
                self.cosign("verify-blob", &files, KUBERNETES_SIGNER, KUBERNETES_ISSUER)
            }
            Signing::CosignAttestation { bundle, identity } => {
                let files = [("--bundle", self.fetch(bundle, "attestation")?)];
                // Of SLSA's versions, the one that actions/attest-build-provenance writes.
                self.cosign(
                    "verify-blob-attestation --type slsaprovenance1",
                    &files,
                    identity,
                    GITHUB_ISSUER,
                )
            }
            Signing::OpenPgp { signature } => {
                let Some(keyring) = keyring else { return Ok(()) };
                let signature = self.fetch(signature, "signature")?;
                let keys = gpgv::binary_keyring(&keyring.file, self.folder.path())?;
                let mut gpgv = Command::new(self.program);
                // A home of its own: nothing of the user's takes part.
                gpgv.arg("--homedir").arg(self.folder.path()).arg("--keyring").arg(keys);
                gpgv.args(["--status-fd", "1", "--"]).arg(signature).arg(self.file()?);
                let ended = self.run(&mut gpgv, GPGV_LIMIT)?;
                match gpgv::verdict(&ended) {
                    Ok(()) => Ok(()),
                    Err(why) => Err(self.refused(&why, &ended)),
                }
            }
            Signing::Nothing | Signing::From(_) => Ok(()),
        }
    }

    fn cosign(&self, command: &str, files: &[(&str, PathBuf)], identity: &str, issuer: &str) -> Result<(), Diagnosis> {
        let mut cosign = Command::new(self.program);
        cosign.args(command.split(' '));
        for (flag, file) in files {
            cosign.arg(flag).arg(file);
        }
        cosign.args(["--certificate-identity", identity, "--certificate-oidc-issuer", issuer]);
        cosign.arg(self.file()?);
        let ended = self.run(&mut cosign, COSIGN_LIMIT)?;
        if ended.success {
            return Ok(());
        }
        Err(self.refused(&format!("cosign does not verify it ({})", ended.status), &ended))
    }

    /// Fetches the signed file, by its digest, into the cache, from which a build takes it.
    fn file(&self) -> Result<PathBuf, Diagnosis> {
        let digest = self.locked.digest();
        let digest = digest.ok_or_else(|| failed(format!("{} has no digest", self.locked.url)))?;
        let label = self.locked.label();
        self.signatures
            .downloads
            .fetch_url(&digest, &label, self.signatures.network.mirrors, &self.locked.url)
    }

    /// Fetches a small file beside it. That it is not there is an error: who replaces a program can take its signature away too.
    fn fetch(&self, url: &str, name: &str) -> Result<PathBuf, Diagnosis> {
        let client = self.signatures.downloads.client;
        let fetched = small_file(client, self.signatures.network.mirrors, url, SIGNATURE_BYTES);
        let bytes = fetched.map_err(|refused| {
            let what = format!(
                "the {name} that the publisher makes of {} cannot be had",
                self.locked.url
            );
            let lacks = Diagnosis::new(Code::PublisherSignature, what);
            let lacks = refused.into_iter().fold(lacks, Diagnosis::saw);
            lacks
                .next("look whether the publisher, or the mirror, has it")
                .next(SKIP)
        })?;
        let path = self.folder.path().join(name);
        std::fs::write(&path, bytes).map_err(io("written", &path))?;
        Ok(path)
    }

    fn run(&self, command: &mut Command, limit: Duration) -> Result<Ended, Diagnosis> {
        let ended = program::run(command, self.folder.path(), limit);
        ended.map_err(|error| {
            let what = format!("{} cannot be started", self.program.display());
            Diagnosis::new(Code::PublisherSignature, what)
                .because(&error)
                .next(SKIP)
        })
    }

    fn refused(&self, why: &str, ended: &Ended) -> Diagnosis {
        let what = format!("the publisher's signature of {} is not good", self.locked.url);
        let refused = Diagnosis::new(Code::PublisherSignature, what).saw(why);
        ended.last_lines.iter().fold(refused, |refused, line| refused.saw(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keyrings_are_for_those_who_sign_by_openpgp() {
        let keyring: Keyring = "runc=keys/a=b.gpg".parse().unwrap();
        assert_eq!(keyring.file, Path::new("keys/a=b.gpg"));
        assert!("runc".parse::<Keyring>().is_err());
        assert!("kubernetes=x".parse::<Keyring>().unwrap_err().contains("runc"));
    }
}
