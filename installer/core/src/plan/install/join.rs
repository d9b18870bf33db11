//! The first control plane, then everybody else: kubelets side by side, etcd members one by one.

use super::{
    Joins, KUBEADM_S, Member, Planner, QUICK_S, SHARED_PKI, binary_step, bundle_role, kubeadm, kubernetes, secret_id,
    step_of, steps_of, unit_word,
};
use crate::action::{Action, Claims, ClusterEffect, Content};
use crate::bundle_index::BinaryPlace;
use crate::inventory::Role;
use crate::layout;
use crate::name::StepId;
use crate::plan::claims::kubeadm_claims;
use crate::plan::{SecretSource, Stage};
use std::path::{Path, PathBuf};

impl Planner<'_> {
    /// What kubeadm needs on a node, by name.
    fn ready_for_kubeadm(&self, member: &Member) -> Vec<StepId> {
        let mut needs = steps_of(
            &[
                "kubeadm-config-valid",
                "images",
                "hosts",
                "binary/kubeadm",
                "modules-file",
                "sysctl-file",
            ],
            member,
        );
        needs.extend(
            member
                .units
                .iter()
                .map(|(name, _)| step_of(&format!("unit/{}", unit_word(name)), member)),
        );
        needs.extend(
            self.input
                .index
                .binaries
                .iter()
                .filter(|b| b.place == BinaryPlace::Cni && b.roles.contains(&bundle_role(member.role())))
                .map(|b| step_of(&binary_step(&b.name), member)),
        );
        needs
    }

    pub(super) fn first_control_plane(&mut self, first: &Member) {
        let config_ready = steps_of(
            &[
                "kubeadm-config-valid",
                "kubeadm-config",
                "binary/kubeadm",
                "dir-kubernetes",
                "hosts",
            ],
            first,
        );
        let pki = Path::new(layout::KUBERNETES_DIR).join("pki");
        let certificates = self.add(
            "certificates",
            first,
            Stage::FirstControlPlane,
            &config_ready,
            KUBEADM_S,
            Action::Run {
                argv: kubeadm(&["init", "phase", "certs", "all", "--config", layout::KUBEADM_CONFIG]),
                env: vec![],
                creates: SHARED_PKI.iter().map(|name| pki.join(name)).collect(),
                claims: Claims {
                    paths: vec![pki.clone()],
                    ..Claims::default()
                },
                effects: vec![],
                stdout: None,
            },
        );
        for name in SHARED_PKI {
            let source = SecretSource {
                node: first.name.clone(),
                path: pki.join(name),
            };
            self.plan.secrets.insert(secret_id(&format!("pki/{name}")), source);
        }
        // One hour outlasts any run; the credential lets a node ask for its own kubelet certificate and nothing else.
        let credential = self.add(
            "join-credential",
            first,
            Stage::FirstControlPlane,
            std::slice::from_ref(&certificates),
            QUICK_S,
            Action::Run {
                argv: kubeadm(&[
                    "kubeconfig",
                    "user",
                    "--config",
                    layout::KUBEADM_CONFIG,
                    "--client-name",
                    "landfall-join",
                    "--org",
                    "system:bootstrappers:kubeadm:default-node-token",
                    "--validity-period",
                    "1h",
                ]),
                env: vec![],
                creates: vec![layout::JOIN_KUBECONFIG.into()],
                claims: Claims {
                    paths: vec![layout::JOIN_KUBECONFIG.into()],
                    ..Claims::default()
                },
                effects: vec![],
                stdout: Some(layout::JOIN_KUBECONFIG.into()),
            },
        );
        let source = SecretSource {
            node: first.name.clone(),
            path: layout::JOIN_KUBECONFIG.into(),
        };
        self.plan.secrets.insert(secret_id("join-kubeconfig"), source);

        let mut needs = self.ready_for_kubeadm(first);
        needs.extend([certificates, credential]);
        needs.extend(self.api_server_files(first));
        let mut claims = kubeadm_claims(first.role());
        claims.paths.retain(|path| !path.starts_with(&pki));
        self.add(
            "init",
            first,
            Stage::FirstControlPlane,
            &needs,
            KUBEADM_S,
            Action::Run {
                argv: kubeadm(&[
                    "init",
                    "--config",
                    layout::KUBEADM_CONFIG,
                    "--skip-phases",
                    "preflight,certs,upload-certs,addon/coredns,show-join-command",
                    "--skip-token-print",
                ]),
                env: vec![],
                creates: vec![
                    kubernetes("admin.conf"),
                    kubernetes("kubelet.conf"),
                    kubernetes("manifests/kube-apiserver.yaml"),
                ],
                claims,
                effects: vec![ClusterEffect::Node {
                    name: first.name.clone(),
                }],
                stdout: None,
            },
        );
    }

    /// Audit policy and encryption configuration; the key is made on the first control plane and shared.
    fn api_server_files(&mut self, member: &Member) -> Vec<StepId> {
        let directory = Action::Directory {
            path: layout::API_SERVER_DIR.into(),
            mode: 0o700,
        };
        let parent = step_of("dir-kubernetes", member);
        let directory = self.add("dir-api-server", member, Stage::Prepare, &[parent], QUICK_S, directory);
        let policy = Content::Text(self.input.audit_policy.clone());
        let policy_path = Path::new(layout::API_SERVER_DIR).join("audit-policy.yaml");
        let policy = self.file(
            "audit-policy",
            member,
            policy_path,
            policy,
            std::slice::from_ref(&directory),
        );
        let encryption_path = Path::new(layout::API_SERVER_DIR).join("encryption.yaml");
        let mut needs = vec![directory];
        let content = if &member.name == self.first {
            let source = SecretSource {
                node: member.name.clone(),
                path: encryption_path.clone(),
            };
            self.plan.secrets.insert(secret_id("encryption-config"), source);
            Content::Generated(self.input.encryption_config.clone())
        } else {
            needs.push(self.on_first("encryption-config"));
            Content::Secret(secret_id("encryption-config"))
        };
        vec![
            policy,
            self.file("encryption-config", member, encryption_path, content, &needs),
        ]
    }

    /// Kubelets join side by side; etcd members one by one, while control planes that have theirs are finished beside it.
    pub(super) fn join_all(&mut self) {
        let input = self.input;
        let init = self.on_first("init");
        let mut last_etcd_join = init.clone();
        for member in &input.members[1..] {
            let credential = self.on_first("join-credential");
            let directory = step_of("dir-kubernetes", member);
            let kubeconfig = self.file(
                "join-kubeconfig",
                member,
                layout::JOIN_KUBECONFIG,
                Content::Secret(secret_id("join-kubeconfig")),
                &[credential, directory],
            );
            let mut needs = self.ready_for_kubeadm(member);
            needs.extend([kubeconfig, init.clone()]);
            if member.role() == Role::Worker {
                self.join_kubelet(
                    "join-worker",
                    member,
                    Stage::JoinWorkers,
                    layout::KUBEADM_CONFIG,
                    &needs,
                );
            } else {
                needs.extend(self.shared_pki(member));
                needs.push(step_of("kubelet-join-config-valid", member));
                // The kubelet watches this folder from its start only when it is there; else it looks every 20 s (pkg/kubelet/config).
                let manifests = Action::Directory {
                    path: kubernetes("manifests"),
                    mode: 0o755,
                };
                let parent = step_of("dir-kubernetes", member);
                needs.push(self.add("dir-manifests", member, Stage::Prepare, &[parent], QUICK_S, manifests));
                let config = layout::KUBELET_JOIN_CONFIG;
                let kubelet = self.join_kubelet("join-kubelet", member, Stage::JoinControlPlanes, config, &needs);
                last_etcd_join = self.join_control_plane(member, kubelet, last_etcd_join);
            }
        }
    }

    fn join_kubelet(&mut self, what: &str, member: &Member, stage: Stage, config: &str, needs: &[StepId]) -> StepId {
        let action = Action::Run {
            argv: kubeadm(&["join", "--config", config, "--skip-phases", "preflight"]),
            env: vec![],
            creates: vec![kubernetes("kubelet.conf")],
            claims: kubeadm_claims(member.role()),
            effects: vec![ClusterEffect::Node {
                name: member.name.clone(),
            }],
            stdout: None,
        };
        self.add(what, member, stage, needs, KUBEADM_S, action)
    }

    /// Adds the steps that make a control plane of a node whose kubelet has joined; returns the one that joins etcd.
    fn join_control_plane(&mut self, member: &Member, kubelet: StepId, last_etcd_join: StepId) -> StepId {
        let stage = Stage::JoinControlPlanes;
        // INVARIANT: etcd members join one at a time, each after the one before is healthy: kubeadm's check-etcd phase sees to the second.
        let mut needs = vec![kubelet.clone(), last_etcd_join];
        needs.extend(self.api_server_files(member));
        let join = |skip: &str, creates: Vec<PathBuf>, effects: Vec<ClusterEffect>| Action::Run {
            argv: kubeadm(&["join", "--config", layout::KUBEADM_CONFIG, "--skip-phases", skip]),
            env: vec![],
            creates,
            // The kubelet's step claims all that the static pods make: they cannot be taken away under a running kubelet.
            claims: Claims::default(),
            effects,
            stdout: None,
        };
        let member_of_etcd = ClusterEffect::EtcdMember {
            name: member.name.to_string(),
            peer_url: format!("https://{}:2380", member.address),
        };
        let etcd = join(
            "preflight,kubelet-start,kubelet-wait-bootstrap,control-plane-join,wait-control-plane",
            vec![
                kubernetes("manifests/etcd.yaml"),
                kubernetes("manifests/kube-apiserver.yaml"),
            ],
            vec![member_of_etcd],
        );
        let etcd = self.add("join-control-plane", member, stage, &needs, KUBEADM_S, etcd);
        if let Some(step) = self.plan.steps.last_mut() {
            step.redo = vec![kubelet];
        }
        let finish = join(
            "preflight,control-plane-prepare,check-etcd,kubelet-start,etcd-join,kubelet-wait-bootstrap",
            vec![],
            vec![],
        );
        self.add(
            "finish-control-plane",
            member,
            stage,
            std::slice::from_ref(&etcd),
            KUBEADM_S,
            finish,
        );
        etcd
    }

    /// The step after which a member's kubeconfigs are there.
    fn joined(&self, member: &Member) -> StepId {
        match member.joins {
            Joins::First(_) => self.on_first("init"),
            Joins::ControlPlane { .. } => step_of("finish-control-plane", member),
            Joins::Worker(_) => step_of("join-worker", member),
        }
    }

    /// Kubeconfigs that earlier versions made name the API by a name in the hosts file. (Those of the controller manager and the
    /// scheduler name the node's own API server by its address: kubeadm 1.37, phases/kubeconfig.) On a new node nothing is to be done.
    pub(super) fn kubeconfigs(&mut self, member: &Member) {
        let mut files = vec![("kubelet.conf", Some("kubelet.service"))];
        match member.joins {
            Joins::First(_) => files.extend([("admin.conf", None), ("super-admin.conf", None)]),
            Joins::ControlPlane { .. } => files.push(("admin.conf", None)),
            Joins::Worker(_) => {}
        }
        let joined = self.joined(member);
        for (name, restart) in files {
            let action = Action::KubeconfigServer {
                path: kubernetes(name),
                from: self.input.named_server.clone(),
                to: layout::API_BALANCER_URL.to_owned(),
                restart: restart.map(str::to_owned),
            };
            let what = format!("server/{name}");
            self.add(
                &what,
                member,
                Stage::Network,
                std::slice::from_ref(&joined),
                QUICK_S,
                action,
            );
        }
    }

    fn shared_pki(&mut self, member: &Member) -> Vec<StepId> {
        let pki = Path::new(layout::KUBERNETES_DIR).join("pki");
        let parent = step_of("dir-kubernetes", member);
        let directory = Action::Directory {
            path: pki.join("etcd"),
            mode: 0o755,
        };
        let directory = self.add("dir-pki", member, Stage::Prepare, &[parent], QUICK_S, directory);
        let made = self.on_first("certificates");
        SHARED_PKI
            .iter()
            .map(|name| {
                let content = Content::Secret(secret_id(&format!("pki/{name}")));
                self.file(
                    &format!("pki/{name}"),
                    member,
                    pki.join(name),
                    content,
                    &[directory.clone(), made.clone()],
                )
            })
            .collect()
    }
}
