//! The admin endpoint with tokens and TLS, on instances that run.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::support::authority::Authority;
use crate::support::service::Received;
use crate::support::{self, Finished, Out, Pawl, Reply, Service, command, process, until};

const DEADLINE: Duration = Duration::from_secs(90);
const READ: &str = "read-0123456789abcdef";
const OPERATE: &str = "operate-0123456789abcdef";

/// Lines of the audit log about one command, in an instance's log.
fn audited(pawl: &Pawl, id: &str, message: &str) -> Vec<String> {
    let log = pawl.log();
    let ours = log
        .lines()
        .filter(|line| line.contains("pawl::audit") && line.contains(id) && line.contains(message));
    ours.map(str::to_owned).collect()
}

fn file(name: &str, content: &str) -> PathBuf {
    let path = process::scratch("files").join(name);
    std::fs::write(&path, content).expect("the scratch directory can be written");
    path
}

fn pawl_at(args: &[&str], pawl: &Pawl) -> Finished {
    let config = pawl.dir().join("pawl.toml");
    command(&[args, &["--config", config.to_str().expect("a path in UTF-8")]].concat(), b"")
}

#[test]
fn an_operators_command_over_http_is_in_the_audit_log_of_who_was_asked_and_of_who_carried_it_out() {
    let Some(broker) = support::broker() else { return };
    let (input, group) = (support::topic(broker, "orders", 2), support::unique("operator"));
    let service = Service::start(|call: &Received| Reply::status(if call.body == "bad" { 422 } else { 200 }));
    let audit = process::scratch("audit").join("audit.jsonl");
    let instance = |name: &str| {
        let more = format!(
            "http = {{ url = \"{}\" }}\nbreaker = {{ keys = 0 }}\n\n[admin]\naudit_file = {audit:?}\n",
            service.url()
        );
        let settings = format!("instance = \"{name}\"\n{}", support::settings(broker, &input, &group, &more));
        let mut pawl = Pawl::new(&settings);
        pawl.set_env(&[
            ("PAWL__ADMIN__READ_TOKEN", READ),
            ("PAWL__ADMIN__OPERATOR_TOKEN", &format!("alice:{OPERATE}")),
        ]);
        pawl.start();
        pawl
    };
    let (one, other) = (instance("one"), instance("other"));
    let holds = |pawl: &Pawl, partition: usize| pawl.partitions("running").contains(&partition);
    until("each holds one", DEADLINE, || {
        [0, 1]
            .into_iter()
            .all(|partition| holds(&one, partition) != holds(&other, partition))
            .then_some(())
            .filter(|()| one.partitions("running").len() == 1)
    });
    support::produce(broker, &input, [Out::new("A", "bad").at(0)]);
    support::read_until(broker, &format!("{input}-dlt"), DEADLINE, |seen| !seen.is_empty());

    // The one that does not hold the key is asked.
    let (owner, asked) = if holds(&one, 0) { (&one, &other) } else { (&other, &one) };
    let path = "/handlers/billing/commands";
    let release = r#"{"command":"release","key":"A","reason":"known by phone","timeout":"1m"}"#;
    for (token, status) in [(None, 401), (Some("wrong-0123456789abcdef"), 401), (Some(READ), 403)] {
        assert_eq!(asked.send("POST", path, token, release).0, status, "{token:?}");
    }
    let (status, body) = asked.send("POST", path, Some(OPERATE), release);
    let answer: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error}: {body}"));
    assert_eq!((status, &answer["result"]), (200, &"done".into()), "{answer}");
    assert_eq!(answer["partitions"]["0"]["message"], "1 letters of key \"A\" are given up; the key goes on");
    assert_eq!(answer["partitions"]["1"]["progress"], "nothing");
    let id = answer["id"].as_str().expect("an id").to_owned();
    let again = asked.send("POST", path, Some(OPERATE), release);
    assert!(again.0 == 404 && again.1.contains("\"result\":\"nothing\""), "{again:?}");

    let asking = audited(asked, &id, "command asked for");
    assert!(asking[0].contains("alice (token) from 127.0.0.1:"), "{asking:?}");
    assert!(asking[0].contains("role=\"operator\"") && asking[0].contains("known by phone"), "{asking:?}");
    assert_eq!((asking.len(), audited(asked, &id, "command answered").len()), (1, 1), "{}", asked.log());
    let done = until("the owner's line", DEADLINE, || audited(owner, &id, "command carried out").pop());
    let by = format!("over the admin endpoint of {}", if owner.dir() == one.dir() { "other" } else { "one" });
    assert!(done.contains("alice (token)") && done.contains(&by), "{done}");
    assert!(done.contains("result=\"done\"") && done.contains("-commands[0]@0: "), "{done}");
    let denied = asked.log();
    let denied: Vec<&str> = denied.lines().filter(|line| line.contains("request denied")).collect();
    assert!(denied.len() == 3 && denied[1].contains("reason=\"wrong-token\""), "{denied:?}");

    // Nothing that comes from outside begins a line of its own, and no token is ever told.
    let forged = r#"{"command":"pause","key":"A\n2026 INFO pawl::audit: forged","partition":0}"#;
    assert_eq!(asked.send("POST", path, Some(OPERATE), forged).0, 200);
    for log in [one.log(), other.log(), std::fs::read_to_string(&audit).expect("the audit file")] {
        assert!(!log.lines().any(|line| line.starts_with("2026 INFO")), "{log}");
        assert!(
            !log.contains(OPERATE) && !log.contains(READ) && !log.contains("wrong-0123456789abcdef"),
            "{log}"
        );
    }
    let kept = std::fs::read_to_string(&audit).expect("the audit file");
    let lines: Vec<Value> = kept.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let of_it = lines.iter().filter(|line| line["id"] == id.as_str()).map(|line| line["message"].as_str());
    let messages: Vec<&str> = of_it.flatten().collect();
    for message in ["command asked for", "command carried out", "command answered"] {
        assert!(messages.contains(&message), "both instances append to it: {messages:?}");
    }
}

#[test]
fn the_command_line_asks_an_endpoint_with_tokens_and_tls() {
    let Some(broker) = support::broker() else { return };
    let (input, group) = (support::topic(broker, "orders", 1), support::unique("secured"));
    let service = Service::start(|_| Reply::status(200));
    let authority = Authority::new();
    let server = authority.issue("pawl", &["localhost"]);
    let (certificate, key) = (file("certificate.pem", &server.certificate), file("key.pem", &server.key));
    let tokens = file("read-token", &format!("# of the tests\nops:{READ}\n"));
    let more = format!(
        "event_id = \"header:ce_id\"\nhttp = {{ url = \"{}\" }}\n\n[admin.tls]\ncertificate_file = {certificate:?}\n\
         key_file = {key:?}\n\n[admin]\nread_token_file = {tokens:?}\n",
        service.url()
    );
    let mut pawl = Pawl::new(&support::settings(broker, &input, &group, &more));
    support::produce(broker, &input, [Out::new("ORD-1", "{}").header("ce_id", "1")]);
    pawl.start();
    let listed = until("the key, by the settings alone", DEADLINE, || {
        let listed = pawl_at(&["keys", "list"], &pawl);
        listed.stdout.contains("key ORD-1").then_some(listed)
    });
    assert!(listed.stderr.contains("1 key in the instance at 127.0.0.1:"), "{listed:?}");
    let tree = pawl_at(&["top", "--once"], &pawl);
    assert!(tree.code == 0 && tree.stdout.contains("billing"), "{tree:?}");

    let named = format!("https://localhost:{}", pawl.port());
    let (trusted, token) = (file("ca.pem", &authority.certificate()), file("token", READ));
    let [trusted, token] = [&trusted, &token].map(|path| path.to_str().expect("a path in UTF-8"));
    let top = |more: &[&str]| command(&[&["top", "--json", "--admin", &named], more].concat(), b"");
    assert_eq!(top(&["--ca-file", trusted, "--token-file", token]).json()["handlers"][0]["name"], "billing");
    let stranger = top(&["--ca-file", trusted]);
    assert!(stranger.code == 4 && stranger.stderr.contains("401"), "{stranger:?}");
    assert!(stranger.stderr.contains("--token-file"), "{stranger:?}");
    let foreign = file("foreign.pem", &Authority::new().certificate());
    let untrusted = top(&["--ca-file", foreign.to_str().expect("a path in UTF-8"), "--token-file", token]);
    assert!(untrusted.code == 4 && untrusted.stderr.contains("certificate"), "{untrusted:?}");
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
}

#[test]
fn an_address_that_others_reach_takes_a_token_at_the_start() {
    let settings = file(
        "pawl.toml",
        "[kafka]\nbootstrap_servers = [\"127.0.0.1:1\"]\nrequest_timeout = \"1s\"\n\
         [handler.billing]\ntopic = \"orders\"\nforward = { topic = \"out\" }\n[admin]\nlisten = \"0.0.0.0:0\"\n",
    );
    let config = settings.to_str().expect("a path in UTF-8");
    let (run, check) = (["run", "--config", config], ["check", "--config", config]);
    for args in [&run[..], &check, &["check", "--offline", "--config", config]] {
        let refused = command(args, b"");
        let told = format!("{}{}", refused.stdout, refused.stderr);
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(
            told.contains("admin.listen = \"0.0.0.0:0\"") && told.contains("PAWL__ADMIN__READ_TOKEN"),
            "{told}"
        );
        assert_eq!(told.matches("openssl rand").count(), 1, "the remedy is told once: {told}");
    }
    // Those that only use the settings need none.
    let listed = command(&["keys", "list", "--changelog", "--config", config], b"");
    assert_eq!(listed.code, 3, "no broker answers: {listed:?}");
}
