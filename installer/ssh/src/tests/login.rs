//! Logins in every order that a server may ask for.

use super::*;

#[test]
fn refused_logins_and_closed_ports_are_told_apart() {
    let server = Server::start();
    keygen(&server.at("stranger"));
    let stranger = Connect {
        private_key: Some(server.at("stranger")),
        ..server.login()
    };
    let error = SshTransport::connect(&stranger, &server.options()).err().unwrap();
    assert_eq!(error.code, Code::LoginRefused);
    assert!(
        error.saw.iter().any(|line| line.contains("stranger")),
        "{:?}",
        error.saw
    );
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let closed = Connect { port, ..server.login() };
    assert_eq!(
        SshTransport::connect(&closed, &server.options()).err().unwrap().code,
        Code::Unreachable
    );
}

const USERS: &[(&str, &str, &str)] = &[("posix", "/bin/sh", "right password")];

fn with_users(config: &str) -> Server {
    Server::with(&Setup {
        config,
        users: USERS,
        ..Setup::default()
    })
}

/// The login user `posix`, without root.
fn posix(server: &Server, key: bool, password: Option<&str>) -> Connect {
    Connect {
        become_root: false,
        private_key: key.then(|| server.at("user")),
        password: password.map(Secret::new),
        ..server.login_of("posix")
    }
}

#[test]
fn keys_and_passwords_work_in_every_order() {
    let right = Some(USERS[0].2);
    let password = "PasswordAuthentication yes\n";
    let interactive = "UsePAM yes\nKbdInteractiveAuthentication yes\n";
    let cases = [
        (
            format!("{password}AuthenticationMethods publickey,password"),
            true,
            right,
            true,
        ),
        (
            format!("{password}AuthenticationMethods password,publickey"),
            true,
            right,
            true,
        ),
        (
            format!("{password}AuthenticationMethods password,publickey"),
            false,
            right,
            false,
        ),
        (
            format!("{password}AuthenticationMethods publickey,password"),
            true,
            Some("wrong"),
            false,
        ),
        (
            format!("{password}AuthenticationMethods publickey,password"),
            true,
            None,
            false,
        ),
        (
            format!("{password}AuthenticationMethods publickey password"),
            false,
            right,
            true,
        ),
        (
            format!("{interactive}AuthenticationMethods keyboard-interactive"),
            false,
            right,
            true,
        ),
        (
            format!("{interactive}AuthenticationMethods publickey,keyboard-interactive"),
            true,
            right,
            true,
        ),
        (
            format!("{interactive}AuthenticationMethods keyboard-interactive,publickey"),
            true,
            right,
            true,
        ),
    ];
    for (config, key, given, works) in cases {
        let server = with_users(&config);
        let result = server.run(&posix(&server, key, given), "id -un");
        assert_eq!(result.is_ok(), works, "{config}: {result:?}");
        if let Err(error) = result {
            assert_eq!(error.code, Code::LoginRefused);
            assert!(!format!("{error:?}").contains("right password"));
        }
    }
    let server = with_users(&format!("{password}AuthenticationMethods publickey,password"));
    let error = server.run(&posix(&server, true, None), "id").unwrap_err();
    assert!(
        error.next.iter().any(|n| n.contains("a password, and none was given")),
        "{error:?}"
    );
}

fn set_passphrase(key: &Path, passphrase: &str) {
    run(
        "ssh-keygen",
        &["-q", "-p", "-P", "", "-N", passphrase, "-f", key.to_str().unwrap()],
    );
}

#[test]
fn an_encrypted_key_is_unlocked_by_the_agent_or_by_the_user() {
    let server = Server::start();
    let key = server.at("user");
    let agent = SshAgent::start(server.directory.path());
    agent.add(&key);
    set_passphrase(&key, "open");
    let by_agent = SshOptions {
        agent_socket: Some(agent.socket.clone()),
        ..server.options()
    };
    SshTransport::connect(&server.login(), &by_agent).unwrap();
    let error = SshTransport::connect(&server.login(), &server.options()).err().unwrap();
    assert!(error.saw.iter().any(|s| s.contains("passphrase")), "{error:?}");
    // The .pub file is not needed: the private key's file holds the public half.
    std::fs::remove_file(server.at("user.pub")).unwrap();
    let asked = std::sync::Arc::new(std::sync::Mutex::new(vec![]));
    let (asks, answers) = (asked.clone(), std::sync::Mutex::new(vec!["open", "wrong"]));
    let by_person = SshOptions {
        passphrases: Some(crate::Passphrases::new(move |prompt| {
            asks.lock().unwrap().push(prompt.to_owned());
            answers.lock().unwrap().pop().map(Secret::new)
        })),
        ..server.options()
    };
    SshTransport::connect(&server.login(), &by_person).unwrap();
    SshTransport::connect(&server.login(), &by_person).unwrap();
    let asked = asked.lock().unwrap().clone();
    assert_eq!(
        asked.len(),
        2,
        "a wrong one, then the right one, which is remembered: {asked:?}"
    );
    assert!(asked[0].contains(&server.path("user")));
    // The user is not asked for the passphrase of a key that the server refuses.
    keygen(&server.at("stranger"));
    set_passphrase(&server.at("stranger"), "closed");
    let stranger = Connect {
        private_key: Some(server.at("stranger")),
        ..server.login()
    };
    let never = SshOptions {
        passphrases: Some(crate::Passphrases::new(|_| panic!("the server does not want it"))),
        ..server.options()
    };
    assert_eq!(
        SshTransport::connect(&stranger, &never).err().unwrap().code,
        Code::LoginRefused
    );
}

#[test]
fn the_named_key_is_used_among_many_in_the_agent() {
    let server = Server::with(&Setup {
        config: "MaxAuthTries 6",
        ..Setup::default()
    });
    let agent = SshAgent::start(server.directory.path());
    for number in 0..8 {
        let key = server.at(&format!("other-{number}"));
        keygen(&key);
        agent.add(&key);
    }
    agent.add(&server.at("user"));
    let options = SshOptions {
        agent_socket: Some(agent.socket.clone()),
        ..server.options()
    };
    let unnamed = Connect {
        private_key: None,
        ..server.login()
    };
    let error = SshTransport::connect(&unnamed, &options).err().unwrap();
    assert!(
        error.saw.iter().any(|s| s.contains("4 more keys were not tried")),
        "{error:?}"
    );
    // The key is named by its public half; only the agent holds the private one.
    std::fs::remove_file(server.at("user")).unwrap();
    let by_public = |connect: Connect, options: &SshOptions| SshTransport::connect(&connect, options).map(|_| ());
    let named = Connect {
        private_key: Some(server.at("user.pub")),
        ..server.login()
    };
    by_public(named, &options).unwrap();
    by_public(server.login(), &options).expect_err("the file is gone, and its name says nothing");
    let mut only = unnamed.clone();
    only.ssh.identity_files = vec![server.at("user.pub")];
    by_public(only.clone(), &options).unwrap();
    only.ssh.identities_only = true;
    by_public(only, &options).unwrap();
    // Default keys select among the agent's keys, too.
    let defaults = SshOptions {
        default_keys: vec![server.at("user.pub")],
        ..options
    };
    by_public(unnamed, &defaults).unwrap();
}

#[test]
fn user_certificates_are_offered_from_files_and_from_the_agent() {
    let server = Server::start();
    keygen(&server.at("ca"));
    let text = std::fs::read_to_string(server.at("config")).unwrap();
    std::fs::write(
        server.at("config"),
        format!("TrustedUserCAKeys {}\n{text}", server.path("ca.pub")),
    )
    .unwrap();
    std::fs::write(server.at("authorized"), "").unwrap();
    run("kill", &["-HUP", &server.sshd.id().to_string()]);
    thread::sleep(Duration::from_millis(300));
    await_port(server.port);
    for (name, kind, bits) in [
        ("u-ed", "ed25519", "256"),
        ("u-ec", "ecdsa", "256"),
        ("u-rsa", "rsa", "2048"),
    ] {
        let key = server.at(name);
        run(
            "ssh-keygen",
            &["-q", "-t", kind, "-b", bits, "-N", "", "-f", key.to_str().unwrap()],
        );
        let by_key = Connect {
            private_key: Some(key.clone()),
            ..server.login()
        };
        SshTransport::connect(&by_key, &server.options())
            .err()
            .expect("the key alone is not known");
        run(
            "ssh-keygen",
            &[
                "-q",
                "-s",
                &server.path("ca"),
                "-I",
                "id",
                "-n",
                "root",
                &server.path(&format!("{name}.pub")),
            ],
        );
        SshTransport::connect(&by_key, &server.options()).unwrap_or_else(|d| panic!("{name}: {d:?}"));
        let agent_place = tempfile::tempdir().unwrap();
        let agent = SshAgent::start(agent_place.path());
        agent.add(&key);
        let by_agent = SshOptions {
            agent_socket: Some(agent.socket.clone()),
            ..server.options()
        };
        SshTransport::connect(&by_key, &by_agent).unwrap_or_else(|d| panic!("{name} by the agent: {d:?}"));
        let elsewhere = server.at(&format!("{name}-elsewhere"));
        std::fs::rename(server.at(&format!("{name}-cert.pub")), &elsewhere).unwrap();
        let mut by_name = by_key.clone();
        by_name.ssh.certificate_files = vec![elsewhere];
        SshTransport::connect(&by_name, &server.options()).unwrap_or_else(|d| panic!("{name} by name: {d:?}"));
    }
}
