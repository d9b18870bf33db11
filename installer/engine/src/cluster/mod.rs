//! The Kubernetes API, reached through a node: objects, waits, members. Asynchronous code stays in this module; callers block.
//!
//! | module | what it knows |
//! |---|---|
//! | `generated` | values of Secrets that are made when they are applied |
//! | `client` | a connection through a session; where an object lies in the API |
//! | `apply` | objects: apply, delete, restore, and whose they are |
//! | `managed_fields` | which part of an object landfall manages |
//! | `wait` | conditions of the cluster |
//! | `evidence` | why something that is awaited does not come |
//! | `error_text` | texts for transport errors |
//! | `members` | removal of etcd members and Node objects |
//!
//! Every failure is a [`Diagnosis`]. No failure is taken to mean that there is no cluster: the caller knows whether there is one ([`Formed`]).

mod apply;
mod client;
mod error_text;
pub mod evidence;
mod generated;
mod managed_fields;
mod members;
mod wait;

pub use client::{api_error, resource_name};
pub use members::{Formed, member_ids};
pub use wait::is_node_ready;

use crate::context::CancelToken;
use crate::emitter::EventEmitter;
use crate::fleet::Sessions;
use crate::forward::Forward;
use crate::session::NodeSession;
use kube::Client;
use landfall_core::action::Action;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::layout;
use landfall_core::plan::Step;
use landfall_core::secret::Secret;
use landfall_core::wire::Request;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Pause between two checks of a condition: a GET costs the API server about a millisecond.
const POLL_EVERY: Duration = Duration::from_millis(250);

/// A connection to the API. Keeps the admin credentials in memory once they were read.
#[derive(Default)]
pub struct Cluster {
    kubeconfig: Mutex<Option<Secret>>,
}

impl Cluster {
    /// Runs one cluster step over the session of its node and journals it in all of `journals`. Returns whether it changed anything. Blocks until
    /// the step's deadline at most.
    pub fn run(
        &self,
        sessions: &Sessions,
        journals: &[Arc<NodeSession>],
        step: &Step,
        cancel: &CancelToken,
        emitter: &EventEmitter,
    ) -> Result<bool, Diagnosis> {
        let session = sessions.get(&step.node).ok_or_else(|| {
            Diagnosis::new(Code::Internal, "a step names a node that is not connected").on(&step.node)
        })?;
        match &step.action {
            Action::Apply { objects } => {
                self.await_api(sessions, session, step, cancel, emitter)?;
                self.apply(session, journals, step, objects)
            }
            Action::Delete { objects } => {
                self.await_api(sessions, session, step, cancel, emitter)?;
                self.delete(session, journals, step, objects, emitter)
            }
            Action::Await { condition } => {
                self.await_condition(sessions, session, step, condition, cancel, emitter)?;
                Ok(false)
            }
            _ => Err(Diagnosis::new(
                Code::Internal,
                "an action of a node was given to the cluster",
            )),
        }
    }

    /// Runs `work` with a client whose connection goes through `session`'s node and its local balancer. Ends with an error when that
    /// session is lost.
    pub fn with_client<T, F>(&self, session: &Arc<NodeSession>, work: impl FnOnce(Client) -> F) -> Result<T, Diagnosis>
    where
        F: Future<Output = Result<T, Diagnosis>>,
    {
        let admin = self.admin(session)?;
        let forward = Forward::open(session, &format!("127.0.0.1:{}", layout::API_BALANCER_PORT))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Diagnosis::new(Code::Internal, "no event loop can be made").because(&error))?;
        runtime.block_on(async {
            let client = client::client(&admin, &forward).await?;
            let mut work = std::pin::pin!(work(client));
            // Without the node there is no connection to the cluster, so the work is abandoned.
            loop {
                match tokio::time::timeout(POLL_EVERY, &mut work).await {
                    Ok(result) => return result,
                    Err(_) if session.is_lost() => return Err(session.connection_lost()),
                    Err(_) => {}
                }
            }
        })
    }

    /// Returns the admin kubeconfig. The first call reads it from the node and blocks for that.
    pub fn admin(&self, session: &NodeSession) -> Result<Secret, Diagnosis> {
        let mut cached = self
            .kubeconfig
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(secret) = cached.as_ref() {
            return Ok(secret.clone());
        }
        let path = format!("{}/admin.conf", layout::KUBERNETES_DIR);
        let secret = Secret::new(session.ask_bytes(&Request::ReadSecret { path })?);
        *cached = Some(secret.clone());
        Ok(secret)
    }
}
