//! Commands on this machine.

use crate::LocalTransport;
use crate::local::LocalShell;
use crate::start::{self, Root, RunAs, Terminal};
use landfall_core::inventory::{Connect, Connection};
use landfall_core::transport::{RemoteChild, Transport};
use std::io::{Read, Write};
use std::time::Duration;

fn connect() -> Connect {
    let mut connect = Connect::hop("127.0.0.1", None, None, "nobody");
    connect.connection = Connection::Local;
    connect
}

fn run(child: RemoteChild, input: &str) -> (String, Option<i32>) {
    let RemoteChild {
        mut stdin,
        mut stdout,
        mut exit,
        ..
    } = child;
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    let mut text = String::new();
    stdout.read_to_string(&mut text).unwrap();
    (text, exit.wait())
}

#[test]
fn commands_run_without_terminal_and_environment() {
    let mut here = LocalTransport::new(&connect());
    let child = here
        .spawn("cat; ps -o tty= -p $$; echo \"${CARGO_MANIFEST_DIR-unset}\"; pwd; exit 7")
        .unwrap();
    let (said, status) = run(child, "input\n");
    assert_eq!(
        said.split_whitespace().collect::<Vec<_>>(),
        ["input", "?", "unset", "/"]
    );
    assert_eq!(status, Some(7));
}

#[test]
fn root_is_reached() {
    let mut here = LocalTransport::new(&connect());
    // `cargo xtask test` runs this as root, or with a sudo that asks for no password.
    let (said, status) = run(here.spawn_root("id -u").unwrap(), "");
    assert_eq!((said.as_str(), status), ("0\n", Some(0)));
}

#[test]
fn root_is_reached_on_a_terminal() {
    let root = Root {
        password: None,
        terminal: &mut Terminal::With,
    };
    // sudo asks root for no password.
    let command = "id -u; cat; ps -o tty= -p $$; exit 4";
    let child = start::start(&mut LocalShell, command, RunAs::Root(root), Duration::from_secs(60)).unwrap();
    let (said, status) = run(child, "input\n");
    let words: Vec<_> = said.split_whitespace().collect();
    assert_eq!((&words[..2], status), (&["0", "input"][..], Some(4)));
    assert!(words[2].starts_with("pts/"), "{said}");
}

#[test]
fn a_signal_has_no_status() {
    let mut here = LocalTransport::new(&connect());
    assert_eq!(run(here.spawn("kill -9 $$").unwrap(), "").1, None);
}
