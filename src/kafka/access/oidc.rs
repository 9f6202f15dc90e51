//! Tokens of an identity provider for the client's credentials (RFC 6749, section 4.4).
//!
//! One request, so no library: those there are bring their own HTTP, URL and time crates for a form of five
//! fields. librdkafka's own way needs curl and a build that fails.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use hyper::{Request, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::task::spawn_blocking;

use super::files;
use super::state::Token;
use crate::connections::{Connections, innermost};
use crate::settings::Oauth;

/// The most bytes of an answer.
const MAX_ANSWER_BYTES: usize = 64 << 10;
/// How far a clock may be ahead of the provider's before a token of it seems to be an old one.
const MOST_SKEW: Duration = Duration::from_secs(300);
/// Tokens that say they live longer are fetched anew all the same.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3_600);
/// How much of a provider's own words is told.
const MAX_SHOWN_CHARS: usize = 300;

/// What a form encodes. No more than it must: there are providers that do not decode what is in front of the
/// colon, or behind it.
const FORM: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

pub(super) struct OidcTokens {
    oauth: Oauth,
    /// Made when it is first needed: certificate authorities may be missing.
    client: Option<Connections>,
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    /// A number, which some providers write as a text.
    expires_in: Option<serde_json::Value>,
}

/// RFC 6749, section 5.2.
#[derive(Deserialize)]
struct Refused {
    error: String,
    #[serde(default)]
    error_description: String,
}

/// Times in seconds since 1970 (RFC 7519, section 4.1).
#[derive(Deserialize)]
struct Claims {
    exp: Option<serde_json::Value>,
    iat: Option<serde_json::Value>,
}

impl OidcTokens {
    pub(super) fn new(oauth: Oauth) -> OidcTokens {
        OidcTokens { oauth, client: None }
    }

    pub(super) fn timeout(&self) -> Duration {
        self.oauth.timeout
    }

    /// Asks for a token.
    pub(super) async fn fetch(&mut self) -> Result<Token, String> {
        let at = &self.oauth.token_endpoint;
        let request = self.request(self.secret().await?)?;
        let client = match &self.client {
            Some(client) => client,
            None => self.client.insert(Connections::to(at, None)?),
        };
        let told = |why: String| format!("{at} (kafka.oauth.token_endpoint): {why}");
        let answer = client.request(request).await.map_err(|error| told(innermost(&error)))?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|error| told(format!("the answer broke off: {error}")))?.to_bytes();
        if !status.is_success() {
            return Err(told(refusal(status, &body, &self.oauth.client_id)));
        }
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|error| told(format!("the answer is not that of a token endpoint: {error}")))?;
        let expires = expiry(&answer, SystemTime::now()).ok_or_else(|| {
            told("neither expires_in nor a claim exp tells how long the token is valid".into())
        })?;
        Ok(Token {
            value: answer.access_token,
            expires,
            principal: self.oauth.client_id.clone(),
            extensions: self.oauth.extensions.clone().into_iter().collect(),
        })
    }

    /// Reads it on another thread: a file system may hang.
    async fn secret(&self) -> Result<String, String> {
        match (&self.oauth.client_secret, self.oauth.client_secret_file.clone()) {
            (Some(secret), _) => Ok(secret.reveal().to_owned()),
            (None, Some(file)) => {
                let reading =
                    spawn_blocking(move || files::read_secret(&file, "kafka.oauth.client_secret_file"));
                reading.await.map_err(|error| format!("the client's secret cannot be read: {error}"))?
            }
            (None, None) => Err("there is no secret: name a file in kafka.oauth.client_secret_file".into()),
        }
    }

    fn request(&self, secret: String) -> Result<Request<Full<Bytes>>, String> {
        let Oauth { token_endpoint, client_id, scope, audience, .. } = &self.oauth;
        let encoded = |text: &str| utf8_percent_encode(text, FORM).to_string();
        let mut form = "grant_type=client_credentials".to_owned();
        for (name, value) in [("scope", scope), ("audience", audience)] {
            if let Some(value) = value {
                form.push_str(&format!("&{name}={}", encoded(value)));
            }
        }
        // Section 2.3.1: both are encoded as in a form before they are joined.
        let basic = STANDARD.encode(format!("{}:{}", encoded(client_id), encoded(&secret)));
        Request::post(token_endpoint)
            .header(AUTHORIZATION, format!("Basic {basic}"))
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json")
            .body(Full::new(form.into()))
            .map_err(|error| format!("no request can be made to {token_endpoint}: {error}"))
    }
}

/// Why the provider gives no token, and what to do about it.
fn refusal(status: StatusCode, body: &[u8], client_id: &str) -> String {
    let Ok(Refused { error, error_description }) = serde_json::from_slice(body) else {
        // What is in the body may be anything, an echo of the secret among it.
        return format!("answered {status}, and not as a token endpoint does");
    };
    let error_description: String = error_description.chars().take(MAX_SHOWN_CHARS).collect();
    let error: String = error.chars().take(MAX_SHOWN_CHARS).collect();
    let remedy = match error.as_str() {
        "invalid_client" => {
            "is the secret right (kafka.oauth.client_secret_file), and kafka.oauth.client_id?"
        }
        "unauthorized_client" => "allow this client the grant of client credentials at the provider",
        "invalid_scope" => "correct kafka.oauth.scope",
        _ => "see the provider's log",
    };
    format!("answered {status} to the client {client_id:?}: {error} {error_description}; {remedy}")
}

/// When a token ends: as the answer says, else as the token itself does (RFC 7519).
fn expiry(answer: &Answer, now: SystemTime) -> Option<SystemTime> {
    let at_most = |life: Duration| now.checked_add(life.min(LONGEST_LIFE));
    if let Some(life) = answer.expires_in.as_ref().and_then(seconds) {
        return at_most(life);
    }
    let claims = URL_SAFE_NO_PAD.decode(answer.access_token.split('.').nth(1)?).ok()?;
    let Claims { exp, iat } = serde_json::from_slice(&claims).ok()?;
    let at = |claim: Option<serde_json::Value>| SystemTime::UNIX_EPOCH.checked_add(seconds(&claim?)?);
    let end = at(exp)?;
    match at(iat) {
        // It was issued just now: this machine's clock is not the provider's. One that ended long ago is an old one.
        Some(begin) if begin > now || (end <= now && now < end + MOST_SKEW) => {
            at_most(end.duration_since(begin).ok()?)
        }
        _ => Some(end.min(at_most(LONGEST_LIFE)?)),
    }
}

/// A number of seconds that may be a text, or have a fraction.
fn seconds(value: &serde_json::Value) -> Option<Duration> {
    let whole = value.as_u64().or_else(|| value.as_str()?.parse().ok());
    let fraction = || value.as_f64().or_else(|| value.as_str()?.parse().ok());
    match whole {
        Some(seconds) => Some(Duration::from_secs(seconds)),
        None => Duration::try_from_secs_f64(fraction()?).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(token: &str, expires_in: Option<serde_json::Value>) -> Answer {
        Answer { access_token: token.into(), expires_in }
    }

    #[test]
    fn a_token_ends_as_the_answer_says_else_as_it_says_itself() {
        let now = SystemTime::now();
        let minute = Some(now + Duration::from_secs(60));
        assert_eq!(expiry(&answer("opaque", Some(60.into())), now), minute);
        assert_eq!(expiry(&answer("opaque", Some("60".into())), now), minute);
        assert_eq!(expiry(&answer("opaque", Some(u64::MAX.into())), now), Some(now + LONGEST_LIFE));
        let token = format!("e30.{}.x", URL_SAFE_NO_PAD.encode(r#"{"exp":1000}"#));
        let end = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000);
        assert_eq!(expiry(&answer(&token, None), now), Some(end));
        assert_eq!(expiry(&answer("opaque", None), now), None);
        for unreadable in ["soon".into(), serde_json::Value::Null, (-1).into()] {
            assert_eq!(expiry(&answer(&token, Some(unreadable)), now), Some(end));
        }
        let fraction = serde_json::from_str("60.5").expect("a number");
        let end = now + Duration::from_millis(60_500);
        assert_eq!(expiry(&answer("opaque", Some(fraction)), now), Some(end));
        assert_eq!(expiry(&answer("opaque", Some("60.5".into())), now), Some(end));
    }

    #[test]
    fn a_token_that_tells_its_begin_lives_as_long_whatever_this_clock_says() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let token = format!("e30.{}.x", URL_SAFE_NO_PAD.encode(r#"{"iat":10000.5,"exp":10900.5}"#));
        let ends = |now| expiry(&answer(&token, None), now);
        let life = Duration::from_secs(900);
        assert_eq!(ends(at(9_000)), Some(at(9_000) + life), "behind the provider's");
        assert_eq!(ends(at(11_000)), Some(at(11_000) + life), "ahead of it");
        let end = Some(at(10_900) + Duration::from_millis(500));
        assert_eq!(ends(at(20_000)), end, "an old one, which is refused for that");
        assert_eq!(
            ends(at(10_100)),
            Some(at(10_900) + Duration::from_millis(500)),
            "one that was kept a while"
        );
    }

    #[test]
    fn a_refusal_names_the_client_and_what_to_look_at() {
        let body = br#"{"error":"invalid_client","error_description":"bad secret"}"#;
        let text = refusal(StatusCode::UNAUTHORIZED, body, "pawl");
        for part in ["401", "\"pawl\"", "bad secret", "kafka.oauth.client_secret_file"] {
            assert!(text.contains(part), "{text}");
        }
        let text = refusal(StatusCode::BAD_GATEWAY, b"Authorization: Basic c2VjcmV0", "pawl");
        assert!(text.contains("502") && !text.contains("c2VjcmV0"), "{text}");
    }

    #[test]
    fn id_and_secret_are_encoded_before_they_are_joined() {
        let oauth = Oauth {
            token_endpoint: "http://127.0.0.1:1/token".into(),
            client_id: "a:b-1".into(),
            scope: Some("x y".into()),
            ..Oauth::default()
        };
        let request = OidcTokens::new(oauth).request("c d&".into()).expect("valid");
        let header = request.headers()[AUTHORIZATION].to_str().expect("ASCII");
        let decoded = STANDARD.decode(header.strip_prefix("Basic ").expect("basic")).expect("base64");
        assert_eq!(decoded, b"a%3Ab-1:c%20d%26");
    }
}
