#!/bin/sh
# customize.sh TREE FOLDER MODULES: makes a fresh tree of Debian a machine's disk. FOLDER has the key, the password and the scripts of the boot.
set -eu
tree=$1 folder=$2 modules=$3

# Nothing that belongs to one machine alone, and no way to a mirror.
rm -f "$tree"/etc/ssh/ssh_host_* "$tree"/var/lib/dbus/machine-id "$tree"/etc/resolv.conf "$tree"/etc/apt/sources.list.d/* "$tree"/etc/apt/apt.conf.d/99mmdebstrap
: > "$tree/etc/machine-id"
: > "$tree/etc/apt/sources.list"
echo unset > "$tree/etc/hostname"
echo '/dev/ubda / ext4 errors=remount-ro 0 1' > "$tree/etc/fstab"

chroot "$tree" useradd --create-home --shell /bin/bash --groups sudo admin
printf 'admin:%s\n' "$(cat "$folder/password")" | chroot "$tree" chpasswd
for home in root home/admin; do
  install -d -m 700 "$tree/$home/.ssh"
  install -m 600 "$folder/key.pub" "$tree/$home/.ssh/authorized_keys"
done
chroot "$tree" chown -R admin:admin /home/admin
install -d "$tree/etc/ssh/sshd_config.d"
echo 'PermitRootLogin prohibit-password' > "$tree/etc/ssh/sshd_config.d/10-lab.conf"

chroot "$tree" systemctl --quiet enable systemd-networkd.service
# What only some variants want, and what starts by time and changes files.
chroot "$tree" systemctl --quiet disable auditd.service nftables.service
for timer in apt-daily apt-daily-upgrade dpkg-db-backup e2scrub_all fstrim man-db logrotate systemd-tmpfiles-clean; do
  ln -sf /dev/null "$tree/etc/systemd/system/$timer.timer"
done
ln -sf /dev/null "$tree/etc/systemd/system/getty.target"

cp -a "$modules"/. "$tree/lib/modules/"
for version in "$modules"/*; do chroot "$tree" depmod "$(basename "$version")"; done
install -D -m 755 "$folder/init.sh" "$tree/usr/lib/lab/init"
install -m 755 "$folder/first-boot.sh" "$tree/usr/lib/lab/first-boot"
