//! Tests of arguments and help.

use crate::program::Home;

const COMMANDS: [&str; 12] = [
    "install",
    "plan",
    "preflight",
    "push",
    "verify",
    "status",
    "journal",
    "rollback",
    "uninstall",
    "kubeconfig",
    "inventory",
    "bundle",
];

#[test]
fn help_and_version_are_no_errors() {
    let home = Home::new();
    let version = home.run(&["--version"]).ends(0);
    assert_eq!(version.out, format!("landfall {}\n", env!("CARGO_PKG_VERSION")));
    assert_eq!(version.err, "");
    let help = home.run(&["--help"]).ends(0);
    for command in COMMANDS {
        assert!(help.out.contains(&format!("\n  {command} ")), "{command}: {}", help.out);
    }
    assert!(!help.out.contains("\n  agent "), "what runs on nodes is not for users");
    assert_eq!(home.run(&["-h"]).ends(0).err, "");
}

#[test]
fn every_command_explains_itself() {
    let home = Home::new();
    for command in COMMANDS {
        let help = home.run(&[command, "--help"]).ends(0);
        assert!(help.out.contains(&format!("Usage: landfall {command}")), "{}", help.out);
        if !matches!(command, "bundle" | "journal") {
            assert!(help.out.contains("--inventory <FILE>"), "{}", help.out);
        }
    }
    for command in [
        "build", "inspect", "verify", "diff", "delta", "apply", "split", "join", "export", "sbom",
    ] {
        home.run(&["bundle", command, "--help"]).ends(0);
    }
    for command in ["show", "repair"] {
        let help = home.run(&["journal", command, "--help"]).ends(0);
        assert!(help.out.contains("--inventory <FILE>"), "{}", help.out);
    }
}

#[test]
fn wrong_use_ends_with_2() {
    let home = Home::new();
    for args in [
        &[][..],
        &["no-such-command"],
        &["--no-such-flag"],
        &["install"],
        &["push", "-i", "x.yaml"],
        &["push", "-i", "x.yaml", "--remove", "x.bundle"],
        &["bundle", "split", "x", "--size", "0", "-o", "y"],
        &["bundle", "export", "x", "--role", "master", "-o", "y"],
        &["install", "-i", "x.yaml"],
        &["install", "-i", "x.yaml", "b", "--on-failure", "panic"],
        &["verify", "-i", "x.yaml", "--output", "xml"],
        &["status", "-i", "x.yaml", "--connect-timeout", "soon"],
        &["uninstall", "--yes"],
        &["bundle"],
        &["journal"],
        &["journal", "show", "-i", "x.yaml", "--yes"],
        &["journal", "repair", "--yes"],
        &["bundle", "verify"],
        &["bundle", "build", "--recipe", "magic", "-o", "x"],
    ] {
        let ran = home.run(args).ends(2);
        assert_eq!(ran.out, "", "{args:?}");
        // Without -i an ansible.cfg may name the inventory, so that is landfall's own error and not the parser's.
        let named = ["Usage: landfall", "error: ", "error[LF0004]"];
        assert!(named.iter().any(|text| ran.err.contains(text)), "{args:?}: {}", ran.err);
    }
    assert_eq!(home.names(), Vec::<String>::new(), "nothing was made");
}
