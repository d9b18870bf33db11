use super::*;
use landfall_core::bundle_index::{NODE_ARCHITECTURE, OCI_MANIFEST, Variant};
use serde_json::Value;

const METADATA: &str = r#"{
 "packages": [
  {"id":"ws#landfall@0.1.0","name":"landfall","version":"0.1.0","license":"Apache-2.0","source":null,"repository":null},
  {"id":"r#a@1.0.0+x","name":"a","version":"1.0.0+x","license":"MIT/Apache-2.0","source":"registry+https://github.com/rust-lang/crates.io-index","repository":null},
  {"id":"r#b@2.0.0","name":"b","version":"2.0.0","license":null,"source":"registry+https://github.com/rust-lang/crates.io-index","repository":null},
  {"id":"r#test@1.0.0","name":"test","version":"1.0.0","license":"MIT","source":"registry+https://github.com/rust-lang/crates.io-index","repository":null}
 ],
 "resolve": {"nodes": [
  {"id":"ws#landfall@0.1.0","deps":[
    {"pkg":"r#a@1.0.0+x","dep_kinds":[{"kind":null}]},
    {"pkg":"r#test@1.0.0","dep_kinds":[{"kind":"dev"}]}]},
  {"id":"r#a@1.0.0+x","deps":[{"pkg":"r#b@2.0.0","dep_kinds":[{"kind":"build"},{"kind":"dev"}]}]},
  {"id":"r#b@2.0.0","deps":[{"pkg":"r#a@1.0.0+x","dep_kinds":[{"kind":null}]}]},
  {"id":"r#test@1.0.0","deps":[]}
 ]}
}"#;

fn bill() -> Value {
    let known = ("github.com/Azure/x".to_owned(), "v1.2.0+incompatible".to_owned());
    let mut sbom = Sbom::with_licences([(known, "MIT")].into());
    let program = sbom.program("landfall", "0.1.0", b"not by Go");
    sbom.on_nodes(&program);
    sbom.crates(&program, &CrateGraph::parse(METADATA.as_bytes()).unwrap(), "landfall");
    let go = super::go::tests::program("dep\tgithub.com/Azure/x\tv1.2.0+incompatible\th1:abc=\n");
    let etcd = sbom.program("etcd", "3.7.3", &go);
    let package = DebianPackage {
        name: "libstdc++6".to_owned(),
        version: "1:12.2.0-14".to_owned(),
        digest: Digest::of(b"deb"),
    };
    let package = sbom.package(&package, "bookworm", Some("GPL-3.0-or-later AND LicenseRef-debian-x"));
    let image = Image {
        reference: "registry.landfall.internal/etcd:v3.7.3".parse().unwrap(),
        manifest: Digest::of(b"manifest"),
        manifest_size_bytes: 8,
        media_type: OCI_MANIFEST.to_owned(),
        blobs: vec![],
        roles: Default::default(),
    };
    sbom.image(&image, &[etcd, package]);
    let variant = Variant {
        architecture: NODE_ARCHITECTURE.to_owned(),
        binaries: vec![],
        images: vec![image],
    };
    let index = BundleIndex::new("source", "v1.37.2", "registry.landfall.internal", variant);
    assert_eq!(sbom.to_json(&index), sbom.to_json(&index));
    serde_json::from_slice(&sbom.to_json(&index)).unwrap()
}

fn component<'a>(bill: &'a Value, name: &str) -> &'a Value {
    let all = bill["components"].as_array().unwrap();
    all.iter()
        .find(|c| c["name"] == name)
        .unwrap_or_else(|| panic!("{name} is not in {bill:#}"))
}

/// What bom-1.6.schema.json of CycloneDX asks for: required fields, no others than it knows (`additionalProperties: false`), its enums and
/// patterns, and names that are there once.
fn check_schema(bill: &Value) {
    let keys = |value: &Value, required: &[&str], optional: &[&str]| {
        let object = value.as_object().unwrap_or_else(|| panic!("no object: {value}"));
        for key in required {
            assert!(object.contains_key(*key), "{key} is missing in {value:#}");
        }
        for key in object.keys() {
            assert!(
                required.contains(&key.as_str()) || optional.contains(&key.as_str()),
                "{key} in {value:#}"
            );
        }
    };
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    keys(
        bill,
        &["bomFormat", "specVersion"],
        &["$schema", "version", "metadata", "components", "dependencies"],
    );
    assert_eq!(
        (&bill["bomFormat"], &bill["specVersion"]),
        (&json!("CycloneDX"), &json!("1.6"))
    );
    assert!(bill["version"].as_u64().is_some_and(|version| version >= 1));
    keys(&bill["metadata"], &[], &["component"]);
    let mut names = BTreeSet::new();
    for component in list(&bill["components"]).iter().chain([&bill["metadata"]["component"]]) {
        keys(
            component,
            &["type", "name"],
            &[
                "bom-ref",
                "version",
                "description",
                "hashes",
                "licenses",
                "purl",
                "externalReferences",
                "properties",
            ],
        );
        assert!(["application", "library", "container"].contains(&component["type"].as_str().unwrap()));
        assert!(
            names.insert(component["bom-ref"].as_str().unwrap().to_owned()),
            "{component:#}"
        );
        for hash in list(&component["hashes"]) {
            keys(&hash, &["alg", "content"], &[]);
            let content = hash["content"].as_str().unwrap();
            assert!(hash["alg"] == "SHA-256" && content.len() == 64, "{hash}");
            assert!(content.bytes().all(|b| b.is_ascii_hexdigit()), "{hash}");
        }
        for licence in list(&component["licenses"]) {
            match licence.get("expression") {
                Some(text) => assert!(text.is_string() && licence.as_object().unwrap().len() == 1),
                None => keys(&licence["license"], &["name"], &[]),
            }
        }
        for reference in list(&component["externalReferences"]) {
            keys(&reference, &["url", "type"], &[]);
            assert!(["vcs", "source-distribution", "distribution"].contains(&reference["type"].as_str().unwrap()));
            assert!(reference["url"].as_str().unwrap().starts_with("https://"));
        }
        for property in list(&component["properties"]) {
            keys(&property, &["name"], &["value"]);
        }
    }
    for dependency in list(&bill["dependencies"]) {
        keys(&dependency, &["ref"], &["dependsOn"]);
        for name in list(&dependency["dependsOn"]).iter().chain([&dependency["ref"]]) {
            assert!(names.contains(name.as_str().unwrap()), "{name} is no component");
        }
    }
}

#[test]
fn a_bill_is_valid_and_has_no_time() {
    let bill = bill();
    check_schema(&bill);
    let text = bill.to_string();
    assert!(!text.contains("timestamp") && !text.contains("serialNumber"));
    for component in bill["components"].as_array().unwrap() {
        assert_eq!(component["licenses"].as_array().unwrap().len(), 1, "{component:#}");
    }
}

#[test]
fn everything_inside_is_named_with_source_and_licence() {
    let bill = bill();
    let a = component(&bill, "a");
    assert_eq!(a["licenses"][0]["expression"], "MIT OR Apache-2.0");
    assert_eq!(a["purl"], "pkg:cargo/a@1.0.0%2Bx");
    assert_eq!(component(&bill, "b")["licenses"][0]["license"]["name"], "NOASSERTION");
    let package = component(&bill, "libstdc++6");
    assert_eq!(
        package["purl"],
        "pkg:deb/debian/libstdc%2B%2B6@1%3A12.2.0-14?arch=amd64&distro=bookworm"
    );
    assert_eq!(
        package["licenses"][0]["expression"],
        "GPL-3.0-or-later AND LicenseRef-debian-x"
    );
    let module = component(&bill, "github.com/Azure/x");
    assert_eq!(module["properties"][0]["value"], "h1:abc=");
    assert_eq!(module["licenses"][0]["expression"], "MIT");
    assert_eq!(
        component(&bill, "stdlib")["licenses"][0]["license"]["name"],
        "NOASSERTION"
    );
    assert!(
        bill["components"]
            .as_array()
            .unwrap()
            .iter()
            .all(|c| c["name"] != "test"),
        "a test's crate is in no program"
    );
    let inside = |name: &str| -> Vec<String> {
        let all = bill["dependencies"].as_array().unwrap();
        let found = all.iter().find(|d| d["ref"].as_str().unwrap().contains(name)).unwrap();
        found["dependsOn"]
            .as_array()
            .unwrap()
            .iter()
            .map(|d| d.as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(inside("program:landfall").len(), 3);
    assert_eq!(inside("program:etcd").len(), 2, "Go's library and a module");
    let image = inside("pkg:oci/etcd");
    assert!(
        image[0].starts_with("pkg:deb/") && image[1].starts_with("program:etcd"),
        "{image:?}"
    );
    assert_eq!(inside("bundle").len(), 2);
}

#[test]
fn licences_that_are_no_expressions_are_names() {
    for text in [
        "MIT",
        "GPL-2.0-or-later",
        "MIT OR Apache-2.0",
        "(MIT OR Zlib) AND GPL-2.0-only WITH Classpath-exception-2.0",
    ] {
        assert!(is_expression(text), "{text}");
    }
    for text in [
        "",
        "MIT License",
        "MIT OR",
        "MIT, BSD",
        "(MIT",
        "MIT)",
        "AND",
        "GPL2 GPL3",
    ] {
        assert!(!is_expression(text), "{text}");
    }
}
