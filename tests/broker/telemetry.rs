//! Telemetry end to end: real OTLP receivers, and what is left of a record's trace wherever it goes.

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
