//! Plans the founding, by all founders at once, and the joins: kubelets join in parallel, etcd members one by one.

use super::{
    InstallMoves, Joins, KUBEADM_S, Member, QUICK_S, SHARED_PKI, StepKind, bundle_role, kubeadm, kubernetes, secret_id,
    unit_word,
};
use crate::action::{Action, BootstrapGoal, Claims, ClusterEffect, Content};
use crate::bundle_index::BinaryPlace;
use crate::inventory::Role;
use crate::layout;
use crate::name::StepId;
use crate::plan::claims::kubeadm_claims;
use crate::plan::key::DirectoryKind;
use crate::plan::{SecretSource, Stage};
use std::path::{Path, PathBuf};

/// What differs between one-shot phases.
struct Phase {
    goal: BootstrapGoal,
    argv: Vec<String>,
    creates: Vec<PathBuf>,
    claims: Claims,
    effects: Vec<ClusterEffect>,
}

impl InstallMoves<'_> {
    /// Returns the steps that must be done on a node before kubeadm runs.
    fn ready_for_kubeadm(&self, member: &Member) -> Vec<StepId> {
        let node = &member.name;
        let kinds = [
            StepKind::KubeadmConfigValid,
            StepKind::Hosts,
            StepKind::ModulesFile,
            StepKind::SysctlFile,
        ];
        let mut needs: Vec<StepId> = kinds.iter().map(|kind| kind.on(node)).collect();
        needs.extend(self.image_steps(member).into_iter().map(|(id, _)| id));
        needs.push(StepKind::Binary.part_on("kubeadm", node));
        needs.extend(self.opened.iter().cloned());
        let units = member.units.iter();
        needs.extend(units.map(|(name, _)| StepKind::Unit.part_on(unit_word(name), node)));
        let plugins = self
            .input
            .index
            .binaries()
            .iter()
            .filter(|b| b.place == BinaryPlace::Cni && b.roles.contains(&bundle_role(member.role())));
        needs.extend(plugins.map(|b| StepKind::Binary.part_on(&b.name, node)));
        needs
    }

    fn bootstrap(&mut self, kind: StepKind, member: &Member, stage: Stage, needs: &[StepId], phase: Phase) -> StepId {
        let Phase {
            goal,
            argv,
            creates,
            claims,
            effects,
        } = phase;
        let action = Action::Bootstrap {
            goal,
            argv,
            creates,
            claims,
            effects,
        };
        self.add(kind.on(&member.name), &member.name, stage, needs, KUBEADM_S, action)
    }

    /// Plans the credential by which nodes join. It serves one run and is valid for an hour, longer than any run. It lets a node ask for its own
    /// kubelet certificate and nothing else.
    pub(super) fn join_credential(&mut self) {
        let lead = self.lead;
        let mut needs = vec![
            StepKind::ClusterConfig.on(&lead.name),
            StepKind::Directory(DirectoryKind::Kubernetes).on(&lead.name),
            StepKind::Binary.part_on("kubeadm", &lead.name),
        ];
        needs.extend(self.founded_by(StepKind::Certificates));
        let action = Action::Run {
            argv: kubeadm(&[
                "kubeconfig",
                "user",
                "--config",
                layout::CLUSTER_CONFIG,
                "--client-name",
                "landfall-join",
                "--org",
                "system:bootstrappers:kubeadm:default-node-token",
                "--validity-period",
                "1h",
            ]),
            env: vec![("LANDFALL_RUN".to_owned(), self.input.run.to_string())],
            creates: vec![layout::JOIN_KUBECONFIG.into()],
            claims: Claims {
                paths: vec![layout::JOIN_KUBECONFIG.into()],
                ..Claims::default()
            },
            effects: vec![],
            stdout: Some(layout::JOIN_KUBECONFIG.into()),
        };
        let id = StepKind::JoinCredential.on(&lead.name);
        self.add(id, &lead.name, Stage::FirstControlPlane, &needs, QUICK_S, action);
        self.serves_this_run();
        let source = SecretSource {
            node: lead.name.clone(),
            path: layout::JOIN_KUBECONFIG.into(),
        };
        self.plan.secrets.insert(secret_id("join-kubeconfig"), source);
    }

    /// Marks the newest step as one that is undone at the end of the run.
    fn serves_this_run(&mut self) {
        if let Some(step) = self.plan.steps.last_mut() {
            step.ephemeral = true;
        }
    }

    /// Plans the founding: authorities are made by the founder and copied; then `kubeadm init` runs on all founders side by side, because
    /// each one's API server answers only when a majority of them runs etcd.
    pub(super) fn found(&mut self) {
        let input = self.input;
        if let Some(founder) = self.founder {
            self.authorities(founder);
        }
        let founders: Vec<&Member> = input.members.iter().filter(|m| m.founds()).collect();
        let needs: Vec<Vec<StepId>> = founders.iter().map(|member| self.ready_to_found(member)).collect();
        let all = needs.concat();
        for (member, own) in founders.into_iter().zip(needs) {
            // No founder starts before all are ready: kubeadm's waits for the others begin with it.
            let needs = if input.record.formed { &own } else { &all };
            self.init(member, needs);
        }
    }

    fn authorities(&mut self, founder: &Member) {
        let node = &founder.name;
        let pki = kubernetes("pki");
        let mut config_ready: Vec<StepId> = [
            StepKind::KubeadmConfigValid,
            StepKind::KubeadmConfig,
            StepKind::Directory(DirectoryKind::Kubernetes),
            StepKind::Hosts,
        ]
        .iter()
        .map(|kind| kind.on(node))
        .collect();
        config_ready.push(StepKind::Binary.part_on("kubeadm", node));
        let authorities = Phase {
            goal: BootstrapGoal::Authorities,
            argv: kubeadm(&["init", "phase", "certs", "all", "--config", layout::KUBEADM_CONFIG]),
            creates: SHARED_PKI.iter().map(|name| pki.join(name)).collect(),
            claims: Claims {
                paths: vec![pki],
                ..Claims::default()
            },
            effects: vec![],
        };
        let stage = Stage::FirstControlPlane;
        self.bootstrap(StepKind::Certificates, founder, stage, &config_ready, authorities);
    }

    /// Returns the steps that must be done on a founder before `kubeadm init` runs there.
    fn ready_to_found(&mut self, member: &Member) -> Vec<StepId> {
        let mut needs = self.ready_for_kubeadm(member);
        match member.joins {
            Joins::Init(_) => needs.push(StepKind::Certificates.on(&member.name)),
            _ => needs.extend(self.shared_pki(member)),
        }
        needs.extend(self.api_server_files(member));
        needs.extend(self.etcd_patch(member));
        needs
    }

    /// Plans the list of members with which etcd is bootstrapped. It serves the founding alone: an etcd that has data does not read it.
    fn etcd_patch(&mut self, member: &Member) -> Option<StepId> {
        let content = Content::Text(member.etcd_patch.clone()?);
        let node = &member.name;
        let directory = Action::Directory {
            path: layout::KUBEADM_PATCHES_DIR.into(),
            mode: 0o755,
        };
        let parent = StepKind::Directory(DirectoryKind::Config).on(node);
        let kind = StepKind::Directory(DirectoryKind::KubeadmPatches);
        let directory = self.prepare_step(kind, member, &[parent], directory);
        let id = StepKind::EtcdPatch.on(node);
        let id = self.file(id, member, layout::ETCD_PATCH, content, &[directory]);
        self.serves_this_run();
        Some(id)
    }

    fn init(&mut self, member: &Member, needs: &[StepId]) {
        let pki = kubernetes("pki");
        let mut claims = kubeadm_claims(member.role(), &self.input.record.fixed);
        let skipped = match member.joins {
            Joins::Init(_) => {
                // The step that makes the authorities claims all of it, and made the founder's own certificates with them.
                claims.paths.retain(|path| !path.starts_with(&pki));
                "preflight,certs,upload-certs,addon/coredns,show-join-command"
            }
            // What the founder uploads is the same for all. super-admin.conf is made here too: kubeadm makes the rights of admin.conf
            // by it before it waits for the API server, and fails without it when the founder is slower (kubeadm 1.37,
            // phases/kubeconfig, EnsureAdminClusterRoleBindingImpl).
            _ => "preflight,upload-config,upload-certs,bootstrap-token,addon,show-join-command",
        };
        let config = layout::KUBEADM_CONFIG;
        let founding = Phase {
            goal: BootstrapGoal::Founder,
            argv: kubeadm(&[
                "init",
                "--config",
                config,
                "--skip-phases",
                skipped,
                "--skip-token-print",
            ]),
            creates: vec![
                kubernetes("admin.conf"),
                kubernetes("kubelet.conf"),
                kubernetes("manifests/kube-apiserver.yaml"),
            ],
            claims,
            effects: vec![ClusterEffect::Node {
                name: member.name.clone(),
            }],
        };
        self.bootstrap(StepKind::Init, member, Stage::FirstControlPlane, needs, founding);
    }

    /// Plans the audit policy and the encryption configuration; the founder makes the key and shares it.
    fn api_server_files(&mut self, member: &Member) -> Vec<StepId> {
        let node = &member.name;
        let directory = Action::Directory {
            path: layout::API_SERVER_DIR.into(),
            mode: 0o700,
        };
        let parent = StepKind::Directory(DirectoryKind::Kubernetes).on(node);
        let kind = StepKind::Directory(DirectoryKind::ApiServer);
        let directory = self.prepare_step(kind, member, &[parent], directory);
        let policy = Content::Text(self.input.audit_policy.clone());
        let policy_path = Path::new(layout::API_SERVER_DIR).join("audit-policy.yaml");
        let after_directory = std::slice::from_ref(&directory);
        let policy = self.file(
            StepKind::AuditPolicy.on(node),
            member,
            policy_path,
            policy,
            after_directory,
        );
        let encryption_path = Path::new(layout::API_SERVER_DIR).join("encryption.yaml");
        let mut needs = vec![directory];
        let content = if matches!(member.joins, Joins::Init(_)) {
            Content::Generated(self.input.encryption_config.clone())
        } else {
            needs.extend(self.founded_by(StepKind::EncryptionConfig));
            Content::Secret(secret_id("encryption-config"))
        };
        let source = SecretSource {
            node: self.lead.name.clone(),
            path: encryption_path.clone(),
        };
        self.plan.secrets.insert(secret_id("encryption-config"), source);
        let id = StepKind::EncryptionConfig.on(node);
        vec![policy, self.file(id, member, encryption_path, content, &needs)]
    }

    /// Plans the joins: kubelets in parallel, etcd members one by one. A control plane whose etcd member has joined is finished while the next
    /// one joins.
    pub(super) fn join_all(&mut self) {
        let input = self.input;
        let founded = self.founded();
        let mut last_etcd_join = None;
        for member in input.members.iter().filter(|m| !m.founds()) {
            let node = &member.name;
            let mut needs = self.ready_for_kubeadm(member);
            needs.push(self.join_kubeconfig(member));
            needs.extend(founded.clone());
            if member.role() == Role::Worker {
                let config = layout::KUBEADM_CONFIG;
                self.join_kubelet(member, Stage::JoinWorkers, config, &needs);
                continue;
            }
            needs.extend(self.shared_pki(member));
            needs.push(StepKind::KubeletJoinConfigValid.on(node));
            // The kubelet watches this folder from its start only when it is there; else it looks every 20 s (pkg/kubelet/config).
            let manifests = Action::Directory {
                path: kubernetes("manifests"),
                mode: 0o755,
            };
            let parent = StepKind::Directory(DirectoryKind::Kubernetes).on(node);
            let kind = StepKind::Directory(DirectoryKind::Manifests);
            needs.push(self.prepare_step(kind, member, &[parent], manifests));
            let config = layout::KUBELET_JOIN_CONFIG;
            let kubelet = self.join_kubelet(member, Stage::JoinControlPlanes, config, &needs);
            let etcd = self.join_control_plane(member, kubelet, last_etcd_join);
            last_etcd_join = Some(etcd);
        }
    }

    /// Plans to copy the credential to a node that joins. The lead has it already.
    fn join_kubeconfig(&mut self, member: &Member) -> StepId {
        let credential = StepKind::JoinCredential.on(&self.lead.name);
        if member.name == self.lead.name {
            return credential;
        }
        let directory = StepKind::Directory(DirectoryKind::Kubernetes).on(&member.name);
        let id = StepKind::JoinKubeconfig.on(&member.name);
        let content = Content::Secret(secret_id("join-kubeconfig"));
        let id = self.file(id, member, layout::JOIN_KUBECONFIG, content, &[credential, directory]);
        self.serves_this_run();
        id
    }

    fn join_kubelet(&mut self, member: &Member, stage: Stage, config: &str, needs: &[StepId]) -> StepId {
        let phase = Phase {
            goal: BootstrapGoal::Node,
            argv: kubeadm(&["join", "--config", config, "--skip-phases", "preflight"]),
            creates: vec![kubernetes("kubelet.conf")],
            claims: kubeadm_claims(member.role(), &self.input.record.fixed),
            effects: vec![ClusterEffect::Node {
                name: member.name.clone(),
            }],
        };
        self.bootstrap(StepKind::kubelet_join(member.role()), member, stage, needs, phase)
    }

    /// Adds the steps that make a control plane of a node whose kubelet has joined; returns the one that joins etcd.
    fn join_control_plane(&mut self, member: &Member, kubelet: StepId, last_etcd_join: Option<StepId>) -> StepId {
        let stage = Stage::JoinControlPlanes;
        // INVARIANT: etcd members join one at a time, each after the one before is healthy; kubeadm's check-etcd phase checks the health.
        let mut needs = vec![kubelet.clone()];
        needs.extend(last_etcd_join);
        needs.extend(self.api_server_files(member));
        let join = |goal, skip: &str, creates: Vec<PathBuf>, effects: Vec<ClusterEffect>| Phase {
            goal,
            argv: kubeadm(&["join", "--config", layout::KUBEADM_CONFIG, "--skip-phases", skip]),
            creates,
            // The kubelet's step claims all that the static pods make, because nothing of that can be removed under a running kubelet.
            claims: Claims::default(),
            effects,
        };
        let member_of_etcd = ClusterEffect::EtcdMember {
            name: member.name.to_string(),
            peer_url: format!("https://{}:2380", member.address),
        };
        let etcd = join(
            BootstrapGoal::ControlPlane,
            "preflight,kubelet-start,kubelet-wait-bootstrap,control-plane-join,wait-control-plane",
            vec![
                kubernetes("manifests/etcd.yaml"),
                kubernetes("manifests/kube-apiserver.yaml"),
            ],
            vec![member_of_etcd],
        );
        let etcd = self.bootstrap(StepKind::JoinControlPlane, member, stage, &needs, etcd);
        if let Some(step) = self.plan.steps.last_mut() {
            step.redo = vec![kubelet];
        }
        let finish = join(
            BootstrapGoal::AnnouncedControlPlane,
            "preflight,control-plane-prepare,check-etcd,kubelet-start,etcd-join,kubelet-wait-bootstrap",
            vec![],
            vec![],
        );
        let needs = [etcd.clone(), self.join_credential_on(member)];
        self.bootstrap(StepKind::FinishControlPlane, member, stage, &needs, finish);
        etcd
    }

    /// Returns the step that copies the credential to a node that joins.
    pub(super) fn join_credential_on(&self, member: &Member) -> StepId {
        if member.name == self.lead.name {
            StepKind::JoinCredential.on(&member.name)
        } else {
            StepKind::JoinKubeconfig.on(&member.name)
        }
    }

    /// Returns the step after which a member's kubeconfigs exist. A founder's exist once it has founded.
    fn joined(&self, member: &Member) -> StepId {
        match member.joins {
            Joins::Init(_) | Joins::Cofounder(_) => StepKind::Init.on(&member.name),
            Joins::ControlPlane { .. } => StepKind::FinishControlPlane.on(&member.name),
            Joins::Worker(_) => StepKind::JoinWorker.on(&member.name),
        }
    }

    /// Kubeconfigs that earlier versions made name the API by a name in the hosts file. (Those of the controller manager and the
    /// scheduler name the node's own API server by its address: kubeadm 1.37, phases/kubeconfig.) On a new node nothing is to be done.
    pub(super) fn kubeconfigs(&mut self, member: &Member) {
        let mut files = vec![("kubelet.conf", Some("kubelet.service"))];
        match member.joins {
            Joins::Init(_) | Joins::Cofounder(_) => {
                files.extend([("admin.conf", None), ("super-admin.conf", None)]);
            }
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
            let id = StepKind::Server.part_on(name, &member.name);
            let needs = std::slice::from_ref(&joined);
            self.add(id, &member.name, Stage::Network, needs, QUICK_S, action);
        }
    }

    fn shared_pki(&mut self, member: &Member) -> Vec<StepId> {
        let node = &member.name;
        let pki = Path::new(layout::KUBERNETES_DIR).join("pki");
        let parent = StepKind::Directory(DirectoryKind::Kubernetes).on(node);
        let directory = Action::Directory {
            path: pki.join("etcd"),
            mode: 0o755,
        };
        let kind = StepKind::Directory(DirectoryKind::Pki);
        let directory = self.prepare_step(kind, member, &[parent], directory);
        let mut needs = vec![directory];
        needs.extend(self.founded_by(StepKind::Certificates));
        SHARED_PKI
            .iter()
            .map(|name| {
                let source = SecretSource {
                    node: self.lead.name.clone(),
                    path: pki.join(name),
                };
                self.plan.secrets.insert(secret_id(&format!("pki/{name}")), source);
                let content = Content::Secret(secret_id(&format!("pki/{name}")));
                self.file(
                    StepKind::Pki.part_on(name, node),
                    member,
                    pki.join(name),
                    content,
                    &needs,
                )
            })
            .collect()
    }
}
