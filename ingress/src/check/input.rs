//! Objects for the commands beside serving: from manifests, from standard input, or from a cluster.

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use landfall_ingress_kubernetes::watch::{ClassObject, IngressObject, ServiceObject};
use landfall_ingress_translate::object::Words;
use landfall_ingress_translate::options::Options;
use landfall_ingress_translate::route::{DEFAULT_CLASS, Objects};
use landfall_ingress_translate::secrets::lookup::Secrets;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Largest input; a dump of 10,000 Ingresses has about 30 MiB.
const LARGEST_BYTES: u64 = 256 * 1024 * 1024;
/// Longest wait for one list of a cluster.
const LIST: Duration = Duration::from_secs(60);
/// Objects of one page of a list.
const PAGE: u32 = 500;
/// What is said of a Secret that was not given: no reason to refuse anything.
pub(super) const ABSENT: &str = "is not in the input and was not looked at";

/// Where objects come from.
#[derive(clap::Args)]
#[group(required = true, multiple = false)]
pub struct Source {
    /// Manifests, as YAML or JSON; - is standard input.
    files: Vec<PathBuf>,
    /// The cluster of KUBECONFIG.
    #[arg(long)]
    live: bool,
}

/// Objects that were read.
#[derive(Default)]
pub struct Input {
    /// What the table is built from.
    pub objects: Objects,
    /// Secrets of manifests.
    pub secrets: Given,
    /// Ingresses of API versions that are gone.
    pub old: Vec<Value>,
    live: bool,
}

/// What was there of itself.
pub struct Complete {
    /// Services were given, so one that is not is missing.
    pub services: bool,
}

impl Source {
    /// Reads everything.
    pub fn read(&self) -> Result<Input, String> {
        if self.live {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            return runtime
                .map_err(|error| format!("no runtime: {error}"))?
                .block_on(live());
        }
        let mut input = Input::default();
        for file in &self.files {
            let text = read_file(file).map_err(|error| format!("{}: {error}", file.display()))?;
            input
                .add(&text)
                .map_err(|error| format!("{}: {error}", file.display()))?;
        }
        Ok(input)
    }
}

fn read_file(path: &Path) -> Result<String, std::io::Error> {
    let mut text = String::new();
    let reader: Box<dyn Read> = match path.as_os_str() == "-" {
        true => Box::new(std::io::stdin().lock()),
        false => Box::new(std::fs::File::open(path)?),
    };
    if reader.take(LARGEST_BYTES).read_to_string(&mut text)? as u64 == LARGEST_BYTES {
        return Err(std::io::Error::other("larger than 256 MiB"));
    }
    Ok(text)
}

/// Writes to standard output.
pub fn print(text: &str) -> Result<(), String> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| format!("cannot write the result: {error}"))
}

impl Input {
    /// Takes all documents of a manifest.
    pub fn add(&mut self, text: &str) -> Result<(), String> {
        for document in serde_yaml::Deserializer::from_str(text) {
            let value = Value::deserialize(document).map_err(|error| error.to_string())?;
            self.add_object(value)?;
        }
        Ok(())
    }

    fn add_object(&mut self, mut value: Value) -> Result<(), String> {
        let text = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (version, kind) = (text("apiVersion"), text("kind"));
        if let Some(items) = value.get_mut("items").map(Value::take) {
            let items = items.as_array().cloned().unwrap_or_default();
            return items.into_iter().try_for_each(|item| self.add_object(item));
        }
        match (version.as_str(), kind.as_str()) {
            ("networking.k8s.io/v1", "Ingress") => self.objects.ingresses.push(typed(in_namespace(value))?),
            (_, "Ingress") => self.old.push(in_namespace(value)),
            ("networking.k8s.io/v1", "IngressClass") => self.objects.classes.push(typed(value)?),
            ("v1", "Service") => self.add_service(in_namespace(value))?,
            ("discovery.k8s.io/v1", "EndpointSlice") => self.add_slice(in_namespace(value))?,
            ("v1", "Secret") => self.secrets.add(typed(in_namespace(value))?),
            ("v1", "ConfigMap") => self.secrets.add_config(typed(in_namespace(value))?),
            _ => {}
        }
        Ok(())
    }

    fn add_service(&self, value: Value) -> Result<(), String> {
        self.objects
            .services
            .read_service(value)
            .map_err(|error| error.to_string())
    }

    fn add_slice(&self, value: Value) -> Result<(), String> {
        self.objects
            .services
            .read_slice(value)
            .map_err(|error| error.to_string())
    }

    /// Adds what manifests leave out: classes that Ingresses name are ours, and one is the default.
    pub fn complete(&mut self, options: &Options) -> Complete {
        if !self.live && self.objects.classes.is_empty() {
            let named = self.objects.ingresses.iter().filter_map(|ingress| {
                let class = ingress.class.as_deref().or_else(|| ingress.annotated_class());
                class.map(str::to_owned)
            });
            let mut names: BTreeSet<String> = named.collect();
            names.insert(options.class.clone().unwrap_or_else(|| "landfall".to_owned()));
            let class = |name| {
                let class = json!({ "metadata": { "name": name, "annotations": { DEFAULT_CLASS: "true" } },
                    "spec": { "controller": options.controller } });
                Arc::new(serde_json::from_value(class).expect("the form is the one of the API"))
            };
            self.objects.classes = names.into_iter().map(class).collect();
        }
        Complete {
            services: self.live || !self.objects.services.service_names().is_empty(),
        }
    }
}

fn in_namespace(mut value: Value) -> Value {
    if let Some(meta) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.entry("namespace").or_insert_with(|| json!("default"));
    }
    value
}

fn typed<K: DeserializeOwned>(value: Value) -> Result<Arc<K>, String> {
    let name = value
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    serde_json::from_value(value)
        .map(Arc::new)
        .map_err(|error| format!("{name}: {error}"))
}

/// What a manifest's object holds, by namespace and name.
type Contents = BTreeMap<(String, String), BTreeMap<String, Vec<u8>>>;

/// Secrets and ConfigMaps of manifests.
#[derive(Default)]
pub struct Given {
    secrets: Contents,
    configs: Contents,
}

fn key_of(meta: &ObjectMeta) -> (String, String) {
    (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

impl Given {
    fn add(&mut self, secret: Arc<Secret>) {
        let data = secret
            .data
            .iter()
            .flatten()
            .map(|(key, value)| (key.clone(), value.0.clone()));
        let texts = secret
            .string_data
            .iter()
            .flatten()
            .map(|(key, value)| (key.clone(), value.clone().into_bytes()));
        self.secrets
            .insert(key_of(&secret.metadata), data.chain(texts).collect());
    }

    fn add_config(&mut self, map: Arc<ConfigMap>) {
        let texts = map.data.iter().flatten();
        let texts = texts.map(|(key, text)| (key.clone(), text.clone().into_bytes()));
        self.configs.insert(key_of(&map.metadata), texts.collect());
    }

    fn get(&self, namespace: &str, name: &str) -> Result<&BTreeMap<String, Vec<u8>>, String> {
        self.secrets
            .get(&(namespace.to_owned(), name.to_owned()))
            .ok_or_else(|| ABSENT.to_owned())
    }
}

impl Secrets for Given {
    fn value(&self, namespace: &str, name: &str, key: &str) -> Result<Option<Vec<u8>>, String> {
        Ok(self.get(namespace, name)?.get(key).cloned())
    }

    fn keys(&self, namespace: &str, name: &str) -> Result<Vec<String>, String> {
        Ok(self.get(namespace, name)?.keys().cloned().collect())
    }

    fn config(&self, namespace: &str, name: &str) -> Result<Vec<(String, Vec<u8>)>, String> {
        let found = self.configs.get(&(namespace.to_owned(), name.to_owned()));
        let found = found.ok_or_else(|| ABSENT.to_owned())?;
        Ok(found.clone().into_iter().collect())
    }
}

/// Reads a cluster, without its Secrets.
async fn live() -> Result<Input, String> {
    let client = landfall_ingress_kubernetes::client().await?;
    let mut objects = Objects::default();
    let mut words = Words::default();
    let kept = |object: IngressObject| Arc::new(object.split(&mut words).0);
    objects.ingresses = list(&client).await?.into_iter().map(kept).collect();
    let kept = |object: ClassObject| Arc::new(object.compact());
    objects.classes = list(&client).await?.into_iter().map(kept).collect();
    for service in list::<ServiceObject>(&client).await? {
        let (namespace, name) = (service.namespace().unwrap_or_default(), service.name_any());
        let _ = objects
            .services
            .put_service(&namespace, &name, service.compact(&mut words));
    }
    Ok(Input {
        objects,
        live: true,
        ..Input::default()
    })
}

async fn list<K>(client: &kube::Client) -> Result<Vec<K>, String>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let api = Api::<K>::all(client.clone());
    let mut all = vec![];
    let mut next = None;
    loop {
        let page = ListParams {
            limit: Some(PAGE),
            continue_token: next,
            ..ListParams::default()
        };
        let answer = tokio::time::timeout(LIST, api.list(&page)).await;
        let answer = answer.map_err(|_| format!("{}: no answer in time", K::plural(&())))?;
        let answer = answer.map_err(|error| format!("{}: {error}", K::plural(&())))?;
        next = answer.metadata.continue_.filter(|token| !token.is_empty());
        all.extend(answer.items);
        if next.is_none() {
            return Ok(all);
        }
    }
}
