//! What a service's answer means: the failure class of each status, and the words for it.

use std::time::{Duration, SystemTime};

use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, RETRY_AFTER};
use pawl_actors::outcome::{Failure, FailureClass, code};
use serde::Deserialize;

use crate::settings::class_of_status;

/// The header in which a service gives its own error code; its first value counts.
const OWN_CODE: &str = "pawl-error-code";

/// The most bytes of a problem (RFC 9457) in which its type is looked for.
const PROBLEM_BYTES: usize = 64 << 10;

/// The most bytes of an answer that are kept as a failure's detail.
pub(super) const DETAIL_BYTES: usize = 4 << 10;

/// The longest delay that a service may ask for.
const MAX_RETRY_AFTER: Duration = Duration::from_hours(24);

/// The most characters of an answer that are quoted in a failure's message.
const HINT_CHARS: usize = 120;

/// The failure that an answer stands for; `None` for 2xx.
pub(super) fn failure(
    status: StatusCode,
    headers: &HeaderMap,
    excerpt: &[u8],
    now: SystemTime,
) -> Option<Failure> {
    let text = String::from_utf8_lossy(&excerpt[..excerpt.len().min(DETAIL_BYTES)]);
    let message = message(status, headers, &text);
    let failure = match class_of_status(status.as_u16())? {
        FailureClass::Transient => Failure::transient(code::UNAVAILABLE, message),
        FailureClass::Permanent => Failure::permanent(code::REJECTED, message),
        FailureClass::Fatal => Failure::fatal(code::REJECTED, message),
    };
    let failure = failure
        .with_status(status.as_u16())
        .with_retry_after(headers.get(RETRY_AFTER).and_then(|value| retry_after(value, now)))
        .with_detail(text);
    Some(match own_code(headers, excerpt) {
        Some(own_code) => failure.with_own_code(own_code),
        None => failure,
    })
}

/// How much of an answer is to be kept for [`failure`].
pub(super) fn bytes_to_keep(status: StatusCode, headers: &HeaderMap) -> usize {
    match status.is_success() {
        true => 0,
        false if is_problem(headers) => PROBLEM_BYTES,
        false => DETAIL_BYTES,
    }
}

/// The service's own error code: of the header, else the type of a problem (RFC 9457). The type
/// `about:blank` says no more than the status does.
fn own_code(headers: &HeaderMap, body: &[u8]) -> Option<String> {
    let given = headers.get(OWN_CODE).and_then(|value| value.to_str().ok()).map(str::trim);
    if let Some(own_code) = given.filter(|own_code| !own_code.is_empty()) {
        return Some(own_code.to_owned());
    }
    let problem: Option<Problem> = is_problem(headers).then(|| serde_json::from_slice(body).ok()).flatten();
    problem.map(|problem| problem.kind).filter(|kind| kind != "about:blank")
}

fn is_problem(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/problem+json")
}

/// As much of a problem as is read.
#[derive(Deserialize)]
struct Problem {
    #[serde(rename = "type")]
    kind: String,
}

fn message(status: StatusCode, headers: &HeaderMap, text: &str) -> String {
    let answered = format!("service answered {}", status.as_u16());
    if status.is_redirection() {
        let target = headers.get(LOCATION).map(|target| hint(&String::from_utf8_lossy(target.as_bytes())));
        let target = target.map(|target| format!(" to \"{target}\"")).unwrap_or_default();
        return format!(
            "{answered}, a redirect{target}: none is followed, the url must name the service itself"
        );
    }
    match hint(text) {
        hint if hint.is_empty() => answered,
        hint => format!("{answered} \"{hint}\""),
    }
}

/// The start of a text on one line.
fn hint(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let mut line = String::new();
    for word in words {
        if line.len() > HINT_CHARS * char::MAX_LEN_UTF8 {
            break;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    match line.char_indices().nth(HINT_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// `Retry-After` in either form, seconds or a date (RFC 9110, section 10.2.3).
fn retry_after(value: &HeaderValue, now: SystemTime) -> Option<Duration> {
    let value = value.to_str().ok()?.trim();
    let delay = match value.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(delay.min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    fn judged(status: u16) -> Option<Failure> {
        failure(StatusCode::from_u16(status).unwrap(), &HeaderMap::new(), b"", UNIX_EPOCH)
    }

    #[test]
    fn every_status_has_the_class_of_the_contract() {
        let transient = [401, 403, 407, 408, 425, 429];
        for status in 100..=999 {
            let class = judged(status).map(|failure| (failure.class, failure.code));
            let expect = match status {
                200..=299 => None,
                500.. => Some((FailureClass::Transient, code::UNAVAILABLE)),
                _ if transient.contains(&status) => Some((FailureClass::Transient, code::UNAVAILABLE)),
                _ => Some((FailureClass::Permanent, code::REJECTED)),
            };
            assert_eq!(class, expect, "{status}");
        }
    }

    #[test]
    fn the_message_quotes_the_start_of_the_answer_on_one_line() {
        let check = |body: &[u8], expect: &str| {
            let failure =
                failure(StatusCode::UNPROCESSABLE_ENTITY, &HeaderMap::new(), body, UNIX_EPOCH).unwrap();
            assert_eq!(failure.message, expect);
            assert_eq!(failure.detail, String::from_utf8_lossy(body));
        };
        check(b"unknown currency", "service answered 422 \"unknown currency\"");
        check(b"", "service answered 422");
        check(b" \n\x00 ", "service answered 422");
        check(b"line one\r\n\tline two\n", "service answered 422 \"line one line two\"");
        check(b"caf\xc3\xa9 \xff", "service answered 422 \"café \u{fffd}\"");
        let long = "é".repeat(HINT_CHARS);
        check(long.as_bytes(), &format!("service answered 422 \"{long}\""));
        check(format!("{long}é").as_bytes(), &format!("service answered 422 \"{long}…\""));
    }

    #[test]
    fn a_redirect_names_its_target_and_the_remedy() {
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, HeaderValue::from_static("https://billing/events"));
        let failure = failure(StatusCode::PERMANENT_REDIRECT, &headers, b"moved", UNIX_EPOCH).unwrap();
        assert_eq!(
            failure.message,
            "service answered 308, a redirect to \"https://billing/events\": none is followed, \
             the url must name the service itself"
        );
    }

    #[test]
    fn retry_after_is_read_in_both_forms_and_bounded() {
        let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        for (value, expect) in [
            ("0", Some(0)),
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("99999999999", Some(24 * 3600)),
            ("18446744073709551616", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
            ("Tue, 14 Nov 2023 22:13:50 GMT", Some(30)),
            ("Tuesday, 14-Nov-23 22:13:50 GMT", Some(30)),
            ("Tue, 14 Nov 2023 22:13:00 GMT", Some(0)),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(value));
            let failure = failure(StatusCode::SERVICE_UNAVAILABLE, &headers, b"", now).unwrap();
            assert_eq!(failure.retry_after, expect.map(Duration::from_secs), "{value:?}");
        }
    }

    #[test]
    fn an_answer_keeps_its_status_and_the_wish_of_a_permanent_one_too() {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
        // A retry policy may know that this conflict heals.
        let failure = failure(StatusCode::CONFLICT, &headers, b"", UNIX_EPOCH).unwrap();
        assert_eq!(failure.retry_after, Some(Duration::from_secs(5)));
        assert_eq!(failure.status, Some(409));
    }

    fn own_code_of(headers: &[(&'static str, &str)], body: &str) -> Option<String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        let failure = failure(StatusCode::CONFLICT, &map, body.as_bytes(), UNIX_EPOCH).unwrap();
        failure.own_code().map(str::to_owned)
    }

    #[test]
    fn the_services_own_code_is_that_of_the_header_else_the_type_of_a_problem() {
        let problem = ("content-type", "application/problem+json");
        let locked = r#"{"title": "no", "type": "https://acme.example/locked", "status": 409}"#;
        let check = |headers: &[(&'static str, &str)], body: &str, expect: Option<&str>| {
            assert_eq!(own_code_of(headers, body).as_deref(), expect, "{headers:?} {body}");
        };
        check(&[("pawl-error-code", " card-declined ")], "", Some("card-declined"));
        check(&[("pawl-error-code", "a"), ("pawl-error-code", "b")], "", Some("a"));
        check(&[problem], locked, Some("https://acme.example/locked"));
        check(&[problem, ("pawl-error-code", "locked")], locked, Some("locked"));
        check(&[("content-type", "Application/Problem+JSON; charset=utf-8")], r#"{"type":"/l"}"#, Some("/l"));
        check(&[problem, ("pawl-error-code", "")], locked, Some("https://acme.example/locked"));
        check(&[("content-type", "application/json")], locked, None);
        check(&[], locked, None);
        check(&[problem], r#"{"type": "about:blank"}"#, None);
        for body in ["", "{", "[]", "7", "{}", r#"{"type": 7}"#, r#"{"type": null}"#, r#"{"type": "x""#] {
            check(&[problem], body, None);
        }
    }

    #[test]
    fn an_own_code_that_is_too_long_is_none() {
        for (bytes, expect) in [(256, Some(256)), (257, None)] {
            let given = own_code_of(&[("pawl-error-code", &"x".repeat(bytes))], "");
            assert_eq!(given.map(|own| own.len()), expect);
        }
    }
}
