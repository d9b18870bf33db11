//! The API balancer on loopback: failover, and closing what hangs on a dead backend.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use landfall_agent::api_balancer::serve;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A server that names itself and then echoes; `stop` ends it and its connections.
fn backend(name: &'static str, address: Option<SocketAddr>) -> (SocketAddr, Arc<AtomicBool>) {
    let listener = TcpListener::bind(address.unwrap_or((Ipv4Addr::LOCALHOST, 0).into())).unwrap();
    let address = listener.local_addr().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            if stopped.load(Ordering::SeqCst) {
                return;
            }
            thread::spawn(move || {
                let _ = stream.write_all(name.as_bytes());
                let mut buffer = [0u8; 1024];
                while let Ok(read) = stream.read(&mut buffer) {
                    if read == 0 || stream.write_all(&buffer[..read]).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, stop)
}

/// Ends a server; returns once its port refuses connections.
fn end(address: SocketAddr, stop: &AtomicBool) {
    stop.store(true, Ordering::SeqCst);
    wait_for("the end of a server", Duration::from_secs(60), || {
        TcpStream::connect(address).is_err()
    });
}

fn balancer(backends: Vec<SocketAddr>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || serve(&listener, &backends));
    address
}

/// Connects and reads the name of whoever answers; empty when nobody does.
fn who(balancer: SocketAddr) -> (String, TcpStream) {
    let mut stream = TcpStream::connect(balancer).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut buffer = [0u8; 16];
    let read = stream.read(&mut buffer).unwrap_or(0);
    (String::from_utf8_lossy(&buffer[..read]).into_owned(), stream)
}

fn wait_for(what: &str, limit: Duration, mut there: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !there() {
        assert!(Instant::now() < deadline, "{what} did not happen");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_first_healthy_backend_serves_and_connections_to_a_dead_one_are_closed() {
    let (first, stop) = backend("first", None);
    let (second, _) = backend("second", None);
    let balancer = balancer(vec![first, second]);
    let (name, mut held) = who(balancer);
    assert_eq!(name, "first");
    held.write_all(b"ping").unwrap();
    let mut buffer = [0u8; 4];
    held.read_exact(&mut buffer).unwrap();
    assert_eq!(&buffer, b"ping");

    // The listener goes; its open connection stays, as if its process hung: only the health check can know.
    end(first, &stop);
    assert_eq!(
        who(balancer).0,
        "second",
        "a refused connection goes to the next at once"
    );
    held.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    match held.read(&mut buffer) {
        Ok(read) => assert_eq!(read, 0, "the held connection is closed"),
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
    }

    let (_, _again) = backend("first", Some(first));
    wait_for("the return of the first", Duration::from_secs(60), || {
        who(balancer).0 == "first"
    });
}

#[test]
fn a_silent_backend_is_passed_over_and_its_connections_die_within_five_seconds() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = silent.local_addr().unwrap();
    let (second, _) = backend("second", None);
    let balancer = balancer(vec![address, second]);
    // The second names itself at once: a connection on which nothing comes leads to the silent one.
    let mut held = loop {
        let mut held = TcpStream::connect(balancer).unwrap();
        held.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        let mut name = [0u8; 16];
        if matches!(held.read(&mut name), Ok(read) if read > 0) {
            thread::sleep(Duration::from_millis(20));
        } else {
            break held;
        }
    };
    // A full accept queue drops further connection requests, as a machine without power does.
    rustix::net::listen(&silent, 0).unwrap();
    let mut fill = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        fill.push(stream);
        assert!(fill.len() < 100, "the accept queue does not fill");
    }
    let began = Instant::now();
    assert_eq!(who(balancer).0, "second");
    assert!(
        began.elapsed() < Duration::from_secs(50),
        "a new request took {:?}",
        began.elapsed()
    );
    held.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    assert_eq!(held.read(&mut [0u8; 4]).unwrap_or(9), 0, "closed, not timed out");
    assert!(
        began.elapsed() < Duration::from_secs(50),
        "the held connection took {:?}",
        began.elapsed()
    );
    // A try of the dead one takes a second; a busy machine may delay one request so long, but not each of ten.
    let quickest = (0..10).map(|_| {
        let again = Instant::now();
        assert_eq!(who(balancer).0, "second");
        again.elapsed()
    });
    assert!(
        quickest.min() < Some(Duration::from_millis(900)),
        "once known as dead it costs no time"
    );
}

#[test]
fn large_answers_arrive_whole_and_half_closed_connections_work() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let target = listener.local_addr().unwrap();
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            thread::spawn(move || {
                let mut bytes = Vec::new();
                if stream.read_to_end(&mut bytes).is_ok() {
                    let _ = stream.write_all(&bytes);
                }
            });
        }
    });
    let balancer = balancer(vec![target]);
    let sent: Vec<u8> = (0..8_000_000u32).map(|n| (n / 3) as u8).collect();
    let mut stream = TcpStream::connect(balancer).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let mut back = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            writer.write_all(&sent).unwrap();
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        stream.read_to_end(&mut back).unwrap();
    });
    assert!(back == sent);
}

/// An API server of which only readiness is real; says its name to whoever asks for anything else.
fn api_server(name: &'static str) -> (SocketAddr, Arc<AtomicU16>) {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let certificate = CertificateDer::from(include_bytes!("data/test-only-certificate.der").to_vec());
    let key = PrivateKeyDer::Pkcs8(include_bytes!("data/test-only-key.der").to_vec().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let status = Arc::new(AtomicU16::new(200));
    let ready = Arc::clone(&status);
    thread::spawn(move || {
        while let Ok((tcp, _)) = listener.accept() {
            let (config, ready) = (Arc::clone(&config), Arc::clone(&ready));
            thread::spawn(move || {
                let mut tls = rustls::StreamOwned::new(rustls::ServerConnection::new(config).unwrap(), tcp);
                let mut buffer = [0u8; 1024];
                while let Ok(read) = tls.read(&mut buffer) {
                    if read == 0 {
                        return;
                    }
                    let is_health = buffer[..read].starts_with(b"GET /readyz ");
                    let status = if is_health { ready.load(Ordering::SeqCst) } else { 299 };
                    let answer = format!("HTTP/1.1 {status} {name}\r\nContent-Length: 2\r\n\r\nok");
                    let _ = tls.write_all(answer.as_bytes());
                }
            });
        }
    });
    (address, status)
}

/// Asks through the balancer and returns the name of the server that answered.
fn served_by(balancer: SocketAddr) -> String {
    use rustls::client::danger::ServerCertVerifier;
    #[derive(Debug)]
    struct Any;
    impl ServerCertVerifier for Any {
        fn verify_server_cert(
            &self,
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &[rustls::pki_types::CertificateDer<'_>],
            _: &rustls::pki_types::ServerName<'_>,
            _: &[u8],
            _: rustls::pki_types::UnixTime,
        ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
            Ok(rustls::client::danger::ServerCertVerified::assertion())
        }
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
        }
        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &rustls::pki_types::CertificateDer<'_>,
            _: &rustls::DigitallySignedStruct,
        ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
            Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
        }
        fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
            rustls::crypto::ring::default_provider()
                .signature_verification_algorithms
                .supported_schemes()
        }
    }
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Any))
        .with_no_client_auth();
    let tcp = TcpStream::connect(balancer).unwrap();
    tcp.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let name = rustls::pki_types::ServerName::IpAddress(balancer.ip().into());
    let connection = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut tls = rustls::StreamOwned::new(connection, tcp);
    tls.write_all(b"GET /who HTTP/1.1\r\n\r\n").unwrap();
    let mut buffer = [0u8; 256];
    let read = tls.read(&mut buffer).unwrap();
    let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
    text.lines().next().unwrap().split(' ').nth(2).unwrap().to_owned()
}

#[test]
fn a_server_that_is_not_ready_is_passed_over_until_it_is() {
    let (first, first_status) = api_server("first");
    let (second, _) = api_server("second");
    first_status.store(500, Ordering::SeqCst);
    let balancer = balancer(vec![first, second]);
    wait_for("the choice of the ready one", Duration::from_secs(60), || {
        served_by(balancer) == "second"
    });
    first_status.store(403, Ordering::SeqCst);
    wait_for("the return of the first", Duration::from_secs(60), || {
        served_by(balancer) == "first"
    });
    let url = format!("https://{first}/readyz");
    assert_eq!(https_status(&url, Duration::from_secs(2)).unwrap(), 403);
}

/// Asks `https://ADDRESS/PATH` once.
fn https_status(url: &str, timeout: Duration) -> std::io::Result<u16> {
    let (address, path) = url.strip_prefix("https://").unwrap().split_once('/').unwrap();
    let mut endpoint = landfall_agent::https::Endpoint::new(address.parse().unwrap())?;
    endpoint.connect(timeout)?;
    endpoint.get(&format!("/{path}"))
}
