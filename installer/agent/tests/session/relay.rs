//! Blobs that agents take from each other, each on a loopback address of its own.

use crate::operator::{LONG, Operator, index, key, machine, offer, wait_for};
use landfall_core::event::EventKind;
use landfall_core::explain::{Code, Diagnosis};
use landfall_core::layout::RELAY_PORT;
use landfall_core::name::Digest;
use landfall_core::relay::{RelayListen, RelayListening, RelaySource};
use landfall_core::wire::mux::{Stream, read_json_line};
use landfall_core::wire::{Reply, Request};
use std::collections::BTreeMap;
use std::io::{BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

/// A chunk of a blob, in bytes.
const CHUNK: usize = 4 * 1024 * 1024;
const TOKEN: &str = "000102030405060708090a0b0c0d0e0f";

/// Three chunks, the last of them short.
fn blob() -> Vec<u8> {
    (0..u32::try_from(2 * CHUNK + 1000).unwrap())
        .map(|n| (n % 251) as u8)
        .collect()
}

/// A node with an agent that has checked the index of [`blob`].
struct Node {
    root: tempfile::TempDir,
    operator: Operator,
    address: IpAddr,
    blob: Vec<u8>,
}

impl Node {
    /// `number` is the last byte of its loopback address, which no other test may use.
    fn new(number: u8) -> Self {
        let (root, blob) = (machine(), blob());
        let operator = Operator::connect(root.path(), LONG);
        operator.begin("run-1");
        operator.trust(&index(&[&blob]), &key(1), &offer(&[&key(1)])).unwrap();
        Self {
            root,
            operator,
            address: Ipv4Addr::new(127, 0, 3, number).into(),
            blob,
        }
    }

    fn digest(&self) -> Digest {
        Digest::of(&self.blob)
    }

    fn file(&self, ending: &str) -> PathBuf {
        let name = format!("var/lib/landfall/blobs/{}{ending}", self.digest().hex());
        self.root.path().join(name)
    }

    fn put(&self, from_bytes: u64) -> Request {
        Request::PutBlob {
            digest: self.digest(),
            size_bytes: self.blob.len() as u64,
            from_bytes,
        }
    }

    /// Sends it all of its blob.
    fn fill(&self) {
        self.operator
            .ask_with::<()>(&self.put(0), &self.blob, &mut |_| {})
            .unwrap();
    }

    fn open(&self, request: &Request) -> Stream {
        self.operator.mux.open(&serde_json::to_vec(request).unwrap()).unwrap()
    }

    /// Opens its listener. It closes when the stream is dropped.
    fn listen(&self) -> (RelaySource, Stream) {
        let request = Request::RelayListen(RelayListen {
            address: self.address,
            token: TOKEN.to_owned(),
        });
        let stream = self.open(&request);
        let reply = read_json_line::<Reply>(&mut BufReader::new(stream.reader()))
            .unwrap()
            .unwrap();
        let Reply::Ok { value } = reply else {
            panic!("{reply:?}")
        };
        let RelayListening { key } = serde_json::from_value(value).unwrap();
        let source = RelaySource {
            node: "cp-1".parse().unwrap(),
            address: self.address,
            key,
            token: TOKEN.to_owned(),
        };
        (source, stream)
    }

    /// Takes the blob from another node; returns the progress that was told.
    fn fetch(&self, from_bytes: u64, source: &RelaySource) -> Result<Vec<u64>, Diagnosis> {
        let request = Request::FetchBlob {
            digest: self.digest(),
            size_bytes: self.blob.len() as u64,
            from_bytes,
            source: source.clone(),
        };
        let mut progress = vec![];
        let mut on_event = |event| {
            if let EventKind::PushProgress { bytes, .. } = event {
                progress.push(bytes);
            }
        };
        self.operator.ask_with::<()>(&request, &[], &mut on_event)?;
        Ok(progress)
    }

    /// How much of the blob it keeps from an earlier attempt.
    fn part(&self) -> u64 {
        let digests = [self.digest()].into();
        let parts: BTreeMap<Digest, u64> = self.operator.ask(&Request::PartialBlobs { digests }).unwrap();
        parts.get(&self.digest()).copied().unwrap_or(0)
    }

    fn is_open(&self) -> bool {
        let address = SocketAddr::from((self.address, RELAY_PORT));
        TcpStream::connect_timeout(&address, Duration::from_secs(5)).is_ok()
    }
}

fn cause(refused: &Diagnosis) -> String {
    refused.causes.join("; ")
}

#[test]
fn a_blob_is_taken_from_another_node_and_the_listener_closes_with_its_stream() {
    let (giver, taker) = (Node::new(1), Node::new(2));
    giver.fill();
    let (source, stream) = giver.listen();
    let progress = taker.fetch(0, &source).unwrap();
    let size = taker.blob.len() as u64;
    assert_eq!(progress.last(), Some(&size));
    assert!(progress.is_sorted() && progress.len() > 1, "{progress:?}");
    assert_eq!(std::fs::read(taker.file("")).unwrap(), taker.blob);
    assert!(giver.is_open());
    drop(stream);
    wait_for("closing the listener", || !giver.is_open());
    let again = giver.listen();
    assert_eq!(giver.operator.hang_up(), 0);
    let address = SocketAddr::from((again.0.address, RELAY_PORT));
    assert!(TcpStream::connect(address).is_err(), "nothing outlives the session");
}

#[test]
fn a_blob_is_passed_on_while_it_comes_down_a_chain() {
    let (first, second, third) = (Node::new(3), Node::new(4), Node::new(5));
    let (from_first, _first) = first.listen();
    let (from_second, _second) = second.listen();
    let mut stream = first.open(&first.put(0));
    stream.write_all(&first.blob[..CHUNK + 1000]).unwrap();
    wait_for("the first chunk", || {
        first.file(".part").metadata().is_ok_and(|m| m.len() > CHUNK as u64)
    });
    thread::scope(|scope| {
        let to_second = scope.spawn(|| second.fetch(0, &from_first));
        wait_for("the chunk at the second", || {
            second.file(".part").metadata().is_ok_and(|m| m.len() >= CHUNK as u64)
        });
        let to_third = scope.spawn(|| third.fetch(0, &from_second));
        wait_for("the chunk at the third", || {
            third.file(".part").metadata().is_ok_and(|m| m.len() >= CHUNK as u64)
        });
        // The second chunk is not whole, so nothing of it went on.
        assert_eq!(second.file(".part").metadata().unwrap().len(), CHUNK as u64);
        stream.write_all(&first.blob[CHUNK + 1000..]).unwrap();
        stream.finish().unwrap();
        to_second.join().unwrap().unwrap();
        to_third.join().unwrap().unwrap();
    });
    for node in [&first, &second, &third] {
        wait_for("the blob", || node.file("").is_file());
        assert_eq!(std::fs::read(node.file("")).unwrap(), node.blob);
    }
}

#[test]
fn a_blob_that_is_asked_for_before_it_comes_is_waited_for() {
    let (giver, taker) = (Node::new(18), Node::new(19));
    let (source, _listener) = giver.listen();
    thread::scope(|scope| {
        let fetch = scope.spawn(|| taker.fetch(0, &source));
        thread::sleep(Duration::from_millis(500));
        giver.fill();
        fetch.join().unwrap().unwrap();
    });
    assert_eq!(std::fs::read(taker.file("")).unwrap(), taker.blob);
}

#[test]
fn a_source_that_ends_leaves_the_chunks_that_came() {
    let (giver, taker) = (Node::new(6), Node::new(7));
    let (source, _listener) = giver.listen();
    let mut stream = giver.open(&giver.put(0));
    stream.write_all(&giver.blob[..CHUNK + 1000]).unwrap();
    thread::scope(|scope| {
        let fetch = scope.spawn(|| taker.fetch(0, &source));
        wait_for("the first chunk", || {
            taker.file(".part").metadata().is_ok_and(|m| m.len() >= CHUNK as u64)
        });
        // The operator's connection to the giver ends in the middle of the blob.
        drop(stream);
        let refused = fetch.join().unwrap().unwrap_err();
        assert_eq!(refused.code, Code::Unreachable, "{refused:?}");
        assert!(refused.what.contains("cp-1 (127.0.3.6:7444)"), "{refused:?}");
    });
    assert_eq!(taker.part(), CHUNK as u64);
    let other = Node::new(8);
    other.fill();
    let (source, _listener) = other.listen();
    let progress = taker.fetch(CHUNK as u64, &source).unwrap();
    assert_eq!(
        progress.last(),
        Some(&(CHUNK as u64 + 1000)),
        "the first chunk is not sent again"
    );
    assert_eq!(std::fs::read(taker.file("")).unwrap(), taker.blob);
}

#[test]
fn who_has_another_key_or_token_gives_and_gets_nothing() {
    let (giver, other, taker) = (Node::new(9), Node::new(10), Node::new(11));
    giver.fill();
    let (source, _listener) = giver.listen();
    let (stranger, _other) = other.listen();
    let wrong_key = RelaySource {
        key: stranger.key,
        ..source.clone()
    };
    let refused = taker.fetch(0, &wrong_key).unwrap_err();
    assert_eq!(refused.code, Code::Unreachable);
    assert!(
        cause(&refused).contains("another key than the operator says"),
        "{refused:?}"
    );
    let wrong_token = RelaySource {
        token: TOKEN.replace('0', "f"),
        ..source.clone()
    };
    assert_eq!(taker.fetch(0, &wrong_token).unwrap_err().code, Code::Unreachable);
    assert!(!taker.file("").exists() && !taker.file(".part").exists());
    taker.fetch(0, &source).unwrap();
}

#[test]
fn damage_at_the_source_is_refused_chunk_by_chunk() {
    let (giver, taker) = (Node::new(12), Node::new(13));
    giver.fill();
    let mut damaged = giver.blob.clone();
    damaged[CHUNK + 7] ^= 1;
    std::fs::write(giver.file(""), damaged).unwrap();
    let (source, _listener) = giver.listen();
    let refused = taker.fetch(0, &source).unwrap_err();
    assert_eq!(refused.code, Code::Unreachable);
    assert!(cause(&refused).contains("bytes 4194304 to 8388608"), "{refused:?}");
    assert_eq!(taker.part(), CHUNK as u64);
    // What is damaged in the taker's own store is not the source's fault.
    std::fs::write(giver.file(""), &giver.blob).unwrap();
    let mut part = std::fs::read(taker.file(".part")).unwrap();
    part[3] ^= 1;
    std::fs::write(taker.file(".part"), part).unwrap();
    assert_eq!(taker.fetch(CHUNK as u64, &source).unwrap_err().code, Code::BundleDigest);
    let mut part = giver.blob[..CHUNK + 900].to_vec();
    part[CHUNK + 3] ^= 1;
    std::fs::write(taker.file(".part"), part).unwrap();
    let refused = taker.fetch(taker.part(), &source).unwrap_err();
    assert_eq!(
        refused.code,
        Code::BundleDigest,
        "one part of the chunk was there before"
    );
    assert_eq!(taker.part(), CHUNK as u64);
    taker.fetch(taker.part(), &source).unwrap();
    assert_eq!(std::fs::read(taker.file("")).unwrap(), taker.blob);
}

#[test]
fn a_source_without_the_blob_and_one_that_says_nothing_are_named() {
    let (giver, taker) = (Node::new(14), Node::new(15));
    let (source, listener) = giver.listen();
    // What came of a blob before a connection ended, and is not coming now, is not passed on.
    std::fs::create_dir_all(giver.file("").parent().unwrap()).unwrap();
    std::fs::write(giver.file(".part"), &giver.blob).unwrap();
    let refused = taker.fetch(0, &source).unwrap_err();
    assert_eq!(refused.code, Code::Unreachable, "{refused:?}");
    assert!(cause(&refused).contains("it has nothing of it"), "{refused:?}");
    drop(listener);
    wait_for("closing the listener", || !giver.is_open());
    let refused = taker.fetch(0, &source).unwrap_err();
    assert!(cause(&refused).contains("refused"), "{refused:?}");
    // Somebody takes connections there, and says nothing.
    let silent = TcpListener::bind((giver.address, RELAY_PORT)).unwrap();
    let refused = taker.fetch(0, &source).unwrap_err();
    assert_eq!(refused.code, Code::Unreachable, "{refused:?}");
    drop(silent);
}

#[test]
fn strangers_cannot_keep_a_listener_from_its_peers() {
    let (giver, taker) = (Node::new(16), Node::new(17));
    giver.fill();
    let (source, _listener) = giver.listen();
    let address = SocketAddr::from((giver.address, RELAY_PORT));
    let mut strangers: Vec<TcpStream> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
    for stranger in &mut strangers {
        stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    }
    taker.fetch(0, &source).unwrap();
    for mut stranger in strangers {
        stranger.set_read_timeout(Some(LONG)).unwrap();
        let mut said = Vec::new();
        // A reset is as good an end as a close.
        let _ = stranger.read_to_end(&mut said);
        assert!(said.len() < 100, "no more than an alert of TLS: {said:?}");
    }
}
