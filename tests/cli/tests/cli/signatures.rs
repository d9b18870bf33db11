//! Keys and signatures: landfall's own commands, and Debian's `minisign` on the same files.

use crate::program::Home;
use landfall_test_support::bundle;
use std::process::{Command, Stdio};

const CLUSTER: &str = "name: ship\nnodes:\n  - {name: cp-1, role: control-plane, host: 127.0.0.1, port: 1}\n";

/// Runs Debian's minisign in the home directory; returns whether it succeeded.
fn minisign(home: &Home, args: &[&str]) -> bool {
    let output = Command::new("minisign")
        .args(args)
        .current_dir(home.path("."))
        .stdin(Stdio::null())
        .output()
        .expect("minisign is installed by `cargo xtask test`");
    output.status.success()
}

fn unpack(home: &Home, file: &str) {
    let tar = Command::new("tar")
        .args(["-xf", file, "bundle.json", "bundle.json.minisig"])
        .current_dir(home.path("."))
        .status();
    assert!(tar.unwrap().success());
}

#[test]
fn minisign_verifies_what_landfall_signs() {
    let home = Home::new();
    home.write_bundle("tiny.bundle");
    let made = home.run(&["bundle", "keygen", "-o", "mine.key"]).ends(0);
    let id = made.out.split([' ', ':']).nth(1).unwrap().to_owned();
    home.run(&["bundle", "sign", "--key", "mine.key", "tiny.bundle"])
        .ends(0);
    unpack(&home, "tiny.bundle");
    assert!(minisign(&home, &["-Vm", "bundle.json", "-p", "mine.pub"]));
    let index = std::fs::read_to_string(home.path("bundle.json")).unwrap();
    home.write("bundle.json", index.replace("source", "Source"));
    assert!(!minisign(&home, &["-Vm", "bundle.json", "-p", "mine.pub"]));
    // It signs with the same secret key, too.
    assert!(minisign(&home, &["-S", "-W", "-s", "mine.key", "-m", "mine.pub"]));
    let refused = home.run(&["bundle", "verify", "tiny.bundle"]).ends(5);
    refused.complains(&["error[LF0405]", &id, "--trusted-key"]);
    let verified = home.run(&["bundle", "verify", "--trusted-key", "mine.pub", "tiny.bundle"]);
    assert!(verified.ends(0).out.contains(&format!("signed by {id}")));
}

#[test]
fn landfall_signs_with_minisigns_key_and_reads_its_signatures() {
    let home = Home::new();
    home.write_bundle("tiny.bundle");
    assert!(minisign(&home, &["-G", "-W", "-p", "theirs.pub", "-s", "theirs.key"]));
    home.run(&["bundle", "sign", "--key", "theirs.key", "tiny.bundle"])
        .ends(0);
    unpack(&home, "tiny.bundle");
    assert!(minisign(&home, &["-Vm", "bundle.json", "-p", "theirs.pub"]));
    // minisign endorses a key; its signature file is taken as it is.
    home.run(&["bundle", "keygen", "-o", "new.key"]).ends(0);
    assert!(minisign(&home, &["-S", "-s", "theirs.key", "-m", "new.pub"]));
    for key in ["theirs.pub", "new.pub"] {
        let verify = ["bundle", "verify", "--trusted-key", key, "tiny.bundle"];
        home.run(&verify).ends(if key == "theirs.pub" { 0 } else { 5 });
    }
    home.run(&["bundle", "sign", "--key", "new.key", "theirs.pub"]).ends(0);
    assert!(minisign(&home, &["-Vm", "theirs.pub", "-p", "new.pub"]));
}

#[test]
fn a_key_is_readable_by_its_owner_alone_and_never_overwritten() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    let made = home.run(&["bundle", "keygen"]).ends(0);
    let secret = home.path(".config/landfall/bundle.key");
    let mode = std::fs::metadata(&secret).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = std::fs::read_to_string(&secret).unwrap();
    made.keeps_quiet_about(&[text.lines().nth(1).unwrap()]);
    home.run(&["bundle", "keygen"])
        .ends(2)
        .complains(&["is not overwritten"]);
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), text);
    // A user trusts the keys that the user signs with.
    bundle::write_tiny(&home.path("own.bundle"), bundle::VERSION).unwrap();
    home.run(&["bundle", "verify", "own.bundle"]).ends(5);
    home.run(&["bundle", "sign", "own.bundle"]).ends(0);
    home.run(&["bundle", "verify", "own.bundle"]).ends(0);
}

#[test]
fn a_bundle_of_an_unknown_builder_is_refused_before_any_connection() {
    let home = Home::new();
    home.write("cluster.yaml", CLUSTER);
    bundle::write_tiny(&home.path("tiny.bundle"), bundle::VERSION).unwrap();
    let id = bundle::key().public().id().to_string();
    let install = ["install", "-i", "cluster.yaml", "tiny.bundle"];
    // Nothing answers on port 1, so status 6 means that the signature was accepted.
    home.run(&install).ends(5).complains(&["error[LF0405]", &id]);
    home.run(&["plan", "-i", "cluster.yaml", "tiny.bundle"]).ends(5);
    let allowed = home.run(&[&install[..], &["--allow-unsigned"]].concat()).ends(6);
    allowed.complains(&["no trusted key has signed the bundle"]);
    home.write("builder.pub", bundle::key().public().to_text());
    let flag = home
        .run(&[&install[..], &["--trusted-key", "builder.pub"]].concat())
        .ends(6);
    flag.keeps_quiet_about(&["no trusted key has signed"]);
    let line = bundle::key().public().to_text().lines().nth(1).unwrap().to_owned();
    home.write("cluster.yaml", format!("{CLUSTER}trustedKeys: [{line}]\n"));
    home.run(&install).ends(6);
    home.run(&[&install[..], &["--revoke-key", &id]].concat())
        .ends(5)
        .complains(&["is revoked"]);
    home.write_bundle("tiny.bundle");
    home.write(
        ".config/landfall/trusted.d/revoked",
        format!("# lost on the train\n{id}\n"),
    );
    home.run(&install).ends(5).complains(&["is revoked"]);
    home.write("cluster.yaml", format!("{CLUSTER}trustedKeys: [nonsense]\n"));
    home.run(&install).ends(3).complains(&["trustedKeys", "nonsense"]);
}
