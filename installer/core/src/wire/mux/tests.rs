use super::*;
use std::os::unix::net::UnixStream;
use std::thread;

fn pair() -> (Arc<Mux>, Arc<Mux>) {
    let (left, right) = UnixStream::pair().unwrap();
    let make = |end: UnixStream| {
        let mux = Mux::new(Box::new(end.try_clone().unwrap()));
        let pump = Arc::clone(&mux);
        thread::spawn(move || pump.pump(end));
        mux
    };
    (make(left), make(right))
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
    let mux = Mux::new(Box::new(left.try_clone().unwrap()));
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
    for frame in [
        &[9u8, 0, 0, 0, 1, 0, 0, 0, 0][..],
        &[1, 0, 0, 0, 1, 255, 255, 255, 255],
        &[3, 0, 0, 0, 1, 0, 0, 0, 1, 7],
    ] {
        let mux = Mux::new(Box::new(io::sink()));
        assert!(mux.pump(frame).is_err());
        assert!(mux.accept().is_none());
    }
}

#[test]
fn pings_are_answered() {
    let (operator, _agent) = pair();
    operator.ping().unwrap();
    while operator.frames_received() == 0 {
        thread::yield_now();
    }
}
