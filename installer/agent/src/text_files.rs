//! Text files by name pattern, as far as they were asked for.

use crate::host::Host;
use landfall_core::facts::{FilePattern, FileText};
use landfall_core::glob;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Most that is read of one file: files of settings are some kilobytes.
const MAX_BYTES: u64 = 64 * 1024;
/// Most files of one pattern: a folder with more is none of settings.
const MAX_FILES: usize = 256;
/// As the kernel's limit for one path (`MAXSYMLINKS`).
const MOST_LINKS: usize = 40;

/// Reads all files that fit a pattern. Those that are gone or cannot be read are left out.
pub(crate) fn read(host: &Host, patterns: &[FilePattern]) -> BTreeMap<String, FileText> {
    let mut texts = BTreeMap::new();
    for asked in patterns {
        for path in expand(host, &asked.pattern) {
            if let Some(text) = read_one(host, &path, &asked.only) {
                texts.insert(path, text);
            }
        }
    }
    texts
}

/// Returns the paths of the machine that fit, in order of their names.
fn expand(host: &Host, pattern: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        if !glob::is_pattern(part) {
            found.iter_mut().for_each(|path| path.push_str(&format!("/{part}")));
            continue;
        }
        let mut deeper = Vec::new();
        for directory in found {
            let entries = std::fs::read_dir(host.at(&directory)).into_iter().flatten().flatten();
            let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
            let mut names: Vec<String> = names.filter(|name| glob::matches_part(part, name)).collect();
            names.sort();
            names.truncate(MAX_FILES);
            deeper.extend(names.into_iter().map(|name| format!("{directory}/{name}")));
        }
        found = deeper;
    }
    found
}

fn read_one(host: &Host, path: &str, only: &[String]) -> Option<FileText> {
    let real = resolve(host, Path::new(path))?;
    let at = host.at(&real);
    let meta = std::fs::metadata(&at).ok()?;
    let text = if meta.is_file() {
        let mut bytes = Vec::new();
        File::open(&at).ok()?.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
        asked_for(&String::from_utf8_lossy(&bytes), only)
    } else if meta.is_dir() {
        return None;
    } else {
        // A link to /dev/null: a file that says nothing, and hides others of its name.
        String::new()
    };
    Some(FileText {
        text,
        real: (real != Path::new(path)).then(|| real.to_string_lossy().into_owned()),
    })
}

/// Returns the path of the machine to which symbolic links lead; `None` when they lead in a circle.
fn resolve(host: &Host, path: &Path) -> Option<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        match std::fs::read_link(host.at(&path)) {
            // An absolute target replaces the path.
            Ok(target) => path = normal(&path.parent()?.join(target)),
            Err(_) => return Some(path),
        }
    }
    None
}

/// Takes `..` and `.` out of a path, as they stand in relative links.
fn normal(path: &Path) -> PathBuf {
    use std::path::Component;
    path.components().fold(PathBuf::new(), |mut path, part| {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            Component::CurDir => {}
            part => path.push(part),
        }
        path
    })
}

/// Keeps headings of sections and the lines that begin with one of the keys, each at its number; the other lines may be secret.
fn asked_for(text: &str, only: &[String]) -> String {
    if only.is_empty() {
        return text.to_owned();
    }
    let is_end = |c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-'));
    let wanted = |line: &str| {
        let line = line.trim_start();
        let begins = |key: &String| {
            line.strip_prefix(key.as_str())
                .is_some_and(|rest| rest.starts_with(is_end))
        };
        (line.starts_with('[') && line.trim_end().ends_with(']')) || only.iter().any(begins)
    };
    let lines = text.lines().map(|line| if wanted(line) { line } else { "" });
    lines.flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn machine(files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        let host = Host::under(root.path());
        for (path, text) in files {
            std::fs::create_dir_all(host.at(path).parent().unwrap()).unwrap();
            std::fs::write(host.at(path), text).unwrap();
        }
        (root, host)
    }

    fn asked(pattern: &str, only: &[&str]) -> FilePattern {
        FilePattern {
            pattern: pattern.to_owned(),
            only: only.iter().map(|key| (*key).to_owned()).collect(),
        }
    }

    #[test]
    fn files_are_found_by_pattern_and_links_are_followed_within_the_machine() {
        let (_root, host) = machine(&[
            ("/etc/sysctl.d/b.conf", "b"),
            ("/etc/sysctl.d/a.conf", "a"),
            ("/etc/sysctl.d/README", "no"),
            ("/etc/sysctl.conf", "linked"),
            ("/etc/systemd/system/x.target.wants/y.swap", "wanted"),
        ]);
        symlink("../sysctl.conf", host.at("/etc/sysctl.d/99-sysctl.conf")).unwrap();
        symlink("/etc/sysctl.conf", host.at("/etc/sysctl.d/98-absolute.conf")).unwrap();
        symlink("loop.conf", host.at("/etc/sysctl.d/loop.conf")).unwrap();
        symlink("gone", host.at("/etc/sysctl.d/gone.conf")).unwrap();
        let found = read(
            &host,
            &[
                asked("/etc/sysctl.d/*.conf", &[]),
                asked("/etc/systemd/system/*.wants/*.swap", &[]),
            ],
        );
        let seen: Vec<(&str, &str, Option<&str>)> = found
            .iter()
            .map(|(path, f)| (path.as_str(), f.text.as_str(), f.real.as_deref()))
            .collect();
        assert_eq!(
            seen,
            [
                ("/etc/sysctl.d/98-absolute.conf", "linked", Some("/etc/sysctl.conf")),
                ("/etc/sysctl.d/99-sysctl.conf", "linked", Some("/etc/sysctl.conf")),
                ("/etc/sysctl.d/a.conf", "a", None),
                ("/etc/sysctl.d/b.conf", "b", None),
                ("/etc/systemd/system/x.target.wants/y.swap", "wanted", None),
            ]
        );
    }

    #[test]
    fn a_link_to_dev_null_is_a_file_that_says_nothing() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("masked.swap");
        symlink("/dev/null", &path).unwrap();
        let found = read(&Host::real(), &[asked(path.to_str().unwrap(), &[])]);
        let file = found.values().next().unwrap();
        assert_eq!((file.text.as_str(), file.real.as_deref()), ("", Some("/dev/null")));
    }

    #[test]
    fn lines_that_were_not_asked_for_stay_on_the_machine() {
        let text = "#cloud-config\npassword: hush\n manage_etc_hosts: true\n[wifi]\npsk=hush\nmethod=auto\nmethods=hush\n- [hush, x";
        let kept = asked_for(text, &["manage_etc_hosts".to_owned(), "method".to_owned()]);
        assert_eq!(kept, "\n\n manage_etc_hosts: true\n[wifi]\n\nmethod=auto\n\n\n");
    }

    #[test]
    fn a_long_file_is_cut_and_a_folder_is_none() {
        let (_root, host) = machine(&[("/etc/long", &"x".repeat(100_000)), ("/etc/folder/x", "")]);
        let found = read(&host, &[asked("/etc/*", &[])]);
        assert_eq!(found.len(), 1);
        assert_eq!(found["/etc/long"].text.len(), 64 * 1024);
    }
}
