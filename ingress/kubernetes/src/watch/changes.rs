//! A table that came by changes is the one that is made of the same objects at once.
//!
//! Seeded schedules over few names, so that everything meets everything: Ingresses that come, change, turn bad, move between classes and
//! are made again; hosts that several namespaces want, with aliases, wildcards, redirects from `www.` and canaries; Services and Secrets
//! that come late, change and go; lists that are read again. `LANDFALL_SEED=7 LANDFALL_SEEDS=1 cargo test -p
//! landfall-ingress-kubernetes changes` repeats one.

use super::{Change, World};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::watcher::Event;
use landfall_ingress_balance::chance::{Chance, seeds};
use landfall_ingress_routing::Route;
use landfall_ingress_translate::options::{CONTROLLER, Options};
use landfall_ingress_translate::route::{Builder, DEFAULT_CLASS, Objects, Snapshot};
use landfall_ingress_translate::secrets::lookup::Secrets;
use landfall_ingress_translate::secrets::{Absent, Material, Name};
use landfall_ingress_translate::services::Locality;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Arc, OnceLock};

/// Seeds per ordinary run, and tables per seed.
const SEEDS: u64 = 40;
const STEPS: u64 = 40;

const NAMESPACES: [&str; 2] = ["d", "n"];
const HOSTS: [&str; 12] = [
    "",
    "a.com",
    "www.a.com",
    "www.www.a.com",
    "x.a.com",
    "y.a.com",
    "*.a.com",
    "C.com",
    "www.c.com",
    "deep.x.a.com",
    "*.x.a.com",
    "no host",
];
const PATHS: [&str; 7] = ["/", "/x", "/x/", "/x/y", "/x/[a-z]+$", "c", ""];
const SERVICES: [&str; 4] = ["a", "b", "c", "e"];
const SECRETS: [&str; 4] = ["t1", "t2", "users", "no,name"];
const ANNOTATIONS: [(&str, &[&str]); 14] = [
    ("server-alias", &["c.com other.com", "x.a.com", "www.c.com"]),
    ("from-to-www-redirect", &["true"]),
    ("canary", &["true"]),
    ("canary-weight", &["30"]),
    ("use-regex", &["true"]),
    ("rewrite-target", &["/to/$1"]),
    ("custom-http-errors", &["503"]),
    ("default-backend", &["b", "e"]),
    ("auth-url", &["http://c.d.svc.cluster.local/check", "http://10.0.0.1/"]),
    ("mirror-target", &["http://a$request_uri"]),
    ("auth-secret", &["users", "d/users"]),
    ("proxy-ssl-secret", &["t1"]),
    ("proxy-body-size", &["much", "1m"]),
    ("whitelist-source-range", &["10.0.0.0/8", "everywhere"]),
];

/// The cluster as its API has it.
#[derive(Default)]
struct Cluster {
    ingresses: BTreeMap<(String, String), Value>,
    classes: BTreeMap<String, Value>,
    services: BTreeMap<(String, String), Value>,
    secrets: Known,
    made: u64,
}

/// Secrets as following them gives them.
#[derive(Default)]
struct Known(BTreeMap<Name, Result<Arc<Material>, Absent>>);

impl Known {
    fn of(&self, namespace: &str, name: &str) -> Result<&Arc<Material>, Absent> {
        let name = Name::new(namespace, name).ok_or(Absent::Missing)?;
        self.0
            .get(&name)
            .ok_or(Absent::Pending)?
            .as_ref()
            .map_err(Absent::clone)
    }
}

impl Secrets for Known {
    fn value(&self, namespace: &str, name: &str, key: &str) -> Result<Option<Vec<u8>>, String> {
        let material = self.of(namespace, name).map_err(|absent| absent.to_string())?;
        Ok(material.value(key).map(<[u8]>::to_vec))
    }

    fn keys(&self, namespace: &str, name: &str) -> Result<Vec<String>, String> {
        let material = self.of(namespace, name).map_err(|absent| absent.to_string())?;
        Ok(material.keys().map(str::to_owned).collect())
    }

    fn material(&self, name: &Name) -> Option<Result<&Arc<Material>, Absent>> {
        Some(self.of(name.namespace(), name.name()))
    }
}

/// Two certificates with their keys; made once, for that takes its time in a build without optimisation.
fn certificate(which: usize) -> (Vec<u8>, Vec<u8>) {
    static MADE: OnceLock<[(Vec<u8>, Vec<u8>); 2]> = OnceLock::new();
    let make = |hosts: &[&str]| {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(hosts).unwrap();
        let pem = |label: &str, der: &[u8]| landfall_test_ingress::objects::pem(label, der).into_bytes();
        let key = pem("PRIVATE KEY", &made.signing_key.serialize_der());
        (pem("CERTIFICATE", made.cert.der()), key)
    };
    MADE.get_or_init(|| {
        [
            make(&["a.com", "*.a.com", "c.com"]),
            make(&["x.a.com", "www.a.com", "c.com"]),
        ]
    })[which]
        .clone()
}

fn to(service: &str) -> Value {
    json!({ "service": { "name": service, "port": { "number": 80 } } })
}

fn object<K: DeserializeOwned>(value: &Value) -> K {
    serde_json::from_value(value.clone()).unwrap()
}

impl Cluster {
    fn ingress(&mut self, chance: &Chance, namespace: &str, name: &str, before: Option<&Value>) -> Value {
        let path = |chance: &Chance| {
            let kind = chance.one(&["Prefix", "Exact", "ImplementationSpecific"]);
            let backend = match chance.percent(5) {
                true => json!({ "resource": { "kind": "Bucket", "name": "b" } }),
                false => to(chance.one(&SERVICES)),
            };
            json!({ "path": chance.one(&PATHS), "pathType": kind, "backend": backend })
        };
        let rule = |chance: &Chance| {
            let paths: Vec<Value> = (0..chance.below(4)).map(|_| path(chance)).collect();
            json!({ "host": chance.one(&HOSTS), "http": { "paths": paths } })
        };
        let item = |chance: &Chance| {
            let hosts: Vec<&str> = (0..chance.below(3)).map(|_| chance.one(&HOSTS[1..])).collect();
            match chance.percent(70) {
                true => json!({ "hosts": hosts, "secretName": chance.one(&SECRETS) }),
                false => json!({ "hosts": hosts }),
            }
        };
        let rules: Vec<Value> = (0..chance.below(4)).map(|_| rule(chance)).collect();
        let items: Vec<Value> = (0..chance.below(3)).map(|_| item(chance)).collect();
        let mut spec = json!({ "rules": rules, "tls": items });
        if chance.percent(80) {
            spec["ingressClassName"] = json!(chance.one(&["landfall", "landfall", "other"]));
        }
        if chance.percent(15) {
            spec["defaultBackend"] = to(chance.one(&SERVICES));
        }
        self.made += 1;
        let meta = json!({ "namespace": namespace, "name": name, "uid": format!("u{}", self.made),
            "creationTimestamp": format!("2026-01-01T00:00:0{}Z", chance.below(4)) });
        let mut ingress = json!({ "metadata": meta, "spec": spec });
        // Mostly another version of the same object.
        if let Some(before) = before.filter(|_| chance.percent(80)) {
            for field in ["uid", "creationTimestamp"] {
                ingress["metadata"][field] = before["metadata"][field].clone();
            }
        }
        for _ in 0..chance.below(4) {
            let (name, values) = chance.one(&ANNOTATIONS);
            let name = format!("nginx.ingress.kubernetes.io/{name}");
            ingress["metadata"]["annotations"][name] = json!(chance.one(values));
        }
        ingress
    }

    /// Something is different. Returns the event, and the Secret that changed.
    fn happen(&mut self, chance: &Chance) -> (Option<Change>, Option<Name>) {
        let namespace = chance.one(&NAMESPACES);
        match chance.below(20) {
            0..=11 => (Some(self.change_ingress(chance, namespace)), None),
            12..=15 => (Some(self.change_service(chance, namespace)), None),
            16..=18 => (None, self.change_secret(chance, namespace)),
            _ => (Some(self.change_class(chance)), None),
        }
    }

    fn change_ingress(&mut self, chance: &Chance, namespace: &str) -> Change {
        let key = (namespace.to_owned(), format!("i{}", chance.below(4)));
        let before = self.ingresses.get(&key).cloned();
        if let Some(before) = before.as_ref().filter(|_| chance.percent(30)) {
            self.ingresses.remove(&key);
            return Change::Ingress(Event::Delete(object(before)));
        }
        let ingress = self.ingress(chance, &key.0, &key.1, before.as_ref());
        let event = Event::Apply(object(&ingress));
        self.ingresses.insert(key, ingress);
        Change::Ingress(event)
    }

    fn change_service(&mut self, chance: &Chance, namespace: &str) -> Change {
        let key = (namespace.to_owned(), chance.one(&SERVICES).to_owned());
        if let Some(before) = self.services.get(&key).cloned().filter(|_| chance.percent(40)) {
            self.services.remove(&key);
            return Change::Service(Event::Delete(object(&before)));
        }
        let port = |number: u16| json!({ "port": number, "name": format!("p{number}") });
        let ports = chance.one(&[vec![port(80)], vec![port(81), port(80)], vec![port(81)]]);
        let mut spec = json!({ "ports": ports });
        if key.1 == "e" {
            spec["type"] = json!("ExternalName");
            spec["externalName"] = json!(chance.one(&["192.0.2.7", "192.0.2.8", "example.com"]));
        }
        let mut service = json!({ "metadata": { "namespace": key.0, "name": key.1 }, "spec": spec });
        if chance.percent(40) {
            let shared = chance.one(&["*", "d", "d, other", ""]);
            service["metadata"]["annotations"] = json!({ "ingress.landfall.dev/allow-namespaces": shared });
        }
        let event = Event::Apply(object(&service));
        self.services.insert(key, service);
        Change::Service(event)
    }

    fn change_secret(&mut self, chance: &Chance, namespace: &str) -> Option<Name> {
        let name = Name::new(namespace, chance.one(&SECRETS))?;
        self.made += 1;
        let (certificate, key) = certificate(chance.below(2) as usize);
        let data = [
            ("tls.crt", certificate),
            ("tls.key", key),
            ("auth", format!("user:{{SHA}}{}\n", self.made).into_bytes()),
        ];
        let data = data.map(|(key, value)| (key.to_owned(), ByteString(value)));
        let secret = Secret {
            data: Some(data.into()),
            type_: Some(chance.one(&["kubernetes.io/tls", "Opaque"]).to_owned()),
            ..Secret::default()
        };
        let found = match chance.below(4) {
            0 => Err(Absent::Missing),
            1 => Err(Absent::Unreadable("forbidden".into())),
            _ => Ok(Arc::new(Material::from(secret))),
        };
        self.secrets.0.insert(name.clone(), found);
        Some(name)
    }

    fn change_class(&mut self, chance: &Chance) -> Change {
        let name = chance.one(&["landfall", "other"]);
        let controller = chance.one(&[CONTROLLER, CONTROLLER, "example.com/x"]);
        let mut class = json!({ "metadata": { "name": name }, "spec": { "controller": controller } });
        if chance.percent(50) {
            class["metadata"]["annotations"][DEFAULT_CLASS] = json!("true");
        }
        let event = Event::Apply(object(&class));
        self.classes.insert(name.to_owned(), class);
        Change::Class(event)
    }

    /// All Ingresses as a list that is read again.
    fn list(&self) -> Vec<Change> {
        let listed = self.ingresses.values().map(|i| Event::InitApply(object(i)));
        let all = std::iter::once(Event::Init).chain(listed).chain([Event::InitDone]);
        all.map(Change::Ingress).collect()
    }

    fn objects(&self, world: &World) -> Objects {
        Objects {
            ingresses: self.ingresses.values().map(|i| Arc::new(object(i))).collect(),
            classes: self.classes.values().map(|c| Arc::new(object(c))).collect(),
            services: Arc::clone(world.services()),
        }
    }
}

/// All that a table says, as text.
fn told(snapshot: &Snapshot) -> String {
    let mut text = String::new();
    let backend = |backend: &landfall_ingress_balance::Backend| {
        let endpoints = backend.endpoints();
        format!("{} {:?} {:?}", backend.name, endpoints.addresses(), endpoints.problem)
    };
    let mut route = |route: &Route| {
        let others = [&route.fallback, &route.auth, &route.mirror];
        let others: Vec<_> = others
            .iter()
            .map(|other| other.as_ref().map(|other| backend(other)))
            .collect();
        let alternatives = route.alternatives.iter();
        let alternatives: Vec<_> = alternatives
            .map(|a| (&a.ingress, backend(&a.backend), &a.canary))
            .collect();
        let pattern = route.pattern.as_ref().map(|pattern| pattern.as_str());
        writeln!(
            text,
            "{:?} {:?} exact={} {pattern:?} {} to {} {others:?} {alternatives:?} {:?}",
            route.host,
            route.path,
            route.exact,
            route.ingress,
            backend(&route.backend),
            route.policy
        )
        .unwrap();
    };
    snapshot.table.routes().for_each(|r| route(r));
    snapshot
        .table
        .default_route()
        .into_iter()
        .chain(snapshot.table.default_routes())
        .for_each(|r| route(r));
    for remark in snapshot.remarks() {
        writeln!(text, "{remark:?}").unwrap();
    }
    let mut held: Vec<_> = snapshot.table.certificates().collect();
    held.sort_by_key(|(host, _)| *host);
    writeln!(text, "{held:?} {:?}", snapshot.table.default_certificate()).unwrap();
    let mut ours: Vec<_> = snapshot.ours().map(|ours| (&ours.label, &ours.uid)).collect();
    ours.sort();
    writeln!(text, "{ours:?} {} {:?}", snapshot.ours_count(), snapshot.wanted).unwrap();
    writeln!(text, "{}", snapshot.table.route_count()).unwrap();
    for host in HOSTS.iter().chain(&["z.a.com", "other.com", "unknown"]) {
        let host = host.to_lowercase();
        for path in ["/", "/x", "/x/y/z", "/x/abc", "/none"] {
            let found = snapshot
                .table
                .find(&host, path)
                .map(|r| (&r.host.name, &r.path, r.exact, &r.ingress));
            writeln!(text, "{host}{path} {found:?}").unwrap();
        }
        let certificate = snapshot.table.certificate(&host).map(|c| c.names());
        writeln!(text, "{host} {:?} {certificate:?}", snapshot.table.owner(&host)).unwrap();
    }
    text
}

/// The lines in which two texts differ.
fn difference(changed: &str, made: &str) -> String {
    let only = |a: &str, b: &str, mark: &str| {
        let lines = a.lines().filter(|line| !b.lines().any(|other| other == *line));
        lines.map(|line| format!("{mark} {line}\n")).collect::<String>()
    };
    only(changed, made, "by changes:") + &only(made, changed, "at once:   ")
}

/// Plays one schedule; returns how many routes its tables had.
fn play(seed: u64) -> usize {
    let chance = Chance::new(seed);
    let options = Options {
        merge_hosts: chance.percent(30),
        allow_external_name: chance.percent(50),
        allow_cross_namespace: chance.percent(30),
        ..Options::default()
    };
    let default = Name::parse("d/t1").filter(|_| chance.percent(30));
    let builder = || Builder::new(options.clone()).with_default_certificate(default.clone());
    let (mut cluster, mut world, mut changed) = (Cluster::default(), World::new(Locality::default()), builder());
    let mut routes = 0;
    for step in 0..STEPS {
        let mut secrets = vec![];
        for _ in 0..chance.between(1, if step == 0 { 20 } else { 4 }) {
            let (event, secret) = cluster.happen(&chance);
            secrets.extend(secret);
            // An event that is lost comes with the list.
            match event {
                Some(Change::Ingress(_)) if chance.percent(10) => {
                    cluster.list().into_iter().for_each(|event| _ = world.apply(event));
                }
                Some(event) => _ = world.apply(event),
                None => {}
            }
        }
        let before = changed.last_good();
        let mut changes = world.take_changes();
        changes.secrets.extend(secrets);
        let built = changed.update(changes, world.services(), &cluster.secrets).snapshot;
        let good = changed.last_good();
        let mut once = builder().with_last_good(good.clone());
        let made = once.build(&cluster.objects(&world), &cluster.secrets);
        let (changed_text, made_text) = (told(&built), told(&made));
        assert!(
            changed_text == made_text && good == once.last_good(),
            "table {step} of seed {seed} differs; last good before: {before:?}\n{}",
            difference(&changed_text, &made_text)
        );
        routes += built.table.route_count();
        if chance.percent(20) {
            world.services().sweep();
        }
    }
    routes
}

#[test]
fn a_table_that_came_by_changes_is_the_one_that_is_made_at_once() {
    let seeds = seeds(SEEDS);
    let count = seeds.end - seeds.start;
    let routes: usize = seeds.map(play).sum();
    println!("{routes} routes");
    // A schedule without routes would prove nothing.
    assert!(count < SEEDS || routes > 1000, "{routes}");
}
