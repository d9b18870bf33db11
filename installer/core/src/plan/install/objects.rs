//! Plans the Kubernetes objects, and the waits at the end.

use super::{InstallMoves, KUBEADM_S, StepKind};
use crate::action::{Action, ClusterCondition};
use crate::inventory::Role;
use crate::name::StepId;
use crate::plan::Stage;
use crate::plan::objects::{ADDED, ApplyWhen};
use std::collections::BTreeMap;

impl InstallMoves<'_> {
    pub(super) fn objects(&mut self) {
        let input = self.input;
        let lead = self.lead.name.clone();
        let founded = self.founded();
        let joining = input.members.iter().filter(|m| !m.founds());
        let mut all_joined = founded.clone();
        all_joined.extend(joining.clone().map(|m| StepKind::kubelet_join(m.role()).on(&m.name)));
        let further = joining.filter(|m| m.role() == Role::ControlPlane);
        let mut all_finished = all_joined.clone();
        all_finished.extend(further.map(|m| StepKind::FinishControlPlane.on(&m.name)));
        let condition = ClusterCondition::NodesReady(input.members.iter().map(|m| m.name.clone()).collect());
        let ready = self.add(
            StepKind::NodesReady.of_cluster(),
            &lead,
            Stage::Network,
            &all_joined,
            KUBEADM_S,
            Action::Await { condition },
        );
        let mut removed: BTreeMap<&str, StepId> = BTreeMap::new();
        for left in &input.left_out {
            let objects = left.objects.clone();
            let id = StepKind::Remove.part_of_cluster(&left.group);
            let action = Action::Delete { objects };
            let id = self.add(id, &lead, Stage::Network, &founded, KUBEADM_S, action);
            removed.insert(&left.group, id);
        }
        for group in &input.groups {
            let mut needs = match group.when {
                ApplyWhen::FirstApiServer => founded.clone(),
                ApplyWhen::AllReady => vec![ready.clone()],
            };
            // An object that is removed may hold something that a new one needs, for instance a node port.
            needs.extend(removed.get(group.name.as_str()).cloned());
            let action = Action::Apply {
                objects: group.objects.clone(),
            };
            let id = StepKind::Apply.part_of_cluster(&group.name);
            let applied = self.add(id, &lead, group.stage, &needs, KUBEADM_S, action);
            for condition in rollouts(&group.objects) {
                let ClusterCondition::RolledOut { kind, namespace, name } = &condition else {
                    continue;
                };
                // landfall's own workloads have names of their own.
                let part = match group.name.starts_with(ADDED) {
                    true => format!("{}.{}.{namespace}.{name}", group.name, kind.to_ascii_lowercase()),
                    false => name.clone(),
                };
                let mut needs = all_finished.clone();
                needs.push(applied.clone());
                let id = StepKind::RolledOut.part_of_cluster(&part);
                self.add(id, &lead, group.stage, &needs, KUBEADM_S, Action::Await { condition });
            }
        }
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

#[cfg(test)]
mod tests {
    use super::super::{InstallInput, Joins, Member};
    use super::*;
    use crate::action::Undo;
    use crate::bundle_index::{
        Binary, BinaryPlace, BundleIndex, BundleRole, Image, NODE_ARCHITECTURE, OCI_MANIFEST, Variant,
    };
    use crate::cluster_record::tests::record;
    use crate::journal::{Entry, EntryState, Ownership};
    use crate::layout;
    use crate::name::{Digest, NodeName};
    use crate::plan::objects::LeftOut;
    use crate::plan::objects::ObjectGroup;
    use crate::plan::{Goal, plan};
    use crate::plan::{PlanError, Step};
    use serde_json::json;

    fn index() -> BundleIndex {
        let binary = |name: &str| Binary {
            name: name.to_owned(),
            component: "x".to_owned(),
            version: "1".to_owned(),
            blob: Digest::of(b"b"),
            digest: Digest::of(b"d"),
            size_bytes: 1,
            roles: [BundleRole::ControlPlane, BundleRole::Worker].into(),
            place: BinaryPlace::Bin,
        };
        let everywhere = [BundleRole::ControlPlane, BundleRole::Worker];
        let names = [
            "landfall",
            "containerd",
            "containerd-shim-runc-v2",
            "ctr",
            "runc",
            "kubelet",
            "kubeadm",
            "kubectl",
        ];
        let variant = Variant {
            architecture: NODE_ARCHITECTURE.to_owned(),
            binaries: names.map(binary).to_vec(),
            images: vec![
                image("r/etcd:3.7.3-0", &[BundleRole::ControlPlane]),
                image("r/pause:3.10", &everywhere),
                image("docker.io/shop/front_end:1", &everywhere),
                image("docker.io/shop/front_end:2", &everywhere),
            ],
        };
        BundleIndex::new("source", "v1.37.0", "r", variant)
    }

    fn image(reference: &str, roles: &[BundleRole]) -> Image {
        let manifest = Digest::of(reference.as_bytes());
        Image {
            reference: reference.parse().unwrap(),
            manifest,
            media_type: OCI_MANIFEST.to_owned(),
            manifest_size_bytes: 1,
            blobs: vec![manifest],
            roles: roles.iter().copied().collect(),
        }
    }

    fn member(name: &str, joins: Joins) -> Member {
        let unit = |name: &str| (name.to_owned(), String::new());
        Member {
            name: name.parse().unwrap(),
            address: [10, 0, 0, 1].into(),
            credential_config: Some(String::new()),
            etcd_patch: None,
            joins,
            containerd_config: String::new(),
            cni_template: String::new(),
            resolv_conf: String::new(),
            openings: None,
            units: [
                "containerd.service",
                "landfall-api-balancer.service",
                "landfall-node-settings.service",
                "kubelet.service",
            ]
            .map(unit)
            .to_vec(),
        }
    }

    fn plan_objects(groups: Vec<ObjectGroup>, left_out: Vec<LeftOut>) -> crate::plan::Plan {
        plan_over(&BTreeMap::new(), groups, left_out)
    }

    fn members() -> Vec<Member> {
        let joins = Joins::ControlPlane {
            kubelet: String::new(),
            control_plane: String::new(),
        };
        vec![
            member("cp-1", Joins::Init(String::new())),
            member("cp-2", joins),
            member("w-1", Joins::Worker(String::new())),
        ]
    }

    fn plan_over(
        owned: &BTreeMap<NodeName, Ownership>,
        groups: Vec<ObjectGroup>,
        left_out: Vec<LeftOut>,
    ) -> crate::plan::Plan {
        plan_of(owned, members(), groups, left_out)
    }

    fn plan_of(
        owned: &BTreeMap<NodeName, Ownership>,
        members: Vec<Member>,
        groups: Vec<ObjectGroup>,
        left_out: Vec<LeftOut>,
    ) -> crate::plan::Plan {
        let record = record(1, 1, 0);
        plan(&Goal::Installed(&InstallInput {
            record: &record,
            owned,
            run: 1,
            members,
            index: &index(),
            sysctls: vec![],
            hosts_lines: vec![],
            audit_policy: String::new(),
            encryption_config: String::new(),
            named_server: "https://api.x:7443".to_owned(),
            groups,
            left_out,
        }))
        .unwrap()
    }

    #[test]
    fn nodes_found_and_join_behind_the_opening_of_all_packet_filters_and_of_none_that_closes() {
        use crate::action::Wanted;
        use crate::packet_filter::Hook;
        use crate::packet_filter::accept::Accept;
        use crate::packet_filter::openings::Openings;
        let openings = |accept| Openings {
            mark: Openings::mark_of("0f1e"),
            address: [10, 0, 0, 1].into(),
            interface: "eth0".to_owned(),
            accept,
        };
        let open = openings(vec![Accept::at(Hook::Input)]);
        let mut members = members();
        for member in &mut members {
            member.openings = Some(open.clone());
        }
        let opened = plan_of(&BTreeMap::new(), members, vec![], vec![]);
        let needs = |plan: &crate::plan::Plan, id: &str| -> Vec<String> {
            let step = plan.steps.iter().find(|step| step.id.as_str() == id).unwrap();
            let needs = step.needs.iter().map(ToString::to_string);
            needs.filter(|need| need.starts_with("firewall/")).collect()
        };
        for id in ["init/cp-1", "join-kubelet/cp-2", "join-worker/w-1"] {
            let all = ["firewall/cp-1", "firewall/cp-2", "firewall/w-1"];
            assert_eq!(needs(&opened, id), all, "{id}");
        }
        let step = opened
            .steps
            .iter()
            .find(|step| step.id.as_str() == "firewall/w-1")
            .unwrap();
        let text = step.action.text();
        assert!(
            [
                "`landfall 0f1e`",
                "/etc/firewalld/policies/landfall-0f1e-i.xml",
                "landfall-0f1e-f.xml"
            ]
            .iter()
            .all(|word| text.contains(word)),
            "{text}"
        );
        let entry = Entry {
            run: "r1".parse().unwrap(),
            step: "firewall/w-1".parse().unwrap(),
            action: crate::name::Digest::of(b"x"),
            undo: Undo::Nothing,
            state: EntryState::Owned,
            stamp: None,
            wanted: Some(Wanted::Firewall(open)),
        };
        let own = Ownership {
            entries: vec![entry],
            ..Ownership::default()
        };
        let owned = BTreeMap::from([("w-1".parse().unwrap(), own)]);
        let closed = plan_over(&owned, vec![], vec![]);
        let steps = closed.steps.iter().filter_map(|step| match &step.action {
            Action::Firewall { openings } => Some((step.id.as_str(), openings.clone())),
            _ => None,
        });
        assert_eq!(steps.collect::<Vec<_>>(), [("firewall/w-1", openings(vec![]))]);
        assert_eq!(needs(&closed, "join-worker/w-1"), [""; 0]);
    }

    #[test]
    fn kubeconfigs_of_every_member_are_checked_after_its_join() {
        let plan = plan_objects(vec![], vec![]);
        let steps = plan.steps.iter().filter_map(|step| match &step.action {
            Action::KubeconfigServer { to, restart, .. } => {
                assert_eq!((to.as_str(), step.needs.len()), (layout::API_BALANCER_URL, 1));
                Some((step.id.as_str(), step.needs[0].as_str(), restart.is_some()))
            }
            _ => None,
        });
        let expected = [
            ("server/kubelet.conf/cp-1", "init/cp-1", true),
            ("server/admin.conf/cp-1", "init/cp-1", false),
            ("server/super-admin.conf/cp-1", "init/cp-1", false),
            ("server/kubelet.conf/cp-2", "finish-control-plane/cp-2", true),
            ("server/admin.conf/cp-2", "finish-control-plane/cp-2", false),
            ("server/kubelet.conf/w-1", "join-worker/w-1", true),
        ];
        assert_eq!(steps.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn founders_found_at_once_and_all_else_waits_for_them() {
        let founder = |name: &str, joins| Member {
            etcd_patch: Some(format!("[{name}]")),
            ..member(name, joins)
        };
        let later = Joins::ControlPlane {
            kubelet: String::new(),
            control_plane: String::new(),
        };
        let mut record = record(1, 1, 0);
        record.formed = false;
        record.members.get_mut(&"cp-1".parse().unwrap()).unwrap().cofounder = true;
        let index = index();
        let mut input = InstallInput {
            record: &record,
            owned: &BTreeMap::new(),
            run: 1,
            members: vec![
                founder("cp-1", Joins::Cofounder(String::new())),
                founder("cp-2", Joins::Init(String::new())),
                member("cp-4", later),
                member("w-1", Joins::Worker(String::new())),
            ],
            index: &index,
            sysctls: vec![],
            hosts_lines: vec![],
            audit_policy: String::new(),
            encryption_config: String::new(),
            named_server: String::new(),
            groups: vec![],
            left_out: vec![],
        };
        let founding = plan(&Goal::Installed(&input)).unwrap();
        let step = |id: &str| founding.steps.iter().find(|s| s.id.as_str() == id).unwrap();
        let needs = |id: &str, need: &str| step(id).needs.iter().any(|n| n.as_str() == need);
        for init in ["init/cp-1", "init/cp-2"] {
            for ready in [
                "images/etcd/cp-1",
                "images/pause/cp-1",
                "images/pause/cp-2",
                "certificates/cp-2",
                "pki/ca.key/cp-1",
                "etcd-patch/cp-1",
                "etcd-patch/cp-2",
            ] {
                assert!(needs(init, ready), "{init} without {ready}");
            }
            for after in ["join-worker/w-1", "join-kubelet/cp-4", "nodes-ready"] {
                assert!(needs(after, init), "{after} without {init}");
            }
        }
        assert!(
            !needs("init/cp-1", "init/cp-2") && !needs("init/cp-2", "init/cp-1"),
            "side by side"
        );
        assert!(
            step("etcd-patch/cp-1").ephemeral && !founding.steps.iter().any(|s| s.id.as_str() == "join-kubelet/cp-1")
        );
        input.members.remove(0);
        let absent = plan(&Goal::Installed(&input)).unwrap_err();
        assert_eq!(absent, PlanError::FounderAbsent(Some("cp-1".parse().unwrap())));
    }

    #[test]
    fn each_repository_of_images_is_imported_by_a_step_of_its_own_one_after_the_other() {
        let plan = plan_objects(vec![], vec![]);
        let imports = |node: &str| -> Vec<(String, String, String)> {
            let on = plan.steps.iter().filter(|step| step.node.as_str() == node);
            let imports = on.filter(|step| matches!(step.action, Action::Images { .. }));
            let shown = |step: &Step| {
                let needs: Vec<&str> = step.needs.iter().map(StepId::as_str).collect();
                (step.id.to_string(), needs.join(" "), step.action.text())
            };
            imports.map(shown).collect()
        };
        let step = |id: &str, needs: &str, text: &str| (id.to_owned(), needs.to_owned(), text.to_owned());
        let shop = "import and pin docker.io/shop/front_end:1, docker.io/shop/front_end:2";
        let on_worker = [
            step("images/pause/w-1", "unit/containerd/w-1", "import and pin r/pause:3.10"),
            step("images/docker.io/shop/front-end-20ed3c44/w-1", "images/pause/w-1", shop),
        ];
        assert_eq!(imports("w-1"), on_worker);
        let on_control_plane: Vec<String> = imports("cp-1").into_iter().map(|(id, ..)| id).collect();
        assert_eq!(on_control_plane[..2], ["images/etcd/cp-1", "images/pause/cp-1"]);
    }

    /// A landfall that had one step for all images was cut off in it: what it made of them is removed before any of them is imported.
    #[test]
    fn an_import_that_no_step_repeats_is_taken_back_before_the_images_that_it_names() {
        let entry = |step: &str, state, reference: &str| Entry {
            run: "r1".parse().unwrap(),
            step: step.parse().unwrap(),
            action: Digest::of(b"x"),
            undo: Undo::RemoveImages {
                references: vec![reference.to_owned()],
            },
            state,
            stamp: None,
            wanted: None,
        };
        let own = |entries| Ownership {
            entries,
            ..Ownership::default()
        };
        let owned = BTreeMap::from([
            (
                "cp-1".parse().unwrap(),
                own(vec![entry("images/cp-1", EntryState::Owned, "r/pause:3.10")]),
            ),
            (
                "w-1".parse().unwrap(),
                own(vec![
                    entry("images/w-1", EntryState::Intended, "r/pause:3.10"),
                    entry("images/pause/w-1", EntryState::Intended, "r/pause:3.10"),
                ]),
            ),
        ]);
        let plan = plan_over(&owned, vec![], vec![]);
        let undone: Vec<&Step> = plan.steps.iter().filter(|step| step.action.is_undo()).collect();
        let [undo] = undone[..] else { panic!("{undone:?}") };
        assert_eq!(undo.id.as_str(), "take-back/images/w-1");
        let behind = plan.steps.iter().filter(|step| plan.undoes_before(step));
        let behind: Vec<&str> = behind.map(|step| step.id.as_str()).collect();
        assert_eq!(behind, ["images/pause/w-1"]);
    }

    #[test]
    fn a_unit_of_an_earlier_version_stops_before_its_replacement_starts() {
        let entry = Entry {
            run: "r1".parse().unwrap(),
            step: "unit/landfall-service-route/w-1".parse().unwrap(),
            action: Digest::of(b"x"),
            undo: Undo::Nothing,
            state: EntryState::Owned,
            stamp: None,
            wanted: None,
        };
        let own = Ownership {
            entries: vec![entry],
            ..Ownership::default()
        };
        let plan = plan_over(&[("w-1".parse().unwrap(), own)].into(), vec![], vec![]);
        let stops = plan
            .steps
            .iter()
            .filter(|s| matches!(s.action, Action::StopUnit { .. }));
        let stops: Vec<&str> = stops.map(|s| s.id.as_str()).collect();
        assert_eq!(stops, ["stop-unit/landfall-service-route/w-1"], "only where it was put");
        let starts = |id: &str| plan.steps.iter().find(|s| s.id.as_str() == id).unwrap();
        let after = &starts("unit/landfall-node-settings/w-1").needs;
        assert!(after.iter().any(|need| need.as_str() == stops[0]), "{after:?}");
    }

    #[test]
    fn workloads_of_equal_names_have_steps_of_their_own() {
        let nginx = |namespace: &str| json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "nginx", "namespace": namespace } });
        let group = |name: &str, namespace: &str| ObjectGroup {
            name: name.to_owned(),
            stage: Stage::Sample,
            objects: vec![nginx(namespace)],
            when: ApplyWhen::AllReady,
        };
        let plan = plan_objects(
            vec![group("sample", "landfall-sample"), group("added-shop", "shop")],
            vec![],
        );
        let waits = plan.steps.iter().map(|step| step.id.as_str());
        let waits: Vec<&str> = waits.filter(|id| id.starts_with("rolled-out")).collect();
        assert_eq!(
            waits,
            ["rolled-out/nginx", "rolled-out/added-shop.deployment.shop.nginx"]
        );
    }

    #[test]
    fn objects_that_a_group_leaves_out_are_removed_before_it_is_applied() {
        let old =
            json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "nginx", "namespace": "default" } });
        let group = ObjectGroup {
            name: "sample".to_owned(),
            stage: Stage::Sample,
            objects: vec![
                json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "nginx", "namespace": "s" } }),
            ],
            when: ApplyWhen::FirstApiServer,
        };
        let left = |group: &str| LeftOut {
            group: group.to_owned(),
            objects: vec![old.clone()],
        };
        let plan = plan_objects(vec![group], vec![left("ingress"), left("sample")]);
        let needs = |id: &str| -> Vec<&str> {
            let step = plan.steps.iter().find(|s| s.id.as_str() == id).unwrap();
            step.needs.iter().map(StepId::as_str).collect()
        };
        assert_eq!(needs("remove-ingress"), ["init/cp-1"]);
        assert_eq!(needs("apply-sample"), ["init/cp-1", "remove-sample"]);
    }
}
