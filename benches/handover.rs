//! How long partitions pause when they move: two instances, a steady load, and for every output
//! partition the longest time in which nothing new of it could be read.
//!
//! `cargo bench --bench handover -- [--rounds N] [--membership "assignor = \"range\""] [--transaction-timeout 10s]`
//!
//! In each round one instance ends by SIGTERM, begins again, ends by SIGKILL and begins again. After a
//! SIGKILL its partitions wait for the end of its session, and for the end of a transaction that it may
//! have left open; what comes after the survivor's assignment is told apart.

#[path = "../tests/support/mod.rs"]
mod support;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use support::clients::Publisher;
use support::{Broker, Out, Pawl};

const PARTITIONS: i32 = 8;
const RATE: u64 = 2_000;
const KEYS: u64 = 2_000;
const DEADLINE: Duration = Duration::from_secs(90);
/// How long the load goes on before and after each change.
const CALM: Duration = Duration::from_secs(5);

/// When a record of each output partition was read.
type Arrivals = Arc<Mutex<Vec<Vec<SystemTime>>>>;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let option = |name: &str| args.iter().position(|arg| arg == name).map(|at| args[at + 1].clone());
    let rounds: u32 = option("--rounds").map_or(3, |text| text.parse().expect("a number"));
    let membership = option("--membership").unwrap_or_default();
    let transaction_timeout = option("--transaction-timeout").unwrap_or("10s".to_owned());
    let Some(broker) = support::broker() else { return };
    let (input, output) =
        (support::topic(broker, "moved", PARTITIONS), support::topic(broker, "seen", PARTITIONS));
    let done = Arc::new(AtomicBool::new(false));
    let arrivals: Arrivals = Arc::new(Mutex::new(vec![Vec::new(); PARTITIONS as usize]));
    let threads = [
        std::thread::spawn({
            let (publisher, input, done) = (Publisher::new(broker), input.clone(), done.clone());
            move || publish(&publisher, &input, &done)
        }),
        std::thread::spawn({
            let (consumer, arrivals, done) = (reader(broker, &output), arrivals.clone(), done.clone());
            move || read(&consumer, &arrivals, &done)
        }),
    ];
    let group = support::unique("handover");
    let mut instances = ["a", "b"].map(|name| {
        let settings = format!(
            "instance = \"{name}\"\n[kafka]\nbootstrap_servers = [\"{}\"]\n\
             transaction_timeout = \"{transaction_timeout}\"\n[handler.handover]\ntopic = \"{input}\"\n\
             group = \"{group}\"\nevent_id = \"header:ce_id\"\nforward = {{ topic = \"{output}\" }}\n\
             membership = {{ {membership} }}\n",
            broker.bootstrap()
        );
        Pawl::new(&settings)
    });
    println!(
        "{RATE} records/s, {PARTITIONS} partitions, two instances; membership = {{ {membership} }}, \
         transaction_timeout = {transaction_timeout}"
    );
    for instance in &mut instances {
        instance.start();
    }
    let [one, other] = &mut instances;
    for round in 1..=rounds {
        shared(one, other);
        let report = |what: &str, began, moved: &[usize]| tell(round, what, &arrivals, began, moved);
        let moved = one.partitions("running");
        let began = SystemTime::now();
        assert_eq!(one.terminate(), 0, "{}", one.log());
        report("SIGTERM", began, &moved);

        let began = SystemTime::now();
        one.start();
        shared(one, other);
        report("start", began, &one.partitions("running"));

        let moved = one.partitions("running");
        let began = SystemTime::now();
        one.kill();
        support::until("the survivor's assignment", DEADLINE, || {
            (other.partitions("running").len() == 8).then_some(())
        });
        support::until("its first records", DEADLINE, || {
            let arrivals = arrivals.lock().expect("no holder panics");
            let again =
                |n: &usize| arrivals[*n].last().is_some_and(|at| *at > began + Duration::from_secs(2));
            moved.iter().all(again).then_some(())
        });
        report("SIGKILL", began, &moved);
        tell_after_assignment(round, other, &arrivals, began, &moved);
        one.start();
    }
    done.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().expect("no panic");
    }
}

/// Waits until each has half of the partitions and both have got on for a while.
fn shared(one: &mut Pawl, other: &mut Pawl) {
    one.wait_ready();
    other.wait_ready();
    support::until("half of the partitions for each", DEADLINE, || {
        (one.partitions("running").len() == 4 && other.partitions("running").len() == 4).then_some(())
    });
    calm();
}

/// Lets the load go on: what is measured is what happens in that time.
fn calm() {
    let began = Instant::now();
    support::until("some seconds of load", DEADLINE, || (began.elapsed() > CALM).then_some(()));
}

/// Prints the longest pause of the partitions that moved and of those that stayed.
fn tell(round: u32, what: &str, arrivals: &Arrivals, began: SystemTime, moved: &[usize]) {
    calm();
    let arrivals = arrivals.lock().expect("no holder panics");
    let longest = |is: &dyn Fn(usize) -> bool| {
        let gaps = (0..arrivals.len()).filter(|n| is(*n)).map(|n| longest_gap(&arrivals[n], began));
        gaps.max().unwrap_or_default().as_millis()
    };
    let (gone, stayed) = (longest(&|n| moved.contains(&n)), longest(&|n| !moved.contains(&n)));
    println!(
        "round {round}: {what:<8} moved partitions paused for {gone:>6} ms, the others for {stayed:>5} ms"
    );
}

/// Prints how long the moved partitions still paused after the survivor was assigned them.
fn tell_after_assignment(
    round: u32,
    survivor: &Pawl,
    arrivals: &Arrivals,
    began: SystemTime,
    moved: &[usize],
) {
    let log = survivor.log();
    let assigned = log.lines().filter(|line| line.contains(" assigned ")).filter_map(|line| {
        let at = humantime::parse_rfc3339_weak(line.split(' ').next()?).ok()?;
        (at > began).then_some(at)
    });
    let Some(assigned) = assigned.min() else { return };
    let arrivals = arrivals.lock().expect("no holder panics");
    let first = moved.iter().filter_map(|n| arrivals[*n].iter().find(|at| **at > assigned));
    let last = first.max().copied().unwrap_or(assigned);
    let millis = |from, to: SystemTime| to.duration_since(from).unwrap_or_default().as_millis();
    println!(
        "round {round}:          assigned after {} ms, all of them going on {} ms later",
        millis(began, assigned),
        millis(assigned, last)
    );
}

fn longest_gap(arrivals: &[SystemTime], began: SystemTime) -> Duration {
    let recent: Vec<SystemTime> = arrivals.iter().copied().filter(|at| *at + CALM / 2 > began).collect();
    let gaps = recent.windows(2).map(|pair| pair[1].duration_since(pair[0]).unwrap_or_default());
    gaps.max().unwrap_or_default()
}

fn publish(publisher: &Publisher, topic: &str, done: &AtomicBool) {
    let (began, mut sent) = (Instant::now(), 0);
    while !done.load(Ordering::Relaxed) {
        let due = began.elapsed().as_millis() as u64 * RATE / 1_000;
        for n in sent..due {
            let event = Out::new(format!("K{}", n % KEYS), n.to_string()).header("ce_id", n.to_string());
            publisher.send(topic, &event);
        }
        sent = due;
        std::thread::sleep(Duration::from_millis(2));
    }
    publisher.flush();
}

fn reader(broker: &Broker, topic: &str) -> BaseConsumer {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", broker.bootstrap())
        .set("group.id", "handover-reader")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .create()
        .expect("a consumer");
    let mut list = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        list.add_partition_offset(topic, partition, Offset::Beginning).expect("a valid offset");
    }
    consumer.assign(&list).expect("assigns");
    consumer
}

fn read(consumer: &BaseConsumer, arrivals: &Arrivals, done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        if let Some(message) = consumer.poll(Duration::from_millis(50)) {
            let message = message.expect("no error in a benchmark");
            let mut arrivals = arrivals.lock().expect("no holder panics");
            arrivals[message.partition() as usize].push(SystemTime::now());
        }
    }
}
