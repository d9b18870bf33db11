//! The program `landfall-agent`, as the operator, units and the probe image start it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use landfall_core::wire::AGENT_BANNER;
use std::io::Write;
use std::process::{Command, Stdio};

/// What one run of the program showed.
struct Ran {
    status: Option<i32>,
    out: String,
    err: String,
}

fn run(args: &[&str], input: &str) -> Ran {
    let mut program = Command::new(env!("CARGO_BIN_EXE_landfall-agent"));
    program.args(args).stdin(Stdio::piped());
    let mut child = program.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A program that refuses its arguments reads nothing.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    Ran {
        status: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn the_operator_finds_a_banner_and_the_probe_image_its_results() {
    let session = run(&["agent", "serve"], "");
    assert!(session.out.starts_with(AGENT_BANNER), "{:?}", session.out);
    let probes = run(&["agent", "probe"], "[]\n");
    assert_eq!((probes.status, probes.out.trim()), (Some(0), "[]"), "{}", probes.err);
}

#[test]
fn wrong_arguments_are_named() {
    for (args, named) in [
        (&["status"][..], "unrecognized subcommand 'status'"),
        (&["agent"], "agent <COMMAND>"),
        (&["agent", "api-balancer", "--listen", "127.0.0.1:0"], "--backend"),
        (
            &["agent", "node-settings", "--service-cidr", "10.96.0.0/12"],
            "--interface",
        ),
    ] {
        let ran = run(args, "");
        assert_eq!((ran.status, ran.out.as_str()), (Some(2), ""), "{args:?}: {}", ran.err);
        assert!(ran.err.contains(named), "{args:?}: {}", ran.err);
    }
    let help = run(&["--help"], "");
    assert_eq!(help.status, Some(0));
    assert!(
        help.out.contains("The part of landfall that runs on nodes"),
        "{}",
        help.out
    );
}
