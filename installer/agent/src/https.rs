//! HTTPS questions to health endpoints. Certificates are not checked: the answer's status is all that is read, nothing secret is sent, and
//! a wrong answer does no more than choose among servers that every client checks for itself.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// Most bytes of an answer; health endpoints say a few hundred.
const MAX_ANSWER: usize = 64 * 1024;

#[derive(Debug)]
struct Unchecked(Vec<SignatureScheme>);

impl ServerCertVerifier for Unchecked {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}

/// Settings under which any certificate will do.
fn any_certificate() -> io::Result<Arc<ClientConfig>> {
    let provider = Arc::new(ring::default_provider());
    let schemes = provider.signature_verification_algorithms.supported_schemes();
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unchecked(schemes)))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// TLS for a probe that asks whether a host is reached, not whether it is trusted. The handshake comes with the first bytes.
pub fn unchecked<S: Read + Write>(host: &str, stream: S) -> io::Result<StreamOwned<ClientConnection, S>> {
    let name =
        ServerName::try_from(host.to_owned()).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let connection = ClientConnection::new(any_certificate()?, name).map_err(io::Error::other)?;
    Ok(StreamOwned::new(connection, stream))
}

/// A connection to one health endpoint, kept open between questions: a handshake costs the server a hundred times a question.
pub struct Endpoint {
    address: SocketAddr,
    config: Arc<ClientConfig>,
    stream: Option<StreamOwned<ClientConnection, TcpStream>>,
}

impl Endpoint {
    /// Prepares questions to an address. Connects to nothing yet.
    pub fn new(address: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            address,
            config: any_certificate()?,
            stream: None,
        })
    }

    /// Says whether a connection is open, as far as is known.
    pub fn is_connected(&self) -> bool {
        self.stream.is_some()
    }

    /// Connects over TCP; the handshake comes with the first question. Blocks up to `timeout`.
    pub fn connect(&mut self, timeout: Duration) -> io::Result<()> {
        self.stream = None;
        let tcp = TcpStream::connect_timeout(&self.address, timeout)?;
        tcp.set_read_timeout(Some(timeout))?;
        tcp.set_write_timeout(Some(timeout))?;
        tcp.set_nodelay(true)?;
        let name = ServerName::IpAddress(self.address.ip().into());
        let connection = ClientConnection::new(Arc::clone(&self.config), name).map_err(io::Error::other)?;
        self.stream = Some(StreamOwned::new(connection, tcp));
        Ok(())
    }

    /// Asks for a path on the open connection and returns the status; an error closes the connection. Blocks up to the time-out of
    /// [`Endpoint::connect`] for each piece that is sent or received.
    pub fn get(&mut self, path: &str) -> io::Result<u16> {
        let mut stream = self.stream.take().ok_or(io::ErrorKind::NotConnected)?;
        // One record, one packet.
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nUser-Agent: landfall-health\r\n\r\n",
            self.address
        );
        stream.write_all(request.as_bytes())?;
        stream.flush()?;
        let (status, reusable) = read_answer(&mut stream)?;
        if reusable {
            self.stream = Some(stream);
        }
        Ok(status)
    }
}

/// Reads one answer with its body. Returns its status, and whether the connection can be used again.
fn read_answer(stream: &mut impl Read) -> io::Result<(u16, bool)> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP/1.1");
    let mut bytes = Vec::new();
    let mut buffer = [0u8; 4096];
    let split = loop {
        if let Some(split) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break split;
        }
        let read = stream.read(&mut buffer)?;
        if read == 0 || bytes.len() > MAX_ANSWER {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend(&buffer[..read]);
    };
    let head = String::from_utf8_lossy(&bytes[..split]).to_ascii_lowercase();
    let mut lines = head.split("\r\n");
    let first = lines.next().and_then(|l| l.strip_prefix("http/1.1 "));
    let status = first.and_then(|l| l.get(..3)?.parse().ok()).ok_or_else(invalid)?;
    let header = |name: &str| {
        head.split("\r\n")
            .find_map(|l| l.strip_prefix(name))
            .map(|v| v.trim().to_owned())
    };
    // An answer of unknown length ends with its connection.
    let Some(length) = header("content-length:")
        .and_then(|v| v.parse::<usize>().ok())
        .filter(|l| *l < MAX_ANSWER)
    else {
        return Ok((status, false));
    };
    while bytes.len() < split + 4 + length {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Ok((status, false));
        }
        bytes.extend(&buffer[..read]);
    }
    Ok((status, header("connection:").as_deref() != Some("close")))
}
