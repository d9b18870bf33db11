//! Tests of inventories: valid and invalid ones, and the secrets in both.

use crate::program::Home;

const CLUSTER: &str = "\
name: ship
podNetworkCidr: 10.250.0.0/16
nodes:
  - {name: cp-1, role: control-plane, host: 10.9.0.1, user: admin, password: open-sesame, becomePassword: swordfish}
  - {name: w-1, role: worker, ip: 10.9.0.2, port: 2222}
  - {name: pc, role: outside, host: 10.9.0.3}
";
const SECRETS: [&str; 2] = ["open-sesame", "swordfish"];

#[test]
fn a_missing_file_is_named() {
    let home = Home::new();
    for args in [
        &["inventory", "-i", "no/such.yaml"][..],
        &["install", "-i", "no/such.yaml", "no.bundle"],
        &["plan", "-i", "no/such.yaml", "no.bundle"],
        &["verify", "-i", "no/such.yaml"],
        &["status", "-i", "no/such.yaml"],
        &["kubeconfig", "-i", "no/such.yaml"],
        &["rollback", "-i", "no/such.yaml"],
        &["uninstall", "-i", "no/such.yaml", "--yes"],
    ] {
        let ran = home.run(args).ends(3);
        let ran = ran.complains(&["error[LF0101]: no/such.yaml cannot be read", "why: ", "next: "]);
        assert_eq!(ran.out, "", "{args:?}");
    }
    // A directory is read as Ansible reads it; this one holds no inventory.
    home.run(&["inventory", "-i", "."])
        .ends(3)
        .complains(&["error[LF0103]: .: groups", "the inventory has: no groups"]);
}

#[test]
fn an_inventory_is_shown_without_secrets_and_can_be_read_again() {
    let home = Home::new();
    home.write("cluster.yaml", CLUSTER);
    let shown = home.run(&["inventory", "-i", "cluster.yaml"]).ends(0);
    let shown = shown.keeps_quiet_about(&SECRETS);
    assert_eq!(shown.err, "");
    for text in [
        "name: ship",
        "podNetworkCidr: 10.250.0.0/16",
        "serviceCidr: 10.96.0.0/12",
        "name: cp-1",
        "user: admin",
        "port: 2222",
        "role: outside",
        "passwordFile: ",
        "becomePasswordFile: ",
    ] {
        assert!(shown.out.contains(text), "{text:?} is not in:\n{}", shown.out);
    }
    // The user has to name the files that hold secrets.
    let again: String = shown
        .out
        .lines()
        .filter(|l| !l.contains("asswordFile"))
        .map(|l| format!("{l}\n"))
        .collect();
    home.write("again.yaml", &again);
    let second = home.run(&["inventory", "-i", "again.yaml"]).ends(0);
    assert_eq!(second.out, again);
}

#[test]
fn an_ansible_inventory_is_shown_the_same_way() {
    let home = Home::new();
    home.write(
        "hosts.ini",
        "[control_plane]\ncp-1 ansible_host=10.9.0.1 ansible_user=admin ansible_password=open-sesame\n\n\
         [workers]\nw-1 ansible_host=10.9.0.2 ansible_become_password=swordfish\n",
    );
    let shown = home
        .run(&["inventory", "-i", "hosts.ini"])
        .ends(0)
        .keeps_quiet_about(&SECRETS);
    for text in ["role: control-plane", "role: worker", "host: 10.9.0.1", "user: admin"] {
        assert!(shown.out.contains(text), "{text:?} is not in:\n{}", shown.out);
    }
}

#[test]
fn all_problems_of_a_file_are_shown_at_once_and_no_secret_with_them() {
    let home = Home::new();
    home.write(
        "cluster.yaml",
        "name: ship\npodNetworkCidr: 10.250.0.1/16\nproxyMode: magic\nnoSuchField: 1\nnodes:\n  \
         - {name: cp-1, role: control-plane, host: 10.9.0.1, password: open-sesame, port: many}\n  \
         - {name: cp-2, role: captain, host: 10.9.0.2, becomePassword: swordfish}\n  \
         - {name: w-1, role: worker, ip: 10.9.0.300}\n",
    );
    for args in [
        &["inventory", "-i", "cluster.yaml"][..],
        &["install", "-i", "cluster.yaml", "no.bundle"],
        &["uninstall", "-i", "cluster.yaml", "--yes"],
        &["status", "-i", "cluster.yaml", "--output", "json"],
    ] {
        let ran = home.run(args).ends(3).keeps_quiet_about(&SECRETS);
        let places = ["podNetworkCidr", "proxyMode", "noSuchField", "port", "role", "ip"];
        let ran = ran.complains(&places).complains(&["error[LF0103]: cluster.yaml: "]);
        assert!(ran.err.matches("error[LF").count() >= places.len(), "{}", ran.err);
    }
    let topology = "name: ship\npodNetworkCidr: 10.96.0.0/16\nnodes:\n  \
                    - {name: cp-1, role: control-plane, host: 10.9.0.1}\n  \
                    - {name: cp-1, role: control-plane, host: 10.9.0.1}\n";
    home.write("topology.yaml", topology);
    let ran = home.run(&["inventory", "-i", "topology.yaml"]).ends(3);
    let ran = ran.complains(&["error[LF0104]", "2 control planes", "more than once", "overlap"]);
    assert!(ran.err.matches("error[LF0104]").count() >= 4, "{}", ran.err);
}

#[test]
fn a_wrong_ansible_inventory_shows_all_its_problems_and_no_secret() {
    let home = Home::new();
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/inventories/three-errors.ini");
    let ran = home
        .run(&["inventory", "-i", fixture])
        .ends(3)
        .keeps_quiet_about(&["hush-hush"]);
    let ran = ran.complains(&["ansible_port", "ip", "ansible_connection"]);
    assert_eq!(ran.err.matches("error[LF").count(), 3, "{}", ran.err);
}

#[test]
fn broken_yaml_says_where_and_shows_no_secret() {
    let home = Home::new();
    home.write(
        "cluster.yaml",
        "name: ship\nnodes:\n  - {name: cp-1, password: open-sesame\n  oops: [\n",
    );
    let ran = home
        .run(&["inventory", "-i", "cluster.yaml"])
        .ends(3)
        .keeps_quiet_about(&SECRETS);
    ran.complains(&["error[LF0102]: cluster.yaml", "line"]);
}
