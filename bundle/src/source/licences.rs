//! Licences of the Go modules that programs consist of, by the licence files in Go's cache of modules.

use super::components::{go_command, tempdir};
use super::lock::Lock;
use super::tools::run;
use super::{failed, io};
use crate::sbom::ModuleLicences;
use crate::sbom::go::{self, STANDARD_LIBRARY};
use crate::sbom::licence_text::identify;
use landfall_core::explain::Diagnosis;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Identifies the licences of all modules of these programs. A module that is not in Go's cache, because the programs come from a cache of
/// their own, is fetched: what the bill says must not depend on caches. Blocks on disk, and on the network for what is fetched.
pub(super) fn of_modules<'a>(
    programs: impl Iterator<Item = &'a Path>,
    lock: &Lock,
    cache: &Path,
) -> Result<ModuleLicences, Diagnosis> {
    let mut modules = BTreeSet::new();
    for program in programs {
        let bytes = std::fs::read(program).map_err(io("read", program))?;
        modules.extend(
            go::modules(&bytes)
                .into_iter()
                .map(|module| (module.path, module.version)),
        );
    }
    let places = Places::ask()?;
    let absent = |(path, version): &&(String, String)| !places.of(path, version).is_dir();
    let absent: Vec<_> = modules.iter().filter(absent).collect();
    if !absent.is_empty() {
        fetch(&absent, lock, cache)?;
    }
    let mut licences = ModuleLicences::new();
    for (path, version) in modules {
        if let Some(id) = of_folder(&places.of(&path, &version))? {
            licences.insert((path, version), id);
        }
    }
    Ok(licences)
}

/// Where Go keeps sources.
struct Places {
    modules: PathBuf,
    root: PathBuf,
}

impl Places {
    fn ask() -> Result<Self, Diagnosis> {
        let mut go = go_command(Path::new("/"));
        let text = run(go.args(["env", "GOMODCACHE", "GOROOT"]), "asking Go for its folders")?;
        let text = String::from_utf8_lossy(&text);
        let mut lines = text.lines().map(PathBuf::from);
        let (Some(modules), Some(root)) = (lines.next(), lines.next()) else {
            return Err(failed("go does not say where its modules are"));
        };
        Ok(Self { modules, root })
    }

    /// The folder of a module (go.dev/ref/mod, "Module cache").
    fn of(&self, path: &str, version: &str) -> PathBuf {
        if path == STANDARD_LIBRARY {
            return self.root.clone();
        }
        self.modules
            .join(format!("{}@{}", go::escaped(path), go::escaped(version)))
    }
}

/// Has Go fetch modules, which it checks by the sums of the lock file.
fn fetch(modules: &[&(String, String)], lock: &Lock, cache: &Path) -> Result<(), Diagnosis> {
    let work = tempdir(cache)?;
    let sums = lock.module_sums.join("\n") + "\n";
    for (file, text) in [("go.mod", "module licences\n"), ("go.sum", &sums)] {
        std::fs::write(work.join(file), text).map_err(io("written", &work.join(file)))?;
    }
    let wanted = modules.iter().map(|(path, version)| format!("{path}@{version}"));
    let mut go = go_command(&work);
    run(
        go.args(["mod", "download"]).args(wanted),
        "fetching Go modules for their licences",
    )?;
    std::fs::remove_dir_all(&work).map_err(io("removed", &work))
}

/// Identifies the licence of a folder that has one licence file; of several, only a person knows which counts for what.
fn of_folder(folder: &Path) -> Result<Option<&'static str>, Diagnosis> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io("read", folder))? {
        let path = entry.map_err(io("read", folder))?.path();
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().to_ascii_lowercase())
            .unwrap_or_default();
        let named = ["license", "licence", "copying"]
            .iter()
            .any(|start| name.starts_with(start));
        if named && !name.ends_with(".go") && path.is_file() {
            found.push(path);
        }
    }
    let [file] = &found[..] else {
        return Ok(None);
    };
    let text = std::fs::read(file).map_err(io("read", file))?;
    Ok(identify(&String::from_utf8_lossy(&text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_the_licence_of_its_only_licence_file() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        assert_eq!(of_folder(folder.path()).unwrap(), None);
        let apache = std::fs::read_to_string("/usr/share/common-licenses/Apache-2.0").unwrap();
        write("LICENSE", &apache);
        write("license_test.go", "package x");
        std::fs::create_dir(folder.path().join("licenses")).unwrap();
        assert_eq!(of_folder(folder.path()).unwrap(), Some("Apache-2.0"));
        write("LICENSE.docs", "other words");
        assert_eq!(of_folder(folder.path()).unwrap(), None);
        assert!(of_folder(&folder.path().join("gone")).is_err());
    }

    #[test]
    fn modules_are_where_go_keeps_them() {
        let places = Places {
            modules: "/m".into(),
            root: "/go".into(),
        };
        assert_eq!(
            places.of("github.com/Azure/x", "v1.0.0"),
            Path::new("/m/github.com/!azure/x@v1.0.0")
        );
        assert_eq!(places.of("stdlib", "1.26.8"), Path::new("/go"));
    }
}
