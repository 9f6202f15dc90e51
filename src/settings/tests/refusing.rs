//! Values, names and combinations that are refused.

use pawl_actors::selector::Selector;

use super::*;

#[test]
fn a_wrong_value_names_key_place_value_what_is_allowed_and_the_remedy() {
    refused(
        &in_handler("retry = { attempts = \"eight\" }"),
        "handler.billing.retry.attempts = \"eight\" (pawl.toml:7:22): this is a string; write a whole number of 1 to 1000, or \"unlimited\"",
    );
    refused(
        &in_handler("retry.attempts = 0"),
        "handler.billing.retry.attempts = 0 (pawl.toml:7:18): too small, 1 to 1000 is allowed; raise it to at least 1",
    );
    refused(
        &in_handler("recent_ids = -1"),
        "recent_ids = -1 (pawl.toml:7:14): too small, 0 to 10000 is allowed",
    );
    refused(
        &in_handler("recent_ids = 99999999999999"),
        "too large, 0 to 10000 is allowed; lower it to at most 10000",
    );
    refused(
        &in_handler("recent_ids = 1.5"),
        "this is a number with a fraction; write a whole number of 0 to 10000",
    );
    refused(
        &in_handler("retry.multiplier = 0.5"),
        "multiplier = 0.5 (pawl.toml:7:20): too small, 1 to 100 is allowed",
    );
    refused(&in_handler("retry.multiplier = nan"), "too large, 1 to 100 is allowed");
    refused(
        &in_handler("retry.jitter = 2"),
        "retry.jitter = 2 (pawl.toml:7:16): too large, 0 to 1 is allowed",
    );
    refused(&in_handler("commit_interval = 5"), "a duration needs a unit; write \"5s\" or \"5ms\"");
    refused(&in_handler("commit_interval = \"5 parsecs\""), "unknown time unit \"parsecs\"");
    refused(&in_handler("commit_interval = \"1h\""), "too large, 0s to 10s is allowed");
    refused(
        &in_handler("intake.max_bytes = \"64 apples\""),
        "\"apples\" is not a unit of size; write a size such as",
    );
    refused(
        &in_handler("intake.max_bytes = 12"),
        "= \"12B\" (pawl.toml:7:20): too small, 1MiB to 16GiB is allowed",
    );
    refused(&in_handler("intake.max_bytes = -1"), "max_bytes = -1 (pawl.toml:7:20): too small");
    refused(&in_handler("create_topics = \"yes\""), "this is a string; write true or false");
    refused(
        &in_handler("guarantee = \"exactly_once\""),
        "allowed: \"exactly-once\", \"at-least-once\"; did you mean \"exactly-once\"?",
    );
    refused(
        &in_handler("dead_letter.then = \"retry\""),
        "allowed: \"quarantine\", \"continue\", \"halt\"; write one of them",
    );
    refused(
        &in_handler("key = \"json:id\""),
        "handler.billing.key = \"json:id\" (pawl.toml:7:7): a JSON pointer begins with '/'",
    );
    refused(
        &in_handler("event_id = \"kafka\""),
        "event_id = \"kafka\" (pawl.toml:7:12): \"kafka\" is not a place in a record",
    );
    refused(&in_handler("null_key = \"spread\""), "this is a string; write \"reject\" or { spread = 16 }");
    refused(&in_handler("null_key = 16"), "this is a whole number; write \"reject\" or { spread = 16 }");
    refused(
        &in_handler("null_key = { spread = 0 }"),
        "spread = 0 (pawl.toml:7:23): too small, 1 to 1024 is allowed",
    );
    refused(&in_handler("null_key = { spread = 1025 }"), "too large, 1 to 1024 is allowed");
    refused(&in_handler("null_key = { lanes = 4 }"), "unknown key \"lanes\" in [handler.billing.null_key]");
    refused(&in_handler("null_key = {}"), "this is a table; write \"reject\" or { spread = 16 }");
    refused(
        &in_handler("null_key = { spread = 4 }\nsequence = \"json:/n\""),
        "spreads records without a key, and orders records by their key's numbers (pawl.toml:7:1); write null_key",
    );
    refused(&in_handler("retry = 3"), "this is a whole number; write a table with keys of \"attempts\"");
    refused(&in_handler("start = 1979-05-27"), "this is a date or time");
    refused(
        &in_kafka("security = \"ssl\""),
        "kafka.security = \"ssl\" (pawl.toml:3:12): allowed: \"plaintext\", \"tls\", \"scram\"",
    );
    refused(
        &in_kafka("replication_factor = 0"),
        "a topic needs a replica; write -1 for the broker's default",
    );
    refused(&GOOD.replace("[\"localhost:9092\"]", "\"localhost:9092\""), "this is a string; write a list");
    refused(
        &GOOD.replace("\"localhost:9092\"", "\"localhost:9092\", 1"),
        "kafka.bootstrap_servers[1] = 1 (pawl.toml:3:40)",
    );
    refused(
        &format!("{GOOD}\n[admin]\nlisten = \"localhost\"\n"),
        "not an IP address with a port; write an IP address and a port",
    );
    refused(
        &format!("{GOOD}\n[log]\nfilter = \"pawl=loud\"\n"),
        "log.filter = \"pawl=loud\" (pawl.toml:10:10)",
    );
    refused(&format!("{GOOD}\n[log]\nfilter = \"\"\n"), "it is empty; write a level");
    refused(&format!("{GOOD}\n[store]\ndir = \"\"\n"), "store.dir = \"\" (pawl.toml:10:7): it is empty");
    refused(
        &format!("instance = \"a b\"\n{GOOD}"),
        "instance = \"a b\" (pawl.toml:1:12): not a legal name; set instance",
    );
}

#[test]
fn names_and_addresses_must_be_such() {
    let server = |text: &str| GOOD.replace("localhost:9092", text);
    refused(&server("localhost"), "there is no port; write \"localhost:9092\"");
    refused(&server("PLAINTEXT://a:9092"), "named without a scheme");
    refused(&server("a:0"), "\"0\" is not a port of 1 to 65535");
    refused(&server("a:99999"), "is not a port");
    refused(&server("a b:9092"), "not the name or address of a host");
    refused(&server("::1:9092"), "not the name or address of a host");
    refused(
        &GOOD.replace("\"localhost:9092\"", ""),
        "kafka.bootstrap_servers is missing (pawl.toml:3:21); name at least one",
    );

    let topic = |text: &str| GOOD.replace("\"orders\"", &format!("\"{text}\""));
    refused(&topic(""), "handler.billing.topic is missing (pawl.toml:6:9)");
    refused(&topic("or ders"), "not a legal name of a topic; use 1 to 249 characters");
    refused(&topic(".."), "Kafka does not allow this name");
    refused(&topic(&"x".repeat(250)), "not a legal name of a topic");
    refused(&topic(&"x".repeat(248)), "handler.billing.dead_letter.topic");
    refused(
        &GOOD.replace("topic = \"orders\"\n", ""),
        "handler.billing.topic is missing (pawl.toml:5:10); name the input topic",
    );
    refused(&in_handler("group = \"größe\""), "not a legal name; use 1 to 239");
    refused(&in_handler("dead_letter.topic = \"a/b\""), "not a legal name of a topic");
    refused(
        &GOOD.replace("billing", "\"bill ing\""),
        "\"bill ing\" cannot be the name of a handler (pawl.toml:5:10)",
    );
    refused(&GOOD.replace("billing", "bill__ing"), "two underscores part the levels");

    let url = |text: &str| GOOD.replace("http://localhost:8080/events", text);
    refused(&url(""), "handler.billing.http.url is missing (pawl.toml:7:16)");
    refused(&url("localhost:8080"), "it does not begin with http:// or https://");
    refused(&url("/events"), "it does not begin with http:// or https://");
    refused(&url("ftp://a/b"), "ftp:// is not a scheme that Pawl speaks");
    refused(&url("http://a b/"), "this is not a URL");
    refused(&url("http:///events"), "this is not a URL");
    refused(&url("http://a/#b"), "a fragment (#…) is never sent");
    good(&url("https://billing.example:8443/events?tenant=a"), &[]);
    let health = |text: &str| url(&format!("http://localhost:8080/events\", health_url = \"{text}"));
    good(&health("http://localhost:8080/healthz"), &[]);
    refused(&health("/healthz"), "it does not begin with http:// or https://");
    refused(&health("https://localhost:8080/healthz"), "health_url has another scheme than url");
}

#[test]
fn settings_that_do_not_fit_together_are_told() {
    let http = "http = { url = \"http://localhost:8080/events\" }\n";
    refused("[kafka]\nbootstrap_servers = [\"a:1\"]\n", "there is no handler; add a table [handler.NAME]");
    refused(
        &GOOD.replace(http, ""),
        "handler.billing does not say what its records are handed to (pawl.toml:5:10); add exactly one of",
    );
    refused(
        &in_handler("program = {}"),
        "handler.billing hands its records to http and to program (pawl.toml:5:10)",
    );
    refused(
        &GOOD.replace(http, "forward = { topic = \"orders\" }"),
        "handler.billing.forward.topic = \"orders\" (pawl.toml:7:21): this is the input topic",
    );
    refused(
        &GOOD.replace(http, "forward = { topic = \"orders-dlt\" }"),
        "handler.billing.forward.topic = \"orders-dlt\" (pawl.toml:7:21): this is also the dead-letter topic",
    );
    refused(
        &in_handler("dead_letter.topic = \"orders\""),
        "handler.billing.dead_letter.topic = \"orders\" (pawl.toml:7:21): this is the input topic",
    );
    refused(
        &in_handler("retry = { initial = \"2m\" }"),
        "retry.initial = \"2m\" (pawl.toml:7:21): the first wait is longer than the longest, retry.max = \"1m\"",
    );
    let second = "\n[handler.tax]\ntopic = \"t\"\nprogram = {}\n";
    refused(
        &format!("{GOOD}{second}group = \"billing\"\n"),
        "\"billing\" is the group of the handlers \"billing\" and \"tax\" (pawl.toml:12:9): each has its own offsets",
    );
    refused(
        &format!("{GOOD}{}", second.replace("tax", "Billing")),
        "have the same name in environment variables (pawl.toml:5:10)",
    );
}

#[test]
fn properties_that_are_pawls_are_refused_with_the_reason() {
    let check = |name: &str, expected: &str| {
        let found = problems(&in_kafka(&format!("properties = {{ \"{name}\" = \"x\" }}")), &[]);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].starts_with("kafka.properties."), "{}", found[0]);
        assert!(found[0].contains("(pawl.toml:3:"), "{}", found[0]);
        assert!(found[0].contains(expected), "{}\n  lacks: {expected}", found[0]);
    };
    check("group.id", "Pawl sets this property itself; remove it: set group of the handler");
    check("bootstrap.servers", "remove it: set kafka.bootstrap_servers");
    check("security.protocol", "remove it: set kafka.security");
    check("transactional.id", "kafka.transactional_id_prefix");
    check("enable.auto.commit", "offsets are committed only together with the results");
    check("auto.offset.reset", "set start of the handler");
    check("isolation.level", "what is read must be committed");
    check("partition.assignment.strategy", "set membership = { assignor = ... } of the handler");
    check("message.max.bytes", "the topic's own max.message.bytes decides");
    check("partitioner", "murmur2_random keeps keys where the Java clients put them");
    check("enable.idempotence", "doubled or out of order");
    check("no.such.thing", "No such configuration property");
    check("linger.ms", "librdkafka's CONFIGURATION.md");
    let dotted = problems(&in_kafka("properties.socket.keepalive.enable = true"), &[]);
    assert!(dotted[0].contains("put the name of the property in quotes"), "{dotted:?}");
}

#[test]
fn settings_put_together_by_a_program_are_held_to_the_same_rules() {
    let mut settings = good(GOOD, &[]);
    settings.validate().expect("valid");
    let handler = settings.handler.get_mut("billing").expect("the handler");
    handler.retry.attempts = Attempts::Limited(0);
    handler.key = Selector::Header(String::new());
    let error = settings.validate().expect_err("invalid");
    let keys: Vec<String> = error.problems().iter().map(Problem::key).collect();
    assert_eq!(keys, ["handler.billing.retry.attempts", "handler.billing.key"]);
    assert_eq!(error.problems()[0].place(), None);
    assert!(
        Settings::default()
            .validate()
            .expect_err("empty")
            .to_string()
            .contains("bootstrap_servers is missing")
    );
}
