//! Errors as users read them: a stable code, what failed, where, what was seen, why, what to do next.
//!
//! Every boundary error of the installer becomes a [`Diagnosis`]; the command line alone renders it.

use crate::name::{NodeName, StepId};
use serde::{Deserialize, Serialize};
use std::fmt;

/// How the process ends. The worst of several wins; the order is the declaration's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExitCode {
    /// 0: done, verified.
    Done,
    /// 12: `plan --exit-code` found changes pending.
    ChangesPending,
    /// 10: verify found faults.
    VerifyFaults,
    /// 2: wrong use of the command line.
    Usage,
    /// 3: spec or inventory invalid.
    SpecInvalid,
    /// 5: bundle invalid, wrong signature or missing image.
    BundleInvalid,
    /// 6: a node was unreachable, or its host key or login was refused.
    Unreachable,
    /// 11: another run holds the lease.
    Locked,
    /// 4: preflight refused; nodes are unchanged.
    PreflightRefused,
    /// 130: interrupted.
    Interrupted,
    /// 7: failed, kept as it is; running again continues.
    FailedKept,
    /// 8: failed and rolled back, no residue.
    FailedRolledBack,
    /// 9: rollback or uninstall left residue, which is listed.
    Residue,
    /// 1: internal error.
    Internal,
}

impl ExitCode {
    /// Returns the process's exit status.
    pub fn status(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Internal => 1,
            Self::Usage => 2,
            Self::SpecInvalid => 3,
            Self::PreflightRefused => 4,
            Self::BundleInvalid => 5,
            Self::Unreachable => 6,
            Self::FailedKept => 7,
            Self::FailedRolledBack => 8,
            Self::Residue => 9,
            Self::VerifyFaults => 10,
            Self::Locked => 11,
            Self::ChangesPending => 12,
            Self::Interrupted => 130,
        }
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal => $exit:ident, next $next:literal;)*) => {
        /// Stable code of an error or finding, `LF` and four digits; never reused for another meaning.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Code {
            $($(#[$doc])* #[serde(rename = $text)] $name,)*
        }
        impl Code {
            /// Every code there is.
            pub const ALL: &'static [Code] = &[$(Code::$name,)*];
            /// Returns the code as users see it.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$name => $text,)* }
            }
            /// Returns the exit code that a run ends with because of this error.
            pub fn exit_code(self) -> ExitCode {
                match self { $(Code::$name => ExitCode::$exit,)* }
            }
            /// Returns what to do next about any error of this code, for errors that know nothing more exact.
            pub fn next(self) -> &'static str {
                match self { $(Code::$name => $next,)* }
            }
        }
    };
}

codes! {
    /// Internal error: landfall's own fault.
    Internal = "LF0001" => Internal, next
        "report this with the whole output, and with the report folder if there is one; running the same command again is safe";
    /// Another run holds the lease of a node.
    Locked = "LF0002" => Locked, next
        "wait until the other run ends, then run the same command again";
    /// The run was interrupted by the user.
    Interrupted = "LF0003" => Interrupted, next
        "run the same command again: it continues; or undo what was done with `landfall rollback`";
    /// Wrong use of a command.
    Usage = "LF0004" => Usage, next
        "landfall --help";
    /// A file the user named cannot be read.
    FileUnreadable = "LF0101" => SpecInvalid, next
        "look whether the file exists and whether you may read or write it";
    /// The spec or inventory cannot be parsed.
    SpecSyntax = "LF0102" => SpecInvalid, next
        "correct the file; `landfall inventory -i FILE` shows what is understood of it";
    /// A value in the spec or inventory is not valid.
    SpecValue = "LF0103" => SpecInvalid, next
        "correct the value; the README lists every setting and its default";
    /// The set of nodes and roles makes no cluster.
    SpecTopology = "LF0104" => SpecInvalid, next
        "correct the list of machines; `landfall inventory -i FILE` shows what is understood of it";
    /// A node cannot be reached over the network.
    Unreachable = "LF0201" => Unreachable, next
        "look whether the machine is up and whether its address and port in the inventory are right";
    /// A node's host key is not known.
    HostKeyUnknown = "LF0202" => Unreachable, next
        "compare the fingerprint with the machine's own, then run again with --accept-new-host-keys";
    /// A node's host key differs from the known one.
    HostKeyMismatch = "LF0203" => Unreachable, next
        "find out why the key changed before anything else: somebody may intercept the connection";
    /// The login was refused.
    LoginRefused = "LF0204" => Unreachable, next
        "look whether the user, key or password in the inventory is right; try the same login with ssh";
    /// The sudo password is wrong or missing, or sudo refused.
    SudoRefused = "LF0205" => Unreachable, next
        "look whether the user may become root there: `sudo -l` on the node";
    /// The connection to a node broke.
    ConnectionLost = "LF0206" => FailedKept, next
        "look whether the node is up, then run the same command again: it continues where it stopped";
    /// The agent could not be put on the node or started there.
    AgentStart = "LF0207" => Unreachable, next
        "look on the node whether /var/lib is writable, has free space and is not mounted noexec";
    /// The two sides speak different protocol versions.
    Protocol = "LF0208" => Unreachable, next
        "run the command again with the same version of landfall as the run before, or look whether another landfall is at work on the node";
    /// A recorded member of the cluster is absent: it does not answer, or the inventory lacks it.
    MemberAbsent = "LF0209" => Unreachable, next
        "bring the machine back, or put it into the inventory again; then run the same command again: it finishes what is left";
    /// A node did not answer a request in time.
    RequestDeadline = "LF0210" => Unreachable, next
        "look on the node for a disk or network file system that does not answer, then run the same command again";
    /// A preflight check refused; the finding's own id says which.
    Preflight = "LF0301" => PreflightRefused, next
        "correct what was found on the node, then run the same command again";
    /// A plan file cannot be read.
    PlanFile = "LF0302" => SpecInvalid, next
        "make the plan by `landfall plan --write FILE`";
    /// The cluster has changed since the plan file was made.
    PlanDrift = "LF0303" => PreflightRefused, next
        "make a new plan by `landfall plan --write FILE`, and read it";
    /// The bundle's format is not valid.
    BundleFormat = "LF0401" => BundleInvalid, next
        "copy the bundle again from where it was built, or build it again";
    /// A blob of the bundle does not have its digest.
    BundleDigest = "LF0402" => BundleInvalid, next
        "copy the bundle again from where it was built; `landfall bundle verify FILE` names what is damaged";
    /// The bundle lacks an image or program that is needed.
    BundleMissing = "LF0403" => BundleInvalid, next
        "build the bundle again with this version of landfall";
    /// Building the bundle failed.
    BundleBuild = "LF0404" => BundleInvalid, next
        "correct what the last lines name, then build again: finished parts are kept";
    /// The bundle is not signed by a key that is trusted.
    BundleSignature = "LF0405" => BundleInvalid, next
        "get the builder's public key from a source that you trust, and name it by --trusted-key FILE";
    /// A publisher's signature is wrong or missing, or cannot be verified although it must be.
    PublisherSignature = "LF0406" => BundleInvalid, next
        "find out why the publisher's file or signature changed before you use it: somebody may have replaced it, on the server or on the way";
    /// A step failed.
    StepFailed = "LF0501" => FailedKept, next
        "correct what the last lines name, then run the same command again: it continues at this step";
    /// A step did not end within its deadline.
    StepDeadline = "LF0502" => FailedKept, next
        "`landfall status` shows what is not ready; then run the same command again: it continues at this step";
    /// A step met something on the node that is not ours.
    ForeignState = "LF0503" => FailedKept, next
        "move away what is named, or take the node out of the inventory, then run the same command again";
    /// The journal of a node cannot be read or written.
    Journal = "LF0504" => FailedKept, next
        "look whether the node's disk is full or damaged; nothing was changed that the journal does not hold. Keep a copy of /var/lib/landfall/journal.jsonl before you touch it";
    /// The cluster's API did not answer or refused.
    ClusterApi = "LF0505" => FailedKept, next
        "`landfall status` shows which control planes answer";
    /// An object that landfall would apply exists in the cluster and was not made by landfall.
    ForeignObject = "LF0506" => FailedKept, next
        "rename or remove the object, or switch off in cluster.yaml what landfall would put there; then run the same command again";
    /// Something could not be undone.
    Residue = "LF0601" => Residue, next
        "remove what is listed by hand, then run the same command again";
    /// Verify found a path into the cluster that is not as expected.
    VerifyFault = "LF0701" => VerifyFaults, next
        "follow the cause and the next step that each failed path names; `landfall verify --all` shows every path";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One error, ready for a person: always in the order what · where · saw · why · next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnosis {
    /// Stable code.
    pub code: Code,
    /// What failed: a lower-case fragment without final period.
    pub what: String,
    /// The node, when one is concerned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// The step, when one was running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepId>,
    /// What was seen: last lines of output, observed values; redacted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub saw: Vec<String>,
    /// The chain of causes, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
    /// What to do next: commands to paste, or advice. Never empty: it starts with [`Code::next`], which more exact advice replaces.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub next: Vec<String>,
}

impl Diagnosis {
    /// Starts a diagnosis, with the code's own advice.
    pub fn new(code: Code, what: impl Into<String>) -> Self {
        Self {
            code,
            what: what.into(),
            node: None,
            step: None,
            saw: vec![],
            causes: vec![],
            next: vec![code.next().to_owned()],
        }
    }
    /// Names the node.
    pub fn on(mut self, node: &NodeName) -> Self {
        self.node = Some(node.clone());
        self
    }
    /// Names the step.
    pub fn at(mut self, step: &StepId) -> Self {
        self.step = Some(step.clone());
        self
    }
    /// Adds one line of evidence.
    pub fn saw(mut self, line: impl Into<String>) -> Self {
        self.saw.push(line.into());
        self
    }
    /// Adds one next action. The first one takes the place of the code's own advice.
    pub fn next(mut self, line: impl Into<String>) -> Self {
        if self.next == [self.code.next()] {
            self.next.clear();
        }
        self.next.push(line.into());
        self
    }
    /// Adds an error and its whole chain of sources as causes.
    pub fn because(mut self, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut at: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(error) = at {
            self.causes.push(error.to_string());
            at = error.source();
        }
        self
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}
impl std::error::Error for Diagnosis {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn codes_are_unique_and_of_one_shape() {
        let texts: BTreeSet<_> = Code::ALL.iter().map(|c| c.as_str()).collect();
        assert_eq!(texts.len(), Code::ALL.len());
        assert!(texts.iter().all(|t| t.len() == 6 && t.starts_with("LF")));
    }

    #[test]
    fn every_error_says_what_to_do_next() {
        for code in Code::ALL {
            let error = Diagnosis::new(*code, "x");
            assert!(error.next.iter().all(|line| line.len() > 10), "{code} has no advice");
            assert_eq!(error.next.len(), 1);
            let exact = error.next("first").next("second");
            assert_eq!(
                exact.next,
                ["first", "second"],
                "exact advice takes the place of the code's"
            );
        }
    }

    #[test]
    fn worst_exit_code_wins() {
        use ExitCode::*;
        assert!(Residue > FailedRolledBack && FailedRolledBack > FailedKept && FailedKept > VerifyFaults);
    }
}
