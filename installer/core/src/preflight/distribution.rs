//! Distributions: how landfall was shown to work on each, and what differs there. This table is the one place of it in the code; the top README
//! has the same rows.
//!
//! Kernels and defaults are those with which a distribution was released. Held against the makers' own pages on 2026-11-30: kernels of Debian 11, Ubuntu
//! (packages.ubuntu.com) and RHEL 9 (release notes of 9.5); AppArmor of Ubuntu (its server guide) and sudo-rs since 25.10 (documentation.ubuntu.com);
//! control groups of RHEL 8, 9 and 10 (docs.redhat.com) and of SUSE 15 as of SP3 (documentation.suse.com); SELinux of RHEL 9, SUSE 16 (suse.com, but not
//! of its edition for SAP), SLE Micro 5.4 and Flatcar; the read-only parts of Flatcar (flatcar.org) and of SLE Micro. Everything else is what is
//! generally known.

use super::{Look, only};
use crate::facts::FilePattern;
use crate::finding::{Check, Finding};

/// How it is known whether landfall works on a distribution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// The lab installs, verifies, boots and uninstalls it, on kernels of these versions.
    Lab(&'static str),
    /// It was installed, verified, booted again and uninstalled by hand, on a kernel of this version.
    ByHand(&'static str),
    /// What differs there was read from its maker's pages. Nobody has tried it.
    Documentation,
    /// As it comes, preflight refuses it; the check that does.
    Refused(Check),
}

/// A distribution.
#[derive(Debug, Clone, Copy)]
pub struct Distribution {
    /// Its name for people, with versions.
    pub name: &'static str,
    /// Values of `ID` in os-release (os-release(5)).
    ids: &'static [&'static str],
    /// What `VERSION_ID` begins with, up to a dot or its end; any when it is empty.
    versions: &'static [&'static str],
    /// The kernel that it was released with.
    pub kernel: &'static str,
    /// How it is known.
    pub shown: Shown,
    /// What differs from Debian 12, as far as it matters here.
    pub differs: &'static str,
}

const RED_HAT: [&str; 5] = ["rhel", "rocky", "almalinux", "centos", "ol"];

/// All rows.
pub const DISTRIBUTIONS: [Distribution; 13] = [
    Distribution {
        name: "Debian 11",
        ids: &["debian"],
        versions: &["11"],
        kernel: "5.10",
        shown: Shown::ByHand("6.1"),
        differs: "its own kernel and its nft are too old for kube-proxy's nftables mode: `proxyMode: iptables`",
    },
    Distribution {
        name: "Debian 12",
        ids: &["debian"],
        versions: &["12"],
        kernel: "6.1",
        shown: Shown::Lab("6.1 and 6.18"),
        differs: "",
    },
    Distribution {
        name: "Debian 13",
        ids: &["debian"],
        versions: &["13"],
        kernel: "6.12",
        shown: Shown::Lab("6.1"),
        differs: "/tmp is in memory",
    },
    Distribution {
        name: "Ubuntu 22.04",
        ids: &["ubuntu"],
        versions: &["22.04"],
        kernel: "5.15",
        shown: Shown::Documentation,
        differs: "AppArmor is on; ufw is installed and off",
    },
    Distribution {
        name: "Ubuntu 24.04",
        ids: &["ubuntu"],
        versions: &["24.04"],
        kernel: "6.8",
        shown: Shown::Documentation,
        differs: "AppArmor is on, and keeps user namespaces from programs without a profile; ufw is installed and off",
    },
    Distribution {
        name: "Ubuntu 26.04",
        ids: &["ubuntu"],
        versions: &["26.04"],
        kernel: "7.0",
        shown: Shown::Documentation,
        differs: "sudo-rs in the place of sudo, coreutils in Rust; systemd 259 knows cgroup v2 alone; AppArmor is on",
    },
    Distribution {
        name: "RHEL, Rocky Linux, AlmaLinux, Oracle Linux 8",
        ids: &RED_HAT,
        versions: &["8"],
        kernel: "4.18",
        shown: Shown::Refused(Check::Selinux),
        differs: "SELinux enforces; cgroup v1 (`cgroup-v1`); a kernel too old for nftables mode; firewalld is on",
    },
    Distribution {
        name: "RHEL, Rocky Linux, AlmaLinux, Oracle Linux, CentOS Stream 9",
        ids: &RED_HAT,
        versions: &["9"],
        kernel: "5.14",
        shown: Shown::Refused(Check::Selinux),
        differs: "SELinux enforces; firewalld is on",
    },
    Distribution {
        name: "RHEL, Rocky Linux, AlmaLinux, Oracle Linux, CentOS Stream 10",
        ids: &RED_HAT,
        versions: &["10"],
        kernel: "6.12",
        shown: Shown::Refused(Check::Selinux),
        differs: "SELinux enforces; firewalld is on",
    },
    Distribution {
        name: "SUSE Linux Enterprise Server 15, openSUSE Leap 15",
        ids: &["sles", "opensuse-leap"],
        versions: &["15"],
        kernel: "6.4 (SP6, SP7, 15.6)",
        shown: Shown::Documentation,
        differs: "firewalld is on; AppArmor is on; cgroup v1 beside v2 unless it is booted otherwise (`cgroup-v1`)",
    },
    Distribution {
        name: "SUSE Linux Enterprise Server 16, openSUSE Leap 16",
        ids: &["sles", "opensuse-leap"],
        versions: &["16"],
        kernel: "6.12",
        shown: Shown::Refused(Check::Selinux),
        differs: "SELinux enforces; firewalld is on",
    },
    Distribution {
        name: "Flatcar",
        ids: &["flatcar"],
        versions: &[],
        kernel: "by channel",
        shown: Shown::Documentation,
        differs: "/usr is read-only: `binDir: /opt/landfall/bin`",
    },
    Distribution {
        name: "openSUSE MicroOS, SUSE Linux Micro",
        ids: &["opensuse-microos", "opensuse-leap-micro", "sle-micro", "sl-micro"],
        versions: &[],
        kernel: "by version",
        shown: Shown::Refused(Check::Selinux),
        differs: "the root file system is read-only but for /etc, /var, /opt and /usr/local; SELinux enforces",
    },
];

const OS_RELEASE: &str = "/etc/os-release";

/// The file that names the distribution.
pub(super) fn files() -> Vec<FilePattern> {
    only(&[OS_RELEASE], &["ID", "VERSION_ID"])
}

/// Finds the row of a distribution by its os-release.
fn find(os_release: &str) -> Option<&'static Distribution> {
    let value = |key: &str| {
        let mut values = os_release
            .lines()
            .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        values.next().unwrap_or_default().trim().trim_matches(['"', '\''])
    };
    let (id, version) = (value("ID"), value("VERSION_ID"));
    let is_version = |wanted: &&str| {
        let rest = version.strip_prefix(*wanted);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let is_row =
        |row: &&Distribution| row.ids.contains(&id) && (row.versions.is_empty() || row.versions.iter().any(is_version));
    DISTRIBUTIONS.iter().find(is_row)
}

pub(super) fn check(look: &mut Look) {
    let Some(text) = look.text(OS_RELEASE) else { return };
    let finding = match find(text) {
        None => Finding::new(
            Check::Distribution,
            "this distribution is none of those that landfall's README lists",
            look.facts.os.clone(),
            "nothing, if the other checks pass; try it on a machine that may break first",
        ),
        Some(row) => {
            let known = match row.shown {
                Shown::Lab(_) | Shown::ByHand(_) => return,
                Shown::Documentation => "landfall was not tried there",
                Shown::Refused(_) => "as it comes, landfall refuses it",
            };
            let what = format!("{}: {known}; {}", row.name, row.differs.replace('`', ""));
            let next = "try it on a machine that may break first";
            Finding::new(Check::Distribution, what, look.facts.os.clone(), next)
        }
    };
    look.add(finding.at(OS_RELEASE, None));
}

#[cfg(test)]
mod tests {
    use super::*;

    const README: &str = include_str!("../../../../README.md");

    #[test]
    fn distributions_are_found_by_os_release() {
        let name = |text: &str| find(text).map(|row| row.name);
        assert_eq!(
            name("NAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nID=debian\n"),
            Some("Debian 12")
        );
        assert_eq!(
            name("ID=ubuntu\nVERSION_ID=\"24.04\"\nID_LIKE=debian\n"),
            Some("Ubuntu 24.04")
        );
        assert_eq!(
            name("ID=\"rocky\"\nVERSION_ID=\"9.4\"\n"),
            find("ID=rhel\nVERSION_ID=9\n").map(|row| row.name)
        );
        assert_eq!(name("ID=flatcar\nVERSION_ID=4152.2.0\n"), Some("Flatcar"));
        for unknown in [
            "ID=debian\nVERSION_ID=\"1\"\n",
            "ID=ubuntu\nVERSION_ID=\"23.10\"\n",
            "ID=debian\n",
            "",
            "ID=\n",
        ] {
            assert_eq!(name(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn the_readme_has_the_same_rows() {
        for row in DISTRIBUTIONS {
            let shown = match row.shown {
                Shown::Lab(kernels) => format!("installed in the lab, on Linux {kernels}"),
                Shown::ByHand(kernel) => format!("installed by hand, on Linux {kernel}"),
                Shown::Documentation => "read from its documentation".to_owned(),
                Shown::Refused(check) => format!("refused: `{check}`"),
            };
            let line = format!("| {} | {} | {shown} | {} |", row.name, row.kernel, row.differs);
            assert!(README.contains(&line), "the README lacks this line:\n{line}");
        }
    }
}
