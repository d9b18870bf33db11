//! Publishers' signatures: Debian's own gpgv with keys that are made here, and a program in the place of cosign, which shows what cosign is asked.
//! The signatures of Kubernetes and containerd are keyless, bound to the publisher's identity, and cannot be made here.

use crate::program::Ran;
use crate::upstream::Builder;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const RUNC: &str = "github.com/opencontainers/runc/releases/download/v1.5.2/runc.amd64";
const KUBERNETES: &str = "dl.k8s.io/release/v1.37.2/bin/linux/amd64";
const CONTAINERD: &str = "github.com/containerd/containerd/releases/download/v2.4.2";

/// A key of GnuPG, in a home of its own.
struct Key(tempfile::TempDir);

impl Key {
    fn new() -> Self {
        let key = Self(tempfile::tempdir().unwrap());
        std::fs::set_permissions(key.0.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        key.gpg(&[
            "--passphrase",
            "",
            "--quick-generate-key",
            "runc <runc@test>",
            "ed25519",
            "sign",
            "1d",
        ]);
        key
    }

    fn gpg(&self, args: &[&str]) -> Vec<u8> {
        let mut gpg = Command::new("gpg");
        gpg.arg("--homedir")
            .arg(self.0.path())
            .args(["--batch", "--quiet", "--pinentry-mode", "loopback"]);
        let output = gpg.args(args).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    fn sign(&self, bytes: &[u8]) -> Vec<u8> {
        let file = self.0.path().join("file");
        std::fs::write(&file, bytes).unwrap();
        self.gpg(&["--armor", "--output", "-", "--detach-sign", file.to_str().unwrap()])
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        let mut end = Command::new("gpgconf");
        let _ = end.arg("--homedir").arg(self.0.path()).args(["--kill", "all"]).status();
    }
}

/// Servers on which runc is signed, and a user who has the keyring.
fn signed() -> (Builder, Key) {
    let (builder, key) = (Builder::start(), Key::new());
    let signature = key.sign(&builder.publishers.file(RUNC).unwrap());
    builder.publishers.put(&format!("{RUNC}.asc"), signature);
    builder.home.write("runc.keyring", key.gpg(&["--armor", "--export"]));
    builder.home.write("runc.gpg", key.gpg(&["--export"]));
    (builder, key)
}

const KEYRING: [&str; 2] = ["--keyring", "runc=runc.keyring"];

/// What a lock file says of a component's signature.
#[track_caller]
fn known(builder: &Builder, component: &str) -> String {
    let text = std::fs::read_to_string(builder.home.path("landfall.lock.yaml")).unwrap();
    let lock: serde_yaml::Value = serde_yaml::from_str(&text).unwrap();
    lock["signatures"][component].as_str().unwrap_or_default().to_owned()
}

#[track_caller]
fn refused(ran: Ran, texts: &[&str], builder: &Builder) {
    ran.ends(5).complains(&["error[LF0406]"]).complains(texts);
    assert!(!builder.home.path("landfall.lock.yaml").exists());
    assert!(!builder.home.path("x.bundle").exists());
}

#[test]
fn a_good_signature_is_verified_and_said() {
    let (builder, _key) = signed();
    for keyring in ["runc=runc.keyring", "runc=runc.gpg"] {
        let ran = builder.lock(&["--keyring", keyring]).ends(0);
        ran.complains(&["runc 1.5.2: signature verified"]);
        assert_eq!(known(&builder, "runc"), "verified");
    }
    // What was fetched to verify it is gone again.
    let (proxy, folder) = (builder.publishers.proxy(), builder.home.path("tmp"));
    std::fs::create_dir(&folder).unwrap();
    let environment = [("HTTPS_PROXY", proxy.as_str()), ("TMPDIR", folder.to_str().unwrap())];
    let args = [&["bundle", "lock", "--ca", "ca.pem"], &KEYRING[..]].concat();
    builder.home.run_with(&environment, &args).ends(0);
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    let built = builder.build(&["--lock", "landfall.lock.yaml"]).ends(0);
    built.complains(&["runc 1.5.2: signature verified, by the lock file"]);
}

#[test]
fn a_wrong_signature_gets_past_nothing() {
    let (builder, _key) = signed();
    // The publisher's file and its checksum are replaced, the signature is the one of the old file.
    let other = b"\x7fELF another runc".to_vec();
    let sum = landfall_core::name::Digest::of(&other).hex();
    builder.publishers.put(RUNC, other);
    builder.publishers.put(
        "github.com/opencontainers/runc/releases/download/v1.5.2/runc.sha256sum",
        format!("{sum} *runc.amd64\n"),
    );
    let why = ["runc.amd64 is not good", "the file is another one than was signed"];
    refused(builder.lock(&KEYRING), &why, &builder);
    refused(builder.build(&KEYRING), &why, &builder);
    // Without the keyring nobody looks: it is said, and it is in the lock file.
    builder
        .lock(&[])
        .ends(0)
        .complains(&["runc 1.5.2: signature not-checked: no keyring"]);
    // Who requires it is not content with that.
    let required = builder.build(
        &[
            &["--lock", "landfall.lock.yaml", "--signatures", "require"],
            &KEYRING[..],
        ]
        .concat(),
    );
    required.ends(5).complains(&["error[LF0406]"]);
    assert!(!builder.home.path("x.bundle").exists());
}

#[test]
fn a_signature_by_another_key_is_refused() {
    let (builder, _key) = signed();
    let stranger = Key::new();
    let signature = stranger.sign(&builder.publishers.file(RUNC).unwrap());
    builder.publishers.put(&format!("{RUNC}.asc"), signature);
    refused(
        builder.lock(&KEYRING),
        &["it was made by a key that is not in the keyring"],
        &builder,
    );
    builder.publishers.put(&format!("{RUNC}.asc"), "no signature at all");
    refused(builder.lock(&KEYRING), &["gpgv does not verify it"], &builder);
}

#[test]
fn a_signature_that_is_gone_is_refused() {
    let (builder, _key) = signed();
    builder.publishers.remove("runc.amd64.asc");
    let why = ["runc.amd64 cannot be had", "404", "--signatures skip"];
    refused(builder.lock(&KEYRING), &why, &builder);
    builder
        .lock(&[&KEYRING[..], &["--signatures", "skip"]].concat())
        .ends(0);
    assert_eq!(known(&builder, "runc"), "not-checked: left out by --signatures skip");
    // Before a publisher signed, there is nothing to look for.
    for name in ["runc.amd64", "runc.sha256sum"] {
        let path = format!("github.com/opencontainers/runc/releases/download/v1.5.2/{name}");
        let file = builder.publishers.file(&path).unwrap();
        builder.publishers.put(&path.replace("v1.5.2", "v1.1.6"), file);
    }
    builder
        .lock(&[&KEYRING[..], &["--component", "runc=1.1.6"]].concat())
        .ends(0);
    assert_eq!(
        known(&builder, "runc"),
        "not-checked: the publisher signs from version 1.1.7 on"
    );
}

#[test]
fn what_is_not_verified_is_said_once_and_refused_where_it_is_required() {
    let (builder, _key) = signed();
    let ran = builder.lock(&[]).ends(0);
    for (component, why) in [
        ("cni", "the publisher signs none of its files"),
        ("containerd", "cosign is not installed"),
        ("kubernetes", "cosign is not installed"),
        ("runc", "no keyring was given (--keyring runc=FILE)"),
    ] {
        assert_eq!(known(&builder, component), format!("not-checked: {why}"));
    }
    assert_eq!(ran.err.matches("signature not-checked").count(), 4, "{}", ran.err);
    // No program is there at all.
    std::fs::create_dir(builder.home.path("empty")).unwrap();
    let proxy = builder.publishers.proxy();
    let nowhere = builder.home.path("empty");
    let environment = [("HTTPS_PROXY", proxy.as_str()), ("PATH", nowhere.to_str().unwrap())];
    let args = [&["bundle", "lock", "--ca", "ca.pem"], &KEYRING[..]].concat();
    let ran = builder.home.run_with(&environment, &args).ends(0);
    ran.complains(&["runc 1.5.2: signature not-checked: gpgv is not installed"]);
    std::fs::remove_file(builder.home.path("landfall.lock.yaml")).unwrap();
    let ran = builder.lock(&[&KEYRING[..], &["--signatures", "require"]].concat());
    let ran = ran.keeps_quiet_about(&["cni 1.9.1: the publisher signs none"]);
    refused(
        ran,
        &[
            "containerd 2.4.2: cosign is not installed",
            "kubernetes 1.37.2: cosign is not installed",
        ],
        &builder,
    );
    let wrong = builder.lock(&["--keyring", "cni=runc.gpg"]).ends(2);
    wrong.complains(&["cni is none of those that sign by OpenPGP: runc"]);
    builder
        .lock(&["--keyring", "runc=missing.gpg"])
        .ends(3)
        .complains(&["missing.gpg cannot be read"]);
}

#[test]
fn a_lock_file_from_before_signatures_is_verified_at_the_build() {
    let (builder, _key) = signed();
    builder.lock(&[]).ends(0);
    let path = builder.home.path("landfall.lock.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, &text[..text.find("signatures:\n").unwrap()]).unwrap();
    let lock = ["--lock", "landfall.lock.yaml"];
    builder
        .build(&[&lock[..], &KEYRING[..]].concat())
        .ends(0)
        .complains(&["runc 1.5.2: signature verified\n"]);
    std::fs::remove_file(builder.home.path("x.bundle")).unwrap();
    builder.publishers.put(&format!("{RUNC}.asc"), "no signature at all");
    let ran = builder.build(&[&lock[..], &KEYRING[..]].concat()).ends(5);
    ran.complains(&["error[LF0406]", "gpgv does not verify it"]);
    assert!(!builder.home.path("x.bundle").exists());
}

/// Puts a program in the place of cosign: it writes down each argument and what the files hold, and verifies what is signed by `good`.
fn install_cosign(builder: &Builder) -> PathBuf {
    let (program, log) = (builder.home.path("bin/cosign"), builder.home.path("cosign.log"));
    std::fs::create_dir(builder.home.path("bin")).unwrap();
    let script = format!(
        "#!/bin/sh\nprintf '%s ' \"$@\" \"root=$TUF_ROOT\" >> {log}\necho >> {log}\nwhile [ $# -gt 0 ]; do case $1 in --signature|--bundle) \
         signed=$2;; esac; file=$1; shift; done\ntest -s \"$file\" && grep -q good \"$signed\" && exit 0\necho 'Error: no matching signatures' >&2\n\
         exit 10\n",
        log = log.display()
    );
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    for name in ["kubeadm", "kubelet", "kubectl"] {
        builder.publishers.put(&format!("{KUBERNETES}/{name}.sig"), "good");
        builder
            .publishers
            .put(&format!("{KUBERNETES}/{name}.cert"), "certificate");
    }
    builder.publishers.put(
        &format!("{CONTAINERD}/containerd-2.4.2-attestation.intoto.jsonl"),
        "good",
    );
    log
}

fn lock_with_cosign(builder: &Builder, more: &[&str]) -> Ran {
    let proxy = builder.publishers.proxy();
    let path = format!("{}:/usr/bin:/bin", builder.home.path("bin").display());
    let environment = [
        ("HTTPS_PROXY", proxy.as_str()),
        ("PATH", path.as_str()),
        ("TUF_ROOT", "/roots"),
    ];
    builder
        .home
        .run_with(&environment, &[&["bundle", "lock", "--ca", "ca.pem"], more].concat())
}

#[test]
fn cosign_is_asked_for_the_publishers_own_identity() {
    let (builder, _key) = signed();
    let log = install_cosign(&builder);
    let all = [&KEYRING[..], &["--signatures", "require"]].concat();
    lock_with_cosign(&builder, &all)
        .ends(0)
        .complains(&["kubernetes 1.37.2: signature verified"]);
    for component in ["kubernetes", "containerd", "runc"] {
        assert_eq!(known(&builder, component), "verified", "{component}");
    }
    let asked = std::fs::read_to_string(log).unwrap();
    let asked: Vec<Vec<&str>> = asked.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        asked.len(),
        4,
        "kubeadm, kubelet, kubectl, and one archive for all programs of containerd: {asked:?}"
    );
    for words in &asked {
        let value = |flag: &str| words.iter().position(|word| *word == flag).map(|at| words[at + 1]);
        let file = Path::new(words[words.len() - 2]);
        assert!(
            file.starts_with(builder.home.path(".cache/landfall/blobs")),
            "{words:?}"
        );
        assert_eq!(
            words[words.len() - 1],
            "root=/roots",
            "cosign has the user's environment"
        );
        if words[0] == "verify-blob" {
            assert!(
                value("--signature").is_some() && value("--certificate").is_some(),
                "{words:?}"
            );
            let identity = "krel-staging@k8s-releng-prod.iam.gserviceaccount.com";
            assert_eq!(value("--certificate-identity"), Some(identity));
            assert_eq!(value("--certificate-oidc-issuer"), Some("https://accounts.google.com"));
        } else {
            assert_eq!(
                (words[0], value("--type")),
                ("verify-blob-attestation", Some("slsaprovenance1"))
            );
            let identity = "https://github.com/containerd/containerd/.github/workflows/release.yml@refs/tags/v2.4.2";
            assert_eq!(value("--certificate-identity"), Some(identity));
            let issuer = "https://token.actions.githubusercontent.com";
            assert_eq!(
                (value("--certificate-oidc-issuer"), value("--bundle").is_some()),
                (Some(issuer), true)
            );
        }
    }
}

#[test]
fn what_cosign_does_not_verify_is_refused() {
    let (builder, _key) = signed();
    install_cosign(&builder);
    builder.publishers.put(&format!("{KUBERNETES}/kubectl.sig"), "bad");
    let ran = lock_with_cosign(&builder, &[]);
    let why = [
        "kubectl is not good",
        "exit status: 10",
        "Error: no matching signatures",
    ];
    refused(ran, &why, &builder);
    builder.publishers.put(&format!("{KUBERNETES}/kubectl.sig"), "good");
    builder.publishers.remove("kubelet.cert");
    let ran = lock_with_cosign(&builder, &[]);
    refused(ran, &["the certificate that the publisher makes of", "404"], &builder);
    builder
        .publishers
        .put(&format!("{KUBERNETES}/kubelet.cert"), "certificate");
    builder.publishers.put(
        &format!("{CONTAINERD}/containerd-2.4.2-attestation.intoto.jsonl"),
        "bad",
    );
    let ran = lock_with_cosign(&builder, &[]);
    refused(
        ran,
        &["containerd-static-2.4.2-linux-amd64.tar.gz is not good"],
        &builder,
    );
}
