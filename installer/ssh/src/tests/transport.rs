//! Tests of streams, exit status, and connections that end.

use super::*;

#[test]
fn commands_keep_their_streams_and_status_apart() {
    let server = Server::start();
    let mut transport = server.connect();
    let child = transport.spawn("cat; echo \"it's\" >&2; exit 7").unwrap();
    assert_eq!(
        finish(child, b"hello"),
        (b"hello".to_vec(), "it's\n".to_owned(), Some(7))
    );
    let killed = transport.spawn("kill -9 $$").unwrap();
    assert_eq!(finish(killed, b"").2, None);
}

#[test]
fn several_commands_transfer_data_both_ways_at_once() {
    let server = Server::start();
    let mut transport = server.connect();
    let data: Vec<u8> = (0..20_000_000u32).map(|i| (i % 253) as u8).collect();
    let children: Vec<_> = (0..3).map(|_| transport.spawn("cat").unwrap()).collect();
    thread::scope(|scope| {
        for child in children {
            let data = &data;
            scope.spawn(move || {
                let (output, _, status) = finish(child, data);
                assert!(output == *data);
                assert_eq!(status, Some(0));
            });
        }
    });
}

#[test]
fn a_dead_server_ends_readers_and_waiters() {
    let mut server = Server::start();
    let mut transport = server.connect();
    let child = transport.spawn("sleep 60").unwrap();
    // The process of the session must end, not only the listener.
    let pid = server.sshd.id().to_string();
    let killed = Command::new("pkill").args(["-KILL", "-P", &pid]).status().unwrap();
    assert!(killed.success());
    let _ = server.sshd.kill();
    let (output, _, status) = finish(child, b"");
    assert_eq!((output.len(), status), (0, None));
    assert_eq!(transport.spawn("true").err().unwrap().code, Code::ConnectionLost);
}

/// A directory service or a machine under load takes longer than the interval of keepalives and less than the time-out.
#[test]
fn a_slow_command_start_succeeds() {
    let server = Server::start();
    let mut transport = server.connect();
    let pid = server.sshd.id().to_string();
    let signal = |name: &str| Command::new("pkill").args([name, "-P", &pid]).status().unwrap();
    assert!(signal("-STOP").success());
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_secs(7));
            assert!(signal("-CONT").success());
        });
        let child = transport.spawn("cat").unwrap();
        assert_eq!(finish(child, b"late").0, b"late");
    });
}

/// The server gives the number of an ended command to the next one.
#[test]
fn a_command_that_ends_does_not_reach_into_the_next_one() {
    let server = Server::start();
    let mut transport = server.connect();
    let data: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
    for _ in 0..60 {
        let RemoteChild { mut stdout, .. } = transport.spawn("echo over").unwrap();
        let mut said = String::new();
        stdout.read_to_string(&mut said).unwrap();
        assert_eq!(said, "over\n");
        let (output, errors, status) = finish(transport.spawn("cat").unwrap(), &data);
        assert_eq!((output.len(), errors.as_str(), status), (data.len(), "", Some(0)));
        assert!(output == data);
    }
}
