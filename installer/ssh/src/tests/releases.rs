//! Tests with OpenSSH of other releases.

use super::*;

/// Returns the command that starts a release's sshd: its programs run with the loader and the libraries beside them, by scripts.
pub(super) fn sshd(release: &Path, directory: &Path) -> String {
    let libraries = ["lib", "usr/lib"].map(|folder| release.join(folder).join("x86_64-linux-gnu"));
    let mut loaders = libraries.iter().map(|folder| folder.join("ld-linux-x86-64.so.2"));
    let loader = loaders.find(|file| file.exists()).expect("the release has a loader");
    let script = |program: &str| {
        let program = release.join(program);
        let file = directory.join(program.file_name().unwrap());
        let line = format!(
            "#!/bin/sh\nexec {} --library-path {}:{} {} \"$@\"\n",
            loader.display(),
            libraries[0].display(),
            libraries[1].display(),
            program.display()
        );
        std::fs::write(&file, line).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        file.display().to_string()
    };
    let server = script("usr/sbin/sshd");
    if release.join("usr/lib/openssh/sshd-session").exists() {
        let (session, auth) = (
            script("usr/lib/openssh/sshd-session"),
            script("usr/lib/openssh/sshd-auth"),
        );
        format!("{server} -o SshdSessionPath={session} -o SshdAuthPath={auth}")
    } else {
        // Before 9.8 sshd started itself anew for each connection, without the loader.
        format!("{server} -r")
    }
}

#[test]
#[ignore = "needs OpenSSH of other releases, which `cargo xtask test` fetches"]
fn openssh_of_debian_11_and_13_works() {
    const USERS: &[(&str, &str, &str)] = &[("ann", "/bin/bash", "right")];
    let home = std::env::var_os("LANDFALL_OPENSSH").expect("LANDFALL_OPENSSH names the directory of its releases");
    for (suite, version) in [("bullseye", "OpenSSH_8.4"), ("trixie", "OpenSSH_10.0")] {
        let release = Path::new(&home).join(suite);
        for requiretty in ["", "Defaults requiretty\n"] {
            let server = Server::with(&Setup {
                config: "PasswordAuthentication yes",
                users: USERS,
                files: &[("/etc/sudoers", &format!("{requiretty}ann ALL=(ALL) ALL\n"))],
                release: Some(&release),
                ..Setup::default()
            });
            let mut banner = [0u8; 64];
            let read = TcpStream::connect(("127.0.0.1", server.port))
                .unwrap()
                .read(&mut banner)
                .unwrap();
            let banner = String::from_utf8_lossy(&banner[..read]).into_owned();
            assert!(banner.contains(version), "{banner}");
            let data: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
            for (client, mut transport) in terminal::logins(&server, "ann", Some("right")) {
                let child = transport.spawn_root("cat; id -u >&2; exit 3");
                let child = child.unwrap_or_else(|d| panic!("{suite}, {client}: {d:?}"));
                let (output, errors, status) = finish(child, &data);
                assert!(output == data, "{suite}, {client}, {requiretty}");
                assert_eq!(
                    (errors.as_str(), status),
                    ("0\n", Some(3)),
                    "{suite}, {client}, {requiretty}"
                );
            }
            let by_password = Connect {
                private_key: None,
                password: Some(Secret::new("right")),
                become_root: false,
                ..server.login_of("ann")
            };
            assert_eq!(server.run(&by_password, "whoami").unwrap(), "ann\n", "{suite}");
            let mut through = server.login();
            through.ssh.proxy = Some(landfall_core::inventory::Proxy::Jump(vec![server.login()]));
            assert_eq!(server.run(&through, "echo there").unwrap(), "there\n", "{suite}");
        }
    }
}
