//! Waiting until something on the node answers.

use super::Work;
use crate::error::{AgentError, Result};
use crate::{etcd, https};
use landfall_core::action::{Action, NodeProbe};
use landfall_core::event::EventKind;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Pause between two looks: short against the seconds that these things take to come up.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Whole time for one look; loopback answers in milliseconds or is not ready.
const LOOK_TIMEOUT: Duration = Duration::from_secs(3);
/// How often the wait says what it saw.
const SAY_EVERY: Duration = Duration::from_secs(2);

/// Looks once; the error says what was seen.
pub fn answers(work: &Work, probe: &NodeProbe) -> std::result::Result<(), String> {
    match probe {
        NodeProbe::HttpsOk { url } => match https::status(url, LOOK_TIMEOUT) {
            Ok(200) => Ok(()),
            Ok(status) => Err(format!("{url} answers {status}")),
            Err(error) => Err(format!("{url}: {error}")),
        },
        NodeProbe::UnixSocket { path } => UnixStream::connect(work.agent.host.at(path))
            .map(|_| ())
            .map_err(|e| format!("{}: {e}", path.display())),
        NodeProbe::Tcp { address } => {
            let parsed: SocketAddr = address.parse().map_err(|_| format!("{address} is no address:port"))?;
            TcpStream::connect_timeout(&parsed, LOOK_TIMEOUT)
                .map(|_| ())
                .map_err(|e| format!("{address}: {e}"))
        }
        NodeProbe::EtcdHealthy => etcd::all_healthy(work.agent),
    }
}

/// Waits until it answers. Blocks until the step's deadline at most.
pub fn until(work: &Work, probe: &NodeProbe) -> Result<()> {
    let began = Instant::now();
    let mut said: Option<Instant> = None;
    loop {
        let Err(seen) = answers(work, probe) else { return Ok(()) };
        if Instant::now() >= work.deadline {
            let what = Action::AwaitNode { probe: probe.clone() }.text();
            return Err(AgentError::Deadline {
                what,
                seconds: began.elapsed().as_secs(),
                seen: vec![seen],
            });
        }
        if said.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
            said = Some(Instant::now());
            let left = work.deadline.saturating_duration_since(Instant::now()).as_secs();
            let text = format!("{seen} ({left} s left)");
            (work.say)(EventKind::StepWaiting {
                step: work.step.id.clone(),
                text,
            });
        }
        work.agent.children.sleep(LOOK_EVERY)?;
    }
}
