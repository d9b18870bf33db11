use super::*;
use crate::archive::append;
use std::io::Write;

/// Members of an archive, and where it lies.
struct Fixture {
    folder: tempfile::TempDir,
    members: Vec<(String, Vec<u8>)>,
}

impl Fixture {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            members: vec![],
        }
    }

    fn member(&mut self, name: &str, bytes: impl Into<Vec<u8>>) {
        self.members.push((name.to_owned(), bytes.into()));
    }

    fn blob(&mut self, bytes: impl Into<Vec<u8>>) -> Digest {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        self.member(&format!("blobs/sha256/{}", digest.hex()), bytes);
        digest
    }

    /// Blobs of an image of one layer; returns its manifest's descriptor.
    fn image(&mut self, architecture: &str) -> Value {
        let config = self.blob(json!({ "architecture": architecture, "os": "linux" }).to_string());
        let layer = self.blob(layer(architecture));
        let manifest =
            json!({ "config": { "digest": config.to_string() }, "layers": [{ "digest": layer.to_string() }] });
        let manifest = self.blob(manifest.to_string());
        json!({ "mediaType": OCI_MANIFEST, "digest": manifest.to_string(), "platform": { "architecture": architecture, "os": "linux" } })
    }

    fn tar(&self) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, bytes) in &self.members {
            append(&mut tar, name, bytes).unwrap();
        }
        tar.into_inner().unwrap()
    }

    fn add(&self, archive: &[u8], name: &str, architecture: &str) -> Result<Vec<Image>, Diagnosis> {
        let path = self.folder.path().join("images.tar");
        std::fs::write(&path, archive).unwrap();
        let store = Store::open(&self.folder.path().join("cache")).unwrap();
        let archive: ImageArchive = format!("{name}{}", path.display()).parse().unwrap();
        let (mut writer, mut sbom) = (BundleWriter::default(), Sbom::default());
        add_archives(&[archive], architecture, &store, &mut writer, &mut sbom)
    }

    fn refused(&self, name: &str) -> String {
        self.add(&self.tar(), name, "amd64").unwrap_err().to_string()
    }
}

fn layer(text: &str) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    append(&mut tar, "etc/motd", text.as_bytes()).unwrap();
    tar.into_inner().unwrap()
}

fn index(manifests: &[Value]) -> String {
    json!({ "schemaVersion": 2, "manifests": manifests }).to_string()
}

fn docker() -> Fixture {
    let mut fixture = Fixture::new();
    fixture.member("c.json", json!({ "architecture": "amd64", "os": "linux" }).to_string());
    fixture.member("a/layer.tar", layer("a"));
    let list = json!([{ "Config": "c.json", "RepoTags": ["redis:7.4", "cache/redis:7"], "Layers": ["a/layer.tar", "a/layer.tar"] }]);
    fixture.member("manifest.json", list.to_string());
    fixture
}

#[test]
fn an_oci_layout_gives_the_image_of_each_architecture() {
    let mut fixture = Fixture::new();
    let both = [fixture.image("amd64"), fixture.image("arm64")];
    let inner = fixture.blob(index(&both));
    let outer = json!({
        "mediaType": "application/vnd.oci.image.index.v1+json", "digest": inner.to_string(),
        "annotations": { "io.containerd.image.name": "docker.io/library/redis:7.4", "org.opencontainers.image.ref.name": "7.4" },
    });
    fixture.member("index.json", index(&[outer]));
    for (number, architecture) in ["amd64", "arm64"].into_iter().enumerate() {
        let images = fixture.add(&fixture.tar(), "", architecture).unwrap();
        assert_eq!(images.len(), 1);
        assert_eq!(images[0].reference.as_str(), "docker.io/library/redis:7.4");
        assert_eq!(json!(images[0].manifest.to_string()), both[number]["digest"]);
        assert_eq!(images[0].blobs.len(), 3);
    }
    let named = fixture.add(&fixture.tar(), "my/redis=", "amd64").unwrap();
    assert_eq!(named[0].reference.as_str(), "docker.io/my/redis:latest");
}

#[test]
fn dockers_older_form_gets_a_manifest_and_may_be_compressed() {
    let fixture = docker();
    let images = fixture.add(&fixture.tar(), "", "amd64").unwrap();
    let names: Vec<&str> = images.iter().map(|image| image.reference.as_str()).collect();
    assert_eq!(names, ["docker.io/library/redis:7.4", "docker.io/cache/redis:7"]);
    assert_eq!(images[0].blobs.len(), 3, "a layer that repeats is there once");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&fixture.tar()).unwrap();
    assert_eq!(fixture.add(&gzip.finish().unwrap(), "", "amd64").unwrap(), images);
    assert_eq!(
        fixture.add(&fixture.tar(), "", "arm64").unwrap(),
        [],
        "it has none for these machines"
    );
}

#[test]
fn a_link_stands_for_a_layer() {
    let mut fixture = docker();
    fixture.members.retain(|(name, _)| name != "manifest.json");
    let list = json!([{ "Config": "c.json", "RepoTags": ["redis:7.4"], "Layers": ["a/layer.tar", "b/layer.tar"] }]);
    fixture.member("manifest.json", list.to_string());
    let mut tar = tar::Builder::new(Vec::new());
    for (name, bytes) in &fixture.members {
        append(&mut tar, name, bytes).unwrap();
    }
    let mut header = crate::archive::header(0);
    header.set_entry_type(tar::EntryType::Symlink);
    tar.append_link(&mut header, "b/layer.tar", "../a/layer.tar").unwrap();
    assert_eq!(fixture.add(&tar.into_inner().unwrap(), "", "amd64").unwrap().len(), 1);
}

#[test]
fn an_image_is_there_once_and_for_every_architecture() {
    let variant = |architecture: &str, archive: &Fixture| Variant {
        architecture: architecture.to_owned(),
        binaries: vec![],
        images: archive.add(&archive.tar(), "", architecture).unwrap(),
    };
    let fixture = docker();
    let one = variant("amd64", &fixture);
    assert!(check_added(std::slice::from_ref(&one)).is_ok());
    let lacking = check_added(&[one.clone(), variant("arm64", &fixture)]).unwrap_err();
    assert_eq!(
        lacking.saw[0],
        "docker.io/library/redis:7.4 is there for amd64 and not for arm64"
    );
    let mut twice = one;
    twice.images.push(twice.images[0].clone());
    assert!(check_added(&[twice]).unwrap_err().saw[0].contains("twice for amd64"));
}

#[test]
fn what_is_no_image_archive_is_named() {
    let empty = Fixture::new();
    assert!(empty.refused("").contains("neither index.json nor manifest.json"));
    let cut = docker().tar();
    assert!(empty.add(&cut[..cut.len() / 2], "", "amd64").is_err());
    assert!(empty.add(&[0x1f, 0x8b, 0, 0, 1], "", "amd64").is_err());

    let mut unnamed = Fixture::new();
    let image = unnamed.image("amd64");
    unnamed.member("index.json", index(&[image]));
    assert!(unnamed.refused("").contains("has no name"));
    assert!(unnamed.add(&unnamed.tar(), "redis:7=", "amd64").is_ok());

    let mut several = docker();
    several.members.retain(|(name, _)| name != "manifest.json");
    let one = json!({ "Config": "c.json", "RepoTags": ["a:1"], "Layers": ["a/layer.tar"] });
    several.member("manifest.json", json!([one, one]).to_string());
    assert!(several.refused("x:1=").contains("several images"));

    let mut lacking = Fixture::new();
    let image = lacking.image("amd64");
    lacking.members.retain(|(_, bytes)| *bytes != layer("amd64"));
    lacking.member("index.json", index(&[image]));
    assert!(lacking.refused("a:1=").contains("is missing"));

    let own: Result<ImageArchive, _> = "registry.landfall.internal/etcd:1=x.tar".parse();
    assert!(own.unwrap_err().contains("bundle's own images"));
}
