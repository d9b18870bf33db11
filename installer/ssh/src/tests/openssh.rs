//! Logins by the user's own `ssh`.

use super::*;
use crate::{OpensshOptions, OpensshTransport};

/// What ssh is told in these tests: nothing of this machine's settings.
fn own(server: &Server, settings: &str) -> OpensshOptions {
    std::fs::write(server.at("ssh_config"), settings).unwrap();
    OpensshOptions {
        config: Some(server.at("ssh_config")),
        known_hosts: Some(server.at("known_hosts")),
    }
}

fn connect(server: &Server, connect: &Connect, options: &SshOptions) -> Result<OpensshTransport, Diagnosis> {
    OpensshTransport::connect(&connect.host, connect, options, &own(server, ""))
}

/// Ids of the processes of ssh that lead to a server.
fn clients(server: &Server) -> Vec<String> {
    let port = server.port.to_string();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let leads_there = |id: &String| {
        let line = std::fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let words: Vec<&str> = line.split('\0').collect();
        words[0] == "ssh" && words.contains(&port.as_str())
    };
    ids.filter(leads_there).collect()
}

fn await_no_client(server: &Server) {
    let began = Instant::now();
    while !clients(server).is_empty() {
        assert!(began.elapsed() < Duration::from_secs(30), "ssh has not ended");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn commands_are_sessions_of_one_login() {
    let server = Server::start();
    let mut transport = connect(&server, &server.login(), &server.options()).unwrap();
    let data: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
    let first = transport.spawn("cat; echo e >&2; exit 5").unwrap();
    let second = transport.spawn_root("id -u; kill -9 $$").unwrap();
    let (output, _, status) = finish(second, b"");
    assert_eq!(
        (output.as_slice(), status),
        (&b"0\n"[..], None),
        "a signal has no status"
    );
    // What runs goes on when nothing more is to be started.
    drop(transport);
    let (output, errors, status) = finish(first, &data);
    assert!(output == data);
    assert_eq!((errors.as_str(), status), ("e\n", Some(5)));
    await_no_client(&server);
    let log = std::fs::read_to_string(server.at("log")).unwrap();
    assert_eq!(log.matches("Accepted publickey").count(), 1, "{log}");
}

#[test]
fn ctrl_c_is_left_to_landfall() {
    let server = Server::start();
    let mut transport = connect(&server, &server.login(), &server.options()).unwrap();
    let child = transport.spawn("cat").unwrap();
    // The terminal sends it to all processes of landfall's group.
    let group = |id: &str| run("ps", &["-o", "pgid=", "-p", id]);
    let own_group = group(&std::process::id().to_string());
    let reached: Vec<_> = clients(&server)
        .into_iter()
        .filter(|id| group(id) == own_group)
        .collect();
    assert_eq!(reached.len(), 1, "the master may ask on the terminal");
    run("kill", &["-INT", &reached[0]]);
    thread::sleep(Duration::from_millis(200));
    assert_eq!(finish(child, b"still here").0, b"still here");
    assert_eq!(finish(transport.spawn("echo there").unwrap(), b"").0, b"there\n");
}

#[test]
#[ignore = "needs OpenSSH's token in software, which `cargo xtask test` fetches"]
fn a_security_token_logs_in() {
    let provider = std::env::var("LANDFALL_SK_DUMMY").expect("LANDFALL_SK_DUMMY names OpenSSH's token in software");
    let server = Server::with(&Setup {
        config: "LogLevel VERBOSE",
        ..Setup::default()
    });
    let key = server.path("token");
    run(
        "ssh-keygen",
        &["-q", "-t", "ed25519-sk", "-w", &provider, "-N", "", "-f", &key],
    );
    std::fs::copy(server.at("token.pub"), server.at("authorized")).unwrap();
    let login = Connect {
        private_key: Some(server.at("token")),
        ..server.login()
    };
    let own = own(&server, &format!("SecurityKeyProvider {provider}\n"));
    let mut transport = OpensshTransport::connect("127.0.0.1", &login, &server.options(), &own).unwrap();
    assert_eq!(finish(transport.spawn("echo in").unwrap(), b"").0, b"in\n");
    let log = std::fs::read_to_string(server.at("log")).unwrap();
    assert!(log.contains("ED25519-SK"), "{log}");
    // The other client has no such keys, and says what has.
    let error = SshTransport::connect(&login, &server.options()).err().unwrap();
    assert_eq!(error.code, Code::LoginRefused);
    assert!(
        error.next.iter().any(|next| next.contains("connection: openssh")),
        "{error:?}"
    );
}

#[test]
fn sudo_is_asked_as_by_the_other_client() {
    const USERS: &[(&str, &str, &str)] = &[("ann", "/bin/bash", "right")];
    let server = Server::with(&Setup {
        users: USERS,
        files: &[("/etc/sudoers", "Defaults use_pty\nann ALL=(ALL) ALL\n")],
        ..Setup::default()
    });
    let try_with = |password: &str| {
        let login = Connect {
            become_password: Some(Secret::new(password.to_owned())),
            ..server.login_of("ann")
        };
        let mut transport = connect(&server, &login, &server.options()).unwrap();
        transport.spawn_root("id -u").map(|child| finish(child, b"").0)
    };
    assert_eq!(try_with("right").unwrap(), b"0\n");
    assert_eq!(try_with("wrong").unwrap_err().code, Code::SudoRefused);
}

#[test]
fn failed_logins_name_the_cause() {
    let server = Server::start();
    let strict = SshOptions {
        accept_new: false,
        ..server.options()
    };
    let refused = |login: &Connect, options: &SshOptions| {
        let error = connect(&server, login, options).err().unwrap();
        assert!(!error.saw.is_empty(), "{error:?}");
        error.code
    };
    assert_eq!(refused(&server.login(), &strict), Code::HostKeyUnknown);
    drop(connect(&server, &server.login(), &server.options()).unwrap());
    drop(connect(&server, &server.login(), &strict).unwrap());

    keygen(&server.at("stranger"));
    let stranger = Connect {
        private_key: Some(server.at("stranger")),
        ..server.login()
    };
    assert_eq!(refused(&stranger, &strict), Code::LoginRefused);
    let elsewhere = Connect {
        port: free_port(),
        ..server.login()
    };
    assert_eq!(refused(&elsewhere, &strict), Code::Unreachable);

    let key = std::fs::read_to_string(server.at("stranger.pub")).unwrap();
    let line = format!("[127.0.0.1]:{} {key}", server.port);
    std::fs::write(server.at("known_hosts"), line).unwrap();
    for options in [&strict, &server.options()] {
        assert_eq!(refused(&server.login(), options), Code::HostKeyMismatch);
    }
    await_no_client(&server);
}

#[test]
fn a_lost_connection_is_an_error() {
    let server = Server::start();
    let mut transport = connect(&server, &server.login(), &server.options()).unwrap();
    for id in clients(&server) {
        run("kill", &["-KILL", &id]);
    }
    // A session does not log in by itself.
    let error = transport.spawn("echo in").err().unwrap();
    assert!(!error.saw.is_empty(), "{error:?}");
    let log = std::fs::read_to_string(server.at("log")).unwrap();
    assert_eq!(log.matches("Accepted publickey").count(), 1, "{log}");
}
