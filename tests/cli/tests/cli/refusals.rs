//! Commands that end before anything is done.

use crate::program::Home;
use landfall_test_support::bundle;
use std::net::TcpListener;

/// A loopback port on which nothing listens: the kernel chose it, and it was given back.
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
    // Connecting would show: somebody listens.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    home.write("cluster.yaml", cluster(listener.local_addr().unwrap().port()));
    let before = home.names();
    for command in ["uninstall", "rollback"] {
        let ran = home.run(&[command, "-i", "cluster.yaml"]).ends(2);
        let ran = ran.complains(&["error[LF0004]", "confirmation", "--yes"]);
        assert_eq!(ran.out, "");
    }
    assert!(listener.accept().is_err(), "nobody was called");
    assert_eq!(home.names(), before);
}

#[test]
fn an_unreachable_machine_is_named_by_every_command_that_needs_it() {
    let home = Home::new();
    bundle::write_tiny(&home.path("tiny.bundle")).unwrap();
    home.write("cluster.yaml", cluster(closed_port()));
    for args in [
        &["install", "-i", "cluster.yaml", "tiny.bundle"][..],
        &["install", "-i", "cluster.yaml", "tiny.bundle", "--dry-run"],
        &["plan", "-i", "cluster.yaml", "tiny.bundle"],
        &["status", "-i", "cluster.yaml"],
        &["verify", "-i", "cluster.yaml"],
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
fn json_output_ends_with_one_result_that_says_the_same() {
    let home = Home::new();
    bundle::write_tiny(&home.path("tiny.bundle")).unwrap();
    home.write("cluster.yaml", cluster(closed_port()));
    let args = ["install", "-i", "cluster.yaml", "tiny.bundle", "--output", "json"];
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
}
