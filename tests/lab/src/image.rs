//! Images of the lab's machines: Debian with systemd and sshd, and one that lacks what a careless installer would expect.

use crate::host::{root, run};
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

/// Image of ordinary machines.
pub const FULL: &str = "localhost/landfall-lab-machine:3";
/// Image of a node without iproute2, nft, iptables, curl and socat.
pub const BARE: &str = "localhost/landfall-lab-bare:3";

/// Debian's release; its systemd 252 still runs on cgroup v1, on which newer ones stop.
const SUITE: &str = "bookworm";

const INCLUDE: &str = "systemd,systemd-sysv,dbus,openssh-server,openssh-client,sudo,kmod,procps,util-linux,iproute2,iptables,nftables,\
                       conntrack,ethtool,iputils-ping,curl,ca-certificates,socat,less,tmux";

const MACHINE: &str = "FROM scratch\n\
ADD rootfs.tar /\n\
RUN systemctl mask systemd-tmpfiles-setup-dev.service systemd-udevd.service systemd-binfmt.service \
proc-sys-fs-binfmt_misc.automount systemd-modules-load.service getty.target console-getty.service \
systemd-networkd-wait-online.service e2scrub_reap.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer \
e2scrub_all.timer fstrim.timer systemd-tmpfiles-clean.timer 2>/dev/null; \
printf '[Journal]\\nReadKMsg=no\\nStorage=volatile\\n' > /etc/systemd/journald.conf; \
printf '[Unit]\\nDefaultDependencies=no\\nBefore=sysinit.target\\n[Service]\\nType=oneshot\\nExecStart=/bin/mount --make-rshared /\\n[Install]\\nWantedBy=sysinit.target\\n' \
> /etc/systemd/system/shared-root.service; \
printf '[Unit]\\nConditionPathExists=!/etc/ssh/ssh_host_ed25519_key\\nBefore=ssh.service\\n[Service]\\nType=oneshot\\nExecStart=/usr/bin/ssh-keygen -A\\n[Install]\\nWantedBy=multi-user.target\\n' \
> /etc/systemd/system/hostkeys.service; \
systemctl enable shared-root.service hostkeys.service ssh.service; \
rm -f /etc/machine-id /etc/ssh/ssh_host_*; touch /etc/machine-id; mkdir -p /run/sshd; \
sed -i 's/#PermitRootLogin.*/PermitRootLogin prohibit-password/' /etc/ssh/sshd_config; \
useradd -m -s /bin/bash admin; useradd -m -s /bin/bash visitor; useradd -m -s /bin/bash ops; usermod -aG sudo ops; \
echo 'ops:correct horse battery' | chpasswd; \
ln -s /srv/landfall /usr/local/bin/landfall; \
for home in /root /home/admin /home/visitor /home/ops; do mkdir -p -m 700 $home/.ssh; done; \
chown admin: /home/admin/.ssh; chown visitor: /home/visitor/.ssh; chown ops: /home/ops/.ssh\n\
STOPSIGNAL SIGRTMIN+3\n\
CMD [\"/sbin/init\"]\n";

/// No root login, and no tools that a node need not have.
const WITHOUT: &str = "FROM BASE\n\
RUN dpkg --purge --force-depends iproute2 nftables iptables curl socat conntrack ethtool; \
sed -i 's/^PermitRootLogin.*/PermitRootLogin no/' /etc/ssh/sshd_config\n\
STOPSIGNAL SIGRTMIN+3\n\
CMD [\"/sbin/init\"]\n";

/// Builds both images, unless they are there. The root filesystem is kept in `cache`.
pub fn build(cache: &Path) -> Result<()> {
    if exists(FULL) && exists(BARE) {
        return Ok(());
    }
    let context = cache.join("image");
    fs::create_dir_all(&context).with_context(|| format!("{} cannot be made", context.display()))?;
    let rootfs = context.join("rootfs.tar");
    if !rootfs.exists() {
        println!("making the lab machines' root filesystem from Debian packages");
        let part = context.join("part.tar");
        let mut make = root("mmdebstrap");
        make.args([
            "--quiet",
            "--variant=minbase",
            "--format=tar",
            &format!("--include={INCLUDE}"),
            SUITE,
        ]);
        run(make.arg(&part))?;
        run(root("mv").arg(&part).arg(&rootfs))?;
    }
    println!("building the lab machines' images");
    image(&context, FULL, MACHINE)?;
    image(&context, BARE, &WITHOUT.replace("BASE", FULL))
}

fn image(context: &Path, name: &str, text: &str) -> Result<()> {
    let file = context.join("Containerfile");
    fs::write(&file, text).with_context(|| format!("{} cannot be written", file.display()))?;
    let mut build = root("podman");
    build.args(["build", "--isolation", "chroot", "--quiet", "--tag", name, "--file"]);
    run(build.arg(&file).arg(context)).map(drop)
}

fn exists(name: &str) -> bool {
    run(root("podman").args(["image", "exists", name])).is_ok()
}
