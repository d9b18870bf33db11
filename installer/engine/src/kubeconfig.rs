//! `kubeconfig`: the administrator's kubeconfig, pointed at a control plane that this machine reaches.

use crate::context::{RunContext, Way};
use crate::emitter::EventEmitter;
use crate::fleet;
use crate::outcome::Outcome;
use crate::session::{AgentPlace, NodeSession};
use landfall_core::cluster_record::ClusterRecord;
use landfall_core::event::Phase;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::inventory::{Node, Proxy};
use landfall_core::journal::Ownership;
use landfall_core::layout;
use landfall_core::plan::key;
use landfall_core::secret::Secret;
use landfall_core::spec::Desired;
use landfall_core::wire::Request;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

/// Time for one attempt to connect: a lost SYN is repeated after 1 s.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// See [`crate::run::kubeconfig`].
pub fn kubeconfig(desired: &Desired, ctx: &RunContext, emitter: &EventEmitter) -> Outcome {
    let mut outcome = Outcome::default();
    let control_planes = desired.inventory.control_planes();
    let control_planes: Vec<&Node> = control_planes.filter(|n| ctx.limit.includes(&n.name)).collect();
    if control_planes.is_empty() {
        let what = "--limit leaves out every control plane, and the kubeconfig comes from one";
        outcome.errors.push(Diagnosis::new(Code::Usage, what));
        return outcome;
    }
    let (sessions, errors) = emitter.phase(Phase::Connect, || {
        fleet::connect(&control_planes, AgentPlace::Member, ctx, emitter)
    });
    for node in &control_planes {
        let Some(session) = sessions.get(&node.name) else {
            continue;
        };
        let path = format!("{}/admin.conf", layout::KUBERNETES_DIR);
        match session.ask_bytes(&Request::ReadSecret { path }) {
            Ok(bytes) => {
                let own: Option<Ownership> = session.ask(&Request::Ownership).ok();
                let record = own.as_ref().and_then(Ownership::record);
                let certified = Certified::of(node, desired, record);
                let servers = servers(node, &ctx.connector.way_to(node), &certified);
                let (server, warning) = choose(node, &servers, answers);
                outcome.warnings.extend(warning);
                let text = pointed_at(&String::from_utf8_lossy(&bytes), server);
                outcome.kubeconfig = Some(Secret::new(text));
                break;
            }
            Err(error) => outcome.errors.push(nothing_installed(session).unwrap_or(error)),
        }
    }
    if outcome.kubeconfig.is_some() {
        outcome.errors.clear();
    } else {
        outcome.errors.extend(errors);
    }
    fleet::remove_unused_state(&sessions);
    fleet::close(&sessions);
    outcome
}

/// Returns an error when landfall owns nothing on the node.
fn nothing_installed(session: &NodeSession) -> Option<Diagnosis> {
    let own: Ownership = session.ask(&Request::Ownership).ok()?;
    key::is_bare(&own).then(|| {
        Diagnosis::new(Code::ClusterApi, "nothing is installed on the node")
            .on(session.name())
            .next("landfall install")
    })
}

/// One way to a control plane's API server, as a kubeconfig has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Server {
    /// Name or address.
    host: String,
    /// The addresses of `host`.
    addresses: Vec<IpAddr>,
    /// The name in the certificate, when `host` is not one.
    tls_server_name: Option<String>,
}

/// What is known of a control plane's certificate.
struct Certified<'a> {
    /// The node's address in the cluster.
    address: Option<IpAddr>,
    /// The cluster's name for its API, which every certificate has.
    endpoint: &'a str,
    /// More names or addresses, by the spec.
    sans: &'a [String],
}

impl<'a> Certified<'a> {
    /// Reads it from the cluster's record; of a cluster that has none, from the spec.
    fn of(node: &Node, desired: &'a Desired, record: Option<&'a ClusterRecord>) -> Self {
        let recorded = record.and_then(|r| r.members.get(&node.name)).map(|m| m.address);
        let (endpoint, sans) = match record {
            Some(record) => (&record.fixed.control_plane_endpoint, &record.fixed.api_server_cert_sans),
            None => (&desired.spec.control_plane_endpoint, &desired.spec.api_server_cert_sans),
        };
        Self {
            address: recorded.or(node.access_ip).or(node.ip),
            endpoint,
            sans,
        }
    }

    fn has(&self, host: &str) -> bool {
        let sans = self.sans.iter().map(String::as_str);
        sans.chain([self.endpoint]).any(|name| name.eq_ignore_ascii_case(host))
    }
}

/// Returns the ways to a control plane's API server, the best first: its address in the cluster, then the host of the login. Where the
/// certificate lacks that host, the kubeconfig has to name one that it has.
fn servers(node: &Node, way: &Way, certified: &Certified<'_>) -> Vec<Server> {
    let at_host = |host: &str, addresses: &[IpAddr]| Server {
        host: host.to_owned(),
        addresses: addresses.to_vec(),
        tls_server_name: (!certified.has(host)).then(|| certified.endpoint.to_owned()),
    };
    let at_address = certified.address.map(|address| Server {
        host: address.to_string(),
        addresses: vec![address],
        tls_server_name: None,
    });
    let mut servers: Vec<Server> = at_address.into_iter().collect();
    match way.other_host(certified.address) {
        Some((host, addresses)) => servers.push(at_host(host, addresses)),
        // A cluster of an older landfall may have no record that tells the address.
        None if servers.is_empty() => servers.push(at_host(&node.connect.host, &[])),
        None => {}
    }
    servers
}

/// Returns the first server that answers from here. When none does, it is the first of all, with a warning that says how to reach it.
fn choose<'a>(node: &Node, servers: &'a [Server], answers: impl Fn(&Server) -> bool) -> (&'a Server, Option<String>) {
    let first = servers
        .first()
        .expect("`servers` returns the host when it has no address");
    if let Some(server) = servers.iter().find(|server| answers(server)) {
        return (server, None);
    }
    let tried: Vec<&str> = servers.iter().map(|server| server.host.as_str()).collect();
    let jump = match node.connect.ssh.proxy {
        Some(Proxy::Jump(_)) => node.connect.render_jump().map(|hops| format!("-J {hops} ")),
        _ => None,
    };
    let warning = format!(
        "port {port} of {name} does not answer from here (tried: {tried}); forward it first: \
         ssh -N -L {port}:127.0.0.1:{port} {jump}-p {ssh} {user}@{host}, and set server to https://127.0.0.1:{port}",
        port = layout::API_SERVER_PORT,
        name = node.name,
        tried = tried.join(", "),
        jump = jump.unwrap_or_default(),
        ssh = node.connect.port,
        user = node.connect.user,
        host = node.connect.host,
    );
    (first, Some(warning))
}

/// Says whether something accepts connections at the API server's port. Blocks for [`CONNECT_LIMIT`] for each address at most.
fn answers(server: &Server) -> bool {
    let mut addresses = server.addresses.iter();
    addresses.any(|address| {
        let at = SocketAddr::new(*address, layout::API_SERVER_PORT);
        TcpStream::connect_timeout(&at, CONNECT_LIMIT).is_ok()
    })
}

/// Replaces the node's own balancer in a kubeconfig by that server.
fn pointed_at(kubeconfig: &str, server: &Server) -> String {
    let mut text = String::new();
    for line in kubeconfig.lines() {
        let field = line.trim_start();
        let indent = &line[..line.len() - field.len()];
        if field.starts_with("server:") {
            let (host, port) = (url_host(&server.host), layout::API_SERVER_PORT);
            text.push_str(&format!("{indent}server: https://{host}:{port}\n"));
            if let Some(name) = &server.tls_server_name {
                text.push_str(&format!("{indent}tls-server-name: {name}\n"));
            }
        } else if !field.starts_with("tls-server-name:") {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// Returns a name or address as URLs have it: IPv6 addresses stand in brackets.
pub fn url_host(host: &str) -> String {
    if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use landfall_core::spec::parse;

    const ADMIN: &str = "clusters:\n- cluster:\n    certificate-authority-data: QQ==\n    server: https://127.0.0.1:7443\n  name: ship\n";
    const ENDPOINT: &str = "api.landfall.internal";

    fn node(fields: &str) -> Node {
        let text = format!("name: ship\nnodes:\n- {{ name: cp-1, role: control-plane, {fields} }}\n");
        parse::cluster_yaml(&text, "cluster.yaml")
            .unwrap()
            .inventory
            .nodes
            .remove(0)
    }

    fn certified<'a>(address: Option<&str>, sans: &'a [String]) -> Certified<'a> {
        Certified {
            address: address.map(|text| text.parse().unwrap()),
            endpoint: ENDPOINT,
            sans,
        }
    }

    /// The kubeconfig for a node at whose API server something answers at the addresses `there`, and whether there is a warning.
    fn made(node: &Node, way: &Way, certified: &Certified<'_>, there: &[&str]) -> (String, Option<String>) {
        let servers = servers(node, way, certified);
        let (server, warning) = choose(node, &servers, |server| {
            server.addresses.iter().any(|a| there.contains(&a.to_string().as_str()))
        });
        (pointed_at(ADMIN, server), warning)
    }

    fn resolved(host: &str, address: &str) -> Way {
        Way::to_host(host, |_| vec![address.parse().unwrap()])
    }

    #[test]
    fn a_node_that_is_named_gets_the_address_that_its_certificate_has() {
        let node = node("host: cp1.example.test");
        let way = resolved("cp1.example.test", "10.0.0.1");
        let (text, warning) = made(&node, &way, &certified(Some("10.0.0.1"), &[]), &["10.0.0.1"]);
        assert!(
            text.contains("    server: https://10.0.0.1:6443\n  name: ship\n"),
            "{text}"
        );
        assert_eq!(warning, None);
    }

    #[test]
    fn a_host_that_no_certificate_names_gets_a_server_name_that_it_has() {
        let node = node("host: cp1.example.test, ip: 10.0.0.1");
        let way = resolved("cp1.example.test", "203.0.113.1");
        let (text, warning) = made(&node, &way, &certified(Some("10.0.0.1"), &[]), &["203.0.113.1"]);
        let wanted =
            "    server: https://cp1.example.test:6443\n    tls-server-name: api.landfall.internal\n  name: ship\n";
        assert!(text.contains(wanted), "{text}");
        assert_eq!(warning, None);
        let sans = ["CP1.example.test".to_owned()];
        let (text, _) = made(&node, &way, &certified(Some("10.0.0.1"), &sans), &["203.0.113.1"]);
        assert!(text.contains("https://cp1.example.test:6443\n  name: ship\n"), "{text}");
        // The certificate has the address in the cluster, so it goes first where both answer.
        let (text, _) = made(
            &node,
            &way,
            &certified(Some("10.0.0.1"), &[]),
            &["203.0.113.1", "10.0.0.1"],
        );
        assert!(text.contains("https://10.0.0.1:6443\n  name: ship\n"), "{text}");
    }

    #[test]
    fn a_name_is_no_reason_for_a_warning_and_silence_is() {
        let node = node("host: cp1.example.test");
        // Not even the record knows an address.
        let (text, warning) = made(
            &node,
            &resolved("cp1.example.test", "10.0.0.1"),
            &certified(None, &[]),
            &["10.0.0.1"],
        );
        assert!(text.contains("tls-server-name: api.landfall.internal"), "{text}");
        assert_eq!(warning, None);
        let way = resolved("cp1.example.test", "203.0.113.1");
        let (text, warning) = made(&node, &way, &certified(Some("10.0.0.1"), &[]), &[]);
        assert!(text.contains("https://10.0.0.1:6443"), "{text}");
        let warning = warning.unwrap();
        assert!(warning.contains("tried: 10.0.0.1, cp1.example.test"), "{warning}");
        assert!(
            warning.contains("ssh -N -L 6443:127.0.0.1:6443 -p 22 root@cp1.example.test"),
            "{warning}"
        );
    }

    #[test]
    fn behind_a_jump_host_the_warning_goes_through_it() {
        let node = node("host: 10.0.0.1, jump: admin@203.0.113.9");
        let (_, warning) = made(&node, &Way::Proxy, &certified(Some("10.0.0.1"), &[]), &[]);
        assert!(warning.unwrap().contains("-J admin@203.0.113.9:22 -p 22 root@10.0.0.1"));
        // A forwarded port of this machine is not the node.
        let forwarded = Way::to_host("localhost", |_| vec!["127.0.0.1".parse().unwrap()]);
        assert_eq!(servers(&node, &forwarded, &certified(Some("10.0.0.1"), &[])).len(), 1);
    }

    #[test]
    fn a_server_name_of_before_is_replaced() {
        let server = Server {
            host: "2001:db8::1".to_owned(),
            addresses: vec![],
            tls_server_name: None,
        };
        let before = ADMIN.replace("    server", "    tls-server-name: old\n    server");
        let text = pointed_at(&before, &server);
        assert!(
            text.contains("server: https://[2001:db8::1]:6443\n") && !text.contains("old"),
            "{text}"
        );
    }
}
