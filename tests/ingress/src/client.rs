//! A strict HTTP/1.1 client: one exchange after another on a connection, every answer read to the byte it promises.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// Largest head of an answer.
const HEAD_BYTES: usize = 256 * 1024;

/// An answer, read whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// `1` for HTTP/1.1.
    pub minor_version: u8,
    /// Names in lower case, values as they came.
    pub fields: Vec<(String, String)>,
    /// The body without its framing.
    pub body: Vec<u8>,
    /// The connection can take another request.
    pub keeps: bool,
}

impl Answer {
    /// The first field of this name, given in lower case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Why there is no whole answer.
#[derive(Debug)]
pub enum Failure {
    /// The connection ended before the first byte of an answer. On a kept connection the other side may just have closed it.
    Closed,
    /// It ended, or made no sense, within an answer, or there was none in time.
    Broken(String),
}

/// A connection to the proxy.
#[derive(Debug)]
pub struct Connection<S> {
    stream: S,
    buffer: Vec<u8>,
    /// Exchanges that it has carried.
    pub exchanges: usize,
}

/// Opens a plain connection.
pub async fn connect(address: SocketAddr) -> io::Result<Connection<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(Connection::new(stream))
}

/// Opens a connection over TLS for this server name.
pub async fn connect_tls(
    address: SocketAddr,
    name: &str,
    config: Arc<rustls::ClientConfig>,
) -> io::Result<Connection<TlsStream<TcpStream>>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let name = rustls::pki_types::ServerName::try_from(name.to_owned()).map_err(io::Error::other)?;
    Ok(Connection::new(TlsConnector::from(config).connect(name, stream).await?))
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Speaks HTTP on a stream.
    pub fn new(stream: S) -> Self {
        Self {
            stream,
            buffer: Vec::new(),
            exchanges: 0,
        }
    }

    /// Sends a request as it is and reads its answer.
    pub async fn exchange(&mut self, request: &[u8]) -> Result<Answer, Failure> {
        let head_only = request.starts_with(b"HEAD ");
        let exchange = async {
            // A server may answer and close before it has read everything; then the answer counts.
            let written = self.stream.write_all(request).await;
            match self.answer(head_only).await {
                Err(Failure::Closed) => match written {
                    Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(Failure::Broken(error.to_string())),
                    _ => Err(Failure::Closed),
                },
                other => other,
            }
        };
        let answer = tokio::time::timeout(PATIENCE, exchange).await;
        self.exchanges += 1;
        answer.unwrap_or_else(|_| Err(Failure::Broken("no answer in time".to_owned())))
    }

    /// Reads an answer; interim ones are passed over, except 101.
    pub async fn answer(&mut self, head_only: bool) -> Result<Answer, Failure> {
        loop {
            let mut answer = self.head().await?;
            if answer.status / 100 != 1 || answer.status == 101 {
                self.body(&mut answer, head_only).await?;
                return Ok(answer);
            }
        }
    }

    /// The stream and what was read of it beyond the last answer.
    pub fn into_parts(self) -> (S, Vec<u8>) {
        (self.stream, self.buffer)
    }

    async fn head(&mut self) -> Result<Answer, Failure> {
        loop {
            if let Some((answer, length)) = parse_head(&self.buffer)? {
                self.buffer.drain(..length);
                return Ok(answer);
            }
            if self.buffer.len() > HEAD_BYTES {
                return Err(Failure::Broken("a head without end".to_owned()));
            }
            if self.fill().await? == 0 {
                return Err(match self.buffer.is_empty() {
                    true => Failure::Closed,
                    false => Failure::Broken("closed within the head".to_owned()),
                });
            }
        }
    }

    async fn fill(&mut self) -> Result<usize, Failure> {
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(read) => Ok(read),
            // A reset before anything came is as good as a close.
            Err(_) if self.buffer.is_empty() => Ok(0),
            Err(error) => Err(Failure::Broken(error.to_string())),
        }
    }

    async fn body(&mut self, answer: &mut Answer, head_only: bool) -> Result<(), Failure> {
        if head_only || [101, 204, 304].contains(&answer.status) {
            return Ok(());
        }
        let chunked = answer
            .field("transfer-encoding")
            .is_some_and(|v| v.eq_ignore_ascii_case("chunked"));
        let length = answer.field("content-length").map(str::parse::<usize>);
        match (chunked, length) {
            (true, None) => answer.body = self.chunks().await?,
            (false, Some(Ok(length))) => answer.body = self.take(length).await?,
            (false, None) => {
                while self.fill().await? > 0 {}
                answer.body = std::mem::take(&mut self.buffer);
                answer.keeps = false;
            }
            _ => return Err(Failure::Broken("framing that contradicts itself".to_owned())),
        }
        Ok(())
    }

    async fn take(&mut self, length: usize) -> Result<Vec<u8>, Failure> {
        while self.buffer.len() < length {
            if self.fill().await? == 0 {
                return Err(Failure::Broken(format!(
                    "{} of {length} bytes of a body",
                    self.buffer.len()
                )));
            }
        }
        let rest = self.buffer.split_off(length);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    async fn line(&mut self) -> Result<String, Failure> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                let line = self.take(end + 2).await?;
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if self.fill().await? == 0 {
                return Err(Failure::Broken("closed within chunks".to_owned()));
            }
        }
    }

    async fn chunks(&mut self) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        loop {
            let line = self.line().await?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(digits, 16);
            let size = size.map_err(|_| Failure::Broken(format!("a chunk of size {line:?}")))?;
            if size == 0 {
                while !self.line().await?.is_empty() {}
                return Ok(body);
            }
            body.extend(self.take(size).await?);
            if !self.line().await?.is_empty() {
                return Err(Failure::Broken("a chunk longer than it said".to_owned()));
            }
        }
    }
}

fn parse_head(bytes: &[u8]) -> Result<Option<(Answer, usize)>, Failure> {
    let mut fields = [httparse::EMPTY_HEADER; 128];
    let mut response = httparse::Response::new(&mut fields);
    let parsed = response
        .parse(bytes)
        .map_err(|error| Failure::Broken(format!("head: {error}")))?;
    let httparse::Status::Complete(length) = parsed else {
        return Ok(None);
    };
    let fields: Vec<_> = response
        .headers
        .iter()
        .map(|f| {
            (
                f.name.to_ascii_lowercase(),
                String::from_utf8_lossy(f.value).into_owned(),
            )
        })
        .collect();
    let minor_version = response.version.unwrap_or_default();
    let connection = fields
        .iter()
        .filter(|(n, _)| n == "connection")
        .map(|(_, v)| v.to_ascii_lowercase());
    let mut keeps = minor_version == 1;
    for value in connection {
        keeps = (keeps && !value.contains("close")) || value.contains("keep-alive");
    }
    let answer = Answer {
        status: response.code.unwrap_or_default(),
        minor_version,
        fields,
        body: Vec::new(),
        keeps,
    };
    Ok(Some((answer, length)))
}

/// One GET on its own connection; status 0 when the connection is refused or the answer is not whole.
pub async fn fetch(address: SocketAddr, host: &str, path: &str) -> (u16, String) {
    fetch_with(address, host, path, "").await
}

/// The same with more fields, each with its line's end.
pub async fn fetch_with(address: SocketAddr, host: &str, path: &str, fields: &str) -> (u16, String) {
    let Ok(mut connection) = connect(address).await else {
        return (0, String::new());
    };
    let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{fields}Connection: close\r\n\r\n");
    match connection.exchange(request.as_bytes()).await {
        Ok(answer) => (answer.status, answer.text()),
        Err(_) => (0, String::new()),
    }
}
