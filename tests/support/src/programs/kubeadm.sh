#!/bin/sh
# kubeadm as far as files on a node show it. It leaves something after each small pause, so that it can be killed half done, and it
# refuses a node on which an earlier try left something, as the real one does.
PATH=/usr/bin:/bin
root=${0%/usr/local/bin/kubeadm}
kubernetes=$root/etc/kubernetes
pki=$kubernetes/pki

put() {
    while [ -e "$root/hold" ]; do sleep 0.02; done
    sleep 0.005
    mkdir -p "${1%/*}" && echo "$2" >"$1" || exit 1
}
refuse() {
    echo "[ERROR] $1" >&2
    exit 1
}
no_manifests() {
    [ -z "$(ls -A "$kubernetes/manifests" 2>/dev/null)" ] || refuse "/etc/kubernetes/manifests is not empty"
}
fresh() {
    for path in kubelet.conf admin.conf bootstrap-kubelet.conf; do
        [ ! -e "$kubernetes/$path" ] || refuse "/etc/kubernetes/$path already exists"
    done
    no_manifests
    [ ! -e "$root/var/lib/etcd/member" ] || refuse "/var/lib/etcd is not empty"
    [ -s "$root/etc/landfall/kubeadm.yaml" ] || refuse "no configuration"
    [ -e "$root/run/containerd/containerd.sock" ] || refuse "containerd does not run"
    grep -q pause "$root/var/lib/containerd/images" || refuse "images are missing"
}
control_plane() {
    no_manifests
    [ ! -e "$root/var/lib/etcd/member" ] || refuse "/var/lib/etcd is not empty"
    for name in apiserver apiserver-kubelet-client front-proxy-client apiserver-etcd-client etcd/server etcd/peer; do
        put "$pki/$name.crt" "signed by $(cat "$pki/ca.key")"
        put "$pki/$name.key" key
    done
    for name in admin super-admin controller-manager scheduler; do put "$kubernetes/$name.conf" "$name"; done
    for name in kube-apiserver kube-scheduler etcd; do put "$kubernetes/manifests/$name.yaml" "$name"; done
    put "$root/var/lib/etcd/member/snap/db" data
    put "$root/var/log/kubernetes/audit.log" audit
}
kubelet() {
    put "$root/var/lib/kubelet/config.yaml" config
    put "$root/var/lib/kubelet/kubeadm-flags.env" flags
    put "$kubernetes/kubelet.conf" kubelet
    "$root/usr/bin/systemctl" start kubelet.service
}

case "$1 $2 $3" in
"config validate --config")
    grep -q '^apiVersion: kubeadm.k8s.io/' "$root$4" || refuse "no configuration $4"
    named=$(sed -n 's/^ *kubeConfigPath: *//p' "$root$4")
    [ -z "$named" ] || [ -s "$root$named" ] || refuse "$named, which the configuration names, does not exist"
    ;;
"init phase certs")
    for name in ca front-proxy-ca etcd/ca; do
        [ -e "$pki/$name.key" ] || put "$pki/$name.key" "key of $name"
        [ -e "$pki/$name.crt" ] || put "$pki/$name.crt" "certificate of $name"
    done
    put "$pki/sa.key" "key of sa"
    put "$pki/sa.pub" "public key of sa"
    ;;
"kubeconfig user "*) echo "client signed by $(cat "$pki/ca.key")" ;;
"init --config "*)
    fresh
    [ -e "$pki/ca.key" ] || refuse "no authority"
    kubelet
    control_plane
    ;;
"join --config "*)
    grep -q 'key of ca' "$kubernetes/landfall-join.conf" || refuse "no credential"
    [ -s "$root$3" ] || refuse "no configuration $3"
    case $5 in
    preflight)
        fresh
        put "$kubernetes/bootstrap-kubelet.conf" bootstrap
        [ -e "$pki/ca.crt" ] || put "$pki/ca.crt" "certificate of ca"
        kubelet
        rm -f "$kubernetes/bootstrap-kubelet.conf"
        ;;
    preflight,kubelet-start,*)
        [ -e "$kubernetes/kubelet.conf" ] || refuse "the kubelet has not joined"
        [ -e "$pki/ca.key" ] || refuse "no authority"
        control_plane
        ;;
    preflight,control-plane-prepare,*)
        [ -e "$root/var/lib/etcd/member" ] || refuse "etcd has not joined"
        ;;
    *) refuse "unknown phases $5" ;;
    esac
    ;;
*) refuse "unknown command $*" ;;
esac
