use super::*;

const BOUNDS: Bounds = Bounds {
    bytes: 64 * 1024,
    target_bytes: 16 * 1024,
    fields: 100,
};

fn read(text: &[u8]) -> Result<Option<Head>, Refused> {
    parse(&mut BytesMut::from(text), &BOUNDS)
}

#[test]
fn a_head_is_taken_and_the_rest_stays() {
    let mut buffer =
        BytesMut::from(&b"\r\nPOST /a?b HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nX: \xe4\r\n\r\nabc"[..]);
    let head = parse(&mut buffer, &BOUNDS).unwrap().unwrap();
    assert_eq!(
        (head.parts.method, head.parts.uri.to_string()),
        (Method::POST, "/a?b".to_owned())
    );
    assert_eq!((head.framing, head.keep_alive), (Framing::Length(3), true));
    assert_eq!(head.parts.headers["x"].as_bytes(), b"\xe4");
    assert_eq!(buffer, b"abc"[..]);
    let text = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    for end in 0..text.len() {
        assert!(read(&text[..end]).unwrap().is_none(), "{end}");
    }
}

#[test]
fn ambiguous_heads_are_refused() {
    let texts: [&[u8]; 37] = [
        b"GET / HTTP/1.1\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\n\n",
        b"GET / HTTP/1.1\r\nHost: h\rX: y\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nA: b\r\n\tc\r\n\r\n",
        b"GET / HTTP/1.1\r\n Host: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost\t: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost h\r\n\r\n",
        b"GET / HTTP/1.1\r\n: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\0\r\n\r\n",
        b"GET / HTTP/1.1\r\nHo\0st: h\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nA: \x01\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: h\r\nA: \x7f\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.1 \r\nHost: h\r\n\r\n",
        b"GET / HTTP/1.2\r\nHost: h\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: h\r\n\r\n",
        b"GET /\r\n\r\n",
        b"G@T / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1, 1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: +1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0x1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: \r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding:\r\n\r\n",
        b"POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
    ];
    for text in texts {
        let refusal = read(text).map(|head| head.map(|h| h.parts));
        assert!(
            matches!(refusal, Err(Refused::Framing)),
            "{:?}: {refusal:?}",
            String::from_utf8_lossy(text)
        );
    }
    assert_eq!(
        read(b"GET /#a HTTP/1.1\r\nHost: h\r\n\r\n").err(),
        Some(Refused::Target)
    );
}

#[test]
fn what_clients_send_as_it_is_and_no_uri_may_hold_is_encoded() {
    for (target, wanted) in [
        (
            &b"/api/v1/query?query=up{job=\"a\"}>0"[..],
            "/api/v1/query?query=up{job=%22a%22}%3E0",
        ),
        (b"/<a>`?b=<c>", "/%3Ca%3E%60?b=%3Cc%3E"),
        (b"/a?b=\xc3\xa4", "/a?b=\u{e4}"),
    ] {
        let head = read(&[b"GET ", target, b" HTTP/1.1\r\nHost: h\r\n\r\n"].concat());
        assert_eq!(head.unwrap().unwrap().parts.uri, wanted);
    }
    for target in ["/a\x7fb", "/a?\x7f"] {
        let text = format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n");
        assert!(read(text.as_bytes()).is_err(), "{target:?}");
    }
}

#[test]
fn sizes_are_bounded() {
    let with = |target: usize, field: usize, fields: usize| {
        let many = "A: b\r\n".repeat(fields);
        format!(
            "GET /{} HTTP/1.1\r\nHost: h\r\nX: {}\r\n{many}\r\n",
            "a".repeat(target),
            "b".repeat(field)
        )
    };
    assert!(read(with(100, 100, 98).as_bytes()).unwrap().is_some());
    assert_eq!(
        read(with(BOUNDS.target_bytes, 1, 0).as_bytes()).err(),
        Some(Refused::LongTarget)
    );
    assert_eq!(read(with(1, BOUNDS.bytes, 0).as_bytes()).err(), Some(Refused::Large));
    assert_eq!(read(with(1, 1, 99).as_bytes()).err(), Some(Refused::Large));
    assert_eq!(read(with(1, 1, 300).as_bytes()).err(), Some(Refused::Large));
    let endless = "GET /".to_owned() + &"a".repeat(BOUNDS.target_bytes);
    assert_eq!(read(endless.as_bytes()).err(), Some(Refused::LongTarget));
    let endless = "GET / HTTP/1.1\r\nX: ".to_owned() + &"a".repeat(BOUNDS.bytes);
    assert_eq!(read(endless.as_bytes()).err(), Some(Refused::Large));
}

#[test]
fn versions_and_connection_decide_about_the_next_request() {
    for (text, keep_alive) in [
        ("GET / HTTP/1.1\r\n\r\n", true),
        ("GET / HTTP/1.1\r\nConnection: x, Close\r\n\r\n", false),
        ("GET / HTTP/1.0\r\n\r\n", false),
        ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", true),
        ("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", false),
    ] {
        assert_eq!(
            read(text.as_bytes()).unwrap().unwrap().keep_alive,
            keep_alive,
            "{text:?}"
        );
    }
}
