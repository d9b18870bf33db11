//! What every member needs before kubeadm runs: claims, kernel, files, programs, units, images.

use super::{BULK_S, Member, Planner, QUICK_S, binary_step, bundle_role, kubeadm, step_of, steps_of, unit_word};
use crate::action::{Action, Claims, Content, FeatureEvidence, KernelFeature};
use crate::bundle_index::BinaryPlace;
use crate::layout;
use crate::name::{Digest, StepId};
use crate::plan::claims::daemon_claims;
use crate::plan::install::Joins;
use crate::plan::{PlanError, Stage};
use std::path::Path;

impl Planner<'_> {
    /// Steps that every member needs before kubeadm runs; ends in `ready/<node>`-like needs by name.
    pub(super) fn prepare(&mut self, member: &Member) -> Result<(), PlanError> {
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
            needs.extend(program.iter().map(|p| step_of(&binary_step(p), member)));
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
        let containerd = step_of("unit/containerd", member);
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
        let needs = steps_of(&needs, member);
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
