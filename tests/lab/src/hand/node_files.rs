//! Files that are on every node before the time is measured.

/// containerd's unit. The lab's machines may not pass the number of open files that is set here.
pub const CONTAINERD_SERVICE: &str = "[Unit]\nAfter=network.target\n\n[Service]\nExecStart=/usr/local/bin/containerd\nType=notify\n\
    Delegate=yes\nKillMode=process\nRestart=always\nLimitNOFILE=20000\n\n[Install]\nWantedBy=multi-user.target\n";

/// The kubelet's unit, as kubeadm's own packages lay it out.
pub const KUBELET_SERVICE: &str = "[Unit]\nAfter=containerd.service\nStartLimitIntervalSec=0\n\n[Service]\n\
    EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env\n\
    ExecStart=/usr/local/bin/kubelet --bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf \
    --kubeconfig=/etc/kubernetes/kubelet.conf --config=/var/lib/kubelet/config.yaml $KUBELET_KUBEADM_ARGS\n\
    Restart=always\nRestartSec=3\n\n[Install]\nWantedBy=multi-user.target\n";

/// containerd's configuration, with the image of pods' pause container.
pub fn containerd(pause: &str) -> String {
    let runc = "plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc";
    format!(
        "version = 3\n\
         [plugins.'io.containerd.cri.v1.images'.pinned_images]\nsandbox = '{pause}'\n\
         [plugins.'io.containerd.cri.v1.runtime']\nrestrict_oom_score_adj = true\n\
         tolerate_missing_hugetlb_controller = true\ndisable_hugetlb_controller = true\n\
         [{runc}]\nruntime_type = 'io.containerd.runc.v2'\n\
         [{runc}.options]\nSystemdCgroup = false\nBinaryName = '/usr/local/bin/runc'\n",
    )
}
