//! Plans what every member needs before kubeadm runs: claims, kernel, files, programs, units, images.

use super::{BULK_S, InstallMoves, KUBEADM_S, Member, QUICK_S, StepKind, bundle_role, kubeadm, unit_word};
use crate::action::{Action, Claims, ClusterCondition, Content, FeatureEvidence, KernelFeature, Undo, Wanted};
use crate::bundle_index::{BinaryPlace, BundleIndex, Image};
use crate::journal::{Entry, EntryState};
use crate::layout;
use crate::name::{Digest, NodeName, StepId};
use crate::packet_filter::openings::Openings;
use crate::plan::claims::daemon_claims;
use crate::plan::install::Joins;
use crate::plan::key::{DirectoryKind, has_joined};
use crate::plan::pending::undo_step;
use crate::plan::{PlanError, Stage};
use std::path::Path;

/// Programs that every member needs.
const NEEDED_PROGRAMS: [&str; 7] = [
    "kubeadm",
    "kubelet",
    "containerd",
    "containerd-shim-runc-v2",
    "ctr",
    "runc",
    "landfall",
];

/// Units of earlier versions, by the part in their steps' ids. `landfall-node-settings` has replaced this one.
const FORMER_UNITS: [&str; 1] = ["landfall-service-route"];

/// Directories that every member has.
const DIRECTORIES: [(DirectoryKind, &str); 6] = [
    (DirectoryKind::Config, layout::CONFIG_DIR),
    (DirectoryKind::CniConf, layout::CNI_CONF_DIR),
    (DirectoryKind::CniBin, layout::CNI_BIN_DIR),
    (DirectoryKind::Kubernetes, layout::KUBERNETES_DIR),
    // Pods mount these two, and the kubelet would make them. An undo removes them only when they are empty.
    (DirectoryKind::Modules, "/lib/modules"),
    (DirectoryKind::Certificates, "/etc/ssl/certs"),
];

impl InstallMoves<'_> {
    /// Steps that every member needs before kubeadm runs.
    pub(super) fn prepare(&mut self, member: &Member) -> Result<(), PlanError> {
        let claims = daemon_claims(&self.input.record.fixed);
        let claim = self.prepare_step(StepKind::Claim, member, &[], Action::Claim { claims });
        let after_claim = std::slice::from_ref(&claim);
        let sysctls = self.kernel(member, after_claim);
        let lines = self.input.hosts_lines.clone();
        self.prepare_step(StepKind::Hosts, member, after_claim, Action::HostsLines { lines });
        let mut directories = vec![claim.clone(), sysctls];
        let bin_dir = self.input.record.fixed.bin_dir;
        let bin = (!bin_dir.is_default()).then_some((DirectoryKind::Bin, bin_dir.path()));
        for (kind, path) in DIRECTORIES.into_iter().chain(bin) {
            let action = Action::Directory {
                path: path.into(),
                mode: 0o755,
            };
            directories.push(self.prepare_step(StepKind::Directory(kind), member, after_claim, action));
        }
        let mut configured = directories.clone();
        configured.extend(self.configuration(member, &directories));
        for (name, text) in &member.units {
            let path = Path::new(layout::UNIT_DIR).join(name);
            let id = StepKind::UnitFile.part_on(unit_word(name), &member.name);
            configured.push(self.file(id, member, path, Content::Text(text.clone()), after_claim));
        }
        self.binaries(member, &directories)?;
        configured.extend(self.stop_former_units(member));
        self.units(member, &configured);
        self.images(member);
        Ok(())
    }

    /// Plans to open packet filters, or to take an earlier run's rules away when the spec leaves them as they are. The rules need nothing else of landfall's.
    pub(super) fn firewall(&mut self, member: &Member) {
        let id = StepKind::Firewall.on(&member.name);
        let earlier = self.input.owned.get(&member.name).and_then(|own| own.newest(&id));
        let earlier = match earlier.and_then(|entry| entry.wanted.as_ref()) {
            Some(Wanted::Firewall(openings)) => Some(openings),
            _ => None,
        };
        let closed = || {
            earlier.map(|openings| Openings {
                accept: vec![],
                ..openings.clone()
            })
        };
        if let Some(openings) = member.openings.clone().or_else(closed) {
            let opens = !openings.accept.is_empty();
            let claim = StepKind::Claim.on(&member.name);
            let action = Action::Firewall { openings };
            // ufw takes part of a second for each of its rules, and there is one for each member.
            let id = self.add(id, &member.name, Stage::Prepare, &[claim], BULK_S, action);
            self.opened.extend(Some(id).filter(|_| opens));
        }
    }

    /// Kernel features and settings, now and after the next boot; returns the step that sets them.
    fn kernel(&mut self, member: &Member, after_claim: &[StepId]) -> StepId {
        let features = kernel_features();
        let modules: String = features.iter().map(|f| format!("{}\n", f.module)).collect();
        let features = Action::KernelFeatures { features };
        let features = self.prepare_step(StepKind::KernelFeatures, member, after_claim, features);
        let id = StepKind::ModulesFile.on(&member.name);
        self.file(id, member, layout::MODULES_FILE, Content::Text(modules), after_claim);
        let settings = self.input.sysctls.clone();
        let text = settings
            .iter()
            .map(|(name, value)| format!("{name} = {value}\n"))
            .collect();
        let id = StepKind::SysctlFile.on(&member.name);
        self.file(id, member, layout::SYSCTL_FILE, Content::Text(text), after_claim);
        self.prepare_step(StepKind::Sysctls, member, &[features], Action::Sysctls { settings })
    }

    /// Configuration files, each of kubeadm's with a check by kubeadm itself.
    fn configuration(&mut self, member: &Member, directories: &[StepId]) -> Vec<StepId> {
        let (kubeadm_config, kubelet_config) = match &member.joins {
            Joins::Init(config) | Joins::Cofounder(config) | Joins::Worker(config) => (config, None),
            Joins::ControlPlane { kubelet, control_plane } => (control_plane, Some(kubelet)),
        };
        let mut files = vec![
            (
                StepKind::ContainerdConfig,
                layout::CONTAINERD_CONFIG,
                &member.containerd_config,
            ),
            (StepKind::CniTemplate, layout::CNI_TEMPLATE, &member.cni_template),
            (StepKind::ResolvConf, layout::RESOLV_CONF, &member.resolv_conf),
            (StepKind::KubeadmConfig, layout::KUBEADM_CONFIG, kubeadm_config),
        ];
        files.extend(kubelet_config.map(|text| (StepKind::KubeletJoinConfig, layout::KUBELET_JOIN_CONFIG, text)));
        let credential_config = member.credential_config.as_ref();
        files.extend(credential_config.map(|text| (StepKind::ClusterConfig, layout::CLUSTER_CONFIG, text)));
        let write = |(kind, path, text): (StepKind, &str, &String)| {
            self.file(
                kind.on(&member.name),
                member,
                path,
                Content::Text(text.clone()),
                directories,
            )
        };
        let written = files.into_iter().map(write).collect();
        let config = (StepKind::KubeadmConfigValid, StepKind::KubeadmConfig);
        self.validate(config, member, layout::KUBEADM_CONFIG, kubeadm_config);
        if let Some(text) = kubelet_config {
            let config = (StepKind::KubeletJoinConfigValid, StepKind::KubeletJoinConfig);
            self.validate(config, member, layout::KUBELET_JOIN_CONFIG, text);
        }
        written
    }

    fn binaries(&mut self, member: &Member, needs: &[StepId]) -> Result<(), PlanError> {
        let role = bundle_role(member.role());
        let index = self.input.index;
        for binary in index.binaries().iter().filter(|b| b.roles.contains(&role)) {
            let directory = match binary.place {
                BinaryPlace::Bin => self.input.record.fixed.bin_dir.path(),
                BinaryPlace::Cni => layout::CNI_BIN_DIR,
            };
            let action = Action::Binary {
                path: Path::new(directory).join(&binary.name),
                blob: binary.blob,
                digest: binary.digest,
                size_bytes: binary.size_bytes,
            };
            let id = StepKind::Binary.part_on(&binary.name, &member.name);
            self.add(id, &member.name, Stage::Prepare, needs, BULK_S, action);
        }
        let has = |program: &&str| {
            index
                .binaries()
                .iter()
                .any(|b| b.name == **program && b.roles.contains(&role))
        };
        match NEEDED_PROGRAMS.iter().find(|program| !has(program)) {
            Some(program) => Err(PlanError::MissingFromBundle(format!("program {program}"))),
            None => Ok(()),
        }
    }

    /// Stops units of earlier versions, before those that take their place start.
    fn stop_former_units(&mut self, member: &Member) -> Vec<StepId> {
        let own = self.input.owned.get(&member.name);
        let has = |word: &&&str| {
            let id = StepKind::Unit.part_on(word, &member.name);
            own.is_some_and(|own| own.newest(&id).is_some())
        };
        let former: Vec<&str> = FORMER_UNITS.iter().filter(has).copied().collect();
        let stop = |word: &str| {
            let id = StepKind::StopUnit.part_on(word, &member.name);
            let name = format!("{word}.service");
            let action = Action::StopUnit { name };
            self.add(id, &member.name, Stage::Prepare, &[], QUICK_S, action)
        };
        former.into_iter().map(stop).collect()
    }

    /// Plans the units: they are started, or restarted when their file, configuration or programs have changed. Daemons that run Pods, or that the
    /// node reaches the API through, are restarted on one node after the other, each Ready again before the next.
    fn units(&mut self, member: &Member, configured: &[StepId]) {
        for (name, text) in &member.units {
            let word = unit_word(name);
            let programs: &[&str] = match word {
                "containerd" => &["containerd", "containerd-shim-runc-v2", "ctr", "runc"],
                "kubelet" => &["kubelet"],
                _ => &["landfall"],
            };
            let mut needs = configured.to_vec();
            needs.extend(programs.iter().map(|p| StepKind::Binary.part_on(p, &member.name)));
            let mut reads = text.clone();
            if word == "containerd" {
                reads.push_str(&member.containerd_config);
            }
            // containerd starts its shim and runc anew for each container: only the daemon itself has to be restarted for its program.
            for program in &programs[..1] {
                let digest = self
                    .input
                    .index
                    .binaries()
                    .iter()
                    .find(|b| b.name == *program)
                    .map(|b| b.digest);
                reads.extend(digest.map(|d| d.to_string()));
            }
            let action = Action::Unit {
                name: name.clone(),
                start: word != "kubelet",
                restart_on: Digest::of(reads.as_bytes()),
            };
            let id = StepKind::Unit.part_on(word, &member.name);
            let restarts = self.will_restart(&member.name, &id, &action);
            if restarts {
                needs.extend(self.last_restart.clone());
            }
            let id = self.add(id, &member.name, Stage::Prepare, &needs, QUICK_S, action);
            if restarts {
                self.last_restart = Some(self.ready_again(&member.name, id));
            }
        }
    }

    /// Says whether this step restarts a daemon of a node that may be Ready: it has joined, and there is a pod network.
    fn will_restart(&self, node: &NodeName, id: &StepId, action: &Action) -> bool {
        let Some(own) = self.input.owned.get(node) else {
            return false;
        };
        let noticed = ["kubelet", "containerd", "landfall-api-balancer"].map(|unit| StepKind::Unit.part_on(unit, node));
        let entry = own.newest(id);
        let changed = entry.is_some_and(|e| e.state != EntryState::Owned || e.action != action.identity());
        noticed.contains(id) && changed && has_joined(own) && self.has_network()
    }

    /// Says whether the pod network was applied. No node is Ready before.
    fn has_network(&self) -> bool {
        let flannel = StepKind::Apply.part_of_cluster("flannel");
        let mut entries = self.input.owned.values().filter_map(|own| own.newest(&flannel));
        entries.any(|entry| entry.state == EntryState::Owned)
    }

    fn ready_again(&mut self, node: &NodeName, unit: StepId) -> StepId {
        let action = Action::Await {
            condition: ClusterCondition::NodesReady(vec![node.clone()]),
        };
        let part = unit
            .as_str()
            .trim_start_matches("unit/")
            .split('/')
            .next()
            .unwrap_or_default()
            .to_owned();
        let id = StepKind::NodeReadyAgain.part_on(&part, node);
        let lead = self.lead.name.clone();
        self.add(id, &lead, Stage::Prepare, &[unit], KUBEADM_S, action)
    }

    /// Plans the images: a step for each repository, so that one is imported while the blobs of the next still come. One after the other: an import
    /// keeps a core busy, and the node has other steps to do.
    fn images(&mut self, member: &Member) {
        let containerd = StepKind::Unit.part_on("containerd", &member.name);
        let steps = self.image_steps(member);
        let undone = self.take_back_images(member, &steps, &containerd);
        let mut after = containerd;
        for (id, images) in steps {
            let mut needs = vec![after];
            let removes = |undo: &Undo| match undo {
                Undo::RemoveImages { references } => {
                    let mut names = images.iter().map(|image| image.reference.as_str());
                    names.any(|name| references.iter().any(|removed| removed == name))
                }
                _ => false,
            };
            let first = undone.iter().filter(|(_, undo)| removes(undo));
            needs.extend(first.map(|(id, _)| id.clone()));
            after = self.add(
                id,
                &member.name,
                Stage::Images,
                &needs,
                BULK_S,
                Action::Images { images },
            );
        }
    }

    /// Returns the steps that import a member's images, in the order of the index. No two of them name the same image, in whichever bundle: what is
    /// undone of one leaves the others.
    pub(super) fn image_steps(&self, member: &Member) -> Vec<(StepId, Vec<Image>)> {
        let (index, role) = (self.input.index, bundle_role(member.role()));
        let mut steps: Vec<(StepId, Vec<Image>)> = vec![];
        for image in index.images().iter().filter(|i| i.roles.contains(&role)) {
            let id = StepKind::Images.part_on(&image_part(index, image), &member.name);
            match steps.iter_mut().find(|(known, _)| *known == id) {
                Some((_, images)) => images.push(image.clone()),
                None => steps.push((id, vec![image.clone()])),
            }
        }
        steps
    }

    /// Takes back imports that were interrupted and that no step of this plan repeats: an earlier landfall had one step for all images, or another bundle
    /// had others. Returns the undoing steps with what they undo.
    fn take_back_images(
        &mut self,
        member: &Member,
        steps: &[(StepId, Vec<Image>)],
        containerd: &StepId,
    ) -> Vec<(StepId, Undo)> {
        let input = self.input;
        let own = input.owned.get(&member.name);
        let entries = own.into_iter().flat_map(|own| &own.entries);
        let interrupted = entries.filter(|entry| {
            entry.state != EntryState::Owned
                && StepKind::Images.is_kind_of(&entry.step)
                && !steps.iter().any(|(id, _)| *id == entry.step)
        });
        let undo = |entry: &Entry| {
            let node = member.name.clone();
            let step = undo_step(StepKind::TakeBack, Stage::Images, node, &entry.step, QUICK_S);
            let id = self.plan.add(step.after(vec![containerd.clone()]));
            (id, entry.undo.clone())
        };
        interrupted.map(undo).collect()
    }

    /// Plans to let kubeadm validate a configuration before it is used. The digest makes a changed configuration another action.
    fn validate(&mut self, (valid, config): (StepKind, StepKind), member: &Member, path: &str, text: &str) {
        let mut needs = vec![
            config.on(&member.name),
            StepKind::Binary.part_on("kubeadm", &member.name),
        ];
        if !member.founds() {
            // A file that the configuration names must be there.
            needs.push(self.join_credential_on(member));
        }
        let action = Action::Run {
            argv: kubeadm(&["config", "validate", "--config", path]),
            env: vec![(
                "LANDFALL_CONFIG_DIGEST".to_owned(),
                Digest::of(text.as_bytes()).to_string(),
            )],
            creates: vec![],
            claims: Claims::default(),
            effects: vec![],
            stdout: None,
        };
        self.prepare_step(valid, member, &needs, action);
    }
}

/// Returns what names a repository in a step's id. Ids have fewer characters than repositories: where one is replaced, a digest keeps them apart.
fn image_part(index: &BundleIndex, image: &Image) -> String {
    let repository = index.own_name(image).unwrap_or(image.reference.repository());
    let is_allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-/.".contains(c);
    if repository.chars().all(is_allowed) {
        return repository.to_owned();
    }
    let plain: String = repository
        .chars()
        .map(|c| if is_allowed(c) { c } else { '-' })
        .collect();
    format!("{plain}-{}", &Digest::of(repository.as_bytes()).hex()[..8])
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
