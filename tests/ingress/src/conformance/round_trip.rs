//! Sends one request and checks the properties that the suite requires of every answer.

use super::cluster::Proxy;
use crate::client::{self, Answer, Failure};
use anyhow::{Context, Result, anyhow, ensure};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use std::sync::Arc;

/// User-Agent of Go's client, which the suite expects at the endpoint.
const AGENT: &str = "Go-http-client/1.1";

/// How a request travels.
#[derive(Debug, Clone, Copy)]
pub enum Over<'a> {
    /// In plain text.
    Plain,
    /// Over TLS; only this certificate is trusted, and it has to be for the request's host.
    Tls(&'a CertificateDer<'static>),
}

/// An answer and what the endpoint says of the request.
#[derive(Debug)]
pub struct RoundTrip {
    answer: Answer,
    seen: Value,
}

/// Sends a request with an empty body. Without a host it names the address that it asks, as the suite's client does.
pub async fn send(proxy: Proxy, method: &str, host: &str, path: &str, over: Over<'_>) -> Result<RoundTrip> {
    let address = proxy.http.to_string();
    let host = if host.is_empty() { &address } else { host };
    let length = match method {
        "POST" | "PUT" | "PATCH" => "Content-Length: 0\r\n",
        _ => "",
    };
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {AGENT}\r\n{length}\r\n");
    let answered = match over {
        Over::Plain => client::connect(proxy.http).await?.exchange(head.as_bytes()).await,
        Over::Tls(certificate) => {
            let config = trusting(certificate)?;
            let mut connection = client::connect_tls(proxy.https, host, config).await?;
            connection.exchange(head.as_bytes()).await
        }
    };
    let answer = answered.map_err(|failure| match failure {
        Failure::Closed => anyhow!("the connection ended without an answer"),
        Failure::Broken(why) => anyhow!(why),
    })?;
    RoundTrip::new(answer, method, host, path)
}

/// Trusts one certificate.
pub fn trusting(certificate: &CertificateDer<'static>) -> Result<Arc<rustls::ClientConfig>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.clone())?;
    let config = rustls::ClientConfig::builder().with_root_certificates(roots);
    Ok(Arc::new(config.with_no_client_auth()))
}

impl RoundTrip {
    fn new(answer: Answer, method: &str, host: &str, path: &str) -> Result<Self> {
        if answer.status != 200 {
            return Ok(Self {
                answer,
                seen: Value::Null,
            });
        }
        let seen: Value = serde_json::from_slice(&answer.body).context("another's answer, not an endpoint's JSON")?;
        ensure!(
            answer.minor_version == 1,
            "an answer in HTTP/1.{}",
            answer.minor_version
        );
        for name in ["content-length", "content-type", "date", "server"] {
            let there = answer.field(name).is_some_and(|value| !value.is_empty());
            ensure!(there, "an answer without {name}: {answer:?}");
        }
        let agents = seen["fields"].as_array().into_iter().flatten();
        let agents: Vec<_> = agents.filter(|field| field[0] == "user-agent").collect();
        let whole = seen["proto"] == "HTTP/1.1"
            && seen["method"] == method
            && seen["target"] == path
            && seen["host"] == host
            && agents == [&json!(["user-agent", AGENT])];
        ensure!(whole, "the endpoint saw another request: {seen}");
        Ok(Self { answer, seen })
    }

    /// A pod of the Service answered.
    pub fn served_by(&self, service: &str) -> Result<()> {
        let status = self.answer.status;
        ensure!(status == 200, "status {status}: {}", self.answer.text());
        ensure!(self.seen["service"] == service, "{} answered", self.seen["service"]);
        Ok(())
    }

    /// 308 to a place that begins so.
    pub fn is_redirected_to(&self, start: &str) -> Result<()> {
        let location = self.answer.field("location").unwrap_or_default();
        ensure!(
            self.answer.status == 308 && location.starts_with(start),
            "{:?}",
            self.answer
        );
        Ok(())
    }

    /// 404.
    pub fn is_not_found(&self) -> Result<()> {
        let status = self.answer.status;
        ensure!(status == 404, "status {status}: {}", self.answer.text());
        Ok(())
    }

    /// The pod that answered.
    pub fn pod(&self) -> String {
        self.seen["pod"].as_str().unwrap_or_default().to_owned()
    }
}
