//! Programs of the node that would configure the links of the cluster.

use super::*;

/// A machine where networkd runs, with one file in /etc and, by the path, others of its packages.
fn with_networkd(files: &[(&str, &str)]) -> Vec<Finding> {
    let mut facts = good(1);
    let unit = "systemd-networkd.service".to_owned();
    facts.survey.enabled_units.insert(unit);
    for (path, text) in files {
        put(&mut facts.survey, path, text);
    }
    judge(&desired(), &[("cp-1".parse().unwrap(), facts)].into(), &BTreeMap::new())
}

#[test]
fn a_file_of_networkd_that_fits_every_link_is_refused() {
    const ETC: &str = "/etc/systemd/network/10-all.network";
    for (text, links) in [
        ("[Match]\nName=*\n[Network]\n", "cni0, flannel.1, veth0a1b2c3d"),
        ("[Match]\n[Network]\n", "cni0, flannel.1, veth0a1b2c3d"),
        ("[Match]\nName=!lo wlan*\n", "cni0, flannel.1, veth0a1b2c3d"),
        ("[Match]\nType=ether\n", "veth0a1b2c3d"),
        ("[Match]\nKind=veth bridge\n", "cni0, veth0a1b2c3d"),
        ("[Match]\nName=en* veth*\n[Link]\nUnmanaged=no\n", "veth0a1b2c3d"),
    ] {
        let finding = only(Check::LinkConfig, with_networkd(&[(ETC, text)]));
        assert!(finding.refuses() && finding.saw.ends_with(links), "{text}: {finding:?}");
        assert_eq!(place(&finding), ETC);
        assert_eq!(found_without_networkd(text), vec![], "{text}");
    }
    for fine in [
        "[Match]\nName=en* eth0\n",
        "[Match]\nName=*\nMACAddress=00:11:22:33:44:55\n",
        "[Match]\nName=*\n[Link]\nUnmanaged=yes\n",
        "[Match]\nName=!cni* flannel* veth*\n",
        "[Match]\nType=ether\nKind=!veth\n",
        "",
    ] {
        assert_eq!(with_networkd(&[(ETC, fine)]), vec![], "{fine}");
    }
}

fn found_without_networkd(text: &str) -> Vec<Finding> {
    let mut facts = good(1);
    put(&mut facts.survey, "/etc/systemd/network/10-all.network", text);
    judge(&desired(), &[("cp-1".parse().unwrap(), facts)].into(), &BTreeMap::new())
}

/// As Flatcar has it: a file for every link, behind those that name links of containers.
#[test]
fn the_first_file_of_networkd_that_fits_a_link_decides() {
    let all = ("/usr/lib/systemd/network/zz-default.network", "[Match]\nName=*\n");
    let unmanaged = "[Match]\nName=cni0 flannel.* veth*\n[Link]\nUnmanaged=yes\n";
    let cni = ("/usr/lib/systemd/network/50-cni.network", unmanaged);
    assert_eq!(with_networkd(&[all, cni]), vec![]);
    let masked = ("/etc/systemd/network/50-cni.network", "");
    assert_eq!(
        place(&only(Check::LinkConfig, with_networkd(&[all, cni, masked]))),
        all.0
    );
    let later = ("/etc/systemd/network/zzz.network", unmanaged);
    assert_eq!(place(&only(Check::LinkConfig, with_networkd(&[all, later]))), all.0);
}

#[test]
fn nm_cloud_setup_is_refused() {
    let timer = |f: &mut NodeFacts| drop(f.units.insert("nm-cloud-setup.timer".into(), "active".into()));
    let finding = only(Check::LinkConfig, found(timer));
    assert!(
        finding.refuses() && finding.next.contains("systemctl disable"),
        "{finding:?}"
    );
}
