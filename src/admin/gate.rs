//! What every request passes first: who asks, and whether they may.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, HOST, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Process;
use super::access::{Denied, Means, Need, Role, Visitor, admit, is_this_machine, need};
use super::connection::Peer;
use super::credentials::Credentials;
use super::keys::NoAnswer;

const NO_SNIFF: HeaderName = HeaderName::from_static("x-content-type-options");

/// Lets a request through, with whoever asks as an extension where they are known, or denies it.
pub(super) async fn gate(State(process): State<Arc<Process>>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<Peer>().cloned().expect("each connection names its peer");
    let mut response = match check(&process, &request, &peer) {
        Ok(visitor) => {
            if let Some(visitor) = visitor {
                request.extensions_mut().insert(visitor);
            }
            next.run(request).await
        }
        Err(Refusal { denied, by, wait }) => {
            let (method, path) = (request.method(), request.uri().path());
            process.denials.note(denied, by.as_ref(), method, path, peer.address);
            answer(denied, wait)
        }
    };
    // What is told of keys is for whoever asked, not for what lies between.
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(NO_SNIFF, HeaderValue::from_static("nosniff"));
    response
}

fn answer(denied: Denied, wait: Option<Duration>) -> Response {
    let body = Json(NoAnswer { error: denied.text().to_owned() });
    let mut response = (denied.status(), body).into_response();
    if let Some(challenge) = denied.challenge() {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    if let Some(wait) = wait {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// A request that is denied.
struct Refusal {
    denied: Denied,
    /// Who asks, where they are known.
    by: Option<Visitor>,
    /// When to come back.
    wait: Option<Duration>,
}

fn check(process: &Process, request: &Request, peer: &Peer) -> Result<Option<Visitor>, Refusal> {
    let needed = need(request.method(), request.uri().path());
    let credentials = process.credentials.borrow().clone();
    if needed == Need::Nothing {
        // Probes are answered whatever they send: an answer of "too many" would end the process. Whoever shows a token
        // is counted all the same, and known only within the bound: what tells right from wrong answers guesses.
        let guesses = request.headers().contains_key(AUTHORIZATION);
        if guesses && process.rates.take(peer.address.ip()).is_err() {
            return Ok(None);
        }
        return Ok(known(process, &credentials, request, peer).ok().flatten());
    }
    let too_many = |wait| Refusal { denied: Denied::TooMany, by: None, wait: Some(wait) };
    process.rates.take(peer.address.ip()).map_err(too_many)?;
    let visitor = known(process, &credentials, request, peer).map_err(|denied| Refusal {
        denied,
        by: None,
        wait: None,
    })?;
    let admitted = admit(needed, visitor.as_ref().map(|visitor| visitor.role), credentials.rules);
    // A browser shows its user's certificate for any page's request, and says so here.
    let is_page = needed == Need::Role(Role::Operator) && request.headers().contains_key(ORIGIN);
    match admitted.and(if is_page { Err(Denied::Page) } else { Ok(()) }) {
        Ok(()) => Ok(visitor),
        Err(denied) => Err(Refusal { denied, by: visitor, wait: None }),
    }
}

/// Whoever asks; `None`: nobody that is known.
fn known(
    process: &Process,
    credentials: &Credentials,
    request: &Request,
    peer: &Peer,
) -> Result<Option<Visitor>, Denied> {
    let visitor = |(role, name), means| Visitor { role, means, name, peer: peer.address };
    if !credentials.rules.is_guarded() {
        let hosts = request.headers().get_all(HOST).iter().map(|host| host.to_str().unwrap_or_default());
        // The place of a request may name a host too, and wins then (RFC 9112, 3.2.2).
        let hosts: Vec<&str> =
            hosts.chain(request.uri().authority().map(|authority| authority.as_str())).collect();
        if hosts.is_empty() {
            return Err(Denied::NoHost);
        }
        if !hosts.into_iter().all(is_this_machine) {
            return Err(Denied::ForeignHost);
        }
        let machine = || visitor((Role::Read, "this machine".into()), Means::Machine);
        return Ok(process.is_local.then(machine));
    }
    let by_token = token(request.headers())?
        .map(|token| credentials.tokens.find(token.as_bytes()).ok_or(Denied::WrongToken))
        .transpose()?
        .map(|found| visitor(found, Means::Token));
    let certificate = peer.certificate.as_ref().filter(|_| credentials.rules.certificates);
    let by_certificate =
        certificate.map(|shown| visitor(credentials.of_certificate(shown), Means::Certificate));
    Ok(by_token.into_iter().chain(by_certificate).max_by_key(|visitor| visitor.role))
}

/// The one bearer token of a request. A token in the URL is none: URLs are written to logs everywhere.
fn token(headers: &HeaderMap) -> Result<Option<&str>, Denied> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (first, None) = (values.next(), values.next()) else { return Err(Denied::WrongToken) };
    let Some(first) = first else { return Ok(None) };
    let (scheme, token) =
        first.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(Denied::WrongToken)?;
    if scheme.eq_ignore_ascii_case("bearer") { Ok(Some(token.trim())) } else { Err(Denied::WrongToken) }
}

/// The address as logs show it.
pub(super) fn shown(peer: SocketAddr) -> String {
    SocketAddr::new(peer.ip().to_canonical(), peer.port()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_in_one_header_and_by_its_scheme() {
        let with = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_static(value));
            }
            token(&headers).map(|token| token.map(str::to_owned))
        };
        assert_eq!(with(&[]), Ok(None));
        assert_eq!(with(&["Bearer abc"]), Ok(Some("abc".into())));
        assert_eq!(with(&["bearer  abc "]), Ok(Some("abc".into())));
        for wrong in
            [&["Basic abc"][..], &["Bearer"], &["abc"], &["Bearer abc", "Bearer abc"], &["Bearerabc"]]
        {
            assert_eq!(with(wrong), Err(Denied::WrongToken), "{wrong:?}");
        }
    }
}
