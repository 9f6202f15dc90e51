//! The support code itself: a test broker that did less than it says would make every other
//! test worthless.

use std::process::Stdio;
use std::time::Duration;

use crate::support::{self, Out, process};

#[test]
fn records_come_back_with_their_bytes_and_headers() {
    let Some(broker) = support::broker() else { return };
    let topic = support::topic(broker, "round-trip", 2);
    let out = Out::new("k", b"\x00\xffv".to_vec()).at(1).header("h", "1").header("h", "2");
    support::produce(broker, &topic, [out.clone()]);
    let seen = support::read_all(broker, &topic);
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].partition, seen[0].offset), (1, 0));
    assert_eq!((&seen[0].key, &seen[0].value, &seen[0].headers), (&out.key, &out.value, &out.headers));
    assert_eq!(seen[0].header("h"), Some(&b"2"[..]), "the last header of a name counts");
}

#[test]
fn a_broker_of_ones_own_keeps_its_records_over_a_crash_and_ends_when_dropped() {
    let Some(_) = support::broker() else { return };
    let Some(broker) = support::Broker::own() else { return };
    let topic = support::topic(&broker, "kept", 1);
    support::produce(&broker, &topic, [Out::new("k", "before")]);
    broker.restart();
    support::produce(&broker, &topic, [Out::new("k", "after")]);
    broker.kill();
    broker.start();
    let seen = support::read_until(&broker, &topic, Duration::from_secs(30), |seen| seen.len() == 2);
    assert_eq!([seen[0].text(), seen[1].text()], ["before", "after"]);
    let pid = broker.pid().expect("it runs");
    drop(broker);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

/// The child is started by a second test process that is then killed: nothing is left to stop it but
/// the kernel.
#[test]
fn a_child_ends_with_the_process_that_started_it() {
    const HELPER: &str = "PAWL_TEST_HELPER_SLEEPS";
    if std::env::var_os(HELPER).is_some() {
        let mut sleep = std::process::Command::new("sleep");
        // No handle of ours: a child that outlives us must not hold the test run's output open.
        sleep.arg("60").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = process::spawn(sleep).expect("sleep can be started");
        println!("child {}", child.id());
        child.wait().expect("the child is killed first");
        return;
    }
    let dir = process::scratch("helper");
    let out = dir.join("out");
    let mut command = std::process::Command::new(std::env::current_exe().expect("this test binary"));
    command.args(["--exact", "broker::a_child_ends_with_the_process_that_started_it", "--nocapture"]);
    command.env(HELPER, "1").stdout(std::fs::File::create(&out).expect("a writable directory"));
    let mut helper = process::spawn(command).expect("this binary can be started");
    let pid = support::until("the child's id", Duration::from_secs(30), || {
        let text = std::fs::read_to_string(&out).expect("just created");
        text.lines().find_map(|line| line.strip_prefix("child ")?.parse::<u32>().ok())
    });
    let exe = format!("/proc/{pid}/cmdline");
    let sleeps = || std::fs::read(&exe).is_ok_and(|line| line.starts_with(b"sleep\0"));
    assert!(sleeps());
    process::kill(&mut helper);
    support::until("the end of the child", Duration::from_secs(10), || (!sleeps()).then_some(()));
}
