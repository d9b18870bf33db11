//! Images from registries (OCI distribution-spec 1.1), with tokens as Docker's registries hand them out (distribution's spec/auth/token.md).

use super::download::{Downloads, Source};
use super::http::{Client, Response, Trouble, read_small};
use super::login::Logins;
use super::mirror::{Mirror, check_url, places};
use crate::source::failed;
use crate::source::image_archive::added_name;
use landfall_core::bundle_index::{DOCKER_MANIFEST, OCI_MANIFEST};
use landfall_core::explain::Diagnosis;
use landfall_core::name::Digest;
use serde::Deserialize;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use zeroize::Zeroizing;

/// Media types of manifests and of lists of them, that are asked for.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";
/// Layers that containerd unpacks and that a registry holds itself.
const LAYERS: [&str; 5] = [
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.v1.tar+gzip",
    "application/vnd.oci.image.layer.v1.tar+zstd",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
];
/// The most that a manifest may have (distribution-spec 1.1: registries should take 4 MiB).
const MANIFEST_BYTES: u64 = 4 * 1024 * 1024;

/// An image name that says where the image is: host, repository, tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ImageAddress {
    pub host: String,
    pub repository: String,
    pub tag: String,
}

/// An image that the builder adds, by its whole name in a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddedImage(String);

impl AddedImage {
    pub(super) fn name(&self) -> &str {
        &self.0
    }
}

impl FromStr for AddedImage {
    type Err = String;

    /// Takes short names too: `redis:7.4` is `docker.io/library/redis:7.4`.
    fn from_str(text: &str) -> Result<Self, String> {
        let name = added_name(text)?.to_string();
        name.parse::<ImageAddress>().map(|_| Self(name))
    }
}

impl ImageAddress {
    fn origin(&self) -> String {
        // Docker Hub's registry has another name than its images (docs.docker.com, "Registry API").
        match self.host.as_str() {
            "docker.io" => "https://registry-1.docker.io".to_owned(),
            host => format!("https://{host}"),
        }
    }

    /// Where the registry has a manifest of it.
    pub fn manifest_url(&self, manifest: &Digest) -> String {
        format!("{}/v2/{}/manifests/{manifest}", self.origin(), self.repository)
    }
}

impl FromStr for ImageAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} does not have the form HOST/REPOSITORY:TAG");
        let (name, tag) = text.rsplit_once(':').ok_or_else(wrong)?;
        let (host, repository) = name.split_once('/').ok_or_else(wrong)?;
        let plain = |s: &str, more: &str| {
            !s.is_empty()
                && s.chars()
                    .all(|c| c.is_ascii_alphanumeric() || "._-".contains(c) || more.contains(c))
        };
        let is_host = host.contains(['.', ':']) && check_url(&format!("https://{host}")).is_ok();
        if !is_host || !plain(repository, "/") || !plain(tag, "") {
            return Err(wrong());
        }
        Ok(Self {
            host: host.to_owned(),
            repository: repository.to_owned(),
            tag: tag.to_owned(),
        })
    }
}

/// One of the servers that may have an image.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    /// `https://host[:port]`.
    base: String,
    /// The host, as logins name it.
    host: String,
    /// The repository there: behind the path of a mirror.
    repository: String,
}

/// The part of manifests and lists of them that is needed.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Document {
    media_type: Option<String>,
    manifests: Option<Vec<Descriptor>>,
    config: Option<Descriptor>,
    layers: Option<Vec<Descriptor>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: Digest,
    size: u64,
    platform: Option<Platform>,
}

#[derive(Debug, Deserialize)]
struct Platform {
    architecture: String,
    os: String,
    #[serde(default)]
    variant: String,
}

impl Platform {
    /// arm64's first variant may be named; amd64's later ones are for processors that not every machine has.
    fn fits(&self, architecture: &str) -> bool {
        let variant = matches!(
            (architecture, self.variant.as_str()),
            (_, "") | ("arm64", "v8") | ("amd64", "v1")
        );
        self.os == "linux" && self.architecture == architecture && variant
    }
}

/// An image in the cache.
pub(super) struct Fetched {
    /// Media type of its manifest.
    pub media_type: String,
    pub manifest_size_bytes: u64,
    /// Manifest, configuration, layers.
    pub blobs: Vec<(Digest, PathBuf)>,
}

impl Fetched {
    /// The files of its layers, the lowest first.
    pub fn layers(&self) -> Vec<PathBuf> {
        self.blobs.iter().skip(2).map(|(_, path)| path.clone()).collect()
    }
}

/// Asks registries.
pub(super) struct Registries<'a> {
    client: &'a Client<'a>,
    mirrors: &'a [Mirror],
    logins: Logins,
    /// Value of the header `Authorization`, by server and repository.
    authorizations: RefCell<BTreeMap<(String, String), Zeroizing<String>>>,
}

impl<'a> Registries<'a> {
    pub fn new(client: &'a Client<'a>, mirrors: &'a [Mirror], logins: Logins) -> Self {
        Self {
            client,
            mirrors,
            logins,
            authorizations: RefCell::default(),
        }
    }

    fn places(&self, image: &ImageAddress) -> Vec<Place> {
        let place = |base: String| {
            let plain = base.trim_start_matches("https://");
            let (authority, path) = plain.split_once('/').unwrap_or((plain, ""));
            let host = if authority == "registry-1.docker.io" {
                "docker.io"
            } else {
                authority
            };
            Place {
                base: format!("https://{authority}"),
                host: host.to_owned(),
                repository: format!("{path}/{}", image.repository)
                    .trim_start_matches('/')
                    .to_owned(),
            }
        };
        places(self.mirrors, &image.host, image.origin())
            .into_iter()
            .map(place)
            .collect()
    }

    /// Asks the tag for the manifest of each architecture.
    pub fn lock(&self, image: &ImageAddress, architectures: &[String]) -> Result<BTreeMap<String, Digest>, Diagnosis> {
        let name = format!("{}/{}:{}", image.host, image.repository, image.tag);
        let (place, text) = self.by_tag(image, &name)?;
        let document = parse(&text, &name)?;
        let Some(manifests) = document.manifests else {
            return self.lock_single(&place, &document, &text, &name, architectures);
        };
        let mut found = BTreeMap::new();
        for architecture in architectures {
            let fits = |d: &&Descriptor| d.platform.as_ref().is_some_and(|p| p.fits(architecture));
            let chosen = manifests.iter().find(fits).ok_or_else(|| {
                let has = |d: &Descriptor| d.platform.as_ref().map(|p| format!("{}/{}", p.os, p.architecture));
                let has: Vec<_> = manifests.iter().filter_map(has).collect();
                failed(format!("the image {name} is not there for linux/{architecture}"))
                    .saw(format!("it is there for {}", has.join(", ")))
            })?;
            found.insert(architecture.clone(), chosen.digest);
        }
        Ok(found)
    }

    /// A tag that names one manifest: its configuration says for which machines it is.
    fn lock_single(
        &self,
        place: &Place,
        document: &Document,
        text: &[u8],
        name: &str,
        architectures: &[String],
    ) -> Result<BTreeMap<String, Digest>, Diagnosis> {
        let config = document.config.as_ref().ok_or_else(|| no_manifest(name))?;
        let read = self.client.patiently(name, || {
            let response = self.open(place, &format!("blobs/{}", config.digest), &[])?;
            read_small(ok(response)?, MANIFEST_BYTES)
        });
        let read =
            read.map_err(|trouble| failed(format!("{name} cannot be asked for its architecture")).saw(trouble.text))?;
        let platform: Platform = serde_json::from_slice(&read).map_err(|error| no_manifest(name).because(&error))?;
        match architectures {
            [only] if Digest::of(&read) == config.digest && platform.fits(only) => {
                Ok([(only.clone(), Digest::of(text))].into())
            }
            _ => Err(failed(format!(
                "the image {name} is not there for linux/{}",
                architectures.join(" and linux/")
            ))
            .saw(format!(
                "it is there for {}/{} alone",
                platform.os, platform.architecture
            ))),
        }
    }

    fn by_tag(&self, image: &ImageAddress, name: &str) -> Result<(Place, Vec<u8>), Diagnosis> {
        let mut refused = Vec::new();
        let places = self.places(image);
        let count = places.len();
        for place in places {
            let read = self.client.patiently(name, || {
                let response = self.open(&place, &format!("manifests/{}", image.tag), &[("accept", ACCEPT)])?;
                read_small(ok(response)?, MANIFEST_BYTES)
            });
            match read {
                Ok(text) => return Ok((place, text)),
                Err(trouble) => refused.push(format!("{}: {}", place.base, trouble.text)),
            }
            if refused.len() < count {
                (self.client.say)(&format!(
                    "{name}: {}; asking the next server",
                    refused[refused.len() - 1]
                ));
            }
        }
        let nowhere = failed(format!("the image {name} cannot be found"));
        Err(refused.into_iter().fold(nowhere, Diagnosis::saw))
    }

    /// Fetches the image with this manifest, layers as they were published.
    pub fn fetch(
        &self,
        downloads: &Downloads<'_>,
        image: &ImageAddress,
        manifest: &Digest,
        name: &str,
    ) -> Result<Fetched, Diagnosis> {
        let get = |digest: &Digest, size: Option<u64>, kind: &'static str, what: &str| {
            let places = self.places(image);
            let sources: Vec<_> = places.iter().map(|place| self.source(place, kind, digest)).collect();
            downloads.fetch(digest, size, what, &sources)
        };
        let path = get(
            manifest,
            Some(MANIFEST_BYTES),
            "manifests",
            &format!("manifest of {name}"),
        )?;
        let text = std::fs::read(&path).map_err(crate::source::io("read", &path))?;
        let document = parse(&text, name)?;
        let media_type = document.media_type.unwrap_or_else(|| OCI_MANIFEST.to_owned());
        let (Some(config), Some(layers)) = (document.config, document.layers) else {
            return Err(no_manifest(name));
        };
        if media_type != OCI_MANIFEST && media_type != DOCKER_MANIFEST {
            return Err(no_manifest(name).saw(format!("its media type is {media_type}")));
        }
        let mut blobs = vec![(*manifest, path)];
        let path = get(
            &config.digest,
            Some(config.size),
            "blobs",
            &format!("configuration of {name}"),
        )?;
        blobs.push((config.digest, path));
        let count = layers.len();
        for (number, layer) in layers.into_iter().enumerate() {
            if !LAYERS.contains(&layer.media_type.as_str()) {
                let text = format!("the image {name} has a layer of the media type {}", layer.media_type);
                return Err(failed(text));
            }
            let what = format!("layer {} of {count} of {name}", number + 1);
            let path = get(&layer.digest, Some(layer.size), "blobs", &what)?;
            // Empty layers repeat.
            if !blobs.iter().any(|(digest, _)| *digest == layer.digest) {
                blobs.push((layer.digest, path));
            }
        }
        Ok(Fetched {
            media_type,
            manifest_size_bytes: text.len() as u64,
            blobs,
        })
    }

    fn source(&self, place: &Place, kind: &'static str, digest: &Digest) -> Source<'_> {
        let (place, digest) = (place.clone(), *digest);
        Source {
            name: format!("{}/v2/{}/{kind}/{digest}", place.base, place.repository),
            open: Box::new(move |offset| {
                let range = format!("bytes={offset}-");
                let mut headers = vec![("accept", if kind == "manifests" { ACCEPT } else { "*/*" })];
                if offset > 0 {
                    headers.push(("range", &range));
                }
                self.open(&place, &format!("{kind}/{digest}"), &headers)
            }),
        }
    }

    /// Sends a request with what the registry asks for as login. Answers of 401 and 403 are errors.
    fn open(&self, place: &Place, path: &str, headers: &[(&str, &str)]) -> Result<Response, Trouble> {
        let url = format!("{}/v2/{}/{path}", place.base, place.repository);
        let key = (place.base.clone(), place.repository.clone());
        let send = || {
            let known = self.authorizations.borrow().get(&key).cloned();
            let mut headers = headers.to_vec();
            if let Some(value) = &known {
                headers.push(("authorization", value));
            }
            self.client.get(&url, &headers)
        };
        let mut response = send()?;
        if response.status() == 401 {
            let value = self.authorize(place, &response)?;
            self.authorizations.borrow_mut().insert(key.clone(), value);
            response = send()?;
        }
        if matches!(response.status().as_u16(), 401 | 403) {
            self.authorizations.borrow_mut().remove(&key);
            let advice = self.logins.advice(&place.host);
            return Err(Trouble::lasting(format!(
                "the server answers {}: {advice}",
                response.status()
            )));
        }
        Ok(response)
    }

    /// Makes what the header `Authorization` has to be, as the answer asks.
    fn authorize(&self, place: &Place, answer: &Response) -> Result<Zeroizing<String>, Trouble> {
        let asked = answer.headers().get_all("www-authenticate").iter();
        let challenges: Vec<Challenge> = asked
            .filter_map(|value| Challenge::parse(value.to_str().ok()?))
            .collect();
        let login = self.logins.header(&place.host);
        let Some(bearer) = challenges.iter().find(|challenge| challenge.scheme == "bearer") else {
            let basic = challenges.iter().any(|challenge| challenge.scheme == "basic");
            return login.filter(|_| basic).ok_or_else(|| {
                let advice = self.logins.advice(&place.host);
                Trouble::lasting(format!("the server answers 401 Unauthorized: {advice}"))
            });
        };
        let url = bearer.token_url(&place.repository)?;
        let headers: Vec<_> = login.iter().map(|value| ("authorization", value.as_str())).collect();
        let response = self.client.get(&url, &headers)?;
        if response.status() != 200 {
            let advice = self.logins.advice(&place.host);
            return Err(Trouble::lasting(format!(
                "{} answers {}: {advice}",
                bearer.realm(),
                response.status()
            )));
        }
        #[derive(Deserialize)]
        struct Token {
            token: Option<String>,
            access_token: Option<String>,
        }
        let text = Zeroizing::new(read_small(response, 1024 * 1024)?);
        let token = serde_json::from_slice::<Token>(&text).ok();
        let token = token.and_then(|t| t.token.or(t.access_token)).map(Zeroizing::new);
        // A token that is no header value could otherwise be quoted by an error.
        let token = token.filter(|t| t.bytes().all(|b| b.is_ascii_graphic()));
        let token = token.ok_or_else(|| Trouble::lasting(format!("{} answers without a token", bearer.realm())))?;
        Ok(Zeroizing::new(format!("Bearer {}", *token)))
    }
}

fn ok(response: Response) -> Result<Response, Trouble> {
    match response.status().as_u16() {
        200 => Ok(response),
        _ => Err(Trouble::lasting(format!("the server answers {}", response.status()))),
    }
}

fn parse(text: &[u8], name: &str) -> Result<Document, Diagnosis> {
    serde_json::from_slice(text).map_err(|error| no_manifest(name).because(&error))
}

fn no_manifest(name: &str) -> Diagnosis {
    failed(format!("what the registry has as {name} is no image of a container"))
}

/// One way to log in that a server offers (RFC 9110, 11.6.1).
#[derive(Debug, PartialEq, Eq)]
struct Challenge {
    /// In lower case.
    scheme: String,
    parameters: BTreeMap<String, String>,
}

impl Challenge {
    fn parse(header: &str) -> Option<Self> {
        let (scheme, mut rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        let mut parameters = BTreeMap::new();
        loop {
            rest = rest.trim_start_matches([' ', ',']);
            let Some((name, value)) = rest.split_once('=') else {
                break;
            };
            let (value, behind) = match value.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => value.split_once(',').unwrap_or((value, "")),
            };
            parameters.insert(name.trim().to_ascii_lowercase(), value.to_owned());
            rest = behind;
        }
        Some(Self {
            scheme: scheme.to_ascii_lowercase(),
            parameters,
        })
    }

    fn realm(&self) -> &str {
        self.parameters.get("realm").map_or("", String::as_str)
    }

    fn token_url(&self, repository: &str) -> Result<String, Trouble> {
        let realm = self.realm();
        check_url(realm)
            .map_err(|why| Trouble::lasting(format!("the server sends to {realm:?} for a token: {why}")))?;
        let pull = format!("repository:{repository}:pull");
        let scope = self.parameters.get("scope").unwrap_or(&pull);
        let mut url = format!(
            "{realm}{}scope={}",
            if realm.contains('?') { '&' } else { '?' },
            encoded(scope)
        );
        if let Some(service) = self.parameters.get("service") {
            url.push_str(&format!("&service={}", encoded(service)));
        }
        Ok(url)
    }
}

/// A value in a query (RFC 3986, 3.4).
fn encoded(text: &str) -> String {
    let one = |byte: u8| match byte {
        b if b.is_ascii_alphanumeric() || b"-._~:/".contains(&b) => char::from(b).to_string(),
        b => format!("%{b:02X}"),
    };
    text.bytes().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn challenges_of_real_registries_are_understood() {
        let docker = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        let challenge = Challenge::parse(docker).unwrap();
        assert_eq!(
            challenge.token_url("x").unwrap(),
            "https://auth.docker.io/token?scope=repository:a/b:pull%2Cpush&service=registry.docker.io"
        );
        let bare = Challenge::parse("bearer realm=https://a.example/t?x=1").unwrap();
        assert_eq!(
            bare.token_url("y/z").unwrap(),
            "https://a.example/t?x=1&scope=repository:y/z:pull"
        );
        assert_eq!(Challenge::parse(r#"Basic realm="r""#).unwrap().scheme, "basic");
        let plain = Challenge::parse(r#"Bearer realm="http://a.example/t""#).unwrap();
        assert!(plain.token_url("y").is_err());
    }

    #[test]
    fn image_names_say_where_the_image_is() {
        let image: ImageAddress = "registry.example:5000/a/b_c:v1-x".parse().unwrap();
        assert_eq!(
            (image.host.as_str(), image.repository.as_str()),
            ("registry.example:5000", "a/b_c")
        );
        for wrong in [
            "nginx",
            "nginx:1",
            "library/nginx:1",
            "a.b/c",
            "a.b/:1",
            "a.b/c:",
            "a.b/c d:1",
            "u@a.b/c:1",
        ] {
            assert!(wrong.parse::<ImageAddress>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_header_breaks_the_reading(text in ".*") {
            if let Some(challenge) = Challenge::parse(&text) {
                prop_assert!(challenge.token_url("r").map_or(true, |url| check_url(challenge.realm()).is_ok() && url.starts_with("https://")));
            }
        }
    }
}
