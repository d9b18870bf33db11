//! The same annotations, for clients that speak HTTP/2, with prior knowledge and by ALPN.

use super::world::{Answer, World, plain, service};
use crate::tests::ends::Running;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use landfall_ingress_tls::client::ClientSettings;
use landfall_ingress_tls::client::{Alpn, config};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const ROOT: (&str, &str, &str) = ("Prefix", "/", "a");
const ANNA: (&str, &str) = ("authorization", "Basic YW5uYTpodW50ZXIy");

/// One connection of a client.
struct Client {
    sender: SendRequest<Full<Bytes>>,
    scheme: &'static str,
}

impl Client {
    async fn new(proxy: &Running, tls: bool) -> Self {
        let stream = TcpStream::connect(proxy.address).await.unwrap();
        if !tls {
            let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
            let (sender, connection) = handshake.unwrap();
            tokio::spawn(connection);
            return Self { sender, scheme: "http" };
        }
        let connector = TlsConnector::from(config(&ClientSettings::default(), Alpn::Http2));
        let name = ServerName::try_from("h.io").unwrap();
        let stream = connector.connect(name, stream).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (sender, connection) = handshake.unwrap();
        tokio::spawn(connection);
        Self {
            sender,
            scheme: "https",
        }
    }

    async fn send(&mut self, method: &str, path: &str, fields: &[(&str, &str)], body: &str) -> Answer {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}://h.io{path}", self.scheme));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::from(body.to_owned())).unwrap();
        let (head, body) = self.sender.send_request(request).await.unwrap().into_parts();
        let text = |value: &hyper::header::HeaderValue| value.to_str().unwrap().to_owned();
        Answer {
            status: head.status.as_u16(),
            fields: head.headers.iter().map(|(n, v)| (n.to_string(), text(v))).collect(),
            body: String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap(),
        }
    }

    async fn get(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.send("GET", path, fields, "").await
    }
}

#[tokio::test]
async fn whole_requests_go_to_the_endpoint_and_back() {
    for tls in [false, true] {
        let a = plain("alpha").await;
        let proxy = World::new()
            .service("a", &[a.address])
            .ingress(&[], "h.io", ROOT)
            .run(tls)
            .await;
        let mut client = Client::new(&proxy, tls).await;
        let large = "x".repeat(200_000);
        for body in ["", "small", &large] {
            let answer = client.send("POST", "/x?q=1", &[("x-own", "1")], body).await;
            assert_eq!((answer.status, answer.body.as_str()), (200, "alpha"), "tls {tls}");
            let got = a.next().await;
            assert_eq!((got.method.as_str(), got.uri.to_string().as_str()), ("POST", "/x?q=1"));
            assert_eq!(got.body, body);
            assert_eq!((got.field("x-own"), got.field("host")), (Some("1"), Some("h.io")));
            assert_eq!(got.field("x-forwarded-proto"), Some(client.scheme));
        }
    }
}

#[tokio::test]
async fn source_ranges_passwords_and_limits_hold() {
    for tls in [false, true] {
        let a = plain("alpha").await;
        let proxy = World::new()
            .service("a", &[a.address])
            .secret("users", "auth", "anna:{SHA}87u9ZqY9S/F0eUBXjsPQEDUw4h0=\n")
            .ingress(
                &[("whitelist-source-range", "10.0.0.0/8")],
                "h.io",
                ("Prefix", "/closed", "a"),
            )
            .ingress(
                &[("auth-type", "basic"), ("auth-secret", "users")],
                "h.io",
                ("Prefix", "/admin", "a"),
            )
            .ingress(
                &[("limit-rps", "1"), ("limit-burst-multiplier", "1")],
                "h.io",
                ("Prefix", "/limited", "a"),
            )
            .run(tls)
            .await;
        let mut client = Client::new(&proxy, tls).await;
        for path in ["/closed", "/x/../closed", "//closed", "/%63losed"] {
            let answer = client.get(path, &[("x-forwarded-for", "10.1.1.1")]).await;
            assert_eq!(
                (answer.status, answer.field("x-landfall-reason")),
                (403, Some("source")),
                "{path}"
            );
        }
        for path in ["/admin", "/./admin", "/admin/x", "//admin"] {
            let answer = client.get(path, &[("authorization", "Basic YW5uYTp3cm9uZw==")]).await;
            assert_eq!(answer.status, 401, "{path}");
            assert!(answer.field("www-authenticate").is_some());
        }
        assert!(a.asked().is_empty());
        assert_eq!(client.get("/admin", &[ANNA]).await.status, 200);
        let mut statuses = Vec::new();
        for _ in 0..10 {
            statuses.push(client.get("/limited", &[]).await.status);
        }
        let refused = statuses.iter().filter(|status| **status == 429).count();
        assert!(statuses[0] == 200 && refused >= 6, "{statuses:?}");
    }
}

#[tokio::test]
async fn auth_url_decides() {
    for tls in [false, true] {
        let a = plain("alpha").await;
        let auth = service("auth", |headers, _| match headers.get("cookie").map(|v| v.as_bytes()) {
            Some(b"ok") => (200, vec![("x-user", "anna".to_owned())]),
            Some(b"no") => (403, vec![]),
            _ => (401, vec![]),
        })
        .await;
        let proxy = World::new()
            .service("a", &[a.address])
            .service("auth", &[auth.address])
            .ingress(
                &[("auth-url", "http://auth/check"), ("auth-response-headers", "x-user")],
                "h.io",
                ROOT,
            )
            .run(tls)
            .await;
        let mut client = Client::new(&proxy, tls).await;
        assert_eq!(client.get("/", &[("x-user", "root")]).await.status, 401);
        assert_eq!(client.get("/", &[("cookie", "no")]).await.status, 403);
        assert!(a.asked().is_empty());
        assert_eq!(
            client
                .get("/p?q=1", &[("cookie", "ok"), ("x-user", "root")])
                .await
                .status,
            200
        );
        assert_eq!(a.next().await.field("x-user"), Some("anna"));
        let url = format!("{}://h.io/p?q=1", client.scheme);
        let asked = auth.asked();
        assert_eq!(asked.last().unwrap().field("x-original-url"), Some(url.as_str()));
        assert!(
            asked
                .iter()
                .all(|got| got.field("host") == Some("auth") && got.field("x-user").is_none())
        );
    }
}

#[tokio::test]
async fn canaries_redirects_rewrites_and_cross_origin_fields_are_as_for_others() {
    for tls in [false, true] {
        let (a, b) = (plain("alpha").await, plain("beta").await);
        let proxy = World::new()
            .service("a", &[a.address])
            .service("b", &[b.address])
            .ingress(&[("enable-cors", "true")], "h.io", ROOT)
            .ingress(
                &[("canary", "true"), ("canary-by-header", "x-new")],
                "h.io",
                ("Prefix", "/", "b"),
            )
            .ingress(
                &[("permanent-redirect", "https://other.io$request_uri")],
                "h.io",
                ("Prefix", "/old", "a"),
            )
            .ingress(
                &[("rewrite-target", "/new/$1"), ("x-forwarded-prefix", "/api")],
                "h.io",
                ("ImplementationSpecific", "/api/(.*)", "a"),
            )
            .run(tls)
            .await;
        let mut client = Client::new(&proxy, tls).await;
        assert_eq!(client.get("/", &[("x-new", "always")]).await.body, "beta");
        let answer = client.get("/", &[("x-new", "never"), ("origin", "http://x")]).await;
        assert_eq!(
            (answer.body.as_str(), answer.field("access-control-allow-origin")),
            ("alpha", Some("*"))
        );
        let redirect = client.get("/old/x?q=1", &[]).await;
        assert_eq!(
            (redirect.status, redirect.field("location")),
            (301, Some("https://other.io/old/x?q=1"))
        );
        a.asked();
        assert_eq!(
            client
                .get("/api/a%2Fb?q=1", &[("x-forwarded-prefix", "/evil")])
                .await
                .status,
            200
        );
        let got = a.next().await;
        assert_eq!(got.uri.to_string(), "/new/a%2Fb?q=1");
        assert_eq!(got.field("x-forwarded-prefix"), Some("/api"));
        let preflight = [("origin", "http://x"), ("access-control-request-method", "GET")];
        assert_eq!(client.send("OPTIONS", "/", &preflight, "").await.status, 204);
    }
}
