//! Jump hosts and proxy commands, each a real sshd.

use super::*;
use landfall_core::inventory::Proxy;

/// Returns the login on `server` through `proxy`.
fn through(server: &Server, proxy: Proxy) -> Connect {
    let mut connect = server.login();
    connect.ssh.proxy = Some(proxy);
    connect
}

fn hops(servers: &[&Server]) -> Proxy {
    Proxy::Jump(servers.iter().map(|server| server.login()).collect())
}

#[test]
fn each_jump_host_has_its_own_key_and_login() {
    let (first, second, target) = (Server::start(), Server::start(), Server::start());
    let connect = through(&target, hops(&[&first, &second]));
    let mut transport = SshTransport::connect(&connect, &target.options()).unwrap();
    let data: Vec<u8> = (0..5_000_000u32).map(|i| (i % 251) as u8).collect();
    let (output, _, status) = finish(transport.spawn("cat; exit 4").unwrap(), &data);
    assert!(output == data);
    assert_eq!(status, Some(4));
    let (client, _, _) = finish(transport.spawn("echo $SSH_CONNECTION").unwrap(), b"");
    assert!(
        String::from_utf8(client)
            .unwrap()
            .trim()
            .ends_with(&target.port.to_string())
    );
    let known = std::fs::read_to_string(target.at("known_hosts")).unwrap();
    for server in [&first, &second, &target] {
        assert!(known.contains(&format!("[127.0.0.1]:{}", server.port)), "{known}");
    }
    for log in [&first, &second] {
        assert!(
            std::fs::read_to_string(log.at("log"))
                .unwrap()
                .contains("Accepted publickey")
        );
    }
    // All jump connections end with the connection.
    drop(transport);
}

#[test]
fn errors_name_the_jump_host() {
    let (hop, target) = (Server::start(), Server::start());
    let strict = SshOptions {
        accept_new: false,
        known_hosts: vec![target.at("known_hosts")],
        ..target.options()
    };
    let connect = through(&target, hops(&[&hop]));
    let error = SshTransport::connect(&connect, &strict).err().unwrap();
    assert_eq!(error.code, Code::HostKeyUnknown);
    assert!(
        error.saw.iter().any(|s| s.contains("at the jump host 127.0.0.1")),
        "{error:?}"
    );
    let mut stranger = hop.login();
    stranger.private_key = Some(target.at("user"));
    let error = SshTransport::connect(&through(&target, Proxy::Jump(vec![stranger])), &target.options())
        .err()
        .unwrap();
    assert_eq!(error.code, Code::LoginRefused);
    let closed = Connect {
        port: free_port(),
        ..through(&target, hops(&[&hop]))
    };
    let error = SshTransport::connect(&closed, &target.options()).err().unwrap();
    assert_eq!(error.code, Code::Unreachable);
    assert!(error.what.contains("the jump host opened no connection"), "{error:?}");
    let no_forwarding = Server::with(&Setup {
        config: "AllowTcpForwarding no",
        ..Setup::default()
    });
    let error = SshTransport::connect(&through(&target, hops(&[&no_forwarding])), &target.options())
        .err()
        .unwrap();
    assert!(error.next.iter().any(|n| n.contains("AllowTcpForwarding")), "{error:?}");
}

#[test]
fn a_dead_hop_ends_the_connection() {
    let (hop, target) = (Server::start(), Server::start());
    let mut transport = SshTransport::connect(&through(&target, hops(&[&hop])), &target.options()).unwrap();
    let child = transport.spawn("sleep 60").unwrap();
    run("pkill", &["-KILL", "-P", &hop.sshd.id().to_string()]);
    let (output, _, status) = finish(child, b"");
    assert_eq!((output.len(), status), (0, None));
}

/// Behind a jump host no TCP time-out detects that the machine itself is dead.
#[test]
fn a_silent_machine_behind_a_jump_host_times_out() {
    let (hop, target) = (Server::start(), Server::start());
    let mut transport = SshTransport::connect(&through(&target, hops(&[&hop])), &target.options()).unwrap();
    let child = transport.spawn("sleep 100").unwrap();
    run("pkill", &["-STOP", "-P", &target.sshd.id().to_string()]);
    let began = Instant::now();
    let (_, _, status) = finish(child, b"");
    let elapsed = began.elapsed();
    run("pkill", &["-CONT", "-P", &target.sshd.id().to_string()]);
    assert_eq!(status, None);
    assert!((25..90).contains(&elapsed.as_secs()), "{elapsed:?}");
}

#[test]
fn a_proxy_command_connects_and_errors_show_its_stderr() {
    let (hop, target) = (Server::start(), Server::start());
    let by_ssh = format!(
        "ssh -F none -q -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -i {} -p {} -W %h:%p root@127.0.0.1",
        hop.path("user"),
        hop.port
    );
    assert_eq!(
        target
            .run(&through(&target, Proxy::Command(by_ssh)), "cat /dev/null; echo there")
            .unwrap(),
        "there\n"
    );
    let broken = Proxy::Command("sh -c 'echo no route to %h port %p as %r >&2; exit 1'".to_owned());
    let options = SshOptions {
        timeout: Duration::from_secs(2),
        ..target.options()
    };
    let error = SshTransport::connect(&through(&target, broken), &options)
        .err()
        .unwrap();
    let words = format!("no route to 127.0.0.1 port {} as root", target.port);
    assert!(error.saw.iter().any(|s| s.contains(&words)), "{error:?}");
}
