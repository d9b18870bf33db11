use super::*;
use landfall_core::bundle_index::{Image, NODE_ARCHITECTURE, OCI_MANIFEST, Variant};
use landfall_core::layout;
use landfall_core::name::Digest;
use landfall_core::spec::{Backend, BinDir, ClusterSpec, PodNetwork, Profile};
use serde_json::json;

pub(crate) const NAMES: [&str; 11] = [
    "kube-apiserver:v1.37.2",
    "kube-controller-manager:v1.37.2",
    "kube-scheduler:v1.37.2",
    "kube-proxy:v1.37.2",
    "etcd:3.7.3",
    "pause:3.10.2",
    "coredns:v1.14.6",
    "flannel:v0.28.4",
    "nginx:1.22.1",
    "landfall-ingress:0.1.0",
    "landfall-probe:0.1.0",
];

pub(crate) fn index(names: &[&str]) -> BundleIndex {
    let image = |name: &&str| Image {
        reference: format!("registry.landfall.internal/{name}").parse().unwrap(),
        manifest: Digest::of(name.as_bytes()),
        media_type: OCI_MANIFEST.to_owned(),
        manifest_size_bytes: 1,
        blobs: vec![],
        roles: Default::default(),
    };
    let variant = Variant {
        architecture: NODE_ARCHITECTURE.to_owned(),
        binaries: vec![],
        images: names.iter().map(image).collect(),
    };
    BundleIndex::new("source", "v1.37.2", "registry.landfall.internal", variant)
}

pub(crate) fn cluster(dns: DnsPolicy) -> ClusterLayout {
    let member = |n: u8, control_plane| MemberLayout {
        name: format!("node-{n}").parse().unwrap(),
        control_plane,
        founds: n == 1,
        schedulable: !control_plane,
        address: [10, 90, 0, n].into(),
        interface: "eth0".into(),
    };
    let members = vec![
        member(1, true),
        member(2, true),
        member(3, true),
        member(4, false),
        member(5, false),
    ];
    ClusterLayout {
        members,
        dns,
        pod_mtu: 1450,
    }
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
    assert!(forwarded.contains("forward . 192.0.2.1 {") && !forwarded.contains("NXDOMAIN"));
}

#[test]
fn zones_with_servers_of_their_own_have_blocks_of_their_own() {
    let server = |text: &str| text.parse().unwrap();
    let spec = ClusterSpec {
        stub_zones: [
            (
                "corp.test".to_owned(),
                vec![server("10.0.0.53"), server("10.0.0.54:5353")],
            ),
            ("10.in-addr.arpa".to_owned(), vec![server("10.0.0.53")]),
        ]
        .into(),
        ..ClusterSpec::default()
    };
    let objects = dns_objects(&spec, &index(&NAMES), &cluster(DnsPolicy::Closed)).unwrap();
    let corefile = objects.iter().find(|o| o["kind"] == "ConfigMap").unwrap()["data"]["Corefile"].clone();
    let corefile = corefile.as_str().unwrap();
    for block in [
        "\ncorp.test:53 {\n    errors\n    forward corp.test 10.0.0.53 10.0.0.54:5353 {\n        prefer_udp\n    }\n    cache 30\n}\n",
        "\n10.in-addr.arpa:53 {\n    errors\n    forward 10.in-addr.arpa 10.0.0.53 {\n",
        "rcode NXDOMAIN",
    ] {
        assert!(corefile.contains(block), "{block} is not in\n{corefile}");
    }
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
            flannel_objects(&spec, &index(&NAMES), &cluster(DnsPolicy::Closed)).unwrap(),
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

/// Kubernetes adds both taints with 300 s of its own where a pod does not name them.
#[test]
fn coredns_leaves_a_node_that_is_gone_within_half_a_minute() {
    let objects = dns_objects(&ClusterSpec::default(), &index(&NAMES), &cluster(DnsPolicy::Closed)).unwrap();
    let deployment = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
    let tolerations = deployment["spec"]["template"]["spec"]["tolerations"]
        .as_array()
        .unwrap();
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let toleration = tolerations.iter().find(|toleration| toleration["key"] == key).unwrap();
        assert_eq!(
            (&toleration["effect"], &toleration["tolerationSeconds"]),
            (&"NoExecute".into(), &30.into())
        );
    }
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
}

#[test]
fn every_node_keeps_its_settings_and_a_route_to_services() {
    let cluster = cluster(DnsPolicy::Closed);
    let settings = |n: usize| {
        let units = units(&ClusterSpec::default(), &cluster, &cluster.members[n]);
        units
            .into_iter()
            .find(|(name, _)| name == "landfall-node-settings.service")
            .unwrap()
            .1
    };
    let start = |unit: &str| unit.lines().find(|l| l.starts_with("ExecStart=")).unwrap().to_owned();
    for (n, address) in [(0, "10.90.0.1"), (4, "10.90.0.5")] {
        let options = format!(" --address {address} --service-cidr 10.96.0.0/12 --interface eth0");
        assert!(start(&settings(n)).ends_with(&options), "{}", settings(n));
    }
    let order = settings(0);
    let after = order.lines().find_map(|l| l.strip_prefix("After=")).unwrap();
    for unit in [
        "systemd-sysctl.service",
        "network.target",
        "nftables.service",
        "firewalld.service",
    ] {
        assert!(after.split(' ').any(|word| word == unit), "{unit}: {after}");
    }
    assert!(!after.contains("network-online"), "some machines never are");
    assert_lines(&order, &["Before=kubelet.service"]);
}

#[test]
fn a_proxy_for_all_units_reaches_none_of_ours() {
    let line = "UnsetEnvironment=HTTP_PROXY HTTPS_PROXY NO_PROXY ALL_PROXY http_proxy https_proxy no_proxy all_proxy";
    let cluster = cluster(DnsPolicy::Closed);
    for (name, unit) in units(&ClusterSpec::default(), &cluster, &cluster.members[0]) {
        let service = unit
            .split_once("[Service]")
            .and_then(|(_, rest)| rest.split_once("[Install]"));
        assert!(service.unwrap().0.lines().any(|l| l == line), "{name}:\n{unit}");
    }
}

#[test]
fn the_kubelet_starts_after_the_settings_and_keeps_the_nodes_name() {
    let unit = unit_text("kubelet");
    assert_lines(&unit, &["After=containerd.service landfall-node-settings.service"]);
    assert!(
        unit.contains("$KUBELET_KUBEADM_ARGS --hostname-override=node-4\n"),
        "{unit}"
    );
}

#[test]
fn daemons_wait_for_their_disks_and_a_control_planes_kubelet_for_etcds_data() {
    assert_lines(&unit_text("containerd"), &["RequiresMountsFor=/var/lib/containerd"]);
    let cluster = cluster(DnsPolicy::Closed);
    let kubelet = |n: usize| {
        let mut units = units(&ClusterSpec::default(), &cluster, &cluster.members[n]);
        units.pop().unwrap().1
    };
    let (control_plane, worker) = (kubelet(0), kubelet(3));
    assert_lines(
        &control_plane,
        &[
            "RequiresMountsFor=/var/lib/kubelet /var/lib/containerd /var/lib/etcd",
            "ExecStartPre=/usr/local/bin/landfall agent check-etcd-data",
        ],
    );
    assert_lines(&worker, &["RequiresMountsFor=/var/lib/kubelet /var/lib/containerd"]);
    assert!(!worker.contains("etcd"), "{worker}");
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

/// The host may be renamed later: the kubelet is told its name whatever the host's is.
#[test]
fn every_kubelet_is_told_the_name_of_its_node() {
    let spec = ClusterSpec::default();
    let cluster = cluster(DnsPolicy::Closed);
    for node in &cluster.members {
        let init = kubeadm_init(&spec, &index(&NAMES), &cluster, node).unwrap();
        for text in [
            init,
            kubelet_join(&spec, node).unwrap(),
            control_plane_join(&spec, node).unwrap(),
        ] {
            let first = text.split("---\n").find(|part| !part.trim().is_empty()).unwrap();
            let config: serde_json::Value = serde_yaml::from_str(first).unwrap();
            let arguments = config["nodeRegistration"]["kubeletExtraArgs"].as_array().unwrap();
            let named = arguments.iter().find(|a| a["name"] == "hostname-override").unwrap();
            assert_eq!(named["value"], node.name.as_str(), "{text}");
        }
    }
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
    let cluster = ClusterLayout {
        pod_mtu: 8951,
        ..cluster(DnsPolicy::Closed)
    };
    let text = cni_template(&cluster);
    let start = text.find("{{range").unwrap();
    let end = text.find("{{end}}]\n").unwrap() + "{{end}}".len();
    let filled = format!("{}[{{\"subnet\": \"10.244.1.0/24\"}}]{}", &text[..start], &text[end..]);
    let parsed: serde_json::Value = serde_json::from_str(&filled).unwrap();
    assert_eq!(parsed["plugins"][0]["ipam"]["ranges"][0][0]["subnet"], "10.244.1.0/24");
    assert_eq!(parsed["plugins"][0]["mtu"], 8951);
}

#[test]
fn flannel_is_told_backend_port_and_mtu_and_its_pods_are_replaced_when_they_change() {
    let with = |network: PodNetwork, pod_mtu| {
        let spec = ClusterSpec {
            pod_network: network,
            ..ClusterSpec::default()
        };
        let cluster = ClusterLayout {
            pod_mtu,
            ..cluster(DnsPolicy::Closed)
        };
        let objects = flannel_objects(&spec, &index(&NAMES), &cluster).unwrap();
        let config = objects.iter().find(|o| o["kind"] == "ConfigMap").unwrap();
        let text = config["data"]["net-conf.json"].as_str().unwrap();
        let parsed: serde_json::Value = serde_json::from_str(text).unwrap();
        (parsed["Backend"].clone(), template_digest(&objects, "DaemonSet"))
    };
    let (usual, digest) = with(PodNetwork::default(), 1450);
    assert_eq!(usual, json!({ "Type": "vxlan", "Port": 8472, "MTU": 1500 }));
    let other = PodNetwork {
        vxlan_port: 4789,
        ..PodNetwork::default()
    };
    let (jumbo, other_digest) = with(other, 8951);
    assert_eq!(jumbo, json!({ "Type": "vxlan", "Port": 4789, "MTU": 9001 }));
    let routes = PodNetwork {
        backend: Backend::HostGw,
        ..PodNetwork::default()
    };
    assert_eq!(with(routes, 1500).0, json!({ "Type": "host-gw" }));
    assert_ne!(digest, other_digest);
}

#[test]
fn the_settings_service_keeps_checksums_from_the_card_where_the_spec_says_so() {
    let unit = |network: PodNetwork| {
        let spec = ClusterSpec {
            pod_network: network,
            ..ClusterSpec::default()
        };
        let cluster = cluster(DnsPolicy::Closed);
        let units = units(&spec, &cluster, &cluster.members[4]);
        units
            .into_iter()
            .find(|(name, _)| name == "landfall-node-settings.service")
            .unwrap()
            .1
    };
    assert!(!unit(PodNetwork::default()).contains("flannel.1"));
    let off = unit(PodNetwork {
        checksum_offload: false,
        ..PodNetwork::default()
    });
    let command = "agent node-settings --address 10.90.0.5 --service-cidr 10.96.0.0/12 --interface eth0 --no-checksum-offload flannel.1";
    assert!(
        off.contains(&format!("ExecStart=/usr/local/bin/landfall {command}\n")),
        "{off}"
    );
    assert!(
        off.contains(&format!("ExecStopPost=/usr/local/bin/landfall {command} --remove\n")),
        "{off}"
    );
}

#[test]
fn nothing_runs_from_usr_local_when_programs_are_elsewhere() {
    let spec = ClusterSpec {
        bin_dir: BinDir::Opt,
        ..ClusterSpec::default()
    };
    let cluster = cluster(DnsPolicy::Closed);
    let units = cluster.members.iter().flat_map(|member| units(&spec, &cluster, member));
    let mut texts: Vec<String> = units.map(|(_, text)| text).collect();
    texts.push(containerd_config(&spec, &index(&NAMES)).unwrap());
    for text in texts {
        assert!(
            text.contains("/opt/landfall/bin/") && !text.contains("/usr/local/bin"),
            "{text}"
        );
    }
}

/// Ubuntu's AppArmor profile of /usr/sbin/runc keeps its pods from ending (containerd#10542).
#[test]
fn containerd_runs_the_runc_that_landfall_brings() {
    let config = containerd_config(&ClusterSpec::default(), &index(&NAMES)).unwrap();
    assert!(config.contains("BinaryName = '/usr/local/bin/runc'\n"), "{config}");
}

#[test]
fn a_new_ingress_pod_fits_beside_the_old_one() {
    let objects = ingress_objects(&ClusterSpec::default(), &index(&NAMES), &cluster(DnsPolicy::Closed)).unwrap();
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
    let objects = ingress_objects(&spec, &index(&NAMES), &cluster(DnsPolicy::Closed)).unwrap();
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
        (r#""dashboardAuth": "none""#, "--dashboard-auth=none"),
        (r#""secrets": "cluster""#, "--secrets=cluster"),
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

/// Objects of the ingress proxy, by kind and name.
fn ingress_names(ingress: &str) -> Vec<String> {
    let spec = ClusterSpec {
        ingress: serde_json::from_str(ingress).unwrap(),
        ..ClusterSpec::default()
    };
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let objects = ingress_objects(&spec, &index(&NAMES), &cluster(DnsPolicy::Closed)).unwrap();
    let names = objects
        .iter()
        .map(|o| format!("{} {}", text(&o["kind"]), text(&o["metadata"]["name"])));
    names.collect()
}

#[test]
fn the_dashboard_and_its_password_can_be_left_out_alone() {
    let all = ingress_names("{}");
    let missing = |ingress: &str| -> Vec<String> {
        let there = ingress_names(ingress);
        all.iter().filter(|name| !there.contains(name)).cloned().collect()
    };
    let [secret, service, rule] = ["Secret", "Service", "Ingress"].map(|kind| format!("{kind} landfall-dashboard"));
    assert_eq!(missing(r#"{"dashboard": false}"#), [secret.clone(), service, rule]);
    assert_eq!(missing(r#"{"dashboardAuth": "none"}"#), [secret.as_str()]);
    // Pods that mount the Secret come after it.
    let at = |name: &str| all.iter().position(|object| object == name).unwrap();
    assert!(at(&secret) < at("DaemonSet landfall-ingress"));
    assert!(!standalone_ingress().unwrap().contains("kind: Secret\n"));
}

/// Whoever comes by a NodePort or a Service's address has a node's address, and nodes may read the metrics.
#[test]
fn the_dashboards_port_is_behind_no_address_that_hides_who_comes() {
    let objects = ingress_objects(&ClusterSpec::default(), &index(&NAMES), &cluster(DnsPolicy::Closed)).unwrap();
    let services: Vec<_> = objects.iter().filter(|o| o["kind"] == "Service").collect();
    for service in &services {
        let ports = service["spec"]["ports"].as_array().unwrap();
        let dashboard = ports.iter().any(|port| port["targetPort"] == 8080);
        assert_eq!(dashboard, service["spec"]["clusterIP"] == "None", "{service}");
    }
    assert_eq!(services.len(), 2);
}

#[test]
fn secrets_can_be_read_when_the_spec_or_the_command_says_so() {
    let role = "landfall-ingress-secrets";
    let everywhere = format!("ClusterRoleBinding {role}");
    let usual = ingress_names("{}");
    assert!(usual.contains(&format!("ClusterRole {role}")) && !usual.contains(&everywhere));
    assert!(ingress_names(r#"{"secrets": "cluster"}"#).contains(&everywhere));
    let all = ingress_allow_objects(&Allowed::Everywhere);
    assert_eq!(all[1]["kind"], "ClusterRoleBinding");
    let one = ingress_allow_objects(&Allowed::Namespace("shop".to_owned()));
    assert_eq!(
        (&one[1]["metadata"]["namespace"], &one[1]["roleRef"]["name"]),
        (&"shop".into(), &role.into())
    );
    let named = ingress_allow_objects(&Allowed::Named {
        namespace: "shop".to_owned(),
        secrets: vec!["tls".to_owned()],
        config_maps: vec![],
    });
    assert_eq!(named[0]["rules"].as_array().unwrap().len(), 1);
    assert_eq!(named[0]["rules"][0]["resourceNames"][0], "tls");
    // Another role than that of the whole namespace: what a binding refers to cannot be changed.
    assert_ne!(named[1]["metadata"]["name"], one[1]["metadata"]["name"]);
}

#[test]
fn the_sample_has_tls_by_a_certificate_of_its_own_that_the_proxy_may_read() {
    let objects = sample_objects(&ClusterSpec::default(), &index(&NAMES), &cluster(DnsPolicy::Closed)).unwrap();
    let of = |kind: &str| objects.iter().find(|o| o["kind"] == kind).unwrap();
    let tls = &of("Ingress")["spec"]["tls"][0];
    assert_eq!(
        (&tls["hosts"][0], &tls["secretName"]),
        (&"test.nginx.com".into(), &"test.nginx.com-tls".into())
    );
    assert_eq!(of("Secret")["metadata"]["name"], tls["secretName"]);
    assert_eq!(of("Role")["rules"][0]["resourceNames"][0], tls["secretName"]);
    assert!(landfall_core::plan::objects::is_generated(of("Secret")));
}

/// The proxy stands alone, so what both sides must agree on lies in a file: its own tests read these arguments.
#[test]
fn every_argument_that_the_ingress_proxy_may_get_is_written_down() {
    let suites = landfall_core::spec::ingress::TLS_CIPHERS
        .map(|name| format!("\"{name}\""))
        .join(",");
    let all = ingress_arguments(&format!(
        r#"{{"trustedCidrs": ["10.0.0.0/8", "192.0.2.1/32"], "proxyProtocol": true, "tlsMinVersion": "1.3", "tlsCiphers": [{suites}],
            "workers": 3, "accessLog": "off", "dashboard": false, "dashboardAuth": "none", "secrets": "cluster"}}"#
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
    for prefix in ["landfall-api-balancer", "landfall-node-settings"] {
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
    let unit = unit_text("landfall-node-settings");
    let line = |key: &str| {
        unit.lines()
            .find_map(|l| l.strip_prefix(key))
            .unwrap_or_default()
            .to_owned()
    };
    assert_eq!(line("ExecStopPost="), format!("{} --remove", line("ExecStart=")));
    assert_lines(
        &unit,
        &[
            "CapabilityBoundingSet=CAP_NET_ADMIN CAP_SYS_MODULE",
            "NoNewPrivileges=yes",
        ],
    );
}

#[test]
fn the_settings_service_may_call_iptables_and_ufw_where_it_has_rules_to_keep() {
    let spec = ClusterSpec {
        firewall: landfall_core::spec::Firewall::Open,
        ..ClusterSpec::default()
    };
    let cluster = cluster(DnsPolicy::Closed);
    let units = units(&spec, &cluster, &cluster.members[0]);
    let (_, unit) = units
        .iter()
        .find(|(name, _)| name == "landfall-node-settings.service")
        .unwrap();
    assert_lines(
        unit,
        &[
            "CapabilityBoundingSet=CAP_NET_ADMIN CAP_SYS_MODULE CAP_NET_RAW",
            "ProtectSystem=strict",
            "ReadWritePaths=/run -/etc/ufw",
            "PrivateTmp=yes",
        ],
    );
}

#[test]
fn containerd_is_the_last_to_be_killed_for_memory_and_writes_no_core_of_a_pod() {
    assert_lines(&unit_text("containerd"), &["OOMScoreAdjust=-999", "LimitCORE=0"]);
}

#[test]
fn founders_start_etcd_with_the_whole_list_and_a_single_one_with_kubeadms_own() {
    let (spec, index) = (ClusterSpec::default(), index(&NAMES));
    let mut layout = cluster(DnsPolicy::Closed);
    let alone = kubeadm_init(&spec, &index, &layout, &layout.members[0]).unwrap();
    assert_eq!(etcd_patch(&spec, &layout, 7), None);
    assert!(
        !alone.contains("patches") && alone.contains("kubernetesAPICall: 4m0s"),
        "{alone}"
    );
    layout.members.iter_mut().for_each(|m| m.founds = m.control_plane);
    let together = kubeadm_init(&spec, &index, &layout, &layout.members[1]).unwrap();
    assert!(
        together.contains("patches:\n  directory: /etc/landfall/kubeadm-patches\n"),
        "{together}"
    );
    assert!(together.contains("advertiseAddress: 10.90.0.2"));
    assert!(
        !together.contains("initial-cluster"),
        "kubeadm-config is handed to later joins: {together}"
    );
    let patch: serde_json::Value = serde_json::from_str(&etcd_patch(&spec, &layout, 7).unwrap()).unwrap();
    let list =
        "--initial-cluster=node-1=https://10.90.0.1:2380,node-2=https://10.90.0.2:2380,node-3=https://10.90.0.3:2380";
    let add = |flag: &str| serde_json::json!({ "op": "add", "path": "/spec/containers/0/command/-", "value": flag });
    let token = format!("--initial-cluster-token={}-7", spec.name);
    assert_eq!(patch, serde_json::json!([add(list), add(&token)]));
}
