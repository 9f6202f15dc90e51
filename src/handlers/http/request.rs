//! The request of one attempt: the record as a CloudEvent in HTTP's binary mode, and what
//! Pawl itself says of it.
//!
//! Record headers come from anybody who may write to the topic, so only these are passed on:
//! CloudEvents attributes, `content-type` and the W3C trace headers. A record cannot set `host`,
//! `authorization` or any other header of the call.

use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use hyper::{Method, Request, Uri};
use pawl_actors::handler::Call;
use pawl_actors::record::{Header, Record, TimestampType};
use percent_encoding::{AsciiSet, CONTROLS, percent_encode};

/// The most bytes of header names and values in one request. Servers commonly take 8 to 64 KiB;
/// beyond that a record could never be delivered, and the header table has a fixed capacity.
pub(super) const MAX_HEADER_BYTES: usize = 64 << 10;

/// The last millisecond of the year 9999, the end of what RFC 3339 can write.
const LAST_RFC3339_MILLIS: i64 = 253_402_300_799_999;

/// What header values must not hold as it is: the rule of the CloudEvents HTTP binding, section
/// 3.1.3.2. As `%` is encoded too, two different values never become the same header.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

static CE_SPECVERSION: HeaderName = HeaderName::from_static("ce-specversion");
static CE_TYPE: HeaderName = HeaderName::from_static("ce-type");
static CE_SOURCE: HeaderName = HeaderName::from_static("ce-source");
static CE_ID: HeaderName = HeaderName::from_static("ce-id");
static CE_TIME: HeaderName = HeaderName::from_static("ce-time");
static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
static PAWL_ATTEMPT: HeaderName = HeaderName::from_static("pawl-attempt");
static PAWL_CLAIM: HeaderName = HeaderName::from_static("pawl-claim");
static PAWL_TOPIC: HeaderName = HeaderName::from_static("pawl-topic");
static PAWL_PARTITION: HeaderName = HeaderName::from_static("pawl-partition");
static PAWL_OFFSET: HeaderName = HeaderName::from_static("pawl-offset");
static PAWL_KEY: HeaderName = HeaderName::from_static("pawl-key");
static PAWL_TOMBSTONE: HeaderName = HeaderName::from_static("pawl-tombstone");

/// The W3C trace headers; a record may hold the last two several times.
static TRACE: [HeaderName; 3] = [
    HeaderName::from_static("traceparent"),
    HeaderName::from_static("tracestate"),
    HeaderName::from_static("baggage"),
];

/// The record's headers make more bytes of HTTP headers than [`MAX_HEADER_BYTES`].
#[derive(Debug, PartialEq, Eq)]
pub(super) struct HeadersTooLarge {
    /// How many bytes they make.
    pub bytes: usize,
}

/// Builds the POST for one attempt.
pub(super) fn build(url: &Uri, call: &Call) -> Result<Request<Full<Bytes>>, HeadersTooLarge> {
    let record = &call.record;
    let mut headers = Headers::default();
    headers.set(&USER_AGENT, HeaderValue::from_static(concat!("pawl/", env!("CARGO_PKG_VERSION"))));

    let idempotency_key = encoded(&call.idempotency_key());
    let content_type = last(record, "content-type").and_then(|value| HeaderValue::from_bytes(value).ok());
    if !content_type.as_ref().is_some_and(is_structured) {
        set_attributes(&mut headers, call, &idempotency_key);
    }
    if let Some(content_type) = content_type {
        headers.set(&CONTENT_TYPE, content_type);
    }
    add_trace(&mut headers, record);

    headers.set(&IDEMPOTENCY_KEY, idempotency_key);
    headers.set(&PAWL_ATTEMPT, call.attempt.into());
    headers.set(&PAWL_CLAIM, call.claim.into());
    headers.set(&PAWL_TOPIC, encoded(call.source.topic.as_bytes()));
    headers.set(&PAWL_PARTITION, call.partition.0.into());
    headers.set(&PAWL_OFFSET, record.offset.0.into());
    if let Some(key) = &record.key {
        headers.set(&PAWL_KEY, encoded(key));
    }
    if record.value.is_none() {
        headers.set(&PAWL_TOMBSTONE, HeaderValue::from_static("true"));
    }

    let body = record.value.clone().unwrap_or_default();
    // hyper leaves it out where there is no body, and some servers then answer 411.
    headers.set(&CONTENT_LENGTH, body.len().into());

    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = url.clone();
    *request.headers_mut() = headers.finish()?;
    Ok(request)
}

/// Structured and batched mode: the attributes are in the body, so none may be in the headers.
fn is_structured(content_type: &HeaderValue) -> bool {
    const PREFIX: &[u8] = b"application/cloudevents";
    content_type.as_bytes().get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}

/// The record's CloudEvents attributes, and a default for each required one that it lacks, so
/// that every call is a valid CloudEvent.
fn set_attributes(headers: &mut Headers, call: &Call, id: &HeaderValue) {
    let record = &call.record;
    let mut has_attributes = false;
    for Header { name, value } in &record.headers {
        if let (Some(name), Some(value)) = (attribute(name), value) {
            headers.set(&name, encoded(value));
            has_attributes = true;
        }
    }
    headers.set_default(&CE_SPECVERSION, || HeaderValue::from_static("1.0"));
    headers.set_default(&CE_TYPE, || HeaderValue::from_static("pawl.record"));
    headers.set_default(&CE_SOURCE, || encoded(format!("/kafka/{}", call.source.topic).as_bytes()));
    headers.set_default(&CE_ID, || id.clone());
    if !has_attributes && let Some(time) = time(record) {
        headers.set(&CE_TIME, time);
    }
}

/// `ce_xxx` of the Kafka binding as `ce-xxx` of the HTTP binding; `None` for other headers and
/// for names that HTTP cannot carry.
fn attribute(name: &[u8]) -> Option<HeaderName> {
    let name = name.strip_prefix(b"ce_").filter(|name| !name.is_empty())?;
    HeaderName::from_bytes(&[b"ce-", name].concat()).ok()
}

fn time(record: &Record) -> Option<HeaderValue> {
    let known = record.timestamp_type != TimestampType::NotAvailable;
    // A producer may write any number; RFC 3339 has years from 0 to 9999.
    let writable = (0..=LAST_RFC3339_MILLIS).contains(&record.timestamp.0);
    (known && writable).then(|| {
        let time = UNIX_EPOCH + Duration::from_millis(record.timestamp.0.unsigned_abs());
        encoded(humantime::format_rfc3339_millis(time).to_string().as_bytes())
    })
}

fn add_trace(headers: &mut Headers, record: &Record) {
    for Header { name, value } in &record.headers {
        let trace = TRACE.iter().find(|trace| name.eq_ignore_ascii_case(trace.as_str().as_bytes()));
        let value = value.as_ref().and_then(|value| HeaderValue::from_bytes(value).ok());
        if let (Some(trace), Some(value)) = (trace, value) {
            headers.add(trace, value);
        }
    }
}

fn last<'a>(record: &'a Record, name: &str) -> Option<&'a Bytes> {
    let named = |header: &&Header| header.name.eq_ignore_ascii_case(name.as_bytes());
    record.headers.iter().rev().find(named).and_then(|header| header.value.as_ref())
}

fn encoded(bytes: &[u8]) -> HeaderValue {
    HeaderValue::try_from(percent_encode(bytes, ENCODED).to_string())
        .expect("a percent-encoded value is visible ASCII")
}

/// A header table that stops to grow at the bound but goes on counting, for the message.
#[derive(Default)]
struct Headers {
    map: HeaderMap,
    bytes: usize,
}

impl Headers {
    fn set(&mut self, name: &HeaderName, value: HeaderValue) {
        if self.fits(name, &value) {
            self.map.insert(name, value);
        }
    }

    fn set_default(&mut self, name: &HeaderName, value: impl FnOnce() -> HeaderValue) {
        if !self.map.contains_key(name) {
            self.set(name, value());
        }
    }

    fn add(&mut self, name: &HeaderName, value: HeaderValue) {
        if self.fits(name, &value) {
            self.map.append(name, value);
        }
    }

    fn fits(&mut self, name: &HeaderName, value: &HeaderValue) -> bool {
        self.bytes += name.as_str().len() + value.len();
        self.bytes <= MAX_HEADER_BYTES
    }

    fn finish(self) -> Result<HeaderMap, HeadersTooLarge> {
        if self.bytes > MAX_HEADER_BYTES {
            return Err(HeadersTooLarge { bytes: self.bytes });
        }
        Ok(self.map)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pawl_actors::record::Millis;

    use super::super::tests::{call, record};
    use super::*;

    fn header(name: &[u8], value: Option<&[u8]>) -> Header {
        Header { name: Bytes::copy_from_slice(name), value: value.map(Bytes::copy_from_slice) }
    }

    fn sent(record: Record) -> HeaderMap {
        sent_by(call(record))
    }

    fn sent_by(call: Call) -> HeaderMap {
        let url = Uri::from_static("http://service/events");
        build(&url, &call).expect("headers fit").headers().clone()
    }

    #[track_caller]
    fn check(headers: &HeaderMap, name: &str, expect: &[&str]) {
        let values: Vec<_> = headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect();
        assert_eq!(values, expect, "{name}");
    }

    #[test]
    fn a_plain_record_becomes_a_cloud_event_with_defaults() {
        let headers = sent(record());
        check(&headers, "ce-specversion", &["1.0"]);
        check(&headers, "ce-type", &["pawl.record"]);
        check(&headers, "ce-source", &["/kafka/orders"]);
        check(&headers, "ce-id", &["topic-id/3/42"]);
        check(&headers, "ce-time", &["2023-11-14T22:13:20.123Z"]);
        check(&headers, "content-type", &[]);
        check(&headers, "user-agent", &[concat!("pawl/", env!("CARGO_PKG_VERSION"))]);
    }

    #[test]
    fn the_call_says_which_record_and_which_attempt_it_is() {
        let headers = sent(record());
        check(&headers, "idempotency-key", &["topic-id/3/42"]);
        check(&headers, "pawl-attempt", &["2"]);
        check(&headers, "pawl-claim", &["7"]);
        check(&headers, "pawl-topic", &["orders"]);
        check(&headers, "pawl-partition", &["3"]);
        check(&headers, "pawl-offset", &["42"]);
        check(&headers, "pawl-key", &["order%201%FF"]);
        check(&headers, "pawl-tombstone", &[]);
    }

    #[test]
    fn attributes_of_the_record_win_over_the_defaults_and_lose_no_time_to_them() {
        let headers = sent(Record {
            headers: vec![
                header(b"ce_id", Some(b"first")),
                header(b"ce_id", Some(b"order 1 \"a\" 100% \xc3\xa9")),
                header(b"ce_source", Some(b"/shop")),
                header(b"ce_tenant", Some(b"acme")),
            ],
            ..record()
        });
        check(&headers, "ce-id", &["order%201%20%22a%22%20100%25%20%C3%A9"]);
        check(&headers, "ce-source", &["/shop"]);
        check(&headers, "ce-tenant", &["acme"]);
        check(&headers, "ce-type", &["pawl.record"]);
        check(&headers, "ce-time", &[]);
    }

    #[test]
    fn structured_mode_passes_without_attributes_in_the_headers() {
        for content_type in
            ["application/cloudevents+json; charset=utf-8", "Application/CloudEvents-batch+json"]
        {
            let headers = sent(Record {
                headers: vec![
                    header(b"content-type", Some(content_type.as_bytes())),
                    header(b"ce_id", Some(b"1")),
                ],
                ..record()
            });
            check(&headers, "content-type", &[content_type]);
            assert!(headers.keys().all(|name| !name.as_str().starts_with("ce-")), "{headers:?}");
        }
    }

    #[test]
    fn only_known_headers_of_a_record_reach_the_service() {
        let headers = sent(Record {
            headers: vec![
                header(b"authorization", Some(b"Bearer stolen")),
                header(b"host", Some(b"elsewhere")),
                header(b"Content-Type", Some(b"application/json")),
                header(b"traceparent", Some(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")),
                header(b"tracestate", Some(b"a=1")),
                header(b"tracestate", Some(b"b=2")),
                header(b"baggage", Some(b"user=1")),
            ],
            ..record()
        });
        check(&headers, "authorization", &[]);
        check(&headers, "host", &[]);
        check(&headers, "content-type", &["application/json"]);
        check(&headers, "traceparent", &["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"]);
        check(&headers, "tracestate", &["a=1", "b=2"]);
        check(&headers, "baggage", &["user=1"]);
    }

    #[test]
    fn header_names_and_values_that_http_cannot_carry_do_no_harm() {
        let headers = sent(Record {
            headers: vec![
                header(b"\xff\xfe", Some(b"x")),
                header(b"ce_\xff", Some(b"x")),
                header(b"ce_a b", Some(b"x")),
                header(b"ce_", Some(b"x")),
                header(b"ce_null", None),
                header(b"ce_raw", Some(b"\x00\r\n\xff")),
                header(b"content-type", Some(b"text/plain\r\nx: y")),
                header(b"traceparent", Some(b"\x00")),
            ],
            ..record()
        });
        let attributes: Vec<_> = headers.keys().filter(|name| name.as_str().starts_with("ce-")).collect();
        assert_eq!(attributes, ["ce-raw", "ce-specversion", "ce-type", "ce-source", "ce-id"]);
        check(&headers, "ce-raw", &["%00%0D%0A%FF"]);
        check(&headers, "content-type", &[]);
        check(&headers, "traceparent", &[]);
    }

    #[test]
    fn different_event_ids_never_share_an_idempotency_key() {
        let key = |id: &'static [u8]| {
            let headers = sent_by(Call { event_id: Some(Bytes::from_static(id)), ..call(record()) });
            headers["idempotency-key"].clone()
        };
        assert_eq!(key(b"e-1"), "e-1");
        assert_eq!(key(b"\xff"), "%FF");
        assert_eq!(key(b"\xfe"), "%FE");
        assert_ne!(key(b"a b"), key(b"a%20b"));
    }

    #[test]
    fn a_tombstone_is_marked_and_an_empty_value_is_not() {
        check(&sent(Record { value: None, ..record() }), "pawl-tombstone", &["true"]);
        check(&sent(Record { value: Some(Bytes::new()), ..record() }), "pawl-tombstone", &[]);
    }

    #[test]
    fn a_timestamp_that_rfc_3339_cannot_write_is_left_out() {
        for millis in [-1, LAST_RFC3339_MILLIS + 1, i64::MIN, i64::MAX] {
            check(&sent(Record { timestamp: Millis(millis), ..record() }), "ce-time", &[]);
        }
        let last = sent(Record { timestamp: Millis(LAST_RFC3339_MILLIS), ..record() });
        check(&last, "ce-time", &["9999-12-31T23:59:59.999Z"]);
        check(&sent(Record { timestamp_type: TimestampType::NotAvailable, ..record() }), "ce-time", &[]);
    }

    #[test]
    fn a_null_key_has_no_header() {
        check(&sent(Record { key: None, ..record() }), "pawl-key", &[]);
    }

    #[test]
    fn headers_beyond_the_bound_are_refused_with_their_size() {
        let many = (0..40_000).map(|n| header(format!("ce_{n}").as_bytes(), Some(b"x"))).collect();
        let big_key = Some(Bytes::from(vec![b'k'; MAX_HEADER_BYTES]));
        for record in [Record { headers: many, ..record() }, Record { key: big_key, ..record() }] {
            let call = Call { record: Arc::new(record), ..call(super::super::tests::record()) };
            let refused = build(&Uri::from_static("http://service/"), &call).unwrap_err();
            assert!(refused.bytes > MAX_HEADER_BYTES, "{refused:?}");
        }
    }
}
