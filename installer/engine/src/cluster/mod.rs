//! The Kubernetes API, reached through a node: objects, waits, members. One small asynchronous island; callers block.
//!
//! | module | what it knows |
//! |---|---|
//! | `client` | a connection through a session; where an object lies in the API |
//! | `apply` | objects: apply, delete, restore, and whose they are |
//! | `wait` | conditions of the cluster |
//! | `members` | etcd members and Node objects that have to go |
//!
//! Every failure is a [`Diagnosis`]. None is read as "no cluster here": whether there is one is the caller's knowledge ([`Formed`]).

mod apply;
mod client;
mod members;
mod wait;

pub use members::{Formed, member_ids};
pub use wait::is_node_ready;

use crate::context::CancelToken;
use crate::emitter::EventEmitter;
use crate::forward::Forward;
use crate::session::NodeSession;
use kube::Client;
use landfall_core::action::Action;
use landfall_core::event::EventKind;
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

/// The way to the API: holds the admin credentials once they were read, in memory only.
#[derive(Default)]
pub struct Cluster {
    kubeconfig: Mutex<Option<Secret>>,
}

impl Cluster {
    /// Runs one cluster step over `session`, journalled in all of `journals`. Returns whether it changed anything.
    pub fn run(
        &self,
        session: &Arc<NodeSession>,
        journals: &[Arc<NodeSession>],
        step: &Step,
        cancel: &CancelToken,
        emitter: &EventEmitter,
    ) -> Result<bool, Diagnosis> {
        match &step.action {
            Action::Apply { objects } => self.apply(session, journals, step, objects),
            Action::Delete { objects } => self.delete(session, journals, step, objects),
            Action::Await { condition } => {
                let mut emit = |text: String| {
                    emitter.emit(
                        Some(&step.node),
                        EventKind::StepWaiting {
                            step: step.id.clone(),
                            text,
                        },
                    );
                };
                self.await_condition(
                    session,
                    condition,
                    Duration::from_secs(step.deadline_s),
                    cancel,
                    &mut emit,
                )?;
                Ok(false)
            }
            _ => Err(Diagnosis::new(
                Code::Internal,
                "a node's action was given to the cluster",
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
            // Without the node there is no connection to the cluster, so the work is given up.
            loop {
                match tokio::time::timeout(POLL_EVERY, &mut work).await {
                    Ok(result) => return result,
                    Err(_) if session.is_lost() => return Err(session.connection_lost()),
                    Err(_) => {}
                }
            }
        })
    }

    /// Returns the admin kubeconfig, read from the node once.
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
