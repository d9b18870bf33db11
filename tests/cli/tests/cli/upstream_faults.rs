//! What servers and ways to them can do wrong: it is named, or the build goes on.

use crate::upstream::Builder;
use landfall_core::name::Digest;
use landfall_test_support::publishers::{Fault, Publishers};
use std::time::Instant;

const KUBELET: &str = "dl.k8s.io/release/v1.37.2/bin/linux/amd64/kubelet";

/// The name that a file has in the cache.
fn cached(builder: &Builder, path: &str) -> std::path::PathBuf {
    let digest = Digest::of(&builder.publishers.file(path).unwrap());
    builder.home.path(".cache/landfall/blobs").join(digest.hex())
}

/// The ranges that were asked for of a file.
fn ranges(builder: &Builder, path: &str) -> Vec<Option<String>> {
    let seen = builder.publishers.seen();
    seen.into_iter()
        .filter(|seen| seen.what == path)
        .map(|seen| seen.range)
        .collect()
}

#[test]
fn a_connection_that_breaks_is_gone_on_with() {
    let builder = Builder::start();
    builder.lock(&["-o", "x.lock.yaml"]).ends(0);
    builder.publishers.seen();
    builder.publishers.fail(KUBELET, Fault::Cut(60), 1);
    // Layers of images too, whose registry sends elsewhere for them.
    builder.publishers.fail("files.test/v2/blobs/", Fault::Cut(60), 2);
    builder.build(&[]).ends(0);
    let size = builder.publishers.file(KUBELET).unwrap().len();
    let rest = Some(format!("bytes={}-", size * 60 / 100));
    let seen = builder.publishers.seen();
    let of_kubelet: Vec<_> = seen
        .iter()
        .filter(|seen| seen.what == KUBELET)
        .map(|seen| seen.range.clone())
        .collect();
    assert_eq!(of_kubelet, [None, rest]);
    let blobs = seen
        .iter()
        .filter(|seen| seen.what.starts_with("files.test/v2/blobs/") && seen.range.is_some());
    assert_eq!(blobs.count(), 2);
}

#[test]
fn a_build_goes_on_where_an_earlier_one_stopped_unless_it_left_something_else() {
    let builder = Builder::start();
    builder.build(&[]).ends(0);
    let whole = cached(&builder, KUBELET);
    let part = whole.with_extension("part");
    let bytes = std::fs::read(&whole).unwrap();
    let half = bytes.len() / 2;
    let mut other = bytes[..half].to_vec();
    other[7] ^= 1;
    let whole_twice = [bytes.clone(), bytes.clone()].concat();
    for (left, asked) in [
        (bytes[..half].to_vec(), vec![Some(half)]),
        (other, vec![Some(half), None]),
        (whole_twice, vec![Some(2 * bytes.len()), None]),
    ] {
        std::fs::remove_file(&whole).unwrap();
        std::fs::write(&part, &left).unwrap();
        builder.publishers.seen();
        builder.build(&[]).ends(0);
        let asked: Vec<_> = asked
            .into_iter()
            .map(|from| from.map(|from| format!("bytes={from}-")))
            .collect();
        assert_eq!(ranges(&builder, KUBELET), asked);
        assert!(!part.exists());
        assert_eq!(std::fs::read(&whole).unwrap(), bytes);
    }
}

#[test]
fn a_server_that_passes_over_ranges_gives_the_whole_file_again() {
    let builder = Builder::start();
    builder
        .publishers
        .fail(&format!("{KUBELET}.sha256"), Fault::Status(503, None), 1);
    builder
        .lock(&["-o", "x.lock.yaml"])
        .ends(0)
        .complains(&["503", "trying again in 0.5 s"]);
    builder.publishers.fail(KUBELET, Fault::Cut(60), 1);
    builder.publishers.fail(KUBELET, Fault::NoRange, 1);
    builder.build(&[]).ends(0);
}

#[test]
fn a_server_that_is_busy_is_given_the_time_it_asks_for() {
    let builder = Builder::start();
    builder
        .publishers
        .fail("registry.k8s.io/v2/pause/", Fault::Status(429, Some(2)), 1);
    let start = Instant::now();
    let ran = builder.lock(&[]).ends(0);
    ran.complains(&["429 Too Many Requests", "trying again in 2.0 s"]);
    assert!(start.elapsed().as_secs_f32() >= 2.0);
    builder
        .publishers
        .fail("registry.k8s.io/v2/pause/", Fault::Status(429, Some(3600)), 1);
    let ran = builder.lock(&[]).ends(5);
    ran.complains(&["registry.k8s.io/pause:3.10.2", "429", "asks to wait 3600 s"]);
}

#[test]
fn another_file_than_the_locked_one_is_refused_and_leaves_nothing() {
    let builder = Builder::start();
    builder.lock(&["-o", "x.lock.yaml"]).ends(0);
    builder.publishers.fail(KUBELET, Fault::WrongByte, 9);
    let ran = builder.build(&[]).ends(5);
    let wanted = Digest::of(&builder.publishers.file(KUBELET).unwrap()).to_string();
    ran.complains(&[
        "LF0402",
        &format!("https://{KUBELET} gives sha256:"),
        &wanted,
        "why the server's file changed",
    ]);
    assert!(!cached(&builder, KUBELET).exists());
    assert!(!builder.home.path("x.bundle").exists());
    let part = std::fs::read(cached(&builder, KUBELET).with_extension("part")).unwrap();
    assert_eq!(part, b"", "what is wrong is not kept");
}

#[test]
fn wrong_bytes_of_an_image_are_refused_and_damage_in_the_cache_is_fetched_again() {
    let builder = Builder::start();
    builder.lock(&["-o", "x.lock.yaml"]).ends(0);
    builder.publishers.fail("files.test/v2/blobs/", Fault::WrongByte, 99);
    builder
        .build(&[])
        .ends(5)
        .complains(&["LF0402", "configuration of registry.k8s.io/kube-apiserver:v1.37.2"]);
    let builder = Builder::start();
    builder.build(&[]).ends(0);
    std::fs::write(cached(&builder, KUBELET), "damaged").unwrap();
    builder.publishers.seen();
    builder.build(&[]).ends(0);
    assert_eq!(ranges(&builder, KUBELET), [None]);
}

#[test]
fn an_expired_or_unknown_certificate_is_named_and_not_tried_again() {
    let expired = Builder::new(Publishers::start_expired().unwrap());
    let ran = expired.lock(&[]).ends(5);
    ran.complains(&["dl.k8s.io", "expired"])
        .keeps_quiet_about(&["trying again"]);
    let unknown = Builder::start();
    let ran = unknown.bundle(&["lock"]).ends(5);
    ran.complains(&["UnknownIssuer"]).keeps_quiet_about(&["trying again"]);
    unknown
        .bundle(&["lock", "--ca", "no.pem"])
        .ends(3)
        .complains(&["no.pem"]);
    // The usual variable does the same as --ca.
    let (ca, proxy) = (
        unknown.home.path("ca.pem").display().to_string(),
        unknown.publishers.proxy(),
    );
    let environment = [("SSL_CERT_FILE", ca.as_str()), ("HTTPS_PROXY", proxy.as_str())];
    unknown.home.run_with(&environment, &["bundle", "lock"]).ends(0);
}

#[test]
fn what_a_mirror_lacks_comes_from_the_server_itself() {
    let builder = Builder::start();
    builder.publishers.mirror("registry.k8s.io", "mirror.test", "k8s/");
    builder.publishers.remove("mirror.test/k8s/etcd");
    let mirror = ["--mirror", "registry.k8s.io=https://mirror.test/k8s"];
    let ran = builder.build(&mirror).ends(0);
    ran.complains(&["https://mirror.test: the server answers 404 Not Found; asking the next server"]);
    let seen = builder.publishers.seen();
    let of = |part: &str| seen.iter().filter(|seen| seen.what.starts_with(part)).count();
    assert!(of("mirror.test/v2/k8s/pause/") > 0 && of("registry.k8s.io/v2/pause/") == 0);
    assert!(of("mirror.test/v2/k8s/etcd/") > 0 && of("registry.k8s.io/v2/etcd/") > 0);
}

#[test]
fn no_proxy_leads_past_the_proxy() {
    let builder = Builder::start();
    builder.publishers.mirror_files("dl.k8s.io", "127.0.0.1");
    let mirror = format!("dl.k8s.io=https://{}", builder.publishers.address());
    let proxy = builder.publishers.proxy();
    let args = ["bundle", "lock", "--ca", "ca.pem", "--mirror", &mirror];
    let environment = [("HTTPS_PROXY", proxy.as_str()), ("NO_PROXY", "127.0.0.1")];
    builder.home.run_with(&environment, &args).ends(0);
    let led = builder.publishers.led();
    assert!(
        led.iter()
            .all(|host| !host.contains("127.0.0.1") && !host.contains("dl.k8s.io")),
        "{led:?}"
    );
    assert!(led.iter().any(|host| host == "ghcr.io:443"));
    let text = std::fs::read_to_string(builder.home.path("landfall.lock.yaml")).unwrap();
    assert!(!text.contains("127.0.0.1"), "a mirror is no part of the lock file");
    let wrong = builder
        .home
        .run_with(&[("HTTPS_PROXY", "://secret@")], &["bundle", "lock"]);
    wrong
        .ends(2)
        .complains(&["HTTPS_PROXY names no proxy"])
        .keeps_quiet_about(&["secret"]);
}

#[test]
fn private_images_need_the_users_login() {
    let builder = Builder::start();
    builder.publishers.require_login("ghcr.io", "Basic dTpzZWNyZXQ=");
    let ran = builder.lock(&[]).ends(5);
    ran.complains(&["ghcr.io/flannel-io/flannel:v0.28.4", "401", "docker login ghcr.io"]);
    std::fs::create_dir(builder.home.path(".docker")).unwrap();
    let login = |auth: &str| format!(r#"{{ "auths": {{ "ghcr.io": {{ "auth": "{auth}" }} }} }}"#);
    builder.home.write(".docker/config.json", login("d3Jvbmc6eA=="));
    let ran = builder.lock(&[]).ends(5);
    ran.complains(&["look whether the login for ghcr.io"])
        .keeps_quiet_about(&["d3Jvbmc6eA=="]);
    builder.home.write(".docker/config.json", login("dTpzZWNyZXQ="));
    builder.publishers.seen();
    builder.lock(&[]).ends(0);
    let seen = builder.publishers.seen();
    let basic: Vec<_> = seen
        .iter()
        .filter(|s| s.authorization.as_deref().is_some_and(|a| a.starts_with("Basic")))
        .collect();
    assert_eq!(
        basic.len(),
        1,
        "the password goes to those who give tokens for this registry alone: {basic:?}"
    );
}
