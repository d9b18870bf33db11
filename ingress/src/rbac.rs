//! `landfall-ingress rbac`: Roles for exactly the Secrets and ConfigMaps that Ingresses name, so that nothing reads Secrets cluster-wide.

use crate::annotations::named_secrets;
use crate::check::{Input, Source, print};
use crate::route::{Builder, Options};
use crate::secrets::Kind;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::process::ExitCode;

/// Name of the Roles and their bindings.
const NAME: &str = "landfall-ingress-secrets";

/// Whose Secrets, and who may read them.
#[derive(clap::Args)]
pub struct Rbac {
    #[command(flatten)]
    source: Source,
    /// ServiceAccount of the proxy.
    #[arg(long, default_value = "landfall-ingress")]
    service_account: String,
    /// Namespace of the ServiceAccount.
    #[arg(long, default_value = "kube-system")]
    service_account_namespace: String,
    #[command(flatten)]
    routing: Options,
}

/// Runs the command. Exit status: 0, or 2 when the input cannot be read.
pub fn run(rbac: &Rbac) -> ExitCode {
    let printed = rbac.source.read().and_then(|input| {
        let account = (rbac.service_account.as_str(), rbac.service_account_namespace.as_str());
        print(&yaml(&roles(input, account, &rbac.routing))?)
    });
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(text) => {
            crate::log(&text);
            ExitCode::from(2)
        }
    }
}

/// A Role and a RoleBinding for each namespace that has something to read.
fn roles(mut input: Input, account: (&str, &str), options: &Options) -> Vec<Value> {
    input.complete(options);
    let snapshot = Builder::new(options.clone()).build(&input.objects, &input.secrets);
    let mut all: BTreeMap<String, BTreeMap<Kind, BTreeSet<String>>> = BTreeMap::new();
    for named in snapshot.ours().flat_map(|ingress| named_secrets(ingress, options)) {
        let kind = named.kind();
        let of_namespace = all.entry(named.namespace).or_default();
        of_namespace.entry(kind).or_default().insert(named.name);
    }
    let objects = all.into_iter().flat_map(|(namespace, kinds)| {
        let rule = |(kind, names): (Kind, BTreeSet<String>)| {
            let plural = match kind {
                Kind::Secret => "secrets",
                Kind::ConfigMap => "configmaps",
            };
            json!({ "apiGroups": [""], "resources": [plural], "resourceNames": names, "verbs": ["get", "list", "watch"] })
        };
        let rules: Vec<Value> = kinds.into_iter().map(rule).collect();
        let meta = json!({ "name": NAME, "namespace": namespace, "labels": { "app.kubernetes.io/name": "landfall-ingress" } });
        let role = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": meta,
            "rules": rules });
        let binding = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": meta,
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": NAME },
            "subjects": [{ "kind": "ServiceAccount", "name": account.0, "namespace": account.1 }] });
        [role, binding]
    });
    objects.collect()
}

fn yaml(objects: &[Value]) -> Result<String, String> {
    let documents: Result<Vec<String>, _> = objects.iter().map(serde_yaml::to_string).collect();
    let documents = documents.map_err(|error| format!("cannot write the result: {error}"))?;
    Ok(documents
        .iter()
        .map(|document| format!("---\n{}\n", document.trim_end()))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_namespace_gets_a_role_for_just_the_secrets_that_are_named() {
        let mut input = Input::default();
        input
            .add(
                "apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata:\n  name: a\n  namespace: one\n  annotations:\n    \
                 nginx.ingress.kubernetes.io/auth-secret: users\n    nginx.ingress.kubernetes.io/custom-headers: one/fields\n    nginx.ingress.kubernetes.io/auth-tls-secret: two/stolen\n\
                 spec:\n  tls: [{secretName: cert, hosts: [h]}, {secretName: ''}]\n---\n\
                 apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: b}\nspec:\n  tls: [{secretName: cert}]\n",
            )
            .unwrap();
        let made = roles(input, ("sa", "ns"), &Options::default());
        let of = |i: usize, path: &str| made[i].pointer(path).cloned().unwrap_or_default();
        assert_eq!(made.len(), 4);
        assert_eq!(of(0, "/metadata/namespace"), "default");
        assert_eq!(of(0, "/rules/0/resourceNames"), json!(["cert"]));
        assert_eq!(of(2, "/metadata/namespace"), "one");
        assert_eq!(of(2, "/rules/0/resourceNames"), json!(["cert", "users"]));
        assert_eq!(of(2, "/rules/0/verbs"), json!(["get", "list", "watch"]));
        assert_eq!(
            (of(2, "/rules/1/resources"), of(2, "/rules/1/resourceNames")),
            (json!(["configmaps"]), json!(["fields"]))
        );
        assert_eq!((of(0, "/rules/1"), of(2, "/rules/2")), (Value::Null, Value::Null));
        assert_eq!(
            of(3, "/subjects/0"),
            json!({ "kind": "ServiceAccount", "name": "sa", "namespace": "ns" })
        );
        let text = yaml(&made).unwrap();
        assert_eq!(serde_yaml::Deserializer::from_str(&text).count(), 4, "{text}");
    }
}
