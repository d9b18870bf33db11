//! `inventory --to`, `--list` and its kind, and `init`.

use crate::program::Home;
use serde_json::{Value, json};

const CLUSTER: &str = "\
name: ship
podNetworkCidr: 10.250.0.0/16
sample: false
nodes:
  - {name: cp-1, role: control-plane, host: 10.9.0.1, user: admin, privateKey: keys/it's, password: open-sesame, schedulable: true}
  - {name: cp-2, role: control-plane, host: 10.9.0.2, user: root, ip: 10.8.0.2}
  - {name: cp-3, role: control-plane, host: 10.9.0.3, port: 2222}
  - {name: w-1, role: worker, host: 10.9.0.4, accessIp: 10.8.0.4}
  - {name: pc, role: outside, host: 10.9.0.5}
";

/// Returns what is understood of a file, without what names secrets.
fn understood(home: &Home, file: &str) -> Value {
    let ran = home.run(&["inventory", "-i", file]).ends(0);
    let mut value: Value = serde_yaml::from_str(&ran.out).unwrap();
    for node in value["nodes"].as_array_mut().unwrap() {
        node.as_object_mut().unwrap().remove("passwordFile");
    }
    value
}

#[test]
fn every_form_is_read_back_the_same() {
    let home = Home::new();
    home.write("cluster.yaml", CLUSTER);
    let before = understood(&home, "cluster.yaml");
    for (form, file) in [("ini", "back.ini"), ("yaml", "back.yml")] {
        let ran = home.run(&["inventory", "-i", "cluster.yaml", "--to", form]).ends(0);
        let ran = ran.keeps_quiet_about(&["open-sesame"]);
        assert!(ran.out.contains("# left out: ansible_password of cp-1"), "{}", ran.out);
        home.write(file, &ran.out);
        assert_eq!(understood(&home, file), before, "{form}:\n{}", ran.out);
    }
}

#[test]
fn listings_do_not_pass_over_merged_mappings() {
    let home = Home::new();
    home.write("hosts", "[masters]\na\n");
    home.write("ansible.cfg", "[defaults]\nhash_behaviour = merge\n");
    let refused = home.run(&["inventory", "-i", "hosts", "--list"]).ends(3);
    refused.complains(&["hash_behaviour = merge is not supported"]);
    let understood = home.run(&["inventory", "-i", "hosts"]).ends(0);
    understood.complains(&["mappings that variables use are replaced whole"]);
}

#[test]
fn listings_are_those_of_ansible() {
    let home = Home::new();
    home.write(
        "hosts",
        "[masters]\na x=1\n[workers]\nb:2222\n[all:children]\nmasters\n[masters:vars]\ny=no\n",
    );
    let list = home.run(&["inventory", "-i", "hosts", "--list"]).ends(0).out;
    let list: Value = serde_json::from_str(&list).unwrap();
    // ansible-inventory 2.19.14 printed the same.
    let wanted = json!({
        "_meta": {"hostvars": {"a": {"x": 1, "y": "no"}, "b": {"ansible_port": 2222}}, "profile": "inventory_legacy"},
        "all": {"children": ["ungrouped", "masters", "workers"]},
        "masters": {"hosts": ["a"]},
        "workers": {"hosts": ["b"]},
    });
    assert_eq!(list, wanted);
    let host = home.run(&["inventory", "-i", "hosts", "--host", "a"]).ends(0).out;
    assert_eq!(host, "{\n    \"x\": 1,\n    \"y\": \"no\"\n}\n");
    let graph = home
        .run(&["inventory", "-i", "hosts", "--graph", "masters", "--vars"])
        .ends(0)
        .out;
    assert_eq!(
        graph,
        "@masters:\n  |--a\n  |  |--{x = 1}\n  |  |--{y = no}\n  |--{y = no}\n"
    );
    let yaml = home
        .run(&["inventory", "-i", "hosts", "--list", "--export", "--yaml"])
        .ends(0)
        .out;
    let yaml: Value = serde_yaml::from_str(&yaml).unwrap();
    let wanted = json!({"all": {"children": {
        "masters": {"hosts": {"a": {"x": 1}}, "vars": {"y": "no"}},
        "workers": {"hosts": {"b": {"ansible_port": 2222}}},
    }}});
    assert_eq!(yaml, wanted);
    home.run(&["inventory", "-i", "hosts", "--host", "no"])
        .ends(3)
        .complains(&["no host no"]);
}

#[test]
fn flags_are_below_variables_and_extra_variables_above() {
    let home = Home::new();
    home.write(
        "hosts",
        "[heads]\na ansible_user=own\n[hands]\nb\n[odd]\nc\n[all:vars]\nlandfall={'ignore': ['odd']}\n",
    );
    let flags = [
        "--control-plane-group",
        "heads",
        "--worker-group",
        "hands",
        "-u",
        "flag",
        "--private-key",
        "k",
    ];
    let args = [&["inventory", "-i", "hosts", "-e", "ansible_port=2200"][..], &flags].concat();
    let out = home.run(&args).ends(0).out;
    let found: Value = serde_yaml::from_str(&out).unwrap();
    for (at, user) in [(0, "own"), (1, "flag")] {
        let node = &found["nodes"][at];
        assert_eq!(
            (&node["user"], &node["port"], &node["privateKey"]),
            (&json!(user), &json!(2200), &json!("k"))
        );
    }
    home.write("cluster.yaml", CLUSTER);
    let ran = home.run(&["inventory", "-i", "cluster.yaml", "-u", "me"]).ends(2);
    ran.complains(&["--user is for Ansible inventories"]);
    home.run(&["inventory"]).ends(2).complains(&["no inventory is named"]);
    home.run(&["inventory", "-i", "hosts", "-K"])
        .ends(2)
        .complains(&["without a terminal"]);
}

#[test]
fn init_writes_a_file_that_is_understood_and_overwrites_none() {
    let home = Home::new();
    let args = [
        "init",
        "--name",
        "ship",
        "--control-plane",
        "cp-1=10.9.0.1",
        "--worker",
        "w-1=10.9.0.2",
        "-u",
        "admin",
    ];
    home.run(&args).ends(0);
    let text = std::fs::read_to_string(home.path("cluster.yaml")).unwrap();
    assert!(text.contains("# podNetworkCidr: 10.244.0.0/16"), "{text}");
    let found = understood(&home, "cluster.yaml");
    assert_eq!(
        (&found["name"], &found["nodes"][1]["user"]),
        (&json!("ship"), &json!("admin"))
    );
    home.run(&args).ends(3).complains(&["cluster.yaml cannot be written"]);
    home.run(&["init", "-o", "b", "--control-plane", "cp 1=x"]).ends(3);
    home.run(&["init", "-o", "b"])
        .ends(2)
        .complains(&["no terminal to ask on"]);
    assert!(!home.path("b").exists());
}
