use super::apply::Local;
use super::*;
use landfall_core::inventory::{Connect, Proxy};
use proptest::prelude::*;
use std::process::Command;

fn config(text: &str) -> SshConfig {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config");
    std::fs::write(&file, text).unwrap();
    SshConfig::read(&[(file, directory.path().to_owned())], true).unwrap()
}

fn local() -> Local {
    Local {
        user: "me".into(),
        home: "/home/me".into(),
    }
}

fn applied(text: &str, host: &str) -> Connect {
    let mut connect = Connect::hop(host, None, None, "root");
    connect.ssh.unset.become_root = true;
    config(text).apply(&mut connect, &local()).unwrap();
    connect
}

#[test]
fn cluster_yaml_comes_before_ssh_config() {
    let text = "Host a\n HostName 192.0.2.1\n User ops\n Port 5\n IdentityFile ~/.ssh/%r-%h\n ProxyJump b\n StrictHostKeyChecking no\n\
                Host b\n  User hop\n";
    let connect = applied(text, "a");
    assert_eq!(
        (connect.host.as_str(), connect.port, connect.user.as_str()),
        ("192.0.2.1", 5, "ops")
    );
    assert!(connect.become_root && connect.ssh.accept_new);
    assert_eq!(
        connect.ssh.identity_files,
        [PathBuf::from("/home/me/.ssh/ops-192.0.2.1")]
    );
    assert_eq!(connect.render_jump().unwrap(), "hop@b:22");
    let mut said = Connect::hop("a", Some(7), Some("root"), "root");
    said.private_key = Some("k".into());
    said.ssh.proxy = Some(Proxy::Direct);
    config(text).apply(&mut said, &local()).unwrap();
    assert_eq!((said.port, said.user.as_str(), said.become_root), (7, "root", false));
    assert_eq!(
        (said.ssh.identity_files.len(), &said.ssh.proxy),
        (0, &Some(Proxy::Direct))
    );
}

#[test]
fn the_first_of_jump_and_command_counts_and_none_keeps_the_command() {
    let way = |text: &str| applied(text, "a").ssh.proxy;
    let command = Some(Proxy::Command("nc %h %p".into()));
    assert_eq!(way("Host a\n ProxyJump none\n ProxyCommand nc %h %p\n"), command);
    assert_eq!(way("Host a\n ProxyCommand nc %h %p\n ProxyJump none\n"), command);
    assert_eq!(way("Host a\n ProxyJump none\n ProxyJump b\n"), Some(Proxy::Direct));
    assert_eq!(way("Host a\n ProxyCommand none\n ProxyJump b\n"), Some(Proxy::Direct));
    assert!(matches!(
        way("Host a\n ProxyJump b\n ProxyCommand nc\n"),
        Some(Proxy::Jump(_))
    ));
}

#[test]
fn jump_hosts_have_their_own_settings_and_circles_are_errors() {
    let text = "Host b\n HostName 192.0.2.9\n Port 9\nHost *\n ProxyJump b\n IdentitiesOnly yes\n";
    let connect = applied(text, "a");
    let Some(Proxy::Jump(hops)) = &connect.ssh.proxy else {
        panic!("{connect:?}")
    };
    assert_eq!(
        (hops[0].host.as_str(), hops[0].port, &hops[0].ssh.proxy),
        ("192.0.2.9", 9, &None)
    );
    let mut circle = Connect::hop("a", None, None, "root");
    let error = config("Host a\n ProxyJump b\nHost b\n ProxyJump a\n")
        .apply(&mut circle, &local())
        .unwrap_err();
    assert!(error.contains("circle"), "{error}");
}

#[test]
fn unsupported_settings_are_reported_where_they_apply() {
    let text = "Host a\n HostKeyAlias x\n ForwardAgent yes\n Frobnicate 1\nHost b\n Ciphers none\nMatch exec \"touch /tmp/x\"\n User no\n";
    let mut connect = Connect::hop("a", None, None, "root");
    let ignored = config(text).apply(&mut connect, &local()).unwrap();
    assert_eq!(
        ignored.into_iter().collect::<Vec<_>>(),
        ["Match exec", "frobnicate", "hostkeyalias"]
    );
    assert_eq!(connect.user, "root");
}

fn value() -> impl Strategy<Value = String> {
    let choose = |list: &'static [&'static str]| prop::sample::select(list);
    prop_oneof![
        (
            choose(&["HostName", "hostname"]),
            choose(&["h1.test", "h2.test", "%h.test"])
        )
            .prop_map(|(k, v)| format!("{k} {v}")),
        choose(&["Port 2201", "Port=2202", "Port = 2203"]).prop_map(str::to_owned),
        choose(&["User u1", "User \"u2\"", "User\tu3"]).prop_map(str::to_owned),
        choose(&["IdentityFile /k1", "IdentityFile \"/k 2\"", "IdentityFile /k3"]).prop_map(str::to_owned),
        choose(&["CertificateFile /c1", "CertificateFile /c2"]).prop_map(str::to_owned),
        choose(&["IdentitiesOnly yes", "IdentitiesOnly no"]).prop_map(str::to_owned),
        choose(&[
            "ProxyJump j1",
            "ProxyJump u@j2:5,j3",
            "ProxyJump none",
            "ProxyCommand nc %h %p",
            "ProxyCommand none"
        ])
        .prop_map(str::to_owned),
        choose(&["UserKnownHostsFile /f1 /f2", "UserKnownHostsFile /f3"]).prop_map(str::to_owned),
        choose(&[
            "StrictHostKeyChecking no",
            "StrictHostKeyChecking yes",
            "StrictHostKeyChecking accept-new"
        ])
        .prop_map(str::to_owned),
        choose(&["# a comment", "", "ForwardAgent yes"]).prop_map(str::to_owned),
    ]
}

fn block() -> impl Strategy<Value = String> {
    let head = prop::sample::select(vec![
        "Host alpha",
        "Host beta alpha",
        "Host * !alpha",
        "Host a*",
        "Host ?????",
        "Host \"alpha\"",
        "Host=alpha",
        "Match all",
        "Match host alpha",
        "Match host h1.test",
        "Match host !alpha,*",
        "Match originalhost alpha",
        "Match user u1",
        "Match !user u1",
        "Match host alpha* user u2",
        "Include inner",
        "Match localuser nobody-here",
    ]);
    (head, prop::collection::vec(value(), 0..4))
        .prop_map(|(head, values)| format!("{head}\n  {}\n", values.join("\n  ")))
}

/// Returns the settings that a real ssh reads from the files: the lines of `ssh -G`.
fn oracle(file: &Path) -> Vec<(String, String)> {
    let output = Command::new("ssh")
        .args(["-G", "-F"])
        .arg(file)
        .arg("alpha")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .filter_map(|l| l.split_once(' '))
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn generated_settings_are_read_like_ssh(
        before in prop::collection::vec(value(), 0..2),
        blocks in prop::collection::vec(block(), 0..5),
        inner in prop::collection::vec(block(), 0..3),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("config");
        let included = directory.path().join("inner");
        // ssh looks for relative names in the home directory of the password file.
        let absolute = |text: String| text.replace("Include inner", &format!("Include {}", included.display()));
        let text = absolute(before.join("\n") + "\n" + &blocks.concat());
        std::fs::write(&file, &text).unwrap();
        std::fs::write(&included, inner.concat().replace("Include inner", "Host beta")).unwrap();
        let me = Command::new("id").arg("-un").output().unwrap();
        let me = String::from_utf8(me.stdout).unwrap().trim().to_owned();
        let config = SshConfig::read(&[(file.clone(), directory.path().to_owned())], true).unwrap();
        let ours = config.values(&Target { host: "alpha", user: &me, user_unset: true, local_user: &me });
        let theirs = oracle(&file);
        let all = |key: &str| theirs.iter().filter(|(k, _)| k == key).map(|(_, v)| v.clone()).collect::<Vec<_>>();
        let one = |key: &str| all(key).first().cloned();
        prop_assert_eq!(ours.host_name.clone().map_or("alpha".into(), |n| n.replace("%h", "alpha")), one("hostname").unwrap(), "{}", &text);
        prop_assert_eq!(ours.port.clone().unwrap_or("22".into()), one("port").unwrap(), "{}", &text);
        prop_assert_eq!(ours.user.clone().unwrap_or(me), one("user").unwrap(), "{}", &text);
        if !ours.identity_files.is_empty() {
            prop_assert_eq!(&ours.identity_files, &all("identityfile"), "{}", &text);
        }
        prop_assert_eq!(&ours.certificate_files, &all("certificatefile"), "{}", &text);
        prop_assert_eq!(ours.identities_only.unwrap_or(false), one("identitiesonly").unwrap() == "yes", "{}", &text);
        let jump = ours.proxy_jump.clone().filter(|j| j != "none");
        prop_assert_eq!(jump, one("proxyjump"), "{}", &text);
        let command = ours.proxy_command.clone().filter(|c| c != "none");
        prop_assert_eq!(command, one("proxycommand"), "{}", &text);
        if let Some(known) = &ours.known_hosts {
            prop_assert_eq!(known.join(" "), one("userknownhostsfile").unwrap(), "{}", &text);
        }
        let strict = one("stricthostkeychecking").unwrap();
        let accepts = |s: &str| ["no", "false", "off", "accept-new"].contains(&s);
        prop_assert_eq!(accepts(ours.strict.as_deref().unwrap_or("ask")), accepts(&strict), "{}", &text);
    }
}
