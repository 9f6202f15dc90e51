//! Where OTLP goes: the settings, or the variables that OpenTelemetry's specification gives every exporter.

use std::path::Path;

use hyper::Uri;
use hyper::header::{HeaderName, HeaderValue};

use crate::bounded_file;
use crate::settings::{Telemetry as Settings, names_a_user, shown_url};

/// The largest file of headers that is read.
const MAX_HEADERS_FILE_BYTES: u64 = 64 << 10;
/// Paths of the signals below an endpoint (OTLP 1.x, "OTLP/HTTP Request").
const TRACES_PATH: &str = "v1/traces";
const METRICS_PATH: &str = "v1/metrics";

/// Why telemetry cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// An endpoint is no URL.
    #[error(
        "{place}: {url:?} cannot be used as an OTLP endpoint: {reason}; write it as \"http://collector:4318\""
    )]
    Endpoint {
        /// The setting or variable.
        place: String,
        /// What it says, without what may be a secret.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// The headers cannot be read.
    #[error(
        "{place}: the headers for the OTLP endpoint cannot be used: {reason}; write name=value, one a line"
    )]
    Headers {
        /// The setting or variable.
        place: String,
        /// What is wrong, without any value.
        reason: String,
    },
    /// No thread, no runtime, or no certificate authorities.
    #[error("telemetry cannot be started: {0}")]
    Start(String),
}

/// Where each signal goes; `None`: it is not sent.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Spans.
    pub traces: Option<Uri>,
    /// Metrics.
    pub metrics: Option<Uri>,
    /// Sent with each request; they may hold a secret.
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl Destination {
    /// From settings and environment; `None`: nothing is to be sent.
    ///
    /// # Errors
    /// An endpoint or headers that cannot be used.
    pub fn find(
        settings: &Settings,
        variable: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Option<Self>, TelemetryError> {
        let variable = |name: &str| variable(name).filter(|text| !text.trim().is_empty());
        if variable("OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        let otlp = &settings.otlp;
        let of = |own: &str, path: &str| match (&otlp.endpoint, variable(own)) {
            (Some(endpoint), _) => below("telemetry.otlp.endpoint", endpoint, path).map(Some),
            // The one of a signal is taken as it is, that of all is a base.
            (None, Some(endpoint)) => checked(own, &endpoint).map(Some),
            (None, None) => {
                let all = "OTEL_EXPORTER_OTLP_ENDPOINT";
                variable(all).map(|endpoint| below(all, &endpoint, path)).transpose()
            }
        };
        let traces = if otlp.traces { of("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", TRACES_PATH)? } else { None };
        let metrics =
            if otlp.metrics { of("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", METRICS_PATH)? } else { None };
        if traces.is_none() && metrics.is_none() {
            return Ok(None);
        }
        let headers = match &otlp.headers_file {
            Some(file) => from_file(file)?,
            None => {
                let name = "OTEL_EXPORTER_OTLP_HEADERS";
                variable(name).map_or(Ok(Vec::new()), |text| parse(name, text.split(',')))?
            }
        };
        Ok(Some(Destination { traces, metrics, headers }))
    }
}

fn below(place: &str, endpoint: &str, path: &str) -> Result<Uri, TelemetryError> {
    checked(place, &format!("{}/{path}", endpoint.trim().trim_end_matches('/')))
}

fn checked(place: &str, url: &str) -> Result<Uri, TelemetryError> {
    let refused = |reason: String| TelemetryError::Endpoint {
        place: place.to_owned(),
        url: shown_url(url).to_owned(),
        reason,
    };
    let uri: Uri =
        url.trim().parse().map_err(|error: hyper::http::uri::InvalidUri| refused(error.to_string()))?;
    match uri.scheme_str() {
        Some("http" | "https") if names_a_user(url) => Err(refused(
            "a user name or password in it would not be sent: put a header with them into \
             telemetry.otlp.headers_file or OTEL_EXPORTER_OTLP_HEADERS"
                .into(),
        )),
        Some("http" | "https") if uri.host().is_some_and(|host| !host.is_empty()) => Ok(uri),
        _ => {
            Err(refused("it must begin with http:// or https:// and name a host (gRPC is not spoken)".into()))
        }
    }
}

fn from_file(file: &Path) -> Result<Vec<(HeaderName, HeaderValue)>, TelemetryError> {
    let place = format!("telemetry.otlp.headers_file ({})", file.display());
    let refused = |reason: String| TelemetryError::Headers { place: place.clone(), reason };
    let bytes =
        bounded_file::read(file, MAX_HEADERS_FILE_BYTES).map_err(|error| refused(error.to_string()))?;
    let text = std::str::from_utf8(&bytes).map_err(|_| refused("it is not UTF-8".into()))?;
    parse(&place, text.lines())
}

/// `name=value` pairs, values percent-encoded as the specification has them (that of W3C Baggage).
fn parse<'a>(
    place: &str,
    pairs: impl Iterator<Item = &'a str>,
) -> Result<Vec<(HeaderName, HeaderValue)>, TelemetryError> {
    let refused = |reason: String| TelemetryError::Headers { place: place.to_owned(), reason };
    let mut headers = Vec::new();
    for (number, pair) in pairs.map(str::trim).enumerate().filter(|(_, pair)| !pair.is_empty()) {
        let number = number + 1;
        let Some((name, value)) = pair.split_once('=') else {
            return Err(refused(format!("entry {number} has no \"=\"")));
        };
        let name = name.trim();
        let parsed: HeaderName = name
            .parse()
            .map_err(|_| refused(format!("entry {number} does not begin with a header's name")))?;
        let value = percent_encoding::percent_decode_str(value.trim()).collect::<Vec<u8>>();
        let mut value = HeaderValue::from_bytes(&value)
            .map_err(|_| refused(format!("the value of {name} has bytes that no header may have")))?;
        value.set_sensitive(true);
        headers.push((parsed, value));
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Otlp;

    fn found(otlp: Otlp, variables: &[(&str, &str)]) -> Result<Option<Destination>, TelemetryError> {
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        Destination::find(&Settings { otlp, ..Settings::default() }, &variable)
    }

    fn urls(destination: Option<Destination>) -> [Option<String>; 2] {
        let destination = destination.expect("telemetry is on");
        [destination.traces, destination.metrics].map(|url| url.map(|url| url.to_string()))
    }

    #[test]
    fn nothing_is_sent_where_nobody_names_an_endpoint() {
        assert!(found(Otlp::default(), &[]).unwrap().is_none());
        assert!(found(Otlp::default(), &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]).unwrap().is_none());
    }

    #[test]
    fn the_settings_win_over_the_signals_variable_and_that_over_the_one_of_all() {
        let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4318/base/");
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://own:1/as/it/is");
        let both = || Otlp { metrics: true, ..Otlp::default() };
        let expected = [Some("http://own:1/as/it/is".into()), Some("http://all:4318/base/v1/metrics".into())];
        assert_eq!(urls(found(both(), &[all, own]).unwrap()), expected);
        let settings = Otlp { endpoint: Some("https://set".into()), ..Otlp::default() };
        assert_eq!(urls(found(settings, &[all, own]).unwrap()), [Some("https://set/v1/traces".into()), None]);
    }

    #[test]
    fn the_specification_can_switch_everything_off() {
        let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4318"), ("OTEL_SDK_DISABLED", "TRUE")];
        assert!(found(Otlp::default(), &variables).unwrap().is_none());
    }

    #[test]
    fn an_endpoint_that_is_none_is_told_with_its_place() {
        let error = found(Otlp::default(), &[("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317")]).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("OTEL_EXPORTER_OTLP_ENDPOINT") && text.contains("http://collector:4318"),
            "{text}"
        );
    }

    #[test]
    fn an_endpoint_with_a_password_is_refused_and_no_message_shows_it_or_a_query() {
        let name = "OTEL_EXPORTER_OTLP_ENDPOINT";
        for (url, why) in [
            ("user:s3cret@collector:4318", ""),
            ("https://user:s3cret@collector:4318", "would not be sent"),
            ("https:/user:s3cret@collector:4318", ""),
            ("collector:4318?key=s3cret", ""),
        ] {
            let text = found(Otlp::default(), &[(name, url)]).unwrap_err().to_string();
            assert!(text.contains(name) && text.contains(why) && !text.contains("s3cret"), "{text}");
        }
    }

    #[test]
    fn headers_come_from_the_environment_and_no_message_shows_a_value() {
        let at = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://all:4318");
        let headers = |text| found(Otlp::default(), &[at, ("OTEL_EXPORTER_OTLP_HEADERS", text)]);
        let read = headers("x-tenant=acme, authorization=Bearer%20s3cret").unwrap().unwrap().headers;
        assert_eq!(read.len(), 2);
        assert_eq!((read[1].0.as_str(), read[1].1.as_bytes()), ("authorization", &b"Bearer s3cret"[..]));
        for wrong in ["s3cret", "a b=s3cret", "x=%00s3cret"] {
            let text = headers(wrong).unwrap_err().to_string();
            assert!(text.contains("OTEL_EXPORTER_OTLP_HEADERS") && !text.contains("s3cret"), "{text}");
        }
    }

    #[test]
    fn headers_come_from_a_file_one_a_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "authorization=Bearer%20x\n\nx-tenant=acme\n").unwrap();
        let otlp = Otlp {
            endpoint: Some("http://c:4318".into()),
            headers_file: Some(file.path().into()),
            ..Otlp::default()
        };
        assert_eq!(found(otlp.clone(), &[]).unwrap().unwrap().headers.len(), 2);
        // A device has no length and no end.
        for (file, why) in [("/nowhere/headers", "No such file"), ("/dev/zero", "it is larger than 64 KiB")] {
            let wrong = Otlp { headers_file: Some(file.into()), ..otlp.clone() };
            let text = found(wrong, &[]).unwrap_err().to_string();
            assert!(
                text.contains(&format!("telemetry.otlp.headers_file ({file})")) && text.contains(why),
                "{text}"
            );
        }
    }
}
