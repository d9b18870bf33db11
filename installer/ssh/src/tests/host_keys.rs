//! Host key checks against a real sshd, compared with a real ssh.

use super::*;

#[test]
fn host_keys_are_strict() {
    let server = Server::start();
    let strict = SshOptions {
        accept_new: false,
        known_hosts: vec![server.at("known_hosts")],
        ..server.options()
    };
    let error = SshTransport::connect(&server.login(), &strict).err().unwrap();
    assert_eq!(error.code, Code::HostKeyUnknown);
    assert!(error.saw[0].contains("SHA256:"));
    drop(server.connect());
    assert!(SshTransport::connect(&server.login(), &strict).is_ok());
    let written = std::fs::metadata(server.at("known_hosts")).unwrap();
    assert_eq!(written.permissions().mode() & 0o777, 0o600);
    let other = Server::start();
    let line = format!(
        "[127.0.0.1]:{} {}",
        server.port,
        std::fs::read_to_string(other.at("host.pub")).unwrap()
    );
    std::fs::write(server.at("known_hosts"), line).unwrap();
    for options in [strict, server.options()] {
        let error = SshTransport::connect(&server.login(), &options).err().unwrap();
        assert_eq!(error.code, Code::HostKeyMismatch);
    }
}

/// Says whether a real ssh accepts the server's key with this file.
fn ssh_accepts(server: &Server, known_hosts: &Path) -> bool {
    let output = Command::new("ssh")
        .args([
            "-F",
            "none",
            "-o",
            "BatchMode=yes",
            "-o",
            "StrictHostKeyChecking=yes",
            "-o",
            "IdentitiesOnly=yes",
        ])
        .args(["-o", "GlobalKnownHostsFile=none", "-o", "CheckHostIP=no"])
        .arg("-o")
        .arg(format!("UserKnownHostsFile={}", known_hosts.display()))
        .args([
            "-p",
            &server.port.to_string(),
            "-i",
            &server.path("user"),
            "root@127.0.0.1",
            "true",
        ])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    output.status.success()
}

fn we_accept(server: &Server, known_hosts: &Path) -> Result<(), Code> {
    let options = SshOptions {
        known_hosts: vec![known_hosts.to_owned()],
        accept_new: false,
        ..server.options()
    };
    SshTransport::connect(&server.login(), &options)
        .map(|_| ())
        .map_err(|d| d.code)
}

/// Gives the server a certificate that `authority` signs, by the arguments of `ssh-keygen` for kind, principals, validity and options.
fn certify(server: &Server, authority: &str, args: &[&str]) {
    let mut all = vec!["-q", "-s", authority, "-I", "id"];
    all.extend(args);
    let host = server.path("host.pub");
    all.push(&host);
    run("ssh-keygen", &all);
}

/// Restarts sshd, which reads certificates only when it starts.
fn restart(server: &mut Server) {
    let pid = server.sshd.id().to_string();
    run("kill", &["-HUP", &pid]);
    thread::sleep(Duration::from_millis(300));
    await_port(server.port);
}

#[test]
fn host_certificates_are_accepted_when_a_real_ssh_accepts_them() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).display().to_string();
    for (name, kind) in [
        ("ca-ed", ["ed25519", "256"]),
        ("ca-rsa", ["rsa", "2048"]),
        ("ca-p256", ["ecdsa", "256"]),
        ("ca-p384", ["ecdsa", "384"]),
    ] {
        run(
            "ssh-keygen",
            &["-q", "-t", kind[0], "-b", kind[1], "-N", "", "-f", &file(name)],
        );
    }
    let known = directory.path().join("known_hosts");
    let mut server = Server::start();
    let configured = std::fs::read_to_string(server.at("config")).unwrap();
    std::fs::write(
        server.at("config"),
        format!("{configured}HostCertificate {}\n", server.path("host-cert.pub")),
    )
    .unwrap();
    let public = |name: &str| std::fs::read_to_string(file(&format!("{name}.pub"))).unwrap();
    let cases: [(&str, &[&str], bool); 12] = [
        ("ca-ed", &["-h", "-n", "127.0.0.1"], true),
        ("ca-rsa", &["-h", "-n", "127.0.0.1"], true),
        ("ca-rsa", &["-h", "-n", "127.0.0.1", "-t", "rsa-sha2-256"], true),
        ("ca-rsa", &["-h", "-n", "127.0.0.1", "-t", "ssh-rsa"], false),
        ("ca-p256", &["-h", "-n", "127.0.0.1"], true),
        ("ca-p384", &["-h", "-n", "other,127.0.0.1"], true),
        ("ca-ed", &["-h", "-n", "127.0.0.2"], false),
        ("ca-ed", &["-n", "127.0.0.1"], false),
        ("ca-ed", &["-h"], true),
        ("ca-ed", &["-h", "-n", "127.0.0.1", "-V", "20200101:20210101"], false),
        ("ca-ed", &["-h", "-n", "127.0.0.1", "-V", "20990101:21000101"], false),
        (
            "ca-ed",
            &["-h", "-n", "127.0.0.1", "-O", "critical:new@example.org=x"],
            false,
        ),
    ];
    for (authority, args, holds) in cases {
        certify(&server, &file(authority), args);
        restart(&mut server);
        std::fs::write(&known, format!("@cert-authority [127.0.0.1]:* {}", public(authority))).unwrap();
        assert_eq!(ssh_accepts(&server, &known), holds, "ssh: {authority} {args:?}");
        assert_eq!(
            we_accept(&server, &known).is_ok(),
            holds,
            "landfall: {authority} {args:?}"
        );
    }
    certify(&server, &file("ca-ed"), &["-h", "-n", "127.0.0.1"]);
    restart(&mut server);
    let host = std::fs::read_to_string(server.at("host.pub")).unwrap();
    // Lines of a file, and whether the key is taken.
    let trusted = format!("@cert-authority * {}", public("ca-ed"));
    let files = [
        (trusted.clone(), true),
        (format!("@cert-authority * {}", public("ca-p256")), false),
        (
            format!(
                "@cert-authority * {}[127.0.0.1]:{} {host}",
                public("ca-p256"),
                server.port
            ),
            true,
        ),
        (format!("127.0.0.1 {host}"), true),
        (format!("{trusted}@revoked * {}", public("ca-ed")), false),
        (format!("{trusted}@revoked * {host}"), false),
    ];
    for (text, taken) in files {
        std::fs::write(&known, &text).unwrap();
        assert_eq!(ssh_accepts(&server, &known), taken, "ssh: {text}");
        assert_eq!(we_accept(&server, &known).is_ok(), taken, "landfall: {text}");
    }
}

#[test]
fn generated_known_hosts_are_judged_like_a_real_ssh() {
    use proptest::strategy::{Strategy, ValueTree};
    let server = Server::start();
    let other = Server::start();
    let key = |server: &Server| {
        std::fs::read_to_string(server.at("host.pub"))
            .unwrap()
            .trim()
            .to_owned()
    };
    let keys = [key(&server), key(&other)];
    let port = server.port;
    let name = proptest::sample::select(vec![
        "127.0.0.1".to_owned(),
        format!("[127.0.0.1]:{port}"),
        format!("[127.0.0.?]:{port}"),
        format!("*,![127.0.0.1]:{port}"),
        "*".to_owned(),
        "other.example".to_owned(),
        "[127.0.0.1]:1".to_owned(),
        "127.0.*,[127.*]:*".to_owned(),
    ]);
    let marker = proptest::sample::select(vec!["", "", "", "@revoked ", "@cert-authority "]);
    let line = (marker, name, 0..2usize, proptest::bool::weighted(0.2)).prop_map(move |(marker, name, key, broken)| {
        // ssh ignores a line that it cannot read and that revokes nothing.
        let key = if broken && marker.is_empty() {
            "ssh-ed25519 AAAA"
        } else {
            &keys[key]
        };
        format!("{marker}{name} {key}\n")
    });
    let files = proptest::collection::vec(line, 0..5);
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let known = server.at("generated");
    let mut taken = 0;
    for _ in 0..40 {
        let text = files.new_tree(&mut runner).unwrap().current().concat();
        std::fs::write(&known, &text).unwrap();
        let theirs = ssh_accepts(&server, &known);
        taken += u32::from(theirs);
        assert_eq!(we_accept(&server, &known).is_ok(), theirs, "{text}");
    }
    assert!((5..36).contains(&taken), "both answers occur: {taken} of 40");
}

#[test]
fn an_unreadable_file_is_an_error() {
    let server = Server::start();
    std::fs::create_dir(server.at("not-a-file")).unwrap();
    assert_eq!(we_accept(&server, &server.at("not-a-file")), Err(Code::FileUnreadable));
    assert_eq!(we_accept(&server, &server.at("absent")), Err(Code::HostKeyUnknown));
    std::fs::write(server.at("torn"), "@revoked * ssh-ed25519 AAAA\n").unwrap();
    assert_eq!(we_accept(&server, &server.at("torn")), Err(Code::FileUnreadable));
}
