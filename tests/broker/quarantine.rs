//! A key whose record became a dead letter, where its later records are to follow.

use std::time::Duration;

use pawl_actors::dead_letter::header;

use crate::support::service::Received;
use crate::support::{self, Call, Out, Pawl, Reply, Seen, Service, command};

const DEADLINE: Duration = Duration::from_secs(90);

fn text(letter: &Seen, name: &str) -> String {
    let header = letter.headers.iter().rev().find(|header| header.name == name.as_bytes());
    let value = header.and_then(|header| header.value.as_deref()).unwrap_or_default();
    String::from_utf8_lossy(value).into_owned()
}

#[test]
fn a_failed_keys_records_lie_in_the_dead_letter_topic_in_order_through_a_kill_and_others_go_on() {
    let Some(broker) = support::broker() else { return };
    let (input, group) = (support::topic(broker, "orders", 1), support::unique("quarantine"));
    let service = Service::start(|call: &Received| Reply::status(if call.key == "BAD" { 503 } else { 200 }));
    let more = format!(
        "event_id = \"header:ce_id\"\nhttp = {{ url = \"{}\" }}\nretry = {{ attempts = 2, initial = \"200ms\" }}\n\
         dead_letter = {{ then = \"quarantine\" }}",
        service.url()
    );
    let mut pawl = Pawl::new(&support::settings(broker, &input, &group, &more));
    let event = |n: usize| {
        let key = if n % 5 == 4 { "BAD".to_owned() } else { format!("ORD-{}", n % 7) };
        Out::new(key, n.to_string()).header("ce_id", n.to_string())
    };
    support::produce(broker, &input, (0..500).map(event));
    pawl.start();
    let letters = format!("{input}-dlt");
    support::read_until(broker, &letters, DEADLINE, |seen| seen.len() >= 20);
    pawl.kill();
    support::produce(broker, &input, (500..1_000).map(event));
    pawl.start();
    let dead = support::read_until(broker, &letters, DEADLINE, |seen| seen.len() >= 200);
    support::clients::wait_for_end(broker, &group, &input, DEADLINE);

    let values: Vec<usize> = dead
        .iter()
        .map(|letter| {
            String::from_utf8_lossy(letter.value.as_deref().unwrap_or_default()).parse().expect("a number")
        })
        .collect();
    assert_eq!(values, (0..200).map(|n| 5 * n + 4).collect::<Vec<_>>(), "each once and in order");
    assert_eq!(text(&dead[0], header::DISPOSITION), "exhausted");
    assert!(dead[1..].iter().all(|letter| text(letter, header::DISPOSITION) == "follower"));
    assert_eq!(text(&dead[1], header::EXCEPTION_FQCN), "pawl.Quarantined");
    assert!(
        text(&dead[1], header::EXCEPTION_MESSAGE).starts_with("its key is in quarantine since offset 4: ")
    );
    for (n, letter) in dead.iter().enumerate() {
        let number = letter.headers.iter().find(|header| header.name == header::NUMBER.as_bytes());
        assert_eq!(number.and_then(|header| header.value.as_deref()), Some(&(n as i64).to_be_bytes()[..]));
    }
    assert_eq!(
        service.count(|call| call.received.key == "BAD" && call.received.body != b"4"[..]),
        0,
        "not tried"
    );
    assert!(service.count(Call::succeeded) >= 800);

    let file = pawl.dir().join("pawl.toml");
    let config = file.to_str().expect("a path in UTF-8");
    let shown = command(&["keys", "show", "BAD", "--config", config], b"");
    let expected = "quarantine   since offset 4: service answered 503 \"answer 503\"; 200 dead letters, and later records follow\n";
    assert!(shown.stdout.contains(expected), "{shown:?}");
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    pawl.audit();
}
