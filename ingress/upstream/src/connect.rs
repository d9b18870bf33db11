//! New connections to endpoints: TCP, and TLS where the protocol has it.

use super::Destination;
use landfall_ingress_telemetry::files;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::hash::{Hash, Hasher};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Pause before another try when there was no file for a connection.
const FILES_PAUSE: Duration = Duration::from_millis(10);

/// How TLS is spoken with an endpoint. Two of them are equal when they share one configuration and one name.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Authorities, own certificate, ALPN.
    pub config: Arc<ClientConfig>,
    /// Name that is asked for and, where the configuration says so, must be proven.
    pub name: ServerName<'static>,
}

impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config) && self.name == other.name
    }
}

impl Eq for Tls {}

impl Hash for Tls {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.config).hash(state);
        self.name.hash(state);
    }
}

/// A connection to an endpoint.
pub enum Stream {
    /// Over TCP alone.
    Plain(TcpStream),
    /// With TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Connects, within `longest`. `None` when there is no connection: nothing of any request was sent.
pub async fn connect(to: &Destination, longest: Duration) -> Option<Stream> {
    let connecting = async {
        let stream = loop {
            match TcpStream::connect(to.address).await {
                // Not the endpoint's fault: idle connections give way, and there may be a file in a moment.
                Err(error) if files::ran_out(&error) => sleep(FILES_PAUSE).await,
                other => break other?,
            }
        };
        // Without it small writes wait for acknowledgements; failing to set it costs speed only.
        let _ = stream.set_nodelay(true);
        match &to.tls {
            None => Ok(Stream::Plain(stream)),
            Some(tls) => {
                let connector = TlsConnector::from(Arc::clone(&tls.config));
                let stream = connector.connect(tls.name.clone(), stream).await?;
                Ok::<_, io::Error>(Stream::Tls(Box::new(stream)))
            }
        }
    };
    timeout(longest, connecting).await.ok()?.ok()
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, parts),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, parts),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
