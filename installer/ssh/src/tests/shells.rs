//! Tests of login shells, sudo and doas with the settings of foreign machines.

use super::*;

const USERS: &[(&str, &str, &str)] = &[
    ("posix", "/bin/sh", "it's \"5$\" \\ `x`"),
    ("fishy", "/usr/bin/fish", "fish"),
    ("tcshy", "/bin/tcsh", "tcsh"),
    ("cshy", "/bin/csh", "csh"),
    ("bashy", "/bin/bash", "bash"),
    ("none", "/usr/sbin/nologin", "none"),
];

fn sudoers(lines: &str) -> Setup<'static> {
    let text: &'static str = Box::leak(format!("root ALL=(ALL:ALL) ALL\n{lines}\n").into_boxed_str());
    Setup {
        users: USERS,
        files: Box::leak(Box::new([("/etc/sudoers", text)])),
        ..Setup::default()
    }
}

fn with_password(server: &Server, user: &str, password: Option<&str>) -> Connect {
    Connect {
        become_password: password.map(Secret::new),
        ..server.login_of(user)
    }
}

/// Runs a command as root that uses standard input, output and error, and an exit status.
fn as_root(server: &Server, connect: &Connect) -> Result<(Vec<u8>, String, Option<i32>), Diagnosis> {
    let mut transport = SshTransport::connect(connect, &server.options())?;
    let child = transport.spawn_root("id -u; cat; echo \"it's\" >&2; exit 3")?;
    Ok(finish(child, b"input"))
}

fn right() -> (Vec<u8>, String, Option<i32>) {
    (b"0\ninput".to_vec(), "it's\n".to_owned(), Some(3))
}

#[test]
fn every_login_shell_reaches_root_with_and_without_a_password() {
    let server = Server::with(&sudoers("ALL ALL=(ALL) ALL\nbashy ALL=(ALL) NOPASSWD: ALL"));
    for (user, _, password) in &USERS[..5] {
        let connect = with_password(&server, user, Some(password));
        assert_eq!(
            as_root(&server, &connect).unwrap_or_else(|d| panic!("{user}: {d:?}")),
            right(),
            "{user}"
        );
    }
}

#[test]
fn output_of_profiles_is_skipped_and_profiles_that_hang_are_errors() {
    let server = Server::with(&sudoers("ALL ALL=(ALL) NOPASSWD: ALL"));
    for (file, text) in [
        ("bashy/.bashrc", "echo welcome; echo 'warning: old' >&2\n"),
        ("fishy/.config/fish/config.fish", "echo welcome\n"),
        ("tcshy/.tcshrc", "echo welcome\n"),
    ] {
        std::fs::create_dir_all(server.at(file).parent().unwrap()).unwrap();
        std::fs::write(server.at(file), text).unwrap();
    }
    for user in ["bashy", "fishy", "tcshy"] {
        let (output, _, status) = as_root(&server, &server.login_of(user)).unwrap();
        assert_eq!((output, status), (right().0, Some(3)), "{user}");
    }
    std::fs::write(server.at("cshy/.cshrc"), "echo mounting home\nsleep 100\n").unwrap();
    let options = SshOptions {
        shell_timeout: Duration::from_secs(10),
        ..server.options()
    };
    let began = Instant::now();
    let mut transport = SshTransport::connect(&server.login_of("cshy"), &options).unwrap();
    let error = transport.spawn_root("true").err().unwrap();
    assert!(began.elapsed() < Duration::from_secs(90), "before the profile goes on");
    assert_eq!((error.code, error.saw[0].as_str()), (Code::AgentStart, "mounting home"));
    assert!(error.what.contains("within 10 s"), "{}", error.what);
}

#[test]
fn nologin_and_menus_are_reported_with_their_output() {
    let server = Server::with(&sudoers("ALL ALL=(ALL) NOPASSWD: ALL"));
    let error = as_root(&server, &server.login_of("none")).unwrap_err();
    assert_eq!(error.code, Code::AgentStart);
    assert!(error.saw[0].contains("not available"), "{:?}", error.saw);
    let menu = Server::with(&Setup {
        config: "ForceCommand printf '1) status\\n2) logout\\n? '; read answer; echo unknown: $answer; exit 1",
        ..Setup::default()
    });
    let options = SshOptions {
        shell_timeout: Duration::from_secs(10),
        ..menu.options()
    };
    let mut transport = SshTransport::connect(&menu.login(), &options).unwrap();
    let error = transport.spawn("true").err().unwrap();
    assert_eq!(error.code, Code::AgentStart);
    assert!(error.saw[0].contains("2) logout"), "{:?}", error.saw);
}

#[test]
fn errors_of_sudo_name_the_cause() {
    let cases = [
        ("posix ALL=(ALL) ALL", None, "asks for a password and none was given"),
        ("posix ALL=(ALL) ALL", Some("wrong"), "password is wrong"),
        ("posix ALL=(ALL) NOPASSWD: /bin/true", None, "a password"),
        ("", Some(USERS[0].2), "may not use sudo"),
        ("posix ALL=(ALL) /bin/true", Some(USERS[0].2), "run sh as root"),
    ];
    for (lines, password, said) in cases {
        let server = Server::with(&sudoers(lines));
        let error = as_root(&server, &with_password(&server, "posix", password)).unwrap_err();
        assert_eq!(error.code, Code::SudoRefused);
        assert!(error.what.contains(said), "{lines}: {} {:?}", error.what, error.saw);
        assert!(!format!("{error:?}").contains("5$"), "no password is shown");
    }
}

/// sudo-rs writes its own words around the prompt, and PAM's after it; it has other sentences for what it refuses.
#[test]
#[ignore = "needs sudo-rs, which `cargo xtask test` builds"]
fn sudo_rs_does_what_sudo_does() {
    let home = std::env::var_os("LANDFALL_SUDO_RS").expect("LANDFALL_SUDO_RS names the directory of its versions");
    for version in ["0.2.5", "0.2.13"] {
        let program = Path::new(&home).join(version).join("bin/sudo");
        let server = |lines: &str| {
            Server::with(&Setup {
                sudo: Some(&program),
                ..sudoers(lines)
            })
        };
        let every = server("ALL ALL=(ALL) ALL\nbashy ALL=(ALL) NOPASSWD: ALL");
        for (user, password) in [("posix", Some(USERS[0].2)), ("fishy", Some("fish")), ("bashy", None)] {
            let output = as_root(&every, &with_password(&every, user, password));
            let (output, errors, status) = output.unwrap_or_else(|d| panic!("{version}, {user}: {d:?}"));
            assert_eq!((output, status), (right().0, Some(3)), "{version}, {user}: {errors}");
            assert!(errors.ends_with("it's\n"), "{version}, {user}: {errors}");
        }
        for (lines, password, said) in [
            ("posix ALL=(ALL) ALL", None, "asks for a password and none was given"),
            ("posix ALL=(ALL) ALL", Some("wrong"), "password is wrong"),
            ("", Some(USERS[0].2), "run sh as root"),
            ("posix ALL=(ALL) /bin/true", Some(USERS[0].2), "run sh as root"),
        ] {
            let server = server(lines);
            let error = as_root(&server, &with_password(&server, "posix", password)).unwrap_err();
            assert_eq!(error.code, Code::SudoRefused, "{version}: {error:?}");
            assert!(
                error.what.contains(said),
                "{version}, {lines}: {} {:?}",
                error.what,
                error.saw
            );
        }
    }
}

#[test]
fn hardened_machines_work() {
    let server = Server::with(&Setup {
        config: "MaxSessions 2\nAllowTcpForwarding no\nBanner /etc/issue.net\nMaxAuthTries 2",
        ..sudoers(
            "Defaults use_pty\nDefaults lecture=always\nDefaults umask=0027\nDefaults secure_path=/usr/sbin:/usr/bin:/sbin:/bin\n\
             posix ALL=(ALL) ALL\nbashy ALL=(ALL) NOPASSWD: ALL",
        )
    });
    for (user, password) in [("posix", Some(USERS[0].2)), ("bashy", None)] {
        let (output, _, status) = as_root(&server, &with_password(&server, user, password)).unwrap();
        assert_eq!((output, status), (right().0, Some(3)), "{user}");
    }
    // More commands than MaxSessions, one after the other.
    let mut transport = SshTransport::connect(&server.login(), &server.options()).unwrap();
    for _ in 0..5 {
        assert_eq!(finish(transport.spawn("umask 077; cat").unwrap(), b"x").0, b"x");
    }
    let _first = transport.spawn("cat").unwrap();
    let _second = transport.spawn("cat").unwrap();
    let error = transport.spawn("cat").err().unwrap();
    assert!(error.next.iter().any(|n| n.contains("MaxSessions")), "{error:?}");
}

#[test]
fn doas_is_used_without_sudo() {
    let with_doas = |rules: &str| {
        let rules: &'static str = Box::leak(rules.to_owned().into_boxed_str());
        let files: &'static [(&str, &str)] = Box::leak(Box::new([("/etc/doas.conf", rules), ("/usr/bin/sudo", "")]));
        Server::with(&Setup {
            users: USERS,
            files,
            ..Setup::default()
        })
    };
    let server = with_doas("permit nopass fishy as root\n");
    assert_eq!(as_root(&server, &server.login_of("fishy")).unwrap(), right());
    let error = as_root(&server, &server.login_of("bashy")).unwrap_err();
    assert!(error.what.contains("doas refused"), "{error:?}");
}

/// A sudo that asks a directory service for its rules is as slow as that.
#[test]
fn a_slow_sudo_succeeds() {
    let server = Server::with(&Setup {
        files: &[
            ("/etc/sudoers", "root ALL=(ALL:ALL) ALL\nposix ALL=(ALL) ALL\n"),
            (
                "/etc/pam.d/sudo",
                "auth required pam_unix.so\naccount required pam_permit.so\nsession required pam_exec.so /bin/sleep 7\n",
            ),
        ],
        users: USERS,
        ..Setup::default()
    });
    let began = Instant::now();
    let output = as_root(&server, &with_password(&server, "posix", Some(USERS[0].2))).unwrap();
    assert_eq!((output.0, output.2), (right().0, Some(3)), "{}", output.1);
    assert!(began.elapsed() > Duration::from_secs(6), "sudo was slow");
}

/// A slow directory service takes longer than the interval of keepalives and less than the time-out.
#[test]
fn a_slow_login_succeeds() {
    let server = Server::with(&Setup {
        config: "UsePAM yes",
        users: USERS,
        files: &[(
            "/etc/pam.d/sshd",
            "auth required pam_permit.so\naccount required pam_permit.so\nsession required pam_exec.so /bin/sleep 7\n",
        )],
        ..Setup::default()
    });
    let connect = Connect {
        become_root: false,
        ..server.login_of("bashy")
    };
    let began = Instant::now();
    assert_eq!(server.run(&connect, "echo in").unwrap(), "in\n");
    assert!(began.elapsed() > Duration::from_secs(6), "the login was slow");
}
