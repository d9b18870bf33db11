//! One connection of a client: which HTTP is spoken, then that.

use super::registry::Place;
use super::sniff::{self, HttpVersion};
use super::{Client, Proxy, http1, http2};
use landfall_ingress_telemetry::metrics::OpenProtocol;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};

/// Serves a connection to its end.
pub(super) async fn serve<S>(proxy: &Arc<Proxy>, mut stream: S, client: Client, spoken: HttpVersion, place: &Place)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let client = Arc::new(client);
    let (spoken, first) = match spoken {
        HttpVersion::Unknown => match sniff::first(&mut stream, &proxy.limits, place).await {
            Some(found) => found,
            None => return,
        },
        known => (known, bytes::BytesMut::new()),
    };
    let open = match spoken {
        HttpVersion::Http2 => OpenProtocol::Http2,
        _ => OpenProtocol::Http1,
    };
    let _open = proxy.state.counters.open(open).one();
    match spoken {
        HttpVersion::Http2 => http2::serve(proxy, sniff::Rewound::new(stream, first), client, place).await,
        _ => http1::serve(proxy, stream, first, client, place).await,
    }
}
