//! The resolver against a server of our own.

use super::*;
use landfall_ingress_translate::options::Options;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::TcpListener;

/// A server that has these IPv4 addresses for every name, and counts what it is asked for.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) questions: Arc<AtomicUsize>,
    pub(crate) has: Arc<Mutex<Vec<Ipv4Addr>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Starts one whose answers last `seconds`; over UDP they do not fit when they are `large`.
pub(crate) async fn server(addresses: &[Ipv4Addr], seconds: u32, large: bool) -> Server {
    // One port for both, which another test may have for TCP.
    let (udp, tcp, address) = loop {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = udp.local_addr().unwrap();
        if let Ok(tcp) = TcpListener::bind(address).await {
            break (udp, tcp, address);
        }
    };
    let questions = Arc::new(AtomicUsize::new(0));
    let has = Arc::new(Mutex::new(addresses.to_vec()));
    let answer = {
        let (questions, has) = (Arc::clone(&questions), Arc::clone(&has));
        move |question: &[u8], fits: bool| {
            questions.fetch_add(1, Ordering::SeqCst);
            let has = has.lock().unwrap().clone();
            let mut bytes = question.to_vec();
            let is_a = question[question.len() - 3] == 1;
            let flags: u16 = if fits { 0x8180 } else { 0x8380 };
            bytes[2..4].copy_from_slice(&flags.to_be_bytes());
            for address in has.iter().filter(|_| is_a && fits) {
                bytes[7] += 1;
                bytes.extend([0xc0, 12, 0, 1, 0, 1]);
                bytes.extend(seconds.to_be_bytes());
                bytes.extend([0, 4]);
                bytes.extend(address.octets());
            }
            bytes
        }
    };
    let task = tokio::spawn(async move {
        let mut bytes = [0; 512];
        loop {
            tokio::select! {
                Ok((length, from)) = udp.recv_from(&mut bytes) => {
                    let _ = udp.send_to(&answer(&bytes[..length], !large), from).await;
                }
                Ok((mut stream, _)) = tcp.accept() => {
                    let length = stream.read_u16().await.unwrap();
                    let mut question = vec![0; length.into()];
                    stream.read_exact(&mut question).await.unwrap();
                    let answer = answer(&question, true);
                    stream.write_u16(u16::try_from(answer.len()).unwrap()).await.unwrap();
                    stream.write_all(&answer).await.unwrap();
                }
            }
        }
    });
    Server {
        address,
        questions,
        has,
        task,
    }
}

fn admits() -> Admits {
    let options = Options {
        cluster: vec![landfall_ingress_http::network::Network::parse("10.244.0.0/16").unwrap()],
        api_server: vec!["192.0.2.99".parse().unwrap()],
        ..Options::default()
    };
    Box::new(move |address| options.admits(address).is_ok())
}

fn texts(addresses: &[IpAddr]) -> Vec<String> {
    addresses.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn addresses_are_learnt_once_for_as_long_as_they_are_good() {
    for large in [false, true] {
        let server = server(&[[192, 0, 2, 1].into(), [192, 0, 2, 2].into()], 60, large).await;
        let resolver = Resolver::new(server.address, admits());
        for _ in 0..3 {
            assert_eq!(
                texts(&resolver.addresses("auth.example.com").await),
                ["192.0.2.1", "192.0.2.2"]
            );
        }
        // One question for each family, and the same over TCP.
        assert_eq!(server.questions.load(Ordering::SeqCst), if large { 4 } else { 2 });
    }
}

#[tokio::test]
async fn addresses_that_an_annotation_may_not_name_are_no_answer() {
    let refused = [
        [127, 0, 0, 1],
        [169, 254, 169, 254],
        [10, 244, 3, 4],
        [0, 0, 0, 0],
        [192, 0, 2, 99],
        [224, 0, 0, 1],
    ];
    let server = server(&refused.map(Ipv4Addr::from), 60, false).await;
    let resolver = Resolver::new(server.address, admits());
    assert!(resolver.addresses("rebind.example.com").await.is_empty());
    server.has.lock().unwrap().push([192, 0, 2, 1].into());
    assert_eq!(texts(&resolver.addresses("mixed.example.com").await), ["192.0.2.1"]);
}

#[tokio::test]
async fn what_was_learnt_is_used_a_while_longer_when_the_server_is_away() {
    let server = server(&[[192, 0, 2, 1].into()], 0, false).await;
    let resolver = Resolver::new(server.address, admits());
    assert_eq!(texts(&resolver.addresses("auth.example.com").await), ["192.0.2.1"]);
    drop(server);
    tokio::time::sleep(SHORTEST).await;
    assert_eq!(texts(&resolver.addresses("auth.example.com").await), ["192.0.2.1"]);
    assert!(resolver.addresses("other.example.com").await.is_empty());
}
