use super::*;
use proptest::prelude::*;

const NOW: u64 = 1_800_000_000;

/// A key of the right form; `seed` tells keys apart.
fn key_bytes(seed: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    crate::wire::put_string(&mut bytes, b"ssh-ed25519");
    crate::wire::put_string(&mut bytes, &[seed; 32]);
    bytes
}

fn line(names: &str, seed: u8) -> String {
    format!("{names} ssh-ed25519 {}\n", STANDARD.encode(key_bytes(seed)))
}

fn known(text: &str) -> KnownHosts {
    KnownHosts::parse(Path::new("f"), text)
}

fn check(text: &str, host: &str, port: u16, seed: u8) -> Verdict {
    known(text).check(host, port, &key_bytes(seed), NOW)
}

fn mismatch(line: u32) -> Verdict {
    Verdict::Mismatch {
        places: vec![format!("f:{line}")],
    }
}

#[test]
fn every_known_key_of_a_host_is_accepted() {
    let text = line("a.example", 1) + &line("a.example", 2);
    assert_eq!(check(&text, "A.example", 22, 2), Verdict::Known);
    assert_eq!(
        check(&text, "a.example", 22, 3),
        Verdict::Mismatch {
            places: vec!["f:1".into(), "f:2".into()]
        }
    );
    assert_eq!(check(&text, "b.example", 22, 1), Verdict::Unknown);
    assert_eq!(
        check(&text, "a.example", 2222, 1),
        Verdict::Known,
        "known without the port"
    );
    assert_eq!(check(&text, "a.example", 2222, 3), Verdict::Unknown);
}

#[test]
fn patterns_negations_and_ports_are_matched() {
    let text = line("*.ship,!bad.ship,[10.0.0.?]:2222", 7);
    assert_eq!(check(&text, "deck.ship", 22, 7), Verdict::Known);
    assert_eq!(check(&text, "bad.ship", 22, 7), Verdict::Unknown);
    assert_eq!(check(&text, "10.0.0.7", 2222, 7), Verdict::Known);
    assert_eq!(check(&text, "10.0.0.77", 2222, 7), Verdict::Unknown);
}

#[test]
fn revoked_keys_are_refused_and_bad_lines_affect_their_hosts() {
    let revoked = || Verdict::Revoked { place: "f:4".into() };
    let text = format!(
        "# note\nnonsense\n@cert-authority * x y\n@revoked {}{}",
        line("*", 9),
        line("h", 9)
    );
    assert_eq!(check(&text, "h", 22, 9), revoked());
    assert_eq!(check(&text, "h", 22, 8), mismatch(5));
    assert_eq!(
        check("h ssh-ed25519 AAAA\n", "h", 22, 1),
        Verdict::Unreadable {
            place: "f:1".into(),
            revokes: false
        }
    );
    assert_eq!(check("h ssh-ed25519 AAAA\n", "i", 22, 1), Verdict::Unknown);
    let both = format!("h ssh-ed25519 AAAA\n{}", line("h", 1));
    assert_eq!(check(&both, "h", 22, 1), Verdict::Known);
    // The marker may be a misspelt @revoked.
    assert_eq!(
        check(&format!("@revokd {both}"), "h", 22, 1),
        Verdict::Unreadable {
            place: "f:1".into(),
            revokes: true
        }
    );
}

#[test]
fn known_key_types_come_first_and_certificates_need_an_authority() {
    let supported = [
        "ecdsa-sha2-nistp256",
        "ssh-ed25519-cert-v01@openssh.com",
        "rsa-sha2-512",
        "ssh-ed25519",
    ];
    assert_eq!(known("").prefer("h", 22, &supported)[0], "ssh-ed25519");
    let rsa = STANDARD.encode(b"\0\0\0\x07ssh-rsa\0\0\0\x01\x03\0\0\0\x01\x05");
    let order = known(&format!("h ssh-rsa {rsa}\n"))
        .prefer("h", 22, &supported)
        .concat();
    assert_eq!(order, "rsa-sha2-512ssh-ed25519ecdsa-sha2-nistp256");
    let with_authority = known(&format!("@cert-authority {}", line("h", 1)));
    assert_eq!(
        with_authority.prefer("h", 22, &supported)[0],
        "ssh-ed25519-cert-v01@openssh.com"
    );
}

#[test]
fn a_rendered_line_is_read_back() {
    let text = render_line("H", 2222, &key_bytes(5));
    assert_eq!(check(&text, "h", 2222, 5), Verdict::Known);
    assert_eq!(key::key_type(&key_bytes(5)), Some("ssh-ed25519"));
    assert_eq!(key::key_type(b"\xff\xff\xff\xff"), None);
}

const NAMES: [&str; 4] = ["a.example", "b.example", "[a.example]:2222", "10.0.0.1"];

fn names() -> impl Strategy<Value = String> {
    let one = prop::sample::select(vec![
        "a.example",
        "b.example",
        "*.example",
        "?.example",
        "!a.example",
        "![a.example]:2222",
        "[*]:2222",
        "[a.example]:*",
        "10.0.0.*",
        "10.0.0.?",
        "*",
        "A.EXAMPLE",
        "a.example.",
        "",
        "!*",
    ]);
    prop::collection::vec(one, 1..4)
        .prop_map(|list| list.join(","))
        .prop_filter("a line begins with a name", |n| !n.is_empty())
}

/// Generates no tab after a marker: OpenSSH treats such a line as invalid, and this crate treats the tab as a blank.
fn lines() -> impl Strategy<Value = String> {
    let marker = prop::sample::select(vec![
        "",
        "",
        "",
        "@revoked ",
        "@cert-authority ",
        "@revoked @revoked ",
        "@other ",
    ]);
    let blank = prop::sample::select(vec!["", " ", "\t "]);
    let tail = prop::sample::select(vec!["", " comment here", "\r"]);
    let key = prop::sample::select(vec![1u8, 2, 3]);
    let whole = (blank, marker, names(), key, tail).prop_map(|(blank, marker, names, key, tail)| {
        format!(
            "{blank}{marker}{names} ssh-ed25519 {}{tail}",
            STANDARD.encode(key_bytes(key))
        )
    });
    prop_oneof![
        8 => whole,
        1 => prop::sample::select(vec!["# a.example comment", "", "a.example ssh-ed25519 AAAA", "a.example ssh-rsa !!!"])
            .prop_map(str::to_owned),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    /// `ssh-keygen -F` prints `# Host NAME found: line N [MARK]` for every line that it takes for the name.
    #[test]
    fn generated_known_hosts_match_ssh_keygen(lines in prop::collection::vec(lines(), 1..8), hash in any::<bool>()) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("known_hosts");
        std::fs::write(&file, lines.join("\n") + "\n").unwrap();
        let keygen = |args: &[&str]| {
            let output = std::process::Command::new("ssh-keygen").args(args).arg("-f").arg(&file).output().unwrap();
            String::from_utf8(output.stdout).unwrap()
        };
        if hash {
            // Names with patterns are not hashed.
            keygen(&["-q", "-H"]);
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let ours = KnownHosts::parse(&file, &text);
        for name in NAMES {
            let listed = keygen(&["-F", name]);
            let theirs: Vec<String> = listed
                .lines()
                .filter_map(|l| l.strip_prefix(&format!("# Host {name} found: line ")))
                .map(|l| l.trim_end().to_owned())
                .collect();
            let ours: Vec<String> = ours
                .lines_of(name)
                .into_iter()
                .map(|(place, mark)| format!("{}{mark}", place.rsplit(':').next().unwrap()))
                .collect();
            prop_assert_eq!(ours, theirs, "{} in\n{}", name, &text);
        }
    }
}
