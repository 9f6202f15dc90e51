//! Dead-letter topics that handlers share, and topics that refuse what was accepted a moment before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use pawl_actors::dead_letter::header;

use crate::support::service::Received;
use crate::support::{self, Finished, Out, Pawl, Reply, Seen, Service, clients, command, until};

const DEADLINE: Duration = Duration::from_secs(90);

/// A command of `pawl` with an instance's settings.
fn ask(pawl: &Pawl, args: &[&str]) -> Finished {
    let file = pawl.dir().join("pawl.toml");
    let config = file.to_str().expect("a path in UTF-8");
    command(&[args, &["--config", config]].concat(), b"")
}

fn text(letter: &Seen, name: &str) -> String {
    String::from_utf8_lossy(letter.header(name).unwrap_or_default()).into_owned()
}

#[test]
fn handlers_that_share_a_dead_letter_topic_touch_only_their_own_letters() {
    let Some(broker) = support::broker() else { return };
    let (input, letters) = (support::topic(broker, "orders", 1), support::unique("shared"));
    let (billing, mail) = (support::unique("billing"), support::unique("mail"));
    let mended = Arc::new(AtomicBool::new(false));
    let service = || {
        let well = mended.clone();
        Service::start(move |call: &Received| {
            let fails = call.key == "BAD" && !well.load(Ordering::Relaxed);
            Reply::status(if fails { 422 } else { 200 })
        })
    };
    let (bills, mails) = (service(), service());
    let rest = |service: &Service| {
        format!("http = {{ url = \"{}\" }}\ndead_letter = {{ topic = \"{letters}\" }}", service.url())
    };
    let second = format!("[handler.mail]\ntopic = \"{input}\"\ngroup = \"{mail}\"\n{}", rest(&mails));
    let more = format!("{}\n{second}", rest(&bills));
    let mut pawl = Pawl::new(&support::settings(broker, &input, &billing, &more));
    let sent = ["BAD", "GOOD", "BAD", "BAD"].into_iter().enumerate();
    support::produce(broker, &input, sent.map(|(n, key)| Out::new(key, n.to_string())));
    pawl.start();
    // The same records, twice: only the group tells whose letter it is.
    let dead = support::read_until(broker, &letters, DEADLINE, |seen| seen.len() == 6);
    let of = |group: &str| {
        let own = dead.iter().filter(|letter| text(letter, header::ORIGINAL_CONSUMER_GROUP) == group);
        own.map(|letter| letter.offset.to_string()).collect::<Vec<_>>()
    };
    let (billed, mailed) = (of(&billing), of(&mail));
    assert_eq!((billed.len(), mailed.len()), (3, 3), "{dead:?}");
    let list = ask(&pawl, &["dlt", "list", &letters, "--group", &mail]);
    assert_eq!(list.stdout.matches(&format!(" by {mail}  ")).count(), 3, "{list:?}");

    let discard = |letter: &str, handler: &str| {
        ask(&pawl, &["dlt", "discard", "0", letter, "--handler", handler, "--reason", "cancelled"])
    };
    let refused = discard(&mailed[1], "billing");
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.stderr.contains(&format!("is a letter of group \"{mail}\"")), "{refused:?}");
    let discarded = discard(&mailed[0], "mail");
    assert!(discarded.stdout.contains("1 letters of key \"BAD\" are given up; 2 are left"), "{discarded:?}");

    mended.store(true, Ordering::Relaxed);
    let replayed = ask(&pawl, &["dlt", "replay", "--all", "--handler", "billing"]);
    assert!(replayed.code == 0 && replayed.stdout.starts_with("letters: 3 took effect"), "{replayed:?}");
    let bodies = |service: &Service| {
        let calls = service.calls();
        let done = calls.iter().filter(|call| call.succeeded() && call.received.key == "BAD");
        done.map(|call| call.received.body.to_vec()).collect::<Vec<_>>()
    };
    assert_eq!((bodies(&bills), bodies(&mails)), (vec![b"0".to_vec(), b"2".to_vec(), b"3".to_vec()], vec![]));
    let waits = ask(&pawl, &["keys", "show", "BAD", "--handler", "mail"]);
    assert!(waits.stdout.contains("2 dead letters, and later records follow"), "{waits:?}");
    pawl.audit();
    let replayed = ask(&pawl, &["dlt", "replay", "--all", "--handler", "mail"]);
    assert!(replayed.code == 0 && replayed.stdout.starts_with("letters: 2 took effect"), "{replayed:?}");
    assert_eq!(bodies(&mails), [b"2", b"3"]);
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    let audit = pawl.audit();
    assert_eq!(audit.stdout.matches(" 0 dead-lettered").count(), 2, "{audit:?}");
}

/// Two handlers of one process: `billing` copies from one topic to another, `post` calls a service that
/// refuses key BAD.
struct Pair {
    input: String,
    output: String,
    posts: String,
    pawl: Pawl,
    service: Service,
}

impl Pair {
    /// The output takes no time stamp that is older than an hour.
    fn start(broker: &support::Broker) -> Pair {
        let (input, posts) = (support::topic(broker, "orders", 1), support::topic(broker, "posts", 1));
        let output = support::unique("copies");
        support::topic_with(broker, &output, 1, &[("message.timestamp.before.max.ms", "3600000")]);
        let refuses = |call: &Received| Reply::status(if call.key == "BAD" { 422 } else { 200 });
        let service = Service::start(refuses);
        let go_on = "dead_letter = { then = \"continue\" }";
        let more = format!(
            "forward = {{ topic = \"{output}\" }}\n{go_on}\n[handler.post]\ntopic = \"{posts}\"\ngroup = \"{}\"\n\
             http = {{ url = \"{}\" }}\n{go_on}\n[admin]\nstalled_after = \"5s\"",
            support::unique("post"),
            service.url()
        );
        let settings = support::settings(broker, &input, &support::unique("copy"), &more);
        let mut pawl = Pawl::new(&settings.replace("[store]", "transaction_timeout = \"4s\"\n[store]"));
        pawl.start().wait_ready();
        Pair { input, output, posts, pawl, service }
    }

    fn posted(&self, body: &str) {
        self.service.wait(body, 1, DEADLINE, |call| call.succeeded() && call.received.body == body);
    }
}

#[test]
fn a_record_that_the_output_refuses_becomes_a_letter_and_the_process_goes_on() {
    let Some(broker) = support::broker() else { return };
    let Pair { input, output, posts, mut pawl, service } = Pair::start(broker);
    let old = Out { timestamp: Some(1_000_000_000_000), ..Out::new("OLD", "from 2001") };
    support::produce(broker, &input, [Out::new("A", "1"), old.clone(), old, Out::new("A", "2")]);
    let letters = format!("{input}-dlt");
    let dead = support::read_until(broker, &letters, DEADLINE, |seen| seen.len() == 2);
    for letter in &dead {
        assert_eq!(
            (text(letter, header::EXCEPTION_FQCN).as_str(), letter.text()),
            ("pawl.Refused", "from 2001")
        );
        let why = text(letter, header::EXCEPTION_MESSAGE);
        assert!(why.contains(&output) && why.contains("message.timestamp.before.max.ms"), "{why}");
    }
    // Its limit is lowered below what lies ahead, also below what its batches had so far.
    clients::alter(broker, &output, &[("max.message.bytes", "2000")]);
    let large = Out::new("B", vec![b'x'; 5_000]);
    support::produce(broker, &input, [Out::new("A", "3"), large, Out::new("A", "4")]);
    let dead = support::read_until(broker, &letters, DEADLINE, |seen| seen.len() == 3);
    assert_eq!(text(&dead[2], header::EXCEPTION_FQCN), "pawl.TooLarge");
    let copies = support::read_until(broker, &output, DEADLINE, |seen| seen.len() == 4);
    assert_eq!(copies.iter().map(Seen::text).collect::<Vec<_>>(), ["1", "2", "3", "4"]);
    support::produce(broker, &posts, [Out::new("A", "post")]);
    service.wait("the other handler", 1, DEADLINE, |call| call.succeeded());
    assert_eq!(pawl.log().matches("started version").count(), 1, "one process: {}", pawl.log());
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    pawl.audit();
}

#[test]
fn a_dead_letter_topic_that_refuses_while_running_is_told_with_the_remedy_and_nothing_is_lost() {
    let Some(broker) = support::broker() else { return };
    let mut pair = Pair::start(broker);
    let letters = format!("{}-dlt", pair.posts);
    clients::delete(broker, &letters);
    support::produce(broker, &pair.posts, [Out::new("BAD", "1"), Out::new("A", "2")]);
    let told = until("/ready to tell what is missing", DEADLINE, || {
        pair.pawl.get("/ready").map(|(_, text)| text).filter(|text| text.contains(&letters))
    });
    assert!(told.contains("cannot be written") && told.contains("pawl topics create"), "{told}");
    support::produce(broker, &pair.input, [Out::new("A", "copy")]);
    support::read_until(broker, &pair.output, DEADLINE, |seen| seen.len() == 1);
    let made = ask(&pair.pawl, &["topics", "create"]);
    assert!(made.code == 0 && made.stdout.contains(&format!("created  {letters}")), "{made:?}");
    support::read_until(broker, &letters, DEADLINE, |seen| seen.len() == 1);
    pair.posted("2");
    pair.pawl.wait_ready();

    clients::alter(broker, &letters, &[("max.message.bytes", "1000")]);
    support::produce(broker, &pair.posts, [Out::new("BAD", vec![b'3'; 2_000]), Out::new("A", "4")]);
    pair.pawl
        .assert_refused(&[&format!("the dead-letter topic \"{letters}\" takes 1000 bytes"), "Set it on"]);
    let which = format!("did not take the dead letter of {}[0]@2 key \"BAD\"", pair.posts);
    assert!(pair.pawl.log().contains(&which), "{}", pair.pawl.log());
    clients::alter(broker, &letters, &[("max.message.bytes", "2000000")]);
    pair.pawl.start();
    let dead = support::read_until(broker, &letters, DEADLINE, |seen| seen.len() == 2);
    assert_eq!(dead[1].value.as_deref(), Some(&[b'3'; 2_000][..]));
    pair.posted("4");
    assert_eq!(pair.pawl.terminate(), 0, "{}", pair.pawl.log());
    pair.pawl.audit();
}
