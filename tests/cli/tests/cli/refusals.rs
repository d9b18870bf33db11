//! Tests of commands that are refused before they do anything.

use crate::program::Home;
use landfall_test_support::bundle;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

/// Returns a loopback port on which nothing listens: the kernel chose it, and it was closed again.
fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn cluster(port: u16) -> String {
    format!(
        "name: ship\nnodes:\n  - {{name: cp-1, role: control-plane, host: 127.0.0.1, port: {port}, user: admin, password: open-sesame}}\n"
    )
}

#[test]
fn nothing_is_undone_without_a_yes_or_a_terminal() {
    let home = Home::new();
    // A connection would be noticed, because the test listens on the port.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    home.write("cluster.yaml", cluster(listener.local_addr().unwrap().port()));
    let before = home.names();
    for command in [&["uninstall"][..], &["rollback"], &["journal", "repair"]] {
        let ran = home.run(&[command, &["-i", "cluster.yaml"]].concat()).ends(2);
        let ran = ran.complains(&["error[LF0004]", "confirmation", "--yes"]);
        assert_eq!(ran.out, "");
    }
    assert!(listener.accept().is_err(), "no connection was made");
    assert_eq!(home.names(), before);
}

#[test]
fn an_unreachable_machine_is_named_by_every_command_that_needs_it() {
    let home = Home::new();
    home.write_bundle("tiny.bundle");
    home.write("cluster.yaml", cluster(closed_port()));
    for args in [
        &["install", "-i", "cluster.yaml", "tiny.bundle"][..],
        &["install", "-i", "cluster.yaml", "tiny.bundle", "--dry-run"],
        &["plan", "-i", "cluster.yaml", "tiny.bundle"],
        &["status", "-i", "cluster.yaml"],
        &["journal", "show", "-i", "cluster.yaml"],
        &["journal", "repair", "-i", "cluster.yaml", "--yes"],
        &["journal", "repair", "-i", "cluster.yaml", "--dry-run"],
        &["kubeconfig", "-i", "cluster.yaml"],
        &["rollback", "-i", "cluster.yaml", "--yes"],
        &["uninstall", "-i", "cluster.yaml", "--yes"],
    ] {
        let ran = home.run(args).ends(6).keeps_quiet_about(&["open-sesame"]);
        ran.complains(&["error[LF0201]", "cp-1", "127.0.0.1"]);
    }
    assert!(!home.path("kubeconfig").exists());
}

#[test]
fn verify_that_reaches_no_machine_still_makes_every_cell() {
    let home = Home::new();
    // 192.0.2.0/24 is nobody's (RFC 5737).
    home.write(
        "cluster.yaml",
        cluster(closed_port()).replace("user: admin", "user: admin, ip: 192.0.2.1"),
    );
    let args = [
        "verify",
        "-i",
        "cluster.yaml",
        "--report",
        "report",
        "--junit",
        "cells.xml",
    ];
    let ran = home.run(&args).ends(10).keeps_quiet_about(&["open-sesame"]);
    ran.complains(&["error[LF0701]"]);
    let report: serde_json::Value =
        serde_json::from_slice(&std::fs::read(home.path("report/verify.json")).unwrap()).unwrap();
    let cells = report["cells"].as_array().unwrap();
    let outcome = |vantage: &str, target: &str| {
        let is_it = |cell: &&serde_json::Value| cell["vantage"] == vantage && cell["target"] == target;
        let cell = cells
            .iter()
            .find(is_it)
            .unwrap_or_else(|| panic!("no {vantage} -> {target} in {cells:#?}"));
        (cell["outcome"].as_str().unwrap(), cell["saw"].as_str().unwrap())
    };
    for (vantage, target, saw) in [
        ("cluster", "api", "no control plane node is connected"),
        ("node/cp-1", "everything", "127.0.0.1"),
        ("pod/cp-1", "everything", "only the API knows"),
        ("operator", "node-port/cp-1", ""),
        ("operator", "ingress/cp-1/test.nginx.com", ""),
    ] {
        let (outcome, seen) = outcome(vantage, target);
        assert_eq!(outcome, "fail", "{vantage} -> {target}: {seen}");
        assert!(seen.contains(saw), "{vantage} -> {target}: {seen}");
    }
    assert!(home.path("cells.xml").exists());
}

#[test]
fn json_output_ends_with_one_result_that_says_the_same() {
    let home = Home::new();
    bundle::write_tiny(&home.path("tiny.bundle"), bundle::VERSION).unwrap();
    home.write("cluster.yaml", cluster(closed_port()));
    let args = [
        "install",
        "-i",
        "cluster.yaml",
        "tiny.bundle",
        "--allow-unsigned",
        "--output",
        "json",
    ];
    let ran = home.run(&args).ends(6).keeps_quiet_about(&["open-sesame"]);
    let lines: Vec<serde_json::Value> = ran.out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let (last, events) = lines.split_last().unwrap();
    assert!(
        events.iter().all(|e| e["event"].is_string() && e["event"] != "result"),
        "{}",
        ran.out
    );
    assert_eq!(last["event"], "result", "{}", ran.out);
    assert!(last.to_string().contains("LF0201"), "{last}");
    assert_eq!(
        (&events[0]["event"], &events[0]["command"]),
        (&"run-started".into(), &"install".into())
    );
    assert_eq!(events[0]["nodes"], serde_json::json!(["cp-1"]));
    let end = &events[events.len() - 1];
    assert_eq!(
        (&end["event"], &end["outcome"]),
        (&"run-finished".into(), &"unreachable".into())
    );
    // JSON output contains the warnings of text output.
    assert!(
        last["warnings"].to_string().contains("no trusted key has signed"),
        "{last}"
    );
}

#[test]
fn json_output_has_its_result_also_when_an_input_is_wrong() {
    let home = Home::new();
    home.write("cluster.yaml", "nodes: [\n");
    for args in [
        &["status", "-i", "cluster.yaml", "--output", "json"][..],
        &["uninstall", "-i", "cluster.yaml", "--output", "json"],
        &["journal", "show", "-i", "cluster.yaml", "--output", "json"],
        &["journal", "repair", "-i", "cluster.yaml", "--output", "json"],
        &["install", "-i", "cluster.yaml", "no.bundle", "--output", "json"],
    ] {
        let ran = home.run(args).ends(3).complains(&["error[LF0102]"]);
        let result: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!(
            (&result["event"], &result["exitCode"]),
            (&"result".into(), &3.into()),
            "{result}"
        );
        assert_eq!(result["errors"][0]["code"], "LF0102");
        assert!(result["errors"][0]["next"][0].is_string(), "{result}");
    }
}

#[test]
fn journal_commands_have_a_line_of_json_each_before_the_result() {
    let home = Home::new();
    home.write("cluster.yaml", cluster(closed_port()));
    for (command, event, flags) in [("show", "journal", &[][..]), ("repair", "journal-repair", &["--yes"])] {
        let args = ["journal", command, "-i", "cluster.yaml", "--output", "json"];
        let ran = home.run(&[&args, flags].concat()).ends(6);
        let lines: Vec<serde_json::Value> = ran.out.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(
            (&lines[0]["event"], &lines[0]["command"]),
            (&"run-started".into(), &event.into())
        );
        let [.., line, result] = &lines[..] else {
            panic!("{}", ran.out)
        };
        assert_eq!(
            (&line["event"], &line["nodes"]),
            (&event.into(), &serde_json::json!({}))
        );
        assert_eq!((&result["event"], &result["exitCode"]), (&"result".into(), &6.into()));
    }
}

#[test]
fn a_report_is_for_its_owner_alone_and_its_log_has_every_run() {
    let home = Home::new();
    bundle::write_tiny(&home.path("tiny.bundle"), bundle::VERSION).unwrap();
    home.write("cluster.yaml", cluster(closed_port()));
    let install = [
        "install",
        "-i",
        "cluster.yaml",
        "tiny.bundle",
        "--allow-unsigned",
        "--report",
        "report",
    ];
    let ran = home.run(&install).ends(6).complains(&["report/landfall.log"]);
    let warning = "warning: --allow-unsigned: no trusted key has signed the bundle";
    assert!(ran.err.contains(warning), "{}", ran.err);
    home.run(&["uninstall", "-i", "cluster.yaml", "--yes", "--report", "report"])
        .ends(6);
    let mode = |name: &str| std::fs::metadata(home.path(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode("report"), 0o700);
    for name in ["landfall.log", "install.json", "uninstall.json"] {
        assert_eq!(mode(&format!("report/{name}")), 0o600, "{name}");
    }
    let log = std::fs::read_to_string(home.path("report/landfall.log")).unwrap();
    for text in [
        "install: cluster ship, 1 machine,",
        "uninstall: cluster ship",
        "error[LF0201]",
        "ended with 6",
    ] {
        assert!(log.contains(text), "{text:?} is not in:\n{log}");
    }
    assert!(!log.contains("open-sesame"), "no secret in a log");
    let report = std::fs::read(home.path("report/install.json")).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(
        (&report["version"], &report["exitCode"]),
        (&1.into(), &6.into()),
        "{report}"
    );
    assert_eq!(report["bundle"]["kubernetes"], "v1.37.0");
    assert_eq!(report["errors"][0]["code"], "LF0201");
}

#[test]
fn a_report_that_cannot_be_written_is_an_error_before_any_connection() {
    let home = Home::new();
    home.write_bundle("tiny.bundle");
    home.write("taken", "a file, no folder");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    home.write("cluster.yaml", cluster(listener.local_addr().unwrap().port()));
    let install = [
        "install",
        "-i",
        "cluster.yaml",
        "tiny.bundle",
        "--report",
        "taken/report",
    ];
    home.run(&install)
        .ends(3)
        .complains(&["error[LF0101]: taken/report/landfall.log", "next: "]);
    assert!(listener.accept().is_err(), "no connection was made");
}
