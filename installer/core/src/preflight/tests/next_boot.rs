//! What was recorded on machines about their next boot, and what preflight says of it.

use super::*;
use crate::finding::Severity;

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

#[expect(clippy::too_many_lines, reason = "a table of recorded files")]
#[test]
fn modules_that_may_not_be_loaded_are_refused_and_a_blacklist_is_a_note() {
    let cases: [(Change, Check, Severity, &str); 7] = [
        (
            |f| {
                put(
                    &mut f.survey,
                    "/etc/modprobe.d/cis.conf",
                    "install cramfs /bin/false\ninstall overlay /bin/true\n",
                )
            },
            Check::ModulesForbidden,
            Severity::Refuse,
            "/etc/modprobe.d/cis.conf line 2",
        ),
        (
            |f| {
                put(
                    &mut f.survey,
                    "/usr/lib/modprobe.d/x.conf",
                    "install br-netfilter /usr/bin/false",
                )
            },
            Check::ModulesForbidden,
            Severity::Refuse,
            "/usr/lib/modprobe.d/x.conf line 1",
        ),
        (
            |f| put(&mut f.survey, "/proc/cmdline", "ro module_blacklist=bluetooth,vxlan"),
            Check::ModulesForbidden,
            Severity::Refuse,
            "/proc/cmdline",
        ),
        (
            |f| put(&mut f.survey, "/etc/modprobe.d/b.conf", "blacklist bridge\n"),
            Check::ModuleBlacklist,
            Severity::Note,
            "/etc/modprobe.d/b.conf line 1",
        ),
        (
            |f| put(&mut f.survey, "/proc/sys/kernel/modules_disabled", "1\n"),
            Check::ModulesForbidden,
            Severity::Warn,
            "/proc/sys/kernel/modules_disabled",
        ),
        (
            |f| {
                put(&mut f.survey, "/proc/sys/kernel/modules_disabled", "1\n");
                f.survey.features_now.remove("vxlan");
            },
            Check::ModulesForbidden,
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
            Check::ModulesForbidden,
            Severity::Warn,
            "/etc/sysctl.d/99-h.conf line 1",
        ),
    ];
    for (change, check, severity, wanted) in cases {
        let finding = only(check, found(change));
        assert_eq!(
            (finding.severity, place(&finding).as_str()),
            (severity, wanted),
            "{finding:?}"
        );
    }
    let fine: [Change; 4] = [
        |f| {
            put(
                &mut f.survey,
                "/etc/modprobe.d/x.conf",
                "install vxlan /sbin/modprobe --ignore-install vxlan\n",
            )
        },
        |f| {
            put(
                &mut f.survey,
                "/etc/modprobe.d/x.conf",
                "install dccp /bin/true\noptions vxlan x=1\n",
            )
        },
        // It is built in, or the kernel has no modules at all.
        |f| {
            put(&mut f.survey, "/etc/modprobe.d/x.conf", "install nf_tables /bin/true\n");
        },
        |f| {
            f.survey.modules.clear();
            put(&mut f.survey, "/etc/modprobe.d/x.conf", "install overlay /bin/true\n");
        },
    ];
    fine.into_iter().for_each(|change| assert_eq!(found(change), vec![]));
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
