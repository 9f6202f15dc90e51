//! The clock of an instance jumps, as after a virtual machine was resumed or a wrong time server was
//! put right. What is measured is measured with another clock; what is remembered, by the records' time.

use std::process::Command;
use std::time::Duration;

use crate::support::{self, Out, Pawl, clients, fetched};

const DEADLINE: Duration = Duration::from_secs(90);
const KEYS: u32 = 50;

fn events(numbers: std::ops::Range<u32>) -> impl Iterator<Item = Out> {
    numbers.map(|n| Out::new(format!("K{}", n % KEYS), n.to_string()).header("ce_id", n.to_string()))
}

/// The library that tells a program another time. `None`, said aloud, where it is missing.
fn library() -> Option<String> {
    if !fetched::runs("faketime", "--help") {
        fetched::skip_aloud("THE TEST OF A CLOCK THAT JUMPS IS SKIPPED: faketime was not found.");
        return None;
    }
    let shown = Command::new("faketime").args(["-m", "-f", "+0", "printenv", "LD_PRELOAD"]).output();
    let shown = shown.expect("faketime can be started").stdout;
    Some(String::from_utf8(shown).expect("a path").trim().to_owned())
}

#[test]
fn a_clock_that_is_set_is_told_and_a_restart_loses_and_repeats_nothing() {
    let (Some(broker), Some(library)) = (support::broker(), library()) else { return };
    let (input, output) = (support::topic(broker, "orders", 2), support::topic(broker, "copies", 2));
    let group = support::unique("clocks");
    let more = format!("event_id = \"header:ce_id\"\nforward = {{ topic = \"{output}\" }}\n");
    let mut pawl = Pawl::new(&support::settings(broker, &input, &group, &more));
    let offset = pawl.dir().join("offset");
    let jump = |to: &str| std::fs::write(&offset, to).expect("the scratch directory can be written");
    let told_time = [
        ("LD_PRELOAD", library.as_str()),
        ("FAKETIME_TIMESTAMP_FILE", offset.to_str().expect("a path that is text")),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];

    let mut published = 0;
    let mut wave = |pawl: &Pawl| {
        // All that came before once more, and as much as one wave is that is new.
        support::produce(broker, &input, events(0..published + 200));
        published += 200;
        clients::wait_for_end(broker, &group, &input, DEADLINE);
        let seen = support::read_all(broker, &output);
        assert_eq!(seen.len(), published as usize, "{}", pawl.log());
    };
    // The library does not reach all of librdkafka's waits, which last for as long as the clock was set by
    // then: so nothing is asked of this process after the step but to tell of it.
    for (set_to, expected) in [("+365d", "set forward by"), ("-2d", "set back by")] {
        jump("+0");
        pawl.set_env(&told_time);
        pawl.start();
        wave(&pawl);
        jump(set_to);
        let told = || pawl.log().contains(expected).then_some(());
        support::until("the step to be told", DEADLINE, told);
        pawl.kill();
        pawl.set_env(&[]);
        pawl.start();
        wave(&pawl);
        assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    }
    pawl.audit();
}
