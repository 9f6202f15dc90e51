//! Who gives Pawl its credentials: an identity provider with signed tokens, the credentials endpoint of an ECS
//! task, and STS. Real HTTP over the loopback interface; each can go away and come back.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use tokio::runtime::Runtime;

/// A request as a script sees it.
pub struct Asked {
    /// Path and query.
    pub target: String,
    /// `Authorization`.
    pub authorization: String,
    pub body: String,
}

type Script = dyn Fn(&Asked) -> (u16, String) + Send + Sync;

/// An HTTP endpoint that answers JSON or XML, and can go away.
pub struct Endpoint {
    address: SocketAddr,
    inner: Arc<Inner>,
    running: Mutex<Option<Runtime>>,
}

struct Inner {
    script: Box<Script>,
    answered: AtomicUsize,
}

impl Endpoint {
    /// Starts it.
    pub fn start(script: impl Fn(&Asked) -> (u16, String) + Send + Sync + 'static) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").expect("the loopback interface has free ports");
        let address = listener.local_addr().expect("a bound socket has an address");
        let inner = Arc::new(Inner { script: Box::new(script), answered: AtomicUsize::new(0) });
        let endpoint = Endpoint { address, inner, running: Mutex::new(None) };
        endpoint.serve(listener);
        endpoint
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests that were answered.
    pub fn answered(&self) -> usize {
        self.inner.answered.load(Ordering::SeqCst)
    }

    /// Goes away: connections break, new ones are refused.
    pub fn leave(&self) {
        if let Some(runtime) = self.running.lock().expect("no holder panics").take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }

    /// Comes back at the same address.
    pub fn come_back(&self) {
        let listener = super::until("the endpoint's port is free", Duration::from_secs(30), || {
            TcpListener::bind(self.address).ok()
        });
        self.serve(listener);
    }

    fn serve(&self, listener: TcpListener) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime can be started");
        listener.set_nonblocking(true).expect("a socket can be non-blocking");
        let routes = Router::new().fallback(answer).with_state(self.inner.clone());
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).expect("within a runtime");
            axum::serve(listener, routes).await
        });
        *self.running.lock().expect("no holder panics") = Some(runtime);
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.leave();
    }
}

async fn answer(State(inner): State<Arc<Inner>>, request: Request) -> Response {
    let header = request.headers().get(AUTHORIZATION);
    let authorization = header.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let target = request.uri().to_string();
    let body = axum::body::to_bytes(request.into_body(), 64 << 10).await.expect("a small body");
    let body = String::from_utf8(body.to_vec()).expect("text");
    let (status, text) = (inner.script)(&Asked { target, authorization, body });
    inner.answered.fetch_add(1, Ordering::SeqCst);
    let status = StatusCode::from_u16(status).expect("a status");
    let kind = if text.starts_with('<') { "text/xml" } else { "application/json" };
    (status, [(CONTENT_TYPE, kind)], text).into_response()
}

/// The key with which an identity provider signs, and its public half as brokers read it (RFC 7517).
pub struct SigningKey {
    key: EcdsaKeyPair,
    random: SystemRandom,
}

impl SigningKey {
    /// A new key.
    pub fn generate() -> SigningKey {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let document = EcdsaKeyPair::generate_pkcs8(algorithm, &random).expect("a key");
        let key = EcdsaKeyPair::from_pkcs8(algorithm, document.as_ref(), &random).expect("just made");
        SigningKey { key, random }
    }

    /// The set of keys that brokers check with.
    pub fn jwks(&self) -> String {
        // 0x04, then both coordinates.
        let [x, y] =
            [1..33, 33..65].map(|part| URL_SAFE_NO_PAD.encode(&self.key.public_key().as_ref()[part]));
        serde_json::json!({ "keys": [
            { "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "1", "x": x, "y": y },
        ] })
        .to_string()
    }

    /// A token for this principal that is valid for so long (RFC 7519).
    pub fn token(&self, subject: &str, life: Duration) -> String {
        let now = seconds();
        let header = r#"{"alg":"ES256","kid":"1","typ":"JWT"}"#;
        let claims = serde_json::json!({
            "sub": subject, "aud": "kafka", "iss": "https://pawl.test", "iat": now, "exp": now + life.as_secs(),
        });
        let signed =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = self.key.sign(&self.random, signed.as_bytes()).expect("signed");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// An identity provider's token endpoint, which knows one client.
pub fn provider(key: Arc<SigningKey>, (id, secret): (&str, &str), life: Duration) -> Endpoint {
    let expected = format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
    let subject = id.to_owned();
    Endpoint::start(move |asked| {
        if !asked.body.contains("grant_type=client_credentials") {
            return (400, r#"{"error":"unsupported_grant_type"}"#.into());
        }
        if asked.authorization != expected {
            return (401, r#"{"error":"invalid_client","error_description":"no such secret"}"#.into());
        }
        let token = key.token(&subject, life);
        (200, serde_json::json!({ "access_token": token, "token_type": "bearer", "expires_in": life.as_secs() }).to_string())
    })
}

/// The credentials endpoint of an ECS task's agent, which hands out this access key for so long at a time, to
/// whoever knows the token.
pub fn container_credentials(token: &'static str, (key, secret): (&str, &str), life: Duration) -> Endpoint {
    let (key, secret) = (key.to_owned(), secret.to_owned());
    Endpoint::start(move |asked| {
        if asked.authorization != token {
            return (403, r#"{"code":"AccessDenied","message":"another token"}"#.into());
        }
        let expiration = humantime::format_rfc3339_seconds(SystemTime::now() + life).to_string();
        let answer = serde_json::json!({
            "AccessKeyId": key, "SecretAccessKey": secret, "Token": "session", "Expiration": expiration,
            "RoleArn": "arn:aws:iam::123456789012:role/pawl",
        });
        (200, answer.to_string())
    })
}

/// STS, as far as a pod of EKS with a service account needs it (AssumeRoleWithWebIdentity).
pub fn sts(identity: &'static str, (key, secret): (&str, &str), life: Duration) -> Endpoint {
    let (key, secret) = (key.to_owned(), secret.to_owned());
    Endpoint::start(move |asked| {
        let form = format!("{}&{}", asked.target, asked.body);
        if !form.contains("Action=AssumeRoleWithWebIdentity") || !form.contains(identity) {
            let error = "<ErrorResponse><Error><Code>InvalidIdentityToken</Code><Message>no</Message></Error></ErrorResponse>";
            return (400, error.into());
        }
        let expiration = humantime::format_rfc3339_seconds(SystemTime::now() + life);
        let answer = format!(
            "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
             <AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>{key}</AccessKeyId>\
             <SecretAccessKey>{secret}</SecretAccessKey><SessionToken>session</SessionToken>\
             <Expiration>{expiration}</Expiration></Credentials></AssumeRoleWithWebIdentityResult>\
             <ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></AssumeRoleWithWebIdentityResponse>"
        );
        (200, answer)
    })
}
