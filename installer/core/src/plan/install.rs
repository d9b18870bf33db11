//! Plans an installation: which steps bring each node, and then the cluster, to what is wanted.
//!
//! The order follows what really waits for what. Certificates and the join credential are made before any image is imported;
//! all kubelets join as soon as the first API server answers; only etcd members join one by one.

use super::claims::{daemon_claims, kubeadm_claims};
use super::{Plan, PlanError, SecretSource, Stage, Step};
use crate::action::{Action, Claims, ClusterCondition, ClusterEffect, Content, FeatureEvidence, KernelFeature};
use crate::bundle_index::{BinaryPlace, BundleIndex, BundleRole};
use crate::inventory::Role;
use crate::layout;
use crate::name::{Digest, NodeName, SecretId, StepId};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Everything the planner needs, already rendered and chosen.
#[derive(Debug, Clone)]
pub struct InstallInput<'a> {
    /// Members in order: control planes, then workers.
    pub members: Vec<Member>,
    /// What the bundle holds.
    pub index: &'a BundleIndex,
    /// Kernel settings every node needs.
    pub sysctls: Vec<(String, String)>,
    /// Lines for every node's hosts file.
    pub hosts_lines: Vec<String>,
    /// Audit policy for API servers.
    pub audit_policy: String,
    /// Encryption configuration with a `${random:32}` key.
    pub encryption_config: String,
    /// Kubernetes objects in groups.
    pub groups: Vec<ObjectGroup>,
}

/// One member of the cluster with its rendered files.
#[derive(Debug, Clone)]
pub struct Member {
    /// Name.
    pub name: NodeName,
    /// Address that peers use.
    pub address: IpAddr,
    /// How it becomes a member.
    pub joins: Joins,
    /// containerd's configuration.
    pub containerd_config: String,
    /// CNI template.
    pub cni_template: String,
    /// Resolver file.
    pub resolv_conf: String,
    /// Units by name, with text; all are enabled, and started unless they are the kubelet.
    pub units: Vec<(String, String)>,
}

/// How a node becomes a member, with kubeadm's configuration for it.
#[derive(Debug, Clone)]
pub enum Joins {
    /// The first control plane: `kubeadm init`.
    First(String),
    /// A further control plane: its kubelet joins first, beside everybody else's; then etcd and the API server, one node after the other.
    ControlPlane {
        /// For the kubelet.
        kubelet: String,
        /// For the rest.
        control_plane: String,
    },
    /// A worker.
    Worker(String),
}

impl Member {
    fn role(&self) -> Role {
        match self.joins {
            Joins::First(_) | Joins::ControlPlane { .. } => Role::ControlPlane,
            Joins::Worker(_) => Role::Worker,
        }
    }
}

/// Kubernetes objects that are applied together.
#[derive(Debug, Clone)]
pub struct ObjectGroup {
    /// Name, for instance `flannel`.
    pub name: String,
    /// Label.
    pub stage: Stage,
    /// Bodies.
    pub objects: Vec<serde_json::Value>,
    /// When it is applied.
    pub when: ApplyWhen,
}

/// When a group of objects is applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApplyWhen {
    /// As soon as the API answers: DaemonSets follow the nodes.
    FirstApiServer,
    /// When all nodes are Ready, so that replicas spread: the scheduler takes no other.
    AllReady,
}

/// Certificates and keys of the authorities that every control plane shares (kubeadm's names).
const SHARED_PKI: [&str; 8] = [
    "ca.crt",
    "ca.key",
    "sa.key",
    "sa.pub",
    "front-proxy-ca.crt",
    "front-proxy-ca.key",
    "etcd/ca.crt",
    "etcd/ca.key",
];

/// Seconds for a step that writes a file or asks systemd for something quick.
const QUICK_S: u64 = 60;
/// Seconds for a step that moves hundreds of megabytes; a slow disk writes 10 MB/s.
const BULK_S: u64 = 900;
/// Seconds for kubeadm's phases: its own waits end after 4 minutes, several follow each other.
const KUBEADM_S: u64 = 600;

/// Plans every step. Satisfied ones are taken out later, by what the nodes say.
pub fn plan_install(input: &InstallInput) -> Result<Plan, PlanError> {
    let first = input
        .members
        .first()
        .ok_or_else(|| PlanError::MissingFromBundle("control plane node".to_owned()))?;
    let mut planner = Planner {
        input,
        first: &first.name,
        plan: Plan::default(),
    };
    for member in &input.members {
        planner.prepare(member)?;
    }
    planner.first_control_plane(first)?;
    planner.join_all()?;
    planner.objects()?;
    planner.plan.check()?;
    Ok(planner.plan)
}

struct Planner<'a> {
    input: &'a InstallInput<'a>,
    first: &'a NodeName,
    plan: Plan,
}

fn id(text: String) -> StepId {
    text.parse()
        .expect("step names are made of fixed words and node names, which are valid")
}

fn secret_id(text: &str) -> SecretId {
    text.to_ascii_lowercase().parse().expect("secret names are fixed words")
}

impl Planner<'_> {
    fn add(
        &mut self,
        what: &str,
        member: &Member,
        stage: Stage,
        needs: &[StepId],
        deadline_s: u64,
        action: Action,
    ) -> StepId {
        let id = id(format!("{what}/{}", member.name));
        self.plan.steps.push(Step {
            id: id.clone(),
            stage,
            node: member.name.clone(),
            needs: needs.to_vec(),
            deadline_s,
            action,
            redo: vec![],
        });
        id
    }

    fn file(
        &mut self,
        what: &str,
        member: &Member,
        path: impl Into<PathBuf>,
        content: Content,
        needs: &[StepId],
    ) -> StepId {
        let mode = if matches!(content, Content::Text(_)) {
            0o644
        } else {
            0o600
        };
        let action = Action::File {
            path: path.into(),
            mode,
            content,
        };
        self.add(what, member, Stage::Prepare, needs, QUICK_S, action)
    }

    /// Steps that every member needs before kubeadm runs; ends in `ready/<node>`-like needs by name.
    fn prepare(&mut self, member: &Member) -> Result<(), PlanError> {
        let claim = self.add(
            "claim",
            member,
            Stage::Prepare,
            &[],
            QUICK_S,
            Action::Claim {
                claims: daemon_claims(),
            },
        );
        let features = self.add(
            "kernel-features",
            member,
            Stage::Prepare,
            std::slice::from_ref(&claim),
            QUICK_S,
            Action::KernelFeatures {
                features: kernel_features(),
            },
        );
        let after_claim = std::slice::from_ref(&claim);
        let modules: String = kernel_features().iter().map(|f| format!("{}\n", f.module)).collect();
        self.file(
            "modules-file",
            member,
            layout::MODULES_FILE,
            Content::Text(modules),
            after_claim,
        );
        let settings: String = self
            .input
            .sysctls
            .iter()
            .map(|(name, value)| format!("{name} = {value}\n"))
            .collect();
        self.file(
            "sysctl-file",
            member,
            layout::SYSCTL_FILE,
            Content::Text(settings),
            after_claim,
        );
        let sysctls = self.add(
            "sysctls",
            member,
            Stage::Prepare,
            &[features],
            QUICK_S,
            Action::Sysctls {
                settings: self.input.sysctls.clone(),
            },
        );
        let hosts_lines = self.input.hosts_lines.clone();
        self.add(
            "hosts",
            member,
            Stage::Prepare,
            after_claim,
            QUICK_S,
            Action::HostsLines { lines: hosts_lines },
        );

        let mut configured = vec![claim.clone(), sysctls];
        for (what, path) in [
            ("dir-config", layout::CONFIG_DIR),
            ("dir-cni-conf", layout::CNI_CONF_DIR),
            ("dir-cni-bin", layout::CNI_BIN_DIR),
            ("dir-kubernetes", layout::KUBERNETES_DIR),
            // Pods mount these two; the kubelet would make them. They go again only when they are empty.
            ("dir-modules", "/lib/modules"),
            ("dir-certificates", "/etc/ssl/certs"),
        ] {
            let action = Action::Directory {
                path: path.into(),
                mode: 0o755,
            };
            configured.push(self.add(what, member, Stage::Prepare, after_claim, QUICK_S, action));
        }
        let (kubeadm_config, kubelet_config) = match &member.joins {
            Joins::First(config) | Joins::Worker(config) => (config, None),
            Joins::ControlPlane { kubelet, control_plane } => (control_plane, Some(kubelet)),
        };
        let texts = [
            (
                "containerd-config",
                layout::CONTAINERD_CONFIG,
                &member.containerd_config,
            ),
            ("cni-template", layout::CNI_TEMPLATE, &member.cni_template),
            ("resolv-conf", layout::RESOLV_CONF, &member.resolv_conf),
            ("kubeadm-config", layout::KUBEADM_CONFIG, kubeadm_config),
        ];
        let directories = configured.clone();
        let kubelet_config = kubelet_config.map(|text| ("kubelet-join-config", layout::KUBELET_JOIN_CONFIG, text));
        for (what, path, text) in texts.into_iter().chain(kubelet_config) {
            configured.push(self.file(what, member, path, Content::Text(text.clone()), &directories));
        }
        for (name, text) in &member.units {
            let path = Path::new(layout::UNIT_DIR).join(name);
            configured.push(self.file(
                &format!("unit-file/{}", unit_word(name)),
                member,
                path,
                Content::Text(text.clone()),
                after_claim,
            ));
        }
        self.binaries(member, &directories)?;
        self.validate("kubeadm-config", member, layout::KUBEADM_CONFIG, kubeadm_config);
        if let Some((what, path, text)) = kubelet_config {
            self.validate(what, member, path, text);
        }
        self.units(member, &configured)
    }

    fn binaries(&mut self, member: &Member, needs: &[StepId]) -> Result<(), PlanError> {
        let role = bundle_role(member.role());
        for binary in self.input.index.binaries.iter().filter(|b| b.roles.contains(&role)) {
            let directory = match binary.place {
                BinaryPlace::Bin => layout::BIN_DIR,
                BinaryPlace::Cni => layout::CNI_BIN_DIR,
            };
            let action = Action::Binary {
                path: Path::new(directory).join(&binary.name),
                blob: binary.blob,
                digest: binary.digest,
                size_bytes: binary.size_bytes,
            };
            self.add(
                &binary_step(&binary.name),
                member,
                Stage::Prepare,
                needs,
                BULK_S,
                action,
            );
        }
        for program in [
            "kubeadm",
            "kubelet",
            "containerd",
            "containerd-shim-runc-v2",
            "ctr",
            "runc",
            "landfall",
        ] {
            if !self
                .input
                .index
                .binaries
                .iter()
                .any(|b| b.name == program && b.roles.contains(&role))
            {
                return Err(PlanError::MissingFromBundle(format!("program {program}")));
            }
        }
        Ok(())
    }

    fn units(&mut self, member: &Member, configured: &[StepId]) -> Result<(), PlanError> {
        for (name, text) in &member.units {
            let word = unit_word(name);
            let mut needs = configured.to_vec();
            let program = match word.as_str() {
                "containerd" => vec!["containerd", "containerd-shim-runc-v2", "ctr", "runc"],
                "kubelet" => vec!["kubelet"],
                _ => vec!["landfall"],
            };
            needs.extend(
                program
                    .iter()
                    .map(|p| id(format!("{}/{}", binary_step(p), member.name))),
            );
            let configuration = if word == "containerd" {
                member.containerd_config.as_str()
            } else {
                ""
            };
            let start = word != "kubelet";
            let restart_on = Digest::of(format!("{text}\n{configuration}").as_bytes());
            let action = Action::Unit {
                name: name.clone(),
                start,
                restart_on,
            };
            self.add(&format!("unit/{word}"), member, Stage::Prepare, &needs, QUICK_S, action);
        }
        let role = bundle_role(member.role());
        let images: Vec<_> = self
            .input
            .index
            .images
            .iter()
            .filter(|i| i.roles.contains(&role))
            .cloned()
            .collect();
        let containerd = id(format!("unit/containerd/{}", member.name));
        self.add(
            "images",
            member,
            Stage::Images,
            &[containerd],
            BULK_S,
            Action::Images { images },
        );
        Ok(())
    }

    /// Has kubeadm check a configuration before it acts on it. The digest makes another configuration another action.
    fn validate(&mut self, what: &str, member: &Member, path: &str, config: &str) {
        let mut needs = vec![what, "binary/kubeadm"];
        if &member.name != self.first {
            // A file that the configuration names must be there.
            needs.push("join-kubeconfig");
        }
        let needs: Vec<_> = needs.iter().map(|what| id(format!("{what}/{}", member.name))).collect();
        let action = Action::Run {
            argv: kubeadm(&["config", "validate", "--config", path]),
            env: vec![(
                "LANDFALL_CONFIG_DIGEST".to_owned(),
                Digest::of(config.as_bytes()).to_string(),
            )],
            creates: vec![],
            claims: Claims::default(),
            effects: vec![],
            stdout: None,
        };
        self.add(
            &format!("{what}-valid"),
            member,
            Stage::Prepare,
            &needs,
            QUICK_S,
            action,
        );
    }

    /// What kubeadm needs on a node, by name.
    fn ready_for_kubeadm(&self, member: &Member) -> Vec<StepId> {
        let mut needs: Vec<_> = [
            "kubeadm-config-valid",
            "images",
            "hosts",
            "binary/kubeadm",
            "modules-file",
            "sysctl-file",
        ]
        .iter()
        .map(|what| id(format!("{what}/{}", member.name)))
        .collect();
        needs.extend(
            member
                .units
                .iter()
                .map(|(name, _)| id(format!("unit/{}/{}", unit_word(name), member.name))),
        );
        needs.extend(
            self.input
                .index
                .binaries
                .iter()
                .filter(|b| b.place == BinaryPlace::Cni && b.roles.contains(&bundle_role(member.role())))
                .map(|b| id(format!("{}/{}", binary_step(&b.name), member.name))),
        );
        needs
    }

    fn first_control_plane(&mut self, first: &Member) -> Result<(), PlanError> {
        let config_ready: Vec<_> = [
            "kubeadm-config-valid",
            "kubeadm-config",
            "binary/kubeadm",
            "dir-kubernetes",
            "hosts",
        ]
        .iter()
        .map(|what| id(format!("{what}/{}", first.name)))
        .collect();
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
        Ok(())
    }

    /// Audit policy and encryption configuration; the key is made on the first control plane and shared.
    fn api_server_files(&mut self, member: &Member) -> Vec<StepId> {
        let directory = Action::Directory {
            path: layout::API_SERVER_DIR.into(),
            mode: 0o700,
        };
        let parent = id(format!("dir-kubernetes/{}", member.name));
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
            needs.push(id(format!("encryption-config/{}", self.first)));
            Content::Secret(secret_id("encryption-config"))
        };
        vec![
            policy,
            self.file("encryption-config", member, encryption_path, content, &needs),
        ]
    }

    /// Kubelets join side by side; etcd members one by one, while control planes that have theirs are finished beside it.
    fn join_all(&mut self) -> Result<(), PlanError> {
        let input = self.input;
        let init = id(format!("init/{}", self.first));
        let mut last_etcd_join = init.clone();
        for member in &input.members[1..] {
            let credential = id(format!("join-credential/{}", self.first));
            let directory = id(format!("dir-kubernetes/{}", member.name));
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
                needs.push(id(format!("kubelet-join-config-valid/{}", member.name)));
                // The kubelet watches this folder from its start only when it is there; else it looks every 20 s (pkg/kubelet/config).
                let manifests = Action::Directory {
                    path: kubernetes("manifests"),
                    mode: 0o755,
                };
                let parent = id(format!("dir-kubernetes/{}", member.name));
                needs.push(self.add("dir-manifests", member, Stage::Prepare, &[parent], QUICK_S, manifests));
                let config = layout::KUBELET_JOIN_CONFIG;
                let kubelet = self.join_kubelet("join-kubelet", member, Stage::JoinControlPlanes, config, &needs);
                last_etcd_join = self.join_control_plane(member, kubelet, last_etcd_join);
            }
        }
        Ok(())
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

    fn shared_pki(&mut self, member: &Member) -> Vec<StepId> {
        let pki = Path::new(layout::KUBERNETES_DIR).join("pki");
        let parent = id(format!("dir-kubernetes/{}", member.name));
        let directory = Action::Directory {
            path: pki.join("etcd"),
            mode: 0o755,
        };
        let directory = self.add("dir-pki", member, Stage::Prepare, &[parent], QUICK_S, directory);
        let made = id(format!("certificates/{}", self.first));
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

    fn objects(&mut self) -> Result<(), PlanError> {
        let input = self.input;
        let first = &input.members[0];
        let init = id(format!("init/{}", self.first));
        let step_of = |what: &str, member: &Member| id(format!("{what}/{}", member.name));
        let kubelets = input.members[1..].iter().map(|m| match m.role() {
            Role::ControlPlane => step_of("join-kubelet", m),
            _ => step_of("join-worker", m),
        });
        let all_joined: Vec<_> = std::iter::once(init.clone()).chain(kubelets).collect();
        let further = input.members[1..].iter().filter(|m| m.role() == Role::ControlPlane);
        let mut all_finished = all_joined.clone();
        all_finished.extend(further.map(|m| step_of("finish-control-plane", m)));
        let condition = ClusterCondition::NodesReady(input.members.iter().map(|m| m.name.clone()).collect());
        let ready = Action::Await { condition };
        let ready = self.add("nodes-ready", first, Stage::Network, &all_joined, KUBEADM_S, ready);
        let mut awaited: BTreeMap<StepId, Vec<ClusterCondition>> = BTreeMap::new();
        for group in &input.groups {
            let needs = match group.when {
                ApplyWhen::FirstApiServer => vec![init.clone()],
                ApplyWhen::AllReady => vec![ready.clone()],
            };
            let action = Action::Apply {
                objects: group.objects.clone(),
            };
            let applied = self.add(
                &format!("apply-{}", group.name),
                first,
                group.stage,
                &needs,
                KUBEADM_S,
                action,
            );
            awaited.insert(applied, rollouts(&group.objects));
        }
        for (applied, conditions) in awaited {
            for condition in conditions {
                let ClusterCondition::RolledOut { name, .. } = &condition else {
                    continue;
                };
                let mut needs = all_finished.clone();
                needs.push(applied.clone());
                let what = format!("rolled-out/{name}");
                self.add(
                    &what,
                    first,
                    Stage::Sample,
                    &needs,
                    KUBEADM_S,
                    Action::Await { condition },
                );
            }
        }
        Ok(())
    }
}

/// Lists the workloads among objects.
fn rollouts(objects: &[serde_json::Value]) -> Vec<ClusterCondition> {
    objects
        .iter()
        .filter_map(|object| {
            let kind = object["kind"].as_str()?;
            let text = |key: &str| object["metadata"][key].as_str().unwrap_or("default").to_owned();
            matches!(kind, "Deployment" | "DaemonSet").then(|| ClusterCondition::RolledOut {
                kind: kind.to_owned(),
                namespace: text("namespace"),
                name: text("name"),
            })
        })
        .collect()
}

fn kubeadm(args: &[&str]) -> Vec<String> {
    std::iter::once("kubeadm")
        .chain(args.iter().copied())
        .map(str::to_owned)
        .collect()
}

fn kubernetes(name: &str) -> PathBuf {
    Path::new(layout::KUBERNETES_DIR).join(name)
}

fn unit_word(name: &str) -> String {
    name.trim_end_matches(".service").to_owned()
}

fn binary_step(name: &str) -> String {
    format!("binary/{}", name.to_ascii_lowercase())
}

fn bundle_role(role: Role) -> BundleRole {
    match role {
        Role::ControlPlane => BundleRole::ControlPlane,
        Role::Worker | Role::Outside => BundleRole::Worker,
    }
}

/// Kernel features that must be there before anything starts.
pub fn kernel_features() -> Vec<KernelFeature> {
    vec![
        KernelFeature {
            module: "overlay".to_owned(),
            evidence: FeatureEvidence::Filesystem("overlay".to_owned()),
        },
        KernelFeature {
            module: "br_netfilter".to_owned(),
            evidence: FeatureEvidence::Path("/proc/sys/net/bridge/bridge-nf-call-iptables".into()),
        },
        KernelFeature {
            module: "nf_conntrack".to_owned(),
            evidence: FeatureEvidence::Path("/proc/sys/net/netfilter/nf_conntrack_max".into()),
        },
        KernelFeature {
            module: "nf_tables".to_owned(),
            evidence: FeatureEvidence::Nftables,
        },
        KernelFeature {
            // Built in or loaded, it shows here, because it has parameters.
            module: "vxlan".to_owned(),
            evidence: FeatureEvidence::Path("/sys/module/vxlan".into()),
        },
    ]
}
