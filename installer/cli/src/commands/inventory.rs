//! `inventory`.

use super::CommandResult;
use super::inventory_forms as forms;
use crate::args::{Inventory, InventoryForm};
use crate::load;
use crate::output::{write_stderr, write_stdout};
use landfall_ansible::listing::{self, Export};
use landfall_ansible::tree::Disk;
use landfall_core::explain::{Code, Diagnosis, ExitCode};
use serde_json::Value;

/// Shows the content of the inventory, or prints what `ansible-inventory` prints.
pub fn inventory(args: &Inventory) -> CommandResult {
    if args.list || args.host.is_some() || args.graph.is_some() {
        return as_ansible(args);
    }
    if args.export || args.yaml || args.vars {
        let what = "--export and --yaml go with --list or --host, --vars with --graph";
        return Err(vec![
            Diagnosis::new(Code::Usage, what).next("landfall inventory --help"),
        ]);
    }
    let understood = load::read(&args.inventory, None)?;
    for notice in &understood.notices {
        write_stderr(&format!("warning: {notice}\n"));
    }
    if !understood.unread.is_empty() {
        let files = understood.unread.iter().map(|(file, names)| {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            format!("\n  {file}: {}", names.join(", "))
        });
        let files: String = files.collect();
        write_stderr(&format!(
            "note: variables of members that landfall does not read:{files}\n"
        ));
    }
    let text = match args.to.unwrap_or(InventoryForm::ClusterYaml) {
        InventoryForm::ClusterYaml => forms::cluster_yaml(&understood.desired),
        InventoryForm::Yaml => forms::ansible_yaml(&understood.desired),
        InventoryForm::Ini => Ok(forms::ansible_ini(&understood.desired)),
    };
    write_stdout(&text.map_err(|error| vec![error])?);
    Ok(ExitCode::Done)
}

/// Prints what `ansible-inventory` prints for the same flags.
fn as_ansible(args: &Inventory) -> CommandResult {
    if let Some((path, _)) = load::cluster_yaml(&args.inventory) {
        let what = format!("{path} is a cluster.yaml and has no Ansible groups to print");
        return Err(vec![
            Diagnosis::new(Code::Usage, what).next("landfall inventory --to yaml makes an inventory of it"),
        ]);
    }
    let (request, config, _) = load::request(&args.inventory)?;
    if let Some(error) = config.merge_error() {
        return Err(vec![error]);
    }
    let export = if args.export { Export::AsSet } else { Export::Flattened };
    let text = listing::with(&request, &Disk, export, |listing| {
        if let Some(group) = &args.graph {
            return listing.graph(group, args.vars).map(|text| text + "\n");
        }
        let value = match &args.host {
            Some(host) => listing.host(host)?,
            None if args.yaml => listing.list_yaml(),
            None => listing.list(),
        };
        print(&sorted(value), args.yaml)
    })?;
    write_stdout(&text);
    Ok(ExitCode::Done)
}

fn print(value: &Value, yaml: bool) -> Result<String, Diagnosis> {
    let failed = |error: &(dyn std::error::Error + 'static)| {
        Diagnosis::new(Code::Internal, "the inventory cannot be shown").because(error)
    };
    if yaml {
        return serde_yaml::to_string(value).map_err(|error| failed(&error));
    }
    let mut text = Vec::new();
    let form = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut writer = serde_json::Serializer::with_formatter(&mut text, form);
    serde::Serialize::serialize(value, &mut writer).map_err(|error| failed(&error))?;
    Ok(String::from_utf8_lossy(&text).into_owned() + "\n")
}

/// Orders the keys of all mappings, as Ansible prints them.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut pairs: Vec<_> = map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(pairs.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}
