//! Kubernetes objects, and what is awaited before the work counts as done.

use super::{ApplyWhen, KUBEADM_S, Planner, StepKind};
use crate::action::{Action, ClusterCondition};
use crate::inventory::Role;
use crate::name::StepId;
use crate::plan::Stage;

impl Planner<'_> {
    pub(super) fn objects(&mut self) {
        let input = self.input;
        let lead = self.lead.name.clone();
        let founded: Vec<StepId> = self.founded_by(StepKind::Init).into_iter().collect();
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
        for group in &input.groups {
            let needs = match group.when {
                ApplyWhen::FirstApiServer => founded.clone(),
                ApplyWhen::AllReady => vec![ready.clone()],
            };
            let action = Action::Apply {
                objects: group.objects.clone(),
            };
            let id = StepKind::Apply.part_of_cluster(&group.name);
            let applied = self.add(id, &lead, group.stage, &needs, KUBEADM_S, action);
            for condition in rollouts(&group.objects) {
                let ClusterCondition::RolledOut { name, .. } = &condition else {
                    continue;
                };
                let mut needs = all_finished.clone();
                needs.push(applied.clone());
                let id = StepKind::RolledOut.part_of_cluster(name);
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
