#!/bin/sh
# Makes a fresh disk one machine, from the kernel's command line: name, address, variant. Runs once, before systemd.
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin
name= address= variant=
for word in $(cat /proc/cmdline); do
  case $word in
    lab.name=*) name=${word#*=} ;;
    lab.address=*) address=${word#*=} ;;
    lab.variant=*) variant=${word#*=} ;;
  esac
done

echo "$name" > /etc/hostname
printf '127.0.0.1\tlocalhost\n127.0.1.1\t%s.example %s\n::1\tlocalhost ip6-localhost ip6-loopback\n' "$name" "$name" > /etc/hosts
ssh-keygen -q -A
# No default route and no DNS server.
printf '[Match]\nName=vec0\n[Network]\nAddress=%s/24\nLinkLocalAddressing=ipv6\nIPv6AcceptRA=no\n' "$address" > /etc/systemd/network/10-lab.network
: > /etc/resolv.conf

# What hardening guides ask for, with settings that disagree with the kubelet's in files that are read late.
hardened() {
  for place in /tmp /var/tmp /dev/shm; do
    echo "tmpfs $place tmpfs rw,noexec,nosuid,nodev,mode=1777 0 0" >> /etc/fstab
  done
  sed -i -E 's/^UMASK.*/UMASK 027/' /etc/login.defs
  echo 'umask 027' >> /etc/profile
  for session in common-session common-session-noninteractive; do
    echo 'session optional pam_umask.so' >> "/etc/pam.d/$session"
  done
  # Every shell that bash starts for sshd says something, and so does the login.
  sed -i '1i echo "bash.bashrc says hello"' /etc/bash.bashrc
  echo 'echo "profile says hello"' >> /etc/profile
  printf '****\n* Authorized use only. Everything is logged. *\n****\n' > /etc/issue.net
  chmod 700 /root
  chmod 750 /home/admin
  sed -i 's/^Defaults.*secure_path/#&/' /etc/sudoers
  cat > /etc/sudoers.d/10-hardening <<'END'
Defaults use_pty
Defaults lecture=always
Defaults secure_path="/usr/sbin:/usr/bin:/sbin:/bin"
Defaults logfile="/var/log/sudo.log"
Defaults passwd_tries=1
Defaults timestamp_timeout=0
END
  chmod 440 /etc/sudoers.d/10-hardening
  # No SFTP.
  sed -i -E 's/^Subsystem/#Subsystem/' /etc/ssh/sshd_config
  cat > /etc/ssh/sshd_config.d/10-lab.conf <<'END'
PermitRootLogin no
KexAlgorithms curve25519-sha256,curve25519-sha256@libssh.org
Ciphers chacha20-poly1305@openssh.com,aes256-gcm@openssh.com
MACs hmac-sha2-512-etm@openssh.com,hmac-sha2-256-etm@openssh.com
HostKeyAlgorithms ssh-ed25519
MaxSessions 2
AllowTcpForwarding no
AllowAgentForwarding no
AllowStreamLocalForwarding no
X11Forwarding no
MaxAuthTries 4
ClientAliveInterval 15
ClientAliveCountMax 3
LogLevel VERBOSE
Banner /etc/issue.net
END
  # Nobody but those who log in is let in, at every boot.
  cat > /etc/nftables.conf <<'END'
#!/usr/sbin/nft -f
flush ruleset

table inet filter {
	chain input {
		type filter hook input priority 0; policy drop;
		ct state established,related accept
		iif lo accept
		tcp dport 22 accept
	}
	chain forward {
		type filter hook forward priority 0; policy drop;
	}
}
END
  systemctl --quiet enable nftables.service
  # Nobody writes the resolver's file.
  chattr +i /etc/resolv.conf
  passwd --quiet --lock root
  systemctl --quiet enable auditd.service
  for file in /etc/sysctl.conf /etc/sysctl.d/99-hardening.conf; do
    cat >> "$file" <<'END'
net.ipv4.ip_forward = 0
net.ipv4.conf.all.forwarding = 0
net.ipv4.conf.all.rp_filter = 1
net.ipv4.conf.default.rp_filter = 1
net.ipv4.conf.all.send_redirects = 0
net.ipv4.conf.all.accept_redirects = 0
net.ipv4.conf.all.log_martians = 1
kernel.kptr_restrict = 2
kernel.dmesg_restrict = 1
kernel.yama.ptrace_scope = 2
fs.suid_dumpable = 0
vm.overcommit_memory = 0
kernel.panic_on_oops = 0
END
  done
  printf '%s\n' '-net.bridge.bridge-nf-call-iptables = 0' '-net.bridge.bridge-nf-call-ip6tables = 0' >> /etc/sysctl.d/99-hardening.conf
}

case $variant in
  plain) ;;
  hardened) hardened ;;
  *) echo "lab: unknown variant $variant"; exit 1 ;;
esac
echo "$name $address $variant" > /etc/lab
