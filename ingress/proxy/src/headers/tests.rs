use super::*;
use landfall_ingress_http::protocol::Protocol;

fn client(address: &str, trusted: bool) -> Client {
    Client {
        trusted,
        ..Client::new(address.parse().unwrap(), 80)
    }
}

fn sent_by(client: &Client, version: Version, fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut request = Request::new(());
    *request.version_mut() = version;
    *request.uri_mut() = "/p?q=%2F".parse().unwrap();
    for (name, value) in fields {
        request.headers_mut().append(*name, HeaderValue::from_static(value));
    }
    let trusted = [Network::parse("10.0.0.0/8").unwrap()];
    let origin = origin(request.headers(), client, &trusted).unwrap_or_else(|| client.clone());
    landfall_ingress_http::claims::strip(request.headers_mut(), client.trusted, []);
    fields::settle(&mut request, || HeaderValue::from_static("made")).unwrap();
    let request = outgoing(request, client, &origin, 0).unwrap();
    assert_eq!(request.uri(), "/p?q=%2F");
    request.headers().clone()
}

fn sent(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    sent_by(&client("[::ffff:10.0.0.9]:50000", false), Version::HTTP_11, fields)
}

#[test]
fn s24_what_the_client_claims_is_replaced() {
    let headers = sent(&[
        ("host", "h:80"),
        ("x-forwarded-for", "1.1.1.1"),
        ("x-forwarded-for", "2.2.2.2"),
        ("x-forwarded-host", "evil"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-port", "443"),
        ("forwarded", "for=1.1.1.1"),
        ("x-real-ip", "1.1.1.1"),
        ("x-forwarded-user", "admin"),
        ("x-forwarded-scheme", "https"),
        ("x-scheme", "https"),
        ("front-end-https", "on"),
        ("proxy", "http://evil:8080"),
        ("x.forwarded.user", "admin"),
        ("x_forwarded_for", "1.1.1.1"),
        ("x_forwarded-proto", "https"),
        ("any_thing", "1"),
    ]);
    let all: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
    assert_eq!(all, ["10.0.0.9"]);
    assert_eq!(headers["x-forwarded-host"], "h:80");
    assert_eq!(headers["x-forwarded-proto"], "http");
    assert_eq!(headers["x-forwarded-port"], "80");
    assert_eq!(headers["x-real-ip"], "10.0.0.9");
    for gone in [
        "forwarded",
        "x-forwarded-user",
        "front-end-https",
        "proxy",
        "x.forwarded.user",
    ] {
        assert!(!headers.contains_key(gone), "{gone}");
    }
    assert!(headers["x-scheme"] == "http" && headers["x-forwarded-scheme"] == "http");
    assert!(headers.keys().all(|name| !name.as_str().contains('_')));
}

#[test]
fn s24_trusted_peers_are_believed_and_added_to() {
    let peer = client("10.0.0.9:50000", true);
    let headers = sent_by(
        &peer,
        Version::HTTP_11,
        &[
            ("host", "h"),
            ("x-forwarded-for", "6.6.6.6, 1.1.1.1"),
            ("x-forwarded-for", "10.0.0.8"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "outside"),
            ("x_forwarded_for", "6.6.6.6"),
        ],
    );
    let all: Vec<_> = headers.get_all("x-forwarded-for").iter().collect();
    assert_eq!(all, ["6.6.6.6, 1.1.1.1, 10.0.0.8, 10.0.0.9"]);
    // 6.6.6.6 is what the client itself wrote.
    assert_eq!(headers["x-real-ip"], "1.1.1.1");
    assert_eq!(headers["x-forwarded-proto"], "https");
    assert_eq!(headers["x-forwarded-host"], "outside");
    assert!(!headers.contains_key("x_forwarded_for"));
    // The front says no port: it is the usual one of the scheme that it says.
    assert_eq!(headers["x-forwarded-port"], "443");
    for (fields, wanted) in [
        (&[("host", "h")][..], "80"),
        (&[("host", "h"), ("x-forwarded-for", "1.1.1.1")], "80"),
        (&[("host", "h"), ("x-forwarded-proto", "https")], "443"),
        (&[("host", "h"), ("x-forwarded-proto", "http")], "80"),
        (
            &[
                ("host", "h"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-port", "8443"),
            ],
            "8443",
        ),
    ] {
        assert_eq!(
            sent_by(&peer, Version::HTTP_11, fields)["x-forwarded-port"],
            wanted,
            "{fields:?}"
        );
        let origin = |headers: &HeaderMap| origin(headers, &peer, &[Network::parse("10.0.0.0/8").unwrap()]);
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        let told = origin(&headers).map_or(peer.port, |origin| origin.port);
        assert_eq!(told.to_string(), wanted, "{fields:?} for authentication services");
    }
    // Of a list, the entry of the hop that is believed: the one before it is what the client itself wrote.
    let lists = [
        ("host", "h"),
        ("x-forwarded-for", "6.6.6.6, 1.1.1.1, 10.0.0.8"),
        ("x-forwarded-port", "1, 8443, 80"),
    ];
    let mut headers = HeaderMap::new();
    for (name, value) in lists {
        headers.insert(name, HeaderValue::from_static(value));
    }
    let trusted = [Network::parse("10.0.0.0/8").unwrap()];
    assert_eq!(origin(&headers, &peer, &trusted).unwrap().port, 8443);
    headers.insert("x-forwarded-port", HeaderValue::from_static("8444, 80"));
    assert_eq!(
        origin(&headers, &peer, &trusted).unwrap().port,
        8444,
        "the lists are no pair"
    );
    // Of others nothing is believed.
    let stranger = client("1.2.3.4:5", false);
    let fields = [
        ("host", "h"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-port", "8443"),
    ];
    assert_eq!(sent_by(&stranger, Version::HTTP_11, &fields)["x-forwarded-port"], "80");
}

#[test]
fn requests_without_a_name_get_one() {
    assert_eq!(sent(&[("host", "h")])["x-request-id"], "made");
    assert_eq!(sent(&[("host", "h"), ("x-request-id", "")])["x-request-id"], "made");
    assert_eq!(sent(&[("host", "h"), ("x-request-id", "mine")])["x-request-id"], "mine");
}

#[test]
fn cookie_crumbs_of_http2_are_joined() {
    let fields = [("host", "h"), ("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")];
    let headers = sent_by(&client("1.1.1.1:1", false), Version::HTTP_2, &fields);
    let all: Vec<_> = headers.get_all("cookie").iter().collect();
    assert_eq!(all, ["a=1; b=2; c=3"]);
}

#[test]
fn hop_by_hop_fields_end_here_and_host_cannot_be_named_away() {
    let headers = sent(&[
        ("host", "h"),
        ("connection", "close, X-Secret , host,content-length, \"bad"),
        ("connection", "x-forwarded-for"),
        ("content-length", "3"),
        ("x-secret", "1"),
        ("te", "gzip, trailers"),
        ("upgrade", "websocket"),
        ("keep-alive", "timeout=5"),
        ("accept", "*/*"),
    ]);
    let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    let added = [
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-port",
        "x-forwarded-proto",
        "x-forwarded-scheme",
        "x-landfall-hops",
        "x-real-ip",
        "x-request-id",
        "x-scheme",
    ];
    let kept = ["accept", "content-length", "host", "te"];
    assert_eq!(names, [&kept[..], &added[..]].concat());
    assert_eq!(headers["te"], "trailers");
}

#[test]
fn http2_endpoints_get_the_host_as_authority() {
    let mut request = Request::new(());
    *request.uri_mut() = "/a?b".parse().unwrap();
    request.headers_mut().insert("host", HeaderValue::from_static("h:8"));
    fields::for_http2(&mut request, Protocol::H2c).unwrap();
    assert_eq!(request.uri(), "http://h:8/a?b");
    assert!(!request.headers().contains_key("host") && request.version() == Version::HTTP_2);
}

#[test]
fn an_absolute_target_goes_on_as_a_path() {
    for (target, wanted) in [("http://h/a?b", "/a?b"), ("http://h", "/"), ("http://h?b", "/?b")] {
        let mut request = Request::new(());
        *request.uri_mut() = target.parse().unwrap();
        let client = client("10.0.0.9:50000", false);
        let request = outgoing(request, &client, &client, 0).unwrap();
        assert_eq!(
            (request.uri().to_string(), &request.headers()["host"]),
            (wanted.to_owned(), &HeaderValue::from_static("h"))
        );
    }
}

/// Address and scheme that a front at 10.0.0.9 tells, which speaks TLS with us or does not.
fn told(fields: &[(&'static str, &'static str)]) -> Option<(String, &'static str)> {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    let trusted = [Network::parse("10.0.0.0/8").unwrap()];
    let origin = origin(&headers, &client("10.0.0.9:50000", true), &trusted)?;
    Some((origin.address_text(), if origin.https { "https" } else { "http" }))
}

#[test]
fn s24_addresses_of_fronts_are_read_as_they_write_them_and_what_cannot_be_read_is_nobody() {
    for (value, wanted) in [
        ("203.0.113.5", "203.0.113.5"),
        ("203.0.113.5:54321", "203.0.113.5"),
        ("203.0.113.5:54321, 10.0.0.6", "203.0.113.5"),
        ("203.0.113.5, 10.0.0.6:80", "203.0.113.5"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("\"[2001:db8::1]:443\"", "2001:db8::1"),
        ("\"203.0.113.5\"", "203.0.113.5"),
        ("::ffff:203.0.113.5", "203.0.113.5"),
        ("203.0.113.5, ,", "203.0.113.5"),
        ("10.0.0.7, 10.0.0.6", "10.0.0.7"),
        ("unknown", "unknown"),
        ("203.0.113.5, unknown", "unknown"),
        ("203.0.113.5, unknown, 10.0.0.6", "unknown"),
        ("_hidden", "unknown"),
        ("_hidden:80", "unknown"),
        ("203.0.113.5:", "unknown"),
        ("203.0.113.5:65536", "unknown"),
        ("[203.0.113.5]", "unknown"),
        ("[2001:db8::1", "unknown"),
        ("fe80::1%eth0", "unknown"),
        ("0.0.0.0", "unknown"),
        ("[::]:80", "unknown"),
        ("203.0.113.256", "unknown"),
        ("\u{fc}", "unknown"),
        ("", "unknown"),
        (" , ", "unknown"),
    ] {
        assert_eq!(
            told(&[("x-forwarded-for", value)]),
            Some((wanted.to_owned(), "http")),
            "{value:?}"
        );
    }
    assert_eq!(told(&[]), None);
}

#[test]
fn s24_of_a_list_of_protocols_the_believed_hops_counts() {
    for (hops, protocols, wanted) in [
        ("203.0.113.5", "https", "https"),
        ("203.0.113.5", "HTTPS", "https"),
        ("203.0.113.5", "wss", "https"),
        ("203.0.113.5", "ws", "http"),
        ("203.0.113.5", "gopher", "http"),
        ("203.0.113.5", "https, http", "https"),
        ("203.0.113.5, 10.1.1.1", "https, http", "https"),
        ("203.0.113.5, 10.1.1.1", "http, https", "http"),
        // The first entries are what the client wrote itself.
        ("10.1.1.1, 203.0.113.5", "https, http", "http"),
        ("1.1.1.1, 203.0.113.5, 10.1.1.1", "http,https,http", "https"),
        ("unknown", "https", "https"),
    ] {
        let told = told(&[("x-forwarded-for", hops), ("x-forwarded-proto", protocols)]);
        assert_eq!(told.unwrap().1, wanted, "{hops} {protocols}");
    }
    assert_eq!(
        told(&[("x-forwarded-proto", "https")]).unwrap(),
        ("10.0.0.9".to_owned(), "https")
    );
}
