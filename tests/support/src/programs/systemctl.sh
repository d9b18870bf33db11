#!/bin/sh
# systemd as far as the agent asks it: a unit is a file, enabled is a link, active is a mark under /run.
PATH=/usr/bin:/bin
root=${0%/usr/bin/systemctl}
units=$root/etc/systemd/system
wants=$units/multi-user.target.wants
active=$root/run/systemd/active
verb=
names=
for word; do
    case $word in
    --version) echo "systemd 252 (252.1)"; exit 0 ;;
    -*) ;;
    *) if [ -z "$verb" ]; then verb=$word; else names="$names $word"; fi ;;
    esac
done

start() {
    if [ ! -e "$units/$1" ]; then
        echo "Unit $1 not found." >&2
        exit 5
    fi
    program=$(sed -n 's/^ExecStart=\([^ ]*\).*/\1/p' "$units/$1")
    if [ ! -x "$root$program" ]; then
        echo "$1: $program cannot be executed" >&2
        exit 1
    fi
    : >"$active/$1"
    case $1 in
    containerd.service)
        mkdir -p "$root/run/containerd" "$root/var/lib/containerd" "$root/opt/containerd"
        : >"$root/run/containerd/containerd.sock"
        ;;
    kubelet.service)
        sed -n 's/^echo this is kubelet //p' "$root$program" >"$active/$1"
        mkdir -p "$root/var/lib/kubelet/pods/one" "$root/var/log/pods/one" "$root/var/log/containers"
        echo log >"$root/var/log/pods/one/0.log"
        ln -sf ../pods/one/0.log "$root/var/log/containers/one.log"
        ;;
    esac
}

case $verb in
show)
    blank=
    for name in $names; do
        printf "$blank"
        blank='\n'
        load=not-found file= state=inactive
        if [ -e "$units/$name" ]; then load=loaded file=disabled; fi
        if [ -L "$wants/$name" ]; then file=enabled; fi
        if [ -e "$active/$name" ]; then state=active; fi
        printf 'Id=%s\nLoadState=%s\nActiveState=%s\nUnitFileState=%s\nNeedDaemonReload=no\n' "$name" $load $state $file
    done
    ;;
enable) for name in $names; do ln -sf "/etc/systemd/system/$name" "$wants/$name"; done ;;
disable) for name in $names; do rm -f "$wants/$name"; done ;;
start | restart) for name in $names; do start "$name"; done ;;
stop) for name in $names; do rm -f "$active/$name"; done ;;
daemon-reload | reset-failed | kill) ;;
*)
    echo "systemctl: unknown verb $verb" >&2
    exit 1
    ;;
esac
