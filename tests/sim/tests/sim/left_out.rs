//! What a changed spec leaves out: `install` removes it or gives it up, and a rollback brings it back.

use crate::scene::Scene;
use landfall_core::name::NodeName;
use landfall_core::spec::ProxyMode;
use landfall_engine::run::{AllowOptions, UndoCommand};
use serde_json::{Value, json};

const INGRESSES: &str = "networking.k8s.io/ingresses";

/// Resource, namespace and name of an object.
type Place = (&'static str, &'static str, &'static str);

fn object(scene: &Scene, place: Place) -> Option<Value> {
    let founder: NodeName = "cp-1".parse().unwrap();
    let mut found = scene.fleet.world().object(&founder, place.0, place.1, place.2)?;
    // What each write changes is no part of the object.
    let metadata = found["metadata"].as_object_mut().unwrap();
    for key in [
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "managedFields",
    ] {
        metadata.remove(key);
    }
    found.as_object_mut().unwrap().remove("status");
    Some(found)
}

/// Fails unless an install with `settings` removes these objects and says that, a second one has nothing to do, a rollback brings them back as they
/// were, and an uninstall leaves nothing.
fn must_go_and_come_back(settings: &str, step: &str, places: &[Place], stays: &[Place]) {
    let mut scene = Scene::new(1, 1);
    scene.must_work(&scene.install("100-a"), "install");
    let installed = scene.fleet.trees().unwrap();
    let all = |scene: &Scene, places: &[Place]| places.iter().map(|place| object(scene, *place)).collect::<Vec<_>>();
    let (before, others) = (all(&scene, places), all(&scene, stays));
    assert!(
        before.iter().chain(&others).all(Option::is_some),
        "{before:#?} {others:#?}"
    );
    scene.set(settings);
    let second = scene.install("200-b");
    scene.must_work(&second, settings);
    let planned = second.plan.as_ref().unwrap();
    assert!(planned.steps.iter().any(|s| s.id.as_str() == step), "{planned:#?}");
    assert!(
        all(&scene, places).iter().all(Option::is_none),
        "{:#?}",
        all(&scene, places)
    );
    assert_eq!(all(&scene, stays), others, "the rest stays");
    let third = scene.install("300-c");
    scene.must_work(&third, "again");
    assert_eq!(third.changes, 0, "{:#?}", third.plan);
    scene.must_work(&scene.undo("400-d", UndoCommand::Rollback), "rollback");
    assert_eq!(all(&scene, places), before, "they come back as they were");
    scene.must_be_installed_as(&installed, "rollback");
    scene.set("");
    let as_before = scene.install("500-e");
    scene.must_work(&as_before, "with them");
    assert_eq!(as_before.changes, 0, "{:#?}", as_before.plan);
    scene.must_work(&scene.undo("600-f", UndoCommand::Uninstall), "uninstall");
    scene.must_be_as_before("uninstall");
}

#[test]
fn the_sample_goes_and_comes_back() {
    must_go_and_come_back(
        "sample: false\n",
        "remove-sample",
        &[
            ("namespaces", "", "landfall-sample"),
            ("apps/deployments", "landfall-sample", "nginx"),
            ("services", "landfall-sample", "nginx"),
            (INGRESSES, "landfall-sample", "nginx"),
        ],
        &[("apps/daemonsets", "kube-system", "landfall-ingress")],
    );
}

#[test]
fn the_dashboard_goes_and_comes_back() {
    must_go_and_come_back(
        "ingress: {dashboard: false}\n",
        "remove-ingress",
        &[
            ("services", "kube-system", "landfall-dashboard"),
            (INGRESSES, "kube-system", "landfall-dashboard"),
        ],
        &[(INGRESSES, "landfall-sample", "nginx")],
    );
}

#[test]
fn the_ingress_proxy_goes_and_comes_back() {
    must_go_and_come_back(
        "ingress: {enabled: false}\n",
        "remove-ingress",
        &[
            ("apps/daemonsets", "kube-system", "landfall-ingress"),
            ("serviceaccounts", "kube-system", "landfall-ingress"),
            ("networking.k8s.io/ingressclasses", "", "landfall"),
            (INGRESSES, "kube-system", "landfall-dashboard"),
        ],
        &[("apps/deployments", "landfall-sample", "nginx")],
    );
}

/// What `landfall ingress allow` gave goes with the proxy, and comes back with it.
#[test]
fn rights_of_the_ingress_proxy_come_back_with_it() {
    let mut scene = Scene::new(1, 0);
    scene.must_work(&scene.install("100-a"), "install");
    let everything = AllowOptions {
        namespace: None,
        named: false,
    };
    scene.must_work(&scene.allow("200-b", &everything), "allow");
    let binding = (
        "rbac.authorization.k8s.io/clusterrolebindings",
        "",
        "landfall-ingress-secrets",
    );
    let allowed = object(&scene, binding);
    assert!(allowed.is_some());
    scene.set("ingress: {enabled: false}\n");
    scene.must_work(&scene.install("300-c"), "without a proxy");
    assert_eq!(object(&scene, binding), None);
    scene.must_work(&scene.undo("400-d", UndoCommand::Rollback), "rollback");
    assert_eq!(object(&scene, binding), allowed);
    scene.set("");
    assert_eq!(scene.install("500-e").changes, 0);
    scene.must_be_lawful("rolled back");
}

#[test]
fn a_dns_server_that_is_named_no_more_is_given_up() {
    let corefile = |scene: &Scene| {
        let map = object(scene, ("configmaps", "kube-system", "coredns")).unwrap();
        map["data"]["Corefile"].as_str().unwrap().to_owned()
    };
    let named = |scene: &Scene| {
        let (_, own) = scene.journal(&"cp-1".parse().unwrap());
        let kept = own.record().unwrap().kept.clone();
        (kept.upstream_dns_named, kept.upstream_dns.unwrap_or_default().len())
    };
    let mut scene = Scene::new(1, 1);
    scene.must_work(&scene.install("100-a"), "install");
    let (installed, closed) = (scene.fleet.trees().unwrap(), corefile(&scene));
    scene.set("upstreamDns: [10.20.9.9]\n");
    scene.must_work(&scene.install("200-b"), "named");
    let (forwarded, forwards) = (scene.fleet.trees().unwrap(), corefile(&scene));
    assert!(forwards.contains("forward . 10.20.9.9"), "{forwards}");
    assert_eq!(named(&scene), (true, 1));

    scene.set("");
    let third = scene.install("300-c");
    scene.must_work(&third, "named no more");
    assert_eq!(third.changes, 3, "a file on two nodes, and CoreDNS: {:#?}", third.plan);
    assert_eq!(corefile(&scene), closed);
    assert_eq!(named(&scene), (false, 0));
    scene.must_be_installed_as(&installed, "named no more");
    assert_eq!(scene.install("400-d").changes, 0);

    scene.must_work(&scene.undo("500-e", UndoCommand::Rollback), "rollback");
    assert_eq!(corefile(&scene), forwards);
    scene.must_be_installed_as(&forwarded, "rollback");
    assert_eq!(named(&scene), (true, 1), "the record goes back too");
    scene.must_work(&scene.undo("600-f", UndoCommand::Uninstall), "uninstall");
    scene.must_be_as_before("uninstall");
}

/// kubeadm's addon, and flannel, which makes rules of the same kind.
#[test]
fn the_mode_of_kube_proxy_is_changed_whole() {
    let places: [Place; 4] = [
        ("configmaps", "kube-system", "kube-proxy"),
        ("apps/daemonsets", "kube-system", "kube-proxy"),
        ("configmaps", "kube-flannel", "kube-flannel-cfg"),
        ("apps/daemonsets", "kube-flannel", "flannel"),
    ];
    let objects = |scene: &Scene| places.map(|place| object(scene, place).unwrap());
    let recorded = |scene: &Scene| {
        let (_, own) = scene.journal(&"cp-1".parse().unwrap());
        own.record().unwrap().kept.proxy_mode
    };
    let mut scene = Scene::new(1, 1);
    scene.must_work(&scene.install("100-a"), "install");
    let (installed, seen, before) = (scene.fleet.trees().unwrap(), scene.seen(), objects(&scene));
    assert_eq!(recorded(&scene), ProxyMode::Nftables);
    scene.set("proxyMode: iptables\n");
    let second = scene.install("200-b");
    scene.must_work(&second, "another mode");
    let [proxy, _, flannel, _] = objects(&scene);
    let config = proxy["data"]["config.conf"].as_str().unwrap();
    assert!(config.contains("mode: iptables"), "{config}");
    let config = flannel["data"]["net-conf.json"].as_str().unwrap();
    assert!(config.contains("\"EnableNFTables\":false"), "{config}");
    // The pods are replaced: their template has the digest of the configuration.
    for (before, now) in before.iter().zip(objects(&scene)) {
        let template = |object: &Value| object["spec"]["template"].clone();
        assert_ne!(*before, now);
        assert!(
            template(before).is_null() || template(before) != template(&now),
            "{now:#?}"
        );
    }
    assert_eq!(recorded(&scene), ProxyMode::Iptables);
    assert_eq!(scene.seen(), seen, "nobody left");
    assert_eq!(scene.install("300-c").changes, 0);
    scene.must_work(&scene.undo("400-d", UndoCommand::Rollback), "rollback");
    assert_eq!(objects(&scene), before);
    assert_eq!(recorded(&scene), ProxyMode::Nftables);
    scene.must_be_installed_as(&installed, "rollback");
    scene.must_work(&scene.undo("500-e", UndoCommand::Uninstall), "uninstall");
    scene.must_be_as_before("uninstall");
}

/// A rollback takes landfall's share back, and not what its users have changed or put in the place of it since.
#[test]
fn a_rollback_leaves_what_others_have_set_or_made_since() {
    const PROXY: Place = ("apps/daemonsets", "kube-system", "landfall-ingress");
    const SAMPLE: Place = ("apps/deployments", "landfall-sample", "nginx");
    let mut scene = Scene::new(1, 0);
    let founder: NodeName = "cp-1".parse().unwrap();
    let world = scene.fleet.world().clone();
    let body = |(_, namespace, name): Place, kind: &str| json!({ "apiVersion": "apps/v1", "kind": kind, "metadata": { "name": name, "namespace": namespace } });
    let annotate = |team: &str| {
        let mut annotated = body(PROXY, "DaemonSet");
        annotated["metadata"]["annotations"] = json!({ "team": team });
        world.apply_object(&founder, PROXY.0, &annotated).unwrap();
    };
    scene.set("sample: false\n");
    scene.must_work(&scene.install("100-a"), "install");
    annotate("day");
    let mut before = object(&scene, PROXY).unwrap();
    scene.set("ingress: {accessLog: json}\n");
    scene.must_work(&scene.install("200-b"), "a changed proxy, and the sample");
    annotate("night");
    world.delete_object(&founder, SAMPLE.0, SAMPLE.1, SAMPLE.2).unwrap();
    let mut own = body(SAMPLE, "Deployment");
    own["spec"] = json!({ "replicas": 1 });
    world.create_object(&founder, SAMPLE.0, own).unwrap();
    scene.must_work(&scene.undo("300-c", UndoCommand::Rollback), "rollback");
    before["metadata"]["annotations"]["team"] = json!("night");
    assert_eq!(object(&scene, PROXY), Some(before));
    let theirs = object(&scene, SAMPLE).unwrap();
    assert_eq!(theirs["spec"], json!({ "replicas": 1 }));
    scene.must_be_lawful("rollback");
    scene.set("sample: false\n");
    let again = scene.install("400-d");
    scene.must_work(&again, "as before");
    assert_eq!(again.changes, 0, "{:#?}", again.plan);
}
