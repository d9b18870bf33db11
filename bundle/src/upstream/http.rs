//! HTTPS with patience: which failures are worth another try, how long to wait, by which proxy and whose certificates.

use super::NetworkOptions;
use crate::source::failed;
use landfall_core::explain::{Code, Diagnosis};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use ureq::config::{Config, RedirectAuthHeaders};
use ureq::http::Uri;
use ureq::http::header::{HeaderMap, RETRY_AFTER};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Proxy};

/// An answer whose body has not been read.
pub(super) type Response = ureq::http::Response<ureq::Body>;

/// Failures in a row, without a byte in between, after which a server is given up. With [`FIRST_WAIT`] doubled each time that is 16 seconds.
const FAILURES: u32 = 6;
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest wait that a server may ask for by Retry-After.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// A connection that gives no byte for so long is given up; the next one goes on where it stopped.
const SILENCE: Duration = Duration::from_secs(30);
/// Addresses of one name that are tried, as many as ureq takes.
const ADDRESSES: usize = 16;

/// Looks names up, for the program has no working look-up of its own. Blocks as long as the system's resolver does.
pub type LookUp = fn(&str) -> Option<Vec<IpAddr>>;

/// Why a request gave nothing.
#[derive(Debug)]
pub(super) struct Trouble {
    /// What was seen.
    pub text: String,
    again: Again,
}

/// Whether the same request may work later.
#[derive(Debug, PartialEq, Eq)]
enum Again {
    Never,
    /// Yes; after the time that the server named, if it did.
    Later(Option<Duration>),
}

impl Trouble {
    /// One that no further try changes.
    pub fn lasting(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            again: Again::Never,
        }
    }

    /// One that may pass.
    pub fn passing(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            again: Again::Later(None),
        }
    }

    fn of(error: &ureq::Error) -> Self {
        match error {
            ureq::Error::HostNotFound => Self::lasting("the name has no address here"),
            ureq::Error::ConnectProxyFailed(why) => Self::lasting(format!("the proxy opens no way there: {why}")),
            ureq::Error::RequireHttpsOnly(_) => Self::lasting("it leads to an address that is not https"),
            ureq::Error::TooManyRedirects => Self::lasting("it leads from one address to another without end"),
            ureq::Error::Timeout(_) => Self::passing(format!("no answer: {error}")),
            ureq::Error::Rustls(_) => Self::lasting(error.to_string()),
            ureq::Error::Io(io) => Self::of_io(io),
            _ => Self::passing(error.to_string()),
        }
    }

    /// What went wrong in the middle of a body, or with the connection. A certificate is not better on the next try.
    pub fn of_io(error: &io::Error) -> Self {
        if let Some(inner) = error.get_ref() {
            if inner.is::<rustls::Error>() {
                return Self::lasting(inner.to_string());
            }
            if let Some(inner) = inner.downcast_ref::<ureq::Error>() {
                return Self::of(inner);
            }
        }
        Self::passing(error.to_string())
    }
}

/// Counts failures in a row.
#[derive(Default)]
pub(super) struct Patience {
    failures: u32,
}

impl Patience {
    /// Something came: earlier failures count no more.
    pub fn restore(&mut self) {
        self.failures = 0;
    }

    /// Waits until another try is due; gives the trouble back when none is.
    pub fn wait(&mut self, what: &str, trouble: Trouble, say: &dyn Fn(&str)) -> Result<(), Trouble> {
        let Again::Later(asked) = trouble.again else {
            return Err(trouble);
        };
        self.failures += 1;
        let wait = asked.unwrap_or(FIRST_WAIT * 2u32.pow(self.failures - 1));
        if wait > LONGEST_WAIT {
            let text = format!("{}, and asks to wait {} s", trouble.text, wait.as_secs());
            return Err(Trouble::lasting(text));
        }
        if self.failures >= FAILURES {
            let text = format!("{} (tried {FAILURES} times)", trouble.text);
            return Err(Trouble::lasting(text));
        }
        say(&format!(
            "{what}: {}; trying again in {:.1} s",
            trouble.text,
            wait.as_secs_f32()
        ));
        std::thread::sleep(wait);
        Ok(())
    }
}

/// Sends requests.
pub(super) struct Client<'a> {
    agent: Agent,
    /// Takes a line about what happens.
    pub say: &'a dyn Fn(&str),
}

impl<'a> Client<'a> {
    pub fn new(options: &NetworkOptions<'a>) -> Result<Self, Diagnosis> {
        let roots = RootCerts::Specific(Arc::new(authorities(options.ca)?));
        let tls = TlsConfig::builder()
            .root_certs(roots)
            .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .build();
        let config = Config::builder()
            .http_status_as_error(false)
            .https_only(true)
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .user_agent(concat!("landfall/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(SILENCE))
            .timeout_recv_response(Some(2 * SILENCE))
            .timeout_per_read(Some(SILENCE))
            .proxy(proxy()?)
            .tls_config(tls)
            .build();
        let agent = Agent::with_parts(config, DefaultConnector::default(), Names(options.look_up));
        Ok(Self {
            agent,
            say: options.progress,
        })
    }

    /// Sends one request. An answer may refuse; only what may pass (408, 425, 429 and 5xx) is an error already.
    pub fn get(&self, url: &str, headers: &[(&str, &str)]) -> Result<Response, Trouble> {
        let mut request = self.agent.get(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.call().map_err(|error| Trouble::of(&error))?;
        let status = response.status().as_u16();
        if matches!(status, 408 | 425 | 429 | 500..=599) {
            return Err(Trouble {
                text: format!("the server answers {}", response.status()),
                again: Again::Later(retry_after(response.headers(), SystemTime::now())),
            });
        }
        Ok(response)
    }

    /// Tries until there is a result, or none to be hoped for.
    pub fn patiently<T>(&self, what: &str, mut attempt: impl FnMut() -> Result<T, Trouble>) -> Result<T, Trouble> {
        let mut patience = Patience::default();
        loop {
            match attempt() {
                Ok(result) => return Ok(result),
                Err(trouble) => patience.wait(what, trouble, self.say)?,
            }
        }
    }
}

/// Reads a small body.
pub(super) fn read_small(response: Response, limit: u64) -> Result<Vec<u8>, Trouble> {
    let read = response.into_body().into_with_config().limit(limit).read_to_vec();
    read.map_err(|error| match error {
        ureq::Error::BodyExceedsLimit(_) => Trouble::lasting(format!("the answer has more than {limit} bytes")),
        error => Trouble::of(&error),
    })
}

/// How long the server asks to wait (RFC 9110, 10.2.3): seconds or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// The proxy that the environment names. ureq passes over what it does not understand, which would go past the proxy unseen.
fn proxy() -> Result<Option<Proxy>, Diagnosis> {
    let proxy = Proxy::try_from_env();
    if proxy.is_some() {
        return Ok(proxy);
    }
    let set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    match ["ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy"]
        .iter()
        .find(|name| set(name))
    {
        None => Ok(None),
        // Its value may hold a password.
        Some(name) => Err(Diagnosis::new(Code::Usage, format!("{name} names no proxy"))
            .next("give it the form http://HOST:PORT or http://USER:PASSWORD@HOST:PORT")),
    }
}

/// The machine's certificate authorities (SSL_CERT_FILE and SSL_CERT_DIR name others), and those of a file.
fn authorities(file: Option<&Path>) -> Result<Vec<Certificate<'static>>, Diagnosis> {
    let native = rustls_native_certs::load_native_certs();
    let mut all: Vec<_> = native
        .certs
        .iter()
        .map(|der| Certificate::from_der(der).to_owned())
        .collect();
    if let Some(path) = file {
        let unreadable = |error: &(dyn std::error::Error + 'static)| {
            let what = format!("the certificate authorities in {} cannot be read", path.display());
            Diagnosis::new(Code::FileUnreadable, what).because(error)
        };
        let text = std::fs::read(path).map_err(|error| unreadable(&error))?;
        let before = all.len();
        for item in parse_pem(&text) {
            if let PemItem::Certificate(certificate) = item.map_err(|error| unreadable(&error))? {
                all.push(certificate);
            }
        }
        if all.len() == before {
            let what = format!("{} holds no certificate in PEM form", path.display());
            return Err(Diagnosis::new(Code::FileUnreadable, what));
        }
    }
    if all.is_empty() {
        let none = failed("this machine has no certificate authorities to check servers by");
        let none = native.errors.iter().fold(none, |d, error| d.saw(error.to_string()));
        return Err(none.next("install ca-certificates, or name a file by SSL_CERT_FILE or --ca"));
    }
    Ok(all)
}

/// Hands ureq's questions for addresses to the one place that can answer them.
#[derive(Debug)]
struct Names(LookUp);

impl Resolver for Names {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri
            .host()
            .unwrap_or_default()
            .trim_start_matches('[')
            .trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(match uri.scheme_str() {
            Some("http") => 80,
            _ => 443,
        });
        let found = (self.0)(host).unwrap_or_default();
        let mut addresses = self.empty();
        for address in found.into_iter().take(ADDRESSES) {
            addresses.push(SocketAddr::new(address, port));
        }
        if addresses.is_empty() {
            return Err(ureq::Error::HostNotFound);
        }
        Ok(addresses)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_may_say_when_in_seconds_or_by_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770);
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers, now).map(|wait| wait.as_secs())
        };
        assert_eq!(of("7"), Some(7));
        assert_eq!(of("Sun, 06 Nov 1994 08:49:37 GMT"), Some(7));
        assert_eq!(of("Sun, 06 Nov 1994 08:49:00 GMT"), Some(0));
        assert_eq!(of("soon"), None);
        assert_eq!(retry_after(&HeaderMap::new(), now), None);
    }

    #[test]
    fn patience_ends_and_is_restored_by_progress() {
        let mut patience = Patience { failures: FAILURES - 2 };
        let quick = || Trouble {
            text: "x".to_owned(),
            again: Again::Later(Some(Duration::ZERO)),
        };
        assert!(patience.wait("y", quick(), &|_| ()).is_ok());
        assert!(patience.wait("y", quick(), &|_| ()).is_err());
        patience.restore();
        assert!(patience.wait("y", quick(), &|_| ()).is_ok());
        assert!(patience.wait("y", Trouble::lasting("x"), &|_| ()).is_err());
        let long = Trouble {
            text: "x".to_owned(),
            again: Again::Later(Some(LONGEST_WAIT + Duration::from_secs(1))),
        };
        let refused = patience.wait("y", long, &|_| ()).unwrap_err();
        assert_eq!(refused.text, "x, and asks to wait 301 s");
    }
}
