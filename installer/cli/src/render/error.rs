//! Renders errors as text: what, where, what was seen, why, what to do next.

use landfall_core::explain::Diagnosis;
use std::collections::BTreeMap;

/// Renders all errors; those that differ only in the machine are merged.
pub fn errors(errors: &[Diagnosis]) -> String {
    let mut alike: Vec<(Diagnosis, Vec<String>)> = Vec::new();
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    for error in errors {
        let mut key = error.clone();
        let node = key.node.take();
        key.step = None;
        let text = format!("{key:?}");
        let at = *known.entry(text).or_insert_with(|| {
            alike.push((error.clone(), vec![]));
            alike.len() - 1
        });
        alike[at].1.extend(node.map(|n| n.to_string()));
    }
    alike.iter().map(|(error, nodes)| one(error, nodes)).collect()
}

fn one(error: &Diagnosis, nodes: &[String]) -> String {
    let mut text = format!("error[{}]: {}\n", error.code, error.what);
    if !nodes.is_empty() {
        text.push_str(&format!("  on:   {}\n", nodes.join(", ")));
    }
    if let Some(step) = &error.step {
        text.push_str(&format!("  step: {step}\n"));
    }
    let parts = [("saw: ", &error.saw), ("why: ", &error.causes), ("next:", &error.next)];
    for (label, lines) in parts {
        for line in lines {
            text.push_str(&format!("  {label} {}\n", line.replace('\n', "\n        ")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_agent::error::AgentError;
    use landfall_bundle::trust::TrustError;
    use landfall_bundle::{Bundle, BundleError, Unverified};
    use landfall_core::explain::Code;
    use landfall_core::finding::{Check, Finding};
    use landfall_core::journal::parse_journal;
    use landfall_core::plan::file::PlanFileError;
    use landfall_core::spec::parse;
    use landfall_core::verify::{Cell, CellOutcome, VerifyReport};
    use landfall_engine::run::Outcome;
    use landfall_ssh::{SshOptions, SshTransport};
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    /// Returns one error of each code. The match has no catch-all: a new code does not compile until its error is listed here, and fails until its
    /// snapshot exists. The errors are made by the code that makes them in a run, if that needs no machine; the others repeat the text of
    /// their place of origin, which the comment names.
    #[expect(clippy::too_many_lines, reason = "a table with one error of each code")]
    fn sample(code: Code) -> Diagnosis {
        let (node, step) = ("cp-1".parse().unwrap(), "join-control-plane/cp-1".parse().unwrap());
        let at_step = |error: AgentError| error.diagnosis().on(&node).at(&step);
        let new = |what: &str| Diagnosis::new(code, what);
        match code {
            // engine/src/execute.rs
            Code::Internal => new("a step names a node that is not connected").on(&node),
            Code::Locked => AgentError::Locked("install by ann@desk, since 12:04:31 UTC".to_owned()).diagnosis().on(&node),
            Code::Interrupted => implied(&Outcome {
                interrupted: true,
                ..Outcome::default()
            }),
            Code::Usage => crate::confirm::need_terminal().unwrap_err(),
            Code::FileUnreadable => {
                let args = crate::args::InventoryArgs {
                    sources: vec!["no/such.yaml".to_owned()],
                    ..Default::default()
                };
                crate::load::read(&args, None).map(|_| ()).unwrap_err().remove(0)
            },
            Code::SpecSyntax => cluster("nodes: [\n"),
            Code::SpecValue => cluster("proxyMode: magic\nnodes: [{name: cp-1, role: control-plane, host: 10.9.0.1}]\n"),
            Code::SpecTopology => cluster("nodes: [{name: w-1, role: worker, host: 10.9.0.1}]\n"),
            Code::Unreachable => unreachable_port(),
            // ssh/src/connect.rs
            Code::HostKeyUnknown => new("the host key of 10.9.0.1 is not known")
                .on(&node)
                .saw("ssh-ed25519 SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU")
                .next("compare the fingerprint with the machine's own (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub)")
                .next("then run again with --accept-new-host-keys"),
            Code::HostKeyMismatch => new("the host key of 10.9.0.1 is not the known one")
                .on(&node)
                .saw("ssh-ed25519 SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU")
                .saw("another key is in /home/ann/.ssh/known_hosts:3")
                .next("find out why before anything else: somebody may intercept the connection")
                .next("if the machine was set up anew: ssh-keygen -R '[10.9.0.1]:22' and ssh-keygen -R 10.9.0.1"),
            // ssh/src/auth.rs
            Code::LoginRefused => new("the login of admin on 10.9.0.1 was refused")
                .on(&node)
                .saw("the server offers: publickey")
                .next("try it by hand: ssh -p 22 admin@10.9.0.1"),
            // ssh/src/start.rs
            Code::SudoRefused => new("the sudo password is wrong")
                .on(&node)
                .next("give the right one as becomePassword or becomePasswordFile in cluster.yaml, or as ansible_become_password in the inventory"),
            Code::ConnectionLost => at_step(AgentError::Stopped),
            // engine/src/session.rs
            Code::AgentStart => new("the agent did not start").on(&node).saw("cannot create directory: No space left on device"),
            Code::Protocol => AgentError::Refused("a step needs the lease".to_owned()).diagnosis().on(&node),
            // engine/src/install.rs
            Code::MemberAbsent => new("a member of the cluster is not in the inventory").on(&node),
            // engine/src/session.rs
            Code::RequestDeadline => new("the node did not answer within 60 s: looking which blobs are there")
                .on(&node)
                .saw("its agent works on: looking which blobs are there, for 59 s"),
            Code::PlanFile => new("the plan tomorrow.plan cannot be used").because(&PlanFileError::Version(9)),
            // engine/src/cluster/apply.rs
            Code::ForeignObject => new("Service landfall-sample/nginx is there and is not landfall's"),
            // engine/src/install.rs
            Code::PlanDrift => new("the cluster has changed since the plan was made")
                .saw("sysctls/cp-1: to be done now, and not planned"),
            Code::Preflight => {
                let what = "port tcp/6443 is taken";
                let found = Finding::new(Check::PortTaken, what, "nginx (process 712)", "stop what listens there");
                Diagnosis::from(found.on([&node]))
            }
            Code::BundleFormat => {
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path().join("garbage.bundle");
                std::fs::write(&path, [0xa5; 2048]).unwrap();
                without_folder(Bundle::<Unverified>::open(&path).err().unwrap(), folder.path())
            }
            Code::BundleDigest => Diagnosis::from(BundleError::Digest {
                name: "blobs/sha256/9f86d081884c7d65".to_owned(),
                found: landfall_core::name::Digest::of(b"other bytes"),
            }),
            Code::BundleMissing => Diagnosis::from(BundleError::Blob {
                path: PathBuf::from("landfall.bundle"),
                digest: landfall_core::name::Digest::of(b"a blob"),
                what: "missing".to_owned(),
            }),
            Code::BundleSignature => {
                Diagnosis::from(TrustError::Unknown("E7620F1842B4E81F".parse().unwrap()))
            }
            // bundle/src/upstream/signature.rs
            Code::PublisherSignature => {
                new("the publisher's signature of https://github.com/opencontainers/runc/releases/download/v1.5.2/runc.amd64 is not good")
                    .saw("it was made by a key that is not in the keyring")
            }
            // bundle/src/source/mod.rs
            Code::BundleBuild => new("building kubelet failed").saw("go: downloading k8s.io/kubernetes: no route to host"),
            Code::StepFailed => at_step(AgentError::Program {
                program: "kubeadm join phase control-plane-join etcd".to_owned(),
                status: "exit status: 1".to_owned(),
                tail: vec!["error execution phase etcd-join: etcdserver: unhealthy cluster".to_owned()],
            }),
            Code::StepDeadline => at_step(AgentError::Deadline {
                what: "the end of kubeadm join".to_owned(),
                seconds: 240,
                seen: vec!["[etcd] waiting for the new member".to_owned()],
            }),
            Code::ForeignState => at_step(AgentError::Foreign {
                path: PathBuf::from("/opt/landfall/cni/bin"),
                found: "a block device",
            }),
            Code::Journal => {
                let damaged = parse_journal(b"00000000 1 {\"not\": \"this\"}\n00000000 1 {}\n").unwrap_err();
                at_step(AgentError::Journal(damaged))
            }
            // engine/src/cluster.rs
            Code::ClusterApi => new("the API refused ConfigMap kube-system/coredns")
                .on(&node)
                .at(&step)
                .next("landfall status"),
            // engine/src/undo.rs
            Code::Residue => new("2 thing(s) could not be undone").next("remove what is listed by hand, then run the same command again"),
            Code::VerifyFault => implied(&Outcome {
                verify: Some(VerifyReport {
                    version: 1,
                    cells: vec![Cell {
                        vantage: "operator".to_owned(),
                        target: "node-port/cp-1".to_owned(),
                        expected: "200".to_owned(),
                        outcome: CellOutcome::Fail,
                        saw: "refused".to_owned(),
                        cause: None,
                        next: None,
                    }],
                    missing_routes: vec![],
                }),
                ..Outcome::default()
            }),
        }
    }

    fn cluster(text: &str) -> Diagnosis {
        parse::cluster_yaml(text, "cluster.yaml").unwrap_err().remove(0)
    }

    /// Nothing listens on the first port of the loopback.
    fn unreachable_port() -> Diagnosis {
        let text = "nodes: [{name: cp-1, role: control-plane, host: 127.0.0.1, port: 1, user: admin}]\n";
        let desired = parse::cluster_yaml(text, "cluster.yaml").unwrap();
        let node = &desired.inventory.nodes[0];
        let options = SshOptions {
            known_hosts: vec![],
            global_known_hosts: vec![],
            new_keys: "no/such".into(),
            accept_new: false,
            agent_socket: None,
            default_keys: vec![],
            passphrases: None,
            timeout: Duration::from_secs(5),
            shell_timeout: Duration::from_secs(5),
        };
        let refused = SshTransport::connect(&node.connect, &options);
        refused.err().unwrap().on(&node.name)
    }

    fn implied(outcome: &Outcome) -> Diagnosis {
        outcome.implied_errors().remove(0)
    }

    fn without_folder(mut error: Diagnosis, folder: &Path) -> Diagnosis {
        let folder = format!("{}/", folder.display());
        for line in error.causes.iter_mut().chain([&mut error.what]) {
            *line = line.replace(&folder, "");
        }
        error
    }

    #[test]
    fn every_code_is_shown_as_its_snapshot_says() {
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path("snapshots/errors");
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        let _bound = settings.bind_to_scope();
        for code in Code::ALL {
            let error = sample(*code);
            assert_eq!(error.code, *code, "the sample of {code} is of another code");
            assert!(!error.next.is_empty(), "{code} does not say what to do next");
            let json = serde_json::to_string_pretty(&error).unwrap();
            let text = errors(std::slice::from_ref(&error));
            insta::assert_snapshot!(
                code.as_str(),
                format!("{text}\nexit status {}\n\n{json}", code.exit_code().status())
            );
        }
    }

    #[test]
    fn no_snapshot_is_of_a_code_that_is_gone() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/render/snapshots/errors");
        let there: BTreeSet<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let codes: BTreeSet<String> = Code::ALL.iter().map(|code| format!("{code}.snap")).collect();
        assert_eq!(there, codes);
    }

    #[test]
    fn errors_that_differ_in_the_machine_alone_are_one() {
        let on = |node: &str| Diagnosis::new(Code::Unreachable, "no answer").on(&node.parse().unwrap());
        let text = errors(&[
            on("cp-1"),
            on("w-1"),
            Diagnosis::new(Code::Unreachable, "no route").on(&"w-2".parse().unwrap()),
        ]);
        assert_eq!(text.matches("error[LF0201]").count(), 2);
        assert!(text.contains("  on:   cp-1, w-1\n"), "{text}");
    }
}
