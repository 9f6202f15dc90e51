//! The ledger moves with the partition: local state that is lost, damaged, full or foreign is
//! rebuilt from the changelog or refused with a clear message, and nothing is applied again.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::{self, Broker, Out, Pawl, Reply, Seen, Service};

const DEADLINE: Duration = Duration::from_secs(90);

/// A handler that forwards events by their id.
struct Copying {
    broker: &'static Broker,
    input: String,
    output: String,
    group: String,
}

impl Copying {
    fn new(broker: &'static Broker) -> Copying {
        let topic = |name| support::topic(broker, name, 2);
        Copying { broker, input: topic("events"), output: topic("copies"), group: support::unique("copy") }
    }

    fn settings(&self, more: &str) -> String {
        let output = &self.output;
        // More ids than these tests have events of a key.
        let ids = "event_id = \"header:ce_id\"\nrecent_ids = 500";
        let more = format!("{ids}\nforward = {{ topic = \"{output}\" }}\n{more}");
        support::settings(self.broker, &self.input, &self.group, &more)
    }

    /// Events `from..to`, each with its id.
    fn publish(&self, from: u32, to: u32) {
        let event = |n| Out::new(format!("K{}", n % 97), format!("{n}")).header("ce_id", format!("e{n}"));
        support::produce(self.broker, &self.input, (from..to).map(event));
    }

    /// Runs over the first `count` events and stops.
    fn run_over(&self, count: u32) -> Pawl {
        self.publish(0, count);
        let mut pawl = Pawl::new(&self.settings(""));
        pawl.start();
        self.wait_for(count as usize);
        assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
        pawl
    }

    fn wait_for(&self, count: usize) -> Vec<Seen> {
        support::read_until(self.broker, &self.output, DEADLINE, |seen| seen.len() >= count)
    }

    /// Publishes the events below `known` again and one new of each key, and checks that only these
    /// come out.
    fn check_that_nothing_is_forgotten(&self, known: u32) {
        self.publish(0, known);
        self.publish(known, known + 97);
        support::clients::wait_for_end(self.broker, &self.group, &self.input, DEADLINE);
        let seen = support::read_all(self.broker, &self.output);
        assert_eq!(seen.len(), known as usize + 97, "an event came out twice");
    }
}

fn log_line<'a>(log: &'a str, part: &str) -> &'a str {
    log.lines().rfind(|line| line.contains(part)).unwrap_or_else(|| panic!("{part:?} is not in\n{log}"))
}

#[test]
fn a_damaged_store_is_rebuilt_and_a_lost_one_too() {
    let Some(broker) = support::broker() else { return };
    let copying = Copying::new(broker);
    let mut pawl = copying.run_over(1_000);

    let files = damage(&pawl.dir().join("pawl-data/billing"));
    assert!(files >= 2, "sled keeps at least a configuration and a log");
    pawl.start().wait_ready();
    copying.check_that_nothing_is_forgotten(1_000);
    let log = pawl.log();
    assert!(log_line(&log, "the local view is damaged").contains("rebuilt from the changelog"), "{log}");
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());

    pawl.forget_store();
    pawl.start().wait_ready();
    copying.check_that_nothing_is_forgotten(1_097);
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    assert!(log_line(&pawl.log(), "ledger restored").contains("records="));
}

#[test]
fn damage_found_while_running_is_rebuilt_by_the_same_process_and_nothing_is_forgotten() {
    let Some(broker) = support::broker() else { return };
    for engine in ["sled", "fjall"] {
        let copying = Copying::new(broker);
        let mut pawl = copying.run_over(5_000);
        let store = format!("[store]\nengine = \"{engine}\"\n");
        pawl.set(&copying.settings("").replace("[store]\n", &store));
        // Once so that the view is of this engine, and once more so that nothing of it is in memory.
        for _ in 0..2 {
            pawl.start().wait_ready();
            assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
        }
        pawl.start().wait_ready();
        let set_aside = pawl.log().contains("the settings say fjall; it is rebuilt from the changelog");
        assert_eq!(set_aside, engine == "fjall", "{}", pawl.log());
        damage(&pawl.dir().join(format!("pawl-data/billing/{engine}.0")));
        copying.check_that_nothing_is_forgotten(5_000);
        let log = pawl.log();
        assert!(log_line(&log, "the local view is damaged").contains("rebuilt from the changelog"), "{log}");
        log_line(&log, "to be begun anew with an empty local view");
        assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
        pawl.start().wait_ready();
        copying.check_that_nothing_is_forgotten(5_097);
        assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
        assert_eq!(pawl.log().matches("the local view is damaged").count(), 1, "{}", pawl.log());
    }
}

/// Overwrites every file below a directory with noise of the same length. The store is running, so a
/// file may be gone by the time its turn comes: one that merging removed is no longer part of it.
fn damage(dir: &Path) -> usize {
    let mut files = 0;
    for entry in std::fs::read_dir(dir).expect("the store's directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files += damage(&path);
            continue;
        }
        match overwrite(&path) {
            Ok(()) => files += 1,
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{}: {error}", path.display())
            }
        }
    }
    files
}

fn overwrite(path: &Path) -> std::io::Result<()> {
    use std::io::Write;
    let mut file = std::fs::OpenOptions::new().write(true).open(path)?;
    let length = file.metadata()?.len();
    file.write_all(&vec![0xA5; length as usize])
}

#[test]
fn a_full_disk_is_named_with_its_remedy_and_loses_nothing() {
    let Some(broker) = support::broker() else { return };
    let copying = Copying::new(broker);
    let mut pawl = Pawl::new(&copying.settings(""));
    let Some(disk) = Disk::mount(pawl.dir().join("pawl-data"), "3m") else { return };
    copying.publish(0, 1_000);
    pawl.start();
    copying.wait_for(1_000);
    // A neighbour takes the rest of the disk.
    disk.fill();
    copying.publish(1_000, 20_000);
    pawl.assert_refused(&["pawl-data/billing", "free the disk or remove the directory", "Nothing is lost"]);
    disk.free();
    pawl.start();
    copying.wait_for(20_000);
    copying.check_that_nothing_is_forgotten(20_000);
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
}

/// A small disk of its own, as root only can have it.
struct Disk(PathBuf);

impl Disk {
    fn mount(dir: PathBuf, size: &str) -> Option<Disk> {
        std::fs::create_dir_all(&dir).expect("the scratch directory can be written");
        let option = format!("size={size}");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &option, "tmpfs"]).arg(&dir).output();
        let mounted = mount.as_ref().is_ok_and(|output| output.status.success());
        if !mounted {
            use std::io::Write;
            let text = format!("\n*** THE TEST OF A FULL DISK IS SKIPPED: mounting needs root: {mount:?}\n");
            // Not eprintln!, whose text the harness swallows when a test passes.
            std::io::stderr().write_all(text.as_bytes()).expect("stderr can be written");
        }
        mounted.then_some(Disk(dir))
    }

    fn fill(&self) {
        use std::io::Write;
        let mut file = std::fs::File::create(self.0.join("neighbour")).expect("one more file");
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("neighbour")).expect("a removable file");
        let mut remount = Command::new("mount");
        let grown = remount.args(["-o", "remount,size=256m"]).arg(&self.0).status();
        assert!(grown.is_ok_and(|status| status.success()));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: the process that uses it is killed later, by its own guard.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_group_whose_offset_was_set_back_processes_nothing_again_and_one_set_forward_skips() {
    let Some(broker) = support::broker() else { return };
    let copying = Copying::new(broker);
    let mut pawl = copying.run_over(500);
    let reached = support::clients::committed(broker, &copying.group, &copying.input);

    support::clients::commit(broker, &copying.group, &copying.input, 0, 3);
    copying.publish(500, 600);
    pawl.start();
    assert_eq!(copying.wait_for(600).len(), 600);
    assert!(log_line(&pawl.log(), "lies below the ledger's").contains("the ledger counts"));
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    let after = support::clients::committed(broker, &copying.group, &copying.input);
    assert!(after[&0] > reached[&0] && after[&1] > reached[&1], "{reached:?}, then {after:?}");

    copying.publish(600, 700);
    let end = support::clients::ends(broker, &copying.input).expect("the topic is there")[&0];
    support::clients::commit(broker, &copying.group, &copying.input, 0, end);
    pawl.start();
    let expected = 700 - usize::try_from(end - after[&0]).expect("records were added");
    assert_eq!(copying.wait_for(expected).len(), expected);
    assert!(log_line(&pawl.log(), "was moved from").contains("an operator's skip"));
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    assert_eq!(support::read_all(broker, &copying.output).len(), expected, "skipped is skipped");
}

#[test]
fn a_ledger_of_other_settings_or_of_another_topic_is_refused() {
    let Some(broker) = support::broker() else { return };
    let copying = Copying::new(broker);
    let mut pawl = copying.run_over(50);
    pawl.set(&copying.settings("key = \"header:ce_id\""));
    pawl.start().assert_refused(&[
        "other settings for key, null_key, event_id or sequence",
        "set them back, or begin with a new group",
    ]);

    pawl.set(&copying.settings(""));
    support::clients::delete(broker, &copying.input);
    support::until("the new topic", DEADLINE, || {
        support::topic_with(broker, &copying.input, 2, &[]);
        let records = support::clients::ends(broker, &copying.input)?;
        (records.values().all(|end| *end == 0)).then_some(())
    });
    pawl.start().assert_refused(&["it was deleted and made anew", "begin with a new group"]);
}

#[test]
fn what_retention_removed_is_told_and_the_rest_is_processed_while_running_and_after_a_restart() {
    let Some(broker) = support::broker() else { return };
    let (input, group) = (support::topic(broker, "orders", 1), support::unique("billing"));
    let service =
        Service::start(|call| if call.offset == 0 { Reply::status(200).held() } else { Reply::status(200) });
    // Large records and little room, so that most are not yet fetched while the first is at the service.
    let more = format!(
        "http = {{ url = \"{}\", timeout = \"60s\" }}\nintake = {{ max_records = 1, max_bytes = \"1MiB\" }}\n",
        service.url()
    );
    let mut pawl = Pawl::new(&support::settings(broker, &input, &group, &more));
    let record = |n: usize| Out::new("K", format!("{n:060000}"));
    support::produce(broker, &input, (0..100).map(record));
    pawl.start();
    service.wait("the first call", 1, DEADLINE, |_| true);
    support::clients::remove_below(broker, &input, 0, 60);
    service.release();
    service.wait("the last call", 1, DEADLINE, |call| call.received.offset == 99 && call.succeeded());
    support::clients::wait_for_end(broker, &group, &input, DEADLINE);
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    let told = |log: &str| log.matches("before they were read").count();
    assert_eq!(told(&pawl.log()), 1, "{}", pawl.log());
    assert!(log_line(&pawl.log(), "retention removed").contains("going on at 60"), "{}", pawl.log());

    support::produce(broker, &input, (100..200).map(record));
    support::clients::remove_below(broker, &input, 0, 150);
    pawl.start();
    service.wait("the last call", 1, DEADLINE, |call| call.received.offset == 199 && call.succeeded());
    support::clients::wait_for_end(broker, &group, &input, DEADLINE);
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    assert_eq!(told(&pawl.log()), 2, "{}", pawl.log());
    let line = "removed 50 offsets from 100 on";
    assert!(log_line(&pawl.log(), "retention removed").contains(line), "{}", pawl.log());
    let offsets: Vec<i64> = service.calls().iter().map(|call| call.received.offset).collect();
    let fetched =
        offsets.iter().position(|offset| *offset == 60).expect("60 is the first that is left") as i64;
    let expected: Vec<i64> = (0..fetched).chain(60..100).chain(150..200).collect();
    assert_eq!(offsets, expected);
}

#[test]
fn a_group_that_begins_with_the_latest_keeps_that_place_through_a_kill() {
    let Some(broker) = support::broker() else { return };
    let copying = Copying::new(broker);
    copying.publish(0, 100);
    let mut pawl = Pawl::new(&copying.settings("start = \"latest\""));
    pawl.start().wait_ready();
    pawl.kill();
    copying.publish(100, 150);
    pawl.start();
    assert_eq!(copying.wait_for(50).len(), 50);
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
    assert_eq!(support::read_all(broker, &copying.output).len(), 50, "nothing from before the first start");
    assert!(!pawl.log().contains("operator's skip"), "its own claim is nobody's skip:\n{}", pawl.log());
}

#[test]
fn a_changelog_that_is_gone_is_not_taken_for_a_new_group() {
    let Some(broker) = support::broker() else { return };
    let copying = Copying::new(broker);
    let mut pawl = copying.run_over(50);
    let changelog = format!("{}-changelog", copying.group);
    support::clients::delete(broker, &changelog);
    support::until("the end of the changelog", DEADLINE, || {
        support::clients::ends(broker, &changelog).is_none().then_some(())
    });
    // Also at the second start, whose predecessor has claimed the partitions meanwhile.
    for _ in 0..2 {
        pawl.start().assert_refused(&[&format!("{changelog} holds none")]);
    }
    // Whoever sets the offset by hand says that the loss is accepted.
    let ends = support::clients::ends(broker, &copying.input).expect("the topic is there");
    for (partition, end) in ends {
        support::clients::commit(broker, &copying.group, &copying.input, partition, end);
    }
    pawl.start();
    copying.publish(50, 60);
    assert_eq!(copying.wait_for(60).len(), 60);
    assert_eq!(pawl.terminate(), 0, "{}", pawl.log());
}
