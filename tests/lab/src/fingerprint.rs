//! A snapshot of a node's state for comparison before and after: files, rules, links, settings, units, mounts, cgroups, processes, sockets, modules,
//! AppArmor profiles.

use crate::host::{root, run};
use crate::lab::{Lab, Machine};
use anyhow::Result;
use std::collections::BTreeMap;

/// Lines that differ between two snapshots of an idle node, or that a login changes; each with its reason.
const VOLATILE: &[(&str, &str)] = &[
    ("file /run/log/journal", "systemd's journal goes on writing"),
    (
        "file /var/log/journal",
        "systemd's journal goes on writing, and begins anew beside what a power cut has damaged",
    ),
    (
        "file /run/systemd/",
        "systemd's own bookkeeping of sessions, units and their invocation ids",
    ),
    ("file /run/user", "made and removed with login sessions"),
    ("file /run/utmp", "who is logged in"),
    ("file /var/log/wtmp", "who was logged in"),
    ("file /var/log/lastlog", "who was logged in"),
    ("file /var/log/btmp", "refused logins"),
    ("file /run/sudo", "sudo's time stamps of the login user"),
    ("file /var/lib/sudo", "sudo's note that it has lectured the login user"),
    (
        "file /home/ops/.sudo_as_admin_successful",
        "sudo's own mark of a user's first sudo, made by any login that uses it",
    ),
    ("file /run/motd.dynamic", "written by the first login"),
    (
        "file /var/lib/systemd/",
        "seeds, timers' stamps and core dumps of systemd",
    ),
    (
        "file /tmp/systemd-private-",
        "private folders of services that run or not",
    ),
    (
        "file /var/tmp/systemd-private-",
        "private folders of services that run or not",
    ),
    ("setting fs.dentry-state", "a counter"),
    ("setting fs.file-nr", "a counter"),
    ("setting fs.inode-nr", "a counter"),
    ("setting fs.inode-state", "a counter"),
    ("setting fs.aio-nr", "a counter"),
    ("setting fs.quota.syncs", "a counter"),
    ("setting kernel.random.", "random by nature"),
    ("setting kernel.pty.nr", "a counter"),
    ("setting kernel.ns_last_pid", "a counter"),
    ("setting net.netfilter.nf_conntrack_count", "a counter"),
    ("setting kernel.tainted", "the host's"),
    ("unit session-", "login sessions"),
    ("unit user@", "login sessions"),
    ("unit user-", "login sessions"),
    ("unit run-user-", "login sessions"),
    ("unit systemd-tmpfiles-clean", "starts by time"),
    (
        "cgroup /sys/fs/cgroup/systemd",
        "podman shows the host's own named hierarchy to every machine: what one makes there, all see; the other hierarchies tell",
    ),
    ("mount /run/user/", "login sessions"),
    ("unit-file session-", "login sessions"),
    (
        "cgroup /sys/fs/cgroup/user.slice",
        "login sessions, on machines with cgroups of their own",
    ),
    (
        "file /run/udev/watch",
        "udev's numbering of the devices that it watches",
    ),
    ("process [kworker", "the kernel's own threads, which come and go"),
    ("process sshd:", "connections that just end"),
    ("process sshd-session:", "connections that just end"),
    ("process (sd-pam)", "login sessions"),
    ("process /usr/lib/systemd/systemd --user", "login sessions"),
    ("process /lib/systemd/systemd --user", "login sessions"),
    ("socket u_str /run/user/", "login sessions"),
    ("socket u_dgr /run/user/", "login sessions"),
    (
        "process [psimon]",
        "a thread of the kernel's for each group whose pressure somebody watches, as login sessions of systemd 254 and later do",
    ),
];

/// Collects what needs nothing but a shell, coreutils and systemd: on the node itself.
const ON_NODE: &str = r#"
roots="/etc /opt /usr /var /root /home /srv /run /tmp /boot /mnt /media"
find $roots -xdev -printf 'file %p\t%y %m %U:%G %l\n' 2>/dev/null
find $roots -xdev -type f -size -64M -exec sha256sum {} + 2>/dev/null | sed -E 's/^\\?([0-9a-f]{64})  (.*)$/content \2\t\1/'
sysctl -a 2>/dev/null | sed -E 's/^([^ ]+) = ?/setting \1\t/'
systemctl list-unit-files --no-legend --no-pager | awk '{print "unit-file " $1 "\t" $2}'
systemctl list-units --all --plain --no-legend --no-pager | awk '$2 != "not-found" {print "unit " $1 "\t" $2 " " $3}'
awk '{t=""; for (i=7;i<NF;i++) if ($i=="-") t=$(i+1); print "mount " $5 "\t" t}' /proc/1/mountinfo
find /sys/fs/cgroup -type d -printf 'cgroup %p\t\n' 2>/dev/null
ps -eo user:20,args --no-headers | awk '{u=$1; $1=""; sub(/^ /, ""); if ($0 !~ /^(sh -c|ps |awk |sleep )/) print "process " $0 "\t" u}'
awk '{print "module " $1 "\t"}' /proc/modules 2>/dev/null
sed -E 's/^(.*) \(([a-z]+)\)$/apparmor \1\t\2/' /sys/kernel/security/apparmor/profiles 2>/dev/null
exit 0
"#;

/// Collects what the node may lack the tools for: in its network namespace, with this host's tools.
const IN_NAMESPACE: &str = r#"
nft -s list ruleset | awk '{print "nft " NR "\t" $0}'
ip -br link | awk '{print "link " $1 "\t" $2 " " $3}'
ip -br addr | awk '{n=$1; $1=""; $2=""; print "address " n "\t" $0}'
{ ip route show table all; ip -6 route show table all; } | awk '{print "route " $0 "\t"}'
{ ip rule; ip -6 rule; } | awk '{print "rule " $0 "\t"}'
ss -Hltun | awk '{print "socket " $1 " " $5 "\t"}'
ss -Hlx | awk '{print "socket " $1 " " $5 "\t"}'
for t in iptables-legacy ip6tables-legacy; do $t-save 2>/dev/null | grep -v '^#' | sed -E 's/\[[0-9:]+\]//' | awk -v t=$t '{print "legacy " t " " NR "\t" $0}'; done
exit 0
"#;

/// Lines by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint(BTreeMap<String, String>);

impl Fingerprint {
    /// Takes a snapshot of a machine. Blocks for about two seconds.
    pub fn take(lab: &Lab, machine: &Machine) -> Result<Self> {
        let mut text = lab.shell(machine, ON_NODE)?;
        let pid = lab.pid(machine)?.to_string();
        text.push_str(&run(root("nsenter").args([
            "-t",
            &pid,
            "-n",
            "sh",
            "-c",
            IN_NAMESPACE,
        ]))?);
        Ok(Self::parse(&text))
    }

    /// The script that takes a whole snapshot on a machine which has the tools itself.
    pub fn whole_script() -> String {
        // Each ends itself.
        format!("({ON_NODE})\n({IN_NAMESPACE})")
    }

    /// Reads what the scripts wrote.
    pub fn parse(text: &str) -> Self {
        let mut lines = BTreeMap::new();
        for line in text.lines() {
            let (name, value) = line.split_once('\t').unwrap_or((line, ""));
            let content_of = name.replacen("content ", "file ", 1);
            let volatile = VOLATILE
                .iter()
                .any(|(prefix, _)| name.starts_with(prefix) || content_of.starts_with(prefix));
            if volatile {
                continue;
            }
            // Several processes or sockets may have the same line, so their number is compared.
            let mut name = name.to_owned();
            while lines.contains_key(&name) {
                name.push('\'');
            }
            lines.insert(name, value.to_owned());
        }
        Self(lines)
    }

    /// Leaves out the lines that differ between two other snapshots, for instance of two boots.
    #[must_use]
    pub fn without_what_differs(mut self, one: &Self, other: &Self) -> Self {
        self.0.retain(|name, _| one.0.get(name) == other.0.get(name));
        self
    }

    /// Takes snapshots of all members of the cluster in parallel.
    pub fn take_all(lab: &Lab) -> Result<BTreeMap<String, Self>> {
        std::thread::scope(|scope| {
            let looks: Vec<_> = lab
                .members()
                .into_iter()
                .map(|machine| (machine.name.clone(), scope.spawn(move || Self::take(lab, machine))))
                .collect();
            let joined = looks.into_iter().map(|(name, look)| {
                let look = look
                    .join()
                    .unwrap_or_else(|_| anyhow::bail!("the look at {name} broke off"));
                Ok((name, look?))
            });
            joined.collect()
        })
    }

    /// Says whether a line is there.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// Lines of both that differ: `-` was there, `+` is there now.
    pub fn difference(&self, later: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, value) in &self.0 {
            match later.0.get(name) {
                Some(now) if now == value => {}
                Some(now) => lines.push(format!("~ {name}: {value} -> {now}")),
                None => lines.push(format!("- {name} {value}")),
            }
        }
        let new = later.0.iter().filter(|(name, _)| !self.0.contains_key(*name));
        lines.extend(new.map(|(name, value)| format!("+ {name} {value}")));
        lines
    }
}

/// Differences of all nodes, each line with its node; empty when nothing changed.
pub fn differences(before: &BTreeMap<String, Fingerprint>, after: &BTreeMap<String, Fingerprint>) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, earlier) in before {
        match after.get(name) {
            Some(later) => lines.extend(
                earlier
                    .difference(later)
                    .into_iter()
                    .map(|line| format!("{name}: {line}")),
            ),
            None => lines.push(format!("{name}: was not looked at")),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[(&str, &str)]) -> Fingerprint {
        Fingerprint(lines.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn every_kind_of_difference_is_seen() {
        let before = of(&[("a", "1"), ("b", "1"), ("c", "1")]);
        let after = of(&[("a", "1"), ("b", "2"), ("d", "1")]);
        assert_eq!(before.difference(&after), ["~ b: 1 -> 2", "- c 1", "+ d 1"]);
        assert!(before.difference(&before).is_empty());
    }

    #[test]
    fn what_differs_between_two_boots_is_left_out() {
        let (one, other) = (of(&[("a", "1"), ("b", "1")]), of(&[("a", "2"), ("b", "1"), ("c", "1")]));
        let later = of(&[("a", "3"), ("b", "2"), ("c", "1"), ("d", "1")]);
        assert_eq!(later.without_what_differs(&one, &other), of(&[("b", "2"), ("d", "1")]));
    }
}
