#!/bin/sh
# kubeadm as far as files on a node show it. It can be killed half done wherever it asks the model, and it refuses a node on which an
# earlier try left something, as the real one does. The model decides what happens to the cluster: `ask` changes it, or fails with
# kubeadm's error text.
PATH=/usr/bin:/bin
root=${0%/usr/local/bin/kubeadm}
kubernetes=$root/etc/kubernetes
pki=$kubernetes/pki

ask() {
    "$root/sim/ask" "$@" || exit 1
}
put() {
    while [ -e "$root/hold" ]; do sleep 0.02; done
    [ -d "${1%/*}" ] || mkdir -p "${1%/*}" || exit 1
    echo "$2" >"$1" || exit 1
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
certificates() {
    for name in apiserver apiserver-kubelet-client front-proxy-client apiserver-etcd-client etcd/server etcd/peer; do
        put "$pki/$name.crt" "signed by $(cat "$pki/ca.key")"
        put "$pki/$name.key" key
    done
    admin=$(ask admin-conf) || exit 1
    for name in admin super-admin; do put "$kubernetes/$name.conf" "$admin"; done
    for name in controller-manager scheduler; do put "$kubernetes/$name.conf" "$name"; done
}
# etcd starts with the id that the model gave its member.
etcd() {
    put "$root/var/lib/etcd/member/id" "$1"
    put "$root/var/lib/etcd/member/snap/db" data
    [ -e "$kubernetes/manifests/etcd.yaml" ] || put "$kubernetes/manifests/etcd.yaml" etcd
}
# The flags that the patch of etcd's static pod adds; the real kubeadm fails, too, when the directory is not there.
etcd_flags() {
    directory=$(sed -n '/^patches:/{n;s/^ *directory: *//p;}' "$1")
    [ -n "$directory" ] || return 0
    [ -d "$root$directory" ] || refuse "$directory, which the configuration names, does not exist"
    grep -o '"--[^"]*"' "$root$directory/etcd+json.json" | tr -d '"'
}
# The API server answers once a majority of etcd's members runs. The real kubeadm waits for 4 minutes.
wait_control_plane() {
    tries=0
    while [ "$tries" -lt 400 ]; do
        answer=$(ask wait-control-plane) || exit 1
        [ "$answer" != ready ] || return 0
        tries=$((tries + 1))
        sleep 0.05
    done
    refuse "failed while waiting for the control plane to start"
}
api_server() {
    for name in kube-apiserver kube-scheduler; do put "$kubernetes/manifests/$name.yaml" "$name"; done
    put "$root/var/log/kubernetes/audit.log" audit
}
no_etcd() {
    no_manifests
    [ ! -e "$root/var/lib/etcd/member" ] || refuse "/var/lib/etcd is not empty"
}
kubelet() {
    put "$root/var/lib/kubelet/config.yaml" config
    put "$root/var/lib/kubelet/kubeadm-flags.env" flags
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
        if [ ! -e "$pki/$name.crt" ]; then
            text=$(ask authority) || exit 1
            put "$pki/$name.crt" "$text"
        fi
    done
    put "$pki/sa.key" "key of sa"
    put "$pki/sa.pub" "public key of sa"
    ;;
"kubeconfig user "*) ask credential ;;
"init --config "*)
    fresh
    [ -e "$pki/ca.key" ] || refuse "no authority"
    kubelet
    no_etcd
    certificates
    api_server
    flags=$(etcd_flags "$root$3") || exit 1
    put "$kubernetes/manifests/etcd.yaml" "etcd
$flags"
    id=$(ask found) || exit 1
    etcd "$id"
    wait_control_plane
    conf=$(ask register) || exit 1
    put "$kubernetes/kubelet.conf" "$conf"
    case ,$5, in
    *,upload-config,*) ;;
    *) ask upload-config ;;
    esac
    ask mark-control-plane
    ;;
"join --config "*)
    grep -q 'token: join-' "$kubernetes/landfall-join.conf" || refuse "no credential"
    [ -s "$root$3" ] || refuse "no configuration $3"
    case $5 in
    preflight)
        fresh
        put "$kubernetes/bootstrap-kubelet.conf" bootstrap
        [ -e "$pki/ca.crt" ] || put "$pki/ca.crt" "$(sed -n 's/^ *certificate-authority-data: //p' "$kubernetes/landfall-join.conf" | base64 -d)"
        conf=$(ask join-kubelet) || exit 1
        kubelet
        put "$kubernetes/kubelet.conf" "$conf"
        rm -f "$kubernetes/bootstrap-kubelet.conf"
        ;;
    preflight,kubelet-start,*)
        [ -e "$kubernetes/kubelet.conf" ] || refuse "the kubelet has not joined"
        [ -e "$pki/ca.key" ] || refuse "no authority"
        no_etcd
        certificates
        api_server
        id=$(ask etcd-add) || exit 1
        etcd "$id"
        ask etcd-promote
        ;;
    preflight,control-plane-prepare,*)
        [ -e "$root/var/lib/etcd/member" ] || refuse "etcd has not joined"
        ask mark-control-plane
        ;;
    *) refuse "unknown phases $5" ;;
    esac
    ;;
"certs check-expiration "*) echo '{"certificates":[{"name":"apiserver","residualTime":31500000}],"certificateAuthorities":[]}' ;;
*) refuse "unknown command $*" ;;
esac
