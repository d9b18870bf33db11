//! Logins by the user's own `ssh`.

use super::*;
use crate::{OpensshMaster, OpensshOptions, OpensshTransport};
use std::sync::Arc;

/// What ssh is told in these tests: nothing of this machine's settings.
fn own(server: &Server, settings: &str) -> OpensshOptions {
    std::fs::write(server.at("ssh_config"), settings).unwrap();
    OpensshOptions {
        config: Some(server.at("ssh_config")),
        known_hosts: Some(server.at("known_hosts")),
    }
}

fn log_in(server: &Server, connect: &Connect, options: &SshOptions) -> Result<Arc<OpensshMaster>, Diagnosis> {
    OpensshMaster::log_in(&connect.host, connect, options, &own(server, "")).map(Arc::new)
}

fn connect(server: &Server, connect: &Connect, options: &SshOptions) -> Result<OpensshTransport, Diagnosis> {
    let master = log_in(server, connect, options)?;
    Ok(OpensshTransport::new(master, connect, options))
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
    let (login, options) = (server.login(), server.options());
    let master = log_in(&server, &login, &options).unwrap();
    let mut transport = OpensshTransport::new(Arc::clone(&master), &login, &options);
    let data: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
    let first = transport.spawn("cat; echo e >&2; exit 5").unwrap();
    let mut other = OpensshTransport::new(Arc::clone(&master), &login, &options);
    let second = other.spawn_root("id -u; kill -9 $$").unwrap();
    assert!(master.is_alive());
    let (output, _, status) = finish(second, b"");
    assert_eq!(
        (output.as_slice(), status),
        (&b"0\n"[..], None),
        "a signal has no status"
    );
    // What runs goes on when nothing more is to be started.
    drop((transport, other, master));
    let (output, errors, status) = finish(first, &data);
    assert!(output == data);
    assert_eq!((errors.as_str(), status), ("e\n", Some(5)));
    await_no_client(&server);
    let log = std::fs::read_to_string(server.at("log")).unwrap();
    assert_eq!(log.matches("Accepted publickey").count(), 1, "{log}");
}

#[test]
fn signals_of_the_terminal_are_left_to_landfall() {
    let server = Server::start();
    let mut transport = connect(&server, &server.login(), &server.options()).unwrap();
    let child = transport.spawn("cat").unwrap();
    // The terminal sends them to all processes of landfall's group.
    let group = |id: &str| run("ps", &["-o", "pgid=", "-p", id]);
    let own_group = group(&std::process::id().to_string());
    let reached: Vec<_> = clients(&server)
        .into_iter()
        .filter(|id| group(id) == own_group)
        .collect();
    assert_eq!(reached.len(), 1, "the master may ask on the terminal");
    for signal in ["-INT", "-HUP"] {
        run("kill", &[signal, &reached[0]]);
    }
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
    let master = OpensshMaster::log_in("127.0.0.1", &login, &server.options(), &own).unwrap();
    let mut transport = OpensshTransport::new(Arc::new(master), &login, &server.options());
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
    let (login, options) = (server.login(), server.options());
    let master = log_in(&server, &login, &options).unwrap();
    let mut transport = OpensshTransport::new(Arc::clone(&master), &login, &options);
    for id in clients(&server) {
        run("kill", &["-KILL", &id]);
    }
    // A session does not log in by itself.
    let error = transport.spawn("echo in").err().unwrap();
    assert_eq!(error.code, Code::ConnectionLost, "{error:?}");
    assert!(!master.is_alive());
    let log = std::fs::read_to_string(server.at("log")).unwrap();
    assert_eq!(log.matches("Accepted publickey").count(), 1, "{log}");
}

#[test]
fn a_machine_that_takes_one_session_alone_is_named() {
    let server = Server::with(&Setup {
        config: "MaxSessions 1",
        ..Setup::default()
    });
    let mut transport = connect(&server, &server.login(), &server.options()).unwrap();
    let error = transport.spawn("true").err().unwrap();
    assert_eq!(error.code, Code::ConnectionLost);
    assert!(error.next.iter().any(|next| next.contains("MaxSessions")), "{error:?}");
}

#[test]
fn user_and_port_that_the_inventory_leaves_out_are_those_of_ssh_config() {
    let server = Server::with(&Setup {
        users: &[("ann", "/bin/bash", "right")],
        files: &[("/etc/sudoers", "ann ALL=(ALL) NOPASSWD: ALL\n")],
        ..Setup::default()
    });
    let mut login = server.login();
    (login.ssh.unset.user, login.ssh.unset.port, login.ssh.unset.become_root) = (true, true, true);
    login.port = free_port();
    let settings = format!("Host machine\nHostName 127.0.0.1\nPort {}\nUser ann\n", server.port);
    let own = own(&server, &settings);
    let master = OpensshMaster::log_in("machine", &login, &server.options(), &own).unwrap();
    let mut transport = OpensshTransport::new(Arc::new(master), &login, &server.options());
    assert_eq!(finish(transport.spawn("whoami").unwrap(), b"").0, b"ann\n");
    // That it needs sudo shows on the machine.
    assert_eq!(finish(transport.spawn_root("whoami").unwrap(), b"").0, b"root\n");
}

#[test]
fn logins_wait_for_each_other_and_a_prompt_that_nobody_answers_ends() {
    let server = Server::start();
    // Stands for a token that waits for a touch.
    let stuck = own(&server, "ProxyCommand sleep 60\n");
    let impatient = SshOptions {
        timeout: Duration::from_secs(1),
        shell_timeout: Duration::from_secs(1),
        ..server.options()
    };
    let options = SshOptions {
        timeout: Duration::from_secs(2),
        shell_timeout: Duration::from_secs(1),
        ..server.options()
    };
    let began = Instant::now();
    thread::scope(|scope| {
        for options in [&impatient, &options] {
            let (server, stuck) = (&server, &stuck);
            scope.spawn(move || {
                let error = OpensshMaster::log_in("127.0.0.1", &server.login(), options, stuck)
                    .err()
                    .unwrap();
                assert_eq!(error.code, Code::Unreachable, "{error:?}");
                assert!(error.next.iter().any(|next| next.contains("by hand")), "{error:?}");
            });
        }
    });
    assert!(began.elapsed() >= Duration::from_secs(3), "one after the other");
    await_no_client(&server);
}
