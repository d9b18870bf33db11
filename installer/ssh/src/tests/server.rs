//! Tests with unusual servers: dropbear, old algorithms, small limits, rekeying during a transfer.

use super::*;

#[test]
fn rekeying_during_a_transfer_loses_nothing() {
    let server = Server::with(&Setup {
        config: "RekeyLimit 1M",
        ..Setup::default()
    });
    let mut transport = server.connect();
    let data: Vec<u8> = (0..12_000_000u32).map(|i| (i % 249) as u8).collect();
    let (output, _, status) = finish(transport.spawn("cat").unwrap(), &data);
    assert!(output == data);
    assert_eq!(status, Some(0));
}

/// sshd drops connections above the first number of MaxStartups at random, and all above the last.
#[test]
fn a_server_that_limits_logins_is_retried() {
    let server = Server::with(&Setup {
        config: "MaxStartups 1\nLoginGraceTime 20",
        ..Setup::default()
    });
    thread::scope(|scope| {
        let logins: Vec<_> = (0..5)
            .map(|_| scope.spawn(|| server.run_within(&server.login(), "echo in", Duration::from_secs(60))))
            .collect();
        for login in logins {
            assert_eq!(login.join().unwrap().unwrap(), "in\n");
        }
    });
    assert!(
        std::fs::read_to_string(server.at("log"))
            .unwrap()
            .contains("MaxStartups"),
        "the limit was met"
    );
    let full = TcpStream::connect(("127.0.0.1", server.port)).unwrap();
    let options = SshOptions {
        timeout: Duration::from_secs(10),
        ..server.options()
    };
    let error = SshTransport::connect(&server.login(), &options).err().unwrap();
    assert!(error.next.iter().any(|n| n.contains("MaxStartups")), "{error:?}");
    drop(full);
}

/// The algorithms of OpenSSH 7.4 (RHEL 7) that a current server can still offer, without newer ones.
#[test]
fn the_algorithms_of_openssh_7_4_work() {
    let server = Server::with(&Setup {
        config: "KexAlgorithms curve25519-sha256@libssh.org,ecdh-sha2-nistp256,diffie-hellman-group-exchange-sha256,diffie-hellman-group16-sha512\n\
                 Ciphers chacha20-poly1305@openssh.com,aes128-ctr,aes192-ctr,aes256-ctr,aes128-gcm@openssh.com\n\
                 MACs umac-64-etm@openssh.com,hmac-sha2-256-etm@openssh.com,hmac-sha2-256,hmac-sha1\n\
                 HostKeyAlgorithms ssh-rsa,rsa-sha2-512,rsa-sha2-256,ssh-ed25519",
        ..Setup::default()
    });
    assert_eq!(server.run(&server.login(), "echo old").unwrap(), "old\n");
    for (option, value) in [
        ("KexAlgorithms", "diffie-hellman-group-exchange-sha256"),
        ("KexAlgorithms", "diffie-hellman-group14-sha256"),
        ("Ciphers", "aes256-ctr"),
        ("Ciphers", "chacha20-poly1305@openssh.com"),
        ("MACs", "hmac-sha2-512"),
    ] {
        let config = format!("{option} {value}");
        let server = Server::with(&Setup {
            config: &config,
            ..Setup::default()
        });
        assert_eq!(
            server
                .run(&server.login(), "echo old")
                .unwrap_or_else(|d| panic!("{config}: {d:?}")),
            "old\n"
        );
    }
    let server = Server::with(&Setup {
        config: "KexAlgorithms diffie-hellman-group1-sha1",
        ..Setup::default()
    });
    let error = server.run(&server.login(), "true").unwrap_err();
    assert!(
        error.next.iter().any(|n| n.contains("SHA-1 key exchange is refused")),
        "{error:?}"
    );
}

struct Dropbear {
    process: Child,
    directory: tempfile::TempDir,
    port: u16,
}

impl Drop for Dropbear {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Dropbear {
    /// dropbear reads keys only from the login user's home, so the server sees another home of root, in a mount namespace.
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).display().to_string();
        run("dropbearkey", &["-t", "ed25519", "-f", &at("host")]);
        keygen(&directory.path().join("user"));
        std::fs::create_dir_all(directory.path().join("home/.ssh")).unwrap();
        std::fs::copy(at("user.pub"), at("home/.ssh/authorized_keys")).unwrap();
        std::fs::set_permissions(at("home"), std::fs::Permissions::from_mode(0o700)).unwrap();
        std::fs::set_permissions(at("home/.ssh/authorized_keys"), std::fs::Permissions::from_mode(0o600)).unwrap();
        let port = free_port();
        let line = format!(
            "mount --bind {} /root && exec dropbear -F -E -s -P {} -r {} -p 127.0.0.1:{port}",
            at("home"),
            at("pid"),
            at("host")
        );
        let process = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", &line])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self {
            process,
            directory,
            port,
        };
        await_port(port);
        server
    }
}

#[test]
fn dropbear_works_as_server_and_as_jump_host() {
    let dropbear = Dropbear::start();
    let server = Server::start();
    let mut connect = server.login();
    connect.port = dropbear.port;
    connect.private_key = Some(dropbear.directory.path().join("user"));
    let mut transport = SshTransport::connect(&connect, &server.options()).unwrap();
    let data: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
    let (output, errors, status) = finish(transport.spawn("cat; echo e >&2; exit 5").unwrap(), &data);
    assert!(output == data);
    assert_eq!((errors.as_str(), status), ("e\n", Some(5)));
    let mut through = server.login();
    through.ssh.proxy = Some(landfall_core::inventory::Proxy::Jump(vec![connect]));
    assert_eq!(server.run(&through, "echo there").unwrap(), "there\n");
}
