//! What can go wrong on the node, with the cause kept as the source. [`AgentError::diagnosis`] makes it readable for people.

use landfall_bundle::trust::TrustError;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::journal::JournalError;
use landfall_core::name::Digest;
use std::io;
use std::path::{Path, PathBuf};

/// Result of anything the agent does.
pub type Result<T> = std::result::Result<T, AgentError>;

/// Why something did not work on the node.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A file operation failed.
    #[error("{what} {} failed", path.display())]
    Io {
        /// What was tried, for instance `writing`.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel refused something that is no file operation.
    #[error("{what} failed")]
    Kernel {
        /// What was tried.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// A program ended badly.
    #[error("{program} ended with {status}")]
    Program {
        /// Program and arguments.
        program: String,
        /// Exit status or signal.
        status: String,
        /// Last lines of output, redacted.
        tail: Vec<String>,
    },
    /// A program is not there.
    #[error("the program {0} is not on this machine")]
    MissingProgram(String),
    /// Something did not happen in time.
    #[error("{what} did not happen within {seconds} s")]
    Deadline {
        /// What was awaited.
        what: String,
        /// How long.
        seconds: u64,
        /// What was last seen.
        seen: Vec<String>,
    },
    /// Something at a place that we want is not ours and cannot be kept.
    #[error("{} is {found}, which landfall neither made nor can put back", path.display())]
    Foreign {
        /// Where.
        path: PathBuf,
        /// What it is.
        found: &'static str,
    },
    /// A blob or program does not have its digest.
    #[error("{what} does not have the digest {digest}")]
    WrongDigest {
        /// What was hashed.
        what: String,
        /// What was wanted.
        digest: Digest,
    },
    /// A blob is missing.
    #[error("the blob {0} is not in the node's store")]
    BlobMissing(Digest),
    /// The bundle's helper failed.
    #[error("the bundle's content cannot be used")]
    Bundle(#[from] landfall_bundle::BundleError),
    /// The bundle is not signed by a key that counts on this node.
    #[error("the bundle is not trusted")]
    Trust(#[from] TrustError),
    /// Something would be done with a bundle that was not checked, or with a blob that is not in it.
    #[error("{0}")]
    Unchecked(String),
    /// The journal is damaged or its history is not legal.
    #[error("the journal of this node cannot be used")]
    Journal(#[from] JournalError),
    /// A step acted, and its result is not there.
    #[error("{0}")]
    NotSatisfied(String),
    /// An earlier, interrupted attempt could not be taken back.
    #[error("the interrupted attempt could not be taken back")]
    Residue(Vec<String>),
    /// Another run holds the lease.
    #[error("this node is held by another run")]
    Locked(String),
    /// The node belongs to another cluster.
    #[error("this node belongs to the cluster {found}, not to {ours}")]
    OtherCluster {
        /// The cluster that was asked for.
        ours: String,
        /// The cluster in the journal.
        found: String,
    },
    /// A request that needs the lease came without one, or asks for something not allowed.
    #[error("{0}")]
    Refused(String),
    /// The session ends.
    #[error("the operator is gone, the step was interrupted")]
    Stopped,
}

impl AgentError {
    /// Makes the error readable for people.
    pub fn diagnosis(&self) -> Diagnosis {
        let code = match self {
            Self::Foreign { .. } => Code::ForeignState,
            Self::WrongDigest { .. } => Code::BundleDigest,
            Self::BlobMissing(_) => Code::BundleMissing,
            Self::Bundle(_) => Code::BundleFormat,
            Self::Trust(error) => return Diagnosis::from(error.clone()),
            Self::Unchecked(_) => Code::BundleSignature,
            Self::Journal(error) => return Diagnosis::from(error),
            Self::Deadline { .. } => Code::StepDeadline,
            Self::Locked(_) => Code::Locked,
            Self::Residue(_) => Code::Residue,
            Self::Refused(_) => Code::Protocol,
            Self::OtherCluster { .. } => Code::Preflight,
            Self::Stopped => Code::ConnectionLost,
            _ => Code::StepFailed,
        };
        let mut diagnosis = Diagnosis::new(code, self.to_string());
        match self {
            Self::Program { tail: lines, .. } | Self::Deadline { seen: lines, .. } | Self::Residue(lines) => {
                diagnosis.saw.extend(lines.iter().cloned());
            }
            Self::Locked(holder) => {
                diagnosis = diagnosis
                    .saw(holder)
                    .next("wait until that run ends; a lease ends with its run, also when the run is killed");
            }
            Self::OtherCluster { found, .. } => {
                diagnosis = diagnosis.next(format!(
                    "take the node out of the inventory, or uninstall the cluster {found} first"
                ));
            }
            _ => {}
        }
        if let Some(source) = std::error::Error::source(self) {
            diagnosis = diagnosis.because(source);
        }
        diagnosis
    }
}

impl AgentError {
    /// Makes the error one line: what failed, why, and what was seen.
    pub fn line(&self) -> String {
        let diagnosis = self.diagnosis();
        [vec![diagnosis.what], diagnosis.causes, diagnosis.saw]
            .concat()
            .join(": ")
    }
}

/// Names the file operation that failed.
pub fn io_at<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> AgentError + 'a {
    move |source| AgentError::Io {
        what,
        path: path.to_owned(),
        source,
    }
}

/// Like [`io_at`], for calls whose error is the kernel's number alone.
pub fn errno_at<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(rustix::io::Errno) -> AgentError + 'a {
    move |errno| AgentError::Io {
        what,
        path: path.to_owned(),
        source: errno.into(),
    }
}

/// Turns "it is not there" into `None`.
pub fn if_there<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}
