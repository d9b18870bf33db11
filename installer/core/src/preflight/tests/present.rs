//! What was recorded on machines about their disks, their kernels and what others left, and what preflight says of it.

use super::*;
use crate::cluster_record::{ClusterRecord, tests::record};
use crate::finding::Severity;
use crate::spec::ProxyMode;

fn at<'a>(f: &'a mut NodeFacts, place: &str) -> &'a mut PlaceFacts {
    f.survey.places.get_mut(place).unwrap()
}

#[test]
fn places_that_cannot_be_written_or_run_from_are_refused() {
    let read_only = only(
        Check::NotWritable,
        found(|f| {
            let place = at(f, layout::BIN_DIR);
            place.directory = "/usr/local/bin".into();
            place.write = Tried::Fails("Read-only file system (os error 30)".into());
        }),
    );
    assert_eq!(place(&read_only), "/usr/local/bin");
    assert!(read_only.saw.contains("Read-only"), "{}", read_only.saw);
    assert!(
        read_only.next.contains("binDir: /opt/landfall/bin"),
        "{}",
        read_only.next
    );
    let hosts = only(
        Check::NotWritable,
        found(|f| f.survey.immutable = ["/etc/hosts".to_owned()].into()),
    );
    assert!(hosts.next.contains("chattr -i"), "{}", hosts.next);
    let noexec = only(
        Check::Noexec,
        found(|f| {
            let place = at(f, layout::CNI_BIN_DIR);
            place.directory = "/opt".into();
            place.device = 9;
            place.noexec = true;
        }),
    );
    assert_eq!(place(&noexec), "/opt");
    // All of /var/lib is one file system, and one finding.
    let all = found(|f| f.survey.places.values_mut().for_each(|place| place.noexec = true));
    assert!(only(Check::Noexec, all).saw.contains("/var/lib/containerd"));
    assert_eq!(
        found(|f| at(f, layout::KUBELET_DIR).noexec = true),
        vec![],
        "no program runs from there"
    );
    assert_eq!(found(|f| at(f, layout::CONFIG_DIR).write = Tried::Unknown), vec![]);
    let overlay = only(
        Check::Overlay,
        found(|f| f.survey.overlay = Tried::Fails("Invalid argument".into())),
    );
    assert!(overlay.refuses());
    assert_eq!(found(|f| f.survey.overlay = Tried::Unknown), vec![]);
}

#[test]
fn the_kubelets_own_limits_count_by_bytes_per_cent_and_inodes() {
    fn left(f: &mut NodeFacts, place: &str, percent: u64) {
        let place = at(f, place);
        place.device = 9;
        place.available_bytes = place.total_bytes / 100 * percent;
    }
    let cases: [(Change, Option<Check>); 10] = [
        (|f| left(f, layout::KUBELET_DIR, 9), Some(Check::Space)),
        (|f| left(f, layout::KUBELET_DIR, 11), Some(Check::SpaceLow)),
        (|f| left(f, layout::KUBELET_DIR, 16), None),
        (|f| left(f, layout::CONTAINERD_DIR, 14), Some(Check::Space)),
        (|f| left(f, layout::CONTAINERD_DIR, 16), Some(Check::SpaceLow)),
        (|f| left(f, layout::CONTAINERD_DIR, 21), None),
        (|f| at(f, layout::KUBELET_DIR).free_inodes = 40_000, Some(Check::Space)),
        (
            |f| at(f, layout::CONTAINERD_DIR).free_inodes = 90_000,
            Some(Check::SpaceLow),
        ),
        (|f| at(f, layout::KUBELET_DIR).inodes = 0, None),
        (|f| left(f, layout::ETCD_DIR, 1), None),
    ];
    for (number, (change, wanted)) in cases.into_iter().enumerate() {
        let found: Vec<Check> = found(change).iter().map(|f| f.check).collect();
        assert_eq!(found, wanted.into_iter().collect::<Vec<_>>(), "case {number}");
    }
}

/// Bundles for this test: 1,000 MiB of programs and one image of 1,000 MiB.
fn bundle() -> BundleIndex {
    let size = 1_000 << 20;
    let index = serde_json::json!({
        "version": 1, "recipe": "source", "architecture": "amd64", "kubernetes_version": "v1.37.2", "image_repository": "r",
        "binaries": [{ "name": "kubelet", "component": "kubernetes", "version": "1", "blob": Digest::of(b"p"),
            "digest": Digest::of(b"q"), "size_bytes": size, "roles": ["control-plane"], "place": "bin" }],
        "images": [{ "reference": "r/etcd:1", "manifest": Digest::of(b"m"), "manifest_size_bytes": 1,
            "blobs": [Digest::of(b"i")], "roles": ["control-plane"] }],
        "components": [], "packages": [],
        "blobs": [{ "digest": Digest::of(b"p"), "size_bytes": size / 4, "chunks": [] },
            { "digest": Digest::of(b"i"), "size_bytes": size, "chunks": [] }],
    });
    serde_json::from_value(index).unwrap()
}

#[test]
fn what_comes_to_an_installed_node_is_counted_as_far_as_it_lacks_it() {
    let index = bundle();
    let name: NodeName = "cp-1".parse().unwrap();
    let image = index.images().iter().find(|image| !image.blobs.is_empty()).unwrap();
    let size: u64 = image
        .blobs
        .iter()
        .map(|blob| index.blob(blob).unwrap().size_bytes)
        .sum();
    let coming = Coming {
        programs: [("/usr/local/bin/kubelet".into(), 100 << 20)].into(),
        images: image.blobs.iter().copied().collect(),
        blob_bytes: 10 << 20,
    };
    let needed = 5 * size + (110 << 20);
    let look = |free: u64| {
        let mut facts = good(1);
        facts.survey.places.values_mut().for_each(|place| {
            (place.device, place.free_bytes, place.total_bytes) = (7, free, 1 << 50);
        });
        no_room(&name, &facts, &index, &coming)
    };
    assert_eq!(look(needed), vec![]);
    let full = only(Check::BundleSpace, look(needed - 1));
    assert!(
        full.refuses() && full.saw.contains(&format!("{} MiB needed", needed >> 20)),
        "{full:?}"
    );
}

#[test]
fn what_the_bundle_brings_is_counted() {
    let index = bundle();
    let look = |change: &dyn Fn(&mut NodeFacts), owned: &BTreeMap<NodeName, Ownership>| {
        let mut seen = good(1);
        change(&mut seen);
        let name: NodeName = "cp-1".parse().unwrap();
        let facts = [(name, seen)].into();
        check(&Input {
            desired: &desired(),
            facts: &facts,
            owned,
            settings: &settings(),
            clocks: &BTreeMap::new(),
            bundle: Some(BundleFacts {
                index: &index,
                written_ms: None,
            }),
        })
    };
    let none = BTreeMap::new();
    assert_eq!(look(&|_| {}, &none), vec![]);
    // 1,000 MiB of programs, 5,000 MiB of images in both forms; 1,250 MiB while the install runs.
    let free = |mib: u64| {
        move |f: &mut NodeFacts| {
            f.survey.places.values_mut().for_each(|place| {
                place.free_bytes = mib << 20;
                place.total_bytes = 20_000 << 20;
                place.available_bytes = 19_000 << 20;
            });
        }
    };
    let full = only(Check::BundleSpace, look(&free(7_249), &none));
    assert_eq!(full.saw, "7249 MiB free, 7250 MiB needed");
    assert_eq!(look(&free(7_250), &none), vec![]);
    // 30 % free now, and none when all is there.
    let percent = |f: &mut NodeFacts| {
        f.survey
            .places
            .values_mut()
            .for_each(|p| p.available_bytes = 6_500 << 20)
    };
    let small = |f: &mut NodeFacts| {
        free(8_000)(f);
        percent(f);
    };
    let evicts = look(&small, &none);
    assert_eq!(
        evicts.iter().map(|f| f.check).collect::<Vec<_>>(),
        [Check::Space, Check::Space]
    );
    assert!(evicts[0].saw.contains("6000 MiB of the bundle"), "{}", evicts[0].saw);
    let installed = [("cp-1".parse().unwrap(), owned_entry())].into();
    assert_eq!(look(&small, &installed), vec![], "what is installed lies there already");
    let other_disk = |f: &mut NodeFacts| {
        free(2_500)(f);
        let disk = at(f, layout::CONTAINERD_DIR);
        (disk.device, disk.free_bytes) = (9, 18_000 << 20);
    };
    assert_eq!(look(&other_disk, &none), vec![], "images have a disk of their own");
}

#[test]
fn leftovers_of_other_clusters_are_named() {
    let cases: [(Change, Check, &str); 12] = [
        (
            |f| f.survey.links = [("cni0".to_owned(), "bridge".to_owned())].into(),
            Check::LinkTaken,
            "ip link delete cni0",
        ),
        (
            |f| f.survey.links = [("flannel.1".to_owned(), "vxlan".to_owned())].into(),
            Check::LinkTaken,
            "flannel.1",
        ),
        (
            |f| f.survey.links = [("flannel-wg".to_owned(), "wireguard".to_owned())].into(),
            Check::ForeignLink,
            "flannel",
        ),
        (
            |f| f.survey.links = [("kube-ipvs0".to_owned(), "dummy".to_owned())].into(),
            Check::ForeignLink,
            "ipvs",
        ),
        (
            |f| f.survey.links = [("cali1a2b".to_owned(), "veth".to_owned())].into(),
            Check::ForeignLink,
            "Calico",
        ),
        (
            |f| f.survey.links = [("cilium_host".to_owned(), "veth".to_owned())].into(),
            Check::ForeignLink,
            "Cilium",
        ),
        (
            |f| f.survey.chains = ["ip nat KUBE-SERVICES".to_owned()].into(),
            Check::ForeignChain,
            "ip nat KUBE-SERVICES",
        ),
        (
            |f| f.survey.chains = ["ip filter cali-INPUT".to_owned()].into(),
            Check::ForeignChain,
            "cali-INPUT",
        ),
        (
            |f| drop(f.units.insert("k3s-agent.service".into(), "active".into())),
            Check::ForeignCluster,
            "k3s-agent.service (active)",
        ),
        (
            |f| f.survey.enabled_units = ["rke2-server.service".to_owned()].into(),
            Check::ForeignCluster,
            "rke2-server.service (starts at the next boot)",
        ),
        (
            |f| drop(f.units.insert("snap.docker.dockerd.service".into(), "active".into())),
            Check::ForeignRuntime,
            "dockerd",
        ),
        (
            |f| {
                let path = "/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf";
                put(
                    &mut f.survey,
                    path,
                    "[Service]\nExecStart=\nExecStart=/usr/bin/kubelet\n",
                );
            },
            Check::ForeignCluster,
            "/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf",
        ),
    ];
    for (change, check, wanted) in cases {
        let finding = only(check, found(change));
        assert!(
            finding.refuses() && format!("{finding:?}").contains(wanted),
            "{wanted}: {finding:?}"
        );
    }
}

#[test]
fn what_old_clusters_leave_is_found_wherever_the_kernel_keeps_it() {
    for table in [
        "ip kube-proxy",
        "ip6 kube-proxy",
        "inet flannel-ipv4",
        "ip cni_hostport",
    ] {
        let finding = only(
            Check::ForeignChain,
            findings(|f| {
                f.survey.tables.insert(table.to_owned());
            }),
        );
        assert!(
            finding.refuses() && finding.saw == format!("table {table}"),
            "{finding:?}"
        );
    }
    let legacy = "*filter\n:INPUT ACCEPT [0:0]\n:DOCKER-USER - [0:0]\nCOMMIT\n*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-MARK-MASQ - [0:0]\nCOMMIT\n";
    let finding = only(
        Check::ForeignChain,
        findings(|f| f.survey.filters.iptables_legacy = vec![legacy.to_owned()]),
    );
    assert_eq!(finding.saw, "iptables-legacy nat KUBE-SERVICES and 1 more");
    let docker = "*filter\n:INPUT ACCEPT [0:0]\n:DOCKER-USER - [0:0]\nCOMMIT\n";
    assert_eq!(
        findings(|f| f.survey.filters.iptables_legacy = vec![docker.to_owned()]),
        vec![]
    );
    for link in ["cbr0", "ovn0", "genev_sys_6081", "vethwe-bridge", "vxlan-v6.calico"] {
        let found = findings(|f| drop(f.survey.links.insert(link.to_owned(), "veth".to_owned())));
        assert!(only(Check::ForeignLink, found).refuses(), "{link}");
    }
    for unit in [
        "kube-apiserver.service",
        "flanneld.service",
        "microshift.service",
        "etcd.service",
    ] {
        let found = findings(|f| drop(f.units.insert(unit.to_owned(), "active".to_owned())));
        let finding = only(Check::ForeignCluster, found);
        assert!(finding.refuses() && finding.saw.starts_with(unit), "{finding:?}");
    }
}

#[test]
fn what_is_landfalls_own_on_an_installed_node_is_no_leftover() {
    let name: NodeName = "cp-2".parse().unwrap();
    let mut facts: BTreeMap<NodeName, NodeFacts> =
        (1..=3).map(|n| (format!("cp-{n}").parse().unwrap(), good(n))).collect();
    let survey = &mut facts.get_mut(&name).unwrap().survey;
    survey.tables.insert("ip kube-proxy".to_owned());
    survey.filters.iptables_legacy = vec!["*nat\n:KUBE-SERVICES - [0:0]\nCOMMIT\n".to_owned()];
    assert_eq!(judge(&desired(), &facts, &[(name, owned_entry())].into()), vec![]);
}

#[test]
fn drop_ins_for_all_services_and_for_landfalls_own_are_seen() {
    fn all(f: &mut NodeFacts, dir: &str, text: &str) {
        put(&mut f.survey, &format!("{dir}/service.d/50-harden.conf"), text);
    }
    let finding = only(
        Check::ServiceDropIn,
        found(|f| all(f, "/etc/systemd/system", "[Service]\n\nNoNewPrivileges=yes\n")),
    );
    assert_eq!(
        (finding.severity, place(&finding).as_str(), finding.saw.as_str()),
        (
            Severity::Warn,
            "/etc/systemd/system/service.d/50-harden.conf",
            "NoNewPrivileges=yes"
        )
    );
    let fine: [Change; 3] = [
        // As Fedora has it; lines that were not asked for are empty.
        |f| all(f, "/usr/lib/systemd/system", "\n[Service]\n\n"),
        |f| {
            all(f, "/usr/lib/systemd/system", "[Service]\nProtectHome=yes\n");
            all(f, "/etc/systemd/system", "");
        },
        |f| {
            all(f, "/usr/lib/systemd/system", "[Service]\nProtectHome=yes\n");
            let path = "/etc/systemd/system/service.d/50-harden.conf";
            put_link(&mut f.survey, path, "/dev/null", "");
        },
    ];
    fine.into_iter().for_each(|change| assert_eq!(found(change), vec![]));
    for folder in ["landfall-api-balancer.service.d", "landfall-.service.d"] {
        let path = format!("/etc/systemd/system/{folder}/override.conf");
        let finding = only(
            Check::ForeignCluster,
            findings(|f| put(&mut f.survey, &path, "[Service]\n")),
        );
        assert!(finding.refuses() && place(&finding) == path, "{finding:?}");
    }
}

#[test]
fn an_etcd_of_something_else_may_run_on_a_worker() {
    let mut desired = desired();
    desired.inventory.nodes[1].role = Role::Worker;
    let mut facts: BTreeMap<NodeName, NodeFacts> =
        (1..=3).map(|n| (format!("cp-{n}").parse().unwrap(), good(n))).collect();
    let cp_2 = facts.get_mut(&"cp-2".parse::<NodeName>().unwrap()).unwrap();
    cp_2.units.insert("etcd.service".to_owned(), "active".to_owned());
    assert_eq!(judge(&desired, &facts, &BTreeMap::new()), vec![]);
}

#[test]
fn dedicated_disks_are_welcome_and_foreign_data_is_named() {
    let empty = found(|f| {
        for directory in leftovers::DIRECTORIES {
            f.survey
                .contents
                .insert(directory.to_owned(), vec!["lost+found".to_owned()]);
        }
    });
    assert_eq!(empty, vec![]);
    let data = only(
        Check::ForeignCluster,
        found(|f| {
            let names = ["lost+found", "member"].map(str::to_owned).to_vec();
            f.survey.contents.insert("/var/lib/etcd".into(), names);
        }),
    );
    assert!(data.saw.contains("/var/lib/etcd holds member"), "{}", data.saw);
}

#[test]
fn what_others_bring_beside_an_installed_cluster_is_a_warning() {
    let name: NodeName = "cp-2".parse().unwrap();
    let mut facts: BTreeMap<NodeName, NodeFacts> =
        (1..=3).map(|n| (format!("cp-{n}").parse().unwrap(), good(n))).collect();
    let seen = facts.get_mut(&name).unwrap();
    seen.units.insert("docker.service".into(), "active".into());
    seen.survey.links.insert("cilium_net".into(), "veth".into());
    seen.survey.chains.insert("ip filter cali-INPUT".into());
    at(seen, layout::KUBELET_DIR).available_bytes = 0;
    put(
        &mut seen.survey,
        "/etc/systemd/system/kubelet.service.d/x.conf",
        "[Service]\n",
    );
    let found = judge(&desired(), &facts, &[(name, owned_entry())].into());
    assert_eq!(found.len(), 5, "{found:#?}");
    assert!(found.iter().all(|f| f.severity == Severity::Warn), "{found:#?}");
}

#[test]
fn kernels_are_judged_by_what_is_asked_of_them() {
    let mut desired = desired();
    let mut facts: BTreeMap<NodeName, NodeFacts> = [("cp-1".parse().unwrap(), good(1))].into();
    facts.values_mut().for_each(|f| f.kernel = "5.10.0-30-amd64".into());
    let old = only(Check::KernelVersion, judge(&desired, &facts, &BTreeMap::new()));
    assert!(old.refuses() && old.next.contains("proxyMode: iptables"), "{old:?}");
    desired.spec.proxy_mode = ProxyMode::Iptables;
    assert_eq!(judge(&desired, &facts, &BTreeMap::new()), vec![]);
    let family = only(
        Check::NftablesFamilies,
        found(|f| {
            let fails = Tried::Fails("Operation not supported".into());
            f.survey.nftables_families.insert("inet".into(), fails);
        }),
    );
    assert!(family.saw.starts_with("inet: "), "{}", family.saw);
    assert_eq!(found(|f| f.survey.nftables_families.clear()), vec![]);
    let unknown = only(Check::NotDetermined, found(|f| f.kernel = "next".into()));
    assert_eq!(unknown.severity, Severity::Note);
}

#[test]
fn an_nft_that_cannot_read_kube_proxys_maps_is_refused_in_nftables_mode() {
    let name: NodeName = "cp-1".parse().unwrap();
    let judged = |mode, version: &str, owned: &BTreeMap<NodeName, Ownership>| {
        let (mut desired, mut facts) = (desired(), good(1));
        desired.spec.proxy_mode = mode;
        facts.survey.nft_version = Some(version.to_owned());
        judge(&desired, &[(name.clone(), facts)].into(), owned)
    };
    let bare = BTreeMap::new();
    let old = only(Check::NftVersion, judged(ProxyMode::Nftables, "0.9.8", &bare));
    assert!(old.refuses() && old.next.contains("proxyMode: iptables"), "{old:?}");
    assert_eq!(judged(ProxyMode::Iptables, "0.9.8", &bare), vec![]);
    for read in ["1.0.1", "1.0.6", "1.0.6.1", "1.1", "1.1.3", "2.0"] {
        assert_eq!(judged(ProxyMode::Nftables, read, &bare), vec![], "{read}");
    }
    let member = [(name.clone(), owned_entry())].into();
    let found = judged(ProxyMode::Nftables, "0.9.8", &member);
    let of_check = found.iter().find(|finding| finding.check == Check::NftVersion);
    assert_eq!(of_check.unwrap().severity, Severity::Warn);
}

#[test]
fn a_node_that_answers_late_has_no_wrong_clock() {
    let mut facts: BTreeMap<NodeName, NodeFacts> =
        (1..=3).map(|n| (format!("cp-{n}").parse().unwrap(), good(n))).collect();
    let late: NodeName = "cp-3".parse().unwrap();
    // It was looked at for three minutes, while the operator's clock went on.
    facts.get_mut(&late).unwrap().clock_ms += 180_000;
    let found = |late_here: u64| {
        let here = |name: &NodeName| if *name == late { late_here } else { 1_000_000 };
        let clocks = facts.keys().map(|name| (name.clone(), here(name))).collect();
        let found = check(&Input {
            desired: &desired(),
            facts: &facts,
            owned: &BTreeMap::new(),
            settings: &settings(),
            clocks: &clocks,
            bundle: None,
        });
        found.into_iter().map(|f| (f.check, f.saw)).collect::<Vec<_>>()
    };
    assert_eq!(found(1_180_000), vec![]);
    let wrong = found(1_000_000);
    assert_eq!(wrong[0], (Check::ClockSkew, "180 s".to_owned()), "{wrong:?}");
}

#[test]
fn clocks_are_compared_with_the_operators_and_with_the_bundle() {
    let facts: BTreeMap<NodeName, NodeFacts> = (1..=2).map(|n| (format!("cp-{n}").parse().unwrap(), good(n))).collect();
    let index = bundle();
    let look = |operator: u64, written: u64| {
        let clocks = facts.keys().map(|name| (name.clone(), operator)).collect();
        let found = check(&Input {
            desired: &desired(),
            facts: &facts,
            owned: &[
                ("cp-1".parse().unwrap(), owned_entry()),
                ("cp-2".parse().unwrap(), owned_entry()),
            ]
            .into(),
            settings: &settings(),
            clocks: &clocks,
            bundle: Some(BundleFacts {
                index: &index,
                written_ms: Some(written),
            }),
        });
        found.into_iter().map(|f| (f.check, f.saw)).collect::<Vec<_>>()
    };
    assert_eq!(look(1_000_000, 900_000), vec![]);
    assert_eq!(look(1_030_000, 1_030_000), vec![]);
    let off = look(1_795_874_400_000, 0);
    assert_eq!(off.len(), 2, "the nodes agree with each other, and are wrong");
    let both = "1970-01-01T00:16:40Z on cp-1, 2026-11-28T14:00:00Z here";
    assert_eq!(off[0], (Check::ClockOperator, both.to_owned()));
    assert_eq!(look(1_000_000, 1_030_001)[0].0, Check::ClockBundle);
}

#[test]
fn limits_and_port_ranges_are_warnings_that_name_their_source() {
    let cases: [(Change, Check, &str); 6] = [
        (
            |f| put(&mut f.survey, "/proc/sys/fs/inotify/max_user_instances", "64\n"),
            Check::InotifyLimits,
            "64 now",
        ),
        (
            |f| put(&mut f.survey, "/proc/sys/fs/nr_open", "65536\n"),
            Check::FileLimits,
            "65536 now",
        ),
        (
            |f| {
                put(
                    &mut f.survey,
                    "/etc/sysctl.d/99-x.conf",
                    "fs.inotify.max_user_watches=1000\n",
                )
            },
            Check::InotifyLimits,
            "1000 after the next boot",
        ),
        (
            |f| put(&mut f.survey, "/proc/sys/net/ipv4/ip_local_port_range", "1024 65535"),
            Check::PortRange,
            "1024 65535",
        ),
        (
            |f| put(&mut f.survey, "/proc/sys/net/ipv4/ip_local_port_range", "32000\t60999"),
            Check::PortRange,
            "32000",
        ),
        (
            |f| put(&mut f.survey, "/proc/sys/net/ipv4/ip_local_port_range", "10256 10256"),
            Check::PortRange,
            "10256",
        ),
    ];
    for (change, check, wanted) in cases {
        let finding = only(check, found(change));
        assert_eq!(finding.severity, Severity::Warn);
        assert!(finding.saw.contains(wanted), "{wanted}: {finding:?}");
    }
    let reserved = found(|f| {
        put(&mut f.survey, "/proc/sys/net/ipv4/ip_local_port_range", "30000 60999");
        put(
            &mut f.survey,
            "/proc/sys/net/ipv4/ip_local_reserved_ports",
            "30000-32700,32701-32767\n",
        );
    });
    assert_eq!(reserved, vec![]);
    let raised = found(|f| {
        put(&mut f.survey, "/proc/sys/fs/inotify/max_user_instances", "64\n");
        put(
            &mut f.survey,
            "/etc/sysctl.d/99-x.conf",
            "fs.inotify.max_user_instances=512\n",
        );
    });
    assert_eq!(raised, vec![], "the next boot raises it");
}

#[test]
fn a_distribution_that_was_not_tried_is_said() {
    fn os(f: &mut NodeFacts, text: &str) {
        put(&mut f.survey, "/etc/os-release", text);
    }
    assert_eq!(found(|f| os(f, "ID=debian\nVERSION_ID=\"12\"\n")), vec![]);
    let by_hand = found(|f| os(f, "ID=debian\nVERSION_ID=\"13\"\n"));
    assert_eq!(by_hand, vec![], "it was tried by hand");
    let cases: [(Change, &str); 3] = [
        (
            |f| os(f, "ID=ubuntu\nVERSION_ID=\"26.04\"\n"),
            "sudo-rs in the place of sudo",
        ),
        (
            |f| os(f, "ID=\"rhel\"\nVERSION_ID=\"9.6\"\n"),
            "landfall refuses it; SELinux enforces",
        ),
        (|f| os(f, "ID=arch\n"), "none of those that landfall's README lists"),
    ];
    for (change, what) in cases {
        let finding = only(Check::Distribution, found(change));
        assert_eq!(finding.severity, Severity::Note, "{what}");
        assert!(finding.what.contains(what), "{finding:?}");
        assert_eq!(place(&finding), "/etc/os-release");
    }
}

#[test]
fn what_guards_the_machine_is_said() {
    let cases: [(Change, Check, Severity); 6] = [
        (|f| f.selinux_enforcing = true, Check::Selinux, Severity::Refuse),
        (
            |f| {
                put(&mut f.survey, "/sys/fs/selinux/enforce", "0");
                put(&mut f.survey, "/etc/selinux/config", "#\nSELINUX=enforcing\n");
            },
            Check::Selinux,
            Severity::Refuse,
        ),
        (
            |f| put(&mut f.survey, "/sys/module/apparmor/parameters/enabled", "Y\n"),
            Check::Apparmor,
            Severity::Note,
        ),
        (
            |f| drop(f.units.insert("fapolicyd.service".into(), "active".into())),
            Check::Fapolicyd,
            Severity::Refuse,
        ),
        (
            |f| f.survey.enabled_units = ["fapolicyd.service".to_owned()].into(),
            Check::Fapolicyd,
            Severity::Refuse,
        ),
        (
            |f| {
                put(
                    &mut f.survey,
                    "/sys/kernel/security/lockdown",
                    "none [integrity] confidentiality",
                )
            },
            Check::Lockdown,
            Severity::Note,
        ),
    ];
    for (change, check, severity) in cases {
        let finding = only(check, found(change));
        assert_eq!(finding.severity, severity);
        if check == Check::Fapolicyd {
            for dir in ["/var/lib/landfall/", "/usr/local/bin/", "/opt/landfall/"] {
                assert!(finding.next.contains(dir), "{dir} has no rule in {}", finding.next);
            }
        }
    }
    let config_alone = found(|f| put(&mut f.survey, "/etc/selinux/config", "SELINUX=enforcing\n"));
    assert_eq!(config_alone, vec![], "the kernel has no SELinux");
}

/// A container of the lab: Debian 12 on a shared kernel without modules, with the host's swap, disk and command line in sight.
#[test]
fn a_healthy_container_of_the_lab_is_not_refused() {
    let mut desired = desired();
    desired.spec.profile = Profile::Lab;
    let mut seen = good(1);
    seen.kernel = "6.18.5".into();
    seen.cgroup_version = 1;
    seen.swaps = vec!["/dev/vda2".into()];
    seen.survey.modules.clear();
    seen.survey.overlay = Tried::Unknown;
    seen.survey.nftables_families.clear();
    seen.survey.places.values_mut().for_each(|place| {
        place.available_bytes = place.total_bytes / 100;
        place.free_bytes = place.total_bytes / 100;
        place.inodes = 0;
        place.write = Tried::Works;
    });
    put(
        &mut seen.survey,
        "/proc/cmdline",
        "console=ttyS0 module_blacklist=vxlan",
    );
    put(&mut seen.survey, "/proc/sys/kernel/modules_disabled", "1");
    let facts = [("cp-1".parse().unwrap(), seen)].into();
    assert_eq!(judge(&desired, &facts, &BTreeMap::new()), vec![]);
}

fn name_dns_server(facts: &mut NodeFacts, server: &str, said: Option<&str>) {
    let server: IpAddr = server.parse().unwrap();
    facts.dns_servers.push(server);
    facts.dns_answers.insert(server, said.map(str::to_owned));
}

/// Returns what is found on two nodes with these changes.
fn found_on_two(
    change: impl FnOnce(&mut NodeFacts, &mut NodeFacts),
    owned: &BTreeMap<NodeName, Ownership>,
) -> Vec<Finding> {
    let (mut first, mut second) = (good(1), good(2));
    change(&mut first, &mut second);
    let mut desired = desired();
    desired.inventory.nodes.truncate(2);
    let facts = [("cp-1".parse().unwrap(), first), ("cp-2".parse().unwrap(), second)].into();
    judge(&desired, &facts, owned)
}

/// The warning of two nodes whose facts are changed so: its nodes and what was seen.
fn closed_dns(change: impl FnOnce(&mut NodeFacts, &mut NodeFacts)) -> (usize, String) {
    let [finding] = found_on_two(change, &BTreeMap::new()).try_into().unwrap();
    assert_eq!((finding.check, finding.severity), (Check::DnsServers, Severity::Warn));
    assert!(finding.next.contains("upstreamDns") && finding.next.contains("stubZones"));
    (finding.nodes.len(), finding.saw)
}

#[test]
fn whatever_closes_dns_for_all_is_one_warning_with_its_reason() {
    let one_names_none = closed_dns(|first, _| name_dns_server(first, "192.0.2.1", Some("NOERROR")));
    assert_eq!(one_names_none, (1, "cp-2: it names no server".to_owned()));
    let unusable = closed_dns(|first, second| {
        name_dns_server(first, "192.0.2.1", Some("NOERROR"));
        name_dns_server(second, "192.0.2.1", None);
        name_dns_server(second, "127.0.0.1", Some("NOERROR"));
    });
    let saw = "cp-2: 192.0.2.1 did not answer within 2 s, 127.0.0.1 is the node's own, which pods cannot ask";
    assert_eq!(unusable, (1, saw.to_owned()));
    let crossed = closed_dns(|first, second| {
        name_dns_server(first, "192.0.2.1", Some("NOERROR"));
        name_dns_server(first, "192.0.2.2", None);
        name_dns_server(second, "192.0.2.1", None);
        name_dns_server(second, "192.0.2.2", Some("NOERROR"));
    });
    let saw = "192.0.2.1 answers cp-1 and not cp-2; 192.0.2.2 answers cp-2 and not cp-1";
    assert_eq!(crossed, (2, saw.to_owned()));
}

#[test]
fn dns_that_is_forwarded_decided_or_not_known_is_no_finding() {
    let none = BTreeMap::new();
    let works = |first: &mut NodeFacts, second: &mut NodeFacts| {
        name_dns_server(first, "192.0.2.1", Some("REFUSED"));
        name_dns_server(first, "192.0.2.2", None);
        name_dns_server(second, "192.0.2.1", Some("NOERROR"));
    };
    assert_eq!(found_on_two(works, &none), vec![]);
    assert_eq!(found_on_two(|_, _| {}, &none), vec![], "an air gap may have no server");
    let not_asked = |first: &mut NodeFacts, _: &mut NodeFacts| first.dns_servers.push([192, 0, 2, 1].into());
    assert_eq!(found_on_two(not_asked, &none), vec![]);
    let silent = |first: &mut NodeFacts, _: &mut NodeFacts| name_dns_server(first, "192.0.2.1", None);
    let mut recorded = record(1, 1, 0);
    let is_warned = |record: &ClusterRecord| {
        let own = Ownership {
            records: vec![record.clone()],
            ..owned_entry()
        };
        let found = found_on_two(silent, &[("cp-1".parse().unwrap(), own)].into());
        found.iter().any(|finding| finding.check == Check::DnsServers)
    };
    for servers in [vec![], vec![[192, 0, 2, 9].into()]] {
        recorded.kept.upstream_dns = Some(servers);
        assert!(!is_warned(&recorded), "an earlier run has decided");
    }
    recorded.kept.upstream_dns_named = true;
    assert!(is_warned(&recorded), "the spec named servers and does not any more");
}
