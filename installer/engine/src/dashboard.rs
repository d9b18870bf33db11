//! Requests to the ingress proxy's dashboard. They carry the login of the cluster's Secret and go through a tunnel that ends at a node's own
//! loopback, so the password crosses networks only inside SSH and the API's TLS.

use crate::cluster::Cluster;
use crate::fleet::Sessions;
use crate::forward::Forward;
use crate::session::NodeSession;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret as SecretObject;
use kube::api::Api;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::layout::{DASHBOARD, DASHBOARD_USER, INGRESS_NAMESPACE};
use landfall_core::secret::Secret;
use landfall_core::spec::Desired;
use landfall_core::spec::ingress::DashboardAuth;
use serde::Deserialize;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

/// Read time-out; a healthy proxy answers in milliseconds.
const READ_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer that is read: the names of the Secrets of a thousand Ingresses are a few hundred kilobytes.
const MAX_ANSWER_BYTES: u64 = 4 * 1024 * 1024;

/// Path of the list of Secrets and ConfigMaps that Ingresses name, with the proxy's largest page.
const SECRETS: &str = "/api/v1/secrets?limit=1000";

/// User and password.
#[derive(Debug, Clone)]
pub struct Login {
    /// User.
    pub user: String,
    /// Password.
    pub password: Secret,
}

/// An answer of the dashboard.
struct Answer {
    status: u16,
    body: Vec<u8>,
}

/// Reads the login through the first control plane whose API answers; `None` when the spec asks for no login. A missing Secret is an error.
/// Blocks for the requests.
pub fn login(desired: &Desired, cluster: &Cluster, members: &Sessions) -> Result<Option<Login>, Diagnosis> {
    if desired.spec.ingress.dashboard_auth == DashboardAuth::None {
        return Ok(None);
    }
    let what = "no control plane node is connected, so the dashboard's login cannot be read";
    let mut last = Diagnosis::new(Code::ClusterApi, what).next("landfall status");
    for node in desired.inventory.control_planes() {
        let Some(session) = members.get(&node.name) else {
            continue;
        };
        let read = cluster.with_client(session, |client| async move {
            let found = Api::<SecretObject>::namespaced(client, INGRESS_NAMESPACE)
                .get_opt(DASHBOARD)
                .await;
            found.map_err(|error| {
                Diagnosis::new(Code::ClusterApi, "the dashboard's login cannot be read").because(&error)
            })
        });
        match read {
            Ok(found) => return found.and_then(of).map(Some).ok_or_else(gone),
            Err(diagnosis) => last = diagnosis.on(&node.name),
        }
    }
    Err(last)
}

fn of(mut secret: SecretObject) -> Option<Login> {
    let mut data = secret.data.take()?;
    let user = data
        .remove("username")
        .and_then(|value| String::from_utf8(value.0).ok());
    Some(Login {
        user: user.unwrap_or_else(|| DASHBOARD_USER.to_owned()),
        password: Secret::new(data.remove("password")?.0),
    })
}

fn gone() -> Diagnosis {
    let what = format!(
        "Secret {INGRESS_NAMESPACE}/{DASHBOARD} with the dashboard's login is not there, so the dashboard is closed"
    );
    Diagnosis::new(Code::ClusterApi, what).next("landfall install: it makes a new one")
}

/// Requests a path of the dashboard from the proxy of a node. Blocks for [`READ_TIMEOUT`] at most for each part of the answer.
fn ask(session: &Arc<NodeSession>, port: u16, path: &str, login: Option<&Login>) -> Result<Answer, Diagnosis> {
    let failed = |error: &std::io::Error| {
        let what = "the ingress proxy does not answer on this node's loopback";
        Diagnosis::new(Code::ClusterApi, what).on(session.name()).because(error)
    };
    let forward = Forward::open(session, &format!("127.0.0.1:{port}"))?;
    let mut answer = Vec::new();
    exchange(&forward, path, login, &mut answer).map_err(|error| failed(&error))?;
    parse(&answer).ok_or_else(|| {
        let what = "the program that answers on this node's loopback is not landfall's ingress proxy";
        let saw = String::from_utf8_lossy(&answer[..answer.len().min(60)]).into_owned();
        Diagnosis::new(Code::ClusterApi, what)
            .on(session.name())
            .saw(format!("{saw:?}"))
    })
}

/// A proxy's answer about the Secrets and ConfigMaps that Ingresses name.
#[derive(Debug, Default)]
pub struct Named {
    /// HTTP status of the answer; the list is empty unless it is 200.
    pub status: u16,
    /// Every Secret and ConfigMap that is named.
    pub uses: Vec<Use>,
}

/// A Secret or ConfigMap that some Ingress names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub struct Use {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `Secret` or `ConfigMap`.
    pub kind: String,
    /// `read`, `missing`, `forbidden`, `unreadable` or `pending`.
    pub state: String,
}

/// Asks the proxy of a node which Secrets and ConfigMaps Ingresses name. Blocks for the request.
pub fn secrets(session: &Arc<NodeSession>, port: u16, login: Option<&Login>) -> Result<Named, Diagnosis> {
    let answer = ask(session, port, SECRETS, login)?;
    Ok(Named {
        status: answer.status,
        uses: uses(&answer),
    })
}

fn uses(answer: &Answer) -> Vec<Use> {
    #[derive(Deserialize)]
    struct List {
        items: Vec<Use>,
    }
    let list = Some(&answer.body).filter(|_| answer.status == 200);
    let list = list.and_then(|body| serde_json::from_slice::<List>(body).ok());
    list.map_or_else(Vec::new, |list| list.items)
}

fn exchange(forward: &Forward, path: &str, login: Option<&Login>, answer: &mut Vec<u8>) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(forward.address())?;
    stream.set_read_timeout(Some(READ_TIMEOUT))?;
    stream.set_write_timeout(Some(READ_TIMEOUT))?;
    stream.write_all(request(path, login).expose())?;
    stream.take(MAX_ANSWER_BYTES).read_to_end(answer)?;
    Ok(())
}

fn request(path: &str, login: Option<&Login>) -> Secret {
    let mut text = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n").into_bytes();
    if let Some(login) = login {
        let both = Secret::new([login.user.as_bytes(), b":", login.password.expose()].concat());
        text.extend_from_slice(b"Authorization: Basic ");
        text.extend_from_slice(STANDARD.encode(both.expose()).as_bytes());
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    Secret::new(text)
}

/// Splits an answer into status and body; the body ends with the connection.
fn parse(answer: &[u8]) -> Option<Answer> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let rest = head.strip_prefix("HTTP/1.1 ")?;
    Some(Answer {
        status: rest.get(..3)?.parse().ok()?,
        body: answer[end + 4..].to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_carries_the_login_and_an_answer_is_split() {
        let login = Login {
            user: "landfall".to_owned(),
            password: Secret::new("hunter2"),
        };
        let bytes = request("/x", Some(&login));
        let text = String::from_utf8(bytes.expose().to_vec()).unwrap();
        assert!(text.starts_with("GET /x HTTP/1.1\r\n"), "{text}");
        assert!(
            text.contains("\r\nAuthorization: Basic bGFuZGZhbGw6aHVudGVyMg==\r\n"),
            "{text}"
        );
        assert!(!format!("{login:?}").contains("hunter2"));
        assert!(
            !String::from_utf8(request("/x", None).expose().to_vec())
                .unwrap()
                .contains("Authorization")
        );
        let answer = parse(b"HTTP/1.1 200 OK\r\na: b\r\n\r\nbody").unwrap();
        assert_eq!((answer.status, answer.body.as_slice()), (200, &b"body"[..]));
        let list = br#"{"items":[{"kind":"Secret","namespace":"shop","name":"tls","state":"forbidden"}],"total":1}"#;
        let found = uses(&Answer {
            status: 200,
            body: list.to_vec(),
        });
        assert_eq!((found[0].name.as_str(), found[0].state.as_str()), ("tls", "forbidden"));
        assert_eq!(
            uses(&Answer {
                status: 401,
                body: list.to_vec()
            }),
            []
        );
        for no in [&b"SSH-2.0"[..], b"HTTP/1.1 20", b"HTTP/1.1 2x0 OK\r\n\r\n", b""] {
            assert!(parse(no).is_none());
        }
    }
}
