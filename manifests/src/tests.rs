use super::*;
use landfall_core::bundle_index::{INDEX_VERSION, Image};
use landfall_core::layout;
use landfall_core::name::Digest;
use landfall_core::spec::{ClusterSpec, Profile};

const NAMES: [&str; 11] = [
    "kube-apiserver:v1.37.2",
    "kube-controller-manager:v1.37.2",
    "kube-scheduler:v1.37.2",
    "kube-proxy:v1.37.2",
    "etcd:3.7.3",
    "pause:3.10.2",
    "coredns:v1.15.0",
    "flannel:v0.28.4",
    "nginx:1.22.1",
    "landfall-ingress:0.1.0",
    "landfall-probe:0.1.0",
];

fn index(names: &[&str]) -> BundleIndex {
    let image = |name: &&str| Image {
        reference: format!("registry.landfall.internal/{name}").parse().unwrap(),
        manifest: Digest::of(name.as_bytes()),
        manifest_size_bytes: 1,
        blobs: vec![],
        roles: Default::default(),
    };
    BundleIndex {
        version: INDEX_VERSION,
        recipe: "source".into(),
        architecture: "amd64".into(),
        kubernetes_version: "v1.37.2".into(),
        image_repository: "registry.landfall.internal".into(),
        binaries: vec![],
        images: names.iter().map(image).collect(),
        components: vec![],
        packages: vec![],
        blobs: vec![],
    }
}

fn cluster(dns: DnsPolicy) -> ClusterLayout {
    let member = |n: u8, control_plane| MemberLayout {
        name: format!("node-{n}").parse().unwrap(),
        control_plane,
        schedulable: !control_plane,
        address: [10, 90, 0, n].into(),
        interface: "eth0".into(),
        reaches_services: n == 5,
    };
    let members = vec![
        member(1, true),
        member(2, true),
        member(3, true),
        member(4, false),
        member(5, false),
    ];
    ClusterLayout { members, dns }
}

#[test]
fn every_image_is_asked_for_and_a_missing_one_is_named() {
    let spec = ClusterSpec::default();
    let all = required_images(&spec, &index(&NAMES), &cluster(DnsPolicy::Closed)).unwrap();
    assert_eq!(all.len(), NAMES.len());
    for (n, name) in NAMES.iter().enumerate() {
        let mut fewer = NAMES.to_vec();
        fewer.remove(n);
        let error = required_images(&spec, &index(&fewer), &cluster(DnsPolicy::Closed)).unwrap_err();
        let missing = name.split(':').next().unwrap().to_owned();
        assert_eq!(error, RenderError::MissingImage(missing));
    }
}

#[test]
fn closed_dns_answers_other_names_in_a_block_of_its_own() {
    let corefile = |dns| {
        let objects = dns_objects(&ClusterSpec::default(), &index(&NAMES), &cluster(dns)).unwrap();
        objects.iter().find(|o| o["kind"] == "ConfigMap").unwrap()["data"]["Corefile"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let closed = corefile(DnsPolicy::Closed);
    let (first, second) = closed.split_once("\n.:53").unwrap();
    assert!(first.contains("kubernetes cluster.local") && !first.contains("template"));
    assert!(second.contains("rcode NXDOMAIN") && !closed.contains("forward"));
    let forwarded = corefile(DnsPolicy::Forward(vec![[192, 0, 2, 1].into()]));
    assert!(forwarded.contains("forward . 192.0.2.1") && !forwarded.contains("NXDOMAIN"));
}

#[test]
fn lab_exceptions_stay_in_the_lab() {
    let render = |profile| {
        let spec = ClusterSpec {
            profile,
            ..ClusterSpec::default()
        };
        let cluster = cluster(DnsPolicy::Closed);
        kubeadm_init(&spec, &index(&NAMES), &cluster, &cluster.members[0]).unwrap()
    };
    let (standard, lab) = (render(Profile::Standard), render(Profile::Lab));
    for exception in ["failCgroupV1", "cgroupfs", "ignorePreflightErrors", "oomScoreAdj"] {
        assert!(lab.contains(exception) && !standard.contains(exception), "{exception}");
    }
    assert!(standard.contains("protectKernelDefaults: true") && standard.contains("audit-log-maxage"));
    assert!(standard.contains("imageTag: 3.7.3") && standard.contains("controlPlaneEndpoint: 127.0.0.1:7443"));
}

#[test]
fn kubeconfigs_name_the_balancer_by_address_and_certificates_its_name_too() {
    let spec = ClusterSpec::default();
    let cluster = cluster(DnsPolicy::Closed);
    let text = kubeadm_init(&spec, &index(&NAMES), &cluster, &cluster.members[0]).unwrap();
    let documents: Vec<serde_json::Value> = text.split("---\n").map(|d| serde_yaml::from_str(d).unwrap()).collect();
    let config = documents.iter().find(|d| d["kind"] == "ClusterConfiguration").unwrap();
    let endpoint = config["controlPlaneEndpoint"].as_str().unwrap();
    assert_eq!(format!("https://{endpoint}"), layout::API_BALANCER_URL);
    assert_eq!(endpoint, format!("127.0.0.1:{}", layout::API_BALANCER_PORT));
    let names = config["apiServer"]["certSANs"].as_array().unwrap();
    assert!(names.contains(&spec.control_plane_endpoint.clone().into()) && names.contains(&"127.0.0.1".into()));
    assert_eq!(hosts_lines(&spec), ["127.0.0.1 api.landfall.internal"]);
}

/// The body of the object of this kind, and the annotation of its pod template by which pods are replaced.
fn template_digest(objects: &[serde_json::Value], kind: &str) -> String {
    let object = objects.iter().find(|o| o["kind"] == kind).unwrap();
    let annotation = &object["spec"]["template"]["metadata"]["annotations"]["landfall.io/config"];
    annotation.as_str().unwrap().to_owned()
}

#[test]
fn a_changed_proxy_mode_replaces_the_pods_of_kube_proxy_and_flannel() {
    use landfall_core::spec::ProxyMode;
    let with = |proxy_mode| {
        let spec = ClusterSpec {
            proxy_mode,
            ..ClusterSpec::default()
        };
        (
            kube_proxy_objects(&spec).unwrap(),
            flannel_objects(&spec, &index(&NAMES)).unwrap(),
        )
    };
    let (proxy, flannel) = with(ProxyMode::Nftables);
    let (other_proxy, other_flannel) = with(ProxyMode::Iptables);
    assert_ne!(
        template_digest(&proxy, "DaemonSet"),
        template_digest(&other_proxy, "DaemonSet")
    );
    assert_ne!(
        template_digest(&flannel, "DaemonSet"),
        template_digest(&other_flannel, "DaemonSet")
    );
    assert_eq!(proxy, with(ProxyMode::Nftables).0, "the same spec changes nothing");
    let data = &other_proxy[0]["data"];
    let config: serde_json::Value = serde_yaml::from_str(data["config.conf"].as_str().unwrap()).unwrap();
    assert_eq!(config["mode"], "iptables");
    assert_eq!(
        config["clientConnection"]["kubeconfig"],
        "/var/lib/kube-proxy/kubeconfig.conf"
    );
    let kubeconfig: serde_json::Value = serde_yaml::from_str(data["kubeconfig.conf"].as_str().unwrap()).unwrap();
    assert_eq!(kubeconfig["clusters"][0]["cluster"]["server"], layout::API_BALANCER_URL);
}

#[test]
fn a_changed_dns_policy_replaces_the_pods_of_coredns() {
    let digest = |dns| {
        let objects = dns_objects(&ClusterSpec::default(), &index(&NAMES), &cluster(dns)).unwrap();
        template_digest(&objects, "Deployment")
    };
    assert_eq!(digest(DnsPolicy::Closed), digest(DnsPolicy::Closed));
    assert_ne!(
        digest(DnsPolicy::Closed),
        digest(DnsPolicy::Forward(vec![[192, 0, 2, 1].into()]))
    );
}

#[test]
fn the_sample_has_a_namespace_of_its_own() {
    let objects = sample_objects(&ClusterSpec::default(), &index(&NAMES), &cluster(DnsPolicy::Closed)).unwrap();
    assert_eq!(
        (&objects[0]["kind"], &objects[0]["metadata"]["name"]),
        (&"Namespace".into(), &layout::SAMPLE_NAMESPACE.into())
    );
    for object in &objects[1..] {
        assert_eq!(object["metadata"]["namespace"], layout::SAMPLE_NAMESPACE);
    }
}

#[test]
fn a_node_balances_over_all_control_planes_with_its_own_first() {
    let cluster = cluster(DnsPolicy::Closed);
    let units = units(&ClusterSpec::default(), &cluster, &cluster.members[1]);
    let balancer = &units.iter().find(|(name, _)| name.contains("balancer")).unwrap().1;
    let order = "--backend 10.90.0.2:6443 --backend 10.90.0.1:6443 --backend 10.90.0.3:6443";
    assert!(balancer.contains(order), "{balancer}");
    let routes = |n: usize| super::units(&ClusterSpec::default(), &cluster, &cluster.members[n]);
    assert!(routes(0).iter().any(|(name, _)| name.contains("service-route")));
    assert!(!routes(4).iter().any(|(name, _)| name.contains("service-route")));
}

#[test]
fn join_names_no_secret() {
    let cluster = cluster(DnsPolicy::Closed);
    let spec = ClusterSpec::default();
    let worker = kubelet_join(&spec, &cluster.members[3]).unwrap();
    assert!(worker.contains("landfall-join.conf") && !worker.contains("token"));
    let control_plane = control_plane_join(&spec, &cluster.members[1]).unwrap();
    assert!(control_plane.contains("advertiseAddress: 10.90.0.2"));
}

#[test]
fn the_kubelet_of_a_control_plane_joins_like_a_workers_but_tainted() {
    let cluster = cluster(DnsPolicy::Closed);
    let mut member = cluster.members[1].clone();
    member.schedulable = false;
    let text = kubelet_join(&ClusterSpec::default(), &member).unwrap();
    assert!(!text.contains("controlPlane:") && text.contains("NoSchedule"), "{text}");
    member.schedulable = true;
    let text = kubelet_join(&ClusterSpec::default(), &member).unwrap();
    assert!(text.contains("taints: []") && !text.contains("NoSchedule"), "{text}");
}

#[test]
fn the_cni_template_becomes_json() {
    let text = cni_template();
    let start = text.find("{{range").unwrap();
    let end = text.find("{{end}}]\n").unwrap() + "{{end}}".len();
    let filled = format!("{}[{{\"subnet\": \"10.244.1.0/24\"}}]{}", &text[..start], &text[end..]);
    let parsed: serde_json::Value = serde_json::from_str(&filled).unwrap();
    assert_eq!(parsed["plugins"][0]["ipam"]["ranges"][0][0]["subnet"], "10.244.1.0/24");
}

#[test]
fn a_new_ingress_pod_fits_beside_the_old_one() {
    let objects = ingress_objects(&ClusterSpec::default(), &index(&NAMES)).unwrap();
    let set = objects.iter().find(|o| o["kind"] == "DaemonSet").unwrap();
    let strategy = &set["spec"]["updateStrategy"]["rollingUpdate"];
    assert_eq!(
        (strategy["maxSurge"].as_u64(), strategy["maxUnavailable"].as_u64()),
        (Some(1), Some(0))
    );
    assert!(
        set["spec"]["minReadySeconds"].as_u64() >= Some(5),
        "the old pod goes too early"
    );
    let pod = &set["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    assert!(container.get("ports").is_none(), "declared ports keep the new pod away");
    for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
        assert!(
            container[probe]["exec"].is_object(),
            "{probe} would be answered by the wrong pod"
        );
    }
    let path = &pod["volumes"][0]["hostPath"]["path"];
    assert_eq!(*path, landfall_core::layout::INGRESS_DIR);
    let argument = format!("--handover-directory={}", landfall_core::layout::INGRESS_DIR);
    assert!(container["args"].as_array().unwrap().contains(&argument.into()));
}

/// Arguments of the ingress proxy's container.
fn ingress_arguments(ingress: &str) -> Vec<String> {
    let spec = ClusterSpec {
        ingress: serde_json::from_str(ingress).unwrap(),
        ..ClusterSpec::default()
    };
    let objects = ingress_objects(&spec, &index(&NAMES)).unwrap();
    let set = objects.iter().find(|o| o["kind"] == "DaemonSet").unwrap();
    serde_json::from_value(set["spec"]["template"]["spec"]["containers"][0]["args"].clone()).unwrap()
}

#[test]
fn each_setting_of_the_ingress_proxy_reaches_its_program() {
    let usual = ingress_arguments("{}");
    for (setting, argument) in [
        (
            r#""trustedCidrs": ["10.0.0.0/8", "192.0.2.1/32"]"#,
            "--trusted-cidrs=10.0.0.0/8,192.0.2.1/32",
        ),
        (r#""proxyProtocol": true"#, "--proxy-protocol"),
        (r#""dashboard": false"#, "--no-dashboard"),
        (r#""tlsMinVersion": "1.3""#, "--tls-min-version=1.3"),
        (
            r#""tlsCiphers": ["TLS_AES_128_GCM_SHA256"]"#,
            "--tls-ciphers=TLS_AES_128_GCM_SHA256",
        ),
        (r#""workers": 3"#, "--workers=3"),
        (r#""accessLog": "json""#, "--access-log=json"),
        (r#""httpPort": 81"#, "--http-address=0.0.0.0:81"),
    ] {
        let changed = ingress_arguments(&format!("{{{setting}}}"));
        assert!(
            changed.contains(&argument.to_owned()),
            "{argument} is not in {changed:?}"
        );
        // So a run after a change has a changed DaemonSet to apply.
        assert_ne!(changed, usual);
    }
    let named = |name: &str| usual.iter().any(|argument| argument.starts_with(name));
    assert!(
        named("--tls-min-version=1.2") && named("--access-log=errors"),
        "{usual:?}"
    );
    assert!(!named("--trusted-cidrs") && !named("--tls-ciphers") && !named("--workers") && !named("--proxy-protocol"));
}

#[test]
fn the_dashboard_can_be_left_out_alone() {
    let of = |dashboard| {
        let mut spec = ClusterSpec::default();
        spec.ingress.dashboard = dashboard;
        let objects = ingress_objects(&spec, &index(&NAMES)).unwrap();
        let service = objects.iter().find(|o| o["kind"] == "Service").unwrap();
        let ports = service["spec"]["ports"].as_array().unwrap().len();
        (
            objects.iter().filter(|o| o["kind"] == "Ingress").count(),
            ports,
            objects.len(),
        )
    };
    let ((with, ports, all), (without, fewer, others)) = (of(true), of(false));
    assert_eq!((with, without, ports - fewer, all - others), (1, 0, 1, 1));
}

/// The proxy stands alone, so what both sides must agree on lies in a file: its own tests read these arguments.
#[test]
fn every_argument_that_the_ingress_proxy_may_get_is_written_down() {
    let suites = landfall_core::spec::ingress::TLS_CIPHERS
        .map(|name| format!("\"{name}\""))
        .join(",");
    let all = ingress_arguments(&format!(
        r#"{{"trustedCidrs": ["10.0.0.0/8", "192.0.2.1/32"], "proxyProtocol": true, "tlsMinVersion": "1.3", "tlsCiphers": [{suites}],
            "workers": 3, "accessLog": "off", "dashboard": false}}"#
    ));
    expect_file("../tests/fixtures/ingress-arguments.txt", &(all.join("\n") + "\n"));
}

#[test]
fn the_file_for_other_clusters_is_current() {
    expect_file("../ingress/deploy.yaml", &standalone_ingress().unwrap());
}

/// Fails unless a file of this checkout has that content; `LANDFALL_BLESS=1` writes it anew.
fn expect_file(path: &str, wanted: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("LANDFALL_BLESS").is_some() {
        std::fs::write(&path, wanted).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap();
    assert!(
        found == wanted,
        "run: LANDFALL_BLESS=1 cargo test -p landfall-manifests"
    );
}

/// The unit of a worker whose name begins so.
fn unit_text(prefix: &str) -> String {
    let cluster = cluster(DnsPolicy::Closed);
    let units = units(&ClusterSpec::default(), &cluster, &cluster.members[3]);
    units.into_iter().find(|(name, _)| name.starts_with(prefix)).unwrap().1
}

fn assert_lines(unit: &str, wanted: &[&str]) {
    for line in wanted {
        assert!(unit.lines().any(|l| l == *line), "{line} is not in:\n{unit}");
    }
}

#[test]
fn services_are_up_for_systemd_when_they_say_so() {
    for prefix in ["landfall-api-balancer", "landfall-service-route"] {
        assert_lines(&unit_text(prefix), &["Type=notify"]);
    }
}

#[test]
fn the_balancer_runs_without_rights_and_with_descriptors_for_thousands_of_connections() {
    let wanted = [
        "DynamicUser=yes",
        "ProtectSystem=strict",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
    ];
    assert_lines(&unit_text("landfall-api-balancer"), &wanted);
    assert_lines(&unit_text("landfall-api-balancer"), &["LimitNOFILE=65536"]);
}

#[test]
fn the_route_goes_with_its_service_also_when_that_was_killed() {
    let unit = unit_text("landfall-service-route");
    let line = |key: &str| {
        unit.lines()
            .find_map(|l| l.strip_prefix(key))
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(line("ExecStopPost="), format!("{} --remove", line("ExecStart=")));
    assert_lines(&unit, &["CapabilityBoundingSet=CAP_NET_ADMIN", "NoNewPrivileges=yes"]);
}

#[test]
fn containerd_is_the_last_to_be_killed_for_memory_and_writes_no_core_of_a_pod() {
    assert_lines(&unit_text("containerd"), &["OOMScoreAdjust=-999", "LimitCORE=0"]);
}
