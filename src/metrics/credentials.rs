//! What Pawl comes to the brokers with, and whether the next token can be had.

use std::collections::BTreeMap;
use std::fmt::Error;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use crate::kafka::access;

/// What Pawl comes to the brokers with.
#[derive(Debug)]
pub(super) struct Credentials;

impl Collector for Credentials {
    fn encode(&self, encoder: DescriptorEncoder) -> Result<(), Error> {
        encode_credentials(&access::statuses(), encoder)
    }
}

/// A count of an access: name, help, value.
type AccessCount = (&'static str, &'static str, fn(&access::Status) -> u64);

const ACCESS_COUNTS: &[AccessCount] = &[
    ("pawl_kafka_token_refreshes", "Tokens for the brokers that were fetched", |access| access.refreshes),
    (
        "pawl_kafka_token_refresh_failures",
        "Attempts to fetch a token for the brokers that failed",
        |access| access.failures,
    ),
    (
        "pawl_kafka_credentials_reloads",
        "Passwords, certificates and keys for the brokers that were read anew",
        |access| access.reloads,
    ),
];

/// A program may run Pawl for several clusters: what has the same labels is one series.
fn encode_credentials(accesses: &[access::Status], mut encoder: DescriptorEncoder) -> Result<(), Error> {
    let mut by_security = BTreeMap::<&str, Vec<&access::Status>>::new();
    for access in accesses {
        by_security.entry(access.security).or_default().push(access);
    }
    for (name, help, value) in ACCESS_COUNTS {
        let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (security, accesses) in &by_security {
            let sum: u64 = accesses.iter().map(|access| value(access)).sum();
            let labels = [("security", *security)];
            metric.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&sum, None)?;
        }
    }
    let help = "Whether there are new certificates or keys for the brokers that are not in use";
    let mut metric =
        encoder.encode_descriptor("pawl_kafka_credentials_pending", help, None, MetricType::Gauge)?;
    for (security, accesses) in &by_security {
        let pending = u64::from(accesses.iter().any(|access| access.pending.is_some()));
        metric.encode_family(&[("security", *security)])?.encode_gauge(&pending)?;
    }
    let (help, unit) = ("When the token for the brokers ends, in seconds since 1970", Some(&Unit::Seconds));
    let mut metric = encoder.encode_descriptor("pawl_kafka_token_expires", help, unit, MetricType::Gauge)?;
    for (security, accesses) in &by_security {
        // The first that ends.
        if let Some(seconds) = accesses.iter().filter_map(|access| access.token_expires).min() {
            metric.encode_family(&[("security", *security)])?.encode_gauge(&seconds)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    #[derive(Debug)]
    struct These(Vec<access::Status>);

    impl Collector for These {
        fn encode(&self, encoder: DescriptorEncoder) -> Result<(), Error> {
            encode_credentials(&self.0, encoder)
        }
    }

    fn text(accesses: Vec<access::Status>) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(These(accesses)));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("text");
        text
    }

    #[test]
    fn the_end_of_a_token_failed_refreshes_and_what_waits_are_shown() {
        let access = access::Status {
            security: "msk-iam",
            token_expires: Some(1_700_000_000),
            failures: 2,
            pending: Some("brokers refuse them".into()),
            ..Default::default()
        };
        let text = text(vec![access]);
        for line in [
            "pawl_kafka_token_refresh_failures_total{security=\"msk-iam\"} 2",
            "pawl_kafka_credentials_pending{security=\"msk-iam\"} 1",
            "pawl_kafka_token_expires_seconds{security=\"msk-iam\"} 1700000000",
        ] {
            assert!(text.lines().any(|found| found == line), "{text}\nlacks {line}");
        }
    }

    #[test]
    fn accesses_to_several_clusters_are_one_series_where_they_have_the_same_labels() {
        let access = |security, token_expires, refreshes| access::Status {
            security,
            token_expires,
            refreshes,
            ..Default::default()
        };
        let waits = access::Status { pending: Some("no broker".into()), ..access("tls", None, 0) };
        let accesses = vec![
            access("oauth", Some(1_700_000_060), 2),
            access("tls", None, 0),
            waits,
            access("oauth", Some(1_700_000_000), 3),
        ];
        let text = text(accesses);
        let of = |name: &str| text.lines().filter(|line| line.starts_with(name)).collect::<Vec<_>>();
        assert_eq!(
            of("pawl_kafka_token_refreshes_total"),
            [
                "pawl_kafka_token_refreshes_total{security=\"oauth\"} 5",
                "pawl_kafka_token_refreshes_total{security=\"tls\"} 0"
            ]
        );
        let expires = "pawl_kafka_token_expires_seconds";
        assert_eq!(of(expires), [format!("{expires}{{security=\"oauth\"}} 1700000000")]);
        assert_eq!(
            of("pawl_kafka_credentials_pending"),
            [
                "pawl_kafka_credentials_pending{security=\"oauth\"} 0",
                "pawl_kafka_credentials_pending{security=\"tls\"} 1"
            ]
        );
    }
}
