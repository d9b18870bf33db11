use super::*;
use std::os::unix::net::UnixStream;
use std::thread;

fn agent() -> Role {
    Role::Agent(Box::new(|| "fstat on /mnt, for 7 s".to_owned()))
}

fn pair() -> (Arc<Mux>, Arc<Mux>) {
    let (left, right) = UnixStream::pair().unwrap();
    let make = |role, end: UnixStream| {
        let mux = Mux::new(role, Box::new(end.try_clone().unwrap()));
        let pump = Arc::clone(&mux);
        thread::spawn(move || pump.pump(end));
        mux
    };
    (make(Role::Operator, left), make(agent(), right))
}

#[test]
fn bytes_go_both_ways_at_once_without_deadlock() {
    let (operator, agent) = pair();
    let server = thread::spawn(move || {
        let (header, mut stream) = agent.accept().unwrap();
        assert_eq!(header, b"echo");
        let mut reader = stream.reader();
        io::copy(&mut reader, &mut stream).unwrap();
        stream.finish().unwrap();
        agent
    });
    let mut stream = operator.open(b"echo").unwrap();
    let mut reader = stream.reader();
    let data: Vec<u8> = (0..5 * WINDOW).map(|i| (i % 251) as u8).collect();
    let expected = data.clone();
    let collect = thread::spawn(move || {
        let mut all = Vec::new();
        reader.read_to_end(&mut all).unwrap();
        all
    });
    stream.write_all(&data).unwrap();
    stream.finish().unwrap();
    assert!(collect.join().unwrap() == expected);
    server.join().unwrap();
}

#[test]
fn a_stream_nobody_reads_does_not_hold_up_another() {
    let (operator, agent) = pair();
    let mut stuck = operator.open(b"stuck").unwrap();
    let filler = thread::spawn(move || {
        let result = stuck.write_all(&vec![0; 3 * WINDOW]);
        (stuck, result)
    });
    let (_, stuck_far) = agent.accept().unwrap();
    let mut live = operator.open(b"live").unwrap();
    let (_, mut live_far) = agent.accept().unwrap();
    live.write_all(b"hello").unwrap();
    live.finish().unwrap();
    let mut text = String::new();
    live_far.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello");
    drop(stuck_far);
    let (_stuck, result) = filler.join().unwrap();
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn a_cut_channel_wakes_readers_and_writers() {
    let (left, right) = UnixStream::pair().unwrap();
    let mux = Mux::new(Role::Operator, Box::new(left.try_clone().unwrap()));
    let pump = Arc::clone(&mux);
    thread::spawn(move || pump.pump(left));
    let mut stream = mux.open(b"x").unwrap();
    let waiting = thread::spawn(move || stream.read(&mut [0; 1]).unwrap_err().kind());
    drop(right);
    assert_eq!(waiting.join().unwrap(), io::ErrorKind::BrokenPipe);
    assert!(mux.closed().is_some());
    assert!(mux.open(b"y").is_err());
}

#[test]
fn a_peer_that_breaks_the_rules_ends_the_channel_without_panic() {
    let large = [&[DATA, 0, 0, 0, 1][..], &(MAX_PAYLOAD as u32 + 1).to_be_bytes()].concat();
    for (who, role, frame) in [
        ("unknown kind", agent(), &[9u8, 0, 0, 0, 1, 0, 0, 0, 0][..]),
        ("endless request", agent(), &[OPEN, 0, 0, 0, 1, 255, 255, 255, 255]),
        ("large credit", agent(), &[CREDIT, 0, 0, 0, 1, 0, 0, 0, 5]),
        ("short credit", agent(), &[CREDIT, 0, 0, 0, 1, 0, 0, 0, 1, 7]),
        ("large data", agent(), &large),
        ("large fin", agent(), &[FIN, 0, 0, 0, 1, 0, 0, 0, 1, 0]),
        ("agent opens", Role::Operator, &[OPEN, 0, 0, 0, 1, 0, 0, 0, 1, b'x']),
        ("agent pings", Role::Operator, &[PING, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("operator pongs", agent(), &[PONG, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("large reset", Role::Operator, &[RESET, 0, 0, 0, 1, 0, 0, 16, 1]),
    ] {
        let mux = Mux::new(role, Box::new(io::sink()));
        assert_eq!(mux.pump(frame).unwrap_err().kind(), io::ErrorKind::InvalidData, "{who}");
        assert!(mux.accept().is_none(), "{who}");
    }
}

#[test]
fn streams_beyond_the_limit_are_refused_and_the_others_live_on() {
    let (operator, agent) = pair();
    let streams: Vec<_> = (0..MAX_STREAMS).map(|_| operator.open(b"x").unwrap()).collect();
    let mut more = operator.open(b"x").unwrap();
    assert_eq!(
        more.read(&mut [0; 1]).unwrap_err().kind(),
        io::ErrorKind::ConnectionReset
    );
    let (_, mut first) = agent.accept().unwrap();
    first.write_all(b"hello").unwrap();
    let mut text = [0; 5];
    streams[0].reader().read_exact(&mut text).unwrap();
    assert_eq!(&text, b"hello");
}

#[test]
fn a_line_without_end_is_an_error() {
    struct Endless;
    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            buffer.fill(b'1');
            Ok(buffer.len())
        }
    }
    let mut reader = io::BufReader::with_capacity(1024 * 1024, Endless);
    let error = read_json_line::<serde_json::Value>(&mut reader).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

#[test]
fn reads_and_writes_end_at_the_deadline() {
    let (operator, _agent) = pair();
    let mut stream = operator.open(b"silent").unwrap();
    stream.set_limit(Limit::At(Instant::now() + Duration::from_millis(50)));
    assert_eq!(
        stream.reader().read(&mut [0; 1]).unwrap_err().kind(),
        io::ErrorKind::TimedOut
    );
    let error = stream.write_all(&vec![0; 2 * WINDOW]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

/// A peer that takes a window a quarter at a time, each after a pause, is waited for much longer than it may be silent; one that stands still is not.
#[test]
fn a_stream_that_moves_has_no_deadline_and_one_that_stands_still_ends() {
    const SILENCE: Duration = Duration::from_millis(1500);
    const PAUSE: Duration = Duration::from_millis(300);
    let (operator, agent) = pair();
    let mut stream = operator.open(b"slow").unwrap();
    stream.set_limit(Limit::Silence(SILENCE));
    let (_, mut taking) = agent.accept().unwrap();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let taker = thread::spawn(move || {
        let mut quarter = vec![0; WINDOW / 4];
        for _ in 0..12 {
            thread::sleep(PAUSE);
            taking.read_exact(&mut quarter).unwrap();
        }
        // It stays open, and is read no more.
        let _ = stopped.recv();
    });
    let began = Instant::now();
    stream.write_all(&vec![0; 3 * WINDOW]).unwrap();
    let took = began.elapsed();
    assert!(took > SILENCE, "the transfer is slow: {took:?}");
    let error = stream.write_all(&vec![0; 2 * WINDOW]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    let error = stream.reader().read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    drop(stop);
    taker.join().unwrap();
}

#[test]
fn pings_are_answered() {
    let (operator, _agent) = pair();
    operator.ping().unwrap();
    while operator.frames_received() == 0 {
        thread::yield_now();
    }
    assert_eq!(operator.peer_works_on(), "fstat on /mnt, for 7 s");
}

mod frames {
    use super::*;
    use proptest::prelude::*;

    /// Kind, stream, payload, and what its length says beyond the truth.
    fn frame() -> impl Strategy<Value = (u8, u32, Vec<u8>, u32)> {
        let payload = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..6),
            (0..MAX_PAYLOAD + 2).prop_map(|length| vec![7; length]),
            Just(u32::MAX.to_be_bytes().to_vec()),
        ];
        let beyond = prop_oneof![9 => Just(0), 1 => any::<u32>()];
        (0..9u8, prop_oneof![0..4u32, any::<u32>()], payload, beyond)
    }

    proptest! {
        #[test]
        fn no_frames_break_a_channel_or_fill_its_memory(
            frames in prop::collection::vec(frame(), 0..60),
            tail in prop::collection::vec(any::<u8>(), 0..20),
            is_agent in any::<bool>(),
        ) {
            let mut bytes = Vec::new();
            for (kind, stream, payload, beyond) in frames {
                bytes.push(kind);
                bytes.extend(stream.to_be_bytes());
                bytes.extend((payload.len() as u32).wrapping_add(beyond).to_be_bytes());
                bytes.extend(payload);
            }
            bytes.extend(tail);
            let mux = Mux::new(if is_agent { agent() } else { Role::Operator }, Box::new(io::sink()));
            let own = if is_agent { None } else { mux.open(b"request").ok() };
            // Whether it ends with an error depends on the bytes; that it ends, and the bounds below, must not.
            let _ = mux.pump(bytes.as_slice());
            let state = mux.lock();
            prop_assert!(state.streams.len() <= MAX_STREAMS);
            prop_assert!(state.streams.values().all(|half| half.inbox.len() <= WINDOW));
            prop_assert!(is_agent || state.opened.is_empty(), "a node opens no streams here");
            prop_assert!(state.closed.is_some());
            drop(state);
            drop(own);
        }
    }
}
