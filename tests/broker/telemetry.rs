//! Telemetry end to end: real OTLP receivers, and what is left of a record's trace wherever it goes.

mod real_collector;

use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;

use crate::support::otlp::{Collector, Span};
use crate::support::{self, Broker, Out, Pawl, Reply, Service, command_with, process};

const DEADLINE: Duration = Duration::from_secs(60);
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

const CLIENT: i64 = 3;
const PRODUCER: i64 = 4;
const CONSUMER: i64 = 5;
const SERVER: i64 = 2;

/// The sample service of the compose file, as a process of its own.
struct Billing {
    child: Child,
    url: String,
}

impl Billing {
    fn start(otlp: &str) -> Billing {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        drop(listener);
        let mut command = Command::new("python3");
        command
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("docker/billing/billing.py"))
            .envs([("PORT", port.to_string()), ("OTEL_EXPORTER_OTLP_ENDPOINT", otlp.to_owned())])
            .env("OTEL_SERVICE_NAME", "billing");
        let child = process::spawn(command).expect("python3 can be started");
        let url = format!("http://127.0.0.1:{port}/events");
        support::until("the billing service", DEADLINE, || {
            support::http::request(port, "GET", "/health", "").ok().filter(|(status, _)| *status == 200)
        });
        Billing { child, url }
    }
}

impl Drop for Billing {
    fn drop(&mut self) {
        process::kill(&mut self.child);
    }
}

/// Publishes an order and has it forwarded, and what is forwarded billed: `orders` → route → `accepted` → billing.
/// Says what the emitted record names as its span.
fn run_the_chain(broker: &Broker, otlp: &str) -> (String, String) {
    let (orders, accepted) = (support::topic(broker, "orders", 1), support::topic(broker, "accepted", 1));
    let (route, bill) = (support::unique("route"), support::unique("bill"));
    let billing = Billing::start(otlp);
    let mut pawl = Pawl::new(&format!(
        "[kafka]\nbootstrap_servers = [\"{}\"]\n[telemetry]\nservice_name = \"orders-pawl\"\n\
         otlp = {{ endpoint = \"{otlp}\", export_interval = \"50ms\" }}\n\
         [handler.route]\ntopic = \"{orders}\"\ngroup = \"{route}\"\nforward = {{ topic = \"{accepted}\" }}\n\
         [handler.bill]\ntopic = \"{accepted}\"\ngroup = \"{bill}\"\nhttp = {{ url = \"{}\" }}\n",
        broker.bootstrap(),
        billing.url,
    ));
    pawl.start().wait_ready();
    let variables =
        [("OTEL_EXPORTER_OTLP_ENDPOINT", otlp), ("OTEL_SERVICE_NAME", "shop"), ("TRACEPARENT", PARENT)];
    let args = ["publish", "-b", broker.bootstrap(), "--topic", &orders, "--key", "json:/id"];
    let published = command_with(&variables, &args, b"{\"id\":\"ORD-1\"}");
    assert_eq!(published.code, 0, "{published:?}");
    let emitted = support::read_until(broker, &accepted, DEADLINE, |seen| seen.len() == 1).remove(0);
    support::until("the bill", DEADLINE, || {
        (pawl.metric("pawl_records_applied_total")? >= 2.0).then_some(())
    });
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    let named = String::from_utf8(emitted.header("traceparent").expect("it names its span").to_vec());
    (orders, named.expect("text"))
}

/// Holds the spans of the chain against each other: all in the trace of whoever called `pawl publish`, each the child
/// of the one before it.
fn check_the_chain(orders: &str, emitted: &str, wait: impl Fn(&str, &dyn Fn(&Span) -> bool) -> Span) {
    let child = |what: &str, of: &str, kind: i64, service: &str| {
        let span =
            wait(what, &|span: &Span| span.parent == of && span.kind == kind && span.service == service);
        assert_eq!(span.trace, TRACE, "{span:?}");
        println!(
            "{:<12} {:<8} {} parent {}",
            span.service,
            span.name.split(' ').next().unwrap_or_default(),
            span.id,
            of
        );
        span
    };
    let published = child("the publisher's span", "b7ad6b7169203331", PRODUCER, "shop");
    assert_eq!(published.name, format!("send {orders}"));
    let routed = child("the attempt at forwarding", &published.id, CONSUMER, "orders-pawl");
    assert_eq!(routed.name, format!("process {orders}"));
    let sent = child("the emitted record's span", &routed.id, PRODUCER, "orders-pawl");
    assert_eq!(emitted, format!("00-{TRACE}-{}-01", sent.id), "the record that lies in the topic names it");
    let billed = child("the attempt at billing", &sent.id, CONSUMER, "orders-pawl");
    let called = child("the call", &billed.id, CLIENT, "orders-pawl");
    assert_eq!(called.attribute("http.response.status_code"), "204");
    let served = child("the service's own span", &called.id, SERVER, "billing");
    assert_eq!(served.name, "POST /events");

    let expected = [
        ("messaging.system", "kafka"),
        ("messaging.operation.type", "process"),
        ("messaging.operation.name", "process"),
        ("messaging.destination.name", orders),
        ("messaging.destination.partition.id", "0"),
        ("messaging.kafka.offset", "0"),
        ("messaging.kafka.message.key", "ORD-1"),
        ("messaging.message.body.size", "14"),
        ("pawl.handler", "route"),
        ("pawl.attempt", "1"),
    ];
    for (name, value) in expected {
        assert_eq!(routed.attribute(name), value, "{name} of {routed:?}");
    }
    for of in [&routed, &billed] {
        let links = (of.trace.clone(), of.id.clone());
        let commit = wait("the epoch commit", &|span: &Span| span.links.contains(&links));
        assert!(commit.name.starts_with("commit ") && commit.parent.is_empty(), "{commit:?}");
    }
}

#[test]
fn one_trace_spans_publisher_pawl_the_billing_service_and_the_emitted_record() {
    let Some(broker) = support::broker() else { return };
    let collector = Collector::start();
    let (orders, emitted) = run_the_chain(broker, &collector.url());
    check_the_chain(&orders, &emitted, |what, matching| collector.wait(what, matching));
}

#[test]
fn a_record_keeps_its_trace_through_retries_its_dead_letter_and_a_replay() {
    let Some(broker) = support::broker() else { return };
    let (input, group) = (support::topic(broker, "orders", 1), support::unique("billing"));
    let collector = Collector::start();
    let service = Service::start(|_| Reply::status(503));
    let mut pawl = Pawl::new(&support::settings(
        broker,
        &input,
        &group,
        &format!(
            "http = {{ url = \"{}\" }}\nretry = {{ attempts = 2, initial = \"10ms\" }}\nbreaker = {{ keys = 0 }}\n\
             [telemetry.otlp]\nendpoint = \"{}\"\nexport_interval = \"50ms\"\n",
            service.url(),
            collector.url()
        ),
    ));
    pawl.start().wait_ready();
    let record = Out::new("ORD-1", "{}")
        .header("TraceParent", PARENT)
        .header("tracestate", "shop=1")
        .header("baggage", "user=7,region=eu")
        .header("other", "x");
    let headers = record.headers.clone();
    support::produce(broker, &input, [record]);

    let attempt = |number: &str, after: usize| {
        support::until("an attempt's span", DEADLINE, || {
            let spans = collector.spans();
            let wanted = |span: &&Span| span.kind == CONSUMER && span.attribute("pawl.attempt") == number;
            spans.iter().filter(wanted).nth(after).cloned()
        })
    };
    for number in ["1", "2"] {
        let span = attempt(number, 0);
        assert_eq!((span.trace.as_str(), span.parent.as_str()), (TRACE, "b7ad6b7169203331"));
        assert_eq!((span.status, span.attribute("error.type")), (2, "pawl.Unavailable"));
        let call = collector.wait("its call", |call| call.parent == span.id && call.kind == CLIENT);
        assert_eq!((call.status, call.attribute("error.type")), (2, "503"));
    }
    // The call names the call's own span; what is the application's passes as it was.
    let calls = service.calls();
    let said = |name: &str| calls[0].received.headers.get(name).map(|value| value.to_str().expect("text"));
    assert_eq!((said("tracestate"), said("baggage")), (Some("shop=1"), Some("user=7,region=eu")));
    let first =
        collector.wait("the first call", |span| span.kind == CLIENT && span.attribute("pawl.attempt") == "1");
    assert_eq!(said("traceparent"), Some(&*format!("00-{TRACE}-{}-01", first.id)));

    let letter =
        support::read_until(broker, &format!("{input}-dlt"), DEADLINE, |seen| seen.len() == 1).remove(0);
    assert_eq!(letter.headers[..headers.len()], headers, "byte for byte");
    let last = attempt("2", 0);
    collector.wait("the commit of the letter", |span| span.links.contains(&(TRACE.into(), last.id.clone())));

    service.script(|_| Reply::status(200));
    let config = pawl.dir().join("pawl.toml");
    let replay = ["dlt", "replay", "--all", "--config", config.to_str().expect("a path in UTF-8")];
    let replayed = command_with(&[], &replay, b"");
    assert_eq!(replayed.code, 0, "{replayed:?}");
    let again = support::until("the replay's span", DEADLINE, || {
        collector.spans().into_iter().find(|span| span.kind == CONSUMER && span.status != 2)
    });
    assert_eq!((again.trace.as_str(), again.parent.as_str()), (TRACE, "b7ad6b7169203331"), "the first trace");
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
}

#[test]
fn an_endpoint_that_is_down_holds_no_record_up_and_what_is_lost_is_counted() {
    let Some(broker) = support::broker() else { return };
    let (input, output) = (support::topic(broker, "orders", 1), support::topic(broker, "copies", 1));
    let collector = Collector::start();
    collector.refuse(true);
    let mut pawl = Pawl::new(&support::settings(
        broker,
        &input,
        &support::unique("copy"),
        &format!(
            "forward = {{ topic = \"{output}\" }}\n[telemetry.otlp]\nendpoint = \"{}\"\nqueue_spans = 10\n\
             export_interval = \"10ms\"\n",
            collector.url()
        ),
    ));
    pawl.start().wait_ready();
    support::produce(broker, &input, (0..500).map(|n| Out::new(format!("{}", n % 7), format!("{n}"))));
    support::read_until(broker, &output, DEADLINE, |seen| seen.len() == 500);
    let lost = || pawl.metric("pawl_telemetry_spans_dropped_total");
    support::until("the loss", DEADLINE, || lost().filter(|lost| *lost > 0.0));
    assert!(pawl.log().contains("telemetry: spans cannot be sent"), "{}", pawl.log());

    collector.refuse(false);
    support::until("spans again", DEADLINE, || {
        support::produce(broker, &input, [Out::new("later", "later")]);
        (!collector.spans().is_empty()).then_some(())
    });
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    assert_eq!(pawl.log().matches("telemetry: spans cannot be sent").count(), 1, "told once");
}

#[test]
fn without_telemetry_trace_headers_pass_byte_for_byte() {
    let Some(broker) = support::broker() else { return };
    let (input, output) = (support::topic(broker, "orders", 1), support::topic(broker, "copies", 1));
    let more = format!("forward = {{ topic = \"{output}\" }}");
    let mut pawl = Pawl::new(&support::settings(broker, &input, &support::unique("copy"), &more));
    pawl.start().wait_ready();
    let record =
        Out::new("k", "v").header("traceparent", PARENT).header("tracestate", "a=1").header("x", "y");
    support::produce(broker, &input, [record.clone()]);
    let copy = support::read_until(broker, &output, DEADLINE, |seen| seen.len() == 1).remove(0);
    assert_eq!(copy.headers, record.headers);
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
}

/// Samples of the older text, by name and labels.
fn samples(text: &str) -> std::collections::BTreeSet<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
}

#[test]
fn metrics_go_out_over_otlp_with_the_names_and_labels_of_the_endpoint_and_to_cloudwatch_as_lines() {
    use opentelemetry_proto::tonic::metrics::v1::metric::Data;
    let Some(broker) = support::broker() else { return };
    let input = support::topic(broker, "orders", 2);
    let collector = Collector::start();
    let service = Service::start(|call| Reply::status(if call.key == "poison" { 422 } else { 200 }));
    let mut pawl = Pawl::new(&support::settings(
        broker,
        &input,
        &support::unique("billing"),
        &format!(
            "http = {{ url = \"{}\" }}\n[telemetry]\nemf = {{ namespace = \"Pawl\", interval = \"1s\" }}\n\
             otlp = {{ endpoint = \"{}\", traces = false, metrics = true, metrics_interval = \"1s\" }}\n",
            service.url(),
            collector.url()
        ),
    ));
    pawl.start().wait_ready();
    support::produce(
        broker,
        &input,
        [Out::new("ORD-1", "1"), Out::new("poison", "2"), Out::new("ORD-2", "3")],
    );
    let value = |wanted: &str| {
        let found = collector.metrics().into_iter().rfind(|metric| metric.name == wanted)?;
        let points = match found.data? {
            Data::Sum(sum) => sum.data_points,
            Data::Gauge(gauge) => gauge.data_points,
            other => panic!("{other:?}"),
        };
        let value = |point: &opentelemetry_proto::tonic::metrics::v1::NumberDataPoint| match point.value {
            Some(opentelemetry_proto::tonic::metrics::v1::number_data_point::Value::AsDouble(value)) => value,
            other => panic!("{other:?}"),
        };
        Some(points.iter().map(value).sum::<f64>())
    };
    for (name, expected) in
        [("pawl_records_applied", 2.0), ("pawl_dead_letters", 1.0), ("pawl_handler_ready", 1.0)]
    {
        support::until(name, DEADLINE, || value(name).filter(|value| *value == expected));
    }
    assert!(collector.spans().is_empty(), "traces are off");
    let lag = || {
        let log = pawl.log();
        let line = log.lines().rfind(|line| line.starts_with('{') && line.contains("\"_aws\""))?;
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON on a line of its own");
        (line["handler"] == "billing" && line["partitions"] == 2).then(|| line["lag"].clone())
    };
    support::until("a line for CloudWatch", DEADLINE, || lag().filter(|lag| *lag == 0));

    // What the endpoint shows of a handler that works; .ci/observability holds dashboard and alerts against it.
    let (_, text) = pawl.get("/metrics").expect("the endpoint answers");
    let sent: std::collections::BTreeSet<String> =
        collector.metrics().into_iter().map(|metric| metric.name).collect();
    let missing: Vec<String> = samples(&text)
        .into_iter()
        .map(|sample| sample.split('{').next().unwrap_or_default().to_owned())
        .filter(|name| {
            let family =
                ["_total", "_sum", "_count", "_bucket"].iter().find_map(|end| name.strip_suffix(end));
            !sent.contains(name) && !family.is_some_and(|family| sent.contains(family))
        })
        .collect();
    assert_eq!(missing, Vec::<String>::new(), "all of them go out");
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("tmp lies in the target directory");
    std::fs::create_dir_all(dir.join("observability")).expect("the target directory can be written");
    std::fs::write(dir.join("observability/metrics.txt"), text).expect("the target directory can be written");
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
}

#[test]
fn a_failing_record_is_told_in_json_with_its_place_key_attempt_and_trace_as_fields() {
    let Some(broker) = support::broker() else { return };
    let input = support::topic(broker, "orders", 1);
    let (collector, service) = (Collector::start(), Service::start(|_| Reply::status(503)));
    let settings = |keys: &str| {
        support::settings(
            broker,
            &input,
            "unused",
            &format!(
                "http = {{ url = \"{}\" }}\nretry = {{ attempts = 2, initial = \"10ms\" }}\nbreaker = {{ keys = 0 }}\n\
                 dead_letter = {{ then = \"continue\" }}\n[log]\nformat = \"json\"\nkeys = \"{keys}\"\n\
                 [telemetry.otlp]\nendpoint = \"{}\"\n",
                service.url(),
                collector.url()
            ),
        )
        .replace("\"unused\"", &format!("{:?}", support::unique("billing")))
    };
    let mut pawl = Pawl::new(&settings("shown"));
    pawl.start().wait_ready();
    support::produce(broker, &input, [Out::new("ann@example.org", "{}").header("traceparent", PARENT)]);
    let line = |pawl: &Pawl, saying: &str| {
        support::until(saying, DEADLINE, || {
            let log = pawl.log();
            let lines = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
            lines.into_iter().find(|line| line["message"].as_str().is_some_and(|text| text.contains(saying)))
        })
    };
    for (saying, attempt) in [("attempt 2 of 2", 1), ("sent to", 2)] {
        let line = line(&pawl, saying);
        assert_eq!((&line["handler"], &line["topic"]), (&"billing".into(), &input.as_str().into()), "{line}");
        assert_eq!((&line["partition"], &line["offset"]), (&0.into(), &0.into()), "{line}");
        assert_eq!((&line["key"], &line["attempt"]), (&"ann@example.org".into(), &attempt.into()), "{line}");
        assert_eq!(
            (&line["trace_id"], line["span_id"].as_str().map(str::len)),
            (&TRACE.into(), Some(16)),
            "{line}"
        );
    }
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    assert!(pawl.log().lines().all(|line| line.starts_with('{')), "every line is JSON: {}", pawl.log());

    let mut hiding = Pawl::new(&settings("hashed"));
    hiding.start().wait_ready();
    let hashed = line(&hiding, "sent to");
    assert!(hashed["key"].as_str().is_some_and(|key| key.len() == 17 && key.starts_with('#')), "{hashed}");
    assert_eq!(hiding.terminate(), 0, "{}", hiding.log());
    assert!(!hiding.log().contains("ann@example.org"), "{}", hiding.log());
}
