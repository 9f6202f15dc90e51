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
fn a_clock_that_jumps_a_year_forward_and_back_loses_and_repeats_nothing() {
    let (Some(broker), Some(library)) = (support::broker(), library()) else { return };
    let (input, output) = (support::topic(broker, "orders", 2), support::topic(broker, "copies", 2));
    let group = support::unique("clocks");
    let more = format!("event_id = \"header:ce_id\"\nforward = {{ topic = \"{output}\" }}\n");
    let mut pawl = Pawl::new(&support::settings(broker, &input, &group, &more));
    let offset = pawl.dir().join("offset");
    let jump = |to: &str| std::fs::write(&offset, to).expect("the scratch directory can be written");
    pawl.set_env("LD_PRELOAD", &library);
    pawl.set_env("FAKETIME_TIMESTAMP_FILE", offset.to_str().expect("a path that is text"));
    pawl.set_env("FAKETIME_NO_CACHE", "1");
    pawl.set_env("FAKETIME_DONT_FAKE_MONOTONIC", "1");

    let mut published = 0;
    for (clock, is_killed) in
        [("+0", false), ("+365d", false), ("-365d", true), ("+0", false), ("+30d", true)]
    {
        jump(clock);
        if pawl.pid().is_none() {
            pawl.start();
        }
        // All that came before once more, and as much as one wave is that is new.
        support::produce(broker, &input, events(0..published + 200));
        published += 200;
        clients::wait_for_end(broker, &group, &input, DEADLINE);
        let seen = support::read_all(broker, &output);
        assert_eq!(seen.len(), published as usize, "with the clock at {clock}:\n{}", pawl.log());
        pawl.wait_ready();
        // Not SIGTERM: librdkafka's threads wait by the clock that jumps, and end late.
        if is_killed {
            pawl.kill();
        }
    }
    assert!(pawl.log().contains("the local view is not believed"), "one of another year is rebuilt");
    pawl.audit();
}
