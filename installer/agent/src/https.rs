//! HTTPS questions to health endpoints. Certificates are not checked: the answer's status is all that is read, nothing secret is sent, and
//! a wrong answer does no more than choose among servers that every client checks for itself.

use crate::http;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// Most bytes of a body; health endpoints say a few hundred.
const MAX_BODY: usize = 64 * 1024;

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

/// TLS settings that accept any certificate.
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
        let answer = http::read_answer(&mut stream, MAX_BODY)?;
        if answer.reusable {
            self.stream = Some(stream);
        }
        Ok(answer.status)
    }
}
