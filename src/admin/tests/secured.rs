//! TLS, client certificates, and files that change.

use std::path::PathBuf;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tempfile::TempDir;
use tokio_rustls::TlsConnector;

use super::authority::{Authority, Identity};
use super::*;
use crate::admin::connection::MAX_CONNECTIONS;
use crate::settings::AdminTls;

/// A directory with the files of an endpoint, which a test exchanges.
struct Files(TempDir);

impl Files {
    fn new() -> Files {
        Files(TempDir::new().unwrap())
    }

    fn put(&self, name: &str, content: &str) -> PathBuf {
        let path = self.0.path().join(name);
        // As mounted secrets are: a file takes the place of another at once.
        let next = self.0.path().join("next");
        std::fs::write(&next, content).unwrap();
        std::fs::rename(&next, &path).unwrap();
        path
    }

    fn tls(&self, server: &Identity, clients: Option<&Authority>) -> AdminTls {
        AdminTls {
            certificate_file: self.put("certificate.pem", &server.certificate),
            key_file: self.put("key.pem", &server.key),
            client_ca_file: clients.map(|authority| self.put("clients.pem", &authority.certificate())),
            operators: vec!["alice".into()],
        }
    }
}

/// A client that trusts one authority, and shows a certificate or none.
fn client(trusted: &Authority, identity: Option<&Identity>) -> TlsConnector {
    let roots = crate::tls::authorities(trusted.certificate().as_bytes()).unwrap();
    let builder = ClientConfig::builder_with_provider(crate::tls::provider())
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = builder.with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(Identity { certificate, key }) => {
            let chain = crate::tls::certificates(certificate.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, crate::tls::private_key(key.as_bytes()).unwrap()).unwrap()
        }
    };
    TlsConnector::from(Arc::new(config))
}

impl Endpoint {
    /// `None`: no answer, because the handshake fails.
    async fn ask_by_tls(&self, client: &TlsConnector, request: &Request) -> Option<Answer> {
        let name = ServerName::try_from("localhost").unwrap();
        let stream = client.connect(name, self.connect().await).await.ok()?;
        let text = exchange(stream, &request.text()).await;
        (!text.is_empty()).then(|| Answer::of(&text))
    }
}

#[tokio::test]
async fn a_certificates_name_makes_an_operator_and_other_certificates_of_the_authority_read() {
    let (files, authority, clients) = (Files::new(), Authority::new(), Authority::new());
    let server = authority.issue("pawl", &["localhost", "127.0.0.1"]);
    let tls = Some(files.tls(&server, Some(&clients)));
    let endpoint = Endpoint::start_on("127.0.0.1:0", PATIENT, Admin { tls, ..Admin::default() }).await;
    let (metrics, change) = (Request::get("/metrics"), Request::post("/handlers/none/commands", "{}"));
    // For a handler that is not there, an operator is told so.
    for (name, expected) in [("alice", [200, 404]), ("bob", [200, 403]), ("Alice", [200, 403])] {
        let client = client(&authority, Some(&clients.issue(name, &[])));
        let seen = endpoint.ask_by_tls(&client, &metrics).await.expect("a handshake");
        let changed = endpoint.ask_by_tls(&client, &change).await.expect("a handshake");
        assert_eq!([seen.status, changed.status], expected, "{name}");
    }
    let page = change.header("origin: https://evil.example");
    let alice = client(&authority, Some(&clients.issue("alice", &[])));
    let denied = endpoint.ask_by_tls(&alice, &page).await.expect("a handshake");
    assert!(
        denied.status == 403 && denied.body.contains("Origin"),
        "a browser shows certificates for any page: {denied:?}"
    );

    let nameless = client(&authority, None);
    assert_eq!(
        endpoint.ask_by_tls(&nameless, &Request::get("/live")).await.expect("a handshake").status,
        200
    );
    let unknown = endpoint.ask_by_tls(&nameless, &metrics).await.expect("a handshake");
    assert!(unknown.status == 403 && unknown.body.contains("client certificate"), "{unknown:?}");
    let forged = client(&authority, Some(&Authority::new().issue("alice", &[])));
    assert!(endpoint.ask_by_tls(&forged, &Request::get("/live")).await.is_none(), "of another authority");
    let plain = endpoint.send(&Request::get("/live").text()).await;
    assert!(!plain.contains("HTTP/1.1 200"), "no HTTP without TLS: {plain}");
}

#[tokio::test]
async fn tokens_and_certificates_are_exchanged_without_a_restart() {
    let (files, old, new) = (Files::new(), Authority::new(), Authority::new());
    let tls = Some(files.tls(&old.issue("pawl", &["localhost"]), None));
    let read_token_file = Some(files.put("read", &format!("{READ}\n")));
    let admin = Admin { tls, read_token_file, ..Admin::default() };
    let endpoint = Endpoint::start_on("127.0.0.1:0", PATIENT, admin).await;
    let (by_old, by_new) = (client(&old, None), client(&new, None));
    let status = async |client: &TlsConnector, token: &str| {
        endpoint.ask_by_tls(client, &Request::get("/metrics").token(token)).await.map(|answer| answer.status)
    };
    assert_eq!(status(&by_old, READ).await, Some(200));
    let next = "next-0123456789abcdef";
    // First both, so that clients can change theirs; then the new one alone.
    for (content, known) in [(format!("{READ}\n{next}\n"), [200, 200]), (format!("{next}\n"), [401, 200])] {
        files.put("read", &content);
        until(async || [status(&by_old, READ).await, status(&by_old, next).await] == known.map(Some)).await;
    }
    // What is no token, and a certificate without its key, change nothing.
    files.put("read", "short\n");
    let server = new.issue("pawl", &["localhost"]);
    files.put("certificate.pem", &server.certificate);
    tokio::task::spawn_blocking(|| std::thread::sleep(2 * credentials::LOOK_EVERY)).await.unwrap();
    assert_eq!(status(&by_old, next).await, Some(200));
    files.put("read", &format!("{next}\n"));
    files.put("key.pem", &server.key);
    until(async || status(&by_new, next).await == Some(200)).await;
    assert_eq!(status(&by_old, next).await, None, "of another authority now");
}

#[tokio::test]
async fn clients_that_do_not_finish_their_handshake_make_room_for_whoever_does_and_are_closed() {
    let (files, authority) = (Files::new(), Authority::new());
    let tls = Some(files.tls(&authority.issue("pawl", &["localhost"]), Some(&authority)));
    let admin = Admin { tls, ..Admin::default() };
    let endpoint = Endpoint::start_on("127.0.0.1:0", 10 * PATIENT, admin.clone()).await;
    let mut silent = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        silent.push(endpoint.connect().await);
    }
    let (client, live) = (client(&authority, None), Request::get("/live"));
    let live = timeout(PATIENT, endpoint.ask_by_tls(&client, &live)).await.expect("a place");
    assert_eq!(live.expect("a handshake").status, 200);
    let endpoint = Endpoint::start_on("127.0.0.1:0", Duration::from_millis(100), admin).await;
    assert_eq!(endpoint.send("").await, "");
}

#[tokio::test]
async fn what_cannot_be_used_ends_the_start_with_the_file_and_without_the_secret() {
    let (files, authority) = (Files::new(), Authority::new());
    let tls = files.tls(&authority.issue("pawl", &[]), None);
    let other = files.put("other.pem", &authority.issue("pawl", &[]).key);
    let (short, empty) = (files.put("short", "a-short-one"), files.put("empty", "# none\n"));
    let missing = files.0.path().join("missing");
    let none = Admin::default;
    let tokens =
        |read, operator| Admin { read_token_file: Some(read), operator_token_file: operator, ..none() };
    let same = files.put("same", READ);
    for (admin, parts) in [
        (tokens(missing.clone(), None), ["admin.read_token_file", "missing"]),
        (tokens(short.clone(), None), ["line 1: it has 11 characters", "short"]),
        (tokens(empty, None), ["there is no token in it", "empty"]),
        (tokens(same.clone(), Some(same)), ["both roles", "admin.operator_token"]),
        (
            Admin { tls: Some(AdminTls { key_file: other, ..tls.clone() }), ..none() },
            ["admin.tls", "other.pem"],
        ),
        (
            Admin { tls: Some(AdminTls { key_file: missing, ..tls.clone() }), ..none() },
            ["admin.tls.key_file", "missing"],
        ),
        (
            Admin { tls: Some(AdminTls { key_file: short.clone(), ..tls.clone() }), ..none() },
            ["no private key", "short"],
        ),
        (
            Admin { tls: Some(AdminTls { client_ca_file: Some(short), ..tls }), ..none() },
            ["client_ca_file", "short"],
        ),
    ] {
        let error =
            Credentials::read(&admin).err().unwrap_or_else(|| panic!("{admin:?} is wrong")).to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        assert!(!error.contains("a-short-one") && !error.contains(READ), "{error}");
    }
}

async fn until(mut is: impl AsyncFnMut() -> bool) {
    let all = async {
        while !is().await {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(PATIENT, all).await.expect("it changes");
}
