//! What a file sets, what it leaves to the defaults, and the examples of the project.

use std::fs;
use std::num::NonZeroU16;
use std::path::Path;
use std::time::Duration;

use pawl_actors::policy::NullKey;
use pawl_actors::selector::Selector;

use super::*;

#[test]
fn a_short_file_gets_the_documented_defaults() {
    let settings = good(GOOD, &[]);
    let handler = HandlerSettings {
        topic: "orders".into(),
        http: Some(Http { url: "http://localhost:8080/events".into(), ..Http::default() }),
        ..HandlerSettings::default()
    };
    let kafka = Kafka { bootstrap_servers: vec!["localhost:9092".into()], ..Kafka::default() };
    let expected =
        Settings { kafka, handler: [("billing".to_owned(), handler)].into(), ..Settings::default() };
    assert_eq!(settings, expected);
    assert_eq!(settings.admin.listen, Some("127.0.0.1:9464".parse().expect("an address")));
}

#[test]
fn every_key_of_a_full_file_reaches_its_field() {
    let text = r#"
        instance = "pawl-0"
        kafka.bootstrap_servers = ["a:9092", "[::1]:9093"]
        kafka.client_id = "c"
        kafka.transactional_id_prefix = "p."
        kafka.session_timeout = "45s"
        kafka.transaction_timeout = "1m"
        kafka.request_timeout = "30s"
        kafka.replication_factor = 3
        kafka.reload_interval = "1m"
        kafka.properties = { "socket.keepalive.enable" = true, "queued.min.messages" = 1000, "debug" = "cgrp" }
        store = { dir = "/var/lib/pawl", engine = "fjall", checkpoint_interval = "1s", buffer_bytes = "1MiB", cache_bytes = 2097152, restore_timeout = "5s" }
        admin.listen = "off"
        admin.stalled_after = "2m"
        admin.read_token_file = "/run/secrets/read"
        admin.operator_token_file = "/run/secrets/operator"
        admin.tls = { certificate_file = "c.pem", key_file = "k.pem", client_ca_file = "ca.pem", operators = ["alice"] }
        admin.requests_per_second = 1
        admin.burst = 2
        admin.max_body = "1KiB"
        admin.audit_file = "audit.jsonl"
        admin.audit_file_size = "64KiB"
        admin.audit_files_kept = 1
        shutdown.deadline = "10s"
        log = { format = "json", filter = "info,pawl::kafka=debug" }
        [handler.Tax]
        topic = "t"
        group = "g"
        guarantee = "at-least-once"
        key = "json:/order/id"
        null_key = "reject"
        event_id = "header:id"
        sequence = "json:/n"
        first_sequence = 0
        gap = { timeout = "10ms", max_waiting = 1, then = "halt" }
        recent_ids = 0
        recent_ids_age = "1h"
        start = "latest"
        program = { name = "tax", timeout = "1s", max_in_flight = 2 }
        retry = { attempts = 1, initial = "1ms", max = "1s", multiplier = 1, jitter = 0 }
        dead_letter = { topic = "dead", then = "continue" }
        breaker = { keys = 0, probe_every = "10ms" }
        supervision = { restarts = 0, within = "1s" }
        careful = { crashes = 0, within = "1s" }
        parking = { max_records_per_key = 1, max_bytes_per_key = "1KiB", max_records = 2, max_bytes = "1MiB", overflow = "dead-letter" }
        replay = { max_records = 3, max_bytes = "1KiB" }
        intake = { max_records = 1, max_bytes = "1MiB", max_finished_ahead = 2 }
        membership = { protocol = "consumer", assignor = "range", static = true, revoke_grace = "1s" }
        commit_interval = "0s"
        idle_key_after = "1s"
        max_live_keys = 100
        create_topics = false
    "#;
    let settings = good(text, &[]);
    assert_eq!(settings.instance().expect("set"), "pawl-0");
    let properties =
        [("debug", "cgrp"), ("queued.min.messages", "1000"), ("socket.keepalive.enable", "true")];
    let expected = Kafka {
        bootstrap_servers: vec!["a:9092".into(), "[::1]:9093".into()],
        security: Security::Plaintext,
        client_id: "c".into(),
        transactional_id_prefix: "p.".into(),
        session_timeout: Duration::from_secs(45),
        transaction_timeout: Duration::from_secs(60),
        request_timeout: Duration::from_secs(30),
        replication_factor: 3,
        reload_interval: Duration::from_secs(60),
        tls: Tls::default(),
        sasl: Sasl::default(),
        oauth: Oauth::default(),
        msk_iam: MskIam::default(),
        properties: properties.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
    };
    assert_eq!(settings.kafka, expected);
    let expected = Store {
        dir: "/var/lib/pawl".into(),
        engine: Engine::Fjall,
        checkpoint_interval: Duration::from_secs(1),
        buffer_bytes: ByteSize::mib(1),
        cache_bytes: ByteSize::mib(2),
        restore_timeout: Duration::from_secs(5),
    };
    assert_eq!(settings.store, expected);
    let tls = AdminTls {
        certificate_file: "c.pem".into(),
        key_file: "k.pem".into(),
        client_ca_file: Some("ca.pem".into()),
        operators: vec!["alice".into()],
    };
    let expected = Admin {
        listen: None,
        stalled_after: Duration::from_secs(120),
        read_token: None,
        read_token_file: Some("/run/secrets/read".into()),
        operator_token: None,
        operator_token_file: Some("/run/secrets/operator".into()),
        tls: Some(tls),
        requests_per_second: 1,
        burst: 2,
        max_body: ByteSize::kib(1),
        audit_file: Some("audit.jsonl".into()),
        audit_file_size: ByteSize::kib(64),
        audit_files_kept: 1,
    };
    assert_eq!(settings.admin, expected);
    assert_eq!(settings.shutdown.deadline, Duration::from_secs(10));
    assert_eq!(
        settings.log,
        Log { format: LogFormat::Json, filter: "info,pawl::kafka=debug".into(), ..Log::default() }
    );
    let expected = HandlerSettings {
        topic: "t".into(),
        group: Some("g".into()),
        guarantee: Guarantee::AtLeastOnce,
        key: Selector::Json("/order/id".into()),
        null_key: NullKey::Reject,
        event_id: Some(Selector::Header("id".into())),
        sequence: Some(Selector::Json("/n".into())),
        first_sequence: 0,
        gap: Gap { timeout: Duration::from_millis(10), max_waiting: 1, then: GapThen::Halt },
        recent_ids: 0,
        recent_ids_age: Duration::from_secs(3600),
        start: Start::Latest,
        http: None,
        forward: None,
        program: Some(Program {
            name: Some("tax".into()),
            timeout: Duration::from_secs(1),
            max_in_flight: 2,
        }),
        retry: Retry {
            attempts: Attempts::Limited(1),
            initial: Duration::from_millis(1),
            max: Duration::from_secs(1),
            multiplier: 1.0,
            jitter: 0.0,
            ..Retry::default()
        },
        dead_letter: DeadLetter { topic: Some("dead".into()), then: Then::Continue },
        breaker: Breaker { keys: 0, probe_every: Duration::from_millis(10) },
        supervision: Supervision { restarts: 0, within: Duration::from_secs(1) },
        careful: Careful { crashes: 0, within: Duration::from_secs(1) },
        parking: Parking {
            max_records_per_key: 1,
            max_bytes_per_key: ByteSize::kib(1),
            max_records: 2,
            max_bytes: ByteSize::mib(1),
            overflow: Overflow::DeadLetter,
        },
        replay: Replay { max_records: 3, max_bytes: ByteSize::kib(1) },
        intake: Intake { max_records: 1, max_bytes: ByteSize::mib(1), max_finished_ahead: 2 },
        membership: Membership {
            protocol: GroupProtocol::Consumer,
            assignor: Assignor::Range,
            is_static: true,
            revoke_grace: Duration::from_secs(1),
        },
        commit_interval: Duration::ZERO,
        idle_key_after: Duration::from_secs(1),
        max_live_keys: 100,
        create_topics: false,
    };
    assert_eq!(settings.handler["Tax"], expected);
}

#[test]
fn null_keys_are_rejected_or_spread_over_lanes() {
    let null_key = |text: &str, variables: &[(&str, &str)]| good(text, variables).handler["billing"].null_key;
    let spread = |lanes| NullKey::Spread(NonZeroU16::new(lanes).expect("not 0"));
    let file = in_handler("null_key = { spread = 16 }");
    assert_eq!(null_key(GOOD, &[]), NullKey::Reject);
    assert_eq!(null_key(&in_handler("null_key = \"reject\""), &[]), NullKey::Reject);
    assert_eq!(null_key(&file, &[]), spread(16));
    assert_eq!(null_key(&in_handler("null_key.spread = 1024"), &[]), spread(1024));
    let (word, lanes) = ("PAWL__HANDLER__BILLING__NULL_KEY", "PAWL__HANDLER__BILLING__NULL_KEY__SPREAD");
    assert_eq!(null_key(&file, &[(word, "reject")]), NullKey::Reject);
    assert_eq!(null_key(&file, &[(lanes, "3")]), spread(3));
    assert_eq!(null_key(&in_handler("null_key = \"reject\""), &[(lanes, "3")]), spread(3));
}

#[test]
fn the_examples_of_the_project_can_be_read() {
    let check = |name: &str| {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
        let text = fs::read_to_string(&file).expect(name);
        assert!(text.starts_with("#:schema pawl.schema.json\n"), "{name} names its schema");
        (good(&text, &[]), text)
    };
    let (forward, _) = check("forward.toml");
    assert!(forward.handler["copy"].forward.is_some());
    let (settings, text) = check("pawl.toml");
    assert_eq!(settings.handler["billing"].topic, "orders");

    // What is commented out is the default: it can be switched on and changes nothing.
    let mut switched_on = String::new();
    for line in text.lines().filter(|line| !line.starts_with("# instance")) {
        let plain = line.strip_prefix("# ").filter(|rest| {
            let key = rest.split_once(" = ").map_or("", |(key, _)| key);
            !key.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
        });
        switched_on += plain.unwrap_or(line);
        switched_on.push('\n');
    }
    assert!(switched_on.contains("\ncommit_interval = \"5ms\""), "{switched_on}");
    let mut all = good(&switched_on, &[]);
    let billing = all.handler.get_mut("billing").expect("the handler");
    assert_eq!(billing.group.take().as_deref(), Some("billing"));
    assert_eq!(all, settings);
}

#[test]
fn the_instance_is_the_host_name_unless_it_is_set() {
    let mut settings = Settings::default();
    let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("Linux tells its host name");
    assert_eq!(settings.instance().expect("a host name"), host.trim());
    settings.instance = Some("pawl-3".into());
    assert_eq!(settings.instance().expect("set"), "pawl-3");
    settings.instance = Some(String::new());
    let error = settings.instance().expect_err("empty").to_string();
    assert!(error.contains("set instance to a name that no other instance has"), "{error}");
}
