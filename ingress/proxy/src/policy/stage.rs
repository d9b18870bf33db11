//! What a request meets at its route, one after another.

/// A step on the way; the first that has an answer gives it. What each does is in the table at the head of [`super`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// A protecting annotation may be unreadable.
    Closed,
    /// The client's address.
    Source,
    /// Redirects.
    Redirect,
    /// Whether the connection is for this host. After redirects to https: a plain request is sent there, not refused.
    Connection,
    /// Rates and requests at once.
    Limits,
    /// CORS preflight.
    Preflight,
    /// Client certificate.
    Certificate,
    /// User and password.
    Password,
    /// External authentication.
    External,
    /// Canary, affinity and hash key: backend and endpoint.
    Choice,
    /// The path that is forwarded.
    Rewrite,
    /// A copy for another service.
    Mirror,
}

impl Stage {
    /// All of them, in the order in which every request meets them.
    pub const ALL: [Self; 12] = [
        Self::Closed,
        Self::Source,
        Self::Redirect,
        Self::Connection,
        Self::Limits,
        Self::Preflight,
        Self::Certificate,
        Self::Password,
        Self::External,
        Self::Choice,
        Self::Rewrite,
        Self::Mirror,
    ];

    /// Its name for people.
    pub fn text(self) -> &'static str {
        match self {
            Self::Closed => "protection can be read",
            Self::Source => "client's address",
            Self::Redirect => "redirects",
            Self::Connection => "connection",
            Self::Limits => "limits",
            Self::Preflight => "CORS preflight",
            Self::Certificate => "client certificate",
            Self::Password => "user and password",
            Self::External => "external authentication",
            Self::Choice => "choice of Service",
            Self::Rewrite => "rewrite",
            Self::Mirror => "mirror",
        }
    }
}
