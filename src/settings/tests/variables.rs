//! Environment variables over the file, secrets among them.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::*;

#[test]
fn variables_override_the_file_and_are_typed_by_the_setting() {
    let variables = [
        ("PAWL__KAFKA__BOOTSTRAP_SERVERS", "b:9092, c:9093"),
        ("PAWL__KAFKA__REPLICATION_FACTOR", "3"),
        ("PAWL__KAFKA__PROPERTIES__SOCKET_KEEPALIVE_ENABLE", "true"),
        ("PAWL__INSTANCE", "7"),
        ("PAWL__HANDLER__BILLING_EU__RETRY__ATTEMPTS", "3"),
        ("PAWL__HANDLER__BILLING_EU__RETRY__MULTIPLIER", "1"),
        ("PAWL__HANDLER__BILLING_EU__TOPIC", "true"),
        ("PAWL__HANDLER__BILLING_EU__CREATE_TOPICS", "false"),
        ("PAWL__HANDLER__BILLING_EU__RECENT_IDS_AGE", "1h"),
        ("pawl__handler", "not a variable of Pawl's"),
        ("PAWL_TEST_KAFKA", "neither is this"),
    ];
    let text = GOOD.replace("billing", "Billing-eu") + "retry = { attempts = 5, jitter = 0.5 }\n";
    let settings = good(&text, &variables);
    assert_eq!(settings.kafka.bootstrap_servers, ["b:9092", "c:9093"]);
    assert_eq!(settings.kafka.replication_factor, 3);
    assert_eq!(settings.kafka.properties["socket.keepalive.enable"], "true");
    assert_eq!(settings.instance.as_deref(), Some("7"));
    let handler = &settings.handler["Billing-eu"];
    assert_eq!(
        handler.retry,
        Retry { attempts: Attempts::Limited(3), multiplier: 1.0, jitter: 0.5, ..Retry::default() }
    );
    assert_eq!((handler.topic.as_str(), handler.create_topics), ("true", false));
    assert_eq!(handler.recent_ids_age, Duration::from_secs(3600));
    assert_eq!(settings.handler.len(), 1, "no second handler appeared");
}

#[test]
fn a_wrong_variable_is_told_by_its_name() {
    let check = |name: &str, value: &str, expected: &str| {
        let found = problems(GOOD, &[(name, value)]);
        assert_eq!(found, [expected]);
    };
    check(
        "PAWL__KAFKA__BOOTSTRAP_SERVER",
        "a:1",
        "unknown variable PAWL__KAFKA__BOOTSTRAP_SERVER (PAWL__KAFKA__BOOTSTRAP_SERVER); \
         did you mean PAWL__KAFKA__BOOTSTRAP_SERVERS?",
    );
    let near = |name: &str, near: &str| {
        let found = problems(GOOD, &[(name, "1")]);
        assert!(found[0].contains(&format!("did you mean {near}?")), "{found:?}");
    };
    near("PAWL__KAFKA_BOOTSTRAP_SERVERS", "PAWL__KAFKA__BOOTSTRAP_SERVERS");
    near("PAWL__HANDLER__BILING__RETRY__ATTEMPTS", "PAWL__HANDLER__BILLING__RETRY__ATTEMPTS");
    near("PAWL__HANDLER__BILLING__RETRY__ATEMPTS", "PAWL__HANDLER__BILLING__RETRY__ATTEMPTS");
    near("PAWL__HANDLER__BILLING__RETRY_ATTEMPTS", "PAWL__HANDLER__BILLING__RETRY__ATTEMPTS");
    near("PAWL__LOG__FILTR__FILE", "PAWL__LOG__FILTER__FILE");
    let found = problems(GOOD, &[("PAWL__HANDLER__SHIPPING__TOPIC", "t")]);
    assert!(found[0].contains("a handler must be in the file"), "{found:?}");
    check(
        "PAWL__HANDLER__BILLING__RETRY__ATTEMPTS",
        "many",
        "handler.billing.retry.attempts = \"many\" (PAWL__HANDLER__BILLING__RETRY__ATTEMPTS): \
         this is a string; write a whole number of 1 to 1000, or \"unlimited\"",
    );
    check(
        "PAWL__HANDLER__BILLING__RETRY__INITIAL",
        "2m",
        "handler.billing.retry.initial = \"2m\" (PAWL__HANDLER__BILLING__RETRY__INITIAL): the first wait is longer \
         than the longest, retry.max = \"1m\"; lower it to at most 1m, or raise retry.max",
    );
    check(
        "PAWL__KAFKA",
        "x",
        "kafka = \"x\" (PAWL__KAFKA): this is a table; name the key inside of it after two underscores",
    );
    check(
        "PAWL__KAFKA__BOOTSTRAP_SERVERS",
        "a:1,b",
        "kafka.bootstrap_servers[1] = \"b\" (PAWL__KAFKA__BOOTSTRAP_SERVERS): there is no port; \
         write \"b:9092\", or the port that is meant",
    );
    let found = problems(GOOD, &[("PAWL__LOG__FILTER", "info"), ("PAWL__log__filter", "warn")]);
    assert!(
        found[0].contains("log.filter is set by PAWL__LOG__FILTER too (PAWL__log__filter); unset one"),
        "{found:?}"
    );
}

#[test]
fn a_variable_that_is_not_utf8_is_told() {
    use std::os::unix::ffi::OsStringExt;
    let value = OsString::from_vec(vec![0xff]);
    let error =
        Settings::parse(Path::new("pawl.toml"), GOOD, [("PAWL__LOG__FILTER", value)]).expect_err("not text");
    assert!(error.to_string().contains("log.filter (PAWL__LOG__FILTER): not UTF-8"), "{error}");
}

#[test]
fn a_secret_is_read_from_the_file_that_a_variable_names() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("secret");
    let name = "PAWL__KAFKA__PROPERTIES__TOPIC_BLACKLIST__FILE";
    let check = |content: &[u8], expected: Result<&str, &str>| {
        fs::write(&file, content).expect("written");
        let result = parse(GOOD, &[(name, file.to_str().expect("UTF-8"))]);
        match (result, expected) {
            (Ok(settings), Ok(value)) => assert_eq!(settings.kafka.properties["topic.blacklist"], value),
            (Err(error), Err(reason)) => assert!(error.to_string().contains(reason), "{error}"),
            (result, expected) => panic!("{result:?}, and not {expected:?}"),
        }
    };
    check(b"hunter2\n", Ok("hunter2"));
    check(b"hunter2\r\n", Ok("hunter2"));
    check(b" hunter2\n\n", Ok(" hunter2\n"));
    check(&[b'x'; 64 << 10], Ok(&"x".repeat(64 << 10)));
    check(&[b'x'; (64 << 10) + 1], Err("it is larger than 64 KiB"));
    check(&[0xff], Err("it is not UTF-8"));

    fs::remove_file(&file).expect("removed");
    let error = parse(GOOD, &[(name, file.to_str().expect("UTF-8"))]).expect_err("missing").to_string();
    assert!(error.contains("is to be read from the file"), "{error}");
    assert!(error.contains("No such file"), "{error}");
    assert!(error.contains(name), "{error}");
}

#[test]
fn no_secret_shows_in_reports_or_in_debug_output() {
    let secret = "hunter2";
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("value");
    fs::write(&file, secret).expect("written");
    let file = file.to_str().expect("UTF-8");
    let check = |text: &str, variables: &[(&str, &str)]| {
        let report = parse(text, variables).expect_err(text).to_string();
        assert!(!report.contains(secret), "{report}");
    };
    check(&in_kafka("properties = { \"sasl.password\" = \"hunter2\", \"group.id\" = \"g\" }"), &[]);
    check(&in_kafka("properties = { \"ssl.key.wrong\" = \"hunter2\" }"), &[]);
    check(&in_kafka("properties = { \"sasl.password\" = \"hunter2"), &[]);
    check(&GOOD.replace("localhost:8080", "me:hunter2@localhost"), &[]);
    check(GOOD, &[("PAWL__KAFKA__PROPERTIES__SSL_SECRET_WRONG", secret)]);
    check(GOOD, &[("PAWL__HANDLER__BILLING__RETRY__INITIAL__FILE", file)]);
    check(GOOD, &[("PAWL__HANDLER__BILLING__KEY__FILE", file)]);
    check(GOOD, &[("PAWL__LOG__FILTER__FILE", file), ("PAWL__HANDLER__BILLING__HTTP__URL__FILE", file)]);

    let properties =
        [("sasl.password", secret), ("debug", "cgrp")].map(|(n, v)| (n.to_owned(), v.to_owned()));
    let settings = Settings {
        kafka: Kafka { properties: properties.into(), ..Kafka::default() },
        ..Settings::default()
    };
    let json = serde_json::to_string(&settings).expect("serialised");
    for shown in [format!("{settings:?}"), format!("{settings:#?}"), json] {
        assert!(!shown.contains(secret), "{shown}");
        assert!(shown.contains("cgrp") && shown.contains("sasl.password"), "{shown}");
    }
}

#[test]
fn the_whole_text_may_stand_in_a_variable_and_its_mistakes_are_told_by_its_name() {
    let read = |value: Option<&str>, others: &[(&str, &str)]| {
        Settings::parse_variable("PAWL_SETTINGS", value.map(OsString::from), others.iter().copied())
    };
    let settings = read(Some(GOOD), &[("PAWL__KAFKA__CLIENT_ID", "ecs")]).expect("good settings");
    assert_eq!(settings.handler["billing"].topic, "orders");
    assert_eq!(settings.kafka.client_id, "ecs", "variables win over the text");

    let told = read(Some(&in_handler("tpic = 1")), &[]).expect_err("an unknown key").to_string();
    assert!(
        told.contains("in the settings of $PAWL_SETTINGS") && told.contains("($PAWL_SETTINGS:"),
        "{told}"
    );
    for (value, reason) in [(None, "it is not set"), (Some(" \n"), "it is empty")] {
        let told = read(value, &[]).expect_err(reason).to_string();
        assert!(
            told.contains(reason) && told.contains("PAWL_SETTINGS") && told.contains("--config"),
            "{told}"
        );
    }
}
