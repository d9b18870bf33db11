//! Tests of sudo and doas that want a terminal.

use super::*;
use crate::{OpensshMaster, OpensshOptions, OpensshTransport};
use std::sync::Arc;

/// An escape of ssh's and characters with which a terminal interrupts, ends, erases, stops and quotes.
const STRANGE: &str = "~.\u{3}\u{4}\u{15}\u{7f}\u{13}\u{16}\u{1a}x";
const USERS: &[(&str, &str, &str)] = &[
    ("ann", "/bin/bash", "right"),
    ("eve", "/bin/tcsh", STRANGE),
    ("bob", "/usr/bin/fish", "bob"),
];

fn with_sudo(lines: &str, config: &str) -> Server {
    let text = format!("root ALL=(ALL:ALL) ALL\nDefaults requiretty\nDefaults logfile=/etc/sudo.log\n{lines}\n");
    Server::with(&Setup {
        config,
        users: USERS,
        files: &[("/etc/sudoers", &text)],
        ..Setup::default()
    })
}

fn with_doas(rules: &str) -> Server {
    Server::with(&Setup {
        users: USERS,
        files: &[("/etc/doas.conf", rules), ("/usr/bin/sudo", "")],
        ..Setup::default()
    })
}

/// Logs in by each of the two clients.
pub(super) fn logins(server: &Server, user: &str, password: Option<&str>) -> [(&'static str, Box<dyn Transport>); 2] {
    let connect = Connect {
        become_password: password.map(Secret::new),
        ..server.login_of(user)
    };
    let options = server.options();
    std::fs::write(server.at("ssh_config"), "").unwrap();
    let own = OpensshOptions {
        config: Some(server.at("ssh_config")),
        known_hosts: Some(server.at("known_hosts")),
    };
    let master = OpensshMaster::log_in("127.0.0.1", &connect, &options, &own).unwrap();
    [
        ("libssh2", Box::new(SshTransport::connect(&connect, &options).unwrap())),
        (
            "openssh",
            Box::new(OpensshTransport::new(Arc::new(master), &connect, &options)),
        ),
    ]
}

/// Runs commands as root by each client: the first meets the refusal, the second knows of it.
fn works(server: &Server, user: &str, password: Option<&str>) {
    for (client, mut transport) in logins(server, user, password) {
        for turn in 1..3 {
            let child = transport.spawn_root("id -u; cat; echo \"it's\" >&2; exit 3");
            let child = child.unwrap_or_else(|d| panic!("{client}, {user}, {turn}: {d:?}"));
            assert_eq!(
                finish(child, b"input"),
                (b"0\ninput".to_vec(), "it's\n".to_owned(), Some(3)),
                "{client}, {user}, {turn}"
            );
        }
    }
}

fn errors(server: &Server, user: &str, password: Option<&str>) -> [Diagnosis; 2] {
    logins(server, user, password).map(|(client, mut transport)| {
        let error = transport
            .spawn_root("id")
            .err()
            .unwrap_or_else(|| panic!("{client} is refused"));
        assert_eq!(error.code, Code::SudoRefused, "{client}: {error:?}");
        error
    })
}

fn log_of_sudo(server: &Server) -> String {
    std::fs::read_to_string(server.at("etc/sudo.log")).unwrap_or_default()
}

#[test]
fn sudo_with_requiretty_has_a_terminal() {
    let server = with_sudo("ALL ALL=(ALL) ALL\nbob ALL=(ALL) NOPASSWD: ALL", "");
    works(&server, "ann", Some("right"));
    works(&server, "eve", Some(STRANGE));
    works(&server, "bob", None);
    // Each connection asks once without.
    let log = log_of_sudo(&server);
    let refused = log.matches(" : no tty ; ").count();
    assert_eq!((refused, log.matches(" TTY=").count()), (6, 12), "{log}");
}

#[test]
fn hardened_sudo_with_requiretty_works() {
    let server = with_sudo(
        "Defaults use_pty\nDefaults lecture=always\nDefaults umask=0027\nDefaults secure_path=/usr/sbin:/usr/bin:/sbin:/bin\n\
         ALL ALL=(ALL) ALL\nbob ALL=(ALL) NOPASSWD: ALL",
        "MaxSessions 3\nAllowTcpForwarding no\nBanner /etc/issue.net",
    );
    works(&server, "ann", Some("right"));
    works(&server, "bob", None);
}

#[test]
fn doas_asks_on_a_terminal() {
    let server = with_doas("permit ann as root\npermit eve as root\npermit nopass bob as root\n");
    works(&server, "ann", Some("right"));
    works(&server, "eve", Some(STRANGE));
    works(&server, "bob", Some("not needed"));
    for error in errors(&server, "ann", Some("open sesame")) {
        assert_eq!(error.what, "the doas password is wrong", "{error:?}");
        assert!(
            !format!("{error:?}").contains("sesame"),
            "no password is shown: {error:?}"
        );
    }
    for error in errors(&server, "ann", None) {
        assert_eq!(error.what, "doas asks for a password and none was given", "{error:?}");
        assert!(
            error.next.iter().any(|next| next.contains("becomePassword")),
            "{error:?}"
        );
        assert!(error.next.iter().any(|next| next.contains("nopass")), "{error:?}");
    }
}

#[test]
fn a_wrong_password_is_sent_once() {
    let server = with_sudo("ALL ALL=(ALL) ALL", "");
    for error in errors(&server, "ann", Some("open sesame")) {
        assert_eq!(error.what, "the sudo password is wrong", "{error:?}");
        assert!(!format!("{error:?}").contains("sesame"), "no password is shown");
    }
    // sudo writes it down when its terminal hangs up.
    let began = Instant::now();
    while log_of_sudo(&server).matches("incorrect password attempt").count() < 2 {
        assert!(began.elapsed() < Duration::from_secs(30), "{}", log_of_sudo(&server));
        thread::sleep(Duration::from_millis(50));
    }
    let log = log_of_sudo(&server);
    assert_eq!(log.matches(" 1 incorrect password attempt ").count(), 2, "{log}");
    for error in errors(&server, "ann", None) {
        assert!(
            error.what.contains("asks for a password and none was given"),
            "{error:?}"
        );
    }
}

#[test]
fn a_server_without_terminals_is_named() {
    let server = with_sudo("ALL ALL=(ALL) NOPASSWD: ALL", "PermitTTY no");
    for error in errors(&server, "ann", None) {
        assert!(error.what.contains("the machine gives none"), "{error:?}");
        assert!(error.next.iter().any(|next| next.contains("PermitTTY")), "{error:?}");
    }
}

/// All bytes, and all pairs of bytes, of which a terminal would change or swallow some.
#[test]
fn streams_are_the_same_byte_for_byte_beside_a_terminal() {
    let data: Vec<u8> = (0..=255u8)
        .flat_map(|first| (0..=255u8).flat_map(move |second| [first, second]))
        .cycle()
        .take(6 << 20)
        .collect();
    for lines in ["", "Defaults use_pty\n"] {
        let server = with_sudo(&format!("{lines}ALL ALL=(ALL) ALL"), "");
        for (client, mut transport) in logins(&server, "ann", Some("right")) {
            let child = transport.spawn_root("cat; echo e >&2; exit 5").unwrap();
            let (output, errors, status) = finish(child, &data);
            assert!(output == data, "{client}, {lines}");
            assert_eq!((errors.as_str(), status), ("e\n", Some(5)), "{client}, {lines}");
            // Standard error alone, and an end while the input is open.
            let RemoteChild {
                mut stderr,
                mut exit,
                stdin: _open,
                ..
            } = transport
                .spawn_root("head -c 3000000 /dev/zero >&2; kill -9 $$")
                .unwrap();
            let mut text = String::new();
            stderr.read_to_string(&mut text).unwrap();
            assert_eq!((text.len(), exit.wait()), (3_000_000, None), "{client}, {lines}");
        }
    }
}

/// As without a terminal, the agent winds down by itself.
#[test]
fn a_lost_terminal_ends_the_input_and_not_the_command() {
    for lines in ["", "Defaults use_pty\n"] {
        let server = with_sudo(&format!("{lines}ALL ALL=(ALL) ALL"), "");
        let ended = server.path("ended");
        let mut transport = SshTransport::connect(
            &Connect {
                become_password: Some(Secret::new("right")),
                ..server.login_of("ann")
            },
            &server.options(),
        )
        .unwrap();
        let child = transport
            .spawn_root(&format!("cat >/dev/null; sleep 1; echo whole > {ended}"))
            .unwrap();
        let pid = server.sshd.id().to_string();
        assert!(
            Command::new("pkill")
                .args(["-KILL", "-P", &pid])
                .status()
                .unwrap()
                .success()
        );
        assert_eq!(finish(child, b"").2, None);
        let began = Instant::now();
        while std::fs::read_to_string(&ended).unwrap_or_default() != "whole\n" {
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "{lines}: the command was ended"
            );
            thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Programs that sessions of the server run.
fn sessions(server: &Server) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let read = |id: &Path, file| std::fs::read(id.join(file)).unwrap_or_default();
    let search_path = server.path("bin");
    let is_here = |id: &PathBuf| String::from_utf8_lossy(&read(id, "environ")).contains(&search_path);
    let ids = entries.map(|entry| entry.path()).filter(is_here);
    ids.map(|id| String::from_utf8_lossy(&read(&id, "comm")).trim().to_owned())
        .collect()
}

#[test]
fn nothing_stays_after_a_refusal() {
    let server = with_sudo("ALL ALL=(ALL) ALL", "");
    for (client, mut transport) in logins(&server, "ann", Some("wrong")) {
        transport.spawn_root("id").err().unwrap();
        let began = Instant::now();
        loop {
            // The master's own command stays.
            let left = sessions(&server);
            if left.is_empty() || left == ["cat"] {
                break;
            }
            assert!(began.elapsed() < Duration::from_secs(30), "{client}: {left:?}");
            thread::sleep(Duration::from_millis(100));
        }
    }
}
