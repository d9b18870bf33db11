//! Reads `cluster.yaml`: fields of [`ClusterSpec`] at the top, machines under `nodes`. All problems at once.

use super::{ClusterSpec, Desired, Problems, validate};
use crate::explain::{Code, Diagnosis};
use crate::inventory::{Connect, Connection, Inventory, Node, Proxy, Role, SshSettings, Unset};
use crate::name::NodeName;
use crate::secret::Secret;
use serde_json::{Map, Value};
use std::path::PathBuf;

/// Parses the text of a YAML file to a JSON value; the error says the line.
pub fn yaml(text: &str, file: &str) -> Result<Value, Diagnosis> {
    serde_yaml::from_str(text)
        .map_err(|error| Diagnosis::new(Code::SpecSyntax, format!("{file} is no valid YAML")).because(&error))
}

/// Reads a `cluster.yaml`.
pub fn cluster_yaml(text: &str, file: &str) -> Result<Desired, Vec<Diagnosis>> {
    let Value::Object(mut fields) = yaml(text, file).map_err(|d| vec![d])? else {
        let text = format!("{file} must be a mapping with `nodes` and fields of the cluster");
        return Err(vec![Diagnosis::new(Code::SpecSyntax, text)]);
    };
    let mut problems = Problems::new(file);
    let nodes = fields.remove("nodes");
    let mut way = Map::new();
    for key in ["jump", "proxyCommand"] {
        way.extend(fields.remove(key).map(|value| (key.to_owned(), value)));
    }
    let spec = cluster_spec(&fields, "", &mut problems);
    let mut inventory = Inventory::default();
    match nodes {
        Some(Value::Array(list)) => {
            for (i, value) in list.iter().enumerate() {
                inventory.nodes.extend(node(value, i, &mut problems));
            }
        }
        _ => problems.value("nodes", "a list of machines is needed"),
    }
    let any_worker = inventory.workers().next().is_some();
    for node in &mut inventory.nodes {
        if node.connect.ssh.proxy.is_none() && node.connect.connection != Connection::Openssh {
            let mut fields = Fields {
                map: way.clone(),
                place: String::new(),
                problems: &mut problems,
            };
            node.connect.ssh.proxy = proxy(&mut fields, &node.connect);
        }
        node.schedulable |= node.role == Role::Worker || (node.role == Role::ControlPlane && !any_worker);
    }
    let desired = Desired { spec, inventory };
    validate::validate(&desired, &mut problems);
    problems.or(desired)
}

/// Reads each field of the cluster by itself, so that every wrong one is reported.
pub fn cluster_spec(fields: &Map<String, Value>, prefix: &str, problems: &mut Problems) -> ClusterSpec {
    let mut good = Map::new();
    for (key, value) in fields {
        let place = format!("{prefix}{key}");
        let whole = |part: Value| Value::Object(Map::from_iter([(key.clone(), part)]));
        if let Some(value) = sound(value, &place, &whole, problems) {
            good.insert(key.clone(), value);
        }
    }
    serde_json::from_value(Value::Object(good)).unwrap_or_else(|error| {
        problems.value(prefix, error);
        ClusterSpec::default()
    })
}

/// Returns the valid parts of a value; the others are added as problems. `whole` makes a spec with just one part of it.
fn sound(value: &Value, place: &str, whole: &dyn Fn(Value) -> Value, problems: &mut Problems) -> Option<Value> {
    // Whether a list or a mapping can stand here shows without what is in it.
    let shell = match value {
        Value::Object(_) => Value::Object(Map::new()),
        Value::Array(_) => Value::Array(vec![]),
        part => part.clone(),
    };
    if let Err(error) = serde_json::from_value::<ClusterSpec>(whole(shell)) {
        problems.value(place, error);
        return None;
    }
    Some(match value {
        Value::Object(map) => Value::Object(
            map.iter()
                .filter_map(|(key, part)| {
                    let whole = |part| whole(Value::Object(Map::from_iter([(key.clone(), part)])));
                    Some((key.clone(), sound(part, &format!("{place}.{key}"), &whole, problems)?))
                })
                .collect(),
        ),
        Value::Array(list) => Value::Array(
            list.iter()
                .enumerate()
                .filter_map(|(n, part)| {
                    let whole = |part| whole(Value::Array(vec![part]));
                    sound(part, &format!("{place}[{n}]"), &whole, problems)
                })
                .collect(),
        ),
        part => part.clone(),
    })
}

/// A field of a machine, taken out of its mapping with its type checked.
struct Fields<'a> {
    map: Map<String, Value>,
    place: String,
    problems: &'a mut Problems,
}

impl Fields<'_> {
    fn text(&mut self, key: &str) -> Option<String> {
        match self.map.remove(key)? {
            Value::String(text) => Some(text),
            Value::Null => None,
            // YAML reads 1.10 as 1.1 and 1e3 as 1000, so the written text is lost.
            Value::Number(_) => {
                self.wrong(
                    key,
                    "must be text; put the number in quotes, or YAML may drop some of its digits",
                );
                None
            }
            _ => {
                self.wrong(key, "must be text");
                None
            }
        }
    }
    /// Takes a whole number, written as one or as text.
    fn whole_number<T: std::str::FromStr>(&mut self, key: &str, wanted: &str) -> Option<T> {
        if let Some(number) = self.map.get(key).and_then(Value::as_u64) {
            self.map.insert(key.to_owned(), Value::String(number.to_string()));
        }
        self.parsed(key, wanted)
    }
    fn parsed<T: std::str::FromStr>(&mut self, key: &str, wanted: &str) -> Option<T> {
        let text = self.text(key)?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.wrong(key, &format!("{text:?} is no {wanted}"));
        }
        parsed
    }
    fn flag(&mut self, key: &str) -> Option<bool> {
        match self.map.remove(key)? {
            Value::Bool(flag) => Some(flag),
            _ => {
                self.wrong(key, "must be true or false");
                None
            }
        }
    }
    fn wrong(&mut self, key: &str, why: &str) {
        let place = format!("{}.{key}", self.place);
        self.problems.value(&place, why);
    }
}

fn node(value: &Value, i: usize, problems: &mut Problems) -> Option<Node> {
    let Value::Object(map) = value else {
        problems.value(&format!("nodes[{i}]"), "must be a mapping");
        return None;
    };
    let mut fields = Fields {
        map: map.clone(),
        place: format!("nodes[{i}]"),
        problems,
    };
    let name = name_of(&mut fields);
    let role = role_of(&mut fields);
    let ip = fields.parsed("ip", "IP address");
    let access_ip = fields.parsed("accessIp", "IP address");
    let user = fields.text("user");
    let become_root = fields.flag("become");
    let port = fields.whole_number("port", "port");
    let unset = Unset {
        user: user.is_none(),
        port: port.is_none(),
        become_root: become_root.is_none(),
    };
    let user = user.unwrap_or_else(|| "root".to_owned());
    let connection = connection_of(&mut fields);
    let password = secret(&mut fields, "password");
    let become_password = secret(&mut fields, "becomePassword");
    let host = fields
        .text("host")
        .or_else(|| ip.map(|i: std::net::IpAddr| i.to_string()));
    let mut connect = Connect {
        host: host.unwrap_or_else(|| name.as_ref().map(ToString::to_string).unwrap_or_default()),
        port: port.unwrap_or(22),
        private_key: fields.text("privateKey").map(|p| expand_home(&p)),
        password,
        become_root: become_root.unwrap_or(user != "root"),
        become_password,
        connection,
        user,
        ssh: SshSettings {
            unset,
            ..SshSettings::default()
        },
    };
    connect.ssh.proxy = proxy(&mut fields, &connect);
    if connection == Connection::Local && connect.ssh.proxy.is_some() {
        fields.wrong("connection", "is local, so neither jump nor proxyCommand leads there");
    }
    let schedulable = fields.flag("schedulable").unwrap_or(false);
    let unknown: Vec<String> = fields.map.keys().cloned().collect();
    for key in unknown {
        fields.wrong(
            &key,
            "is unknown; known: name, role, ip, accessIp, host, port, user, privateKey, password, passwordFile, become, \
             connection, becomePassword, becomePasswordFile, jump, proxyCommand, schedulable",
        );
    }
    Some(Node {
        name: name?,
        role: role?,
        schedulable,
        ip,
        access_ip,
        connect,
    })
}

fn name_of(fields: &mut Fields<'_>) -> Option<NodeName> {
    match fields.text("name").map(|n| n.parse()) {
        Some(Ok(name)) => Some(name),
        Some(Err(error)) => {
            fields.wrong("name", &format!("{error}"));
            None
        }
        None => {
            fields.wrong("name", "is missing");
            None
        }
    }
}

fn role_of(fields: &mut Fields<'_>) -> Option<Role> {
    match fields.text("role").as_deref() {
        Some("control-plane") => Some(Role::ControlPlane),
        Some("worker") => Some(Role::Worker),
        Some("outside") => Some(Role::Outside),
        other => {
            let seen = other.map_or("it is missing".to_owned(), |o| format!("{o:?} is not"));
            fields.wrong("role", &format!("control-plane, worker and outside are known; {seen}"));
            None
        }
    }
}

/// Reads how commands get to the machine.
fn connection_of(fields: &mut Fields<'_>) -> Connection {
    let Some(text) = fields.text("connection") else {
        return Connection::default();
    };
    let all = [Connection::Ssh, Connection::Openssh, Connection::Local];
    all.into_iter().find(|way| way.name() == text).unwrap_or_else(|| {
        fields.wrong(
            "connection",
            &format!("ssh, openssh and local are known; {text:?} is not"),
        );
        Connection::default()
    })
}

/// Reads how a machine is reached: `jump`, in the form of ssh's ProxyJump or as a list of machines with fields of their own, or `proxyCommand`. A jump
/// host without user and key uses those of the machine.
fn proxy(fields: &mut Fields<'_>, node: &Connect) -> Option<Proxy> {
    if let Some(command) = fields.text("proxyCommand") {
        if fields.map.contains_key("jump") {
            fields.wrong("jump", "leads another way than proxyCommand: give one of them");
        }
        return Some(if command == "none" {
            Proxy::Direct
        } else {
            Proxy::Command(command)
        });
    }
    let found = match fields.map.remove("jump")? {
        Value::Null => return None,
        Value::String(text) => Connect::parse_jump(&text, &node.user),
        Value::Array(list) => Ok(Proxy::Jump(
            list.into_iter()
                .enumerate()
                .filter_map(|(n, hop)| jump_host(hop, n, fields, node))
                .collect(),
        )),
        _ => Err("must be text such as admin@203.0.113.9:22, or a list of machines".to_owned()),
    };
    match found {
        Ok(Proxy::Jump(mut hops)) => {
            for hop in &mut hops {
                hop.ssh
                    .identity_files
                    .extend(node.private_key.clone().filter(|_| hop.private_key.is_none()));
            }
            Some(Proxy::Jump(hops))
        }
        Ok(proxy) => Some(proxy),
        Err(why) => {
            fields.wrong("jump", &why);
            None
        }
    }
}

fn jump_host(value: Value, n: usize, fields: &mut Fields<'_>, node: &Connect) -> Option<Connect> {
    let place = format!("{}.jump[{n}]", fields.place);
    let mut fields = match value {
        Value::Object(map) => Fields {
            map,
            place,
            problems: &mut *fields.problems,
        },
        Value::String(text) => match Connect::parse_jump(&text, &node.user) {
            Ok(Proxy::Jump(hops)) if hops.len() == 1 => return hops.into_iter().next(),
            _ => {
                fields.problems.value(
                    &place,
                    format_args!("{text:?} is no jump host such as admin@203.0.113.9:22"),
                );
                return None;
            }
        },
        _ => {
            fields.problems.value(&place, "must be text or a mapping");
            return None;
        }
    };
    let Some(host) = fields.text("host") else {
        fields.wrong("host", "is missing");
        return None;
    };
    let (user, port) = (fields.text("user"), fields.whole_number("port", "port"));
    let mut hop = Connect::hop(&host, port, user.as_deref(), &node.user);
    hop.private_key = fields.text("privateKey").map(|p| expand_home(&p));
    hop.password = secret(&mut fields, "password");
    let unknown: Vec<String> = fields.map.keys().cloned().collect();
    for key in unknown {
        fields.wrong(
            &key,
            "is unknown; known: host, port, user, privateKey, password, passwordFile",
        );
    }
    Some(hop)
}

/// A secret given as text, or by a file that holds it.
fn secret(fields: &mut Fields<'_>, key: &str) -> Option<Secret> {
    if let Some(text) = fields.text(key) {
        return Some(Secret::new(text));
    }
    let key = format!("{key}File");
    let path = expand_home(&fields.text(&key)?);
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(Secret::new(text.trim_end_matches(['\n', '\r']))),
        Err(error) => {
            fields.wrong(&key, &format!("{} cannot be read: {error}", path.display()));
            None
        }
    }
}

/// Replaces a leading `~/` by the user's home directory.
pub fn expand_home(path: &str) -> PathBuf {
    match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => PathBuf::from(home).join(rest),
        _ => PathBuf::from(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(nodes: &str) -> Result<Desired, Vec<Diagnosis>> {
        cluster_yaml(
            &format!("nodes:\n  - {{ name: a, role: control-plane, ip: 192.0.2.1, {nodes} }}\n"),
            "c.yaml",
        )
    }

    #[test]
    fn a_number_in_place_of_text_is_refused() {
        for field in ["password: 1.10", "becomePassword: 12", "user: 1e3", "privateKey: 0x10"] {
            let problems = read(field).unwrap_err();
            let text = format!("{problems:?}");
            assert!(text.contains("quotes"), "{field}: {text}");
            assert!(!text.contains("1.1"), "the value may be secret: {text}");
        }
        assert_eq!(read("port: 2222").unwrap().inventory.nodes[0].connect.port, 2222);
        assert_eq!(read("port: '2222'").unwrap().inventory.nodes[0].connect.port, 2222);
        let text = format!("{:?}", read("port: 22.5").unwrap_err());
        assert!(text.contains("port"), "{text}");
    }

    #[test]
    fn a_connection_of_ssh_itself_takes_nothing_that_it_knows_better() {
        let connection = |fields: &str| read(fields).map(|found| found.inventory.nodes[0].connect.connection);
        assert_eq!(connection("port: 22").unwrap(), Connection::Ssh);
        for way in [Connection::Ssh, Connection::Openssh, Connection::Local] {
            assert_eq!(connection(&format!("connection: {}", way.name())).unwrap(), way);
        }
        for (fields, named) in [
            ("connection: telnet", "ssh, openssh and local are known"),
            ("connection: openssh, jump: b", "ProxyJump"),
            ("connection: openssh, proxyCommand: nc b 22", "ProxyCommand"),
            ("connection: openssh, password: x", "asks for passwords itself"),
            ("connection: local, jump: b", "is local"),
        ] {
            let problems = format!("{:?}", connection(fields).unwrap_err());
            assert!(problems.contains(named), "{fields}: {problems}");
        }
        let for_all = "jump: b\nnodes:\n- {name: a, role: control-plane, ip: 192.0.2.1, connection: openssh}\n\
                       - {name: c, role: worker, ip: 192.0.2.2, connection: openssh, jump: none}\n";
        let nodes = cluster_yaml(for_all, "c.yaml").unwrap().inventory.nodes;
        let proxies: Vec<_> = nodes.iter().map(|node| node.connect.ssh.proxy.clone()).collect();
        assert_eq!(proxies, [None, Some(Proxy::Direct)]);
    }

    #[test]
    fn jump_hosts_and_proxy_commands_are_of_one_machine_or_of_all() {
        let ways = |text: &str| -> Vec<String> {
            let nodes = cluster_yaml(text, "c.yaml").unwrap().inventory.nodes;
            let way = |n: &Node| match &n.connect.ssh.proxy {
                Some(Proxy::Command(command)) => command.clone(),
                _ => n.connect.render_jump().unwrap_or_default(),
            };
            nodes.iter().map(way).collect()
        };
        let text = "jump: b\nnodes:\n- {name: a, role: control-plane, ip: 192.0.2.1, user: ann, privateKey: k}\n\
                    - {name: c, role: worker, ip: 192.0.2.2, jump: 'o@d:5,e'}\n\
                    - {name: f, role: worker, ip: 192.0.2.3, proxyCommand: nc %h %p}\n\
                    - {name: g, role: worker, ip: 192.0.2.4, jump: none}\n\
                    - {name: h, role: worker, ip: 192.0.2.5, jump: [x, {host: y, port: 7, user: z, privateKey: yk}]}\n";
        assert_eq!(
            ways(text),
            ["ann@b:22", "o@d:5,root@e:22", "nc %h %p", "none", "root@x:22,z@y:7"]
        );
        let nodes = cluster_yaml(text, "c.yaml").unwrap().inventory.nodes;
        let Some(Proxy::Jump(hops)) = &nodes[0].connect.ssh.proxy else {
            panic!()
        };
        assert_eq!(
            hops[0].ssh.identity_files,
            [PathBuf::from("k")],
            "the machine's key is tried at the jump host"
        );
        for wrong in [
            "jump: 'a b'",
            "jump: 5",
            "jump: [{port: 2}]",
            "jump: [{host: h, usr: x}]",
            "jump: b, proxyCommand: nc",
        ] {
            assert!(format!("{:?}", read(wrong).unwrap_err()).contains("jump"), "{wrong}");
        }
    }

    #[test]
    fn line_ends_of_any_system_are_stripped_from_a_secret() {
        for (number, end) in ["", "\n", "\r\n", "\n\n", "\r\n\r\n"].iter().enumerate() {
            let path = std::env::temp_dir().join(format!("landfall-secret-{}-{number}", std::process::id()));
            std::fs::write(&path, format!(" pass word {end}")).unwrap();
            let read = read(&format!("passwordFile: {}", path.display()));
            std::fs::remove_file(&path).unwrap();
            let secret = read.unwrap().inventory.nodes.remove(0).connect.password.unwrap();
            assert_eq!(secret.expose(), b" pass word ", "{end:?}");
        }
    }
}
