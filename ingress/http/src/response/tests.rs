use super::*;

/// The head of an answer to a GET.
fn read(text: &str) -> Result<Head, Malformed> {
    answer_to(Method::GET, text)
}

fn answer_to(method: Method, text: &str) -> Result<Head, Malformed> {
    let mut buffer = BytesMut::from(text);
    match parse(&mut buffer, &method, 64 * 1024)?.expect("the head is whole") {
        Parsed::Final(head) => Ok(head),
        Parsed::Interim(parts) => panic!("{parts:?} is not final"),
    }
}

#[test]
fn the_end_of_an_answer_is_found_in_one_way_only() {
    let table = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", Framing::Length(3), true),
        ("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", Framing::Length(0), true),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n",
            Framing::Length(3),
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n",
            Framing::Chunked,
            true,
        ),
        (
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\n",
            Framing::Length(3),
            false,
        ),
        (
            "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 3\r\n\r\n",
            Framing::Length(3),
            false,
        ),
        ("HTTP/1.1 200 OK\r\n\r\n", Framing::UntilClose, false),
        (
            "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n",
            Framing::Length(3),
            false,
        ),
        (
            "HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 3\r\n\r\n",
            Framing::Length(3),
            true,
        ),
        (
            "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n\r\n",
            Framing::UntilClose,
            false,
        ),
        (
            "HTTP/1.1 204 No Content\r\nContent-Length: 3\r\n\r\n",
            Framing::None,
            true,
        ),
        (
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n",
            Framing::None,
            true,
        ),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            Framing::UntilClose,
            false,
        ),
    ];
    for (text, framing, keep_alive) in table {
        let head = read(text).unwrap_or_else(|_| panic!("{text:?} is refused"));
        assert_eq!((head.framing, head.keep_alive), (framing, keep_alive), "{text:?}");
    }
    let head = answer_to(Method::HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n").unwrap();
    assert_eq!((head.framing, head.keep_alive), (Framing::None, true));
}

#[test]
fn an_answer_that_can_be_read_in_two_ways_is_refused() {
    let fields = [
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Content-Length: 3\r\nContent-Length: 4",
        "Content-Length: +3",
        "Content-Length: 3, 3",
        "Content-Length: ",
        "Content-Length: 0x3",
        "Content-Length: 99999999999999999999",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Content-Length : 3\r\nContent-Length: 4",
        "A\r\n : b",
        " A: b",
        "A b: c",
        "A: b\r\n c",
        "A\0: b",
        "A: \0",
    ];
    for field in fields {
        let text = format!("HTTP/1.1 200 OK\r\n{field}\r\n\r\n");
        assert!(read(&text).is_err(), "{field:?}");
    }
    for text in [
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/2 200 OK\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "SSH-2.0-x\r\n\r\n",
    ] {
        assert!(read(text).is_err(), "{text:?}");
    }
}

/// RFC 9112, 5.1: a proxy takes blanks before a colon of an answer away.
#[test]
fn blanks_before_a_colon_are_no_part_of_a_name() {
    let head = read("HTTP/1.1 200 OK\r\nA : b\r\nContent-Length \t: 3\r\n\r\n").unwrap();
    assert_eq!(
        (head.parts.headers["a"].as_bytes(), head.framing),
        (&b"b"[..], Framing::Length(3))
    );
}

#[test]
fn a_head_is_taken_when_it_is_whole_and_not_too_large() {
    let text = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
    let mut buffer = BytesMut::new();
    for (at, byte) in text.iter().enumerate() {
        buffer.extend_from_slice(&[*byte]);
        let head = parse(&mut buffer, &Method::GET, 100).unwrap();
        let whole = at == text.len() - 3;
        assert_eq!(head.is_some(), whole, "{at}");
        if whole {
            buffer.extend_from_slice(b"hi");
            break;
        }
    }
    assert_eq!(&buffer[..], b"hi");
    let mut large = BytesMut::from(&b"HTTP/1.1 200 OK\r\nA: "[..]);
    large.extend_from_slice(&[b'a'; 100]);
    assert_eq!(parse(&mut large, &Method::GET, 100).err(), Some(Malformed));
}

#[test]
fn interim_answers_come_one_by_one_before_the_final_one() {
    let link: &[(&str, &str)] = &[("link", "a"), ("link", "b")];
    let interim = [
        ("HTTP/1.1 100 Continue\r\n\r\n", 100, &[][..]),
        ("HTTP/1.1 103 Early Hints\r\nLink: a\r\nlink: b\r\n\r\n", 103, link),
        ("HTTP/1.0 102\r\nA:\r\n\r\n", 102, &[("a", "")]),
        // It has no body, whatever it says.
        (
            "HTTP/1.1 199 X\r\nContent-Length: 5\r\n\r\n",
            199,
            &[("content-length", "5")],
        ),
    ];
    let text: String = interim.iter().map(|(text, ..)| *text).collect();
    let end = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi";
    let mut buffer = BytesMut::from(format!("{text}{end}").as_bytes());
    for (text, status, fields) in interim {
        let parsed = parse(&mut buffer, &Method::GET, 64 * 1024).unwrap();
        let Some(Parsed::Interim(parts)) = parsed else {
            panic!("{text:?}: {parsed:?}");
        };
        let found = parts.headers.iter();
        let found: Vec<_> = found
            .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
            .collect();
        assert_eq!((parts.status.as_u16(), &found[..]), (status, fields), "{text:?}");
    }
    assert_eq!(&buffer[..], end.as_bytes());
    let last = parse(&mut buffer, &Method::GET, 64 * 1024);
    assert!(matches!(last, Ok(Some(Parsed::Final(_)))), "{last:?}");
    assert_eq!(&buffer[..], b"hi");
    for text in [
        format!("HTTP/1.1 103 Early Hints\r\nA: {}\r\n\r\n{end}", "a".repeat(100)),
        format!("HTTP/1.1 103 Early Hints\r\nA\r\n\r\n{end}"),
    ] {
        let mut buffer = BytesMut::from(text.as_bytes());
        assert_eq!(parse(&mut buffer, &Method::GET, 100).err(), Some(Malformed), "{text:?}");
    }
}

#[test]
fn a_request_says_the_length_that_its_body_has() {
    let write = |fields: &[(&'static str, &'static str)], sending| {
        let mut request = http::Request::post("/a?b");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let mut out = Vec::new();
        super::write(&mut out, &parts, sending);
        String::from_utf8(out).unwrap()
    };
    let first = "POST /a?b HTTP/1.1\r\n";
    let length = ("content-length", "5");
    assert_eq!(
        write(&[("host", "h"), length], Sending::Length(7)),
        format!("{first}host: h\r\ncontent-length: 7\r\n\r\n")
    );
    assert_eq!(
        write(&[length], Sending::Chunked),
        format!("{first}transfer-encoding: chunked\r\n\r\n")
    );
    assert_eq!(
        write(&[("transfer-encoding", "chunked")], Sending::Nothing),
        format!("{first}\r\n")
    );
    assert_eq!(
        write(&[("content-length", "0")], Sending::Nothing),
        format!("{first}content-length: 0\r\n\r\n")
    );
}

#[test]
fn an_answer_may_have_many_fields_within_its_bytes() {
    let with = |count: usize| {
        let fields: String = (0..count).map(|n| format!("Set-Cookie: c{n}=1\r\n")).collect();
        read(&format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n"))
    };
    let head = with(500).unwrap();
    assert_eq!(head.parts.headers.get_all("set-cookie").iter().count(), 500);
    assert!(with(1000).is_err(), "one field more than there may be");
}
