//! What was recorded on machines about their next boot, and what preflight says of it.

use super::*;
use crate::finding::Severity;
use crate::spec::ProxyMode;

#[test]
fn swap_that_comes_back_is_found_with_file_and_line() {
    let cases: [(&str, Change); 9] = [
        ("/etc/fstab line 2", |f| {
            put(
                &mut f.survey,
                "/etc/fstab",
                "UUID=a / ext4 defaults 0 1\n/swap.img none swap sw 0 0\n",
            );
        }),
        ("/etc/fstab line 1", |f| {
            put(&mut f.survey, "/etc/fstab", "UUID=b\tnone\tswap")
        }),
        ("/etc/systemd/system/swapfile.swap", |f| {
            let link = "/etc/systemd/system/swap.target.wants/swapfile.swap";
            put_link(
                &mut f.survey,
                link,
                "/etc/systemd/system/swapfile.swap",
                "\n\nWhat=/swapfile\n",
            );
        }),
        ("/run/systemd/generator.late/dev-sda3.swap", |f| {
            let link = "/run/systemd/generator.late/swap.target.wants/dev-sda3.swap";
            put_link(
                &mut f.survey,
                link,
                "/run/systemd/generator.late/dev-sda3.swap",
                "What=/dev/sda3\n",
            );
        }),
        ("/usr/lib/systemd/zram-generator.conf line 2", |f| {
            f.paths
                .insert("/usr/lib/systemd/system-generators/zram-generator".into());
            put(
                &mut f.survey,
                "/usr/lib/systemd/zram-generator.conf",
                "# Fedora's\n[zram0]\nzram-size = min(ram, 8192)\n",
            );
        }),
        ("/etc/systemd/zram-generator.conf.d/x.conf line 1", |f| {
            f.paths
                .insert("/usr/lib/systemd/system-generators/zram-generator".into());
            put(&mut f.survey, "/etc/systemd/zram-generator.conf.d/x.conf", "[zram1]\n");
        }),
        ("", |f| {
            f.survey.enabled_units = ["dphys-swapfile.service".to_owned()].into()
        }),
        ("", |f| f.survey.enabled_units = ["zramswap.service".to_owned()].into()),
        ("", |f| f.swaps = vec!["/dev/zram0".into()]),
    ];
    for (wanted, change) in cases {
        let finding = only(Check::Swap, found(change));
        assert_eq!(place(&finding), wanted);
        assert!(finding.refuses());
    }
    let finding = only(
        Check::Swap,
        found(|f| put(&mut f.survey, "/etc/fstab", "/swap.img none swap sw 0 0\n")),
    );
    assert!(finding.what.contains("after the next boot") && finding.saw == "/swap.img none swap sw 0 0");
}

#[test]
fn settings_of_zram_are_those_of_all_files() {
    let with = |files: &'static [(&'static str, &'static str)]| {
        findings(|f| {
            f.paths
                .insert("/usr/lib/systemd/system-generators/zram-generator".into());
            f.memory_mib = 4096;
            for (path, text) in files {
                put(&mut f.survey, path, text);
            }
        })
    };
    const VENDOR: (&str, &str) = (
        "/usr/lib/systemd/zram-generator.conf",
        "[zram0]\nzram-size = min(ram, 8192)\n",
    );
    let off: [&[(&str, &str)]; 7] = [
        &[
            VENDOR,
            ("/etc/systemd/zram-generator.conf.d/off.conf", "[zram0]\nzram-size=0\n"),
        ],
        &[
            VENDOR,
            ("/etc/systemd/zram-generator.conf.d/tmp.conf", "[zram0]\nfs-type=ext4\n"),
        ],
        &[VENDOR, ("/proc/cmdline", "systemd.zram quiet systemd.zram=0")],
        &[VENDOR, ("/etc/systemd/zram-generator.conf", "")],
        &[
            ("/run/systemd/zram-generator.conf", ""),
            ("/etc/systemd/zram-generator.conf", "[zram0]\n"),
        ],
        &[("/etc/systemd/zram-generator.conf", "[zram]\n[zramx]\n")],
        &[(
            "/etc/systemd/zram-generator.conf",
            "[zram0]\nhost-memory-limit = 2048\n",
        )],
    ];
    for files in off {
        assert_eq!(with(files), vec![], "{files:?}");
    }
    let on: [(&[(&str, &str)], &str); 4] = [
        (
            &[(
                "/etc/systemd/zram-generator.conf",
                "[zram0]\nhost-memory-limit = 8192\n",
            )],
            "/etc/systemd/zram-generator.conf line 1",
        ),
        (
            &[
                ("/usr/lib/systemd/zram-generator.conf", "[zram0]\nzram-size=0\n"),
                (
                    "/etc/systemd/zram-generator.conf.d/on.conf",
                    "\n[zram0]\nzram-size=ram\n",
                ),
            ],
            "/etc/systemd/zram-generator.conf.d/on.conf line 2",
        ),
        (
            &[
                VENDOR,
                ("/etc/systemd/zram-generator.conf.d/off.conf", "[zram1]\nzram-size=0\n"),
            ],
            "/usr/lib/systemd/zram-generator.conf line 1",
        ),
        (&[("/proc/cmdline", "systemd.zram=0 systemd.zram")], "/proc/cmdline"),
    ];
    for (files, wanted) in on {
        assert_eq!(place(&only(Check::Swap, with(files))), wanted, "{files:?}");
    }
}

/// A swap partition of a GPT as udev records it: nothing turns it on now.
fn gpt_swap(f: &mut NodeFacts) {
    let text = "N:sda3\nE:ID_PART_ENTRY_TYPE=0657fd6d-a4ab-43c4-84e5-0933c84b4f4f\n";
    put(&mut f.survey, "/run/udev/data/b8:3", text);
    let root = "N:sda2\nE:ID_PART_ENTRY_TYPE=4f68bce3-e8cd-4db1-96e7-fbcaf984b709\n";
    put(&mut f.survey, "/run/udev/data/b8:2", root);
}

#[test]
fn a_swap_partition_that_no_unit_stands_for_is_a_warning() {
    // The line of fstab that stood for it at the last boot was taken out since.
    let stale: Change = |f| {
        gpt_swap(f);
        let unit = "/run/systemd/generator/dev-sda3.swap";
        put(&mut f.survey, unit, "SourcePath=/etc/fstab\nWhat=/dev/sda3\n");
    };
    for change in [gpt_swap as Change, stale] {
        let finding = only(Check::Swap, found(change));
        assert_eq!((finding.severity, finding.saw.as_str()), (Severity::Warn, "/dev/sda3"));
        assert!(finding.next.contains("systemctl mask dev-sda3.swap"), "{finding:?}");
    }
    let generated = found(|f| {
        gpt_swap(f);
        let unit = "/run/systemd/generator.late/dev-sda3.swap";
        put(&mut f.survey, unit, "What=/dev/sda3\n");
        let link = "/run/systemd/generator.late/swap.target.wants/dev-sda3.swap";
        put_link(&mut f.survey, link, unit, "What=/dev/sda3\n");
    });
    assert!(only(Check::Swap, generated).refuses(), "its unit is found, once");
    let fine: [Change; 3] = [
        |f| {
            gpt_swap(f);
            put(&mut f.survey, "/proc/cmdline", "ro systemd.gpt_auto=no");
        },
        |f| {
            gpt_swap(f);
            put_link(&mut f.survey, "/etc/systemd/system/dev-sda3.swap", "/dev/null", "");
        },
        |f| {
            gpt_swap(f);
            let text = f.survey.files.get_mut("/run/udev/data/b8:3").unwrap();
            text.text.push_str("E:ID_PART_ENTRY_FLAGS=0x8000000000000000\n");
        },
    ];
    for change in fine {
        assert_eq!(found(change), vec![]);
    }
}

#[test]
fn swap_that_comes_back_by_other_ways_is_found() {
    let azure: Change = |f| {
        let text = "\nResourceDisk.Format=y\n\nResourceDisk.EnableSwap=y\n";
        put(&mut f.survey, "/etc/waagent.conf", text);
        f.survey.enabled_units = ["walinuxagent.service".to_owned()].into();
    };
    let option: Change = |f| {
        f.systemd = Some(254);
        put(&mut f.survey, "/proc/cmdline", "ro systemd.swap-extra=/dev/sdb2");
    };
    let script: Change = |f| {
        put(&mut f.survey, "/etc/rc.local", "\n\nswapon /swap.img\n");
        f.units.insert("rc-local.service".to_owned(), "active".to_owned());
    };
    for (change, wanted) in [
        (azure, "/etc/waagent.conf line 4"),
        (option, "/proc/cmdline"),
        (script, "/etc/rc.local line 3"),
    ] {
        let finding = only(Check::Swap, found(change));
        assert!(finding.refuses() && place(&finding) == wanted, "{finding:?}");
    }
    for unit in ["systemd-swap.service", "zram-swap.service", "zramd.service"] {
        let found = findings(|f| f.survey.enabled_units = [unit.to_owned()].into());
        assert!(only(Check::Swap, found).refuses(), "{unit}");
    }
    let not_executable = found(|f| put(&mut f.survey, "/etc/rc.local", "/sbin/swapon -a\n"));
    assert_eq!(only(Check::Swap, not_executable).severity, Severity::Warn);
    let fine: [Change; 5] = [
        // The agent does not run; it formats no disk, and so makes no swap.
        |f| {
            let text = "ResourceDisk.Format=y\nResourceDisk.EnableSwap=y\n";
            put(&mut f.survey, "/etc/waagent.conf", text);
        },
        |f| {
            put(
                &mut f.survey,
                "/etc/waagent.conf",
                "ResourceDisk.Format=n\nResourceDisk.EnableSwap=y\n",
            );
            f.survey.enabled_units = ["waagent.service".to_owned()].into();
        },
        // systemd 252 does not know the option; 254 is told not to.
        |f| put(&mut f.survey, "/proc/cmdline", "ro systemd.swap-extra=/dev/sdb2"),
        |f| {
            f.systemd = Some(254);
            put(&mut f.survey, "/proc/cmdline", "systemd.swap-extra=/dev/sdb2:noauto");
        },
        |f| {
            f.systemd = Some(254);
            put(
                &mut f.survey,
                "/proc/cmdline",
                "systemd.swap=0 systemd.swap-extra=/dev/sdb2",
            );
        },
    ];
    fine.into_iter().for_each(|change| assert_eq!(found(change), vec![]));
}

#[test]
fn swap_that_does_not_come_back_is_no_finding() {
    let cases: [Change; 8] = [
        |f| {
            put(
                &mut f.survey,
                "/etc/fstab",
                "#/swap.img none swap sw 0 0\n/swap none swap noauto,pri=1 0 0\n",
            )
        },
        |f| {
            put(&mut f.survey, "/etc/fstab", "/swap.img none swap sw 0 0\n");
            put_link(&mut f.survey, "/etc/systemd/system/swap.img.swap", "/dev/null", "");
        },
        |f| {
            put(&mut f.survey, "/etc/fstab", "/swap.img none swap sw 0 0\n");
            put_link(&mut f.survey, "/etc/systemd/system/swap.target", "/dev/null", "");
        },
        |f| {
            put(&mut f.survey, "/etc/fstab", "/swap.img none swap sw 0 0\n");
            put(&mut f.survey, "/proc/cmdline", "quiet systemd.swap=0");
        },
        // It is not in fstab any more, and systemd has not read that anew yet.
        |f| {
            let path = "/run/systemd/generator/swap.target.wants/swap.img.swap";
            put(
                &mut f.survey,
                path,
                "[Unit]\nSourcePath=/etc/fstab\n[Swap]\nWhat=/swap.img\n",
            );
        },
        // A unit that nothing wants.
        |f| put(&mut f.survey, "/etc/systemd/system/swapfile.swap", "What=/swapfile\n"),
        // zram-generator is not installed, or makes a file system.
        |f| put(&mut f.survey, "/etc/systemd/zram-generator.conf", "[zram0]\n"),
        |f| {
            f.paths
                .insert("/usr/lib/systemd/system-generators/zram-generator".into());
            put(&mut f.survey, "/usr/lib/systemd/zram-generator.conf", "[zram0]\n");
            put(
                &mut f.survey,
                "/etc/systemd/zram-generator.conf",
                "[zram1]\nmount-point = /tmp\n",
            );
        },
    ];
    for (number, change) in cases.into_iter().enumerate() {
        assert_eq!(found(change), vec![], "case {number}");
    }
}

#[test]
fn a_sysctl_file_that_wins_later_is_a_warning_with_file_and_line() {
    let finding = only(
        Check::SysctlLater,
        found(|f| {
            put(
                &mut f.survey,
                "/etc/sysctl.d/99-site.conf",
                "# site\nvm.overcommit_memory=0\n",
            )
        }),
    );
    assert_eq!(
        (place(&finding).as_str(), finding.severity),
        ("/etc/sysctl.d/99-site.conf line 2", Severity::Warn)
    );
    assert_eq!(finding.saw, "0, wanted is 1");
    assert!(finding.why.contains("protectKernelDefaults"), "{}", finding.why);
    let linked = only(
        Check::SysctlLater,
        found(|f| {
            let link = "/etc/sysctl.d/99-sysctl.conf";
            put_link(&mut f.survey, link, "/etc/sysctl.conf", "net/ipv4/ip_forward = 0\n");
        }),
    );
    assert_eq!(place(&linked), "/etc/sysctl.conf line 1");
    assert!(
        linked.saw.contains("99-sysctl.conf") && linked.why.contains("forwards nothing"),
        "{linked:?}"
    );
    let twin = only(
        Check::SysctlLater,
        found(|f| {
            let text = "net.ipv4.conf.all.forwarding = 0\n";
            put(&mut f.survey, "/etc/sysctl.d/99-cis.conf", text);
        }),
    );
    assert_eq!(place(&twin), "/etc/sysctl.d/99-cis.conf line 1");
    assert!(
        twin.what.contains("net.ipv4.ip_forward") && twin.saw.starts_with("net.ipv4.conf.all.forwarding = 0"),
        "{twin:?}"
    );
    let several = found(|f| {
        put(
            &mut f.survey,
            "/run/sysctl.d/95-x.conf",
            "kernel.panic=0\nvm.overcommit_memory = 2\n",
        )
    });
    assert_eq!(several.len(), 2, "{several:?}");
    let fine: [Change; 3] = [
        |f| put(&mut f.survey, "/etc/sysctl.d/10-site.conf", "vm.overcommit_memory=0\n"),
        |f| {
            put(
                &mut f.survey,
                "/etc/sysctl.d/99-site.conf",
                "vm.overcommit_memory=1\nvm.swappiness=10\n",
            )
        },
        |f| put(&mut f.survey, "/etc/sysctl.d/99-site.conf", "kernel.*=5\n"),
    ];
    fine.into_iter().for_each(|change| assert_eq!(found(change), vec![]));
}

#[test]
fn tuned_counts_when_it_has_the_last_word() {
    fn tuned(f: &mut NodeFacts) {
        f.units.insert("tuned.service".into(), "active".into());
        put(&mut f.survey, "/etc/tuned/active_profile", "site\n");
        put(
            &mut f.survey,
            "/etc/tuned/site/tuned.conf",
            "[main]\ninclude=base site\n\n[vm]\nvm.overcommit_memory=0\n",
        );
        put(
            &mut f.survey,
            "/usr/lib/tuned/base/tuned.conf",
            "[sysctl]\nvm.overcommit_memory=0\nkernel.panic=10\n",
        );
    }
    assert_eq!(found(tuned), vec![], "by default the files of sysctl.d come last");
    let finding = only(
        Check::SysctlLater,
        found(|f| {
            tuned(f);
            put(&mut f.survey, "/etc/tuned/tuned-main.conf", "\nreapply_sysctl = 0\n");
        }),
    );
    assert_eq!(place(&finding), "/usr/lib/tuned/base/tuned.conf line 2");
}

/// A machine with one line in a file of modprobe's.
fn modprobe(line: &str) -> Vec<Finding> {
    findings(|f| put(&mut f.survey, "/etc/modprobe.d/cis.conf", line))
}

#[test]
fn modules_that_may_not_be_loaded_are_refused_with_file_and_line() {
    for line in [
        "install overlay /bin/true",
        "install br-netfilter /usr/bin/false",
        "install veth /bin/echo veth is not allowed here",
        "install veth /bin/true; /usr/bin/logger veth",
        "install veth \\\n  /bin/false",
        "install ve* { :; }",
        "alias vxlan off",
        // The kernel asks for these by aliases: rtnl-link-veth, nft-expr-masq.
        "blacklist veth",
        "blacklist nft-masq",
    ] {
        let finding = only(Check::ModulesForbidden, modprobe(line));
        assert_eq!(
            (finding.severity, place(&finding).as_str()),
            (Severity::Refuse, "/etc/modprobe.d/cis.conf line 1"),
            "{line}"
        );
    }
    let second = modprobe("install cramfs /bin/false\ninstall overlay /bin/true\n");
    assert_eq!(
        place(&only(Check::ModulesForbidden, second)),
        "/etc/modprobe.d/cis.conf line 2"
    );
    for option in ["module_blacklist=bluetooth,vxlan", "modprobe.blacklist=veth"] {
        let found = findings(|f| put(&mut f.survey, "/proc/cmdline", &format!("ro {option}")));
        let finding = only(Check::ModulesForbidden, found);
        assert!(finding.refuses() && place(&finding) == "/proc/cmdline", "{option}");
    }
    let loaded = only(
        Check::ModulesForbidden,
        found(|f| {
            f.survey.loaded_modules.insert("veth".to_owned());
            put(&mut f.survey, "/etc/modprobe.d/b.conf", "blacklist veth\n");
        }),
    );
    assert_eq!(loaded.severity, Severity::Warn, "something loads it, by its name");
}

#[test]
fn a_blacklist_of_what_is_named_or_needed_by_another_is_a_note() {
    for line in ["blacklist bridge", "blacklist vxlan"] {
        let finding = only(Check::ModuleBlacklist, modprobe(line));
        assert_eq!(finding.severity, Severity::Note, "{line}");
    }
}

#[test]
fn lines_that_keep_nothing_out_that_is_needed_are_no_finding() {
    for line in [
        "install vxlan /sbin/modprobe --ignore-install vxlan\n",
        "install vxlan /usr/local/sbin/load-vxlan\n",
        "install vxlan\n",
        "install dccp /bin/true\noptions vxlan x=1\n",
        // kmod asks no alias of this name when the kernel asks for rtnl-link-veth.
        "alias veth off\n",
        // Names with patterns mean nothing in a blacklist.
        "blacklist ve*\n",
        // nftables mode needs none of iptables', and nobody needs ip_vs.
        "blacklist xt_nat\ninstall ip_vs /bin/false\n",
        // It is built in.
        "install nf_tables /bin/true\n",
    ] {
        assert_eq!(modprobe(line), vec![], "{line}");
    }
    let no_modules = found(|f| {
        f.survey.modules.clear();
        f.survey.loaded_modules.clear();
        put(&mut f.survey, "/etc/modprobe.d/x.conf", "install overlay /bin/true\n");
        put(&mut f.survey, "/proc/sys/kernel/modules_disabled", "1\n");
    });
    assert_eq!(no_modules, vec![], "everything is built in");

    let mut iptables = desired();
    iptables.spec.proxy_mode = ProxyMode::Iptables;
    let mut facts: BTreeMap<NodeName, NodeFacts> =
        (1..=3).map(|n| (format!("cp-{n}").parse().unwrap(), good(n))).collect();
    let cp_2 = facts.get_mut(&"cp-2".parse::<NodeName>().unwrap()).unwrap();
    put(
        &mut cp_2.survey,
        "/etc/modprobe.d/x.conf",
        "blacklist xt_nat\nblacklist nft_masq\n",
    );
    let finding = only(Check::ModulesForbidden, judge(&iptables, &facts, &BTreeMap::new()));
    assert_eq!(finding.saw, "blacklist xt_nat");
}

#[test]
fn a_kernel_that_loads_no_module_is_refused_unless_everything_is_there_and_comes_back() {
    fn disabled(f: &mut NodeFacts) {
        put(&mut f.survey, "/proc/sys/kernel/modules_disabled", "1\n");
    }
    fn loaded(f: &mut NodeFacts) {
        f.survey.loaded_modules = f.survey.modules.clone();
        disabled(f);
    }
    let cases: [(Change, Severity, &str); 5] = [
        (disabled, Severity::Refuse, "/proc/sys/kernel/modules_disabled"),
        (loaded, Severity::Warn, "/proc/sys/kernel/modules_disabled"),
        (
            |f| {
                loaded(f);
                f.survey.features_now.remove("vxlan");
            },
            Severity::Refuse,
            "/proc/sys/kernel/modules_disabled",
        ),
        (
            |f| {
                put(
                    &mut f.survey,
                    "/etc/sysctl.d/99-h.conf",
                    "kernel.modules_disabled = 1\n",
                )
            },
            Severity::Refuse,
            "/etc/sysctl.d/99-h.conf line 1",
        ),
        (
            |f| {
                loaded(f);
                put(
                    &mut f.survey,
                    "/etc/sysctl.d/99-h.conf",
                    "kernel.modules_disabled = 1\n",
                );
            },
            Severity::Refuse,
            "/etc/sysctl.d/99-h.conf line 1",
        ),
    ];
    for (change, severity, wanted) in cases {
        let finding = only(Check::ModulesForbidden, found(change));
        assert_eq!(
            (finding.severity, place(&finding).as_str()),
            (severity, wanted),
            "{finding:?}"
        );
    }
    let finding = only(Check::ModulesForbidden, found(disabled));
    assert_eq!(finding.saw, "1; missing: veth, nft_masq");
}

fn with_cloud_init(f: &mut NodeFacts, user_data: &str) {
    f.paths.insert("/usr/bin/cloud-init".into());
    put(&mut f.survey, "/etc/cloud/cloud.cfg", "\npreserve_hostname: true\n");
    put(&mut f.survey, "/var/lib/cloud/instance/cloud-config.txt", user_data);
}

#[test]
fn cloud_init_that_owns_hosts_or_hostname_is_a_warning() {
    let hosts = only(
        Check::HostsRewritten,
        found(|f| with_cloud_init(f, "\nmanage_etc_hosts: true\n")),
    );
    assert_eq!(place(&hosts), "/var/lib/cloud/instance/cloud-config.txt line 2");
    assert_eq!(hosts.severity, Severity::Warn);
    for word in ["on", "1", "yes", "True", "\"true\"", "TEMPLATE"] {
        let found = findings(|f| with_cloud_init(f, &format!("manage_etc_hosts: {word}\n")));
        assert_eq!(only(Check::HostsRewritten, found).severity, Severity::Warn, "{word}");
        let found = findings(|f| with_cloud_init(f, &format!("preserve_hostname: {word}\n")));
        assert_eq!(found.is_empty(), word != "TEMPLATE", "{word}");
    }
    let vendor = "/var/lib/cloud/instance/vendor2-cloud-config.txt";
    let second = findings(|f| {
        with_cloud_init(f, "");
        let first = "/var/lib/cloud/instance/vendor-cloud-config.txt";
        put(&mut f.survey, first, "manage_etc_hosts: false\n");
        put(&mut f.survey, vendor, "manage_etc_hosts: true\n");
    });
    assert_eq!(place(&only(Check::HostsRewritten, second)), format!("{vendor} line 1"));
    let name = only(
        Check::HostnameRewritten,
        found(|f| with_cloud_init(f, "preserve_hostname: False # why\n")),
    );
    assert_eq!(place(&name), "/var/lib/cloud/instance/cloud-config.txt line 1");
    let unset = only(
        Check::HostnameRewritten,
        found(|f| f.paths.extend(["/usr/bin/cloud-init".into()])),
    );
    assert!(unset.saw.contains("not set"), "{unset:?}");
    let fine: [Change; 4] = [
        |f| with_cloud_init(f, "manage_etc_hosts: localhost\n"),
        |f| {
            with_cloud_init(f, "manage_etc_hosts: true\n");
            f.paths.insert("/etc/cloud/cloud-init.disabled".into());
        },
        |f| {
            with_cloud_init(f, "manage_etc_hosts: true\n");
            put_link(&mut f.survey, "/etc/systemd/system/cloud-init.target", "/dev/null", "");
        },
        |f| {
            with_cloud_init(f, "manage_etc_hosts: true\n");
            put(&mut f.survey, "/proc/cmdline", "ro cloud-init=disabled\n");
        },
    ];
    fine.into_iter().for_each(|change| assert_eq!(found(change), vec![]));
}

#[test]
fn an_address_from_dhcp_is_a_warning() {
    let cases: [(Change, &str); 6] = [
        (|f| f.addresses[0].is_leased = true, ""),
        (
            |f| put(&mut f.survey, "/run/systemd/netif/leases/2", "\nADDRESS=10.90.0.12\n"),
            "/run/systemd/netif/leases/2 line 2",
        ),
        (
            |f| put(&mut f.survey, "/etc/network/interfaces", "\n iface eth0 inet dhcp\n"),
            "/etc/network/interfaces line 2",
        ),
        (
            |f| {
                put(
                    &mut f.survey,
                    "/etc/network/interfaces.d/eth0",
                    "iface eth0 inet dhcp\n",
                )
            },
            "/etc/network/interfaces.d/eth0 line 1",
        ),
        (
            |f| {
                put(
                    &mut f.survey,
                    "/etc/sysconfig/network-scripts/ifcfg-eth0",
                    "\nBOOTPROTO=\"dhcp\"\n",
                )
            },
            "/etc/sysconfig/network-scripts/ifcfg-eth0 line 2",
        ),
        (
            |f| {
                let text = "[connection]\ninterface-name=eth0\n[ipv4]\nmethod=auto\n[ipv6]\nmethod=auto\n";
                put(
                    &mut f.survey,
                    "/etc/NetworkManager/system-connections/x.nmconnection",
                    text,
                );
            },
            "/etc/NetworkManager/system-connections/x.nmconnection line 4",
        ),
    ];
    for (change, wanted) in cases {
        let finding = only(Check::DynamicAddress, found(change));
        assert_eq!((finding.severity, place(&finding).as_str()), (Severity::Warn, wanted));
        assert!(finding.saw.starts_with("10.90.0.12 on eth0"), "{}", finding.saw);
    }
    let fine: [Change; 4] = [
        |f| put(&mut f.survey, "/run/systemd/netif/leases/3", "ADDRESS=192.0.2.7\n"),
        |f| {
            put(
                &mut f.survey,
                "/etc/network/interfaces",
                "iface eth1 inet dhcp\niface eth0 inet static\n",
            )
        },
        |f| {
            let text = "[connection]\ninterface-name=eth0\n[ipv4]\nmethod=manual\n[ipv6]\nmethod=auto\n";
            put(
                &mut f.survey,
                "/etc/NetworkManager/system-connections/x.nmconnection",
                text,
            );
        },
        |f| {
            put(
                &mut f.survey,
                "/etc/sysconfig/network-scripts/ifcfg-eth1",
                "BOOTPROTO=dhcp\n",
            )
        },
    ];
    fine.into_iter().for_each(|change| assert_eq!(found(change), vec![]));
}

#[test]
fn a_disk_that_was_mounted_by_hand_is_a_warning() {
    fn mounted(f: &mut NodeFacts, kind: &str) {
        let mounted = crate::facts::Mounted {
            source: "/dev/sdb1".to_owned(),
            kind: kind.to_owned(),
        };
        f.survey.places.get_mut("/var/lib/etcd").unwrap().mounted = Some(mounted);
    }
    fn generated(f: &mut NodeFacts, text: &str) {
        mounted(f, "ext4");
        put(&mut f.survey, "/run/systemd/generator/var-lib-etcd.mount", text);
    }
    let by_hand: [Change; 4] = [
        |f| mounted(f, "ext4"),
        |f| {
            mounted(f, "ext4");
            let text = "#/dev/sdb1 /var/lib/etcd ext4\n/dev/sdb1 /var/lib/etcd2 ext4 defaults 0 2\n";
            put(&mut f.survey, "/etc/fstab", text);
        },
        // The line has gone from fstab since the last boot.
        |f| generated(f, "\nSourcePath=/etc/fstab\n"),
        |f| {
            generated(f, "");
            put_link(&mut f.survey, "/etc/systemd/system/var-lib-etcd.mount", "/dev/null", "");
        },
    ];
    for (number, change) in by_hand.into_iter().enumerate() {
        let finding = only(Check::MountAtBoot, found(change));
        assert_eq!(
            (finding.severity, place(&finding).as_str()),
            (Severity::Warn, "/var/lib/etcd"),
            "case {number}"
        );
        assert!(finding.saw.starts_with("/dev/sdb1 (ext4)"), "{finding:?}");
    }
    let fine: [Change; 5] = [
        |f| {
            mounted(f, "ext4");
            put(&mut f.survey, "/etc/fstab", "UUID=b /var/lib/etcd/ ext4 noauto 0 2\n");
        },
        |f| {
            mounted(f, "ext4");
            put(&mut f.survey, "/etc/systemd/system/var-lib-etcd.mount", "");
        },
        |f| {
            mounted(f, "ext4");
            put(&mut f.survey, "/usr/lib/systemd/system/var-lib-etcd.automount", "");
        },
        // Another generator made it.
        |f| generated(f, ""),
        |f| mounted(f, "zfs"),
    ];
    for (number, change) in fine.into_iter().enumerate() {
        assert_eq!(found(change), vec![], "case {number}");
    }
}
