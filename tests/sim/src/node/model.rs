//! The client of the model of the fleet's clusters, for a machine's programs. A file of the machine names the socket.

use landfall_agent::netlink::route::Link;
use landfall_agent::network::Network;
use landfall_core::facts::{InterfaceAddress, PeerRoute, Route};
use landfall_core::layout;
use landfall_core::mesh::{MeshListen, MeshListening, MeshSeen, MeshTry};
use landfall_core::spec::Cidr;
use landfall_core::verify::{ProbeResult, ProbeSpec};
use serde_json::{Value, json};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

const INTERFACE: &str = "eth0";
/// The network that all machines are on: 10.20.0.0/16.
const PREFIX: u8 = 16;

/// A machine's connection to the model.
#[derive(Debug)]
pub struct Model {
    node: String,
    socket: PathBuf,
    address: Ipv4Addr,
}

struct Answer {
    status: u8,
    stdout: String,
    stderr: String,
}

fn broken(what: &str) -> io::Error {
    io::Error::other(format!("the model's {what} is not understood"))
}

impl Model {
    /// Reads where the model of a machine is.
    pub fn of(root: &Path) -> io::Result<Self> {
        let value: Value = serde_json::from_slice(&std::fs::read(root.join("sim/model.json"))?)?;
        let text = |key: &str| value[key].as_str().map(str::to_owned).ok_or_else(|| broken(key));
        Ok(Self {
            node: text("node")?,
            socket: text("socket")?.into(),
            address: text("address")?.parse().map_err(|_| broken("address"))?,
        })
    }

    fn ask(&self, words: &[String], input: &str) -> io::Result<Answer> {
        let mut stream = UnixStream::connect(&self.socket)?;
        let question = json!({ "node": self.node, "words": words, "input": input });
        stream.write_all(format!("{question}\n").as_bytes())?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let value: Value = serde_json::from_str(&text)?;
        let part = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        Ok(Answer {
            status: u8::try_from(value["status"].as_u64().unwrap_or(1)).unwrap_or(1),
            stdout: part("stdout"),
            stderr: part("stderr"),
        })
    }

    fn network(&self) -> io::Result<Cidr> {
        let [a, b, ..] = self.address.octets();
        format!("{a}.{b}.0.0/{PREFIX}").parse().map_err(|_| broken("network"))
    }
}

/// Asks the model for a program of the machine, and exits with the status that the model returns.
pub fn ask(root: &Path, words: &[String]) -> ExitCode {
    let mut input = String::new();
    let asked = Model::of(root).and_then(|model| {
        if words.first().is_some_and(|w| w == "exec") {
            io::stdin().read_to_string(&mut input)?;
        }
        model.ask(words, &input)
    });
    let answer = asked.unwrap_or_else(|error| Answer {
        status: 1,
        stdout: String::new(),
        stderr: format!("the model does not answer: {error}\n"),
    });
    let said = io::stdout().write_all(answer.stdout.as_bytes());
    let complained = io::stderr().write_all(answer.stderr.as_bytes());
    match said.and(complained) {
        Ok(()) => ExitCode::from(answer.status),
        Err(_) => ExitCode::FAILURE,
    }
}

impl Network for Model {
    fn addresses(&self) -> io::Result<Vec<InterfaceAddress>> {
        Ok(vec![InterfaceAddress {
            interface: INTERFACE.to_owned(),
            address: self.address,
            prefix: PREFIX,
            is_leased: false,
        }])
    }

    fn links(&self) -> io::Result<Vec<Link>> {
        Ok(vec![])
    }

    fn routes(&self) -> io::Result<Vec<Route>> {
        Ok(vec![Route {
            destination: self.network()?,
            interface: INTERFACE.to_owned(),
            gateway: None,
        }])
    }

    fn route_to(&self, _peer: IpAddr) -> io::Result<Option<PeerRoute>> {
        Ok(Some(PeerRoute {
            source: self.address.into(),
            interface: INTERFACE.to_owned(),
        }))
    }

    fn connect(&self, target: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
        let word = if target.port() == layout::RELAY_PORT {
            "relay"
        } else {
            "connect"
        };
        let answer = self.ask(&[word.to_owned(), target.to_string()], "")?;
        let port = answer
            .stdout
            .trim()
            .parse()
            .map_err(|_| io::Error::from(ErrorKind::ConnectionRefused))?;
        TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, port).into(), limit)
    }

    fn listen(&self, address: SocketAddr) -> io::Result<TcpListener> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let port = listener.local_addr()?.port();
        self.ask(&["listen".to_owned(), address.to_string(), port.to_string()], "")?;
        Ok(listener)
    }

    fn mesh_listen(&self, _asked: &MeshListen) -> io::Result<(MeshListening, Box<dyn Send>)> {
        // Machines of the model share this machine's ports: the model knows who reaches whom.
        Ok((MeshListening::default(), Box::new(())))
    }

    fn mesh_try(&self, asked: &MeshTry) -> Vec<MeshSeen> {
        let input = json!(asked).to_string();
        let said = self.ask(&["mesh".to_owned()], &input);
        said.ok()
            .and_then(|a| serde_json::from_str(&a.stdout).ok())
            .unwrap_or_default()
    }

    fn probe(&self, probes: &[ProbeSpec]) -> Vec<ProbeResult> {
        let input = json!(probes).to_string();
        let asked = self.ask(&["probe".to_owned()], &input);
        asked
            .ok()
            .and_then(|a| serde_json::from_str(&a.stdout).ok())
            .unwrap_or_default()
    }
}
