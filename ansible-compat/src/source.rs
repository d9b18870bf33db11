//! Tells which form an inventory file has, and reads it.

use crate::faults::{Faults, Place};
use crate::groups::Groups;
use crate::{ini, yaml};
use landfall_core::explain::{Code, Diagnosis};
use serde_json::Value;
use std::path::Path;
use std::rc::Rc;

/// The forms that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Ini,
    Yaml,
}

/// Reads an inventory file; nothing is returned where no group could be read at all.
pub fn parse(text: &str, path: &Path, faults: &mut Faults) -> Option<Groups> {
    let file: Rc<str> = path.display().to_string().into();
    let refuse = |why: &str| {
        Diagnosis::new(Code::SpecSyntax, format!("{file} {why}")).next(format!(
            "write it out with Ansible and use the result: ansible-inventory -i {file} --list --export --yaml --output inventory.yml"
        ))
    };
    if text.starts_with("#!") {
        faults.push(refuse("is a script; landfall does not run inventory scripts"));
        return None;
    }
    if path.extension().is_some_and(|e| e == "toml") {
        faults.push(refuse("is TOML, which is not read"));
        return None;
    }
    if form(text, path) == Form::Ini {
        return Some(ini::parse(text, &file, faults));
    }
    match yaml::value(text, &file) {
        Ok(Value::Object(map)) if map.contains_key("plugin") => {
            faults.push(refuse("configures an inventory plugin, which landfall does not run"));
            None
        }
        Ok(Value::Object(map)) => Some(yaml::groups(&map, &file, faults)),
        Ok(_) => {
            faults.value(&Place::new(&file, "top"), "an inventory is a mapping of groups");
            None
        }
        Err(diagnosis) => {
            faults.push(diagnosis);
            None
        }
    }
}

/// The extension decides; without one, the content does. Any other extension means INI, as with Ansible.
fn form(text: &str, path: &Path) -> Form {
    let extension = path.extension().map(|e| e.to_string_lossy().to_ascii_lowercase());
    match extension.as_deref() {
        Some("yml" | "yaml" | "json") => Form::Yaml,
        Some(_) => Form::Ini,
        None => {
            let mut lines = text
                .lines()
                .map(str::trim)
                .filter(|l| !l.is_empty() && !l.starts_with('#'));
            let first = lines.next().unwrap_or_default();
            let key = first.split(" #").next().is_some_and(|l| l.trim_end().ends_with(':'));
            if key
                || ["---", "{", "$ANSIBLE_VAULT"]
                    .iter()
                    .any(|sign| first.starts_with(sign))
            {
                Form::Yaml
            } else {
                Form::Ini
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extension_then_content_tells_the_form() {
        for (text, path, wanted) in [
            ("", "h.yml", Form::Yaml),
            ("", "h.YAML", Form::Yaml),
            ("", "h.json", Form::Yaml),
            ("all:\n", "h.ini", Form::Ini),
            ("all:\n", "hosts.prod", Form::Ini),
            ("[a]\nb\n", "hosts", Form::Ini),
            ("# c\n\nb ansible_host=x\n", "hosts", Form::Ini),
            ("# c\n---\n", "hosts", Form::Yaml),
            ("all: # c\n  hosts: {}\n", "hosts", Form::Yaml),
            ("{\"all\": {}}", "hosts", Form::Yaml),
        ] {
            assert_eq!(form(text, Path::new(path)), wanted, "{text:?} {path}");
        }
    }

    #[test]
    fn what_would_have_to_be_run_is_refused() {
        for (text, path, wanted) in [
            ("#!/bin/sh\n", "h", "script"),
            ("", "h.toml", "TOML"),
            ("plugin: aws_ec2\n", "h.yml", "plugin"),
            ("- a\n", "h.yml", "mapping of groups"),
            ("", "h.yml", "mapping of groups"),
            ("a: [\n", "h.yml", "no valid YAML"),
        ] {
            let mut faults = Faults::default();
            assert!(parse(text, Path::new(path), &mut faults).is_none());
            let list = faults.into_list();
            assert!(list.len() == 1 && list[0].what.contains(wanted), "{path}: {list:?}");
        }
    }
}
