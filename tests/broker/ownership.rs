//! Several instances, and what goes wrong between them and around their topics. That nothing is lost or
//! doubled while they are killed, stopped and cut off is what `tests/chaos` shows.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::BytesMut;
use pawl_actors::ledger::PartitionRow;

use crate::support::{self, Broker, Call, Out, Pawl, Reply, Service, clients};

const DEADLINE: Duration = Duration::from_secs(90);

fn named(name: &str, settings: &str) -> Pawl {
    Pawl::new(&format!("instance = \"{name}\"\n{settings}"))
}

fn forwarding(output: &str) -> String {
    format!("event_id = \"header:ce_id\"\nforward = {{ topic = \"{output}\" }}\n")
}

fn events(numbers: std::ops::Range<usize>) -> impl Iterator<Item = Out> {
    numbers.map(|n| Out::new(format!("K{}", n % 50), n.to_string()).header("ce_id", n.to_string()))
}

/// Each number once, each key's in their order.
fn assert_once_and_in_order(broker: &Broker, output: &str, count: usize) {
    let seen = support::read_until(broker, output, DEADLINE, |seen| seen.len() >= count);
    let mut keys: BTreeMap<Vec<u8>, Vec<usize>> = BTreeMap::new();
    for record in &seen {
        let number = record.text().parse().expect("a number");
        keys.entry(record.key.clone().expect("a key")).or_default().push(number);
    }
    assert_eq!(seen.len(), count);
    for (key, numbers) in keys {
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{key:?}: {numbers:?}");
    }
}

fn wait_running(pawl: &Pawl, count: usize) {
    let running = || (pawl.partitions("running").len() == count).then_some(());
    support::until(&format!("{count} running partitions"), DEADLINE, running);
}

#[test]
fn two_processes_of_one_name_find_each_other_out_and_nothing_is_doubled() {
    let Some(broker) = support::broker() else { return };
    let (input, output) = (support::topic(broker, "orders", 4), support::topic(broker, "billed", 4));
    let settings = support::settings(broker, &input, &support::unique("billing"), &forwarding(&output));
    let mut both = [named("twin", &settings), named("twin", &settings)];
    for pawl in &mut both {
        pawl.start();
    }
    // As long as both live they end each other's transactions, so the load must not end before.
    let mut sent = 0;
    let publisher = clients::Publisher::new(broker);
    let ended = support::until("one of them to give up", DEADLINE, || {
        events(sent..sent + 20).for_each(|event| publisher.send(&input, &event));
        sent += 20;
        both.iter().position(|pawl| pawl.log().contains("another process uses the instance name \"twin\""))
    });
    publisher.flush();
    let [one, other] = &mut both;
    let (gone, left) = if ended == 0 { (one, other) } else { (other, one) };
    gone.assert_refused(&["another process uses the instance name \"twin\"", "Give every process its own"]);
    // The last transaction that the one ended may have been what the other needed to give up too.
    support::until("the rest of the work", DEADLINE, || {
        if left.has_ended() {
            left.start();
        }
        (support::read_all(broker, &output).len() >= sent).then_some(())
    });
    assert_once_and_in_order(broker, &output, sent);
    assert_eq!(left.terminate(), 0, "{}", left.log());
    assert_eq!(support::read_all(broker, &output).len(), sent);
}

#[test]
fn a_partition_that_is_added_is_not_taken_in_and_the_others_go_on() {
    let Some(broker) = support::broker() else { return };
    let (input, output) = (support::topic(broker, "orders", 2), support::topic(broker, "billed", 4));
    let more =
        format!("{}[kafka.properties]\n\"topic.metadata.refresh.interval.ms\" = 500\n", forwarding(&output));
    let mut pawl = Pawl::new(&support::settings(broker, &input, &support::unique("billing"), &more));
    pawl.start().wait_ready();
    clients::add_partitions(broker, &input, 3);
    support::until("the new partition", DEADLINE, || (pawl.partitions("stopped").len() == 1).then_some(()));
    support::produce(broker, &input, (0..30).map(|n| Out::new(format!("K{n}"), n.to_string()).at(n % 3)));
    support::read_until(broker, &output, DEADLINE, |seen| seen.len() == 20);
    let (status, ready) = pawl.get("/ready").expect("it runs");
    assert_eq!(status, 503, "{ready}");
    let log = pawl.log();
    assert!(log.contains("not taken in: the changelog has only 2 partitions"), "{log}");
    assert_eq!(pawl.terminate(), 0, "{log}");
    assert_eq!(support::read_all(broker, &output).len(), 20);
}

#[test]
fn a_changelog_that_forgets_is_refused() {
    let Some(broker) = support::broker() else { return };
    let (input, group) = (support::topic(broker, "orders", 1), support::unique("billing"));
    clients::topic_with(broker, &format!("{group}-changelog"), 1, &[("cleanup.policy", "compact,delete")]);
    let output = support::topic(broker, "billed", 1);
    let mut pawl = Pawl::new(&support::settings(broker, &input, &group, &forwarding(&output)));
    pawl.start().assert_refused(&["has cleanup.policy=compact,delete", "Set cleanup.policy=compact on it"]);
}

#[test]
fn a_ledger_of_a_newer_version_is_refused_and_left_as_it_is() {
    let Some(broker) = support::broker() else { return };
    let (input, group) = (support::topic(broker, "orders", 1), support::unique("billing"));
    let (output, changelog) = (support::topic(broker, "billed", 1), format!("{group}-changelog"));
    clients::topic_with(broker, &changelog, 1, &[("cleanup.policy", "compact")]);
    let row = PartitionRow::new("id".into(), 0, 0, 0, [0; 16]).row(&mut BytesMut::new());
    let mut newer = row.value.expect("a value").to_vec();
    newer[0] = 9;
    support::produce(broker, &changelog, [Out::new(row.key.to_vec(), newer.clone()).at(0)]);
    support::produce(broker, &input, events(0..5));
    let mut pawl = Pawl::new(&support::settings(broker, &input, &group, &forwarding(&output)));
    pawl.start().assert_refused(&["a partition row has version 9", "run the newer version again"]);
    assert_eq!(support::read_all(broker, &output), []);
    let rows = support::read_all(broker, &changelog);
    assert!(
        rows.iter()
            .filter(|row| row.key.as_deref() == Some(b"\x01"))
            .all(|row| row.value == Some(newer.clone()))
    );
}

#[test]
fn a_topic_made_anew_while_pawl_runs_is_noticed() {
    let Some(broker) = support::broker() else { return };
    let (input, output) = (support::topic(broker, "orders", 1), support::topic(broker, "billed", 1));
    let more =
        format!("{}[kafka.properties]\n\"topic.metadata.refresh.interval.ms\" = 500\n", forwarding(&output));
    let mut pawl = Pawl::new(&support::settings(broker, &input, &support::unique("billing"), &more));
    pawl.start().wait_ready();
    support::produce(broker, &input, events(0..100));
    support::read_until(broker, &output, DEADLINE, |seen| seen.len() == 100);
    clients::delete(broker, &input);
    support::until("the topic to be gone", DEADLINE, || {
        clients::ends(broker, &input).is_none().then_some(())
    });
    clients::topic_with(broker, &input, 1, &[]);
    support::produce(broker, &input, events(100..110));
    pawl.assert_refused(&["deleted and made anew while Pawl was running", "begin with a new group"]);
}

#[test]
fn a_restarted_static_member_gets_its_partitions_back_and_nobody_else_notices() {
    let Some(broker) = support::broker() else { return };
    let (input, output) = (support::topic(broker, "orders", 4), support::topic(broker, "billed", 4));
    let more = format!("{}membership = {{ static = true }}\n", forwarding(&output));
    let settings = support::settings(broker, &input, &support::unique("billing"), &more)
        .replace("session_timeout = \"6s\"", "session_timeout = \"120s\"");
    let mut both = [named("a", &settings), named("b", &settings)];
    for pawl in &mut both {
        pawl.start();
    }
    both.iter().for_each(|pawl| wait_running(pawl, 2));
    let before = both[1].metric("pawl_rebalances_total");
    assert_eq!(both[0].terminate(), 0, "{}", both[0].log());
    support::produce(broker, &input, events(0..200));
    both[0].start();
    assert_once_and_in_order(broker, &output, 200);
    assert_eq!(both[1].metric("pawl_rebalances_total"), before, "{}", both[1].log());
    for pawl in &mut both {
        assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    }
}

#[test]
fn a_call_that_outlasts_the_grace_is_cancelled_and_made_again_by_the_new_owner() {
    let Some(broker) = support::broker() else { return };
    let (input, group) = (support::topic(broker, "orders", 2), support::unique("billing"));
    let service = Service::start(|_| Reply::status(200).held());
    support::produce(broker, &input, (0..2).map(|n| Out::new(format!("K{n}"), n.to_string()).at(n)));
    let more = format!(
        "http = {{ url = \"{}\", timeout = \"120s\" }}\nmembership = {{ revoke_grace = \"500ms\" }}\n",
        service.url()
    );
    let settings = support::settings(broker, &input, &group, &more);
    let mut both = [named("a", &settings), named("b", &settings)];
    both[0].start();
    service.wait("both calls", 2, DEADLINE, |_| true);
    both[1].start();
    // One partition moves, and its call with it; the other's goes on.
    service.wait("the call of the new owner", 3, DEADLINE, |_| true);
    service.release();
    clients::wait_for_end(broker, &group, &input, DEADLINE);
    for pawl in &mut both {
        assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    }
    assert_eq!(service.calls().len(), 3, "the call of the partition that stayed was not cancelled");
    assert!(service.count(Call::succeeded) >= 2);
    assert!(!both[0].log().contains("attempt 2"), "being cancelled is no failure and costs no attempt");
}

#[test]
fn a_partition_that_went_away_paused_is_read_again_when_it_comes_back() {
    let Some(broker) = support::broker() else { return };
    let (input, group) = (support::topic(broker, "orders", 2), support::unique("billing"));
    let service = Service::start(|_| Reply::status(200).held());
    let records = |from: i32, to: i32| (from..to).map(|n| Out::new(format!("K{n}"), n.to_string()).at(n % 2));
    support::produce(broker, &input, records(0, 200));
    let more = format!(
        "http = {{ url = \"{}\", timeout = \"120s\" }}\nmembership = {{ revoke_grace = \"200ms\" }}\n\
         intake = {{ max_records = 10 }}\n",
        service.url()
    );
    let settings = support::settings(broker, &input, &group, &more);
    let mut both = [named("a", &settings), named("b", &settings)];
    both[0].start();
    service.wait("both partitions to be full", 20, DEADLINE, |_| true);
    both[1].start();
    both.iter().for_each(|pawl| wait_running(pawl, 1));
    service.release();
    clients::wait_for_end(broker, &group, &input, DEADLINE);
    assert_eq!(both[1].terminate(), 0, "{}", both[1].log());
    wait_running(&both[0], 2);
    support::produce(broker, &input, records(200, 400));
    clients::wait_for_end(broker, &group, &input, DEADLINE);
    assert_eq!(both[0].terminate(), 0, "{}", both[0].log());
}

#[test]
fn a_strangers_open_transaction_in_the_changelog_is_named() {
    let Some(broker) = support::broker() else { return };
    let (input, output) = (support::topic(broker, "orders", 1), support::topic(broker, "billed", 1));
    let group = support::unique("billing");
    let settings = support::settings(broker, &input, &group, &forwarding(&output))
        .replace("[store]\n", "transaction_timeout = \"1s\"\n[store]\nrestore_timeout = \"1s\"\n");
    support::produce(broker, &input, events(0..10));
    let mut pawl = Pawl::new(&settings);
    pawl.start();
    support::read_until(broker, &output, DEADLINE, |seen| seen.len() == 10);
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    let changelog = format!("{group}-changelog");
    let stranger = clients::open_transaction(broker, &changelog, Out::new("not", "a row").at(0));
    pawl.start().assert_refused(&["nothing was read for 31s", &changelog, "find-hanging"]);
    // With the transaction gone it goes on where it was.
    drop(stranger);
    support::produce(broker, &input, events(10..20));
    pawl.start();
    assert_once_and_in_order(broker, &output, 20);
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
}

#[test]
fn a_producers_transaction_that_stays_open_in_the_input_shows_as_lag_and_in_ready() {
    let Some(broker) = support::broker() else { return };
    let (input, output) = (support::topic(broker, "orders", 1), support::topic(broker, "billed", 1));
    let settings = support::settings(broker, &input, &support::unique("billing"), &forwarding(&output));
    let mut pawl = Pawl::new(&format!("{settings}\n[admin]\nstalled_after = \"5s\"\n"));
    support::produce(broker, &input, events(0..10));
    pawl.start().wait_ready();
    support::read_until(broker, &output, DEADLINE, |seen| seen.len() == 10);
    let lag = || pawl.metric("kafka_consumergroup_lag");
    support::until("no lag", DEADLINE, || (lag() == Some(0.0)).then_some(()));
    let stranger = clients::open_transaction(broker, &input, Out::new("o-0", "undecided"));
    support::until("the undecided record", DEADLINE, || (lag() == Some(1.0)).then_some(()));
    let told = support::until("/ready to say no", DEADLINE, || {
        pawl.get("/ready").filter(|(status, _)| *status == 503).map(|(_, text)| text)
    });
    assert!(told.contains("holds back 1 offsets") && told.contains("find-hanging"), "{told}");
    drop(stranger);
    pawl.wait_ready();
    support::produce(broker, &input, events(10..20));
    assert_once_and_in_order(broker, &output, 20);
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
}

#[test]
fn a_topic_that_lost_its_end_is_refused_with_the_remedy() {
    let Some(broker) = Broker::own() else { return };
    let (input, output) = (support::topic(&broker, "orders", 1), support::topic(&broker, "billed", 1));
    let settings = support::settings(&broker, &input, &support::unique("billing"), &forwarding(&output));
    support::produce(&broker, &input, events(0..100));
    let mut pawl = Pawl::new(&settings);
    pawl.start();
    support::read_until(&broker, &output, DEADLINE, |seen| seen.len() == 100);
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    // As after a lost disk, or when a replica that was behind became the leader.
    broker.stop();
    let log = broker.dir().join(format!("data/{input}-0/00000000000000000000.log"));
    let file = std::fs::OpenOptions::new().write(true).open(&log).expect("the input's log");
    file.set_len(0).expect("it can be cut");
    broker.start();
    let end = "the ledger has taken the offsets below 100, but the topic ends at 0: it lost its end";
    pawl.start().assert_refused(&[end, "begin with a new group"]);
}

#[test]
fn a_write_right_that_is_taken_away_ends_the_run_with_the_remedy_and_loses_nothing() {
    let Some(broker) = support::broker() else { return };
    let (input, output) = (support::topic(broker, "orders", 1), support::topic(broker, "billed", 1));
    let settings = support::settings(broker, &input, &support::unique("billing"), &forwarding(&output));
    let mut pawl = Pawl::new(&settings);
    pawl.start().wait_ready();
    support::produce(broker, &input, events(0..10));
    support::read_until(broker, &output, DEADLINE, |seen| seen.len() == 10);
    let acl = |args: &[&str]| {
        let args =
            [&["--bootstrap-server", broker.bootstrap(), "--topic", &output, "--force"], args].concat();
        let done = broker.java_tool("org.apache.kafka.tools.AclCommand", &args, b"").expect("Java is there");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    };
    acl(&["--add", "--allow-principal", "User:*", "--operation", "All"]);
    acl(&["--add", "--deny-principal", "User:*", "--operation", "Write"]);
    support::produce(broker, &input, events(10..20));
    pawl.assert_refused(&[
        "Topic authorization failed",
        &format!("User:ANONYMOUS, over a plain connection has no right Write to the topic \"{output} or "),
        "Nothing of the epoch is visible",
    ]);
    acl(&["--remove", "--deny-principal", "User:*", "--operation", "Write"]);
    pawl.start();
    assert_once_and_in_order(broker, &output, 20);
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
}
